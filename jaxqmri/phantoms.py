"""Digital reference objects: images made from known maps, to see what an estimate is worth."""

from dataclasses import dataclass

import numpy as np

from .models.base import simulate
from .models.decay import Decay, MonoExponential


@dataclass(frozen=True)
class Region:
    """One tissue of a phantom.

    Attributes:
        name: what it stands for.
        s0: signal at TE = 0, relative to the brightest tissue.
        t2star: T2* at 3 T [s].
    """

    name: str
    s0: float
    t2star: float


# T2* at 3 T of white matter, cortex and putamen: Peters et al., Magn Reson Imaging 25:748 (2007). Fluid and bleeds are
# round numbers at the two ends of what is met in practice. S0 follows the proton density.
BACKGROUND, WHITE, CORTEX, FLUID, PUTAMEN, BLEED = range(6)
REGIONS: dict[int, Region] = {
    WHITE: Region("white matter", 0.70, 0.0532),
    CORTEX: Region("cortex", 0.82, 0.0660),
    FLUID: Region("fluid", 1.00, 0.120),
    PUTAMEN: Region("putamen", 0.78, 0.0315),
    BLEED: Region("microbleed", 0.65, 0.010),
}


@dataclass(frozen=True)
class Phantom:
    """A head-like slice with known maps.

    Attributes:
        labels: (x, y, z) integers; 0 is air, the others are keys of `REGIONS`.
        affine: (4, 4) voxel index -> RAS+ [mm]; oblique, so that an axis mixed up on the way shows.
    """

    labels: np.ndarray
    affine: np.ndarray

    @property
    def s0(self) -> np.ndarray:
        """(x, y, z) true signal at TE = 0 [relative]; 0 in air."""
        return self._map({label: region.s0 for label, region in REGIONS.items()}, outside=0.0)

    @property
    def t2star(self) -> np.ndarray:
        """(x, y, z) true T2* [s]; NaN in air."""
        return self._map({label: region.t2star for label, region in REGIONS.items()}, outside=np.nan)

    def _map(self, values: dict[int, float], outside: float) -> np.ndarray:
        table = np.full(max(values) + 1, outside)
        for label, value in values.items():
            table[label] = value
        return table[self.labels]


def head_slice(size: int = 128) -> Phantom:
    """One slice of a head: cortex around white matter, two ventricles, two putamina and three microbleeds.

    Args:
        size: matrix size; the field of view is 224 mm.
    """
    grid = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(grid, grid, indexing="ij")  # x to the patient's left, y to the front

    def ellipse(cx: float, cy: float, rx: float, ry: float, tilt_deg: float = 0.0) -> np.ndarray:
        c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
        u, v = c * (x - cx) + s * (y - cy), -s * (x - cx) + c * (y - cy)
        return (u / rx) ** 2 + (v / ry) ** 2 < 1

    labels = np.zeros((size, size), dtype=np.int16)
    angle = np.arctan2(y, x)
    folds = 0.04 * np.sin(14 * angle)  # gyri: the border between grey and white matter is not an ellipse
    labels[ellipse(0, 0, 0.70, 0.86)] = CORTEX
    labels[(x / 0.58) ** 2 + (y / 0.74) ** 2 < (1 + folds) ** 2] = WHITE
    for side in (-1, 1):
        labels[ellipse(side * 0.12, 0.10, 0.07, 0.26, side * 12)] = FLUID
        labels[ellipse(side * 0.28, 0.08, 0.09, 0.17, side * -20)] = PUTAMEN
    for cx, cy in ((0.36, -0.42), (-0.40, -0.30), (-0.30, 0.48)):
        labels[ellipse(cx, cy, 0.05, 0.05)] = BLEED

    return Phantom(labels[:, :, None], _oblique_affine(size, field_of_view_mm=224.0, thickness_mm=4.0))


def gradient_echo_images(
    phantom: Phantom, te: np.ndarray, *, snr: float, gain: float, rng: np.random.Generator
) -> np.ndarray:
    """Magnitude images of a multi-echo gradient echo with the noise of a single coil (Rician).

    Args:
        phantom: the object.
        te: (echo,) echo times [s].
        snr: signal at TE = 0 of the brightest tissue over the standard deviation of the noise in each channel.
        gain: signal of the brightest tissue at TE = 0 [a.u.].
        rng: source of the noise.

    Returns:
        (x, y, z, echo) float64 images.
    """
    # Air has no T2*; any number will do where S0 is 0.
    t2star = np.nan_to_num(phantom.t2star, nan=1.0)
    signal = gain * np.asarray(simulate(MonoExponential(te), Decay(s0=phantom.s0, t2=t2star)))  # pyright: ignore
    real, imaginary = rng.normal(scale=gain / snr, size=(2, *signal.shape))
    return np.hypot(signal + real, imaginary)


def _oblique_affine(size: int, field_of_view_mm: float, thickness_mm: float) -> np.ndarray:
    """Axial, tipped 15 degrees towards the coronal plane; x runs to the patient's left as on a scanner's screen."""
    pixel_mm, tilt = field_of_view_mm / size, np.deg2rad(15.0)
    x_axis = np.array([-1.0, 0.0, 0.0])
    y_axis = np.array([0.0, np.cos(tilt), np.sin(tilt)])
    z_axis = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([pixel_mm * x_axis, pixel_mm * y_axis, thickness_mm * z_axis])
    centre = np.array([(size - 1) / 2, (size - 1) / 2, 0.0])
    affine[:3, 3] = np.array([0.0, 10.0, 20.0]) - affine[:3, :3] @ centre
    return affine
