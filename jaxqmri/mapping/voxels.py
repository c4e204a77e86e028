"""Between images and lists of voxels: which voxels are fitted, what is known of each, and what came of it."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, ArrayLike, Bool

from ..errors import CorruptInputError, InputWarning, MetadataError, UsageError
from ..estimation.fit import FitResult
from ..estimation.noise import Noise
from ..io.series import ImageSeries
from ..io.storage.memory import slabs
from ..models.base import SignalModel
from ..quantities import Axis
from .predictions import misfit

B1_RANGE = (0.1, 2.0)  # of a B1 that is given: what the models allow


def voxels_to_fit(
    what: str, series: ImageSeries, axis: Axis, mask: np.ndarray | str | None
) -> Bool[np.ndarray, "x y z"]:
    """Which voxels to fit, (x, y, z).

    Args:
        what: what is to be fitted, in print.
        series: the images.
        axis: what has to vary for it.
        mask: (x, y, z), "auto" or None.

    Raises:
        UsageError: something else varies.
        CorruptInputError: an empty mask.
        ValueError: a mask of another shape.
    """
    if series.axis is not axis:
        raise UsageError(
            f"{what} is fitted to images of different {axis.terms}, in this series the {series.axis.terms} "
            f"vary; read the images with axis={axis.name.removesuffix('s')!r}."
        )
    return _as_mask(mask, series)


def check_magnitude(what: str, series: ImageSeries) -> None:
    """Raises ValueError unless the images are magnitudes."""
    if series.component != "magnitude":
        raise ValueError(f"{what} is fitted to magnitude images, this series is {series.component}.")


def warn_if_exactly_determined(series: ImageSeries, parameters: Sequence[str], noise: Noise | None) -> None:
    """Says so where there are as many images as parameters: the curve then runs through every point, right or wrong."""
    if len(series.values) != len(parameters):
        return
    *most, last = parameters
    error_bars = "" if noise is not None and noise.sigma is not None else "no error bars, "
    warnings.warn(
        f"{len(parameters)} {series.axis.many} determine {', '.join(most)} and {last} exactly: {error_bars}no check of "
        "the model.",
        InputWarning,
        stacklevel=3,
    )


def values_of(
    result: FitResult, model: SignalModel, signal: Array, *, time: str, field: str, amplitude: str
) -> dict[str, ArrayLike]:
    """(voxel,) values by the names of BIDS: relaxation time and rate, amplitude, standard error, misfit, and `status`.

    Args:
        result: what was found.
        model: which model was fitted.
        signal: (voxel, n) measurements.
        time: "T1", "T2" or "T2star".
        field: what the model calls it.
        amplitude: name of the map of the amplitude.
    """
    found = np.asarray(getattr(result.params, field))
    return {
        f"{time}map": found,
        f"R{time[1:]}map": 1 / found,
        amplitude: getattr(result.params, model.amplitude),
        f"{time}map_stderr": getattr(result.stderr, field),
        "residual": misfit(model, result.params, signal)[0],
        "status": result.status,
    }


def number_or_voxels(name: str, value: ArrayLike, fitted: Bool[np.ndarray, "x y z"]) -> np.ndarray:
    """A number, or the (voxel,) values of a map."""
    value = np.asarray(value, dtype=np.float32)
    if value.ndim and value.shape != fitted.shape:
        raise ValueError(
            f"{name} has shape {value.shape}, the images have {fitted.shape}; give a number or such a map."
        )
    return value[fitted] if value.ndim else value


def checked_b1(b1: ArrayLike, fitted: Bool[np.ndarray, "x y z"], result: str) -> np.ndarray:
    """(voxel,) true / nominal flip angle; NaN where it cannot be one, with a warning that these get no `result`.

    Raises:
        MetadataError: in per cent, or degrees.
    """
    b1 = np.broadcast_to(number_or_voxels("b1", b1, fitted), (int(fitted.sum()),))
    low, high = B1_RANGE
    positive = b1[np.isfinite(b1) & (b1 > 0)]
    if positive.size and np.median(positive) > 10:
        raise MetadataError(
            f"the B1 map has the median {np.median(positive):g}, as in per cent or degrees; B1 is the true over the "
            "nominal flip angle, 1 where they agree: divide per cent by 100."
        )
    usable = (b1 >= low) & (b1 <= high)
    if not usable.all():
        warnings.warn(
            f"the B1 map is outside {low:g} ... {high:g}, or no number, in {int(np.sum(~usable))} of {b1.size} voxels "
            f"to be fitted; they get no {result}.",
            InputWarning,
            stacklevel=3,
        )
    return np.where(usable, b1, np.nan)


def noise_of_voxels(noise: Noise | None, fitted: Bool[np.ndarray, "x y z"], slices: slice) -> Noise | None:
    """The same noise model with (voxel,) values of some slices where it holds maps."""
    if noise is None:
        return None
    changes: dict[str, Array] = {}
    for name, ndim in (("sigma", 3), ("weights", 4)):
        value = getattr(noise, name)
        if value is None or value.ndim == ndim - 3:
            continue
        if value.shape[:3] != fitted.shape:
            raise ValueError(f"noise.{name} has shape {value.shape}, the images have {fitted.shape}.")
        changes[name] = value[:, :, slices][fitted[:, :, slices]]
    return dataclasses.replace(noise, **changes) if changes else noise


def auto_mask(images: np.ndarray) -> Bool[np.ndarray, "x y z"]:
    """Leaves out air: True where the brightest image is above a tenth of its robust range.

    The brightest image is the one of largest mean magnitude: the first echo, or the longest inversion time. The robust
    range runs from the 2nd to the 98th percentile, as in BET (Smith, Hum Brain Mapp 17:143 (2002)); single voxels of
    noise are removed. Tissue darker than a tenth of the brightest is lost.

    Args:
        images: (x, y, z, n).
    """
    from scipy import ndimage  # a quarter of a second to load

    parts = (_magnitudes(images[:, :, slices]) for slices in slabs(images))
    sums = sum(part.mean(axis=(0, 1, 2)) * part.shape[2] for part in parts)
    brightest = _magnitudes(images[..., int(np.argmax(sums))])
    low, high = np.percentile(brightest, [2, 98])
    above = brightest > low + 0.1 * (high - low)
    in_plane_cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)[:, :, None]
    opened = ndimage.binary_opening(above, structure=in_plane_cross)
    return opened if min(above.shape[:2]) > 2 else above  # in a line of voxels each one stands alone


def _magnitudes(images: np.ndarray) -> np.ndarray:
    return np.abs(np.nan_to_num(images, nan=0.0, posinf=0.0, neginf=0.0))


def _as_mask(mask: np.ndarray | str | None, series: ImageSeries) -> Bool[np.ndarray, "x y z"]:
    shape = series.data.shape[:3]
    if mask is None:
        return np.ones(shape, bool)
    if isinstance(mask, str) and mask != "auto":
        raise ValueError(f'mask is a map, "auto" or None, got {mask!r}; read a file with read_mask.')
    wanted = auto_mask(series.data) if isinstance(mask, str) else np.asarray(mask) > 0  # as read_mask; NaN is outside
    if wanted.shape != shape:
        raise ValueError(f"mask has shape {wanted.shape}, the images have {shape}; resample the mask to the images.")
    if not wanted.any():
        raise CorruptInputError("the mask is empty, so no voxel would be mapped; mark the voxels wanted with True.")
    return wanted
