"""What the header of one DICOM image says: what kind it is, its echo time or the like, and where it lies.

Enhanced MR comes here frame by frame, under the keywords of classic files; see `dicom_enhanced`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, MRImageStorage

from ...errors import CorruptInputError, MetadataError
from ...quantities import ECHO_TIME, Axis
from ..axis import check_axis_values
from ..phase import radians_per_unit
from .enhanced import ENHANCED_MR, is_enhanced, where_in_enhanced

DICOMDIR = "DICOMDIR index"
MOSAIC = "mosaic of slices"
MULTIFRAME = "several frames in one classic MR file"
LOCALIZER = "localizer"
DERIVED_MAP = "map derived by the scanner"
UNPLACED = "no place in space"

# Used after the scan as well; pydicom converts a value, and finds it damaged, only when it is asked for.
_USED_LATER = (
    "SOPInstanceUID",
    "PatientID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "SeriesDescription",
    "Manufacturer",
    "ManufacturerModelName",
    "MagneticFieldStrength",
    "MRAcquisitionType",
    "ScanningSequence",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "SliceThickness",
    "SpacingBetweenSlices",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "RescaleSlope",
    "RescaleIntercept",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
_DICOMDIR_UID = "1.2.840.10008.1.3.10"
_GE_COMPONENT = {0: "magnitude", 1: "phase", 2: "real", 3: "imaginary"}
_COMPONENT_NAMES = {
    "magnitude": re.compile(r"M|M_.+|MAGNITUDE"),
    "phase": re.compile(r"P|P_.+|PHASE( MAP)?|VELOCITY( MAP)?"),
    "real": re.compile(r"R|R_.+|REAL"),
    "imaginary": re.compile(r"I|I_.+|IMAGINARY"),
}
# A weighting as well as a map; Enhanced MR has the weighting in value 3 of its frame type.
_QUANTITY = re.compile(r"([TR][12]([ _]?(\*|STAR|RHO))?|FA|PD|RHO)(MAP)?")
_MAP = re.compile(r"(?!PHASE|VELOCITY).+[ _]MAP|[TR][12]([ _]?(STAR|RHO))?MAP|B[01](MAP)?|ADC(MAP)?|FIELDMAP(HZ)?")
_QUANTITY_UNITS = {"MS", "HZ", "1/S", "S-1"}  # Rescale Type of a map; images carry US or nothing


@dataclass(frozen=True, eq=False)
class Frame:
    """One stored 2-D image: what its header says, and where its pixels are.

    Attributes:
        dataset: its header, under the keywords of classic files.
        name: file name without folders, and the number of the frame, for messages.
        file: the parsed file that holds it; its pixels stay on disk until they are asked for.
        index: which frame of the file it is, from 0.
        series_uid: Series Instance UID (0020,000E).
        component: "magnitude", "phase", "real" or "imaginary"; magnitude where the file does not say.
        derived: computed from other images (Image Type value 1), not measured.
        shape: rows, columns.
        position: (3,) centre of the first pixel, LPS+ [mm].
        orientation: (6,) unit vectors along a row and along a column, LPS+.
        pixel_spacing: distance between rows, between columns [mm].
        axis: what is to vary between images: echo time, inversion time or flip angle.
        value: what this image has of it [s] or [rad], or NaN.
        value_error: why the header has no usable value.
        echo_number: Echo Number(s) (0018,0086).
        instance_number: Instance Number (0020,0013).
        series_number: Series Number (0020,0011).
    """

    dataset: Dataset
    name: str
    file: Dataset
    index: int
    series_uid: str
    component: str
    derived: bool
    shape: tuple[int, int]
    position: np.ndarray
    orientation: np.ndarray
    pixel_spacing: tuple[float, float]
    axis: Axis
    value: float
    value_error: MetadataError | None
    echo_number: int | None
    instance_number: int | None
    series_number: int | None


def reason_to_skip(dataset: Dataset) -> str | None:
    """Why this object is not a single MR image to be fitted, or None if it is one."""
    sop_class = sop_class_uid(dataset)
    if sop_class == _DICOMDIR_UID:
        return DICOMDIR
    if sop_class != MRImageStorage and sop_class not in ENHANCED_MR:
        return f"not an MR image ({sop_class.name})"
    kind = image_type(dataset)
    if "MOSAIC" in kind:
        return MOSAIC
    if (as_int(dataset.get("NumberOfFrames")) or 1) > 1:
        return MULTIFRAME
    if (as_int(dataset.get("SamplesPerPixel")) or 1) > 1:
        return "colour picture"
    if "LOCALIZER" in kind:
        return LOCALIZER
    if _is_map(kind, str(dataset.get("RescaleType") or "").upper(), enhanced=is_enhanced(dataset)):
        return DERIVED_MAP
    return None


def read_frame(
    dataset: Dataset, name: str, axis: Axis = ECHO_TIME, file: Dataset | None = None, index: int = 0
) -> Frame | None:
    """The header facts of one MR image, `axis` varying; None if it does not say where it lies.

    Args:
        dataset: its header, under the keywords of classic files.
        name: for messages.
        axis: what is to vary.
        file: the file that holds its pixels, where that is not `dataset`.
        index: which frame of that file it is, from 0.

    Raises:
        CorruptInputError: the file ends before its pixels.
        Exception: whatever pydicom makes of a value that its type does not allow.
    """
    for keyword in _USED_LATER:
        dataset.get(keyword)
    philips_scale_slope(dataset)
    file = dataset if file is None else file
    rows, columns = as_int(dataset.get("Rows")), as_int(dataset.get("Columns"))
    if "PixelData" not in file or not rows or not columns:
        raise CorruptInputError(
            f"{name}: no pixels (7FE0,0010); the file is probably cut short. Copy it again or take it out."
        )
    position = _numbers(dataset.get("ImagePositionPatient"), 3)
    orientation = _numbers(dataset.get("ImageOrientationPatient"), 6)
    spacing = _numbers(dataset.get("PixelSpacing"), 2)
    if position is None or orientation is None or spacing is None or np.any(spacing <= 0):
        return None
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    if np.any(np.abs(lengths - 1) > 0.01):
        return None
    value, value_error = axis_value(dataset, name, axis)
    kind = image_type(dataset)
    return Frame(
        dataset=dataset,
        name=name,
        file=file,
        index=index,
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        component=_component(dataset, kind),
        derived="DERIVED" in kind[:1],
        shape=(rows, columns),
        position=position,
        orientation=(orientation.reshape(2, 3) / lengths[:, None]).ravel(),
        pixel_spacing=(float(spacing[0]), float(spacing[1])),
        axis=axis,
        value=value,
        value_error=value_error,
        echo_number=as_int(dataset.get("EchoNumbers")),
        instance_number=as_int(dataset.get("InstanceNumber")),
        series_number=as_int(dataset.get("SeriesNumber")),
    )


def axis_value(dataset: Dataset, name: str, axis: Axis) -> tuple[float, MetadataError | None]:
    """Echo time, inversion time [s] or flip angle [rad], or NaN and why not; `name` is that of the file."""
    where = f"{name}, {axis_where(dataset, axis)}"
    value = dataset.get(axis.keyword)
    remedy = f"{axis.use}; give the {axis.terms} with {axis.option} ({axis.name}= in Python)."
    if value is None or (isinstance(value, str) and not value.strip()):
        return np.nan, MetadataError(f"{where}: missing or empty; {remedy}")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return np.nan, MetadataError(f"{where}: {len(value)} values where one is wanted; {remedy}")
    try:
        in_si = axis.from_shown(float(value))
        check_axis_values(axis, np.array([in_si]), where)
    except ValueError as error:
        if isinstance(error, MetadataError):
            return np.nan, error
        return np.nan, MetadataError(f"{where}: {str(value)[:20]!r} is not a number; {remedy}")
    return in_si, None


def axis_where(dataset: Dataset, axis: Axis) -> str:
    """Where a file of this kind has what varies, for messages."""
    return where_in_enhanced(axis.keyword) if is_enhanced(dataset) else axis.where


def along(frame: Frame, axis: Axis) -> Frame:
    """The same image where something else is to vary."""
    value, value_error = axis_value(frame.dataset, frame.name, axis)
    return replace(frame, axis=axis, value=value, value_error=value_error)


def sop_class_uid(dataset: Dataset) -> UID:
    """SOP Class UID (0008,0016), from the file meta information where the data set has lost it."""
    meta = getattr(dataset, "file_meta", None) or Dataset()
    return UID(str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""))


def image_type(dataset: Dataset) -> tuple[str, ...]:
    """Image Type (0008,0008), upper case."""
    value = dataset.get("ImageType") or ()
    return tuple(str(v).strip().upper() for v in ([value] if isinstance(value, str) else value))


def is_philips(dataset: Dataset) -> bool:
    """Whether a scanner of Philips made it, by Manufacturer (0008,0070)."""
    return str(dataset.get("Manufacturer") or "").upper().startswith("PHILIPS")


def rescale(dataset: Dataset) -> tuple[float, float]:
    """Slope and intercept (0028,1053), (0028,1052) from stored to displayed values; 1 and 0 where absent."""
    slope, intercept = as_float(dataset.get("RescaleSlope")), as_float(dataset.get("RescaleIntercept"))
    return (1.0 if slope is None else slope), (0.0 if intercept is None else intercept)


def radians_per_displayed(dataset: Dataset) -> float | None:
    """Angle per displayed value of a phase image [rad], or None where the header does not declare it."""
    return radians_per_unit(*rescale(dataset), str(dataset.get("RescaleType") or ""))


def philips_scale_slope(dataset: Dataset) -> float | None:
    """Philips' private (2005,100E): displayed value / (Rescale Slope * this) is comparable between images."""
    if not is_philips(dataset):
        return None
    value = _private(dataset, 0x2005, "Philips MR Imaging DD 001", 0x0E, "<f4")
    return value if value is not None and np.isfinite(value) and value > 0 else None


def as_int(value: Any) -> int | None:
    """The (first) number in a DICOM value without its fraction, or None; see `as_float`."""
    number = as_float(value)
    return None if number is None else int(number)


def as_float(value: Any) -> float | None:
    """The (first) number in a DICOM value, or None; pydicom hands text that is no number through as it is."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _component(dataset: Dataset, kind: tuple[str, ...]) -> str:
    """Magnitude, phase, real or imaginary; the vendors put it in different places."""
    if str(dataset.get("Manufacturer") or "").upper().startswith("GE"):
        code = _private(dataset, 0x0043, "GEMS_PARM_01", 0x2F, "<i2")
        if code in _GE_COMPONENT:
            return _GE_COMPONENT[int(code)]
    named = [str(dataset.get("ComplexImageComponent") or "").upper(), *kind[2:4]]  # Philips: 'PHASE MAP', 'P'
    for token in named:
        for component, pattern in _COMPONENT_NAMES.items():
            if pattern.fullmatch(token):
                return component
    return "magnitude"


def _is_map(kind: tuple[str, ...], rescale_type: str, enhanced: bool) -> bool:
    """A map of a physical quantity: fitting it as an image would give nonsense with good error bars."""
    if rescale_type in _QUANTITY_UNITS or any(_MAP.fullmatch(token) for token in kind[2:]):
        return True
    return "DERIVED" in kind[:1] and any(_QUANTITY.fullmatch(token) for token in kind[3 if enhanced else 2 :])


def _private(dataset: Dataset, group: int, creator: str, offset: int, raw_type: str) -> float | None:
    """A vendor's number; raw bytes where implicit VR files left its type open.

    Anonymisers drop the creator element and keep the value, so the customary block 0x10 is tried as well.
    """
    try:
        value = dataset.private_block(group, creator)[offset].value
    except KeyError:
        element = dataset.get((group, 0x1000 + offset))
        value = None if element is None else element.value
    if isinstance(value, bytes):
        n_bytes = np.dtype(raw_type).itemsize
        return float(np.frombuffer(value[:n_bytes], raw_type)[0]) if len(value) >= n_bytes else None
    return as_float(value)


def _numbers(value: Any, n: int) -> np.ndarray | None:
    """(n,) float64, or None unless there are exactly n finite numbers."""
    try:
        numbers = np.array([float(v) for v in value])
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (n,) and np.all(np.isfinite(numbers)) else None
