"""Noise models: what a fit assumes about the errors of the measurements."""

import equinox as eqx
from jax.core import Tracer
from jaxtyping import Array, Float

from ..models.base import optional_float_array


class Gaussian(eqx.Module):
    """Independent Gaussian noise of equal standard deviation in all measurements of a voxel.

    Least squares is then the maximum-likelihood estimate.

    Args:
        sigma: standard deviation of the noise, a number or a map with the shape of the voxels [units of the signal].
            None: estimated in each voxel from the residuals, sum(r^2) / (n - p).

    Raises:
        ValueError: a single sigma that is not positive and finite. In a map, that spoils its own voxel only.
    """

    sigma: Float[Array, "..."] | None = eqx.field(default=None, converter=optional_float_array)

    def __check_init__(self):
        if self.sigma is None or self.sigma.ndim or isinstance(self.sigma, Tracer):
            return
        if not 0 < float(self.sigma) < float("inf"):
            raise ValueError(f"sigma must be positive and finite, got {float(self.sigma):g}.")
