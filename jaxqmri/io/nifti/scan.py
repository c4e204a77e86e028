"""Which NIfTI files of a folder belong together, by headers and sidecars: one 3-D file per image, or one 4-D file."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import Give, MetadataError, NoInputError
from ...quantities import ECHO_TIME, Axis
from ..bids.names import NUMBERS, parse_name
from ..candidates import Candidate, Image, codes, words
from ..formats import check_paths, input_errors, is_nifti, other_formats
from ..sequence import what_they_are
from ..storage.plain_files import NO_FILE, is_plain_file
from ..storage.unpacking import is_archive
from .file import NiftiFile, read_image
from .sidecar import component, image_numbers, stem


@dataclass(frozen=True, eq=False, kw_only=True)
class Volume(Image):
    """One volume of a file: the file's header and sidecar, and which volume it is, from 0."""

    time_unit = 1.0
    file: NiftiFile
    index: int

    def header(self, keyword: str) -> Any:
        value: Any = self.file.sidecar.get(keyword)
        return value[self.index] if keyword in self.file.keys_per_volume else value

    def where(self, axis: Axis) -> str:
        return axis.keyword

    def stated(self, axis: Axis) -> tuple[float, ...]:
        try:
            return self.file.values(axis)
        except MetadataError:
            return ()

    def value_of(self, axis: Axis) -> float:
        values = self.file.values(axis)
        n, sidecar = self.file.n_volumes, f"{stem(self.file.path)}.json"
        if len(values) == n:
            return values[self.index]
        otherwise = "."
        if not values:
            why = f"no {axis.keyword}, as {sidecar} is missing or lacks it; " if axis.keyword else f"no {axis.term}; "
            otherwise = f", or move the file away if it is not one of the {axis.many}."
        elif len(values) == 1 and (what := what_they_are(self)):
            raise MetadataError(
                f"{self.name}: {n} volumes but one {axis.keyword} ({axis.described(values)}): these are {what} images, "
                f"one after the other; save one of them, or their mean, as a file of its own for each {axis.one}."
            )
        elif len(values) == 1:
            why = (
                f"{n} volumes but one {axis.keyword} ({axis.described(values)}), so its 4th axis is not {axis.many} "
                "(time points, or magnitude, real, imaginary of GE); save one volume of each file, with its sidecar, "
                "in another folder (in Python, nibabel.save(nibabel.load(...).slicer[..., 0], ...)) or, if this file "
                f"alone has all {axis.many}, "
            )
        else:
            why = f"{n} volume(s), but {len(values)} {axis.terms} in {sidecar}; mend it or "
        raise MetadataError(f"{self.name}: {why}", Give(axis.name, f"the {axis.terms}"), otherwise)

    def order(self, axis: Axis, *, of_several_series: bool) -> Sequence[tuple[str, float | None]]:
        if self.file.n_volumes > 1:
            return [("place along the 4th axis", None)]  # of one file it is `listed`
        said = next(iter(self.stated(axis)), None)
        in_names = "EchoNumber, or _e1" if axis is ECHO_TIME else f"{NUMBERS.get(axis.name, axis.name)}-1"
        where = f"a number ({in_names} in the names)"
        return [(axis.keyword, said), (where, next(iter(self.numbers(axis).values()), None))]

    def numbers(self, axis: Axis) -> dict[str, int]:
        return image_numbers(self.file.path, self.file.sidecar, axis) if self.file.n_volumes == 1 else {}

    @property
    def wrap(self) -> float:
        kind, n_bytes = self.file.dtype.kind, self.file.dtype.itemsize
        if kind == "f" and self.slope == 1.0:  # which may have been integers before
            n_bytes = 2
        could = kind in "if" and n_bytes <= 2 and self.slope > 0 == self.intercept
        return self.slope * 2.0 ** (8 * n_bytes) if could else 0.0

    @property
    def sequence(self) -> tuple[str, ...]:
        return codes(self.header("ScanningSequence"))


def scan_files(paths: Sequence[Path], axis: Axis) -> tuple[tuple[Candidate, ...], dict[str, tuple[str, ...]]]:
    """The images in files and folders (not subfolders) by series and component; names of what is skipped, by reason."""
    files, skipped = _find_files(paths)
    groups: dict[tuple[str, ...], list[Volume]] = defaultdict(list)
    places = {path: place for place, path in reversed(list(enumerate(paths)))} if len(paths) > 1 else {}
    for path in files:
        for volume in _volumes(read_image(path), places.get(path)):
            groups[volume.component, *_series_key(volume)].append(volume)
    return tuple(_candidate(group, axis) for group in groups.values()), skipped


def _find_files(paths: Sequence[Path]) -> tuple[list[Path], dict[str, tuple[str, ...]]]:
    check_paths(paths)
    files: list[Path] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        with input_errors(path):
            entries = sorted(path.iterdir()) if path.is_dir() else [path]
        for entry in entries:
            reason = _why_not(entry)
            if not reason:
                files.append(entry)
            elif reason != "sidecar":
                skipped[reason].append(entry.name)
    if not files:
        places = ", ".join(map(str, paths)) or "an empty list"
        remedy = other_formats(skipped["not NIfTI"]) or "NIfTI file names end in .nii or .nii.gz"
        raise NoInputError(f"no DICOM or NIfTI images found in {places}; {remedy}.")
    return files, {reason: tuple(names) for reason, names in skipped.items()}


def _why_not(entry: Path) -> str:
    """Why a file or folder is passed over; "" for a NIfTI file."""
    if entry.name.startswith("."):  # also the "._e1.nii.gz" macOS leaves on foreign disks
        return "hidden file"
    if entry.is_dir():
        return "subfolder (not searched)"
    if entry.exists() and not is_plain_file(entry):
        return NO_FILE
    if is_nifti(entry):
        return ""
    if entry.suffix.lower() == ".json":
        return "sidecar"
    return "archive" if is_archive(entry) else "not NIfTI"


def _volumes(file: NiftiFile, listed: int | None) -> list[Volume]:
    said, name = file.sidecar, parse_name(stem(file.path))
    bids = name.series if name is not None and name.is_fitted else None
    return [
        Volume(
            name=file.path.name,
            uid=f"{file.path}#{k}",
            series_uid=str(said.get("SeriesInstanceUID") or ""),
            series_number=number if isinstance(number := said.get("SeriesNumber"), int | str) else None,
            description=" ".join(str(said.get("SeriesDescription") or bids or "").split()),
            bids=bids,
            component=component(file.path, said) or "magnitude",
            component_is_stated=component(file.path, said) is not None,
            derived=words(said.get("ImageType"))[:1] == ("DERIVED",),
            slope=file.slope,
            intercept=file.intercept,
            unit=str(said.get("Units") or ""),
            listed=listed if file.n_volumes == 1 else k,
            file=file,
            index=k,
        )
        for k in range(file.n_volumes)
    ]


def _series_key(volume: Volume) -> tuple[str, ...]:
    """What tells one series from another; in BIDS the name, as scanners number the images of one as they like."""
    if volume.bids is not None:
        return (str(volume.bids),)
    return tuple(str(volume.header(key) or "") for key in ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription"))


def _candidate(volumes: list[Volume], axis: Axis) -> Candidate:
    file = volumes[0].file
    x, y, z = np.linalg.norm(file.affine[:3, :3], axis=0)
    return Candidate(
        images=tuple(volumes),
        slices=np.zeros(len(volumes), int),
        shape=(file.shape[0], file.shape[1]),
        n_slices=file.shape[2],
        voxel_size=(float(x), float(y), float(z)),
        grid=file,
        names=tuple(volume.name for volume in volumes if volume.index == 0),
        axis=axis,
    ).along(axis)
