"""T2* of multi-echo gradient echoes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import Choose, Give, LeaveOut, MapWith, MetadataError, Setting, UsageError, remark
from ..quantities import ECHO_TIME, Quantity
from .job import DROP_BELOW_SNR, MODEL, Job
from .settings import images_named, setting, values_of

if TYPE_CHECKING:
    import numpy as np

    from ..estimation.solvers.base import Solver
    from ..io.sequence import Kind
    from ..io.series import ImageSeries
    from .fitting.plan import Plan

# The ISMRM 2024 example: its images divided by 1500, T2* starting at 20 ms, 20 000 steps of 1e-3.
EXAMPLE_SCALE = 1500.0
EXAMPLE_T2STAR = 0.020  # s
LATEST_FIRST_ECHO = 0.2  # s; several T2* of any tissue, of which nothing would be left
# The steepest next to air are near 10 Hz/mm at 3 T, 1 Hz/mm is 23.5 uT/m.
GRADIENT = Quantity(
    "gradient_hz_per_mm", "gradient map", "gradient", "Hz/mm", "Hz/mm", 1.0, low=1e-3, high=50.0, meaning="in Hz/mm",
    mistaken_for=((1e3, "Hz/m by 1000"), (23.5, "uT/m by 23.5")),
)  # fmt: skip
ADAM_BATCH_SIZE = 4096  # 20 000 steps take seconds: small batches let the progress bar move


@dataclass(frozen=True, kw_only=True, eq=False)
class T2star(Job):
    """T2* and S0 of a multi-echo gradient-echo series, by the model S(TE) = S0 exp(-TE / T2*).

    A field that changes across the slice makes T2* too short. With its gradient G, given or from a map of b0, the model
    is S0 exp(-TE / T2*) |sinc(G d TE)| for slices of thickness d; see `DephasedGradientEcho`.

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T2starmap` and `T2starmap_stderr` [s],
        `R2starmap` = 1 / T2* [1/s], `S0map` [a.u.], `residual`, the relative error sum|q - x| / sum|x|, and `status`,
        `Status` codes. How they were made is in their `metadata`, what was assumed also in their `remarks`.

    Raises:
        UsageError: unknown method, a mask of another shape, images that are not magnitudes of different echo times; a
            field gradient for another method than "lm" or for 3-D images.
        MetadataError: a field gradient in another unit, or slices of unknown thickness.
        CorruptInputError: an empty mask.
    """

    name = "t2star"
    label = "T2*"
    main_map = "T2starmap"
    summary = "T2* maps from multi-echo gradient echoes"
    fits: ClassVar = {"te": "S(TE) = S0 exp(-TE / T2*)"}
    suffixes: ClassVar = {"MEGRE": {}, "T2starw": {}}

    te: Sequence[float] | None = values_of(ECHO_TIME)
    echoes: Sequence[str] = images_named("echoes")
    method: "str | Solver" = setting(
        "lm", always_stated=True, or_object="a solver, e.g. `LogLinear(weighted=False)`",
        object_type="jaxqmri.estimation.solvers.base:Solver",
        choices={
            "lm": "exact least squares",
            "loglinear": "weighted straight line through the logarithm",
            "adam": "20 000 Adam steps, as in the ISMRM 2024 example, about 1000 times slower",
        },
    )  # fmt: skip

    model: str = setting("mono", **MODEL)
    drop_below_snr: float | None = setting(None, **DROP_BELOW_SNR)
    gradient_hz_per_mm: Any = setting(
        None, "field gradient across the slices in Hz/mm, by which 2-D images lose signal, so that T2* is too short",
        otherwise="no correction", is_map=True,
    )  # fmt: skip
    b0_hz: Any = setting(
        None, "off-resonance in Hz, such as a fieldmap of BIDS; its difference between slices is the gradient",
        otherwise="no correction", is_map=True,
    )  # fmt: skip
    slice_thickness_mm: float | None = setting(
        None, "slice thickness in mm, not the distance between slices", otherwise="SliceThickness of the images"
    )

    def __post_init__(self):
        super().__post_init__()
        unknown = "Rician noise" if self.is_rician else "offset" if self.model == "offset" else ""
        if unknown and self.method in ("loglinear", "adam"):
            raise UsageError(Setting("method"), f" {self.method} knows no {unknown}; ", Choose("method", "lm"), ".")
        field = [name for name in ("gradient_hz_per_mm", "b0_hz") if getattr(self, name) is not None]
        if len(field) > 1:
            raise UsageError(Setting(field[1]), " is not allowed with ", Setting(field[0]), ": either is enough.")
        for name, only in (("method", "lm"), ("model", "mono")):
            if field and getattr(self, name) not in (only, None):
                raise UsageError(Setting(field[0]), f" is not known to this {name}; ", Choose(name, only), ".")
        if self.slice_thickness_mm is not None and not field:
            what = Setting("slice_thickness_mm"), " matters to the correction for a field gradient alone; "
            raise UsageError(*what, LeaveOut("slice_thickness_mm"), ".")

    @property
    def knows_rician(self) -> bool:
        return self.method == "lm"

    def plan(self, series: "ImageSeries", fitted: "np.ndarray") -> "Plan":
        import jax.numpy as jnp

        from ..estimation.solvers.base import Solver
        from ..estimation.solvers.gradient_descent import Adam
        from ..estimation.solvers.log_linear import LogLinear
        from ..models.decay import Decay

        kind = kind_of_images(series)
        if kind.echo == "SE":
            remark(f"these look like spin echoes ({kind.sign}), whose decay is T2, not T2*; ", MapWith("t2"), ".")
        if (first_te := float(series.te.min())) > LATEST_FIRST_ECHO:
            late = f"the first echo comes at {first_te:g} s, late for gradient echoes: if these are milliseconds, "
            remark(late, Give("te", "the echo times"), ".")
        if self.gradient_hz_per_mm is not None or self.b0_hz is not None:
            return self._dephased(series, fitted)
        search: dict[str, Any] = {}  # "lm": as `Plan` says
        if isinstance(self.method, Solver):
            search = {"solver": self.method}
        elif self.method == "loglinear":
            search = {"solver": LogLinear()}
        elif self.method == "adam":
            shortest, t2 = int(series.te.argmin()), jnp.asarray(EXAMPLE_T2STAR)
            search = {
                "solver": Adam(scale=EXAMPLE_SCALE),
                "start": lambda signal, _: Decay(s0=signal[:, shortest], t2=t2),
                "batch_size": ADAM_BATCH_SIZE,
            }
        return decay_plan(series, "T2star", "S0", self.model == "offset", estimated="T2*", **search)

    def _dephased(self, series: "ImageSeries", fitted: "np.ndarray") -> "Plan":
        """What is fitted where the field changes across the slice."""
        import numpy as np

        from ..models.dephasing import DephasedGradientEcho
        from .fitting.plan import Plan
        from .fitting.voxels import number_or_map

        if series.acquisition.get("MRAcquisitionType") == "3D":
            given = "gradient_hz_per_mm" if self.b0_hz is None else "b0_hz"
            what = "MRAcquisitionType is 3D: nothing is excited slice by slice, so no gradient dephases it as such; "
            raise UsageError(what, LeaveOut(given), ".")
        thickness = slice_thickness(series, self.slice_thickness_mm)
        if self.b0_hz is not None:
            if thickness > 2 * (spacing := series.voxel_size[2]):
                raise MetadataError(
                    f"slices of {thickness:g} mm lie {spacing:g} mm apart along the third axis of the images, so these "
                    "are not the slices that were excited; ", Give("gradient_hz_per_mm", "the gradient"), ".",
                )  # fmt: skip
            b0 = number_or_map("b0_hz", self.b0_hz, fitted.shape)
            gradient, source = through_slice_gradient(b0, spacing), "the slices of a map of b0"
        else:
            gradient, source = number_or_map("gradient_hz_per_mm", self.gradient_hz_per_mm, fitted.shape), "given"
        if wrong := GRADIENT.out_of_range(np.abs(gradient[fitted] if gradient.ndim else gradient)):
            raise MetadataError(f"the gradient ({source}) is {wrong}.")
        if gradient.ndim and (lost := int(np.count_nonzero(~np.isfinite(gradient[fitted])))):
            remark(f"the gradient is no number in {lost} of {int(fitted.sum())} voxels to be fitted; they get no T2*.")
        return Plan(
            model=DephasedGradientEcho(series.te),
            equation="S(TE) = S0 exp(-TE / T2star) |sinc(G d TE)|",
            maps={"T2starmap": "t2star", "S0map": "m0"},
            estimated=("T2*", "S0"),
            known={"b0_change": (thickness * gradient).astype(np.float32)},
            assumed=[f"slices of a rectangular profile, d = {thickness:g} mm thick"],
            facts={"ThroughSliceDephasing": f"corrected; the field gradient G across the slices is from {source}"},
        )


def decay_plan(
    series: "ImageSeries", time: str, amplitude: str, offset: bool, *, estimated: str = "", **facts: Any
) -> "Plan":
    """A mono-exponential, to zero or with an offset to a constant, by the names of its maps."""
    from ..models.decay import MonoExponential
    from .fitting.plan import Plan
    from .fitting.voxels import check_number

    names = [estimated or time, amplitude, *(["Offset"] if offset else [])]
    check_number(series, names, *([Choose("model", "mono")] if offset else ["give images of more echoes"]))
    return Plan(
        model=MonoExponential(series.te, offset=offset),
        plain=MonoExponential(series.te) if offset else None,
        equation=f"S(TE) = {amplitude} exp(-TE / {time}){' + Offset' if offset else ''}",
        maps={f"{time}map": "t2", f"{amplitude}map": "s0", **({"Offset": "offset"} if offset else {})},
        estimated=names,
        **facts,
    )


def slice_thickness(series: "ImageSeries", given: float | None) -> float:
    """Of a 2-D series [mm]; the distance between slices may hold a gap."""
    thickness = series.acquisition.get("SliceThickness") if given is None else given
    if not isinstance(thickness, int | float) or thickness != thickness:
        between = f"SliceThickness is not stated, and their distance of {series.voxel_size[2]:g} mm may hold a gap; "
        raise MetadataError(between, Give("slice_thickness_mm", "the thickness of the slices"), ".")
    if not 0.2 <= thickness <= 50:
        raise MetadataError(
            f"a slice thickness of {thickness:g} mm cannot be; ", Give("slice_thickness_mm", "it in millimetres"), "."
        )
    return float(thickness)


def through_slice_gradient(b0: Any, slice_spacing_mm: float, period: float | None = None) -> "np.ndarray":
    """The gradient across slices [Hz/mm] of an off-resonance map, from the neighbours on both sides that have a number.

    Args:
        b0: (x, y, z) off-resonance [Hz], slices along z; NaN where there is none.
        slice_spacing_mm: from the middle of a slice to that of the next [mm].
        period: by what b0 may be off, as 1 / echo spacing where it comes from evenly spaced echoes [Hz]; the smallest
            difference counts. None: nothing.

    Raises:
        UsageError: another shape, or a single slice, in which no gradient can be seen.

    Example:
        b0 = fit(ComplexGradientEcho(te), images).params.b0
        gradient = through_slice_gradient(b0, slice_spacing_mm=3.3, period=1 / (te[1] - te[0]))
    """
    import numpy as np

    b0 = np.asarray(b0, np.float64)
    if b0.ndim != 3 or b0.shape[2] < 2:
        raise UsageError(f"b0 has shape {b0.shape}, wanted (x, y, z) of at least 2 slices, whose difference is seen.")
    steps = np.diff(b0, axis=2)
    steps = steps if period is None else steps - period * np.round(steps / period)
    both = [np.pad(steps, [(0, 0), (0, 0), side], constant_values=np.nan) for side in ((1, 0), (0, 1))]
    there = np.sum(np.isfinite(both), axis=0)
    return np.where(there, np.nansum(both, axis=0) / np.maximum(there, 1), np.nan) / slice_spacing_mm


def kind_of_images(series: "ImageSeries") -> "Kind":
    """Gradient or spin echoes, and what says so."""
    from ..io.sequence import kind_of

    first_te = float(series.te[0]) if series.te[0] == series.te[0] else None
    return series.kind or kind_of(series.acquisition.get, first_te, description=series.description)
