"""DICOM or NIfTI: reads whichever of the two is there; and maps that go with the images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from . import dicom, nifti
from .dicom_scan import DicomScan, scan_dicom
from .errors import CorruptInputError, MetadataError, NoInputError
from .nifti_file import NIFTI_NAME, SAME_GRID, read_image, read_voxels, same_grid
from .nifti_scan import NiftiScan, scan_nifti
from .series import ImageSeries
from .sidecar import read_sidecar


def read_images(paths: Sequence[Path], te: Sequence[float] | None = None) -> ImageSeries:
    """Reads the one multi-echo magnitude series among these files; see `read_dicom` and `read_nifti`.

    Args:
        paths: one folder, or files of one format.
        te: (echo,) echo times [s] that replace those in the files.

    Raises:
        NoInputError: a path does not exist or cannot be read.
        CorruptInputError: DICOM and NIfTI side by side.
    """
    if _are_nifti(paths):
        return nifti.read_nifti(_one_or_all(paths), te)
    return dicom.read_dicom(_one_or_all(paths), te=te)


def scan_images(paths: Sequence[Path], te: Sequence[float] | None = None) -> DicomScan | NiftiScan:
    """Lists what is there without reading images; see `scan_dicom` and `scan_nifti`. Raises as `read_images`."""
    if _are_nifti(paths):
        return scan_nifti(_one_or_all(paths), te)
    return scan_dicom(_one_or_all(paths), te)


def check_paths(paths: Sequence[Path]) -> None:
    """Makes sure that every input is there; raises NoInputError."""
    for path in paths:
        with _input_errors(path):
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
    name, shape = path.name, series.data.shape[:3]
    if image.shape != shape:
        raise CorruptInputError(
            f"{name}: the B1 map has shape {image.shape}, the images {shape}; resample it onto the images."
        )
    if not same_grid(series.affine, image.affine):
        raise CorruptInputError(
            f"{name}: the B1 map has the shape of the images but lies elsewhere (its affine differs by more than "
            f"{SAME_GRID:g} of a voxel); resample it onto the images."
        )
    return read_voxels(image)[0][..., 0]


def _one_or_all(paths: Sequence[Path]) -> Path | Sequence[Path]:
    return paths[0] if len(paths) == 1 else paths


def _are_nifti(paths: Sequence[Path]) -> bool:
    check_paths(paths)
    files = [file for path in paths for file in _files_at(path)]
    nifti_files = {file for file in files if NIFTI_NAME.search(file.name)}
    if not nifti_files:
        return False
    where = paths[0] if len(paths) == 1 else f"{len(paths)} given paths"
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
            yield from (entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
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
