"""Atomic files, locks between runs, archives, and images larger than the memory."""
