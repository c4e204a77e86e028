"""Small BIDS raw datasets of known T1, T2 and T2*, simulated without the package: 8 x 8 x 2 voxels."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nifti_files import OBLIQUE

SHAPE = (8, 8, 2)
S0 = 10000.0
T2STAR = np.broadcast_to(np.linspace(0.012, 0.060, 8)[:, None, None], SHAPE)  # s; x, y, z
T2 = 2 * T2STAR
T1 = 20 * T2STAR
TE_GRE = (0.003, 0.008, 0.015, 0.025)  # s
TE_SE = tuple(0.010 * n for n in range(1, 9))
TI = (0.05, 0.15, 0.4, 0.9, 2.0, 4.0)
FLIP_DEG = (3.0, 8.0, 17.0)
IR_TR, VFA_TR = 8.0, 0.0054  # s
SCANNER = {"Manufacturer": "Siemens", "MagneticFieldStrength": 3}

# suffix -> the entity that numbers the images, their sidecars, their signals
Images = tuple[str, Sequence[Mapping[str, object]], Sequence[np.ndarray]]


def megre() -> Images:
    return "echo", [{"EchoTime": te} for te in TE_GRE], [S0 * np.exp(-te / T2STAR) for te in TE_GRE]


def mese() -> Images:
    """A train of perfect refocusing pulses decays as an exponential."""
    return "echo", [{"EchoTime": te} for te in TE_SE], [S0 * np.exp(-te / T2) for te in TE_SE]


def irt1() -> Images:
    before = 1 + (0.0 - 1) * np.exp(-(IR_TR - np.array(TI)) / T1[..., None])  # after a 90 degree readout
    signal = np.abs(S0 * (1 + (-before - 1) * np.exp(-np.array(TI) / T1[..., None])))
    return "inv", [{"InversionTime": ti, "EchoTime": 0.01} for ti in TI], list(np.moveaxis(signal, -1, 0))


def vfa() -> Images:
    angle, e1 = np.deg2rad(FLIP_DEG), np.exp(-VFA_TR / T1[..., None])
    signal = S0 * np.sin(angle) * (1 - e1) / (1 - np.cos(angle) * e1)
    facts = [{"FlipAngle": deg, "EchoTime": 0.002, "RepetitionTimeExcitation": VFA_TR} for deg in FLIP_DEG]
    return "flip", facts, list(np.moveaxis(signal, -1, 0))


COMMON = {
    "MEGRE": {"FlipAngle": 15, "RepetitionTimeExcitation": 0.05},
    "MESE": {"FlipAngle": 90, "RepetitionTimeExcitation": 3.0, "MRAcquisitionType": "2D"},
    "IRT1": {"FlipAngle": 90, "RepetitionTimePreparation": IR_TR, "RepetitionTime": IR_TR},
    "VFA": {"PulseSequenceType": "FLASH"},
}
IMAGES = {"MEGRE": megre, "MESE": mese, "IRT1": irt1, "VFA": vfa}


def dataset(root: Path, **facts: object) -> Path:
    """An empty dataset; what all series have in common is told at its top."""
    root.mkdir(parents=True, exist_ok=True)
    description = {"Name": "simulated", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0"} | facts
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "README.md").write_text("Simulated images of known T1, T2 and T2*, for tests.\n")
    return root


def add_series(root: Path, sub: str, suffix: str, ses: str = "", middle: str = "", part: str = "", ending=".nii.gz"):
    """One file and sidecar per image; `middle` are entities such as "_acq-a_run-2", `part` is "_part-mag" or the like.

    Only what varies is in the sidecars beside the images, the rest is inherited from the top of the dataset.
    """
    folder = root / f"sub-{sub}" / (f"ses-{ses}" if ses else "") / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    entity, facts, images = IMAGES[suffix]()
    (root / f"{suffix}.json").write_text(json.dumps(SCANNER | COMMON[suffix]))
    for number, (sidecar, image) in enumerate(zip(facts, images, strict=True), start=1):
        stem = f"sub-{sub}{f'_ses-{ses}' if ses else ''}{middle}_{entity}-{number}{part}_{suffix}"
        save(folder / f"{stem}{ending}", image)
        (folder / f"{stem}.json").write_text(json.dumps(dict(sidecar)))
    return folder


def save(path: Path, image: np.ndarray) -> None:
    nifti = nib.Nifti1Image(image.astype(np.float32), OBLIQUE)
    nifti.header.set_xyzt_units("mm", "sec")
    nifti.to_filename(path)


def all_kinds(root: Path) -> Path:
    """Two subjects; one with two sessions, the other with every kind of series."""
    dataset(root)
    for ses in ("pre", "post"):
        add_series(root, "01", "MEGRE", ses, part="_part-mag")
    for suffix in IMAGES:
        add_series(root, "02", suffix, part="_part-mag" if suffix != "VFA" else "")
    return root
