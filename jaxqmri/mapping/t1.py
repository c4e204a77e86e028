"""T1 by inversion recovery or by variable flip angles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import CorruptInputError, Give, LeaveOut, MetadataError, Setting, UsageError, remark
from ..quantities import FLIP_ANGLE, INVERSION_TIME, QUANTITIES, Axis
from .job import Job
from .settings import images_named, setting, values_of
from .t2star import kind_of_images

if TYPE_CHECKING:
    import numpy as np

    from ..estimation.noise import Noise
    from ..io.maps import Maps
    from ..io.series import ImageSeries
    from ..models.base import SignalModel
    from .fitting.plan import Plan

LONGEST_TR = 100.0  # s, of an inversion recovery; longer ones are milliseconds
MOST_EFFICIENCY = 1.05  # 1 and the noise of a median; Look-Locker comes out as T1 / T1*
LARGEST_FLIP_ANGLE = 100.0  # degrees, of excitations
LONGEST_GRADIENT_ECHO_TR = 2.0  # s; spoiled gradient echoes of several flip angles are repeated in milliseconds


@dataclass(frozen=True, kw_only=True, eq=False)
class T1(Job):
    """T1 and M0 of images of different inversion times, or of spoiled gradient echoes of different flip angles.

    Inversion recovery: S(TI) = M0 [1 - (1 + f) exp(-TI/T1) + f exp(-TR/T1)] by exact least squares; of magnitude images
    the polarity is restored, and error bars cover both signs next to the null; where `sigma` is given their noise is
    Rician. Where the efficiency f of the inversion is estimated, an unknown TR does not harm T1.
    Variable flip angles: S(a) = M0 sin(B1 a) (1 - E1) / (1 - cos(B1 a) E1), E1 = exp(-TR/T1), by exact least squares.
    An error of B1 makes about twice the error of T1. All images have the receiver gain of the first.

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T1map` and `T1map_stderr` [s], `R1map` = 1 / T1
        [1/s], `M0map` [a.u.] (with the T2* decay of the echo time), `InversionEfficiency` where it was estimated,
        `residual`, the relative error sum|q - x| / sum|x|, and `status`, `Status` codes. How they were made, and what
        was assumed, is in their `metadata`, what was mended or assumed also in their `remarks`.

    Raises:
        UsageError: the series does not vary what the method needs; an argument that the method does not know, or that
            cannot be; a map of another shape, images of another component.
        MetadataError: no usable repetition time; a B1 map in another unit.
        CorruptInputError: fewer images than parameters; an empty mask.

    Sources:
        Barral et al., Magn Reson Med 64:1057 (2010); Deoni, Rutt, Peters, Magn Reson Med 49:515 (2003).
    """

    name = "t1"
    label = "T1"
    main_map = "T1map"
    summary = "T1 maps from inversion recovery or variable flip angles"
    fits: ClassVar = {"ti": "an inversion recovery", "flip_angles": "spoiled gradient echoes"}
    components = ("magnitude", "real")
    suffixes: ClassVar = {"IRT1": {"method": "ir"}, "VFA": {"method": "vfa", "b1": "fmap"}}

    method: str = setting(
        "auto", always_stated=True,
        choices={
            "auto": "what varies between the images",
            "ir": "inversion recovery",
            "vfa": "spoiled gradient echoes of variable flip angles",
        },
    )  # fmt: skip
    tr: float | None = setting(
        None, "repetition time, inf: full recovery between inversions",
        otherwise="that of the images, which recover fully where an inversion recovery does not state it",
    )  # fmt: skip
    efficiency: float | None = setting(
        None, "ir: efficiency of the inversion, 1: perfect, 0: a saturation",
        otherwise="estimated in each voxel, or 1 of fewer than 3 inversion times (4 of magnitude images)",
    )  # fmt: skip
    b1: Any = setting(
        None, "vfa: true / nominal flip angle, within 0.1 ... 2", is_map=True,
        otherwise="1 everywhere, which makes T1 wrong by about twice the error of the flip angle",
    )  # fmt: skip
    ti: Sequence[float] | None = values_of(INVERSION_TIME)
    flip_angles: Sequence[float] | None = values_of(FLIP_ANGLE)
    images: Sequence[str] = images_named("inversion times or flip angles")
    component: str | None = setting(
        None, "which images to fit", choices={"magnitude": "", "real": ""}, of_reading=True,
        otherwise="magnitude, or real where there are no others",
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        wanted, other = ("ti", "flip_angles") if self.method == "ir" else ("flip_angles", "ti")
        if self.method != "auto" and getattr(self, other) is not None:
            method, mend = f" {self.method} needs no ", ", or another method."
            raise UsageError(Setting("method"), method, Setting(other), "; give ", Setting(wanted), mend)
        if len(self.axes) == 1:
            self._check_settings_for(self.axes[0])

    @property
    def axes(self) -> tuple[Axis, ...]:
        of_method = {"ir": (INVERSION_TIME,), "vfa": (FLIP_ANGLE,)}
        return of_method.get(self.method) or super().axes

    def _check_settings_for(self, axis: Axis) -> None:
        if axis is INVERSION_TIME and self.b1 is not None:
            why = "inversion recovery needs no B1 map: what B1 does to the inversion is in its efficiency; "
            raise UsageError(why, LeaveOut("b1"), ".")
        if axis is FLIP_ANGLE and self.efficiency is not None:
            raise UsageError("variable flip angles have no inversion; ", LeaveOut("efficiency"), ".")

    def check_headers(self, series: "ImageSeries") -> None:
        if series.axis is INVERSION_TIME:
            self._recovery_time(series)
            self._known_efficiency(series, magnitude=series.component == "magnitude")
        else:
            self._pulse_spacing(series)

    def plan(self, series: "ImageSeries", fitted: "np.ndarray") -> "Plan":
        self._check_settings_for(series.axis)
        return self._inversion_recovery(series) if series.axis is INVERSION_TIME else self._flip_angles(series, fitted)

    def dense(self, series: "ImageSeries", model: Any) -> "tuple[np.ndarray, SignalModel]":
        import numpy as np

        from ..models.recovery import InversionRecovery
        from ..models.spoiled import SpoiledGradientEcho

        largest = float(series.whole.series.values.max())
        if series.axis is FLIP_ANGLE:
            angles = np.linspace(1e-3, min(1.1 * largest, 3.14), 200)
            return angles, SpoiledGradientEcho(angles, model.tr)
        tr = np.inf if model.tr is None else float(model.tr)
        times = np.linspace(0, min(1.05 * largest, 0.999 * tr), 200)
        return times, InversionRecovery(times, tr=tr, magnitude=model.magnitude)

    def remark_on(self, maps: "Maps") -> None:
        import numpy as np

        t1 = maps["T1map"][np.isfinite(maps["T1map"])]
        if t1.size and np.median(t1) > QUANTITIES["t1"].high:
            remark(
                f"T1 comes out as {np.median(t1):.3g} s (median), which nothing in a body has: is the repetition time "
                "in the right unit?"
            )
        efficiency = maps["InversionEfficiency"] if "InversionEfficiency" in maps else np.empty(0)
        found = efficiency[np.isfinite(efficiency)]
        if found.size and np.median(found) > MOST_EFFICIENCY:
            remark(
                f"the inversion efficiency comes out as {np.median(found):.2f} (median), but no inversion exceeds 1. "
                "Where several images follow each inversion (Look-Locker, MOLLI), this is T1*, and T1 is longer."
            )

    def noise_model(self, series: "ImageSeries") -> "Noise | str | None":
        # Least squares is off where a magnitude is next to its null.
        of_magnitudes = series.axis is INVERSION_TIME and self.noise is None and not _is_signed(series)[0]
        return "rician" if of_magnitudes and self.sigma is not None else self.noise

    # --- inversion recovery ---

    def _inversion_recovery(self, series: "ImageSeries") -> "Plan":
        from ..models.recovery import InversionRecovery
        from .fitting.plan import Plan

        tr, tr_words = self._recovery_time(series)
        signed, signed_words = _is_signed(series)
        if self.is_rician and signed:
            raise UsageError("Rician noise is that of magnitude images, these are signed; use Gaussian.")
        known, efficiency_words = self._known_efficiency(series, magnitude=not signed)
        model = InversionRecovery(series.values, tr=tr, magnitude=not signed)
        return Plan(
            model=model,
            equation="S(TI) = M0 [1 - (1 + f) exp(-TI/T1) + f exp(-TR/T1)]" + ("" if signed else ", magnitude"),
            maps={"T1map": "t1", "M0map": "m0", "InversionEfficiency": "efficiency"},
            estimated=["T1", "M0", *([] if known else ["InversionEfficiency"])],
            known=known,
            assumed=[efficiency_words, f"TR {tr:g} s ({tr_words})", signed_words, "readout by 90 degree pulses"],
            facts={} if model.tr is None else {"RepetitionTime": float(f"{float(model.tr):.6g}")},
        )  # fmt: skip

    def _recovery_time(self, series: "ImageSeries") -> tuple[float, str]:
        """From inversion to inversion [s], and where it comes from."""
        longest = float(series.values.max())
        stated, key = _stated(series, "RepetitionTimePreparation", "RepetitionTimeInversion", "RepetitionTime")
        # From excitation to excitation: shorter than the recovery, it is between the readouts of one recovery.
        excitation, _ = _stated(series, "RepetitionTimeExcitation")
        if stated is None and excitation is not None and excitation > longest:
            stated = excitation
        _refuse_many_readouts(series, stated or excitation, longest, self.tr)
        if self.tr is not None:
            _check_given_tr(self.tr, longest, "the longest inversion time, ", longest=LONGEST_TR)
            if stated is not None and longest < stated <= LONGEST_TR:
                _remark_if_another(self.tr, stated, key)
            return self.tr, "given"
        if stated is None:
            return float("inf"), "not stated, so recovery between inversions is taken to be full"
        if stated <= longest:
            raise MetadataError(
                f"{key} is {1e3 * stated:g} ms, not longer than the longest inversion time, {1e3 * longest:g} ms: that "
                "is not the time from inversion to inversion, on which the recovery depends; ",
                Give("tr", in_files=f"mend {key} in the sidecars"),
                ", unless several images follow each inversion (Look-Locker, MOLLI): these show T1*, not T1.",
            )  # fmt: skip
        if stated > LONGEST_TR:
            too_long = f"{key} is {stated:g} s, too long for any sequence (from milliseconds in a field of seconds); "
            raise MetadataError(too_long, Give("tr", "the right one", in_files=f"mend {key} in the sidecars"), ".")
        return stated, "of the images"

    def _known_efficiency(self, series: "ImageSeries", magnitude: bool) -> tuple[dict[str, float], str]:
        """What is known of the inversion, and that in words."""
        n = len(set(series.values.tolist()))
        if self.efficiency is not None and not 0 <= self.efficiency <= 1:
            known = "the inversion efficiency is from 0 (saturation) to 1 (perfect inversion)"
            raise UsageError(f"{known}, got {self.efficiency:g}.")
        if self.efficiency is None and n >= 3 + magnitude:
            return {}, "inversion efficiency estimated in each voxel"
        if n < 2 + magnitude:  # by the polarities, magnitudes can be explained in several ways
            kind = "magnitude images" if magnitude else "real images"
            too_few = f"{n} inversion times of {kind} cannot determine 2 parameters (T1, M0)"
            raise CorruptInputError(f"{too_few}; give at least {2 + magnitude}.")
        if self.efficiency is not None:
            return {"efficiency": float(self.efficiency)}, f"inversion efficiency {self.efficiency:g}, given"
        why = f"perfect inversion, as {n} inversion times are too few to estimate its efficiency"
        remark(f"{why}; where it is not perfect, T1 comes out too short.")
        return {"efficiency": 1.0}, why

    # --- variable flip angles ---

    def _flip_angles(self, series: "ImageSeries", fitted: "np.ndarray") -> "Plan":
        import numpy as np

        from ..models.spoiled import SpoiledGradientEcho
        from .fitting.plan import Plan
        from .fitting.voxels import checked_b1

        if series.component != "magnitude":
            raise UsageError(f"variable flip angles need magnitude images, this series is {series.component}.")
        tr, tr_words = self._pulse_spacing(series)
        kind = kind_of_images(series)
        if kind.unspoiled or kind.echo == "SE":
            what = f"unspoiled gradient echoes ({kind.unspoiled})" if kind.unspoiled else f"spin echoes ({kind.sign})"
            remark(f"these look like {what}, but T1 is that of spoiled gradient echoes; of others it is wrong.")
        if (largest := float(np.rad2deg(series.values.max()))) > LARGEST_FLIP_ANGLE:
            remark(
                f"flip angles up to {largest:.4g} degrees, beyond those of gradient echoes: if these are degrees "
                "that were taken for radians, ", Give("flip_angles", "the right ones"), ".",
            )  # fmt: skip
        if self.b1 is None:
            remark(
                "no B1 map is given, so the nominal flip angles are believed; where B1 is off by 10 %, T1 is off by "
                "about 20 %. Measure one and ", Give("b1"), ".",
            )  # fmt: skip
            b1 = np.float32(1.0)
            b1_words = "nominal flip angles: no B1 map; an error of B1 makes about twice the error of T1"
        else:
            b1 = checked_b1(self.b1, fitted, "T1")
            b1_words = "B1 from a map" if np.ndim(self.b1) else f"B1 = {np.asarray(self.b1):g} everywhere"
        return Plan(
            model=SpoiledGradientEcho(series.values, tr),
            equation="S(a) = M0 sin(B1 a) (1 - E1) / (1 - cos(B1 a) E1), E1 = exp(-TR/T1)",
            maps={"T1map": "t1", "M0map": "m0"},
            estimated=("T1", "M0"),
            known={"b1": b1},
            assumed=[
                b1_words, f"TR {1e3 * tr:g} ms ({tr_words})", "ideal spoiling",
                "M0 carries the T2* decay of the echo time",
            ],
            facts={"RepetitionTime": float(f"{np.float32(tr):.6g}")},
        )  # fmt: skip

    def _pulse_spacing(self, series: "ImageSeries") -> tuple[float, str]:
        """From pulse to pulse [s], and where it comes from."""
        stated, key = _stated(series, "RepetitionTimeExcitation", "RepetitionTime")
        shortest = QUANTITIES["tr"].low
        if self.tr is not None:
            longest, too_long_for = LONGEST_GRADIENT_ECHO_TR, " for spoiled gradient echoes"
            _check_given_tr(self.tr, shortest, longest=longest, too_long_for=too_long_for)
            if stated is not None and shortest <= stated <= longest:
                _remark_if_another(self.tr, stated, key)
            return self.tr, "given"
        if stated is None:
            raise MetadataError(
                "the images state no single RepetitionTime (0018,0080), without which flip angles tell nothing of T1; ",
                Give("tr"), ".",
            )  # fmt: skip
        if not shortest <= stated <= LONGEST_GRADIENT_ECHO_TR:
            short = "too short for any sequence (from seconds in a field of milliseconds)"
            long = "too long for spoiled gradient echoes (milliseconds in a field of seconds, or of a whole volume)"
            raise MetadataError(
                f"{key} is {stated:g} s, {long if stated > LONGEST_GRADIENT_ECHO_TR else short}; ",
                Give("tr", "that from pulse to pulse", in_files=f"state that from pulse to pulse as {key} in sidecars"),
                ".",
            )  # fmt: skip
        return stated, "of the images"


def _refuse_many_readouts(series: "ImageSeries", tr: float | None, longest: float, given: float | None) -> None:
    """Refuses several images after one inversion: their recovery runs with T1*, which is shorter than T1.

    Images of several series have an inversion each, whatever the time `tr` [s] between excitations is. Others whose
    name does not say what they are have it by the word of who gives a finite time between inversions.
    """
    kind = kind_of_images(series)
    sign, remedy = kind.readouts, []
    if not sign and series.n_series == 1 and kind.echo == "GR" and tr is not None and tr <= longest:
        sign = f"TR {1e3 * tr:g} ms, TI up to {1e3 * longest:g} ms, {kind.sign}"
        remedy = ["; if each image has an inversion of its own, ", Give("tr", "the time from inversion to inversion")]
    if remedy and given is not None and longest < given < float("inf"):
        remark(
            f"taken for images of an inversion each, as the given TR says; by their headers ({sign}) they may as well "
            "be several images after each inversion (Look-Locker, MOLLI), and then this is T1*, which is too short."
        )
    elif sign:
        raise MetadataError(
            f"these look like several images after each inversion, as of Look-Locker or MOLLI ({sign}). Their recovery "
            "runs with T1*, which is shorter than T1: no T1 is made of them. Take the T1 map of the scanner",
            *remedy, ".",
        )  # fmt: skip


def _is_signed(series: "ImageSeries") -> tuple[bool, str]:
    from ..io.negative import has_signs
    from ..io.storage.memory import middle_slab
    from ..models.recovery import InversionRecovery

    if series.component == "real":
        try:
            InversionRecovery(series.values).check_signal(middle_slab(series.data))
        except ValueError:
            return False, "real images without a sign, as they fall to a null and are never negative: polarity restored"
        return True, "real images: signed signal"
    if has_signs(series.data):
        return True, "signed signal, as many values are negative"
    return False, "magnitude images: polarity restored in each voxel, error bars cover both signs next to the null"


def _stated(series: "ImageSeries", *keys: str) -> tuple[float | None, str]:
    """The first of these that the images state as a positive number, and its key."""
    from ..io.candidates import number

    values = [(number(series.acquisition.get(key)), key) for key in keys]
    return next(((value, key) for value, key in values if value and value > 0), (None, ""))


def _remark_if_another(given: float, stated: float, key: str) -> None:
    """Says that a repetition time is used in place of one that could have been."""
    from ..io.axis import NUDGED
    from ..io.protocol import change

    if change("RepetitionTime", given, stated) > NUDGED:
        remark(f"the given repetition time, {1e3 * given:g} ms, is used in place of the {key} of {1e3 * stated:g} ms.")


def _check_given_tr(tr: float, above: float, what: str = "", *, longest: float, too_long_for: str = "") -> None:
    wrong = ""
    if not tr > above:
        wrong = f"the repetition time must be above {what}{above:g} s, got {tr:g} s; "
    elif tr > longest and (too_long_for or tr < float("inf")):  # inf: full recovery between inversions
        wrong = f"the repetition time of {tr:g} s is too long{too_long_for}; "
    if wrong:
        raise UsageError(wrong, Give("tr", "the right one"), ".")
