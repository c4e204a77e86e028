"""DICOM or NIfTI: reads whichever of the two is there; and maps that go with the images."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptInputError, MetadataError, NoInputError, UsageError
from ..quantities import ECHO_TIME, Axis
from .axis import axis_named
from .dicom import choose as dicom_choose
from .dicom import reader as dicom
from .dicom import stack as dicom_stack
from .dicom.scan import DicomScan, scan_dicom
from .negative import Negative
from .nifti import reader as nifti
from .nifti import scan as nifti_scan
from .nifti.file import NIFTI_NAME, check_grid, read_image, read_voxels
from .nifti.scan import NiftiScan, scan_nifti
from .nifti.sidecar import NOT_FETCHED, is_not_fetched, read_sidecar
from .series import ImageSeries
from .storage.zipped import unpacked

Scan = DicomScan | NiftiScan
Stack = dicom_stack.Stack | nifti_scan.Stack


def read_images(
    paths: Sequence[Path],
    axes: Sequence[str] = ("te",),
    given: Sequence[float] | None = None,
    component: str | None = None,
    series: Sequence[str] = (),
    negative: Negative = "keep",
) -> ImageSeries:
    """Reads the one series among these files in which one thing varies; see `read_dicom` and `read_nifti`.

    Args:
        paths: one folder or zip archive, or files of one format.
        axes: what varies: "te", "ti" or "flip_angle"; of several, the one that the files vary.
        given: (n,) values of it [s] or [rad] that replace those in the files; `axes` has one entry then.
        component: "magnitude", "real", ...; None: see `read_dicom`.
        series: numbers of the series to read, or how their UIDs begin; empty: those that fit together.
        negative: what becomes of negative magnitudes, see `settle_negative`.

    Raises:
        NoInputError: a path does not exist or cannot be read.
        CorruptInputError: DICOM and NIfTI side by side.
        UsageError: the files vary several of `axes`; no such series; `negative` of images whose sign means something.
    """
    with scan_images(paths, given, axis_named(axes[0]), series) as scan:
        scan, stack = choose_stack(scan, component) if len(axes) == 1 else choose_axis(scan, axes, component)
        if negative == "abs" and stack.component != "magnitude":
            raise UsageError(
                f"--negative abs is about magnitudes, but the images to be fitted are {stack.component}, whose sign is "
                "part of the signal; leave it out, or give magnitude images."
            )
        reader: Any = dicom if isinstance(scan, DicomScan) else nifti
        return reader.read_stack(scan, stack, negative)


@contextmanager
def scan_images(
    paths: Sequence[Path],
    given: Sequence[float] | None = None,
    axis: Axis = ECHO_TIME,
    series: Sequence[str] = (),
) -> Iterator[Scan]:
    """Lists what is there without reading images; see `scan_dicom` and `scan_nifti`. Raises as `read_images`.

    What it yields can be read within the block only: the files of a zip archive are gone afterwards.
    """
    with unpacked(paths) as folders:
        scan = _scan(folders, given, axis, series)
        yield scan if isinstance(scan, NiftiScan) else replace(scan, source=_name_of(paths))


def _scan(paths: Sequence[Path], given: Sequence[float] | None, axis: Axis, series: Sequence[str]) -> Scan:
    if _are_nifti(paths):
        return _of_series(scan_nifti(_one_or_all(paths), given, axis), series)
    try:
        scan = scan_dicom(_one_or_all(paths), given, axis)
    except NoInputError as error:
        raise (_nifti_below(paths) or error) from None
    return scan.of_series(series)


def _nifti_below(paths: Sequence[Path]) -> NoInputError | None:
    """Why nothing is found where NIfTI files lie deeper than they are looked for, or None."""
    below = (file for path in paths if path.is_dir() for file in path.rglob("*") if NIFTI_NAME.search(file.name))
    if all(map(_is_own_map, below)):
        return None
    return NoInputError(
        f"{_name_of(paths)}: no DICOM images, and its NIfTI files lie in subfolders, which are not searched; name the "
        "folder that holds them (unpack an archive first), or map a BIDS data set with `jaxqmri bids`."
    )


def _of_series(scan: NiftiScan, series: Sequence[str]) -> NiftiScan:
    """The same files as if only those of some series numbers were there; sidecars have no UIDs."""
    there = [str(stack.series_number) for stack in scan.stacks]
    for name in series:
        if name not in there:
            raise UsageError(
                f"{scan.source}: no series {name} (--series); by SeriesNumber of their sidecars there are: "
                f"{'; '.join(map(str, scan.stacks))}."
            )
    if not series:
        return scan
    kept = tuple(stack for stack in scan.stacks if str(stack.series_number) in series)
    others = sorted(image.path.name for stack in scan.stacks if stack not in kept for image in stack.images)
    skipped = {**scan.skipped, "other series": tuple(others)} if others else scan.skipped
    return replace(scan, stacks=kept, skipped=skipped)


def choose_stack(scan: Scan, component: str | None = None) -> tuple[Scan, Stack]:
    """The scan with the one stack of it that can be fitted; see `dicom_choose.choose_stack`, `nifti.choose_stack`."""
    chooser: Any = dicom_choose if isinstance(scan, DicomScan) else nifti
    return scan, chooser.choose_stack(scan, component)


def choose_axis(scan: Scan, axes: Sequence[str], component: str | None = None) -> tuple[Scan, Stack]:
    """The same along the one of several axes that the images vary.

    Raises:
        UsageError: series of both are there.
        CorruptInputError, MetadataError: there is none; says why for each axis.
    """
    found: list[tuple[Scan, Stack, Sequence[warnings.WarningMessage]]] = []
    refused: dict[str, ValueError] = {}
    for axis in map(axis_named, axes):
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            try:
                found.append((*choose_stack(scan.along(axis), component), remarks))
            except ValueError as error:
                refused[axis.term] = error
    if len(found) > 1:
        both = " and ".join(str(stack) for _, stack, _ in found)
        raise UsageError(f"{scan.source}: {both} could both be meant; say which with --method ir or vfa.")
    if found:
        for remark in found[0][2]:
            warnings.warn(remark.message, stacklevel=2)
        return found[0][:2]
    raise _none_varies(scan, axes, refused)


def _none_varies(scan: Scan, axes: Sequence[str], refused: dict[str, ValueError]) -> ValueError:
    """Why nothing can be read along any axis: the reason along the one that does vary, or all reasons."""
    varying = [axis for axis in map(axis_named, axes) if _varies(scan, axis)]
    if not varying and len(scan.stacks) > 1 and all(map(_has_several_images, scan.stacks)):
        return CorruptInputError(
            f"{scan.source}: no {' or '.join(refused)} varies within any series, so that nothing tells T1; give the "
            "images of an inversion recovery or of different flip angles."
        )
    if len(varying) == 1 or len({str(error) for error in refused.values()}) == 1:
        return refused[varying[0].term] if varying else next(iter(refused.values()))
    kind = next((type(e) for e in refused.values() if isinstance(e, MetadataError)), CorruptInputError)
    reasons = " ".join(f"By {quantity}: {error}" for quantity, error in refused.items())
    return kind(f"{scan.source}: images of no single series that differ in {' or '.join(refused)}. {reasons}")


def _varies(scan: Scan, axis: Axis) -> bool:
    """Whether images that could belong together differ in it: those of one series, or series of one image each."""
    stacks = scan.along(axis).stacks
    single = {value for stack in stacks if not _has_several_images(stack) for value in stack.values}
    return len(single) > 1 or any(len(set(stack.values)) > 1 for stack in stacks)


def _has_several_images(stack: Stack) -> bool:
    """Whether it has several images of a slice."""
    return (max(stack.images_per_slice) if isinstance(stack, dicom_stack.Stack) else stack.n_volumes) > 1


def check_paths(paths: Sequence[Path]) -> None:
    """Makes sure that every input is there; raises NoInputError."""
    for path in paths:
        with _input_errors(path):
            if is_not_fetched(path):
                raise NoInputError(f"{path.name}: {NOT_FETCHED}")
            if not path.exists():
                raise NoInputError(f"{path}: no such file or folder; check the path.")


def read_b1_map(path: Path, series: ImageSeries) -> np.ndarray:
    """Reads a transmit field map measured on a series.

    Args:
        path: a 3-D NIfTI file on the grid of `series`, true flip angle / nominal flip angle.
        series: the images it belongs to.

    Returns:
        (x, y, z) as stored, with NaN where the file has it.

    Raises:
        NoInputError: no such file.
        CorruptInputError: unreadable, or on another grid.
    """
    if not path.is_file():
        raise NoInputError(f"{path}: no such B1 map file.")
    image = read_image(path)
    check_grid(image, "B1 map", series.affine, series.data.shape[:3], "resample it onto")
    return read_voxels(image)[..., 0]


def _one_or_all(paths: Sequence[Path]) -> Path | Sequence[Path]:
    return paths[0] if len(paths) == 1 else paths


def _name_of(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{len(paths)} given paths"


def _are_nifti(paths: Sequence[Path]) -> bool:
    check_paths(paths)
    files = [file for path in paths for file in _files_at(path)]
    nifti_files = {file for file in files if NIFTI_NAME.search(file.name)}
    if not nifti_files:
        return False
    where = _name_of(paths)
    n_dicom = sum(_looks_like_dicom(file) for file in files if file not in nifti_files)
    if all(map(_is_own_map, nifti_files)):
        if n_dicom or any(entry.is_dir() for path in paths if path.is_dir() for entry in path.iterdir()):
            return False
        raise NoInputError(f"{where}: its NIfTI files are maps made by jaxqmri; give the images they were made of.")
    if n_dicom:
        raise CorruptInputError(
            f"{where}: {n_dicom} DICOM and {len(nifti_files)} NIfTI files side by side, perhaps the same images twice; "
            "give the files of one format."
        )
    return True


def _files_at(path: Path) -> Iterator[Path]:
    """The file itself, or the files of the folder without its subfolders."""
    with _input_errors(path):
        if path.is_dir():
            entries = (entry for entry in path.iterdir() if not entry.name.startswith("."))
            yield from (entry for entry in entries if entry.is_file() or (entry.is_symlink() and not entry.exists()))
        else:
            yield path


@contextmanager
def _input_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoInputError(f"{path}: cannot be read ({error.strerror}); check its name and permissions.") from error


def _looks_like_dicom(file: Path) -> bool:
    if file.suffix.lower() in (".dcm", ".ima"):
        return True
    with suppress(OSError), file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"
    return False


def _is_own_map(file: Path) -> bool:
    """Whether a NIfTI file is a result of this program: maps must not decide what the input is."""
    with suppress(MetadataError):
        makers = read_sidecar(file).get("GeneratedBy")
        return isinstance(makers, list) and any(isinstance(m, dict) and m.get("Name") == "jaxqmri" for m in makers)
    return False
