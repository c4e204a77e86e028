"""From measurements back to tissue."""
