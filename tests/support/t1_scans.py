"""Small scans of known T1, simulated without the package: inversion recovery and spoiled gradient echoes, 16 x 16 x 1.

One size for all tests, so that each fit is compiled once.
"""

from pathlib import Path

import dicom_series
import nifti_files
import numpy as np

import jaxqmri as jq

T1 = np.broadcast_to(np.geomspace(0.3, 3.0, 16)[:, None], (16, 16))  # s; x, y
M0 = 10000.0
EFFICIENCY = np.broadcast_to(np.linspace(0.8, 1.0, 16), (16, 16))
B1 = np.broadcast_to(np.linspace(0.8, 1.2, 16), (16, 16))
TI_MS = (50.0, 150.0, 400.0, 900.0, 2000.0, 4000.0)
IR_TR = 8.0  # s
FLIP_DEG = (3.0, 8.0, 17.0)
VFA_TR = 0.0054  # s
TI, FLIP_ANGLES = np.array(TI_MS) / 1e3, np.deg2rad(FLIP_DEG)


def recovery(ti=TI, tr=IR_TR, efficiency=EFFICIENCY) -> np.ndarray:
    """(x, y, n) signed signals: the longitudinal magnetisation that each repetition inverts, followed through it."""
    t1, ti = T1[..., None], np.asarray(ti)
    after_readout = 0.0
    before = 1 + (after_readout - 1) * np.exp(-(tr - ti) / t1)  # at the inversion
    return M0 * (1 + (-efficiency[..., None] * before - 1) * np.exp(-ti / t1))


def spoiled(flip_angles=FLIP_ANGLES, tr=VFA_TR, b1=B1) -> np.ndarray:
    """(x, y, n) signals of ideal spoiling, pulse by pulse until nothing changes any more."""
    angle, e1 = np.asarray(flip_angles) * b1[..., None], np.exp(-tr / T1)[..., None]
    z = np.ones_like(angle)
    keeps, gains = e1 * np.cos(angle), 1 - e1  # z before one pulse -> keeps * z + gains before the next
    for _ in range(14):  # 2, 4, ... 16384 pulses
        keeps, gains = keeps**2, gains * (1 + keeps)
    return M0 * np.sin(angle) * (keeps * z + gains)


def series(images: np.ndarray, **varied) -> jq.ImageSeries:
    """(x, y, n) images as a series of one slice; `ti` or `flip_angles`, `component`, and BIDS keys."""
    fields = {name: varied.pop(name) for name in ("ti", "flip_angles", "component") if name in varied}
    return jq.ImageSeries.from_arrays(images, acquisition=varied, **fields)


def inversion_series(magnitude: bool = True, **changes) -> jq.ImageSeries:
    signal = recovery()
    fields = {"ti": TI, "RepetitionTime": IR_TR, "component": "magnitude" if magnitude else "real"}
    return series(np.abs(signal) if magnitude else signal, **(fields | changes))


def flip_angle_series(**changes) -> jq.ImageSeries:
    return series(spoiled(), **({"flip_angles": FLIP_ANGLES, "RepetitionTime": VFA_TR} | changes))


def inversion_nifti(folder: Path, *, real: bool = False, **sidecar) -> Path:
    """One file per TI, each a series of its own as a scanner exports them."""
    folder.mkdir(parents=True, exist_ok=True)
    signal = recovery().astype(np.float32)
    for k, ti in enumerate(TI):
        facts = {"InversionTime": ti, "EchoTime": 0.01, "RepetitionTime": IR_TR, "FlipAngle": 90, "SeriesNumber": 3 + k}
        image = signal[:, :, None, k] if real else np.abs(signal[:, :, None, k])
        nifti_files.save(folder / f"ir_{k}{'_real' if real else ''}.nii.gz", image, sidecar=facts | sidecar)
    return folder


def flip_angle_nifti(folder: Path, **sidecar) -> Path:
    """One file per flip angle, of one BIDS file family."""
    folder.mkdir(parents=True, exist_ok=True)
    signal = spoiled().astype(np.float32)
    for k, angle in enumerate(FLIP_DEG):
        facts = {"FlipAngle": angle, "EchoTime": 0.002, "RepetitionTimeExcitation": VFA_TR}
        facts["ImageType"] = ["ORIGINAL", "PRIMARY", "M"]
        name = f"sub-1_flip-{k + 1}_VFA.nii.gz"
        nifti_files.save(folder / name, signal[:, :, None, k], sidecar=facts | sidecar)
    return folder


def dicom_images(signal: np.ndarray, keyword: str, values, **tags) -> list:
    """One series of one image per value; `signal` (x, y, n) magnitudes below 65536."""
    stored = np.round(signal).astype("<u2")
    return [
        dicom_series.image(
            5.0, 0, stored[:, ::-1, k].T.copy(),
            **{
                keyword: value, "SeriesInstanceUID": f"1.2.{k + 1}", "SeriesNumber": 3 + k, "SeriesDescription": "t1",
                **tags,
            },
        )
        for k, value in enumerate(values)
    ]  # fmt: skip


def inversion_dicom(folder: Path, **tags) -> Path:
    tags = {"RepetitionTime": 1e3 * IR_TR, "FlipAngle": 90} | tags
    return dicom_series.save(folder, dicom_images(np.abs(recovery()), "InversionTime", TI_MS, **tags))


def flip_angle_dicom(folder: Path, **tags) -> Path:
    tags = {"RepetitionTime": 1e3 * VFA_TR} | tags
    return dicom_series.save(folder, dicom_images(10 * spoiled(), "FlipAngle", FLIP_DEG, **tags))
