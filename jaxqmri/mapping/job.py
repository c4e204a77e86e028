"""What every map has in common: a job is a frozen dataclass whose fields are its settings.

Its module states everything about one map: settings, the protocol as the header has it, the signal model, the maps that
come of it and its words. The Python function, the subcommand, the BIDS app, the record and the words that run it again
are read from these. Nothing heavy is imported before a job is used, as the command line lists all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import Choose, LeaveOut, Setting, UsageError, remark, remarks_kept
from ..quantities import Axis
from .settings import setting, settings_of, whole_numbers

if TYPE_CHECKING:
    import numpy as np

    from ..estimation.noise import Noise
    from ..io.maps import Maps
    from ..io.negative import Negative
    from ..io.series import ImageSeries
    from ..models.base import SignalModel
    from .fitting.estimate import Estimate
    from .fitting.plan import Plan

Progress = Callable[[int], None]  # takes the number of voxels done after each batch
Rows = Sequence[Mapping[str, object]]
NOISE = {
    "or_object": "a noise model", "object_type": "jaxqmri.estimation.noise:Noise",
    "choices": {
        "gaussian": "least squares",
        "rician": "magnitudes drowning in noise, which least squares fits with a bias",
    },
    "in_python": "what is known of the noise, e.g. `Gaussian(sigma)`; None: its level is taken from the residuals; "
    '"rician": its level is taken from the air around the patient, unless it is given.',
    "otherwise": "rician for magnitudes of an inversion recovery whose sigma is given, and where the last echoes of "
    "half of the tissue are below 5 times the noise of the air; else gaussian",
}  # fmt: skip


MODEL: dict[str, Any] = {
    "choices": {
        "mono": "a decay to zero",
        "offset": "to a constant that is not negative, as magnitudes end on a floor; DeltaAICc maps who wants it",
    },
}
DROP_BELOW_SNR: dict[str, Any] = {
    "help": "compare no echo from the first on that is below this many times the noise, whose level is that of the air "
    "or `sigma`",
    "otherwise": "all are compared",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One kind of map from one kind of series, with its settings."""

    name: ClassVar[str]  # its subcommand; its function is `<name>_map`
    label: ClassVar[str]  # what it measures, in print: "T2*"
    main_map: ClassVar[str]
    summary: ClassVar[str]  # for the list of commands
    fits: ClassVar[Mapping[str, str]]  # name of an axis -> what is fitted to images along it, in print
    components: ClassVar[tuple[str, ...]] = ("magnitude",)  # the kinds of images it can be fitted to
    simpler: ClassVar[Mapping[str, Any]] = {}  # settings of a model that asks less of the images
    # The BIDS suffixes of raw images for it, each with the settings that go with it; of a map "fmap": the session's.
    suffixes: ClassVar[Mapping[str, Mapping[str, object]]] = {}

    noise: "Noise | str | None" = setting(None, **NOISE)
    sigma: float | None = setting(
        None, "standard deviation of the noise, in units of the images",
        otherwise="from the residuals of each voxel, with rician from the air around the patient",
    )  # fmt: skip
    mask: "np.ndarray | Path | str | None" = setting(
        None, "where to fit", is_map=True, always_stated=True,
        choices={"none": "every voxel", "auto": "leaves out air"},
        in_python='(x, y, z) bool, True where to fit; "auto" leaves out air; None: every voxel.',
    )  # fmt: skip
    component: str | None = None  # which images to read; a setting of jobs that leave a choice
    model: str = "mono"  # and these two of jobs of decays
    drop_below_snr: float | None = None
    negative: "Negative" = setting(
        "keep", "magnitudes below zero", of_reading=True,
        choices={"keep": "fitted as they are, as the real part of the signal", "abs": "their absolute values"},
    )  # fmt: skip
    series: Sequence[str] = setting(
        (), is_list=True, of_reading=True,
        help="read only the series of this number or, in DICOM, of a UID that begins so; several of one image each",
    )  # fmt: skip

    time_point: int | None = setting(
        None, "of images repeated in time only those of this time point, counted from 1", is_count=True, of_reading=True
    )
    drop_first: int | None = setting(
        None, "leave out so many images of the shortest times or smallest angles, as a first echo that is wrong",
        is_count=True, of_reading=True,
    )  # fmt: skip

    def __post_init__(self):
        for row in settings_of(type(self)):
            row.check(getattr(self, row.name))
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise UsageError(Setting("sigma"), f" must be above 0 and finite, got {self.sigma:g}.")
        if self.sigma is not None and not isinstance(self.noise, str | None):
            raise UsageError("the noise model has its own level; ", LeaveOut("sigma"), ".")
        if self.drop_below_snr is not None:
            if not 0 < self.drop_below_snr < float("inf"):
                raise UsageError(Setting("drop_below_snr"), f" must be above 0, got {self.drop_below_snr:g}.")
            if self.noise not in (None, "gaussian"):
                raise UsageError(
                    Setting("drop_below_snr"), " is for least squares; Rician noise needs no echoes left out; ",
                    LeaveOut("noise"), ".",
                )  # fmt: skip
        if self.drop_first is not None and self.drop_first < 0:
            raise UsageError(Setting("drop_first"), f" must not be negative, got {self.drop_first}.")
        if self.drop_first and self._images_named[1]:
            raise UsageError(Setting("drop_first"), " is not allowed with ", Setting(self._images_named[0]), ".")
        given = [row.name for row in settings_of(type(self)) if row.axis and getattr(self, row.name) is not None]
        if len(given) > 1:
            raise UsageError(Setting(given[1]), " is not allowed with ", Setting(given[0]), ": only one can vary.")

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What may vary between the images: that of which values are given, else all that the job has a setting for."""
        axes = {row.axis: getattr(self, row.name) for row in settings_of(type(self)) if row.axis}
        return tuple(axis for axis, values in axes.items() if values is not None) or tuple(axes)

    @property
    def given(self) -> Sequence[float] | None:
        """Values of what varies that replace those in the files [s] or [rad]."""
        values = [getattr(self, axis.name) for axis in self.axes]
        return values[0] if len(values) == 1 else None

    @property
    def files(self) -> dict[str, Path]:
        """The maps that are given as files, by setting."""
        values = {row.name: getattr(self, row.name) for row in settings_of(type(self)) if row.is_map}
        return {name: value for name, value in values.items() if isinstance(value, Path)}

    @property
    def is_rician(self) -> bool:
        """Whether the noise is taken to be another than that of least squares."""
        return self.noise == "rician" if isinstance(self.noise, str | None) else not self.noise.least_squares

    def noise_model(self, series: "ImageSeries") -> "Noise | str | None":
        """The noise of these images: `noise`, or what is usual for them where that is left open."""
        from .fitting.noise import last_echoes_drown

        left_open = self.noise is None and self.drop_below_snr is None and series.component == "magnitude"
        if not left_open or not last_echoes_drown(series, self.mask, self.sigma):  # pyright: ignore[reportArgumentType]
            return self.noise
        below = f"the last {series.axis.many} of most tissue are below 5 times the noise"
        biased = f"{below}: least squares finds times too long there; "
        if self.sigma is not None:
            remark(biased, Choose("noise", "rician"), ".")
        elif not self.knows_rician:
            remark(biased, Choose("method", "lm"), ".")
        else:
            remark(f"{below} of the air, which is taken to be Rician; ", Choose("noise", "gaussian"), " if it is not.")
            return "rician"
        return None

    @property
    def knows_rician(self) -> bool:
        """Whether its method can take magnitudes for what they are."""
        return True

    @property
    def is_compared(self) -> bool:
        """Whether there is a simpler model to hold it against."""
        return False

    def check_headers(self, series: "ImageSeries") -> None:
        """Raises what `plan` would where the headers of these images lack what it needs; the images do not matter."""

    def plan(self, series: "ImageSeries", fitted: "np.ndarray") -> "Plan":
        """The signal model of these images, what is known of the voxels `fitted`, (x, y, z), and what is assumed."""
        raise NotImplementedError

    def dense(self, series: "ImageSeries", model: "SignalModel") -> "tuple[np.ndarray, SignalModel]":
        """The axis sampled densely [s] or [rad], and the same model there; for one whose protocol is the axis alone."""
        import numpy as np

        points = np.linspace(0, 1.05 * float(series.whole.series.values.max()), 100)
        constant = {"offset": True} if self.model == "offset" else {}
        return points, type(model)(points, **constant)  # pyright: ignore

    def remark_on(self, maps: "Maps") -> None:
        """Remarks on maps that tell of the images that they are not what the model takes them for."""

    def compare(self, series: "ImageSeries", estimate: "Estimate") -> Rows:
        """Rows that hold the model against a simpler one, where `is_compared`."""
        return ()

    def estimate(self, series: "ImageSeries", progress: Progress | None = None) -> "Estimate":
        """The maps, with the model and the parameters behind them."""
        import numpy as np

        from .fitting.estimate import Estimate, fit_by_slabs
        from .fitting.noise import level_of_air, noise_of
        from .fitting.plan import sidecar_facts
        from .fitting.voxels import remark_if_exactly_determined, remark_if_negative

        with remarks_kept() as remarks:
            self.check_series(series)
            remark_if_negative(series)
            job = self.with_files_read(series)
            fitted = np.asarray(job.mask)
            noise, noise_level = noise_of(series, job.noise_model(series), job.sigma)
            plan = job.plan(series, fitted)
            remark_if_exactly_determined(series, plan.estimated, noise)
            floor = None
            if self.drop_below_snr is not None:
                level = level_of_air(series).sigma if self.sigma is None else self.sigma
                floor = self.drop_below_snr * level
                plan = replace(plan, facts={**plan.facts, "LeftOutBelow": float(f"{floor:.6g}")})
            maps = fit_by_slabs(plan, series, fitted, noise, progress, floor)
            self.remark_on(maps)
        maps.metadata, maps.remarks = sidecar_facts(plan, noise, noise_level), tuple(remarks)
        found = {parameter: maps[name] for name, parameter in plan.maps.items() if name in maps}
        params = plan.model.parameters(**found, **plan.known)
        return Estimate(maps, plan.model, params, *job.dense(series, plan.model), floor)

    @property
    def _images_named(self) -> tuple[str, Sequence[str]]:
        """The setting that names some of the images, and what it says."""
        names = [row.name for row in settings_of(type(self)) if row.are_numbers]
        return next(((name, getattr(self, name)) for name in names), ("", ()))

    def selected(self, series: "ImageSeries") -> "ImageSeries":
        """Those of the images that are to be used; raises UsageError where they are not there or too few."""
        name, words = self._images_named
        if not (words or self.drop_first):
            return series
        n, axis = len(series.values), series.axis
        there = f"{n} {axis.many}, {axis.described(series.values)}"
        numbers = whole_numbers(name, words, n) if words else list(range(1 + (self.drop_first or 0), n + 1))
        given = (Setting(name), f" {' '.join(words)}") if words else (Setting("drop_first"), f" {self.drop_first}")
        if numbers and max(numbers) > n:
            raise UsageError(*given, f": there are only {there}.")
        if len(set(numbers)) < 2:
            raise UsageError(*given, f" leaves {len(set(numbers))} of {there}; at least 2 are needed.")
        return series.select([number - 1 for number in numbers])

    def check_series(self, series: Any) -> None:
        """Raises UsageError where this is no `ImageSeries`, or one of other images."""
        from ..io.formats import check_series

        check_series(series, "series")
        if series.axis not in self.axes:
            wanted = " or ".join(axis.terms for axis in self.axes)
            names = " or ".join(f"axis={axis.name.removesuffix('s')!r}" for axis in self.axes)
            raise UsageError(
                f"{self.label} is fitted to images of different {wanted}, in this series the {series.axis.terms} vary; "
                f"read the images with {names}."
            )
        if series.component not in self.components:
            wanted = " or ".join(self.components)
            raise UsageError(f"{self.label} is fitted to {wanted} images, this series is {series.component}.")

    def with_files_read(self, series: "ImageSeries") -> "Job":
        """The same job with its maps read from their files, and its mask as an array."""
        from ..io.images import read_map
        from ..io.nifti.reader import read_mask
        from .fitting.voxels import voxels_to_fit

        read = {
            name: read_mask(path, series) if name == "mask" else read_map(path, name, series)
            for name, path in self.files.items()
        }
        job = replace(self, **read)
        return replace(job, mask=voxels_to_fit(job.mask, series))

    def arguments(self, axis: Axis | None = None) -> dict[str, Any]:
        """The settings for a record, in SI units; of what varies the values given for `axis`."""
        values = [(row, getattr(self, row.name)) for row in settings_of(type(self)) if row.axis in (None, axis)]
        # A choice among images is recorded where it was made: without it, all fit together.
        return {row.key: row.recorded(value) for row, value in values if row.axis or not row.of_reading or value}

    def words(self) -> list[str]:
        """The settings as they are typed, FILE in place of a path; those at their default are left out."""
        return [words for row in settings_of(type(self)) if (words := row.words(getattr(self, row.name)))]
