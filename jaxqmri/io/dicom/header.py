"""What the header of one DICOM image, under classic keywords, says: its kind, its echo time or the like, its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, MRImageStorage

from ...errors import CorruptInputError, Give, MetadataError
from ...quantities import AXES, ECHO_TIME, Axis
from ..axis import check_axis_values
from ..candidates import Image, number, words
from ..scale import AS_STORED, Line
from . import vendors
from .enhanced import DIMENSION_INDEX, ENHANCED_MR, TAGS, index_along, is_dimension, is_enhanced
from .scale import Scale, read_scales, unit_of

DICOMDIR = "DICOMDIR index"
MOSAIC = "mosaic of slices"
MULTIFRAME = "several frames in one classic MR file"
LOCALIZER = "localizer"
DERIVED_MAP = "map derived by the scanner"
UNPLACED = "no place in space"
PLACE = "ImagePositionPatient (0020,0032), ImageOrientationPatient (0020,0037) or PixelSpacing (0028,0030)"
SMALLEST, FARTHEST = 1e-3, 1e4  # mm; of what a scanner images

# Used after the scan as well; pydicom converts a value, and finds it damaged, only when it is asked for.
_USED_LATER = (
    "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "Manufacturer", "ManufacturerModelName",
    "MagneticFieldStrength", "MRAcquisitionType", "ScanningSequence", "RepetitionTime", "SliceThickness",
    "SpacingBetweenSlices", "AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime", "EchoNumbers",
    "SequenceName", "PulseSequenceName", "SequenceVariant", "DiffusionBValue", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "ReceiveCoilName", "MagnetizationTransfer", "SteadyStatePulseSequence", "PixelBandwidth",
    "AcquisitionMatrix", "ParallelAcquisitionTechnique", "ParallelReductionFactorInPlane", "PhotometricInterpretation",
    "ContrastBolusAgent",
    *(axis.keyword for axis in AXES.values() if axis.tag),
)  # fmt: skip
_INDEX = "PALETTE COLOR"  # pixels are places in a table of colours
_DICOMDIR_UID = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame(Image):
    """One stored 2-D image: what its header says, and where its pixels are."""

    time_unit = 1e-3
    dataset: Dataset  # its header, under the keywords of classic files
    file: Dataset  # the parsed file that holds it; its pixels stay on disk until they are asked for
    index: int  # which frame of the file it is, from 0
    shape: tuple[int, int]  # rows, columns
    position: np.ndarray  # (3,) centre of the first pixel, LPS+ [mm]
    orientation: np.ndarray  # (6,) unit vectors along a row and along a column, LPS+
    pixel_spacing: tuple[float, float]  # distance between rows, between columns [mm]
    is_philips: bool
    scales: Mapping[str, Scale]  # all that it states, see `scale.common_scale`; slope and intercept are those of one
    instance_number: int | None
    series_number: int | None

    def header(self, keyword: str) -> Any:
        return self.dataset.get(keyword)

    def where(self, axis: Axis) -> str:
        return TAGS.get(axis.keyword, axis.where) if is_enhanced(self.dataset) else axis.where

    def numbers(self, axis: Axis) -> dict[str, int]:
        echo = as_int(self.header("EchoNumbers")) if axis is ECHO_TIME else None
        index = index_along(self.dataset, axis) if is_dimension(self.dataset, axis) else None
        found = {"EchoNumbers (0018,0086)": echo, DIMENSION_INDEX: index}
        return {where: number for where, number in found.items() if number is not None}

    @property
    def wrap(self) -> float:
        n_bits, signed = (as_int(self.header(key)) or 0 for key in ("BitsStored", "PixelRepresentation"))
        could = signed and n_bits == as_int(self.header("BitsAllocated")) and self.slope > 0 and not self.scale_slope
        one_scale = all(scale == (self.slope, 0.0) for scale in self.scales.values())
        return self.slope * 2.0**n_bits if could and one_scale else 0.0

    def value_of(self, axis: Axis) -> float:
        where = f"{self.name}, {self.where(axis)}" if axis.tag else f"{self.name}: DICOM has no {axis.term}"
        remedy = (f"{axis.use}; ", Give(axis.name, f"the {axis.terms}"), ".")
        value = self.dataset.get(axis.keyword) if axis.tag else None
        if value is None or (isinstance(value, str) and not value.strip()):
            raise MetadataError(f"{where}: missing or empty; ", *remedy)
        if isinstance(value, Sequence) and not isinstance(value, str):
            raise MetadataError(f"{where}: {len(value)} values where one is wanted; ", *remedy)
        try:
            in_si = axis.from_shown(float(value))
        except (TypeError, ValueError) as error:
            raise MetadataError(f"{where}: {str(value)[:20]!r} is not a number; ", *remedy) from error
        check_axis_values(axis, np.array([in_si]), where)
        return in_si

    def order(self, axis: Axis, *, of_several_series: bool) -> Sequence[tuple[str, float | None]]:
        if of_several_series:
            return [("SeriesNumber (0020,0011)", self.series_number)]
        of_echo = [("EchoNumbers (0018,0086)", as_int(self.header("EchoNumbers")))] if axis is ECHO_TIME else []
        # The order of frames in a file means nothing.
        indices = [(DIMENSION_INDEX, index_along(self.dataset, axis))]
        return [
            *of_echo, *(indices if is_enhanced(self.dataset) else []),
            ("InstanceNumber (0020,0013)", self.instance_number),
        ]  # fmt: skip


def _reason_to_skip(dataset: Dataset) -> str | None:
    """Why this object is not a single MR image to be fitted, or None if it is one."""
    sop_class = sop_class_uid(dataset)
    if sop_class == _DICOMDIR_UID:
        return DICOMDIR
    if sop_class != MRImageStorage and sop_class not in ENHANCED_MR:
        return f"not an MR image ({sop_class.name})"
    image_type = words(dataset.get("ImageType"))
    if vendors.is_siemens_mosaic(image_type):
        return MOSAIC
    if (as_int(dataset.get("NumberOfFrames")) or 1) > 1:
        return MULTIFRAME
    if (as_int(dataset.get("SamplesPerPixel")) or 1) > 1 or dataset.get("PhotometricInterpretation") == _INDEX:
        return "colour picture"
    if "LOCALIZER" in image_type:
        return LOCALIZER
    return DERIVED_MAP if vendors.is_map(image_type, unit_of(dataset), is_enhanced(dataset)) else None


def read_frame(dataset: Dataset, name: str, file: Dataset | None = None, index: int = 0) -> Frame | str:
    """The header facts of one MR image, or why it is passed over.

    `file` holds its pixels where that is not `dataset`. pydicom may raise anything for a value its type does not allow.
    """
    if reason := _reason_to_skip(dataset):
        return reason
    for keyword in _USED_LATER:
        dataset.get(keyword)
    file = dataset if file is None else file
    rows, columns = as_int(dataset.get("Rows")), as_int(dataset.get("Columns"))
    if "PixelData" not in file or not rows or not columns:
        raise CorruptInputError(
            f"{name}: no pixels (7FE0,0010); the file is probably cut short. Copy it again or take it out."
        )
    position = _numbers(dataset.get("ImagePositionPatient"), 3)
    orientation = _numbers(dataset.get("ImageOrientationPatient"), 6)
    spacing = _numbers(dataset.get("PixelSpacing"), 2)
    if position is None or orientation is None or spacing is None:
        return UNPLACED
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    oblique = abs(orientation[:3] @ orientation[3:])
    if np.any(np.abs(lengths - 1) > 0.01) or oblique > 0.01 or np.any(np.abs(position) > FARTHEST):
        return UNPLACED
    if np.any(spacing < SMALLEST) or np.any(spacing > FARTHEST):
        return UNPLACED
    image_type = words(dataset.get("ImageType"))
    scales = read_scales(dataset)
    line = next((scale for scale in scales.values() if isinstance(scale, Line)), AS_STORED)
    return Frame(
        name=name,
        uid=str(dataset.get("SOPInstanceUID")),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        series_number=as_int(dataset.get("SeriesNumber")),
        description=" ".join(str(dataset.get("SeriesDescription") or "").split()),
        component=vendors.ge_component(dataset) or vendors.component_by_name(dataset, image_type) or "magnitude",
        derived="DERIVED" in image_type[:1],
        is_philips=vendors.is_philips(dataset),
        scales=scales,
        slope=line.slope,
        intercept=line.intercept,
        scale_slope=vendors.philips_scale_slope(dataset),
        unit=unit_of(dataset),
        dataset=dataset,
        file=file,
        index=index,
        shape=(rows, columns),
        position=position,
        orientation=(orientation.reshape(2, 3) / lengths[:, None]).ravel(),
        pixel_spacing=(float(spacing[0]), float(spacing[1])),
        instance_number=as_int(dataset.get("InstanceNumber")),
    )


def sop_class_uid(dataset: Dataset) -> UID:
    """SOP Class UID (0008,0016), from the file meta information where the data set has lost it."""
    meta = getattr(dataset, "file_meta", None) or Dataset()
    return UID(str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""))


def as_int(value: Any) -> int | None:
    """The (first) number in a DICOM value without its fraction, or None."""
    found = number(value)
    return None if found is None else int(found)


def _numbers(value: Any, n: int) -> np.ndarray | None:
    """(n,) float64, or None unless there are exactly n finite numbers."""
    try:
        numbers = np.array([float(v) for v in value])
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (n,) and np.all(np.isfinite(numbers)) else None
