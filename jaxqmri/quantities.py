"""What is measured and what is mapped: one row per quantity, and the words for how a voxel ended.

Readers, axes, maps, colour bars, sidecars, tables, options and messages read these rows; a new quantity is a new row.
Numbers are SI units everywhere but on display, in DICOM and on the command line, for which each row has its shown unit.
"""

import enum
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np  # the command line reads this table before it knows whether anything is to be computed


@dataclass(frozen=True)
class Quantity:
    """A physical quantity that is given, varied or estimated."""

    name: str  # the argument or the field of a parameter type: "te", "t2"
    term: str  # its name in print, singular
    symbol: str  # short for it, before a number
    unit: str  # SI unit, "s", "rad" or "1" (a ratio)
    shown_unit: str  # on display, in DICOM and on the command line
    shown_per_si: float  # how many of them are one SI unit
    low: float  # nothing in use lies below or above [SI]; what does is in another unit
    high: float
    keyword: str = ""  # its key in DICOM and in BIDS; "": none
    tag: str = ""  # in DICOM
    flag: str = ""  # the option of the command line that gives it, without its dashes
    meaning: str = ""  # of a ratio: what over what
    # What it is often given in by mistake: how many of that unit are one SI unit, and how to mend it.
    mistaken_for: tuple[tuple[float, str], ...] = ()

    @property
    def terms(self) -> str:
        """The name in print, plural."""
        return f"{self.term}s"

    @property
    def key(self) -> str:
        """Its values in SI units as a key of JSON: "echo_times_s"."""
        return f"{re.sub('[ -]', '_', self.terms)}_{self.unit}"

    @property
    def where(self) -> str:
        """Where a DICOM file has it."""
        return f"{self.keyword} {self.tag}"

    @property
    def unit_words(self) -> str:
        """The SI unit in print."""
        return {"s": "seconds", "rad": "radians", "Hz": "hertz"}.get(self.unit, "a ratio")

    @property
    def shown_unit_words(self) -> str:
        """The shown unit in print."""
        return {"ms": "milliseconds", "deg": "degrees"}.get(self.shown_unit, self.unit_words)

    def out_of_range(self, values: "float | np.ndarray") -> str:
        """What is wrong with numbers of which the typical one cannot be, and the unit it may be in; "" if it can be.

        Typical of a map is the median of what is above 0, as zeros are its background.
        """
        import numpy as np

        numbers = np.asarray(values)
        numbers = numbers[np.isfinite(numbers) & ((numbers > 0) | (numbers.ndim == 0))]
        if not numbers.size or self.low <= (typical := float(np.median(numbers))) <= self.high:
            return ""
        least = 3 * self.low if self.low > 0 else self.high / 10
        mends = [mend for per_si, mend in self.mistaken_for if least <= typical / per_si <= self.high]
        what = f"{self.meaning or f'in {self.unit_words}'}, got {typical:g}"
        return f"{what}; divide {' or '.join(mends)}" if mends else f"{what}, outside {self.low:g} ... {self.high:g}"

    def from_shown(self, number: float) -> float:
        """From ms or degrees to SI units."""
        return number / self.shown_per_si

    def shown(self, values: "float | Sequence[float] | np.ndarray") -> "np.ndarray":
        """From SI units to ms or degrees, free of what floating point adds to round numbers."""
        import numpy as np

        return np.array([float(f"{self.shown_per_si * v:.12g}") for v in np.ravel(values)])

    def listed(self, values: "float | Sequence[float] | np.ndarray", separator: str = ", ") -> str:
        """Values [SI] in print, without their unit."""
        return separator.join(f"{v:g}" for v in self.shown(values))

    def described(self, values: "Sequence[float] | np.ndarray") -> str:
        """The values [SI] of several images in print, once where they do not vary: "25 deg in all 12 images"."""
        shown = self.shown(values)
        if len(shown) > 1 and (shown == shown[0]).all():
            return f"{shown[0]:g} {self.shown_unit} in all {len(shown)} images"
        return f"{self.listed(values)} {self.shown_unit}"


@dataclass(frozen=True)
class Axis(Quantity):
    """A quantity that varies along the last axis of a series."""

    one: str = ""  # what a single image is called by it, e.g. an echo
    many: str = ""
    top: float = 0.0  # the largest of a series is not below this [SI]
    use: str = ""  # what cannot be done without it
    constant: str = ""  # why it may be the same in all images
    bids_per_si: float = 1.0  # how many of the unit of BIDS sidecars are one SI unit
    job: str = ""  # what maps images along it, by the name of its command


_MS = {
    "unit": "s", "shown_unit": "ms", "shown_per_si": 1e3, "mistaken_for": ((1e3, "milliseconds by 1000"),),
}  # fmt: skip
_PER_CENT = (100.0, "per cent by 100")
_DEG = {"unit": "rad", "shown_unit": "deg", "shown_per_si": 180 / math.pi}
_RATIO = {"unit": "1", "shown_unit": "", "shown_per_si": 1.0}

# --- what varies between the images of a series ---

ECHO_TIME = Axis(
    "te", "echo time", "TE", **_MS,
    low=50e-6,  # ultra-short echo sequences start near 8e-5 s for spoiled, fast-ramped readouts
    high=2.0,  # the longest echoes in use (T2 of fluids) stay below one second
    keyword="EchoTime", tag="(0018,0081)", flag="te-ms", one="echo", many="echoes",
    use="the decay cannot be timed without it",
    constant="Some research sequences (GE EPI) store the shortest echo time on every image", job="t2star",
)  # fmt: skip
INVERSION_TIME = Axis(
    "ti", "inversion time", "TI", **_MS,
    low=1e-3,  # an inversion pulse alone takes longer
    high=30.0,  # seven T1 of water
    top=20e-3,  # nothing has recovered before
    keyword="InversionTime", tag="(0018,0082)", flag="ti-ms", one="inversion time", many="inversion times",
    use="the recovery cannot be timed without it",
    constant="T1 is seen in how the signal changes with it", job="t1",
)  # fmt: skip
FLIP_ANGLE = Axis(
    "flip_angles", "flip angle", "flip angle", **_DEG,
    low=math.radians(0.5), high=math.radians(180) * (1 + 1e-6), top=math.radians(2),
    keyword="FlipAngle", tag="(0018,1314)", flag="flip-deg", one="flip angle", many="flip angles",
    use="T1 cannot be told without it",
    constant="T1 is seen in how the signal changes with it", job="t1",
    bids_per_si=180 / math.pi,
)  # fmt: skip
SPIN_LOCK_TIME = Axis(
    "tsl", "spin-lock time", "TSL", **_MS,
    low=0.0,  # without a spin lock
    high=1.0,  # limited by the heating of tissue; T1rho of fluids stays below 0.5 s
    top=1e-3,
    keyword="SpinLockTime", flag="tsl-ms", one="spin-lock time", many="spin-lock times",
    use="T1rho cannot be told without it",
    constant="T1rho is seen in how the signal changes with it", job="t1rho",
)  # fmt: skip
# by what the readers call them
AXES = {"te": ECHO_TIME, "ti": INVERSION_TIME, "flip_angle": FLIP_ANGLE, "tsl": SPIN_LOCK_TIME}

# --- what is given or estimated ---

QUANTITIES = {
    row.name: row
    for row in (
        *AXES.values(),
        Quantity("t1", "T1", "T1", **_MS, low=1e-4, high=30.0, flag="t1-ms"),
        Quantity("t2", "T2", "T2", **_MS, low=1e-6, high=10.0),  # bound water 10 us, free water 3 s
        Quantity("t2star", "T2*", "T2*", **_MS, low=1e-6, high=10.0),
        Quantity("t_short", "time of the short pool", "T short", **_MS, low=1e-6, high=10.0),
        Quantity("t_long", "time of the long pool", "T long", **_MS, low=1e-6, high=10.0),
        Quantity("b0_change", "change of b0 across the slice", "b0 change", "Hz", "Hz", 1.0, low=-1e3, high=1e3),
        Quantity("fraction", "fraction of the short pool", "fraction", **_RATIO, low=0.0, high=1.0,
                 meaning="a share of all signal", mistaken_for=(_PER_CENT,)),
        Quantity("tr", "repetition time", "TR", **_MS, low=1e-4, high=100.0,
                 keyword="RepetitionTime", tag="(0018,0080)", flag="tr-ms"),
        Quantity("echo_spacing", "echo spacing", "echo spacing", **_MS, low=1e-4, high=1.0),
        Quantity("flip_angle", "refocusing angle", "refocusing angle", **_DEG, low=0.0, high=math.pi * (1 + 1e-6),
                 keyword="FlipAngle", tag="(0018,1314)", flag="refocusing-deg"),
        Quantity("b1", "B1 map", "B1", **_RATIO, low=0.1, high=2.0,
                 meaning="the true over the nominal flip angle, 1 where they agree",
                 mistaken_for=(_PER_CENT, (90.0, "degrees by the nominal angle"),
                               (900.0, "tenths of degrees by 10 times the nominal angle"))),
        Quantity("efficiency", "inversion efficiency", "efficiency", **_RATIO, low=-1.0, high=1.0,
                 meaning="1 for a perfect inversion, 0 for a saturation", mistaken_for=(_PER_CENT,)),
    )
}  # fmt: skip


# --- what is mapped ---


@dataclass(frozen=True)
class MapKind:
    """What a map holds and how it is shown."""

    units: str  # of the values in files, in the words of BIDS
    description: str  # for sidecars
    symbol: str  # the quantity on display, "T2*"
    role: Literal["time", "rate", "amplitude", "field", "fit"]  # a field of the scanner; "fit": of the fit
    shown_unit: str = ""  # on display, "" for a number without one
    shown_per_si: float = 1.0  # value in files times this = displayed value
    table: str = "acton"  # colour table of cmcrameri or matplotlib; reversed for rates
    limits: tuple[float, float] | None = None  # of the colour scale, as displayed; None: 0 to a percentile of the map
    concept: tuple[str, str, str] | None = None  # (value, scheme, meaning) of its DICOM code

    @property
    def is_code(self) -> bool:
        """A code with a meaning each, and no quantity."""
        return self.concept is None

    @property
    def relaxometry(self) -> bool:
        """A time or a rate: a log-remapped scale, and values that are not positive are no values."""
        return self.role in ("time", "rate")

    @property
    def title(self) -> str:
        """Symbol and shown unit: "T2* [ms]"."""
        return f"{self.symbol} [{self.shown_unit}]" if self.shown_unit else self.symbol


_OWN_CODES = "99JAXQMRI"


def _time(symbol: str, term: str, table: str, upper_ms: float, code: str, scheme: str = "DCM") -> MapKind:
    concept = (code, scheme, symbol)
    return MapKind("s", f"{term} {symbol}", symbol, "time", "ms", 1e3, table, (0.0, upper_ms), concept)


def _rate(symbol: str, term: str, table: str, upper: float, code: str, scheme: str = "DCM") -> MapKind:
    description = f"{term} {symbol} = 1 / T{symbol[1:]}"
    return MapKind("1/s", description, symbol, "rate", "1/s", 1.0, table, (0.0, upper), (code, scheme, symbol))


# Colours: Fuderer et al., "Color-map recommendation for MR relaxometry maps", Magn Reson Med 2025
# (doi:10.1002/mrm.30290). Limits are fixed so that two subjects, or one subject twice, can be compared by eye. They
# hold the soft tissues at 1.5 and 3 T and let fluid saturate: T2* of brain 30-70 ms and kidney 20-60 ms; T2 of muscle
# 30 ms to prostate 150 ms; T1 of fat 350 ms to grey matter 1800 ms, with room for oedema. Rates end at short times: T1
# 0.33 s, T2 20 ms, T2* 5 ms as in an iron-loaded liver. The relative error of a usable fit is a few per cent; at 20 %
# the model does not hold.
MAP_KINDS = {
    "T2starmap": _time("T2*", "effective transverse relaxation time", "navia", 100.0, "113064"),
    "T2map": _time("T2", "transverse relaxation time", "navia", 200.0, "113065"),
    "T1map": _time("T1", "longitudinal relaxation time", "lipari", 3000.0, "113063"),
    "T1rhomap": _time("T1rho", "relaxation time in the rotating frame", "navia", 150.0, "T1RHO", _OWN_CODES),
    "R1rhomap": _rate("R1rho", "relaxation rate in the rotating frame", "navia", 50.0, "R1RHO", _OWN_CODES),
    "R2starmap": _rate("R2*", "effective transverse relaxation rate", "navia", 200.0, "126395"),
    "R2map": _rate("R2", "transverse relaxation rate", "navia", 50.0, "126394"),
    "R1map": _rate("R1", "longitudinal relaxation rate", "lipari", 3.0, "126393"),
    "S0map": MapKind("arbitrary", "signal at echo time zero", "S0", "amplitude", "a.u.", table="gray",
                     concept=("S0", _OWN_CODES, "Signal at echo time zero")),
    "M0map": MapKind("arbitrary", "equilibrium magnetisation times receiver gain", "M0", "amplitude", "a.u.",
                     table="gray", concept=("M0", _OWN_CODES, "Equilibrium magnetisation times gain")),
    "InversionEfficiency": MapKind(
        "1", "efficiency of the inversion: -Mz after / Mz before it, 1 where it is perfect", "inversion efficiency",
        "field", table="batlow", limits=(0.6, 1.1), concept=("INV_EFF", _OWN_CODES, "Inversion efficiency")),
    "Offset": MapKind("arbitrary", "constant that the signal ends on, such as the floor of magnitudes", "offset",
                      "amplitude", "a.u.", table="gray", concept=("OFFSET", _OWN_CODES, "Constant offset")),
    "DeltaAICc": MapKind(
        "1", "AICc of the model with an offset less that of the one without; below 0 the offset is worth its parameter",
        "AICc difference", "fit", table="coolwarm", limits=(-20.0, 20.0),
        concept=("DELTA_AICC", _OWN_CODES, "Difference of the corrected Akaike information criterion")),
    "TB1map": MapKind("relative", "transmit field: true flip angle / nominal flip angle", "B1", "field",
                      table="coolwarm", limits=(0.5, 1.5),  # grey where the flip angle is as wanted
                      concept=("B1", _OWN_CODES, "True by nominal flip angle")),
    "residual": MapKind(
        "1", "relative error of the fit, sum |q - x| / sum |x| over the measurements x, model q", "relative error",
        "fit", "%", 1e2, limits=(0.0, 20.0), concept=("REL_ERROR", _OWN_CODES, "Relative error of the fit")),
    "status": MapKind("1", "how the fit of the voxel ended, as a code", "status", "fit"),
}  # fmt: skip


# In the metadata of maps and in sidecars: B1 of a fit without the slice's profile, for which it makes up.
EFFECTIVE = "EffectiveB1"
_EFFECTIVE_B1 = replace(
    MAP_KINDS["TB1map"],
    description="effective flip angle / nominal flip angle: makes up for the slice profile, no transmit field",
    symbol="effective B1",
    concept=("EFFECTIVE_B1", _OWN_CODES, "Effective by nominal flip angle"),
)


def map_kind(name: str, metadata: Mapping[str, Any] = MappingProxyType({})) -> MapKind:
    """What a map holds; `name` is one of `MAP_KINDS`, or `<name>_stderr`, its standard error.

    `metadata` of the maps tell whether their B1 is an effective one.
    """
    base = name.removesuffix("_stderr")
    kind = _EFFECTIVE_B1 if base == "TB1map" and metadata.get(EFFECTIVE) else MAP_KINDS.get(base)
    if kind is None or (base != name and kind.role == "fit"):
        raise ValueError(f"no map is called {name!r}; known are {', '.join(MAP_KINDS)} and <name>_stderr.")
    if base == name:
        return kind
    words = {"description": f"standard error of: {kind.description}", "symbol": f"{kind.symbol} standard error"}
    return replace(kind, **words, role="fit", table=MapKind.table, limits=None)


# --- how a voxel ended ---


class Status(enum.IntEnum):
    """Why a voxel has an answer, or has none; `meaning` says it in words."""

    meaning: str

    def __new__(cls, code: int, meaning: str):
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    OK = 0, "fitted"
    NO_SIGNAL = 1, "every measurement is zero, nothing to fit"
    NOT_FINITE = 2, "a measurement, or a value given for the voxel, is not a usable number"
    NOT_CONVERGED = 3, "the solver did not reach a minimum (Adam and Optax: is 10 % or more away from one)"
    AT_BOUND = 4, "outside what these measurements can tell apart, such as a signal that does not change, or at a bound"
    UNIDENTIFIABLE = 5, "the measurements do not determine all the parameters"
    MASKED = 6, "outside the mask, not fitted"
    SATURATED = (
        7,
        "fitted, but a stored value is at or beyond the top of its range: perhaps clipped, left out of all numbers",
    )
    NEGATIVE_MAGNITUDE = 8, "a measurement is negative, which no magnitude is"
    AMBIGUOUS = 9, "two different sets of parameters describe the measurements equally well"
