"""What the noise of a series is taken to be, where words and not a `Noise` say it."""

import jax.numpy as jnp

from ..errors import CorruptInputError
from ..estimation.noise import Gaussian, Noise, Rician
from ..estimation.noise_level import noise_level
from ..io.series import ImageSeries
from ..io.storage.memory import middle_slab

NOISES = ("gaussian", "rician")


def noise_of(series: ImageSeries, kind: str, sigma: float | None) -> tuple[Noise | None, str | None]:
    """A noise model, and in words where its level comes from, or None where that is the residuals.

    Args:
        series: the images.
        kind: "gaussian" or "rician".
        sigma: standard deviation of the noise in each channel [units of the images]; None: for Gaussian noise from the
            residuals of each voxel, for Rician noise from the air of the images.

    Raises:
        CorruptInputError: no air is found from which to tell the level.
        ValueError: unknown kind, or a sigma that cannot be.
    """
    if kind not in NOISES:
        raise ValueError(f"noise {kind!r} is not one of {', '.join(NOISES)}.")
    model = Rician if kind == "rician" else Gaussian
    if sigma is not None:
        return model(jnp.asarray(sigma)), f"{model.__name__}, sigma {sigma:.6g}, given"
    if kind == "gaussian":
        return None, None
    try:
        level = noise_level(middle_slab(series.data))  # any slab has its air
    except ValueError as error:
        raise CorruptInputError(f"{error} On the command line: --sigma.") from error
    words = f"{model.__name__}, sigma {level.sigma:.6g}, from {level.n_voxels} voxels of air"
    return model(jnp.asarray(level.sigma)), words
