"""The maps of a job: its model is fitted to the series whole, or slab by slab where it is larger than the memory.

What decides for all voxels (the mask, the model, the noise level, what is known) is settled before; so a slab changes
memory and speed, never the result.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from ...batching.batches import in_batches
from ...estimation.criterion import aicc
from ...estimation.fit import FitResult, fit
from ...estimation.noise import Gaussian, Noise
from ...io.maps import Maps
from ...io.series import ImageSeries
from ...io.storage.memory import slabs
from ...models.base import Params, SignalModel, simulate, sum_of_measurements
from ...quantities import Status
from .plan import Plan


@dataclass(frozen=True)
class Estimate:
    """What a job found in a series."""

    maps: Maps  # `status` among them
    model: SignalModel  # what was fitted
    params: Params  # of all voxels, known ones too, numbers or (x, y, z)
    points: Float[np.ndarray, " point"]  # values of what varies that sample it densely [s] or [rad]
    dense_model: SignalModel  # the model at those
    floor: float | None = None  # [a.u.] see `above`

    def params_of(self, voxels: tuple[np.ndarray, ...]) -> Params:
        """The parameters of voxels, given by their indices along x, y and z; numbers or (voxel,)."""
        leaves = map(np.asarray, self.params)
        return type(self.params)(*(leaf[voxels] if leaf.ndim else leaf for leaf in leaves))

    def curves(self, voxels: tuple[np.ndarray, ...]) -> Float[np.ndarray, "voxel point"]:
        """What the fitted model predicts at `points` [a.u.]."""
        return np.asarray(simulate(self.dense_model, self.params_of(voxels)))


def fit_by_slabs(
    plan: Plan,
    series: ImageSeries,
    fitted: Bool[np.ndarray, "x y z"],
    noise: Noise | None,
    progress: Callable[[int], None] | None,
    floor: float | None = None,
) -> Maps:
    """(x, y, z) maps of a plan; a voxel that may be clipped keeps what was found, as SATURATED.

    With a `floor` [a.u.] measurements from the first on that is below it are not compared.
    """
    maps: dict[str, np.ndarray] = {}
    for slices in slabs(series.data):
        where = fitted[:, :, slices]
        if not where.any():
            continue
        signal = np.asarray(series.data[:, :, slices][where], np.float32)
        known = {name: _within(value, slices, where) for name, value in plan.known.items()}
        # A noise model holds numbers or, of the whole series, maps.
        held: dict[str, Any] = {name: getattr(noise, name, None) for name in ("sigma", "weights")}
        is_map = {"sigma": np.ndim(held["sigma"]) > 0, "weights": np.ndim(held["weights"]) > 1}
        here = {name: _within(value, slices, where) for name, value in held.items() if is_map[name]}
        noise_here = replace(noise, **here) if noise is not None and here else noise
        if floor is not None:
            noise_here = Gaussian(getattr(noise_here, "sigma", None), above(signal, floor).astype(np.float32))
        how: dict[str, Any] = {"known": known, "noise": noise_here, "batch_size": plan.batch_size}
        start = plan.start(signal, known)
        result = fit(
            plan.model, signal, init=start, bounds=plan.bounds, solver=plan.solver, progress=progress, **how
        )  # fmt: skip
        found_here = _values(plan, signal, result)
        if plan.plain is not None:
            found_here = _compared(plan, plan.plain, signal, result, how) | found_here
        for name, values in found_here.items():
            found = np.asarray(values, np.uint8 if name == "status" else None)
            if name not in maps:
                outside = Status.MASKED if name == "status" else np.nan
                maps[name] = np.full(fitted.shape, outside, found.dtype)
            maps[name][:, :, slices][where] = found
    if series.clipped is not None:
        maps["status"][series.clipped & (maps["status"] == Status.OK)] = Status.SATURATED
    return Maps(maps)


def above(signal: Float[np.ndarray, "voxel n"], floor: float) -> Bool[np.ndarray, "voxel n"]:
    """True for each measurement before the first, of those after the very first, that is below the floor."""
    below = signal < floor
    below[:, 0] = False
    return ~np.logical_or.accumulate(below, axis=1)


def _compared(
    plan: Plan, plain: SignalModel, signal: np.ndarray, result: FitResult, how: dict[str, Any]
) -> dict[str, ArrayLike]:
    """By how much the AICc of the model is above that of the plain one; NaN where either has no answer."""
    other = fit(plain, signal, bounds=plan.bounds, **how)
    noise, names = how["noise"] or Gaussian(), set(plan.maps.values()) - set(plan.known)
    n_free = len(names)
    of_model = aicc(plan.model, result.params, signal, noise, n_free)
    return {"DeltaAICc": np.asarray(of_model) - np.asarray(aicc(plain, other.params, signal, noise, n_free - 1))}


def _within(value: Any, slices: slice, where: Bool[np.ndarray, "x y z"]) -> ArrayLike:
    """A number, or the (voxel,) values of a map of the whole series in some slices."""
    return value[:, :, slices][where] if np.ndim(value) else value


def _values(plan: Plan, signal: np.ndarray, result: FitResult) -> dict[str, ArrayLike]:
    """(voxel,) values by the names of BIDS: what was estimated, the rate, standard error, misfit, and `status`."""
    (main, time), (amplitude, size), *others = plan.maps.items()
    found = np.asarray(getattr(result.params, time))
    return {
        main: found,
        f"R{main[1:]}": 1 / found,
        amplitude: getattr(result.params, size),
        f"{main}_stderr": getattr(result.stderr, time),
        "residual": misfit(plan.model, result.params, signal)[0],
        **{name: getattr(result.params, field) for name, field in others if field not in plan.known},
        "status": result.status,  # the last one, in files and in print
    }


def misfit(
    model: SignalModel, params: Params, signal: Float[np.ndarray, "voxel n"]
) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"]]:
    """The relative error sum|q - x| / sum|x| of what the model predicts, q, of measurements x, and the rms of q - x."""
    every = type(params)(*(np.broadcast_to(leaf, signal.shape[:1]) for leaf in params))
    return in_batches(_misfit, (model,), (every, signal), None)


@eqx.filter_jit
def _misfit(model: SignalModel, voxels: tuple[Params, Array]) -> tuple[Array, Array]:
    params, signal = voxels
    off, size = jnp.abs(simulate(model, params) - signal).T, jnp.abs(signal).T
    relative = sum_of_measurements(off) / jnp.maximum(sum_of_measurements(size), jnp.finfo(signal.dtype).tiny)
    return relative, jnp.sqrt(sum_of_measurements(off**2) / len(off))
