"""One acquired series as numbers: images in SI units, what varies from one to the next and where the voxels lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import MetadataError, UsageError
from ..quantities import ECHO_TIME, FLIP_ANGLE, INVERSION_TIME, Axis

if TYPE_CHECKING:
    from .dicom.identity import DicomIdentity

COMPONENTS = ("magnitude", "phase", "real", "imaginary")
EARLIEST_SPIN_ECHO = 4e-3  # s; two pulses and a readout of a clinical scanner hardly fit into less
TE_ROUNDING = 100e-6  # s; scanners print 0.1 ms, some by cutting digits off


@dataclass(frozen=True)
class ImageSeries:
    """Images of one object that differ in one thing, which is the last axis: echo, inversion time or flip angle.

    Attributes:
        data: (x, y, z, n) float32, rescaled as the file says [a.u.]; phase in radians.
        te: (n,) float64 echo times [s], ascending unless `ti` or `flip_angles` vary; then NaN where not known.
        affine: (4, 4) float64, voxel index -> RAS+ [mm], as in NIfTI.
        component: "magnitude", "phase", "real" or "imaginary".
        description: the series' own name for itself, for messages and reports.
        source_format: "DICOM", "NIfTI" or "simulation".
        n_files: how many files were read.
        acquisition: physics of the acquisition under BIDS key names and units (`RepetitionTime` s, `FlipAngle` deg,
            `MagneticFieldStrength` T, `Manufacturer`, ...); never a patient's identity.
        skipped: what was passed over and why, reason -> count of images, or of files that hold none.
        saturated: (x, y, z) bool, True where a stored value is at the top of its range in any image, or None.
        ti: (n,) float64 inversion times, ascending [s], if they are what varies.
        flip_angles: (n,) float64 nominal flip angles, ascending [rad], if they are what varies.
        identity: whose images they are, if DICOM files said so; shown and written only where it is asked for.
    """

    data: np.ndarray
    te: np.ndarray
    affine: np.ndarray
    component: str = "magnitude"
    description: str = ""
    source_format: str = "simulation"
    n_files: int = 0
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    saturated: np.ndarray | None = None
    ti: np.ndarray | None = None
    flip_angles: np.ndarray | None = None
    identity: "DicomIdentity | None" = field(default=None, repr=False)

    def __post_init__(self):
        if self.data.ndim != 4:
            raise ValueError(f"data must have the axes (x, y, z, echo), got shape {self.data.shape}.")
        if self.ti is not None and self.flip_angles is not None:
            raise ValueError("ti and flip_angles are both given, but only one can be what varies; leave one out.")
        for name in ("te", "ti", "flip_angles"):
            values = getattr(self, name)
            if values is not None and values.shape != self.data.shape[-1:]:
                raise ValueError(
                    f"{name} has shape {values.shape}, but data {self.data.shape} has {self.data.shape[-1]} "
                    f"{self.axis.many}."
                )
        if self.affine.shape != (4, 4):
            raise ValueError(f"affine must have shape (4, 4), got {self.affine.shape}.")

    @property
    def axis(self) -> Axis:
        """What varies."""
        if self.flip_angles is not None:
            return FLIP_ANGLE
        return ECHO_TIME if self.ti is None else INVERSION_TIME

    @property
    def axis_values(self) -> np.ndarray:
        """(n,) what varies [s] or [rad]."""
        return getattr(self, self.axis.name)

    @property
    def clipped(self) -> np.ndarray | None:
        """(x, y, z) bool, True where the signal may be clipped, or None: nowhere.

        One voxel alone at the top of the range is where a scanner scales images to the whole of it.
        """
        return self.saturated if self.saturated is not None and np.count_nonzero(self.saturated) > 1 else None

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel [mm]."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def wanted_component(axis: Axis, component: str | None, found: Sequence[str]) -> str:
    """Which images to read: those asked for, or magnitude; real ones where only they have several inversion times.

    Args:
        axis: what is to vary.
        component: what was asked for, or None.
        found: the component of every image that could be meant.

    Raises:
        UsageError: no such component.
    """
    if component is not None:
        if component not in COMPONENTS:
            raise UsageError(f"component {component!r} is not one of {', '.join(COMPONENTS)}.")
        return component
    real_only = found.count("real") > 1 >= found.count("magnitude")
    return "real" if axis is INVERSION_TIME and real_only else "magnitude"


class EchoTrain(NamedTuple):
    """The timing of a multi-echo spin echo.

    Attributes:
        spacing: time from echo to echo [s].
        echoes: which echoes of the train were recorded, counted from 0; scanners may drop the first ones.
    """

    spacing: float
    echoes: tuple[int, ...]


def echo_train(te: np.ndarray, where: str) -> EchoTrain:
    """Finds the train that these echo times come from: whole multiples of one echo spacing.

    They may miss the multiples by their rounding, 0.5 % of the spacing or 0.1 ms.

    Args:
        te: (echo,) ascending [s].
        where: the file or argument they came from, for the message.

    Raises:
        MetadataError: they are no multiples of one spacing, so the echoes are not those of one train.
    """
    te = np.asarray(te, dtype=np.float64)
    step = np.diff(te).min()
    # From echo to echo, so that the rounding of the step does not add up over a long train.
    number = np.cumsum(np.round(np.diff(te, prepend=0.0) / step)) if step > 0 else np.zeros_like(te)
    spacing = float(number @ te / max(number @ number, 1))
    if number[0] < 1 or np.any(np.abs(te - number * spacing) > max(0.005 * spacing, TE_ROUNDING)):
        te_ms = ", ".join(f"{1e3 * t:g}" for t in te)
        raise MetadataError(
            f"{where}: echo times {te_ms} ms are no multiples of one echo spacing; the echoes are not evenly spaced: "
            "not a multi-echo spin echo, whose stimulated echoes could be simulated. Use --method mono."
        )
    return EchoTrain(float(f"{spacing:.6g}"), tuple(int(n) - 1 for n in number))
