"""Which quantity a caller wants to vary, and whether values of it can be."""

from collections.abc import Sequence

import numpy as np

from ..errors import MetadataError, UsageError
from ..quantities import AXES, Axis


def axis_named(name: str) -> Axis:
    """The axis that callers call "te", "ti" or "flip_angle".

    Raises:
        UsageError: another name.
    """
    if name not in AXES:
        raise UsageError(f"axis {name!r} is not one of {', '.join(AXES)}.")
    return AXES[name]


def requested_axis(
    axis: str | None,
    te: Sequence[float] | np.ndarray | None = None,
    ti: Sequence[float] | np.ndarray | None = None,
    flip_angles: Sequence[float] | np.ndarray | None = None,
) -> tuple[Axis, Sequence[float] | np.ndarray | None]:
    """What a caller wants to vary, and the values given for it or None; echo times unless something else is said.

    Raises:
        UsageError: values for two axes, or for another one than `axis`.
    """
    given = {name: values for name, values in zip(AXES, (te, ti, flip_angles), strict=True) if values is not None}
    if len(given) > 1 or (given and axis not in (None, *given)):
        names = " and ".join(AXES[name].name for name in given)
        raise UsageError(f"{names} given{f' with axis {axis!r}' if axis else ''}; only one can vary: give its values.")
    name = next(iter(given), axis or "te")
    return axis_named(name), given.get(name)


def check_axis_values(axis: Axis, values: np.ndarray, where: str) -> None:
    """Refuses values that cannot be in SI units, rather than guessing what was meant.

    Args:
        axis: what they are.
        values: (n,) [s] or [rad].
        where: the file or argument they came from, for the message.

    Raises:
        MetadataError: not finite, not positive, outside the range in use, or all equal.
    """
    described = axis.described(values)
    if not np.all(np.isfinite(values)) or np.any(values <= 0):
        raise MetadataError(
            f"{where}: {axis.terms} must be finite and positive, got {described}; give them with {axis.option}."
        )
    too_low = bool(np.any(values < axis.low)) or (len(values) > 1 and bool(np.max(values) < axis.top))
    if too_low or np.any(values > axis.high):
        low, high = axis.listed(axis.low), axis.listed(axis.high)
        outside = f"are outside {low} ... {high} {axis.shown_unit}"
        if too_low and not np.any(values < axis.low):
            outside = f"stay below {axis.listed(axis.top)} {axis.shown_unit}"
        raise MetadataError(
            f"{where}: {axis.terms} {described} {outside}; they look like "
            f"{axis.too_low if too_low else axis.too_high}. Give the right ones with {axis.option}."
        )
    if len(values) > 1 and np.all(values == values[0]):
        raise MetadataError(
            f"{where}: all {len(values)} {axis.terms} are {axis.listed(values[:1])} {axis.shown_unit}. "
            f"{axis.constant}; give the real ones with {axis.option}."
        )


def given_values(axis: Axis, values: Sequence[float] | np.ndarray | None) -> np.ndarray | None:
    """Values of the caller in place of those in the files, checked; None where there are none.

    Raises:
        UsageError: not a list of numbers, or one of them twice.
        MetadataError: they cannot be in SI units.
    """
    if values is None:
        return None
    si = "seconds" if axis.unit == "s" else "radians"
    try:
        given = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{axis.name}: {axis.terms} must be numbers in {si}, got {values!r}.") from error
    if given.ndim != 1 or not given.size:
        raise UsageError(f"{axis.name} must be a list of {axis.terms} in {si}, got shape {given.shape}.")
    where = f"the given {axis.terms} ({axis.name}, {axis.option})"
    check_axis_values(axis, given, where)
    if len(np.unique(given)) < len(given):
        raise UsageError(f"{where} name one {axis.term} twice; give one per image of a slice.")
    return given
