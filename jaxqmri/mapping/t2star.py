"""T2* of multi-echo gradient echoes."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..estimation.fit import fit
from ..estimation.noise import Noise
from ..estimation.solvers.base import Solver
from ..estimation.solvers.gradient_descent import Adam
from ..estimation.solvers.levenberg_marquardt import LevenbergMarquardt
from ..estimation.solvers.log_linear import LogLinear
from ..io.maps import Maps
from ..io.series import ImageSeries
from ..models.decay import Decay, MonoExponential
from ..quantities import ECHO_TIME
from .metadata import how, settings
from .protocols import warn_if_spin_echo
from .slabs import Slab, Values, maps_by_slabs
from .voxels import check_magnitude, values_of, voxels_to_fit, warn_if_exactly_determined

METHODS = ("lm", "loglinear", "adam")

# The ISMRM 2024 example: its images divided by 1500, T2* starting at 20 ms, 20 000 steps of 1e-3.
EXAMPLE_SCALE = 1500.0
EXAMPLE_T2STAR = 0.020  # s


def t2star_map(
    series: ImageSeries,
    *,
    method: str | Solver = "lm",
    mask: np.ndarray | str | None = None,
    noise: Noise | None = None,
    progress: Callable[[int], None] | None = None,
) -> Maps:
    """T2* and S0 of a multi-echo gradient-echo series, by the model S(TE) = S0 exp(-TE / T2*).

    Args:
        series: magnitude images with two or more echo times.
        method: "lm", exact least squares (Levenberg-Marquardt); "loglinear", a weighted straight line through the
            logarithm; "adam", the ISMRM 2024 example (20 000 Adam steps on the signal / 1500 from S0 = shortest echo,
            T2* = 20 ms); or a solver, e.g. `LogLinear(weighted=False)`.
        mask: (x, y, z) bool, True where to fit; "auto" leaves out air (`auto_mask`); None: every voxel.
        noise: what is known of the noise; None: its level is taken from the residuals.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T2starmap` and `T2starmap_stderr` [s],
        `R2starmap` = 1 / T2* [1/s], `S0map` [a.u.], `residual`, the relative error sum|q - x| / sum|x|, and `status`,
        `Status` codes. How they were made is in their `metadata`.

    Raises:
        ValueError: unknown method, a mask of another shape, or images that are not magnitudes.
    """
    check_magnitude("T2*", series)
    fitted = voxels_to_fit("T2*", series, ECHO_TIME, mask)
    warn_if_spin_echo(series)
    warn_if_exactly_determined(series, ("T2*", "S0"), noise)
    solver, start, batch_size = _recipe(method, series)
    model = MonoExponential(series.te)

    def estimate(slab: Slab) -> Values:
        signal = slab.signal
        result = fit(
            model, signal, init=start(signal), solver=solver, noise=slab.noise(noise), batch_size=batch_size,
            progress=progress,
        )  # fmt: skip
        return values_of(result, model, signal, time="T2star", field="t2", amplitude="S0map")

    equation = "S(TE) = S0 exp(-TE / T2star)"
    metadata = how(model, equation, type(solver).__name__, settings(solver), noise)
    return maps_by_slabs(series, fitted, estimate, metadata)


Start = Callable[[Float[Array, "voxel echo"]], Decay | None]


def _recipe(method: str | Solver, series: ImageSeries) -> tuple[Solver, Start, int | None]:
    """Solver, start and batch size of a method."""
    match method:
        case Solver():
            return method, lambda _: None, None
        case "lm":
            return LevenbergMarquardt(), lambda _: None, None
        case "loglinear":
            return LogLinear(), lambda _: None, None
        case "adam":
            shortest, t2 = int(np.argmin(series.te)), jnp.asarray(EXAMPLE_T2STAR)
            return Adam(scale=EXAMPLE_SCALE), lambda signal: Decay(s0=signal[:, shortest], t2=t2), _ADAM_BATCH_SIZE
    raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)} or a solver.")


_ADAM_BATCH_SIZE = 4096  # 20 000 steps take seconds: small batches let the progress bar move
