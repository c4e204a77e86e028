"""Digital reference objects: images made from known maps, to test estimates against.

One description of a head at 3 T, ellipsoids in one coordinate system, gives a slice (`head_slice`) and a volume
(`head_volume`). A signal model makes images of its maps, to which noise is added.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from .models.base import as_float_array, simulate
from .models.decay import Decay, MonoExponential
from .models.fse import FSE
from .models.tissue import Tissue

Map = NDArray[np.floating]  # (x, y, z)


@dataclass(frozen=True)
class Region:
    """One tissue of a phantom, at 3 T."""

    name: str
    m0: float  # proton density relative to water
    t1: float  # s
    t2: float  # s
    t2star: float  # s

    @property
    def s0(self) -> float:
        """Signal at TE = 0 of an unsaturated gradient echo relative to that of water: m0."""
        return self.m0


# White matter and cortex: T1 and T2 of Wansapura et al., J Magn Reson Imaging 9:531 (1999); Stanisz et al., Magn Reson
# Med 54:507 (2005) found T1 a third longer, T2 a tenth shorter. Their T2* and the putamen's: Peters et al., Magn Reson
# Imaging 25:748 (2007). Scalp, taken for fat: T1 and T2 of Gold et al., Am J Roentgenol 183:343 (2004).
# All else are round numbers: proton densities, the putamen's T1 and T2, scalp's T2*, and fluid and bleeds, which are at
# the ends of the range in practice.
BACKGROUND, WHITE, CORTEX, FLUID, PUTAMEN, BLEED, SCALP = range(7)
REGIONS: dict[int, Region] = {
    WHITE: Region("white matter", 0.70, 0.832, 0.0796, 0.0532),
    CORTEX: Region("cortex", 0.82, 1.331, 0.110, 0.0660),
    FLUID: Region("fluid", 1.00, 4.0, 2.0, 0.120),
    PUTAMEN: Region("putamen", 0.78, 1.2, 0.070, 0.0315),
    BLEED: Region("microbleed", 0.65, 1.0, 0.040, 0.010),
}
HEAD_REGIONS: dict[int, Region] = {**REGIONS, SCALP: Region("scalp", 0.90, 0.371, 0.133, 0.030)}


@dataclass(frozen=True)
class Phantom:
    """A head with known maps of shape (x, y, z); `dataclasses.replace` gives one with another map."""

    labels: NDArray[np.int16]  # 0 is air or bone, the others are keys of `HEAD_REGIONS`
    m0: Map  # proton density relative to water; 0 in air
    t1: Map  # s; NaN in air, as all times
    t2: Map  # s
    t2star: Map  # s
    b1: Map  # true over nominal flip angle; in air too, like a measured map
    affine: Map  # (4, 4) voxel index -> RAS+ [mm]; oblique, so that swapped axes show

    def __post_init__(self):
        for name in ("m0", "t1", "t2", "t2star", "b1"):
            if (shape := getattr(self, name).shape) != self.labels.shape:
                raise ValueError(f"{name} has shape {shape}, labels {self.labels.shape}; all maps must be of one grid.")

    @property
    def s0(self) -> Map:
        """As that of `Region`."""
        return self.m0

    @property
    def tissue(self) -> Tissue:
        """The maps as parameters of a signal model; times in air are 1 s, a finite placeholder, and m0 is 0."""
        t1, t2, t2star = (jnp.asarray(np.nan_to_num(time, nan=1.0)) for time in (self.t1, self.t2, self.t2star))
        return Tissue(m0=jnp.asarray(self.m0), t1=t1, t2=t2, t2star=t2star, b1=jnp.asarray(self.b1))


def head_slice(size: int = 128, *, skull_stripped: bool = True, b1_scale: float = 1.0) -> Phantom:
    """One slice of a head: cortex around white matter, two ventricles, two putamina and three microbleeds.

    The field of view is 224 mm, its matrix (size, size, 1). `skull_stripped=False` adds fluid around the brain, bone
    without signal, and the scalp. `b1_scale` multiplies B1, which falls from 1.15 in the middle to about 0.75 at the
    edge of the brain.
    """
    return _head(size, 1, 4.0, skull_stripped, b1_scale)


def head_volume(size: int = 128, n_slices: int = 64, *, skull_stripped: bool = True, b1_scale: float = 1.0) -> Phantom:
    """The whole head in slices through 160 mm, from below: (size, size, n_slices), see `head_slice`.

    That is its middle slice; further down are cerebellum and brain stem.
    """
    return _head(size, n_slices, 160.0 / n_slices, skull_stripped, b1_scale)


def with_variation(
    phantom: Phantom, spread: float = 0.03, *, rng: np.random.Generator, width_mm: float = 15.0
) -> Phantom:
    """The phantom with m0, T1 and T2 that vary smoothly within each tissue.

    Each is multiplied by exp(spread * g), where g is a Gaussian random field of its own with zero mean and unit
    variance, whose correlation over distance is a Gaussian of standard deviation `width_mm`; T2* keeps its ratio to T2.
    The fields are functions of the position in mm: one seed gives the same head at any resolution, in a slice and in a
    volume. Source: random Fourier features, Rahimi and Recht, NIPS 20 (2007).
    """
    if not width_mm > 0:
        raise ValueError(f"width_mm must be positive, got {width_mm:g}.")
    m0, t1, t2 = (np.exp(spread * _random_field(phantom, width_mm, rng)) for _ in range(3))
    return replace(phantom, m0=phantom.m0 * m0, t1=phantom.t1 * t1, t2=phantom.t2 * t2, t2star=phantom.t2star * t2)


def gradient_echo_images(
    phantom: Phantom,
    te: np.ndarray,  # (echo,) echo times [s]
    *,
    snr: float,  # signal at TE = 0 of water over the standard deviation of the noise in each channel
    gain: float,  # signal of water at TE = 0 [a.u.]
    rng: np.random.Generator,
) -> np.ndarray:
    """(x, y, z, echo) magnitude images of a multi-echo gradient echo with the noise of a single coil (Rician)."""
    t2star = jnp.nan_to_num(jnp.asarray(phantom.t2star), nan=1.0)  # a placeholder in air, where s0 is 0
    signal = gain * np.asarray(simulate(MonoExponential(jnp.asarray(te)), Decay(jnp.asarray(phantom.s0), t2star)))
    real, imaginary = rng.normal(scale=gain / snr, size=(2, *signal.shape))
    return np.hypot(signal + real, imaginary)


def spin_echo_images(
    phantom: Phantom,
    fse: FSE,  # its echoes are at `fse.echo_times`
    *,
    snr: float | None = None,  # as in `gradient_echo_images`; None or inf: no noise
    gain: float = 1000.0,  # signal of water at TE = 0 [a.u.]
    rng: np.random.Generator | None = None,  # may be left out where there is no noise
    batch_size: int | None = 16384,  # voxels simulated at once; changes memory, never the result
) -> NDArray[np.float32]:
    """(x, y, z, echo) magnitude images of a fast (multi-echo) spin echo with the noise of a single coil (Rician)."""
    if snr is not None and not snr > 0:
        raise ValueError(f"snr must be positive, got {snr:g}; None makes images without noise.")
    sigma = 0.0 if snr is None else gain / snr
    if sigma > 0 and rng is None:
        raise ValueError("images with noise need an rng, e.g. numpy.random.default_rng(0); snr=None makes none.")
    signal = np.abs(np.asarray(simulate(fse, phantom.tissue, batch_size=batch_size))).astype(np.float32, copy=False)
    signal *= np.float32(gain)
    if sigma == 0 or rng is None:
        return signal
    noise = np.empty(signal.shape, np.float32)  # filled in place: every copy of a volume is some 100 MB

    def channel_noise() -> NDArray[np.float32]:
        rng.standard_normal(out=noise, dtype=np.float32)
        return np.multiply(noise, np.float32(sigma), out=noise)

    signal += channel_noise()
    return np.hypot(signal, channel_noise(), out=signal)


def t2_from_dual_echo(
    pd: Float[ArrayLike, "*voxel"],  # magnitude at the shorter echo time [a.u.]
    t2w: Float[ArrayLike, "*voxel"],  # at the longer one, in the same units
    delta_te: float,  # the longer minus the shorter (effective) echo time [s]
) -> Float[Array, "*voxel"]:
    """A rough T2 [s] from two images, T2 = -delta_te / ln(T2w / PD), such as IXI's PD- and T2-weighted ones.

    NaN where a signal is not positive and finite or does not fall; `jnp.nan_to_num(t2)` puts 0 there. Enough to make a
    phantom, with the PD-weighted image as M0, not to measure: two points leave no residual, the echoes of a fast spin
    echo mix T2 with T1 and B1 (stimulated echoes) and each image has a range of echo times. Noise raises a dark T2w,
    and with it T2. Both images must share receiver gain, scaling and TR.
    """
    if jnp.iscomplexobj(pd) or jnp.iscomplexobj(t2w):
        raise ValueError("pd and t2w must be magnitudes, got complex numbers; take jnp.abs of both.")
    first, second = as_float_array(pd), as_float_array(t2w)
    if first.shape != second.shape:
        shapes = f"pd has shape {first.shape}, t2w {second.shape}"
        raise ValueError(f"{shapes}; both must be of one grid, voxel by voxel: resample one.")
    if not 0 < delta_te < 2:
        raise ValueError(
            f"delta_te must be between 0 and 2 s, got {delta_te:g}: the longer minus the shorter echo time, in seconds "
            "(milliseconds divided by 1000)."
        )
    falls = (second > 0) & (first > second)
    # Elsewhere any falling pair, so that no NaN or division by 0 reaches a derivative.
    rate = jnp.log(jnp.where(falls, first, 2.0) / jnp.where(falls, second, 1.0)) / delta_te
    return jnp.where(falls & (rate > 0) & jnp.isfinite(rate), 1 / rate, jnp.nan)


_HALF_FIELD_OF_VIEW_MM = 112.0  # the unit of the description
_B1_CENTRE, _B1_EDGE = 1.15, 0.75  # at 3 T


def _head(size: int, n_slices: int, thickness_mm: float, skull_stripped: bool, b1_scale: float) -> Phantom:
    in_plane = (np.arange(size) + 0.5) / size * 2 - 1
    along = (np.arange(n_slices) - (n_slices - 1) / 2) * thickness_mm / _HALF_FIELD_OF_VIEW_MM
    # x to the patient's left, y to the front, z to the top
    x, y, z = np.meshgrid(in_plane, in_plane, along, indexing="ij", sparse=True)
    labels = _anatomy(x, y, z, skull_stripped)
    air = Region("air", m0=0.0, t1=np.nan, t2=np.nan, t2star=np.nan)
    regions = [air, *(HEAD_REGIONS[label] for label in sorted(HEAD_REGIONS))]
    maps = {key: np.array([getattr(one, key) for one in regions])[labels] for key in ("m0", "t1", "t2", "t2star")}
    return Phantom(
        labels,
        **maps,
        b1=b1_scale * _transmit_field(x, y, z),
        affine=_oblique_affine((size, size, n_slices), 2 * _HALF_FIELD_OF_VIEW_MM / size, thickness_mm),
    )


def _anatomy(x: Map, y: Map, z: Map, skull_stripped: bool) -> NDArray[np.int16]:
    """Labels at positions in units of half the field of view; later shapes cover earlier ones."""

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float], tilt_deg: float = 0.0):
        (cx, cy, cz), (rx, ry, rz) = centre, radii
        c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
        u, v = c * (x - cx) + s * (y - cy), -s * (x - cx) + c * (y - cy)
        return (u / rx) ** 2 + (v / ry) ** 2 + ((z - cz) / rz) ** 2 < 1

    labels = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), dtype=np.int16)
    if not skull_stripped:
        labels[ellipsoid((0, 0, 0), (0.82, 0.97, 0.69))] = SCALP
        labels[ellipsoid((0, 0, 0), (0.77, 0.925, 0.65))] = BACKGROUND
        labels[ellipsoid((0, 0, 0), (0.72, 0.88, 0.62))] = FLUID
    brain = ellipsoid((0, 0, 0), (0.70, 0.86, 0.60))
    labels[brain] = CORTEX
    # Gyri fold the border between grey and white matter, less towards the poles, where they would make a star of it.
    folds = 0.04 * np.sin(14 * np.arctan2(y, x) + 12 * z) * np.maximum(1 - (z / 0.45) ** 2, 0)
    labels[(x / 0.58) ** 2 + (y / 0.74) ** 2 + (z / 0.49) ** 2 < (1 + folds) ** 2] = WHITE
    for side in (-1, 1):
        labels[ellipsoid((side * 0.12, 0.10, 0), (0.07, 0.26, 0.14), side * 12)] = FLUID
        labels[ellipsoid((side * 0.28, 0.08, 0), (0.09, 0.17, 0.13), side * -20)] = PUTAMEN
    for cx, cy in ((0.36, -0.42), (-0.40, -0.30), (-0.30, 0.48)):
        labels[ellipsoid((cx, cy, 0), (0.05, 0.05, 0.05))] = BLEED
    # Nothing below reaches z = 0, the plane of `head_slice`.
    labels[ellipsoid((0, 0, 0.45), (0.022, 0.90, 0.38)) & brain] = FLUID  # between the hemispheres
    for shell, label in ((0.03, FLUID), (0.0, CORTEX), (-0.11, WHITE)):  # cerebellum
        for side in (-1, 1):
            radii = (0.24 + shell, 0.30 + shell, 0.21 + shell)
            labels[ellipsoid((side * 0.20, -0.38, -0.38), radii) & brain] = label
    labels[ellipsoid((0, -0.05, -0.50), (0.15, 0.17, 0.24)) & brain] = FLUID  # cisterns
    labels[ellipsoid((0, -0.06, -0.45), (0.12, 0.14, 0.32)) & brain] = WHITE  # brain stem
    return labels


def _transmit_field(x: Map, y: Map, z: Map) -> Map:
    """Largest near the middle (constructive interference), a little off it, so that a flipped axis shows."""
    from_centre = ((x - 0.04) / 0.70) ** 2 + ((y + 0.03) / 0.86) ** 2 + (z / 0.80) ** 2
    return _B1_CENTRE / (1 + (_B1_CENTRE / _B1_EDGE - 1) * from_centre)


def _random_field(phantom: Phantom, width_mm: float, rng: np.random.Generator) -> Map:
    """Sum of plane waves with normally distributed wave vectors [rad/mm]: nearly Gaussian, mean 0, variance 1."""
    n_waves = 64
    waves = rng.normal(scale=1 / width_mm, size=(n_waves, 3))
    phases = rng.uniform(0, 2 * np.pi, n_waves) + waves @ phantom.affine[:3, 3]
    per_voxel = waves @ phantom.affine[:3, :3]  # rad along each axis of the grid: the waves factorise
    x, y, z = (
        np.exp(1j * np.outer(np.arange(n), step)) for n, step in zip(phantom.labels.shape, per_voxel.T, strict=True)
    )
    in_plane = x[:, None] * y * np.exp(1j * phases)
    return np.sqrt(2 / n_waves) * np.real(in_plane @ z.T)


def _oblique_affine(shape: tuple[int, int, int], pixel_mm: float, thickness_mm: float) -> Map:
    """Axial, tipped 15 degrees towards the coronal plane; x runs to the patient's left as on a scanner's screen."""
    c, s = np.cos(np.deg2rad(15.0)), np.sin(np.deg2rad(15.0))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1, 0, 0], [0, c, -s], [0, s, c]]) * (pixel_mm, pixel_mm, thickness_mm)
    affine[:3, 3] = np.array([0.0, 10.0, 20.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine
