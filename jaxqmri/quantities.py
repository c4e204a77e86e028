"""What varies along the last axis of a series: echo time, inversion time or flip angle; and how files state it.

Milliseconds and degrees, as DICOM, people and the command line have them, become seconds and radians here.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .errors import MetadataError, UsageError


class Axis(NamedTuple):
    """What the images of a series differ in.

    Attributes:
        name: the argument of the readers that gives it.
        quantity: its name in print, singular.
        one: what a single image is called by it, e.g. an echo.
        many: several of them.
        symbol: short for the quantity, before a number.
        unit: the unit on display, in DICOM and on the command line.
        per_si: how many of them are one SI unit (s, rad).
        bids_per_si: the same for the unit of BIDS sidecars.
        keyword: its key in DICOM and in BIDS.
        tag: its DICOM tag.
        option: the option of the command line that gives it.
        lowest, highest: no image has one outside of these [SI].
        top: the largest of a series is not below this [SI].
        too_low, too_high: what values beyond these limits look like.
        use: what cannot be done without it.
        constant: why it may be the same in all images.
    """

    name: str
    quantity: str
    one: str
    many: str
    symbol: str
    unit: str
    per_si: float
    bids_per_si: float
    keyword: str
    tag: str
    option: str
    lowest: float
    highest: float
    top: float
    too_low: str
    too_high: str
    use: str
    constant: str

    @property
    def quantities(self) -> str:
        """The quantity's name in print, plural."""
        return f"{self.quantity}s"

    @property
    def si_unit(self) -> str:
        return "s" if self.unit == "ms" else "rad"

    @property
    def key(self) -> str:
        """Its values in SI units as a key of JSON: "echo_times_s"."""
        return f"{self.quantities.replace(' ', '_')}_{self.si_unit}"

    @property
    def where(self) -> str:
        """Where a DICOM file has it."""
        return f"{self.keyword} {self.tag}"

    @property
    def how_to_give(self) -> str:
        """The remedy where it is not to be had from the files."""
        return f"give the {self.quantities} with {self.option} ({self.name}= in Python)"

    def from_shown(self, number: float) -> float:
        """From ms or degrees to SI units."""
        return number / self.per_si

    def shown(self, values: float | Sequence[float] | np.ndarray) -> np.ndarray:
        """From SI units to ms or degrees, free of what floating point adds to round numbers."""
        return np.array([float(f"{self.per_si * v:.12g}") for v in np.ravel(values)])

    def listed(self, values: float | Sequence[float] | np.ndarray, separator: str = ", ") -> str:
        """Values [SI] in print, without their unit."""
        return separator.join(f"{v:g}" for v in self.shown(values))

    def described(self, values: Sequence[float] | np.ndarray, separator: str = ", ") -> str:
        """The values [SI] of several images in print, once where they do not vary: "25 deg in all 12 images"."""
        shown = self.shown(values)
        if len(shown) > 1 and np.all(shown == shown[0]):
            return f"{shown[0]:g} {self.unit} in all {len(shown)} images"
        return f"{self.listed(values, separator)} {self.unit}"


ECHO_TIME = Axis(
    name="te",
    quantity="echo time",
    one="echo",
    many="echoes",
    symbol="TE",
    unit="ms",
    per_si=1e3,
    bids_per_si=1.0,
    keyword="EchoTime",
    tag="(0018,0081)",
    option="--te-ms",
    lowest=50e-6,  # ultra-short echo sequences start near 8e-5 s for spoiled, fast-ramped readouts
    highest=2.0,  # the longest echoes in use (T2 of fluids) stay below one second
    top=0.0,
    too_low="seconds in a field of milliseconds",
    too_high="milliseconds in a field of seconds",
    use="the decay cannot be timed without it",
    constant="Some research sequences (GE EPI) store the shortest echo time on every image",
)
INVERSION_TIME = Axis(
    name="ti",
    quantity="inversion time",
    one="inversion time",
    many="inversion times",
    symbol="TI",
    unit="ms",
    per_si=1e3,
    bids_per_si=1.0,
    keyword="InversionTime",
    tag="(0018,0082)",
    option="--ti-ms",
    lowest=1e-3,  # an inversion pulse alone takes longer
    highest=30.0,  # seven T1 of water
    top=20e-3,  # nothing has recovered before
    too_low="seconds in a field of milliseconds",
    too_high="milliseconds in a field of seconds",
    use="the recovery cannot be timed without it",
    constant="T1 is seen in how the signal changes with it",
)
FLIP_ANGLE = Axis(
    name="flip_angles",
    quantity="flip angle",
    one="flip angle",
    many="flip angles",
    symbol="flip angle",
    unit="deg",
    per_si=180 / math.pi,
    bids_per_si=180 / math.pi,
    keyword="FlipAngle",
    tag="(0018,1314)",
    option="--flip-deg",
    lowest=math.radians(0.5),
    highest=math.radians(180) * (1 + 1e-6),
    top=math.radians(2),
    too_low="radians in a field of degrees",
    too_high="degrees in a field of radians",
    use="T1 cannot be told without it",
    constant="T1 is seen in how the signal changes with it",
)
AXES = {"te": ECHO_TIME, "ti": INVERSION_TIME, "flip_angle": FLIP_ANGLE}


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
            f"{where}: {axis.quantities} must be finite and positive, got {described}; give them with {axis.option}."
        )
    too_low = bool(np.any(values < axis.lowest)) or (len(values) > 1 and bool(np.max(values) < axis.top))
    if too_low or np.any(values > axis.highest):
        low, high = axis.listed(axis.lowest), axis.listed(axis.highest)
        outside = f"are outside {low} ... {high} {axis.unit}"
        if too_low and not np.any(values < axis.lowest):
            outside = f"stay below {axis.listed(axis.top)} {axis.unit}"
        raise MetadataError(
            f"{where}: {axis.quantities} {described} {outside}; they look like "
            f"{axis.too_low if too_low else axis.too_high}. Give the right ones with {axis.option}."
        )
    if len(values) > 1 and np.all(values == values[0]):
        raise MetadataError(
            f"{where}: all {len(values)} {axis.quantities} are {axis.listed(values[:1])} {axis.unit}. {axis.constant}; "
            f"give the real ones with {axis.option}."
        )


def given_values(axis: Axis, values: Sequence[float] | np.ndarray | None) -> np.ndarray | None:
    """Values of the caller in place of those in the files, checked; None where there are none.

    Raises:
        UsageError: not a list of numbers, or one of them twice.
        MetadataError: they cannot be in SI units.
    """
    if values is None:
        return None
    si = "seconds" if axis.si_unit == "s" else "radians"
    try:
        given = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{axis.name}: {axis.quantities} must be numbers in {si}, got {values!r}.") from error
    if given.ndim != 1 or not given.size:
        raise UsageError(f"{axis.name} must be a list of {axis.quantities} in {si}, got shape {given.shape}.")
    where = f"the given {axis.quantities} ({axis.name}, {axis.option})"
    check_axis_values(axis, given, where)
    if len(np.unique(given)) < len(given):
        raise UsageError(f"{where} name one {axis.quantity} twice; give one per image of a slice.")
    return given
