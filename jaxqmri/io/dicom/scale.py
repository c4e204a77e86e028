"""How stored values become image values: what one header states of it.

Rescale Slope and Intercept, a Modality LUT (DICOM PS3.3 C.11.1) or a Real World Value Mapping (C.7.6.16.2.11); Philips'
scale slope beside them (Chenevert et al., Transl Oncol 7:65, 2014).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from ..candidates import number
from ..scale import Line

RESCALE = "RescaleSlope (0028,1053)"
TABLE = "ModalityLUTSequence (0028,3000)"
REAL_WORLD = "RealWorldValueMappingSequence (0040,9096)"
_NO_SCALE = ("", "US")  # Rescale Types that say nothing


class Table(NamedTuple):
    """The image value of each stored value from `first` on; those outside have the value at that end."""

    first: float
    values: tuple[float, ...]

    @property
    def is_usable(self) -> bool:
        return bool(self.values) and bool(np.all(np.isfinite(self.values)))

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        place = np.clip(np.asarray(stored, np.int64) - int(self.first), 0, len(self.values) - 1)
        return np.array(self.values, np.float64)[place]


Scale = Line | Table


def read_scales(dataset: Dataset) -> dict[str, Scale]:
    """What a header, under classic keywords, states of its scale, by where it does."""
    found: dict[str, Scale] = {}
    slope, intercept = (_stated(dataset.get(keyword)) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is not None or intercept is not None:
        found[RESCALE] = Line(1.0 if slope is None else slope, intercept or 0.0)
    if dataset.get("ModalityLUTSequence"):
        found[TABLE] = _modality_lut(dataset)
    mappings = {scale for scale in map(_real_world, dataset.get("RealWorldValueMappingSequence") or ()) if scale}
    is_stated = bool(mappings)
    real_world = mappings.pop() if len(mappings) == 1 else Line(np.nan, np.nan)
    if real_world.is_usable or (is_stated and not found):  # else there is another scale
        found[REAL_WORLD] = real_world
    return found


def unit_of(dataset: Dataset) -> str:
    """Rescale Type (0028,1054) or, where that says nothing, the unit of real-world values."""
    stated = str(dataset.get("RescaleType") or "")
    mappings = dataset.get("RealWorldValueMappingSequence") or ()
    units = [str(unit) for unit in map(_unit, mappings) if unit]
    return units[0] if units and stated.upper() in _NO_SCALE else stated


def _stated(value: Any) -> float | None:
    """A number, NaN where there is one that cannot be used, None where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    several = isinstance(value, Sequence) and not isinstance(value, str)
    if several and not value:
        return None
    found = None if several and len(value) > 1 else number(value)
    return np.nan if found is None else found


def _modality_lut(dataset: Dataset) -> Scale:
    """Its table; without entries where it cannot be used."""
    try:
        n, first, _ = (int(value) for value in dataset.ModalityLUTSequence[0].LUTDescriptor)
        entries = np.arange(n or 2**16) + first
        return Table(first, tuple(apply_modality_lut(entries, dataset).astype(np.float64).tolist()))
    except Exception:  # whatever pydicom makes of values that their types do not allow
        return Table(0, ())


def _real_world(mapping: Dataset) -> Scale | None:
    """The scale that one item states, if it states any."""
    if data := mapping.get("RealWorldValueLUTData"):
        first = _stated(mapping.get("RealWorldValueFirstValueMapped"))
        values = data if isinstance(data, Sequence) else [data]
        return Table(np.nan_to_num(first or 0.0), tuple(map(float, values)))
    slope, intercept = (_stated(mapping.get(f"RealWorldValue{part}")) for part in ("Slope", "Intercept"))
    return None if slope is None else Line(slope, intercept or 0.0)


def _unit(mapping: Mapping[str, Any] | Dataset) -> str:
    codes = mapping.get("MeasurementUnitsCodeSequence")
    return str(codes[0].get("CodeValue") or "") if codes else ""
