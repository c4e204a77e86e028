"""Small scans of known T2*, as a scanner and as dcm2niix would leave them: 16 x 16 x 1 voxels, 4 echoes.

One size for all tests, so that the fit is compiled once.
"""

from pathlib import Path

import dicom_series
import nibabel as nib
import nifti_files
import numpy as np
from pydicom.dataset import Dataset

TE_MS = (3.0, 8.0, 15.0, 25.0)
T2STAR = np.broadcast_to(np.linspace(0.008, 0.060, 16)[:, None], (16, 16))  # s; x, y
S0 = 20000.0  # rounding to integers then costs 2.5e-5 at most


def signal() -> np.ndarray:
    """(x, y, echo) noise-free magnitudes."""
    return S0 * np.exp(-np.array(TE_MS) / 1e3 / T2STAR[..., None])


def datasets(images: np.ndarray | None = None, **tags: object) -> list[Dataset]:
    """One DICOM image per echo; `images` (x, y, echo) replaces the noise-free signal."""
    stored = np.round(signal() if images is None else images).astype("<u2")
    return [
        # Rows of a DICOM image run along x, from the top row, where y is largest.
        dicom_series.image(te_ms, 0, stored[:, ::-1, echo].T.copy(), EchoNumbers=echo + 1, **tags)
        for echo, te_ms in enumerate(TE_MS[: stored.shape[-1]])
    ]


def dicom_folder(folder: Path, images: np.ndarray | None = None, **tags: object) -> Path:
    return dicom_series.save(folder, datasets(images, **tags))


def nifti_folder(folder: Path, images: np.ndarray | None = None) -> Path:
    """One file per echo with its sidecar; float32, so that NaN and negative values can be stored."""
    folder.mkdir(parents=True, exist_ok=True)
    values = (signal() if images is None else images).astype(np.float32)
    for echo in range(values.shape[-1]):
        sidecar = {"EchoTime": TE_MS[echo] / 1e3, "EchoNumber": echo + 1, "SeriesNumber": 3, "RepetitionTime": 0.1}
        nifti_files.save(folder / f"gre_e{echo + 1}.nii.gz", values[:, :, None, echo], sidecar=sidecar)
    return folder


def load(folder, name):
    """A written map."""
    return nib.load(folder / f"{name}.nii.gz").get_fdata()
