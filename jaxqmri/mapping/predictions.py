"""What the fitted models predict: misfits, curves of single voxels, one model held against another."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..batching.batches import in_batches
from ..estimation.fit import fit
from ..io.maps import Maps
from ..io.series import ImageSeries
from ..io.storage.memory import slabs
from ..models.base import Params, SignalModel, simulate, sum_of_measurements
from ..models.decay import Decay, MonoExponential
from ..models.fse import FSE
from ..models.recovery import InversionRecovery, Recovery
from ..models.spoiled import SpoiledGradientEcho
from ..models.tissue import Tissue
from ..quantities import Status
from .protocols import inversion_recovery, spin_echo_train, spoiled_gradient_echoes


def misfit(
    model: SignalModel, params: Params, signal: Float[Array, "voxel n"]
) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"]]:
    """How far the measurements x of each voxel are from what the model predicts, q.

    Args:
        model: the signal model.
        params: fitted parameters, numbers or (voxel,) maps; where they are NaN so is the result.
        signal: measurements on the last axis.

    Returns:
        The relative error sum|q - x| / sum|x|, and the root mean square of q - x [units of the signal].
    """
    every = type(params)(*(jnp.broadcast_to(leaf, signal.shape[:1]) for leaf in params))
    return in_batches(_misfit, (model,), (every, signal), None)


@eqx.filter_jit
def _misfit(model: SignalModel, voxels: tuple[Params, Array]) -> tuple[Array, Array]:
    params, signal = voxels
    off, size = jnp.abs(simulate(model, params) - signal).T, jnp.abs(signal).T
    relative = sum_of_measurements(off) / jnp.maximum(sum_of_measurements(size), jnp.finfo(signal.dtype).tiny)
    return relative, jnp.sqrt(sum_of_measurements(off**2) / len(off))


def decay_curves(te: np.ndarray, s0: np.ndarray, t2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponential decays from the excitation to shortly after the last echo.

    Args:
        te: (echo,) [s].
        s0, t2: (voxel,) [a.u.], [s].

    Returns:
        (point,) times [s] and (voxel, point) signals [a.u.].
    """
    times = np.linspace(0, te[-1] * 1.05, 100)
    return times, np.asarray(simulate(MonoExponential(times), Decay(s0=s0, t2=t2)))  # pyright: ignore[reportArgumentType]


def recovery_curves(
    series: ImageSeries,
    maps: Maps,
    voxels: tuple[np.ndarray, ...],
    *,
    tr: float | None = None,
    efficiency: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Inversion recoveries from the inversion to shortly after the longest inversion time.

    Args:
        series: the images.
        maps: what `t1_map` made of them.
        voxels: indices along x, y and z, each (voxel,).
        tr, efficiency: as given to `t1_map`.

    Returns:
        (point,) inversion times [s] and (voxel, point) signals [a.u.], magnitudes if the images are.
    """
    measured, _ = inversion_recovery(series, tr)
    assert series.ti is not None
    longest = 1.05 * float(series.ti.max())
    times = np.linspace(0, longest if measured.tr is None else min(longest, 0.999 * float(measured.tr)), 200)
    if "InversionEfficiency" in maps:
        found = maps["InversionEfficiency"][voxels]
    else:
        found = np.full(len(voxels[0]), 1.0 if efficiency is None else efficiency, np.float32)
    model = InversionRecovery(times, tr=np.inf if measured.tr is None else measured.tr, magnitude=measured.magnitude)
    params = Recovery(maps["M0map"][voxels], maps["T1map"][voxels], found)  # pyright: ignore[reportArgumentType]
    return times, np.asarray(simulate(model, params))


def flip_angle_curves(
    series: ImageSeries,
    maps: Maps,
    voxels: tuple[np.ndarray, ...],
    *,
    tr: float | None = None,
    b1: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Signals of spoiled gradient echoes from small to slightly more than the largest flip angle.

    Args:
        series: the images.
        maps: what `t1_map` made of them.
        voxels: indices along x, y and z, each (voxel,).
        tr, b1: as given to `t1_map`.

    Returns:
        (point,) nominal flip angles [rad] and (voxel, point) signals [a.u.].
    """
    measured, _ = spoiled_gradient_echoes(series, tr)
    assert series.flip_angles is not None
    angles = np.linspace(1e-3, min(1.1 * float(series.flip_angles.max()), 3.14), 200)
    b1 = np.asarray(1.0 if b1 is None else b1, np.float32)
    tissue = Tissue(m0=maps["M0map"][voxels], t1=maps["T1map"][voxels], b1=b1[voxels] if b1.ndim else b1)  # pyright: ignore[reportArgumentType]
    return angles, np.asarray(simulate(SpoiledGradientEcho(angles, measured.tr), tissue))


def train_curves(
    series: ImageSeries,
    maps: Maps,
    voxels: tuple[np.ndarray, ...],
    *,
    b1: ArrayLike | None = None,
    t1: ArrayLike = 1.0,
    flip_angle: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """All echoes of the train, recorded or not, as the fitted extended phase graphs have them.

    Args:
        series: the images.
        maps: what `t2_map` made of them.
        voxels: indices along x, y and z, each (voxel,).
        b1, t1, flip_angle: as given to `t2_map`.

    Returns:
        (echo,) times [s] and (voxel, echo) signals [a.u.].
    """
    model, _ = spin_echo_train(series, flip_angle)
    whole = FSE(model.flip_angles, model.echo_spacing, magnitude=True)
    return np.asarray(whole.echo_times), np.asarray(simulate(whole, _tissue(maps, voxels, b1, t1)))


def compare_with_mono(
    series: ImageSeries,
    maps: Maps,
    *,
    b1: ArrayLike | None = None,
    t1: ArrayLike = 1.0,
    flip_angle: float | None = None,
) -> list[dict[str, object]]:
    """The train's extended phase graphs against the mono-exponential model, in the voxels where both have an answer.

    Args:
        series: the images.
        maps: what `t2_map` made of them by extended phase graphs.
        b1, t1, flip_angle: as given to `t2_map`.

    Returns:
        A row per model: number of voxels, median and quartiles of T2 [s], median relative error. For the train also the
        median ratio of its rms misfit to that of the mono-exponential, what this ratio would be if all misfit were
        noise (the train may have a parameter more), and the share of the voxels that it fits better. No rows where
        there is no such voxel.
    """
    ok = maps["status"] == Status.OK
    train, decay = spin_echo_train(series, flip_angle)[0], MonoExponential(series.te)

    def compared(slices: slice) -> list[np.ndarray]:
        """T2, relative error and rms misfit of the train, then those of the decay, where both have an answer."""
        where = ok[:, :, slices]
        signal = jnp.asarray(series.data[:, :, slices][where])
        other = fit(decay, signal)
        both = np.asarray(other.status) == Status.OK
        x, y, z = np.nonzero(where)
        tissue = _tissue(maps, (x, y, z + slices.start), b1, t1)
        by_train, by_decay = misfit(train, tissue, signal), misfit(decay, other.params, signal)
        values = (maps["T2map"][:, :, slices][where], *by_train, other.params.t2, *by_decay)
        return [np.asarray(value)[both] for value in values]

    parts = [compared(slices) for slices in slabs(series.data) if ok[:, :, slices].any()]
    if not any(part[0].size for part in parts):
        return []
    train_t2, train_error, train_rms, decay_t2, decay_error, decay_rms = map(np.concatenate, zip(*parts, strict=True))
    n, n_parameters = len(series.te), 3 if b1 is None else 2
    return [
        {
            "model": "EPG + B1" if b1 is None else "EPG, B1 given",
            "voxels": train_t2.size,
            **_quartiles(train_t2),
            "relative_error": float(np.median(train_error)),
            "rms_misfit_to_mono": float(np.median(train_rms / np.maximum(decay_rms, 1e-30))),
            "by_noise_alone": float(np.sqrt(max(n - n_parameters, 0) / max(n - 2, 1))),
            "share_better": float(np.mean(train_rms < decay_rms)),
        },
        {
            "model": "mono-exponential",
            "voxels": decay_t2.size,
            **_quartiles(decay_t2),
            "relative_error": float(np.median(decay_error)),
        },
    ]


def _quartiles(t2: np.ndarray) -> dict[str, float]:
    lower, median, upper = np.percentile(t2, [25, 50, 75]).tolist()
    return {"median_T2_s": median, "quartile_1_T2_s": lower, "quartile_3_T2_s": upper}


def _tissue(maps: Maps, voxels: tuple[np.ndarray, ...], b1: ArrayLike | None, t1: ArrayLike) -> Tissue:
    def at(value: ArrayLike) -> np.ndarray:
        value = np.asarray(value, np.float32)
        return value[voxels] if value.ndim else value

    return Tissue(m0=at(maps["M0map"]), t1=at(t1), t2=at(maps["T2map"]), b1=at(maps["TB1map"] if b1 is None else b1))  # pyright: ignore[reportArgumentType]
