"""Which voxels of a series are fitted, and whether the series and what is given for its voxels can be used."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from ...errors import Choose, CorruptInputError, MetadataError, Part, UsageError, remark
from ...io.negative import NEGATIVE_SHARE
from ...io.series import ImageSeries
from ...io.storage.memory import slabs
from ...quantities import INVERSION_TIME, QUANTITIES

if TYPE_CHECKING:  # a check of headers alone needs no JAX
    from ...estimation.noise import Noise


def check_number(series: ImageSeries, parameters: Sequence[str], *remedy: Part) -> None:
    """Refuses fewer images than parameters."""
    if (n := len(series.values)) < len(parameters):
        images, names = f"{n} {series.axis.many if n > 1 else series.axis.one}", ", ".join(parameters)
        raise CorruptInputError(f"{images} cannot determine {len(parameters)} parameters ({names}); ", *remedy, ".")


def remark_if_exactly_determined(series: ImageSeries, parameters: Sequence[str], noise: "Noise | None") -> None:
    """Says so where there are as many images as parameters: the curve then runs through every point, right or wrong."""
    if len(series.values) != len(parameters):
        return
    *most, last = parameters
    error_bars = "" if noise is not None and noise.sigma is not None else "no error bars, "
    remark(
        f"{len(parameters)} {series.axis.many} determine {', '.join(most)} and {last} exactly: {error_bars}no check of "
        "the model."
    )


def remark_if_negative(series: ImageSeries) -> None:
    """Says so where arrays called magnitudes are often negative; the readers say it of files."""
    if series.source_format != "arrays" or series.component != "magnitude" or series.axis is INVERSION_TIME:
        return
    share = sum(np.count_nonzero(series.data[:, :, slices] < 0) for slices in slabs(series.data)) / series.data.size
    if share > NEGATIVE_SHARE:
        remark(
            f"{100 * share:.3g} % of the magnitudes are negative and fitted as they are, so that few voxels have an "
            "answer; give absolute values, abs(images), or magnitudes in place of real or phase images."
        )


def number_or_map(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A number, or a map on the grid of the images."""
    value = np.ma.filled(np.ma.asarray(value, np.float32), np.nan)
    if value.ndim and value.shape != shape:
        raise UsageError(f"{name} has shape {value.shape}, the images have {shape}; give a number or such a map.")
    return value


def checked_b1(b1: Any, fitted: Bool[np.ndarray, "x y z"], result: str) -> Float[np.ndarray, "x y z"]:
    """The true / nominal flip angle; NaN where it cannot be one, with a remark that these voxels get no `result`."""
    b1 = np.broadcast_to(number_or_map("b1", b1, fitted.shape), fitted.shape)
    quantity, inside = QUANTITIES["b1"], b1[fitted]
    low, high = quantity.low, quantity.high
    if wrong := quantity.out_of_range(inside):
        raise MetadataError(f"the B1 map is {wrong}.")
    usable = (b1 >= low) & (b1 <= high)
    if not usable[fitted].any():
        raise MetadataError(f"the B1 map is outside {low:g} ... {high:g}, or no number, in all voxels to be fitted.")
    if not usable[fitted].all():
        remark(
            f"the B1 map is outside {low:g} ... {high:g}, or no number, in {int(np.sum(~usable[fitted]))} of "
            f"{inside.size} voxels to be fitted; they get no {result}."
        )
    return np.where(usable, b1, np.float32(np.nan))


def voxels_to_fit(mask: Any, series: ImageSeries) -> Bool[np.ndarray, "x y z"]:
    """Which voxels to fit by a mask: (x, y, z), positive where to fit; "auto"; "none" or None: everywhere."""
    shape = series.data.shape[:3]
    if mask is None or isinstance(mask, str):
        wanted = auto_mask(series.data) if mask == "auto" else np.ones(shape, bool)
    else:
        wanted = np.ma.filled(mask, 0) > 0  # as read_mask; NaN is outside
    if wanted.shape != shape:
        raise UsageError(f"mask has shape {wanted.shape}, the images have {shape}; resample the mask to the images.")
    if not wanted.any():
        if isinstance(mask, str):
            raise CorruptInputError(
                "the automatic mask is empty, as nothing in the images stands out from air; look at the images, or fit "
                "every voxel: ", Choose("mask", "none"), ".",
            )  # fmt: skip
        raise CorruptInputError("the mask is empty, so no voxel would be mapped; mark the voxels wanted with True.")
    return wanted


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
