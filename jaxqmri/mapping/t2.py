"""T2, and B1 where it is not given, of multi-echo spin echoes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import degrees, pi, radians
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import Choose, Give, LeaveOut, MapWith, MetadataError, Setting, UsageError, remark
from ..quantities import ECHO_TIME, EFFECTIVE, QUANTITIES
from .job import DROP_BELOW_SNR, MODEL, Job, Rows
from .pulses import SLICE_PROFILE, THICKNESS_RATIO, TIME_BANDWIDTH, check_pulses
from .settings import images_named, setting, values_of
from .t2star import decay_plan, kind_of_images

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import ArrayLike, Float

    from ..io.series import ImageSeries
    from ..models.base import SignalModel
    from ..models.fse import FSE
    from ..models.tissue import Tissue
    from .fitting.estimate import Estimate
    from .fitting.plan import Plan

DEFAULT_T1 = 1.0  # s; between muscle and grey matter at 1.5 and 3 T
T1_RANGE = (0.01, 20.0)  # s
LOW_ANGLE = 140.0  # degrees; of true refocusing angles below, T1 changes T2 by more than 2 % in tissue

# Trains of the dictionary, as many for any protocol so that one program searches them all: steps of 2.4 to 3.3 % in T2
# for 6 to 32 echoes, of 0.02 to 0.035 in B1.
N_T2, N_B1 = 256, 32
B1_STEP = 0.01  # voxels whose given B1 is the same when rounded to this are matched together
GROUP = 2048  # voxels; groups are padded to a multiple of it, so that one program serves them all


@dataclass(frozen=True, kw_only=True, eq=False)
class T2(Job):
    """T2, M0 and, where it is not given, B1 of a multi-echo spin-echo series.

    The series holds evenly spaced echoes of one train; the first ones may be missing. One train hardly depends on T1,
    so T1 is taken as known. Full recovery between trains is assumed: where TR is short, M0 carries the saturation.

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T2map` and `T2map_stderr` [s], `R2map` = 1 / T2
        [1/s], `M0map` [a.u.], `TB1map` where B1 was estimated, `residual`, the relative error sum|q - x| / sum|x|, and
        `status`, `Status` codes. How they were made, and what was assumed, is in their `metadata`, what was mended or
        assumed also in their `remarks`.

    Raises:
        MetadataError: the echoes are not those of one train; a B1 or T1 map in another unit.
        UsageError: unknown method; B1, T1 or a flip angle for a method that knows none, or one that cannot be; no echo
            times vary; a map of another shape, images that are not magnitudes.
        CorruptInputError: fewer echoes than parameters; an empty mask.
    """

    name = "t2"
    label = "T2"
    main_map = "T2map"
    summary = "T2 maps from multi-echo spin echoes"
    fits: ClassVar = {"te": "a train of spin echoes"}
    simpler: ClassVar = {"method": "mono"}
    suffixes: ClassVar = {"MESE": {}}

    te: Sequence[float] | None = values_of(ECHO_TIME)
    echoes: Sequence[str] = images_named("echoes")
    method: str = setting(
        "lm", always_stated=True,
        choices={
            "lm": "extended phase graphs of the echo train, T2 and B1, by exact least squares or maximum likelihood",
            "dictionary": "the same, started from the most similar of 8192 trains (of 256 where B1 is given)",
            "mono": "mono-exponential decay, for comparison; stimulated echoes make its T2 too long",
        },
    )  # fmt: skip
    b1: Any = setting(
        None, "true / nominal flip angle, within 0.1 ... 2", otherwise="estimated in each voxel", is_map=True
    )
    b1_range: "tuple[float, float] | None" = setting(
        None, "where B1 is looked for if it is estimated, lowest and highest; a voxel that ends there has no answer",
        otherwise="0.4 and 1.4", is_range=True,
    )  # fmt: skip
    t1: "ArrayLike | None" = setting(
        None, "T1 of all tissue, which hardly matters where pulses refocus by 150 degrees or more",
        otherwise=f"{DEFAULT_T1:g} s",
        in_python=f"T1, a number or a map (x, y, z) [s]. None: {DEFAULT_T1:g} s.",
    )  # fmt: skip
    flip_angle: float | None = setting(
        None, "nominal refocusing angle",
        otherwise="FlipAngle of the images if it is above 90 degrees, else 180 degrees, since many scanners state the "
        "angle of the excitation there",
    )  # fmt: skip

    slice_profile: Any = setting("none", **SLICE_PROFILE)
    time_bandwidth: float | None = setting(None, **TIME_BANDWIDTH)
    thickness_ratio: float | None = setting(None, **THICKNESS_RATIO)

    model: str = setting("mono", **MODEL)
    drop_below_snr: float | None = setting(None, **DROP_BELOW_SNR)

    def __post_init__(self):
        super().__post_init__()
        check_pulses(self)
        given = [name for name in ("b1", "b1_range", "t1", "flip_angle") if getattr(self, name) is not None]
        given += ["slice_profile"] * (self.slice_profile not in (None, "none"))
        if self.method == "mono" and given:
            also = [part for name in given[1:] for part in (", ", Setting(name))]
            what = Setting("method"), " mono knows no B1, T1, slice or refocusing angle; "
            raise UsageError(*what, LeaveOut(given[0]), *also, ".")
        unknown = "Rician noise" if self.is_rician else "offset" if self.model == "offset" else ""
        if self.method == "dictionary" and unknown:
            raise UsageError(Setting("method"), f" dictionary knows no {unknown}; ", Choose("method", "lm"), ".")
        if self.b1_range is not None:
            lowest, highest = map(float, self.b1_range)
            if not QUANTITIES["b1"].low <= lowest < highest <= QUANTITIES["b1"].high:
                wanted = f" is the lowest and the highest B1, within 0.1 ... 2, got {lowest:g} and {highest:g}."
                raise UsageError(Setting("b1_range"), wanted)

    @property
    def knows_rician(self) -> bool:
        return self.method != "dictionary"

    @property
    def is_compared(self) -> bool:
        return self.method != "mono"

    def check_headers(self, series: "ImageSeries") -> None:
        from ..io.series import echo_train

        if self.method != "mono":
            self._check_number(series)
            echo_train(series.whole.series.te, "the series")

    def plan(self, series: "ImageSeries", fitted: "np.ndarray") -> "Plan":
        kind = kind_of_images(series)
        if kind.echo == "GR":
            remark(
                f"these look like gradient echoes ({kind.sign}), whose decay is T2*, not T2; ", MapWith("t2star"), "."
            )
        tr = series.acquisition.get("RepetitionTime", series.acquisition.get("RepetitionTimeExcitation"))
        repetitions = f" (TR {tr:g} s)" if isinstance(tr, int | float) else ""
        recovery = f"full recovery between repetitions{repetitions}: M0 carries the saturation"
        return self._decay(series, recovery) if self.method == "mono" else self._train(series, fitted, recovery)

    def dense(self, series: "ImageSeries", model: "SignalModel") -> "tuple[np.ndarray, SignalModel]":
        """All echoes of the train, recorded or not."""
        import numpy as np

        from ..models.fse import FSE
        from ..models.offset import WithOffset

        train = model.model if isinstance(model, WithOffset) else model
        if not isinstance(train, FSE):
            return super().dense(series, model)
        whole = replace(train, echoes=None)
        return np.asarray(whole.echo_times), whole if train is model else WithOffset(whole)

    def _decay(self, series: "ImageSeries", recovery: str) -> "Plan":
        assumed = ["perfect refocusing: no stimulated echoes", recovery]
        return decay_plan(series, "T2", "M0", self.model == "offset", assumed=assumed)

    def _check_number(self, series: "ImageSeries") -> list[str]:
        """What is estimated, if there are echoes enough for it."""
        from .fitting.voxels import check_number

        offset = ["Offset"] if self.model == "offset" else []
        estimated = ["T2", "M0", *(["B1"] if self.b1 is None else []), *offset]
        more = [Give("b1", "a B1 map"), ", or ", Choose("method", "mono")] if len(series.te) > 1 else []
        check_number(series, estimated, *(more or ["give images of more echoes"]))
        return estimated

    def _train(self, series: "ImageSeries", fitted: "np.ndarray", recovery: str) -> "Plan":
        import numpy as np

        from ..models.offset import WithOffset
        from .fitting.plan import Plan
        from .fitting.slice import profile_of
        from .fitting.voxels import checked_b1

        estimated, offset = self._check_number(series), self.model == "offset"
        model, train_words = spin_echo_train(series, self.flip_angle)
        profile, profile_words = profile_of(series, self.slice_profile, self.time_bandwidth, self.thickness_ratio)
        is_effective = profile is None and series.acquisition.get("MRAcquisitionType") != "3D"
        if profile is not None:
            model = replace(model, slice_profile=profile)
        t1 = _checked_t1(DEFAULT_T1 if self.t1 is None else self.t1, fitted)
        known: dict[str, Any] = {"t1": t1}
        assumed = [
            train_words,
            f"{f'T1 = {t1:g} s everywhere' if t1.ndim == 0 else 'T1 from a map'}: one echo train hardly depends on it",
            recovery,
            profile_words or f"the same flip angle everywhere in a voxel{', B1 is an effective one' * is_effective}",
        ]
        bounds = {}
        if self.b1 is None and self.b1_range is not None:
            bounds["b1"] = lowest, highest = tuple(map(float, self.b1_range))
            assumed.append(f"B1 within {lowest:g} ... {highest:g}, given")
            # The fit ends at the range that is given, a model shortly before its own.
            widest = min(lowest, float(model.b1_range[0])), max(highest, float(model.b1_range[1]))
            model = replace(model, b1_range=widest)
        if self.b1 is None and profile is None:
            mirrored = "from which on it acts as its mirror image (only M0 would change)"
            assumed.append(f"B1 not above that of perfect refocusing, {mirrored}")
        if self.b1 is not None:
            known["b1"] = checked_b1(self.b1, fitted, "T2")
            if series.n_series > 1:
                remark(
                    "these are of several series: where each echo has an excitation of its own, they are no train, and "
                    "what is given of B1 makes T2 wrong; ", Choose("method", "mono"), " then, without a B1 map.",
                )  # fmt: skip
        if self.t1 is None:
            _remark_if_t1_matters(float(model.flip_angles[0]), known.get("b1"), fitted)
        search: dict[str, Any] = {}
        if self.method == "dictionary":
            of_voxels = t1[fitted] if t1.ndim else t1
            t1_of_trains = float(np.median(of_voxels[of_voxels > 0]))
            search = {
                "algorithm": "dictionary match, then LevenbergMarquardt",
                "algorithm_settings": {"atoms_T2": N_T2, "atoms_B1": N_B1 if self.b1 is None else 1},
                "start": lambda signal, known: most_similar_train(model, signal, t1_of_trains, known.get("b1")),
            }
        return Plan(
            model=WithOffset(model) if offset else model,
            plain=model if offset else None,
            equation=f"S(n) = M0 EPG_n(T2, T1, B1 x flip angles){' + Offset' if offset else ''}",
            maps={"T2map": "t2", "M0map": "m0", "TB1map": "b1", **({"Offset": "offset"} if offset else {})},
            estimated=estimated,
            known=known,
            bounds=bounds,
            assumed=assumed,
            facts={
                **({EFFECTIVE: True} if is_effective and self.b1 is None else {}),
                "EchoSpacing": float(f"{model.echo_spacing:.6g}"),  # s
                "RefocusingFlipAngle": float(f"{degrees(model.flip_angles[0]):.6g}"),  # as FlipAngle of BIDS
            },
            **search,
        )

    def compare(self, series: "ImageSeries", estimate: "Estimate") -> Rows:
        """A row per model, of the voxels where both have an answer; times in s.

        The row of the train also holds the median ratio of its rms misfit to that of the mono-exponential, what this
        would be if all misfit were noise (the train may have a parameter more), and the share of voxels it fits better.
        """
        import numpy as np

        from ..estimation.fit import fit
        from ..io.storage.memory import slabs
        from ..models.decay import MonoExponential
        from ..quantities import Status
        from .fitting.estimate import misfit

        ok, decay = estimate.maps["status"] == Status.OK, MonoExponential(series.te)

        def compared(slices: slice) -> "list[np.ndarray]":
            """T2, relative error and rms misfit of the train, then those of the decay, where both have an answer."""
            where = ok[:, :, slices]
            signal = series.data[:, :, slices][where]
            other = fit(decay, signal)
            both = np.asarray(other.status) == Status.OK
            x, y, z = np.nonzero(where)
            tissue = estimate.params_of((x, y, z + slices.start))
            by_train, by_decay = misfit(estimate.model, tissue, signal), misfit(decay, other.params, signal)
            return [np.asarray(value)[both] for value in (tissue.t2, *by_train, other.params.t2, *by_decay)]

        parts = [compared(slices) for slices in slabs(series.data) if ok[:, :, slices].any()]
        if not any(part[0].size for part in parts):
            return []
        t2, error, rms, decay_t2, decay_error, decay_rms = map(np.concatenate, zip(*parts, strict=True))
        n, n_parameters = len(series.te), 2 + (self.b1 is None) + (self.model == "offset")
        return [
            {
                "model": ("EPG + B1" if self.b1 is None else "EPG, B1 given")
                + (" + offset" if self.model == "offset" else ""),
                **_numbers(t2, error),
                "rms_misfit_to_mono": float(np.median(rms / np.maximum(decay_rms, 1e-30))),
                "by_noise_alone": float(np.sqrt(max(n - n_parameters, 0) / max(n - 2, 1))),
                "share_better": float(np.mean(rms < decay_rms)),
            },
            {"model": "mono-exponential", **_numbers(decay_t2, decay_error)},
        ]


def _numbers(t2: "np.ndarray", relative_error: "np.ndarray") -> dict[str, float]:
    import numpy as np

    lower, median, upper = np.percentile(t2, [25, 50, 75]).tolist()
    return {
        "voxels": t2.size,
        "median_T2_s": median,
        "quartile_1_T2_s": lower,
        "quartile_3_T2_s": upper,
        "relative_error": float(np.median(relative_error)),
    }


def spin_echo_train(series: "ImageSeries", flip_angle: float | None) -> "tuple[FSE, str]":
    """The train that made the images, refocused by `flip_angle` [rad], and in words where that comes from."""
    import numpy as np

    from ..io.series import echo_train
    from ..models.fse import FSE

    whole, used = series.whole  # what is left out was played out all the same
    train = echo_train(whole.te, "the series")
    angle, source = _refocusing_angle(series, flip_angle)
    n = train.echoes[-1] + 1
    echoes = tuple(i for i, is_used in zip(train.echoes, used, strict=True) if is_used)
    why = f"refocusing by {np.rad2deg(angle):.4g} degrees ({source})"
    if n > len(train.echoes):
        why += f", {n - len(train.echoes)} of {n} echoes not recorded"
    echoes = None if len(echoes) == n else echoes
    return FSE(np.full(n, angle), train.spacing, echoes=echoes, magnitude=True), why


def _refocusing_angle(series: "ImageSeries", flip_angle: float | None) -> tuple[float, str]:
    from ..io.candidates import number

    if flip_angle is not None:
        if not 0 < flip_angle < pi * (1 + 1e-6):
            raise UsageError(
                f"the refocusing angle must be above 0 and at most pi, 180 degrees, got {flip_angle:g} radians "
                f"({degrees(flip_angle):.4g} degrees); above 180 degrees an angle refocuses as 360 degrees less it."
            )
        return min(float(flip_angle), pi), "given"
    stated = number(series.acquisition.get("FlipAngle"))
    if stated is not None and 90 < stated <= 180:
        return radians(stated), "FlipAngle of the images"
    seen = "none stated" if stated is None else f"the images state {stated:g}, that of the excitation"
    return pi, f"assumed; {seen}"


def most_similar_train(
    model: "FSE", signal: "Float[np.ndarray, 'voxel n']", t1: float, b1: "Float[ArrayLike, ' voxel'] | None" = None
) -> "Tissue":
    """The tissue, (voxel,), whose simulated train is most similar to the signal; 1 throughout where there is no signal.

    T2 runs in equal ratios from a quarter of the first echo time to 20 times the last, B1 in equal steps to where
    refocusing is perfect: from there on it acts as its mirror image. T1 [s] is that of all trains.
    """
    import jax
    import numpy as np

    from ..dictionary.dictionary import make_dictionary
    from ..dictionary.grid import grid
    from ..dictionary.match import match
    from ..models.tissue import Tissue

    te = np.asarray(model.echo_times, np.float64)
    t2 = np.geomspace(te[0] / 4, 20 * te[-1], N_T2)
    if b1 is None:
        lowest, highest = np.asarray(model.b1_range)
        perfect = np.pi / float(np.max(model.flip_angles))
        trains = grid(Tissue, t1=t1, t2=t2, b1=np.linspace(lowest, min(perfect, highest), N_B1))
        found = match(make_dictionary(model, trains), signal).params
    else:
        steps = np.round(np.nan_to_num(np.asarray(b1), nan=1.0) / B1_STEP).astype(int)
        groups = [np.flatnonzero(steps == step) for step in np.unique(steps)]
        parts = []
        for voxels in groups:
            trains = grid(Tissue, t1=t1, t2=t2, b1=B1_STEP * steps[voxels[:1]])
            padded = np.pad(voxels, (0, -voxels.size % GROUP), mode="edge")
            part = match(make_dictionary(model, trains), signal[padded], batch_size=GROUP).params
            parts.append(jax.tree.map(lambda leaf, n=voxels.size: leaf[:n], part))
        back = np.argsort(np.concatenate(groups))
        found = jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts)
    return jax.tree.map(lambda leaf: np.nan_to_num(leaf, nan=1.0), found)


def _remark_if_t1_matters(flip_angle: float, b1: "np.ndarray | None", fitted: "np.ndarray") -> None:
    """Says what an assumed T1 does where a train refocuses by little [rad]: at 150 degrees 13 % to that of fluid."""
    import numpy as np

    known = np.ones(1) if b1 is None else b1[fitted & np.isfinite(b1)]
    angle = degrees(flip_angle) * (float(np.median(known)) if known.size else 1.0)
    if angle < LOW_ANGLE:
        remark(
            f"T1 is assumed to be {DEFAULT_T1:g} s, which matters where pulses refocus by {angle:.0f} degrees: by 110, "
            "T2 of fluid comes out 10 to 50 % too long and that of tissue with a T1 of 0.3 s 4 % too short; ",
            Give("t1"), ".",
        )  # fmt: skip


def _checked_t1(t1: "ArrayLike", fitted: "np.ndarray") -> "np.ndarray":
    """A number, or (x, y, z)."""
    import numpy as np

    from .fitting.voxels import number_or_map

    t1 = number_or_map("t1", t1, fitted.shape)
    values = t1[fitted] if t1.ndim else t1
    positive = values[values > 0]
    if not positive.size or not T1_RANGE[0] <= np.median(positive) <= T1_RANGE[1]:
        found = f"the median {np.median(positive):g} s" if positive.size else "no value above 0"
        wrong = MetadataError if t1.ndim else UsageError
        outside = f"T1 has {found}, outside {T1_RANGE[0]:g} ... {T1_RANGE[1]:g} s; "
        raise wrong(outside, Give("t1", "the right one"), ".")
    return t1
