"""Which quantity a caller wants to vary, and whether values of it can be in SI units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import Give, MetadataError, UsageError
from ..quantities import AXES, ECHO_TIME, Axis

Values = Sequence[float] | np.ndarray

ROUNDING = 1e-3  # of a time or an angle; scanners print the same one with more or fewer digits
NUDGED = 5e-3  # of the signal; GE moves TE and TR a little with the flip angle, and T1 by as much at most


def by_argument() -> dict[str, Axis]:
    """What may vary, by the argument that gives its values: te, ti, flip_angles."""
    return {axis.name: axis for axis in AXES.values()}


def axis_named(name: str) -> Axis:
    """The axis that callers call so: "te", "ti", "flip_angle"; raises UsageError where there is none."""
    if name not in (named := by_argument() | AXES):
        raise UsageError(f"axis {name!r} is not one of {', '.join(AXES)}.")
    return named[name]


def requested_axis(axis: str | None, given: Mapping[str, Any]) -> tuple[Axis, Any]:
    """What a caller wants to vary (echo times unless said otherwise), and what is `given` for it, by argument."""
    unknown = [name for name in given if name not in by_argument()]
    if unknown:
        raise TypeError(f"unknown argument {unknown[0]}=; what may vary between images: {', '.join(by_argument())}.")
    stated = {name: values for name, values in given.items() if values is not None}
    wanted = None if axis is None else axis_named(axis)
    if len(stated) > 1 or (stated and wanted and wanted.name not in stated):
        beside = f" with axis {axis!r}" if axis else ""
        raise UsageError(f"{' and '.join(stated)} given{beside}; only one can vary: give its values.")
    for name, values in stated.items():
        return axis_named(name), values
    return wanted or ECHO_TIME, None


def check_axis_values(axis: Axis, values: np.ndarray, where: str) -> None:
    """Refuses (n,) values of a file or argument, `where`, that cannot be in SI units or are all equal: no guesses."""
    remedy = (Give(axis.name, "the right ones"), ".")
    may_be_0 = axis.low <= 0
    if not np.all(np.isfinite(values)) or np.any(values < 0 if may_be_0 else values <= 0):
        wanted = "finite and not negative" if may_be_0 else "finite and positive"
        raise MetadataError(f"{where}: {axis.terms} must be {wanted}, got {axis.described(values)}; ", *remedy)
    below = bool(np.any(values < axis.low))
    too_low = below or (len(values) > 1 and bool(np.max(values) < axis.top))
    if too_low or np.any(values > axis.high):
        outside = f"are outside {axis.listed(axis.low)} ... {axis.listed(axis.high)} {axis.shown_unit}"
        if too_low and not below:
            outside = f"stay below {axis.listed(axis.top)} {axis.shown_unit}"
        units = (axis.unit_words, axis.shown_unit_words)
        unit, field = units if too_low else units[::-1]
        looks = f"{unit} in a field of {field}"
        raise MetadataError(
            f"{where}: {axis.terms} {axis.described(values)} {outside}; they look like {looks}. ", *remedy
        )
    if len(values) > 1 and np.all(values == values[0]):
        same = f"all {len(values)} {axis.terms} are {axis.listed(values[:1])} {axis.shown_unit}"
        raise MetadataError(f"{where}: {same}. {axis.constant}; ", *remedy)


def given_values(axis: Axis, values: Any) -> np.ndarray | None:
    """Values of the caller in place of those in the files, checked; None where there are none."""
    if values is None:
        return None
    try:
        given = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{axis.name}: {axis.terms} must be numbers in {axis.unit_words}, got {values!r}.") from error
    if given.ndim != 1 or not given.size:
        raise UsageError(f"{axis.name} must be a list of {axis.terms} in {axis.unit_words}, got shape {given.shape}.")
    where = f"the given {axis.terms}"
    check_axis_values(axis, given, where)
    if len(np.unique(given)) < len(given):
        raise UsageError(f"{where} name one {axis.term} twice; give one per image of a slice.")
    return given
