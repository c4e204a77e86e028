"""T2* of multi-echo gradient echoes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import Choose, Give, MapWith, Setting, UsageError, remark
from ..quantities import ECHO_TIME
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
ADAM_BATCH_SIZE = 4096  # 20 000 steps take seconds: small batches let the progress bar move


@dataclass(frozen=True, kw_only=True, eq=False)
class T2star(Job):
    """T2* and S0 of a multi-echo gradient-echo series, by the model S(TE) = S0 exp(-TE / T2*).

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T2starmap` and `T2starmap_stderr` [s],
        `R2starmap` = 1 / T2* [1/s], `S0map` [a.u.], `residual`, the relative error sum|q - x| / sum|x|, and `status`,
        `Status` codes. How they were made is in their `metadata`, what was assumed also in their `remarks`.

    Raises:
        UsageError: unknown method, a mask of another shape, images that are not magnitudes of different echo times.
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

    def __post_init__(self):
        super().__post_init__()
        unknown = "Rician noise" if self.is_rician else "offset" if self.model == "offset" else ""
        if unknown and self.method in ("loglinear", "adam"):
            raise UsageError(Setting("method"), f" {self.method} knows no {unknown}; ", Choose("method", "lm"), ".")

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


def kind_of_images(series: "ImageSeries") -> "Kind":
    """Gradient or spin echoes, and what says so."""
    from ..io.sequence import kind_of

    first_te = float(series.te[0]) if series.te[0] == series.te[0] else None
    return series.kind or kind_of(series.acquisition.get, first_te, description=series.description)
