"""All a report says, as plain values; see `report`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

STATUS_MEANINGS = {
    "OK": "fitted; the value can be used",
    "NO_SIGNAL": "every measurement is zero, nothing to fit",
    "NOT_FINITE": "a measurement, or a value given for the voxel, is not a usable number",
    "NOT_CONVERGED": "the solver found no minimum",
    "AT_BOUND": "outside what these measurements can tell apart, such as a signal that does not change",
    "UNIDENTIFIABLE": "the measurements do not determine all parameters",
    "MASKED": "outside the mask, not fitted",
    "SATURATED": "fitted, but a stored value is at the top of its range: perhaps clipped, left out of all numbers here",
}


@dataclass(frozen=True)
class Varied:
    """What the measured images differ in.

    Attributes:
        quantity: its name, singular: "echo time".
        many: what the images are called: "echoes".
        symbol: before a value: "TE".
        unit: after it: "ms".
        values: (n,) in this unit.
    """

    quantity: str
    many: str
    symbol: str
    unit: str
    values: Sequence[float]


@dataclass(frozen=True)
class VoxelFits:
    """A few voxels as measured and as fitted.

    Attributes:
        measured: (voxel, n) [a.u.].
        curve_x: (point,) where the curves are given, in the unit of what varies.
        curves: (voxel, point) [a.u.].
        labels: (voxel,) words.
    """

    measured: np.ndarray
    curve_x: np.ndarray
    curves: np.ndarray
    labels: Sequence[str]


@dataclass(frozen=True)
class ReportInput:
    """All a report says.

    Attributes:
        title: headline.
        maps: BIDS suffix -> (x, y, z) map in SI units; "status", integer codes with 0 = OK, may be among them.
        affine: (4, 4) voxel index -> RAS+ [mm].
        varied: what the images differ in.
        status_names: code -> name.
        status_meanings: name -> what it means for the reader; names without one are shown bare.
        facts: label -> text, what is known of the series (never a patient's identity).
        regions: rows of a table under equal keys, e.g. each region's median and error against the truth.
        models: rows of a table likewise, the model that made the maps against a simpler one.
        timings: step -> seconds.
        warnings: what was mended or passed over in the input.
        command: how to run it again.
        versions: program -> version.
        voxel_fits: a few voxels to look at, or None.
        images: (x, y, z, n) measured images, or None to leave them out.
    """

    title: str
    maps: Mapping[str, np.ndarray]
    affine: np.ndarray
    varied: Varied
    status_names: Mapping[int, str]
    status_meanings: Mapping[str, str] = field(default_factory=lambda: STATUS_MEANINGS)
    facts: Mapping[str, str] = field(default_factory=dict)
    regions: Sequence[Mapping[str, object]] = ()
    models: Sequence[Mapping[str, object]] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    voxel_fits: VoxelFits | None = None
    images: np.ndarray | None = None
