"""Noise models: what a fit assumes about the errors of the measurements.

A fit asks them for the misfit of a prediction, as a cost per measurement in squared units of the signal, half its first
and half its second derivative with respect to the prediction. For Gaussian noise these are r^2, r and 1.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact

from ..models.base import as_float_array, optional_float_array
from . import rician

Terms = tuple[Float[Array, "n voxel"], Inexact[Array, "n voxel"], Float[Array, "n voxel"] | None]


class Noise(eqx.Module):
    """What is known of the noise, for the voxels of a batch or for a user's maps."""

    sigma: eqx.AbstractVar[Float[Array, "..."] | None]  # None: not known
    weights: eqx.AbstractVar[Float[Array, "..."] | None]  # None: all equal
    least_squares: eqx.AbstractClassVar[
        bool
    ]  # whether the most likely parameters are those of (weighted) least squares

    @property
    def least_amplitude(self) -> Float[Array, "..."] | None:
        """The smallest amplitude that magnitudes tell from none at all; None: there is no such thing."""
        return None

    @abc.abstractmethod
    def terms(self, predicted: Inexact[Array, "n voxel"], signal: Inexact[Array, "n voxel"]) -> Terms:
        """Cost per measurement, half its first and half its (expected) second derivative; None: 1."""

    def moments(self, predicted: Inexact[Array, "n voxel"]) -> tuple[Inexact[Array, "n voxel"], Any]:
        """Mean of the measurements, and their variance over the square of sigma."""
        return predicted, 1.0


class Gaussian(Noise):
    """Independent Gaussian noise, of complex measurements in each of the two channels.

    Least squares is then the maximum-likelihood estimate.

    Args:
        sigma: standard deviation of the noise, a number or a map with the shape of the voxels [units of the signal].
            None: estimated in each voxel from the residuals, sum(w r^2) / (n - p).
        weights: (n,) or (*voxel, n) weights w of the squared residuals; the variance of a measurement is sigma^2 / w.
            0 leaves a measurement out, whatever it is. None: all 1.

    Raises:
        ValueError: a single sigma that is not positive and finite, weights that are negative, not finite or all zero.
            In a map, that spoils its own voxel only.
    """

    sigma: Float[Array, "..."] | None = eqx.field(default=None, converter=optional_float_array)
    weights: Float[Array, "..."] | None = eqx.field(default=None, converter=optional_float_array)

    least_squares: ClassVar[bool] = True

    def __check_init__(self):
        _check_sigma(self.sigma)
        if self.weights is None or self.weights.ndim != 1 or isinstance(self.weights, Tracer):
            return
        weights = np.asarray(self.weights)
        if not np.all(np.isfinite(weights)) or np.any(weights < 0) or not np.any(weights > 0):
            raise ValueError(f"weights must be finite, not negative and not all zero, got {weights}.")

    def terms(self, predicted: Inexact[Array, "n voxel"], signal: Inexact[Array, "n voxel"]) -> Terms:
        residual = predicted - signal
        if self.weights is None:
            return squared_magnitude(residual), residual, None
        return self.weights * squared_magnitude(residual), self.weights * residual, self.weights


class Rician(Noise):
    """Magnitudes of complex measurements with Gaussian noise in both channels, from one receiver coil.

    Low signals are biased upwards: without any, the mean magnitude is 1.25 sigma. The most likely parameters take that
    into account where least squares does not. Above about five times sigma both agree. Error bars are those of the
    expected (Fisher) information.
    Source: Gudbjartsson, Patz, Magn Reson Med 34:910 (1995); Sijbers et al., IEEE Trans Med Imaging 17:357 (1998).

    Args:
        sigma: standard deviation of the noise in each channel, a number or a map with the shape of the voxels [units of
            the signal]; see `noise_level`, which finds it in the images.

    Raises:
        ValueError: a single sigma that is not positive and finite. In a map, that spoils its own voxel only.
    """

    sigma: Float[Array, "..."] = eqx.field(converter=as_float_array)

    least_squares: ClassVar[bool] = False
    weights: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]

    def __check_init__(self):
        _check_sigma(self.sigma)

    @property
    def least_amplitude(self) -> Float[Array, "..."]:
        return 0.1 * self.sigma

    def terms(self, predicted: Float[Array, "n voxel"], signal: Float[Array, "n voxel"]) -> Terms:
        # Where a measurement lies far off, the observed curvature is negative; the expected one never is.
        return *rician.terms(predicted, signal, self.sigma), rician.information(predicted, self.sigma)

    def moments(self, predicted: Float[Array, "n voxel"]) -> tuple[Float[Array, "n voxel"], Any]:
        x = (predicted / self.sigma) ** 2 / 2
        laguerre = (1 + x) * jax.scipy.special.i0e(x / 2) + x * jax.scipy.special.i1e(x / 2)
        mean = jnp.sqrt(jnp.pi / 2) * laguerre  # over sigma
        # At high signal the difference of two large numbers cancels; its series is used.
        spread = jnp.where(x > 50, 1 - 1 / (4 * x), 2 * x + 2 - mean**2)
        return mean * self.sigma, spread


def squared_magnitude(values: Inexact[Array, "..."]) -> Float[Array, "..."]:
    """|z|^2, without the root of `jnp.abs`."""
    return values.real**2 + values.imag**2 if jnp.iscomplexobj(values) else values**2


def _check_sigma(sigma: Float[Array, "..."] | None) -> None:
    if sigma is None or sigma.ndim or isinstance(sigma, Tracer):
        return
    if not 0 < float(sigma) < float("inf"):
        raise ValueError(f"sigma must be positive and finite, got {float(sigma):g}.")
