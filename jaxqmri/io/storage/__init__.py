"""Atomic files, locks between runs, zip archives, and images larger than the memory."""
