"""Signals of many voxels together with their derivatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..models.base import SignalModel

Values = tuple[Float[Array, " voxel"], ...]  # one vector per parameter
Signals = Inexact[Array, "n voxel"]


def with_derivatives(
    model: SignalModel, predict: Callable[[Values], Signals], values: Values
) -> tuple[Signals, list[Signals]]:
    """`predict(values)` and its derivative with respect to each of the values.

    Those of a recursion are carried forward with the signal, in one pass over the echoes that keeps nothing: 2.5
    times faster than to linearise it first, and half as long to compile. A formula is linearised, there 10 % faster.

    Args:
        model: which of the two.
        predict: (voxel,) parameters -> (n, voxel) signals of the model, each voxel by itself.
        values: where.
    """
    units = tuple(map(jnp.ones_like, values))
    if model.sequential:
        directions = tuple(
            jnp.zeros((len(values), *v.shape), v.dtype).at[k].set(units[k]) for k, v in enumerate(values)
        )
        signal, stacked = jax.vmap(lambda d: jax.jvp(predict, (values,), (d,)), out_axes=(None, 0))(directions)
        columns = list(stacked)
    else:
        signal, push = jax.linearize(predict, values)
        zeros = tuple(jnp.zeros_like(v) for v in values)
        columns = [push((*zeros[:k], s, *zeros[k + 1 :])) for k, s in enumerate(units)]
    # Without the barrier every later use would evaluate the model again.
    return jax.lax.optimization_barrier((signal, columns))
