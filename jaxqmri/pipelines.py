"""The named jobs: from an image series to maps. Here, and only here, files meet the models."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from . import __version__
from .estimation.fit import FitResult, Status, fit
from .estimation.noise import Gaussian
from .estimation.solvers import Adam, LevenbergMarquardt, LogLinear, Solver
from .estimation.spin_echo import B1_RANGE, N_B1, N_T2, match_spin_echo
from .io.errors import CorruptInputError, InputWarning, MetadataError, UsageError
from .io.maps import Maps
from .io.series import ImageSeries
from .models.base import SignalModel
from .models.decay import Decay, MonoExponential
from .predictions import misfit
from .protocols import repetition, spin_echo_train, warn_if_gradient_echo

METHODS = ("lm", "loglinear", "adam")
T2_METHODS = ("dictionary", "mono")

# The ISMRM 2024 example: its images divided by 1500, T2* starting at 20 ms, 20 000 steps of 1e-3.
EXAMPLE_SCALE = 1500.0
EXAMPLE_T2STAR = 0.020  # s

DEFAULT_T1 = 1.0  # s; between muscle and grey matter at 1.5 and 3 T
T1_RANGE = (0.01, 20.0)  # s


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
    fitted, signal = _signal("T2*", series, mask)
    solver, init, batch_size = _recipe(method, series, signal)
    model = MonoExponential(series.te)
    result = fit(
        model, signal, init=init, solver=solver, noise=_masked_noise(noise, fitted), batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    how = _how(model, "S(TE) = S0 exp(-TE / T2star)", type(solver).__name__, _settings(solver), noise)
    return _maps(_values("T2star", "S0", model, result, signal), result.status, fitted, how)


def t2_map(
    series: ImageSeries,
    *,
    method: str = "dictionary",
    b1: ArrayLike | None = None,
    t1: ArrayLike = DEFAULT_T1,
    flip_angle: float | None = None,
    mask: np.ndarray | str | None = None,
    noise: Gaussian | None = None,
    progress: Callable[[int], None] | None = None,
) -> Maps:
    """T2, M0 and, where it is not given, B1 of a multi-echo spin-echo series.

    One train hardly depends on T1, so T1 is taken as known. Full recovery between trains is assumed: where TR is short,
    M0 carries the saturation.

    Args:
        series: magnitude images of evenly spaced echoes of one train; the first ones may be missing.
        method: "dictionary", extended phase graphs of the whole train with its stimulated echoes (`FSE`), see
            `match_spin_echo`; or "mono", S(TE) = M0 exp(-TE / T2) by exact least squares, for comparison: stimulated
            echoes, which come with every refocusing that is not perfect, make its T2 too long.
        b1: true / nominal flip angle, a number or a map (x, y, z); voxels where it is not within 0.1 ... 2 are not
            fitted. None: it is estimated in each voxel.
        t1: T1, a number or a map (x, y, z) [s].
        flip_angle: nominal refocusing angle [rad]; None: the FlipAngle of the images if it is above 90 degrees, else
            180 degrees, since many scanners state the angle of the excitation there.
        mask: (x, y, z) bool, True where to fit; "auto" leaves out air (`auto_mask`); None: every voxel.
        noise: what is known of the noise; None: its level is taken from the residuals.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T2map` and `T2map_stderr` [s], `R2map` = 1 / T2
        [1/s], `M0map` [a.u.], `TB1map` where B1 was estimated, `residual`, the relative error sum|q - x| / sum|x|, and
        `status`, `Status` codes. How they were made, and what was assumed, is in their `metadata`.

    Raises:
        MetadataError: the echoes are not those of one train; a B1 or T1 map in another unit.
        CorruptInputError: fewer echoes than parameters.
        ValueError: unknown method, a map of another shape, images that are not magnitudes.
    """
    if method not in T2_METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(T2_METHODS)}.")
    if method == "mono" and (b1 is not None or flip_angle is not None):
        raise UsageError("the mono-exponential model knows neither B1 nor flip angles; leave them out.")
    fitted, signal = _signal("T2", series, mask)
    warn_if_gradient_echo(series)
    assumed = [f"full recovery between repetitions{repetition(series)}: M0 carries the saturation"]
    if method == "mono":
        model, solver = MonoExponential(series.te), LevenbergMarquardt()
        result = fit(model, signal, solver=solver, noise=_masked_noise(noise, fitted), progress=progress)
        how = _how(model, "S(TE) = M0 exp(-TE / T2)", type(solver).__name__, _settings(solver), noise)
        how["Assumptions"] = ["perfect refocusing: no stimulated echoes", *assumed]
        return _maps(_values("T2", "M0", model, result, signal), result.status, fitted, how)

    parameters = ["T2", "M0", *(["B1"] if b1 is None else [])]
    _check_number_of_echoes(series, parameters)
    model, why = spin_echo_train(series, flip_angle)
    t1, b1 = _checked_t1(t1, fitted), _checked_b1(b1, fitted)
    result = match_spin_echo(model, signal, t1=t1, b1=b1, noise=_masked_noise(noise, fitted), progress=progress)
    size = {"atoms_T2": N_T2, "atoms_B1": N_B1 if b1 is None else 1}
    how = _how(
        model, "S(n) = M0 EPG_n(T2, T1, B1 x flip angles)", "dictionary match, refined off the grid", size, noise
    )
    t1_words = f"T1 = {t1:g} s everywhere" if t1.ndim == 0 else "T1 from a map"
    how["EstimatedParameters"] = parameters
    how["EchoSpacing"] = float(f"{model.echo_spacing:.6g}")  # s
    how["RefocusingFlipAngle"] = float(f"{np.rad2deg(model.flip_angles[0]):.6g}")  # degrees, as BIDS has FlipAngle
    how["Assumptions"] = [why, f"{t1_words}: one echo train hardly depends on it", *assumed]
    values = _values("T2", "M0", model, result, signal)
    if b1 is None:
        values["TB1map"] = result.params.b1
        how["Assumptions"].append(
            "B1 not above that of perfect refocusing, from which on it acts as its mirror image (only M0 would change)"
        )
    return _maps(values, result.status, fitted, how)


def _values(time: str, amplitude: str, model: SignalModel, result: FitResult, signal: Array) -> dict[str, ArrayLike]:
    """(voxel,) maps of a relaxation time and an amplitude, by the names of BIDS."""
    return {
        f"{time}map": result.params.t2,
        f"R{time[1:]}map": 1 / np.asarray(result.params.t2),
        f"{amplitude}map": getattr(result.params, model.amplitude),
        f"{time}map_stderr": result.stderr.t2,
        "residual": misfit(model, result.params, signal)[0],
    }


def _maps(values: Mapping[str, ArrayLike], status: Array, fitted: np.ndarray, metadata: Mapping[str, Any]) -> Maps:
    """(x, y, z) maps of the (voxel,) values of the voxels that were fitted."""
    maps = {name: _scattered(np.asarray(value), fitted, np.nan) for name, value in values.items()}
    maps["status"] = _scattered(np.asarray(status, dtype=np.uint8), fitted, Status.MASKED)
    return Maps(maps, metadata)


def _signal(what: str, series: ImageSeries, mask: np.ndarray | str | None) -> tuple[np.ndarray, Array]:
    """Which voxels to fit, (x, y, z), and their measurements, (voxel, echo)."""
    if series.component != "magnitude":
        raise ValueError(f"{what} is fitted to magnitude images, this series is {series.component}.")
    fitted = _as_mask(mask, series)
    return fitted, jnp.asarray(series.data[fitted], jnp.float32)


def _check_number_of_echoes(series: ImageSeries, parameters: list[str]) -> None:
    if len(series.te) < len(parameters):
        raise CorruptInputError(
            f"{len(series.te)} echoes cannot determine {len(parameters)} parameters ({', '.join(parameters)}); give a "
            "B1 map with --b1, or use --method mono."
        )


def _checked_t1(t1: ArrayLike, fitted: np.ndarray) -> np.ndarray:
    """A number, or (voxel,)."""
    t1 = _number_or_voxels("t1", t1, fitted)
    positive = t1[t1 > 0]
    if not positive.size or not T1_RANGE[0] <= np.median(positive) <= T1_RANGE[1]:
        found = f"the median {np.median(positive):g} s" if positive.size else "no value above 0"
        raise MetadataError(
            f"T1 has {found}, outside {T1_RANGE[0]:g} ... {T1_RANGE[1]:g} s; give seconds (--t1-ms: milliseconds)."
        )
    return t1


def _checked_b1(b1: ArrayLike | None, fitted: np.ndarray) -> np.ndarray | None:
    """None, or (voxel,)."""
    if b1 is None:
        return None
    b1 = np.broadcast_to(_number_or_voxels("b1", b1, fitted), (int(fitted.sum()),))
    low, high = B1_RANGE
    positive = b1[np.isfinite(b1) & (b1 > 0)]
    if positive.size and np.median(positive) > 10:
        raise MetadataError(
            f"the B1 map has the median {np.median(positive):g}, as in per cent or degrees; B1 is the true over the "
            "nominal flip angle, 1 where they agree: divide per cent by 100."
        )
    n_bad = int(np.sum(~((b1 >= low) & (b1 <= high))))
    if n_bad:
        warnings.warn(
            f"the B1 map is outside {low:g} ... {high:g}, or no number, in {n_bad} of {b1.size} voxels to be fitted; "
            "they get no T2.",
            InputWarning,
            stacklevel=3,
        )
    return b1


def _number_or_voxels(name: str, value: ArrayLike, fitted: np.ndarray) -> np.ndarray:
    value = np.asarray(value, dtype=np.float32)
    if value.ndim and value.shape != fitted.shape:
        raise ValueError(
            f"{name} has shape {value.shape}, the images have {fitted.shape}; give a number or such a map."
        )
    return value[fitted] if value.ndim else value


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
    if isinstance(mask, str) and mask != "auto":
        raise ValueError(f'mask is a map, "auto" or None, got {mask!r}; read a file with read_mask.')
    wanted = auto_mask(series.data) if isinstance(mask, str) else np.asarray(mask) > 0  # as read_mask; NaN is outside
    if wanted.shape != shape:
        raise ValueError(f"mask has shape {wanted.shape}, the images have {shape}; resample the mask to the images.")
    if not wanted.any():
        raise CorruptInputError("the mask is empty, so no voxel would be mapped; mark the voxels wanted with True.")
    return wanted


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


def _settings(solver: Solver) -> dict[str, Any]:
    return {name: value if isinstance(value, int | float) else str(value) for name, value in vars(solver).items()}


def _how(
    model: SignalModel, equation: str, algorithm: str, settings: Mapping[str, Any], noise: Gaussian | None
) -> dict[str, Any]:
    """How the maps were made, for their sidecars."""
    variance = "s^2 = sum(r^2) / (n - p)" if noise is None or noise.sigma is None else "s = sigma, given"
    return {
        "Model": type(model).__name__,
        "Equation": equation,
        "EstimationAlgorithm": algorithm,
        "EstimationSettings": dict(settings),
        "ErrorBars": f"sqrt(diag(inv(J'J)) s^2), {variance}",
        "Levels": {str(int(s)): s.name for s in Status},
        "GeneratedBy": [{"Name": "jaxqmri", "Version": __version__}],
        "SoftwareVersions": {"jax": jax.__version__, "equinox": eqx.__version__, "numpy": np.__version__},
    }
