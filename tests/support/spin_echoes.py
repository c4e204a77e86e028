"""Multi-echo spin echoes of known T2 and B1, 16 x 16 x 1 voxels and 8 echoes, simulated without the package.

One size for all tests, so that the search is compiled once.
"""

from pathlib import Path

import nifti_files
import numpy as np

import jaxqmri as jq

SPACING = 0.010  # s
N_ECHOES = 8
TE = SPACING * np.arange(1, N_ECHOES + 1)  # s
T2 = np.broadcast_to(np.geomspace(0.020, 0.200, 16)[:, None], (16, 16))  # s; x, y
B1 = np.broadcast_to(np.linspace(0.60, 0.98, 16), (16, 16))
M0 = 1000.0


def train(t2, b1, *, n=N_ECHOES, spacing=SPACING, flip_angle=np.pi, t1=1.0):
    """(*voxel, n) echoes of a CPMG train for M0 = 1, by Bloch: spins that crushers spread evenly over the circle."""
    t2, b1, t1 = (np.asarray(value, float)[..., None] for value in (t2, b1, t1))
    n_spins = 4 * n + 4
    crush = np.exp(2j * np.pi * np.arange(n_spins) / n_spins)
    e1, e2 = np.exp(-spacing / 2 / t1), np.exp(-spacing / 2 / t2)
    transverse, longitudinal = np.sin(b1 * np.pi / 2) + 0 * crush, np.cos(b1 * np.pi / 2) + 0 * crush.real
    cos, sin = np.cos(b1 * flip_angle), np.sin(b1 * flip_angle)
    echoes = []
    for _ in range(n):
        transverse, longitudinal = transverse * e2 * crush, 1 + (longitudinal - 1) * e1
        y = cos * transverse.imag - sin * longitudinal
        longitudinal = sin * transverse.imag + cos * longitudinal
        transverse = (transverse.real + 1j * y) * e2 * crush
        longitudinal = 1 + (longitudinal - 1) * e1
        echoes.append(transverse.mean(axis=-1).real)
    return np.stack(echoes, axis=-1)


def signal(**protocol) -> np.ndarray:
    """(x, y, echo) noise-free magnitudes of the object."""
    return M0 * np.abs(train(T2, B1, **protocol))


def series(images: np.ndarray, te: np.ndarray = TE, **acquisition) -> jq.ImageSeries:
    """(x, y, echo) images as a series of one slice."""
    return jq.ImageSeries.from_arrays(images, te=te, acquisition=acquisition)


def nifti_folder(folder: Path, images: np.ndarray | None = None, te: np.ndarray = TE) -> Path:
    """One file per echo with its sidecar, as dcm2niix leaves a Philips scan: FlipAngle is that of the excitation."""
    folder.mkdir(parents=True, exist_ok=True)
    values = (signal() if images is None else images).astype(np.float32)
    for echo, t in enumerate(te):
        sidecar = {"EchoTime": t, "EchoNumber": echo + 1, "SeriesNumber": 3, "RepetitionTime": 3, "FlipAngle": 90}
        nifti_files.save(folder / f"mese_e{echo + 1}.nii.gz", values[:, :, None, echo], sidecar=sidecar)
    return folder
