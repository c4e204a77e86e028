"""The noise of a series of images, measured in its air: voxels with nothing but noise in all measurements.

Of a voxel of air the sum of all squared measurements follows a gamma distribution with sigma as its only parameter. So
a sigma says which voxels could be air, and these voxels say what sigma is; where the two agree is an answer. Signal may
agree with itself as well, but it falls from echo to echo, is strong or weak in all of them, or hardly scatters.
Source: Koay, Ozarslan, Pierpaoli, J Magn Reson 199:94 (2009), "PIESNO"; the checks of that are our own.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike
from numpy.typing import NDArray

NO_AIR = (
    "show no air with the even noise of one coil (masked, cropped, full of ghosts, several coils, parallel imaging?), "
    "so their noise level cannot be measured"
)
_LEAST_VOXELS, _LEAST_SHARE = 50, 0.005  # of the unmasked voxels; fewer agree by chance, at the edge of a mask say
_OUTSIDE = 0.01  # of all voxels of air, how many are not taken for it
_N_STARTS = 64  # quantiles of the image from which an answer is sought
_MOST_STEPS = 100
_EVENNESS, _SCATTER, _TOGETHER = 0.2, 0.15, 0.2  # how far real air may be from the ideal: ghosts, rounding


class NoiseLevel(NamedTuple):
    """What `noise_level` found.

    Attributes:
        sigma: standard deviation of the noise in each channel [units of the images].
        n_voxels: voxels of air that it rests on.
    """

    sigma: float
    n_voxels: int


def noise_level(images: ArrayLike) -> NoiseLevel:
    """Standard deviation of the Gaussian noise in the real and in the imaginary channel.

    Holds for the magnitude of one coil or of coils combined with their sensitivities, and for complex or signed (real)
    images. The root of a sum of squares over several coils scatters less in air and is refused, and so is noise that is
    markedly stronger in one place than in another. Where it is only somewhat uneven, this is the noise of the air.
    Ghosts in the air add to it, 12 % in one real scan.

    Args:
        images: measurements on the LAST axis, at least 2 of them, e.g. (x, y, z, n). Any negative value means that they
            are one signed channel. Voxels that are not finite or zero throughout (masked) do not count.

    Returns:
        sigma and the number of voxels that it rests on; sigma comes out right to about 1 / sqrt(n n_voxels), or worse
        if the images were rounded to steps that are not small beside it (at a step of sigma, too large by 2 %).

    Raises:
        ValueError: fewer than 2 measurements, or no air is found.
    """
    array = np.asarray(images)
    if array.ndim < 2 or array.shape[-1] < 2:
        raise ValueError(f"images needs 2 or more measurements on its last axis to tell air, got shape {array.shape}.")
    channels = 1 if not np.iscomplexobj(array) and np.any(array < 0) else 2
    values = np.abs(array.reshape(-1, array.shape[-1])).astype(np.float64)
    values = values[np.all(np.isfinite(values), axis=-1) & np.any(values > 0, axis=-1)]
    unit = values.max(initial=0.0)  # squares of squares must not overflow
    best = _largest_air((values / unit) ** 2, channels) if len(values) else None
    if best is None:
        fewer = ", or try the last echoes alone, images[..., -4:]" if array.shape[-1] > 4 else ""
        raise ValueError(f"images (shape {array.shape}) {NO_AIR}: give sigma, e.g. jq.Rician(sigma){fewer}.")
    return NoiseLevel(best.sigma * float(unit), best.n_voxels)


def _largest_air(squares: NDArray[np.float64], channels: int) -> NoiseLevel | None:
    """The sigma that most voxels agree upon, of those whose voxels look like air."""
    from scipy.special import gammaincinv  # quantiles of the gamma distribution; scipy.stats takes 0.5 s longer to load

    sums = squares.sum(axis=-1)
    order = np.argsort(sums)
    ascending = sums[order]
    # Of sums over 2 sigma^2.
    low, middle, high = gammaincinv(squares.shape[-1] * channels / 2, [_OUTSIDE / 2, 0.5, 1 - _OUTSIDE / 2])

    def candidates(half_sum: float) -> slice:
        """Voxels that may be air if the median of air is 2 `half_sum` * `middle`."""
        return slice(*np.searchsorted(ascending, [2 * half_sum * low, 2 * half_sum * high]))

    enough = max(_LEAST_VOXELS, _LEAST_SHARE * len(sums))
    best, seen = None, set()
    for start in np.unique(np.quantile(ascending, np.linspace(0, 1, _N_STARTS))):
        variance, found = start / (2 * middle), slice(0, 0)
        for _ in range(_MOST_STEPS):
            previous, found = found, candidates(variance)
            if found == previous or found.start == found.stop:
                break
            variance = float(np.median(ascending[found])) / (2 * middle)
        n_voxels = int(found.stop - found.start)
        new = (found.start, found.stop) not in seen
        seen.add((found.start, found.stop))
        larger = n_voxels >= enough and (best is None or n_voxels > best.n_voxels)
        if new and larger and _looks_like_air(squares[order[found]], channels):
            best = NoiseLevel(float(np.sqrt(variance)), n_voxels)
    return best


def _looks_like_air(squares: NDArray[np.float64], channels: int) -> bool:
    """Whether all measurements are equally large, scatter as noise does and are independent."""
    uncertain = 4 / np.sqrt(len(squares))
    mean = squares.mean()
    even = np.abs(squares.mean(axis=0) / mean - 1)
    scatter = np.mean(squares**2) / mean**2 / (1 + 2 / channels)  # of one channel 3, of two 2, of a steady signal 1
    # 1 of independent measurements, up to their number in tissue.
    together = np.var(squares.sum(axis=-1)) / np.sum(np.var(squares, axis=0))
    return bool(
        np.all(even < _EVENNESS + uncertain)
        and abs(scatter - 1) < _SCATTER + uncertain
        and together < 1 + _TOGETHER + uncertain
    )
