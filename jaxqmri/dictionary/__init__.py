"""Dictionaries of simulated signals and the exact search for the atom nearest to each measured one."""
