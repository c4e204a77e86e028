"""A series in the pieces in which it is fitted: whole, or slab by slab where it is larger than the memory.

What decides for all voxels (the mask, the model, the noise level, what is known) is settled before; so a slab changes
memory and speed, never the result.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from ..estimation.noise import Noise
from ..io.maps import Maps
from ..io.series import ImageSeries
from ..io.storage.memory import slabs
from ..quantities import Status
from .voxels import noise_of_voxels

Values = Mapping[str, ArrayLike]  # name of a map -> (voxel,)


@dataclass(frozen=True)
class Slab:
    """Neighbouring slices.

    Attributes:
        slices: which ones, along z.
        fitted: (x, y, z) True where to fit, of the whole series.
        signal: (voxel, n) measurements of those of its voxels.
    """

    slices: slice
    fitted: Bool[np.ndarray, "x y z"]
    signal: Float[Array, "voxel n"]

    def of(self, values: np.ndarray) -> np.ndarray:
        """A number, or of the (voxel,) values of the whole series those of the slab."""
        if not values.ndim or values.size == self.signal.shape[0]:
            return values
        inside = np.zeros_like(self.fitted)
        inside[:, :, self.slices] = self.fitted[:, :, self.slices]
        return values[inside[self.fitted]]

    def noise(self, noise: Noise | None) -> Noise | None:
        """The noise model of its voxels."""
        return noise_of_voxels(noise, self.fitted, self.slices)


def maps_by_slabs(
    series: ImageSeries,
    fitted: Bool[np.ndarray, "x y z"],
    estimate: Callable[[Slab], Values],
    metadata: Mapping[str, Any],
) -> Maps:
    """(x, y, z) maps of what is estimated in the voxels of each slab.

    A voxel that may be clipped keeps what was found, as SATURATED.

    Args:
        series: the images.
        fitted: True where to fit, in one voxel at least.
        estimate: a slab -> the values of its voxels, `status` among them.
        metadata: how they were made.
    """
    maps: dict[str, np.ndarray] = {}
    for slab in _slabs(series, fitted):
        for name, values in estimate(slab).items():
            found = np.asarray(values, np.uint8 if name == "status" else None)
            if name not in maps:
                outside = Status.MASKED if name == "status" else np.nan
                maps[name] = np.full(fitted.shape, outside, found.dtype)
            maps[name][:, :, slab.slices][fitted[:, :, slab.slices]] = found
    status = maps.pop("status")
    clipped = series.clipped
    if clipped is not None:
        status[clipped & (status == Status.OK)] = Status.SATURATED
    maps["status"] = status  # the last one, in files and in print
    return Maps(maps, metadata)


def _slabs(series: ImageSeries, fitted: Bool[np.ndarray, "x y z"]) -> Iterator[Slab]:
    for slices in slabs(series.data):
        where = fitted[:, :, slices]
        if where.any():
            yield Slab(slices, fitted, jnp.asarray(series.data[:, :, slices][where], jnp.float32))
