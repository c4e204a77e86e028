"""T1rho of images of different spin-lock times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..quantities import SPIN_LOCK_TIME
from .job import Job
from .settings import images_named, values_of

if TYPE_CHECKING:
    import numpy as np

    from ..io.series import ImageSeries
    from .fitting.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class T1rho(Job):
    """T1rho and S0 of images of different spin-lock times, by the model S(TSL) = S0 exp(-TSL / T1rho).

    All images have the same spin-lock amplitude and the receiver gain of the first.

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T1rhomap` and `T1rhomap_stderr` [s], `R1rhomap` =
        1 / T1rho [1/s], `S0map` [a.u.], `residual`, the relative error sum|q - x| / sum|x|, and `status`, `Status`
        codes. How they were made is in their `metadata`, what was mended or assumed in their `remarks`.

    Raises:
        UsageError: a mask of another shape, images that are not magnitudes of different spin-lock times.
        CorruptInputError: an empty mask.

    Sources:
        Borthakur et al., NMR Biomed 19:781 (2006).
    """

    name = "t1rho"
    label = "T1rho"
    main_map = "T1rhomap"
    summary = "T1rho maps from images of different spin-lock times"
    fits: ClassVar = {"tsl": "S(TSL) = S0 exp(-TSL / T1rho)"}

    tsl: Sequence[float] | None = values_of(SPIN_LOCK_TIME)
    spin_locks: Sequence[str] = images_named("spin-lock times")

    def plan(self, series: "ImageSeries", fitted: "np.ndarray") -> "Plan":
        from ..models.decay import MonoExponential
        from .fitting.plan import Plan

        return Plan(
            model=MonoExponential(series.values),
            equation="S(TSL) = S0 exp(-TSL / T1rho)",
            maps={"T1rhomap": "t2", "S0map": "s0"},
            estimated=("T1rho", "S0"),
        )
