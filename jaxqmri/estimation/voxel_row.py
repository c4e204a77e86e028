"""Voxels of any shape as a row, those outside a mask left out, and back."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool

from ..models.base import in_short
from ..quantities import Status


class VoxelRow:
    """The voxels to be fitted. A mask that is being traced leaves none out: their number must be known."""

    def __init__(self, shape: tuple[int, ...], mask: Any):
        self.shape, self._inside = shape, None
        self.traced_mask: Bool[Array, " voxel"] | None = None
        if mask is None:
            return
        if np.shape(mask) != shape:
            given = in_short(mask) if np.ndim(mask) == 0 else f"of shape {np.shape(mask)}"
            raise ValueError(f"mask is {given}, wanted True or False for voxels of shape {shape}.")
        if isinstance(mask, Tracer):
            self.traced_mask = mask.ravel() > 0
        else:
            self._inside = np.flatnonzero(np.ma.filled(mask, 0) > 0)

    def of(self, values: Any) -> Any:
        """(*voxel, ...) as (voxel, ...)."""
        row = values.reshape(-1, *values.shape[len(self.shape) :])
        return row if self._inside is None else row[self._inside]

    def back(self, leaf: Any) -> Any:
        """(voxel, ...) as (*voxel, ...): NaN, in a map of integers MASKED, outside the mask."""
        if self._inside is not None:
            outside = int(Status.MASKED) if jnp.issubdtype(leaf.dtype, jnp.integer) else np.nan
            shape = (int(np.prod(self.shape, dtype=int)), *leaf.shape[1:])
            if isinstance(leaf, np.ndarray):
                inside, leaf = leaf, np.full(shape, outside, leaf.dtype)
                leaf[self._inside] = inside
            else:
                leaf = jnp.full(shape, outside, leaf.dtype).at[self._inside].set(leaf)
        return leaf.reshape((*self.shape, *leaf.shape[1:]))
