"""Noise models: what a fit assumes about the errors of the measurements."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def _optional_array(value: ArrayLike | None) -> Array | None:
    return None if value is None else jnp.asarray(value)


class Gaussian(eqx.Module):
    """Independent Gaussian noise of equal standard deviation in all measurements of a voxel.

    Least squares is then the maximum-likelihood estimate.

    Args:
        sigma: standard deviation of the noise, a number or a map with the shape of the voxels [units of the signal].
            None: estimated in each voxel from the residuals, sum(r^2) / (n - p).
    """

    sigma: Float[Array, "..."] | None = eqx.field(
        default=None, converter=lambda s: None if s is None else jnp.asarray(s)
    )
