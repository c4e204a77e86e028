"""Straight lines from stored values to image values, of DICOM and of NIfTI."""

from typing import Any, NamedTuple

import numpy as np

ROUNDING = 1e-4  # relative; DS values have 16 letters, sidecars six digits, and what was rounded to them stands beside
_FACTORS = (1e-30, 1e30)  # float32 holds images scaled by less than these


class Line(NamedTuple):
    """Image value = slope * stored + intercept; NaN where a header has a number that cannot be used."""

    slope: float
    intercept: float

    @property
    def is_usable(self) -> bool:
        return _FACTORS[0] < abs(self.slope) < _FACTORS[1] and abs(self.intercept) < _FACTORS[1]

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        return stored * self.slope + self.intercept

    def times(self, other: Any) -> float | None:
        """By what factor another scale differs; None: by more than a factor."""
        if not isinstance(other, Line):
            return None
        factor = other.slope / self.slope
        tolerance = ROUNDING * max(abs(other.intercept), abs(other.slope))
        return factor if abs(other.intercept - factor * self.intercept) <= tolerance else None

    def is_close(self, other: Any) -> bool:
        """Whether another scale is the same but for rounding."""
        factor = self.times(other)
        return factor is not None and abs(factor - 1) <= ROUNDING


AS_STORED = Line(1.0, 0.0)
