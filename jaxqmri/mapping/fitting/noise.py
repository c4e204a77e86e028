"""What the noise of a series is taken to be."""

import jax.numpy as jnp

from ...errors import CorruptInputError, Give, UsageError
from ...estimation.noise import Gaussian, Noise, Rician
from ...estimation.noise_level import NO_AIR, NoiseLevel, noise_level
from ...io.series import ImageSeries
from ...io.storage.memory import middle_slab


def noise_of(series: ImageSeries, noise: Noise | str | None, sigma: float | None) -> tuple[Noise | None, str | None]:
    """A noise model, and in words where its level comes from, or None where the model or the residuals tell.

    Without `sigma` [units of the images], the level of Rician noise comes from the air of the images.
    """
    if isinstance(noise, Noise):
        for name, ndim in (("sigma", 3), ("weights", 4)):
            value, shape = getattr(noise, name), series.data.shape[:3]
            if value is not None and value.ndim > ndim - 3 and value.shape[:3] != shape:
                raise UsageError(f"noise.{name} has shape {value.shape}, the images have {shape}.")
        return noise, None
    model = Rician if noise == "rician" else Gaussian
    if sigma is not None:
        return model(jnp.asarray(sigma)), f"{model.__name__}, sigma {sigma:.6g}, given"
    if model is Gaussian:
        return None, None
    level = level_of_air(series)
    words = f"{model.__name__}, sigma {level.sigma:.6g}, from {level.n_voxels} voxels of air"
    return model(jnp.asarray(level.sigma)), words


def level_of_air(series: ImageSeries) -> NoiseLevel:
    """That of all images, those that are left out too; raises CorruptInputError where they show no air."""
    try:
        return noise_level(middle_slab(series.whole.series.data))  # any slab has its air
    except ValueError as error:
        raise CorruptInputError(f"the images {NO_AIR}. ", Give("sigma", "its level"), ".") from error
