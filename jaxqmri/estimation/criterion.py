"""Which of two models is worth its parameters: Akaike's information criterion for fits of few measurements.

Source: Hurvich, Tsai, Biometrika 76:297 (1989); Burnham, Anderson, Model Selection and Multimodel Inference (2002).
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..batching.batches import in_batches
from ..models.base import Params, SignalModel, simulate, sum_of_measurements
from .noise import Noise


def aicc(
    model: SignalModel, params: Params, signal: Float[ArrayLike, "voxel n"], noise: Noise, n_free: int
) -> Float[Array, " voxel"]:
    """AICc = -2 log L + 2 p + 2 p (p + 1) / (n - p - 1) of most likely parameters, but for what all models share.

    p counts the free parameters and, where it is not known, the level of the noise. Lower is better: by 2 the data
    speak 2.7 times, by 10 150 times for a model. NaN where n - p - 1 is not positive, or where there are no parameters.

    Args:
        params: leaves are numbers or (voxel,).
        noise: its sigma and its weights are numbers or of the voxels.
        n_free: how many parameters were fitted.
    """
    n_voxels = np.shape(signal)[0]
    per_voxel: dict[str, Any] = {}
    for name in ("sigma", "weights"):
        if (value := getattr(noise, name)) is not None and np.ndim(value) > (name == "weights"):
            per_voxel[name] = np.asarray(value)
    every = type(params)(*(np.broadcast_to(leaf, n_voxels) for leaf in params))
    return in_batches(_aicc, (model, noise, n_free), (every, np.asarray(signal), per_voxel), None)


@eqx.filter_jit
def _aicc(model: SignalModel, noise: Noise, n_free: int, voxels: tuple[Params, Array, dict[str, Array]]) -> Array:
    params, signal, per_voxel = voxels
    weights = per_voxel.get("weights", noise.weights)
    if weights is not None:
        rows = jnp.broadcast_to(weights, signal.shape)
        n, per_voxel = jnp.sum(rows > 0, axis=1), {**per_voxel, "weights": rows.T}
        signal = jnp.where(rows > 0, signal, 0.0)
    else:
        n = jnp.asarray(signal.shape[1])
    noise = replace(noise, **per_voxel) if per_voxel else noise
    misfit = sum_of_measurements(noise.terms(simulate(model, params).T, signal.T)[0])
    p = n_free + (noise.sigma is None)
    left = jnp.where(n - p - 1 > 0, n - p - 1, jnp.nan)
    tiny = jnp.finfo(misfit.dtype).tiny
    likelihood = n * jnp.log(jnp.maximum(misfit, tiny) / n) if noise.sigma is None else misfit / noise.sigma**2
    return likelihood + 2 * p + 2 * p * (p + 1) / left
