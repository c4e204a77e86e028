"""NIfTI images as an `ImageSeries`, and masks drawn on them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import CorruptInputError, InputWarning, NoInputError
from ..axis import requested_axis
from ..negative import Negative, settle_negative
from ..phase import common_factor, in_radians
from ..series import ImageSeries
from ..storage.memory import new_images
from ..storage.zipped import unpacked
from .choose import choose_stack
from .file import check_grid, check_length, read_image, read_volumes, read_voxels
from .scan import NiftiScan, Stack, scan_nifti
from .sidecar import physics


def read_nifti(
    paths: str | Path | Sequence[str | Path],
    te: Sequence[float] | np.ndarray | None = None,
    *,
    ti: Sequence[float] | np.ndarray | None = None,
    flip_angles: Sequence[float] | np.ndarray | None = None,
    axis: str | None = None,
    component: str | None = None,
) -> ImageSeries:
    """Reads the one series of different echo times, inversion times or flip angles, ordered by them, never by name.

    Which images are magnitude, phase, real or imaginary is known from their names or ImageType.

    Args:
        paths: a folder (its subfolders are not searched), a zip archive, one file or a list of files.
        te: echo times [s] in place of those of the sidecars: one per volume of a 4-D file, or one per file in the
            order of the list. In a folder, files are put in order by EchoTime, EchoNumber, or `_e1` or `echo-1` in
            their names.
        ti: likewise inversion times [s]; InversionTime, or `inv-1` in the names.
        flip_angles: likewise flip angles [rad]; FlipAngle, or `flip-1` in the names.
        axis: what varies, "te", "ti" or "flip_angle"; None: what is given, or else "te".
        component: "magnitude", "phase", "real" or "imaginary"; None: magnitude or, where inversion times vary in real
            images only, real.

    Returns:
        The series, float32, rescaled, in the machine's byte order. Phase is in radians.

    Raises:
        NoInputError: nothing there.
        UsageError: the values given do not fit the files; values for two axes.
        CorruptInputError: a file cannot be read, the files do not fit together, fewer than 2 images; an archive not to
            be trusted.
        MetadataError: what varies is missing or implausible; phase images do not declare their range.
        OutputError: no room to unpack an archive.
    """
    wanted, given = requested_axis(axis, te, ti, flip_angles)
    listed = not isinstance(paths, str | Path)
    with unpacked([Path(path) for path in paths] if listed else [Path(paths)]) as folders:
        scan = scan_nifti(folders if listed else folders[0], given, wanted)
        stack = choose_stack(scan, component)
        if stack.component != "phase":
            return read_stack(scan, stack)
        factors = [image.radians_per_value for image in stack.images]
        return in_radians(read_stack(scan, stack), common_factor(factors, str(stack)))


def read_stack(scan: NiftiScan, stack: Stack, negative: Negative = "keep") -> ImageSeries:
    """Reads the images of a stack, scaled as the files say; what else the scan found is counted as skipped.

    `negative`: see `settle_negative`.

    Raises:
        CorruptInputError: a file is cut short or damaged.
        DeviceError, OutputError: neither memory nor disk suffice for the images, see `new_images`.
    """
    for image in stack.images:
        check_length(image)
    data = new_images((*stack.shape, stack.n_slices, stack.n_volumes), stack.images[0].path.name)
    saturated, n_negative = np.zeros(data.shape[:3], bool), 0
    volumes = (volume for image in stack.images for volume in read_volumes(image))
    for k, (values, at_top) in zip(np.argsort(stack.order), volumes, strict=True):
        data[..., k] = values
        saturated |= at_top
        n_negative += np.count_nonzero(values < 0)
    settle_negative(data, int(n_negative), stack.component, negative)
    acquisition = physics((image.sidecar for image in stack.images), scan.axis)
    values = np.array(stack.values, dtype=np.float64)
    return ImageSeries(
        data=data,
        axis=scan.axis,
        values=values,
        affine=stack.images[0].affine,
        component=stack.component,
        description=stack.description,
        source_format="NIfTI",
        n_files=len(stack.images),
        acquisition=acquisition,
        skipped=_skipped(scan, stack),
        saturated=saturated if saturated.any() else None,
    )


def read_mask(path: str | Path, series: ImageSeries) -> np.ndarray:
    """Reads a mask drawn on a series.

    Args:
        path: a 3-D NIfTI file on the grid of `series`.
        series: the images it belongs to.

    Returns:
        (x, y, z) bool, True where voxels are wanted: above 0. Warns unless the values are 0 and one positive number.

    Raises:
        NoInputError: no such file.
        CorruptInputError: unreadable, on another grid, or empty.
    """
    path = Path(path)
    if not path.is_file():
        raise NoInputError(f"{path}: no such mask file.")
    image = read_image(path)
    check_grid(image, "mask", series.affine, series.data.shape[:3], "draw it on")
    values = read_voxels(image)[..., 0]
    mask = values > 0
    if not mask.any():
        raise CorruptInputError(f"{path.name}: the mask is empty, so no voxel would be mapped; mark voxels with 1.")
    if not np.all((values == 0) | (values == values[mask][0])):
        warnings.warn("the mask is not binary; voxels above 0 are used.", InputWarning, stacklevel=2)
    return mask


def _skipped(scan: NiftiScan, chosen: Stack) -> dict[str, int]:
    counts = {reason: len(names) for reason, names in scan.skipped.items()}
    used = {image.path for image in chosen.images}
    for image in (image for stack in scan.stacks for image in stack.images if image.path not in used):
        reason = "other series" if image.component == chosen.component else f"{image.component} image"
        counts[reason] = counts.get(reason, 0) + 1
    return counts
