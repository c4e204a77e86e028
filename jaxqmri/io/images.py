"""DICOM or NIfTI: reads whichever of the two is there."""

from collections.abc import Sequence
from pathlib import Path

from . import dicom, nifti
from .dicom_scan import DicomScan, scan_dicom
from .errors import CorruptInputError, NoInputError
from .nifti_scan import NiftiScan, scan_nifti
from .series import ImageSeries

_NIFTI_ENDINGS = (".nii", ".nii.gz")


def read_images(paths: Sequence[Path], te: Sequence[float] | None = None) -> ImageSeries:
    """Reads the one multi-echo magnitude series among these files; see `read_dicom` and `read_nifti`.

    Args:
        paths: one folder, or files of one format.
        te: (echo,) echo times [s] that replace those in the files.

    Raises:
        NoInputError: a path does not exist.
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


def _one_or_all(paths: Sequence[Path]) -> Path | Sequence[Path]:
    return paths[0] if len(paths) == 1 else paths


def _are_nifti(paths: Sequence[Path]) -> bool:
    for path in paths:
        if not path.exists():
            raise NoInputError(f"{path}: no such file or folder; check the path.")
    files = [path for path in paths if path.is_file()]
    for folder in (path for path in paths if path.is_dir()):
        files += [path for path in folder.iterdir() if path.is_file()]
    n_nifti = sum(file.name.lower().endswith(_NIFTI_ENDINGS) for file in files)
    n_dicom = sum(file.suffix.lower() in (".dcm", ".ima") for file in files)
    if n_nifti and n_dicom:
        where = paths[0] if len(paths) == 1 else f"{len(paths)} given paths"
        raise CorruptInputError(
            f"{where}: {n_dicom} DICOM and {n_nifti} NIfTI files side by side, perhaps the same images twice; "
            "give the files of one format."
        )
    return n_nifti > 0
