"""One acquired series as numbers: images in SI units, the echo times and where the voxels lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .errors import MetadataError

SHORTEST_TE = 50e-6  # s; ultra-short echo sequences start near 8e-5 s for spoiled, fast-ramped readouts
LONGEST_TE = 2.0  # s; the longest echoes in use (T2 of fluids) stay below one second
TE_ROUNDING = 100e-6  # s; scanners print 0.1 ms, some by cutting digits off


@dataclass(frozen=True)
class ImageSeries:
    """A multi-echo image series with the echo axis last.

    Attributes:
        data: (x, y, z, echo) float32, rescaled as the file says [a.u.].
        te: (echo,) float64 echo times, ascending [s].
        affine: (4, 4) float64, voxel index -> RAS+ [mm], as in NIfTI.
        component: "magnitude", "phase", "real" or "imaginary".
        description: the series' own name for itself, for messages and reports.
        source_format: "DICOM", "NIfTI" or "simulation".
        n_files: how many files were read.
        acquisition: physics of the acquisition under BIDS key names and units (`RepetitionTime` s, `FlipAngle` deg,
            `MagneticFieldStrength` T, `Manufacturer`, ...); never a patient's identity.
        skipped: what was passed over and why, reason -> count.
        saturated: (x, y, z) bool, True where a stored value is at the top of its range in any echo, or None.
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

    def __post_init__(self):
        if self.data.ndim != 4:
            raise ValueError(f"data must have the axes (x, y, z, echo), got shape {self.data.shape}.")
        if self.te.shape != self.data.shape[-1:]:
            raise ValueError(
                f"te has shape {self.te.shape}, but data {self.data.shape} has {self.data.shape[-1]} echoes."
            )
        if self.affine.shape != (4, 4):
            raise ValueError(f"affine must have shape (4, 4), got {self.affine.shape}.")

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel [mm]."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def check_echo_times(te: np.ndarray, where: str) -> None:
    """Refuses echo times that cannot be seconds, rather than guessing what was meant.

    Args:
        te: (echo,) [s].
        where: the file or argument they came from, for the message.

    Raises:
        MetadataError: not finite, not positive, outside 50 us ... 2 s, or all equal.
    """
    te_ms = ", ".join(f"{1e3 * t:g}" for t in te)
    if not np.all(np.isfinite(te)) or np.any(te <= 0):
        raise MetadataError(f"{where}: echo times must be finite and positive, got {te_ms} ms; give them with --te-ms.")
    if np.any(te < SHORTEST_TE) or np.any(te > LONGEST_TE):
        mix_up = (
            "seconds in a field of milliseconds" if np.any(te < SHORTEST_TE) else "milliseconds in a field of seconds"
        )
        raise MetadataError(
            f"{where}: echo times {te_ms} ms are outside {1e3 * SHORTEST_TE:g} ... {1e3 * LONGEST_TE:g} ms; "
            f"they look like {mix_up}. Give the right ones with --te-ms."
        )
    if len(te) > 1 and np.all(te == te[0]):
        raise MetadataError(
            f"{where}: all {len(te)} echo times are {te_ms.split(',')[0]} ms. Some research sequences (GE EPI) store "
            "the shortest echo time on every image; give the real ones with --te-ms."
        )


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
