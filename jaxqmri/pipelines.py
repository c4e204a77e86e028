"""The named jobs: from an image series to maps. Here, and only here, files meet the models."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from . import __version__
from .estimation.fit import Status, fit
from .estimation.noise import Gaussian
from .estimation.solvers import Adam, LevenbergMarquardt, LogLinear, Solver
from .io.maps import Maps
from .io.series import ImageSeries
from .models.base import simulate
from .models.decay import Decay, MonoExponential

METHODS = ("lm", "loglinear", "adam")

# The ISMRM 2024 example: its images divided by 1500, T2* starting at 20 ms, 20 000 steps of 1e-3.
EXAMPLE_SCALE = 1500.0
EXAMPLE_T2STAR = 0.020  # s


def t2star_map(
    series: ImageSeries,
    *,
    method: str | Solver = "lm",
    mask: np.ndarray | str | None = None,
    noise: Gaussian | None = None,
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
    if series.component != "magnitude":
        raise ValueError(f"T2* is fitted to magnitude images, this series is {series.component}.")
    fitted = _as_mask(mask, series)
    signal = jnp.asarray(series.data[fitted])
    solver, init, batch_size = _recipe(method, series, signal)
    model = MonoExponential(series.te)
    result = fit(
        model, signal, init=init, solver=solver, noise=_masked_noise(noise, fitted), batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    error = relative_error(model, result.params, signal)
    values = {
        "T2starmap": result.params.t2,
        "R2starmap": 1 / np.asarray(result.params.t2),
        "S0map": result.params.s0,
        "T2starmap_stderr": result.stderr.t2,
        "residual": error,
    }
    maps = {name: _scattered(np.asarray(value), fitted, np.nan) for name, value in values.items()}
    maps["status"] = _scattered(np.asarray(result.status, dtype=np.uint8), fitted, Status.MASKED)
    return Maps(maps, _metadata(model, solver, noise))


@eqx.filter_jit
def relative_error(model: MonoExponential, params: Decay, signal: Float[Array, "*voxel n"]) -> Float[Array, "*voxel"]:
    """sum |q - x| / sum |x| over the measurements x of each voxel, with q what the model predicts.

    Args:
        model: the signal model.
        params: fitted parameters, maps of shape `*voxel`; where they are NaN the error is NaN.
        signal: measurements on the last axis.
    """
    misfit = jnp.sum(jnp.abs(simulate(model, params) - signal), axis=-1)
    return misfit / jnp.maximum(jnp.sum(jnp.abs(signal), axis=-1), jnp.finfo(signal.dtype).tiny)


def auto_mask(images: np.ndarray) -> Bool[np.ndarray, "x y z"]:
    """Leaves out air: True where the first image is above a tenth of its robust range.

    The robust range runs from the 2nd to the 98th percentile, as in BET (Smith, Hum Brain Mapp 17:143 (2002)); single
    voxels of noise are removed. Tissue darker than a tenth of the brightest at the first echo is lost.

    Args:
        images: (x, y, z, echo), shortest echo first.
    """
    from scipy import ndimage  # a quarter of a second to load

    first = np.nan_to_num(images[..., 0], nan=0.0, posinf=0.0, neginf=0.0)
    low, high = np.percentile(first, [2, 98])
    above = first > low + 0.1 * (high - low)
    in_plane_cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)[:, :, None]
    opened = ndimage.binary_opening(above, structure=in_plane_cross)
    return opened if min(above.shape[:2]) > 2 else above  # in a line of voxels each one stands alone


def _as_mask(mask: np.ndarray | str | None, series: ImageSeries) -> Bool[np.ndarray, "x y z"]:
    shape = series.data.shape[:3]
    if mask is None:
        return np.ones(shape, bool)
    if isinstance(mask, str):
        if mask != "auto":
            raise ValueError(f'mask is a map, "auto" or None, got {mask!r}; read a file with read_mask.')
        return auto_mask(series.data)
    mask = np.asarray(mask)
    if mask.shape != shape:
        raise ValueError(f"mask has shape {mask.shape}, the images have {shape}; resample the mask to the images.")
    return mask > 0  # as read_mask has it; NaN is outside


def _recipe(
    method: str | Solver, series: ImageSeries, signal: Float[Array, "voxel echo"]
) -> tuple[Solver, Decay | None, int | None]:
    """Solver, start and batch size of a method."""
    match method:
        case Solver():
            return method, None, None
        case "lm":
            return LevenbergMarquardt(), None, None
        case "loglinear":
            return LogLinear(), None, None
        case "adam":
            shortest_echo = signal[:, int(np.argmin(series.te))]
            start = Decay(s0=shortest_echo, t2=jnp.asarray(EXAMPLE_T2STAR))
            return Adam(scale=EXAMPLE_SCALE), start, _ADAM_BATCH_SIZE
    raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)} or a solver.")


_ADAM_BATCH_SIZE = 4096  # 20 000 steps take seconds: small batches let the progress bar move


def _masked_noise(noise: Gaussian | None, mask: np.ndarray) -> Gaussian | None:
    if noise is None or noise.sigma is None or noise.sigma.ndim == 0:
        return noise
    if noise.sigma.shape != mask.shape:
        raise ValueError(f"noise.sigma has shape {noise.sigma.shape}, the images have {mask.shape}.")
    return Gaussian(noise.sigma[mask])


def _scattered(values: np.ndarray, mask: np.ndarray, outside: Any) -> np.ndarray:
    full = np.full(mask.shape, outside, dtype=values.dtype)
    full[mask] = values
    return full


def _metadata(model: MonoExponential, solver: Solver, noise: Gaussian | None) -> dict[str, Any]:
    settings = {name: value if isinstance(value, int | float) else str(value) for name, value in vars(solver).items()}
    variance = "s^2 = sum(r^2) / (n - p)" if noise is None or noise.sigma is None else "s = sigma, given"
    return {
        "Model": type(model).__name__,
        "Equation": "S(TE) = S0 exp(-TE / T2star)",
        "EstimationAlgorithm": type(solver).__name__,
        "EstimationSettings": settings,
        "ErrorBars": f"sqrt(diag(inv(J'J)) s^2), {variance}",
        "Levels": {str(int(s)): s.name for s in Status},
        "GeneratedBy": [{"Name": "jaxqmri", "Version": __version__}],
        "SoftwareVersions": {"jax": jax.__version__, "equinox": eqx.__version__, "numpy": np.__version__},
    }
