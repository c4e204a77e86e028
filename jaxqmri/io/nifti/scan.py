"""Which NIfTI files of a folder belong together: headers and sidecars only.

dcm2niix writes one 3-D file and sidecar per echo or inversion time; others one 4-D file. Files are grouped by scanner
series and by component, and images are ordered by what varies, never by name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import NoInputError
from ...quantities import ECHO_TIME, Axis
from ..axis import given_values
from ..bids.names import BidsName, parse_name
from ..storage.archive import is_zip
from .file import NIFTI_NAME, NiftiImage, along, read_image
from .sidecar import NOT_FETCHED, is_not_fetched, series_key, stem


@dataclass(frozen=True, eq=False)
class Stack:
    """Images of one scanner series and component.

    Attributes:
        images: the files, as found.
        axis: what is to vary: echo time, inversion time or flip angle.
        values: its values [s] or [rad], ascending; () where unknown.
        order: which volume, counted through `images`, belongs to each of `values`.
    """

    images: tuple[NiftiImage, ...]
    axis: Axis
    values: tuple[float, ...]
    order: tuple[int, ...]

    @property
    def series_number(self) -> int | str | None:
        return self.images[0].sidecar.get("SeriesNumber")

    @property
    def description(self) -> str:
        name = self.bids_series
        return str(self.images[0].sidecar.get("SeriesDescription") or name or "")

    @property
    def bids_series(self) -> BidsName | None:
        """What BIDS calls the series, or None where its files are named otherwise."""
        name = parse_name(stem(self.images[0].path))
        return name.series if name is not None and name.is_fitted else None

    @property
    def component(self) -> str:
        return self.images[0].component

    @property
    def image_type(self) -> tuple[str, ...]:
        return tuple(map(str, self.images[0].sidecar.get("ImageType") or ()))

    @property
    def sequence(self) -> tuple[str, ...]:
        """ScanningSequence: SE, GR, IR, EP."""
        return tuple(re.split(r"[\\_ ]+", str(self.images[0].sidecar.get("ScanningSequence", "")).upper()))

    @property
    def repetition_times(self) -> tuple[float, ...]:
        """Different repetition times, ascending [s]."""
        found = [image.sidecar.get("RepetitionTime") for image in self.images]
        return tuple(sorted({float(tr) for tr in found if isinstance(tr, int | float) and tr > 0}))

    @property
    def shape(self) -> tuple[int, int]:
        """The first two axes, x and y."""
        return self.images[0].shape[0], self.images[0].shape[1]

    @property
    def n_slices(self) -> int:
        return self.images[0].shape[2]

    @property
    def n_volumes(self) -> int:
        return sum(image.n_volumes for image in self.images)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel [mm]."""
        x, y, z = np.linalg.norm(self.images[0].affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def scaling(self) -> str:
        """How stored values become signal, in words."""
        found = sorted({(image.slope, image.intercept) for image in self.images})
        return "; ".join(f"slope {slope:g}, intercept {intercept:g}" for slope, intercept in found)

    def __str__(self) -> str:
        axis = self.axis
        values = axis.described(self.values, " ") if self.values else "unknown"
        number = "without number" if self.series_number is None else self.series_number
        name = self.bids_series or f"series {number} '{self.description}'"
        return f"{name} ({self.component}, {axis.symbol} {values})"


@dataclass(frozen=True, eq=False)
class NiftiScan:
    """What was found.

    Attributes:
        source: name of the folder or file asked for, for messages.
        stacks: images by series and component.
        skipped: names of what is no NIfTI image, by reason.
        axis: what is to vary: echo time, inversion time or flip angle.
        given: (n,) values of it given by the user [s] or [rad], or None.
        listed: whether the files were named one by one, so that their order means something.
    """

    source: str
    stacks: tuple[Stack, ...]
    skipped: Mapping[str, tuple[str, ...]]
    axis: Axis
    given: np.ndarray | None
    listed: bool

    def along(self, axis: Axis) -> "NiftiScan":
        """The same files where something else is to vary."""
        if axis is self.axis:
            return self
        stacks = tuple(stack_of([along(image, axis) for image in stack.images], axis) for stack in self.stacks)
        return replace(self, stacks=stacks, axis=axis, given=None)


def scan_nifti(
    paths: str | Path | Sequence[str | Path],
    given: Sequence[float] | np.ndarray | None = None,
    axis: Axis = ECHO_TIME,
) -> NiftiScan:
    """Lists the NIfTI images of a folder by series and component, without reading voxels.

    Args:
        paths: a folder (subfolders are not searched), one file or a list of files.
        given: (n,) values of the axis given by the user [s] or [rad], for `nifti_choose.choose_stack`.
        axis: what is to vary: echo time, inversion time or flip angle.

    Returns:
        What was found, whether or not it can be fitted.

    Raises:
        NoInputError: no NIfTI image there.
        UsageError: `given` is not a list of numbers, or names one twice.
        CorruptInputError: a file cannot be read.
        MetadataError: a sidecar cannot be read, or `given` cannot be such values.
    """
    listed = not isinstance(paths, str | Path)
    wanted = [Path(path) for path in paths] if listed else [Path(paths)]
    given = given_values(axis, given)
    files, skipped = _find_files(wanted)
    groups: dict[tuple[str, ...], list[NiftiImage]] = {}
    for image in (read_image(file, axis) for file in files):
        groups.setdefault((image.component, *series_key(image.path, image.sidecar)), []).append(image)
    source = (wanted[0].name or str(wanted[0])) if len(wanted) == 1 else f"{len(wanted)} files"
    stacks = tuple(stack_of(images, axis) for images in groups.values())
    return NiftiScan(source, stacks, skipped, axis, given, listed)


def _find_files(given: Iterable[Path]) -> tuple[list[Path], dict[str, tuple[str, ...]]]:
    files: list[Path] = []
    skipped: dict[str, tuple[str, ...]] = {}
    for path in given:
        for entry in _entries(path):
            reason = _why_not(entry)
            if not reason:
                files.append(entry)
            elif reason != "sidecar":
                skipped[reason] = (*skipped.get(reason, ()), entry.name)
    if not files:
        places = ", ".join(map(str, given)) or "an empty list"
        raise NoInputError(f"no DICOM or NIfTI images found in {places}; NIfTI file names end in .nii or .nii.gz.")
    return files, skipped


def _entries(path: Path) -> list[Path]:
    try:
        if is_not_fetched(path):
            raise NoInputError(f"{path.name}: {NOT_FETCHED}")
        if not path.exists():
            raise NoInputError(f"{path}: no such file or folder.")
        return sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise NoInputError(f"{path}: cannot be read ({error.strerror}); check its name and permissions.") from error


def _why_not(entry: Path) -> str:
    if entry.name.startswith("."):  # also the "._e1.nii.gz" macOS leaves on foreign disks
        return "hidden file"
    if entry.is_dir():
        return "subfolder (not searched)"
    if NIFTI_NAME.search(entry.name):
        return ""
    if entry.suffix.lower() == ".json":
        return "sidecar"
    return "zip archive" if is_zip(entry) else "not NIfTI"


def stack_of(images: Sequence[NiftiImage], axis: Axis) -> Stack:
    """Images put together, in the order of their values where each volume has one."""
    stack = Stack(tuple(images), axis, (), ())
    values = [value for image in images for value in image.values]
    return ordered(stack, values) if len(values) == stack.n_volumes else stack


def ordered(stack: Stack, values: Sequence[float]) -> Stack:
    """The same with its values [s] or [rad], one per volume counted through its images, ascending."""
    order = tuple(map(int, np.argsort(values, kind="stable")))
    return replace(stack, values=tuple(values[i] for i in order), order=order)
