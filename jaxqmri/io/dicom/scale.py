"""How stored values become image values, by whichever scale all images of one fit state.

Rescale Slope and Intercept, a Modality LUT (DICOM PS3.3 C.11.1) or a Real World Value Mapping (C.7.6.16.2.11); Philips'
scale slope beside them (Chenevert et al., Transl Oncol 7:65, 2014). Images scaled each on its own, of which one does
not say how, would make a curve of their scales.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from ...errors import CorruptInputError, remark
from ..candidates import number
from . import vendors

if TYPE_CHECKING:
    from .header import Frame

RESCALE = "RescaleSlope (0028,1053)"
TABLE = "ModalityLUTSequence (0028,3000)"
REAL_WORLD = "RealWorldValueMappingSequence (0040,9096)"
_NO_SCALE = ("", "US")  # Rescale Types that say nothing
_FACTORS = (1e-30, 1e30)  # float32 holds images scaled by less than these
_ROUNDING = 1e-4  # relative; DS values have 16 letters, and FD values beside them were rounded to them


class Line(NamedTuple):
    """Image value = slope * stored + intercept; NaN where a header has a number that cannot be used."""

    slope: float
    intercept: float

    @property
    def is_usable(self) -> bool:
        return _FACTORS[0] < abs(self.slope) < _FACTORS[1] and abs(self.intercept) < _FACTORS[1]

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        return stored * self.slope + self.intercept

    def times(self, other: "Scale") -> float | None:
        """By what factor another scale differs; None: by more than a factor."""
        if not isinstance(other, Line):
            return None
        factor = other.slope / self.slope
        tolerance = _ROUNDING * max(abs(other.intercept), abs(other.slope))
        return factor if abs(other.intercept - factor * self.intercept) <= tolerance else None


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
AS_STORED = Line(1.0, 0.0)


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


class CommonScale(NamedTuple):
    """The scale that all images of one fit have."""

    name: str  # where they state it; "": nowhere, values are as stored
    is_floating_point: bool  # whether displayed values become Philips' floating-point values

    def of(self, frame: "Frame") -> Scale:
        """The scale of one image before `unit`."""
        return frame.scales.get(self.name, AS_STORED)

    def unit(self, frame: "Frame") -> float:
        """Displayed values in one value of the image: FP = DV / (RS * SS)."""
        scale = self.of(frame)
        slope = scale.slope if isinstance(scale, Line) else 1.0
        return slope * (frame.scale_slope or 1.0) if self.is_floating_point else 1.0

    def __call__(self, frame: "Frame", stored: np.ndarray) -> np.ndarray:
        """(row, column) float64 image values, which keep any integer exact until the one rounding to float32."""
        return self.of(frame)(stored) / self.unit(frame)


def common_scale(frames: Sequence["Frame"]) -> CommonScale:
    """The scale of the images of one fit; raises CorruptInputError where they have none in common."""
    for frame in frames:
        for name, scale in frame.scales.items():
            if not scale.is_usable:
                given = f" (slope {scale.slope:g}, intercept {scale.intercept:g})" if isinstance(scale, Line) else ""
                raise CorruptInputError(
                    f"{frame.name}: {name} gives its pixels no scale{given}; export the series again."
                )
    with_slope = [frame for frame in frames if frame.scale_slope]
    if len(with_slope) == len(frames):
        is_rescaled = any(RESCALE in frame.scales for frame in frames)
        return CommonScale(RESCALE if is_rescaled else _common_name(frames), is_floating_point=True)
    name = _common_name(frames)
    differ = len({(frame.slope, frame.intercept) for frame in frames}) > 1
    if with_slope and (differ or len({frame.scale_slope for frame in with_slope}) > 1):
        without = next(frame for frame in frames if not frame.scale_slope)
        raise CorruptInputError(
            f"{without.name} lacks Philips' scale slope (2005,100E), which {with_slope[0].name} has, so that their "
            "values cannot be compared; export the series again with all private tags."
        )
    is_philips = vendors.is_philips(frames[0].dataset)
    is_blanked = not frames[0].file.get("Manufacturer", "unstated")
    if differ and (is_philips or is_blanked):
        if is_philips and len({frame.series_uid for frame in frames}) > 1:
            raise CorruptInputError(
                "Philips images of several series with different rescale slopes lack the scale slope (2005,100E), so "
                "that their values cannot be compared; export the series without removing private tags."
            )
        made_by = "Philips images" if is_philips else "images whose Manufacturer (0008,0070) is blanked"
        remark(
            f"{made_by} with different rescale slopes lack the scale slope (2005,100E): displayed values are used and "
            "may not be comparable between echoes; export the series without removing private tags."
        )
    return CommonScale(name, is_floating_point=False)


def _common_name(frames: Sequence["Frame"]) -> str:
    """Where the scale is that all state; real-world values go before a rescale that is the same in all of them."""
    names = [name for name in (RESCALE, TABLE, REAL_WORLD) if any(name in frame.scales for frame in frames)]
    of_all = [name for name in names if all(name in frame.scales for frame in frames)]
    if not of_all:
        stating = next((f for f in frames for scale in f.scales.values() if scale != AS_STORED), None)
        if stating is None:
            return ""
        name = next(name for name, scale in stating.scales.items() if scale != AS_STORED)
        silent = next(frame for frame in frames if name not in frame.scales)
        raise _no_common_scale(f"{stating.name} states its scale in {name}, {silent.name} does not")
    chosen = of_all[0]
    for name in names:
        both = [frame for frame in frames if name in frame.scales and chosen in frame.scales]
        factors = [_factor(frame.scales[chosen], frame.scales[name]) for frame in both]
        agree = None not in factors and np.ptp(factors) <= _ROUNDING * abs(factors[0] or 1.0)
        if agree and (name in of_all or abs((factors[0] or 0.0) - 1) <= _ROUNDING):
            continue
        if name in of_all and len({frame.scales[chosen] for frame in frames}) == 1 and frames[0].component != "phase":
            chosen = name
            continue
        raise _no_common_scale(f"{both[0].name} states its scale in {chosen} and in {name}, which disagree")
    return chosen


def _factor(one: Scale, other: Scale) -> Any:
    return one.times(other) if isinstance(one, Line) else 1.0 if one == other else None


def _no_common_scale(why: str) -> CorruptInputError:
    return CorruptInputError(
        f"{why}, so that the values of these images cannot be compared; export the series again, all images alike."
    )


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
