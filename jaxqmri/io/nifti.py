"""NIfTI images as an `ImageSeries`, and masks drawn on them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import CorruptInputError, InputWarning, NoInputError
from .nifti_file import SAME_GRID, read_image, read_voxels, same_grid
from .nifti_scan import NiftiScan, Stack, choose_stack, scan_nifti
from .series import ImageSeries
from .sidecar import physics


def read_nifti(paths: str | Path | Sequence[str | Path], te: Sequence[float] | np.ndarray | None = None) -> ImageSeries:
    """Reads a multi-echo magnitude series, ordered by echo time and never by file name.

    Phase, real and imaginary images (by name or ImageType) are set aside.

    Args:
        paths: a folder (its subfolders are not searched), one file or a list of files.
        te: echo times [s] in place of those of the sidecars: one per volume of a 4-D file, or one per file in the
            order of the list. In a folder, files are put in order by EchoTime, EchoNumber, or `_e1` or `echo-1` in
            their names.

    Returns:
        The series, float32, rescaled, in the machine's byte order.

    Raises:
        NoInputError: nothing there.
        UsageError: `te` does not fit the files.
        CorruptInputError: a file cannot be read, the files do not fit together, fewer than 2 echoes.
        MetadataError: echo times missing or implausible.
    """
    scan = scan_nifti(paths, te)
    stack = choose_stack(scan)
    voxels = [read_voxels(image) for image in stack.images]
    volumes = [volume for values, _ in voxels for volume in np.moveaxis(values, -1, 0)]
    data = np.stack([volumes[index] for index in stack.order], axis=-1)
    negative = float(np.mean(data < 0))
    if negative > 0:
        message = f"{negative:.2%} of the values are below 0, as in no magnitude image; they are kept as they are."
        warnings.warn(message, InputWarning, stacklevel=2)
    saturated = np.any([flags for _, flags in voxels], axis=0)
    return ImageSeries(
        data=data,
        te=np.array(stack.te, dtype=np.float64),
        affine=stack.images[0].affine,
        description=stack.description,
        source_format="NIfTI",
        n_files=len(stack.images),
        acquisition=physics(image.sidecar for image in stack.images),
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
    name, shape = path.name, series.data.shape[:3]
    if image.shape != shape:
        raise CorruptInputError(f"{name}: the mask has shape {image.shape}, the images {shape}; draw it on the images.")
    if not same_grid(series.affine, image.affine):
        raise CorruptInputError(
            f"{name}: the mask has the shape of the images but lies elsewhere (its affine differs by more than "
            f"{SAME_GRID:g} of a voxel); resample it onto the images."
        )
    values = read_voxels(image)[0][..., 0]
    mask = values > 0
    if not mask.any():
        raise CorruptInputError(f"{name}: the mask is empty, so no voxel would be mapped; mark voxels with 1.")
    if not np.all((values == 0) | (values == values[mask][0])):
        warnings.warn("the mask is not binary; voxels above 0 are used.", InputWarning, stacklevel=2)
    return mask


def _skipped(scan: NiftiScan, chosen: Stack) -> dict[str, int]:
    counts = {reason: len(names) for reason, names in scan.skipped.items()}
    used = {image.path for image in chosen.images}
    for image in (image for stack in scan.stacks for image in stack.images if image.path not in used):
        reason = "other series" if image.component == "magnitude" else f"{image.component} image"
        counts[reason] = counts.get(reason, 0) + 1
    return counts
