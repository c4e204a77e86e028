"""Phase images as angles. What a stored number means is up to the vendor, so a file has to declare it.

Scaling by the largest value of the image, as some programs do, would make the angle depend on noise.
"""

from collections.abc import Iterable

import numpy as np

from ..errors import MetadataError

# Half a turn in the image values of Siemens (-4096 ... 4094), in milliradians (Philips' displayed values), in radians.
_HALF_TURNS = (4096.0, 1e3 * np.pi, np.pi)
_UNITS = {"rad": 1.0, "radian": 1.0, "radians": 1.0, "mrad": 1e-3, "milliradian": 1e-3, "milliradians": 1e-3}
_ROUNDED = 1e-3  # relative; headers print a half turn as 3142 or 3.14159
_STEPS = [2.0**n_bits - less for n_bits in range(8, 17) for less in (0, 1)]  # stored values in a whole turn
_BEYOND = 1.01  # half turns; -180 degrees may be rounded away from 0
UNDECLARED = (
    "it is not declared which range of values is a whole turn (a Rescale Slope and Intercept from -4096, -3142 or -pi "
    "upwards, Rescale Type or Units rad or mrad)"
)


def radians_per_unit(slope: float, intercept: float, unit: str = "") -> float | None:
    """Angle per image value [rad] by slope, intercept and unit in a phase image's header; None where undeclared."""
    if unit.strip().lower() in _UNITS:
        return _UNITS[unit.strip().lower()]
    if slope <= 0 or intercept >= 0 or not any(_about(-2 * intercept / slope, steps) for steps in _STEPS):
        return None
    return next((np.pi / half_turn for half_turn in _HALF_TURNS if _about(-intercept, half_turn)), None)


def _about(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= _ROUNDED * wanted


def common_factor(factors: Iterable[float | None], where: str) -> float:
    """The one angle per image value [rad] of all images of a series, `where`."""
    found = set(factors)
    factor = found.pop()
    if found or factor is None:
        what = "its images differ in the range of values that is a whole turn" if found - {None} else UNDECLARED
        raise MetadataError(
            f"{where}: phase images, and {what}, so no value can be turned into an angle; export them again with "
            "their scale, or convert them with dcm2niix."
        )
    return factor


def to_radians(data: np.ndarray, factor: float, where: str) -> None:
    """Turns (x, y, z, n) phase images as the file scales them into angles [rad], in place; checks that they are."""
    for k in range(data.shape[-1]):  # one by one: images as large as the memory are mapped from a file
        data[..., k] *= np.float32(factor)
        largest = float(np.max(np.abs(data[..., k]), where=np.isfinite(data[..., k]), initial=0.0))
        if largest > _BEYOND * np.pi:
            raise MetadataError(
                f"{where}: phase of {largest:.4g} rad by the range that its headers declare, more than "
                "half a turn, so they are wrong; export it again."
            )
