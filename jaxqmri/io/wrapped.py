"""Integers that ran over the largest that can be stored, and begin again at 0."""

import numpy as np

_RANGES = (2**12, 2**16)  # how many different integers scanners and files store
_LOW, _HIGH, _FULL = 0.25, 0.8, 0.9  # of such a range: what has begun again, what is next to it, what it is next to
_MOST_CLIPPED = 16  # pixels at the very top: values that are clipped there do not run over


def wrapped(stored: np.ndarray) -> np.ndarray:
    """(x, y, ...) bool: pixels near 0 that lie amid pixels near the top of the range of integers, in all directions.

    Air is open to one side at least, and between tissue and air, or a vessel, there are pixels of both.
    """
    top = int(stored.max(initial=0)) if stored.dtype.kind in "iu" else 0
    n = next((n for n in _RANGES if _FULL * n <= top < n), None)
    if n is None or np.count_nonzero(stored == n - 1) > _MOST_CLIPPED:
        return np.zeros(stored.shape, bool)
    low, high = (stored >= 0) & (stored < _LOW * n), stored >= _HIGH * n
    if not all(np.any(low[b] & high[a]) for a, b in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:]))):
        return np.zeros(stored.shape, bool)
    found = low.copy()
    for axis in (0, 1):
        for step in (1, -1):
            turned, lows, highs = (np.moveaxis(one, axis, 0)[::step] for one in (found, low, high))
            turned &= _behind(lows, highs)
    return found


def _behind(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where the first pixel on the way to the beginning of axis 0 that is not low is high."""
    found = np.zeros_like(low)
    for i in range(1, len(low)):
        found[i] = np.where(low[i - 1], found[i - 1], high[i - 1])
    return found
