"""What the noise of a series is taken to be."""

from math import ceil

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from ...errors import CorruptInputError, Give, UsageError
from ...estimation.noise import Gaussian, Noise, Rician
from ...estimation.noise_level import NO_AIR, NoiseLevel, noise_level
from ...io.series import ImageSeries
from ...io.storage.memory import middle_slab, slabs

_SAMPLE = 4096  # voxels: enough to find air, in milliseconds
_TISSUE, _LATE = 4.0, 5.0  # times sigma: the least of a first image of tissue, and where Rice's bias begins, 2 %
_DARKEST = 0.02  # of all voxels


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


def last_echoes_drown(series: ImageSeries, fitted: Bool[np.ndarray, "x y z"], sigma: float | None) -> bool:
    """Whether in half of the tissue the last image is below 5 times the noise, `sigma` or that of the air.

    There magnitudes are biased upwards. False where the noise is not known; a sample of the voxels is looked at.
    """
    pieces = slabs(series.data)
    middle = pieces[len(pieces) // 2]
    images, fitted = series.data[:, :, middle], fitted[:, :, middle]
    apart = ceil(np.sqrt(fitted.size / _SAMPLE))
    sample, fitted = images[::apart, ::apart], fitted[::apart, ::apart]

    def drown(sigma: float) -> bool:
        tissue = sample[fitted & (sample[..., 0] > _TISSUE * sigma), -1]
        return tissue.size > 0 and float(np.median(tissue)) < _LATE * sigma

    if sigma is not None:
        return drown(sigma)
    # The darkest voxels are air, if there is any: most scans are told by them, without a search for all of it.
    energy = np.mean(np.square(sample), axis=-1)
    darkest = np.quantile(energy[energy > 0], _DARKEST) if np.any(energy > 0) else 0.0
    if not drown(1.3 * float(np.sqrt(darkest / 2))):
        return False
    try:
        return drown(level_of_air(series).sigma)
    except CorruptInputError:
        return False


def level_of_air(series: ImageSeries) -> NoiseLevel:
    """That of all images, those that are left out too; raises CorruptInputError where they show no air."""
    try:
        return noise_level(middle_slab(series.whole.series.data))  # any slab has its air
    except ValueError as error:
        raise CorruptInputError(f"the images {NO_AIR}. ", Give("sigma", "its level"), ".") from error
