"""Enhanced MR: one file of many frames, taken apart into headers that read like those of classic files.

What differs between frames stands in the Per-frame Functional Groups Sequence (5200,9230), what does not in the Shared
one (5200,9229). Source: DICOM PS3.3 A.36.2, C.7.6.16 and C.8.13.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage

from ...quantities import AXES, Axis
from .vendors import copy_philips_scale_slope

ENHANCED_MR = frozenset({EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage})

_OF_ALL_FRAMES = (
    "SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID",
    "SeriesNumber", "SeriesDescription", "Modality", "Manufacturer", "ManufacturerModelName", "MagneticFieldStrength",
    "MRAcquisitionType", "AcquisitionNumber", "ImageType", "ComplexImageComponent", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "SteadyStatePulseSequence", "DimensionIndexSequence", "ContrastBolusAgent", "ContrastBolusAgentSequence",
)  # fmt: skip


def _alike(*keywords: str) -> dict[str, str]:
    return {keyword: keyword for keyword in keywords}


# Functional group -> keyword in it -> keyword in a classic file; the first group that has it wins.
_GROUPS: Mapping[str, Mapping[str, str]] = {
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime", "EchoNumbers": "EchoNumbers"},
    "MRTimingAndRelatedParametersSequence": {"RepetitionTime": "RepetitionTime", "FlipAngle": "FlipAngle"},
    "MRModifierSequence": {
        "InversionTimes": "InversionTime",
        **_alike("MagnetizationTransfer", "ParallelAcquisitionTechnique", "ParallelReductionFactorInPlane"),
    },
    "MRFOVGeometrySequence": _alike("MRAcquisitionFrequencyEncodingSteps", "MRAcquisitionPhaseEncodingStepsInPlane"),
    "MRImagingModifierSequence": _alike("PixelBandwidth"),
    "MRReceiveCoilSequence": _alike("ReceiveCoilName"),
    "MRImageFrameTypeSequence": {"FrameType": "ImageType", "ComplexImageComponent": "ComplexImageComponent"},
    "FrameContentSequence": {
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "FrameAcquisitionNumber": "AcquisitionNumber",
        **_alike("DimensionIndexValues", "StackID", "InStackPositionNumber"),
    },
    "MRDiffusionSequence": _alike("DiffusionBValue"),
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
    "PlanePositionSequence": _alike("ImagePositionPatient"),
    "PlaneOrientationSequence": _alike("ImageOrientationPatient"),
    "PixelMeasuresSequence": _alike("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": _alike("RescaleSlope", "RescaleIntercept", "RescaleType"),
}
# Files made of classic ones keep here what has no place in a functional group, under its classic keyword; some programs
# leave it at the top.
_UNASSIGNED = ("UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")
_FROM_CLASSIC = (
    *(axis.keyword for axis in AXES.values() if axis.tag),
    "EchoNumbers", "RepetitionTime", "ScanningSequence", "SequenceVariant", "MRAcquisitionType", "AcquisitionNumber",
    "DiffusionBValue", "ReceiveCoilName", "ContrastBolusAgent", "ImageType", "TemporalPositionIdentifier",
    "TriggerTime", "RescaleSlope", "RescaleIntercept", "RescaleType",
)  # fmt: skip
_SCALES = ("RealWorldValueMappingSequence", "ModalityLUTSequence")
_PLACEHOLDER = 1e300  # Philips writes 1.8e308 for what it does not know
_SEQUENCE_KINDS = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}  # Echo Pulse Sequence -> classic keyword
TAGS = {  # of the classic keyword -> where an Enhanced file has it
    "EchoTime": "EffectiveEchoTime (0018,9082) of MREchoSequence (0018,9114)",
    "InversionTime": "InversionTimes (0018,9079) of MRModifierSequence (0018,9115)",
    "FlipAngle": "FlipAngle (0018,1314) of MRTimingAndRelatedParametersSequence (0018,9112)",
}

DIMENSION_INDEX = "DimensionIndexValues (0020,9157)"
_AXIS_KEYWORDS = {  # of the classic keyword -> what a dimension may point to
    "EchoTime": {"EffectiveEchoTime", "MREchoSequence", "EchoTime", "EchoNumbers"},
    "InversionTime": {"InversionTimes", "InversionTime"},
    "FlipAngle": {"FlipAngle"},
}
_IN_SPACE = {"StackID", "InStackPositionNumber", "ImagePositionPatient", "PlanePositionSequence"}
_LARGEST_INDEX = 1000  # in a number made of several indices, which a float holds exactly


def is_enhanced(dataset: Dataset) -> bool:
    """Whether it is an Enhanced MR file, or a header of `frame_headers`."""
    return UID(str(dataset.get("SOPClassUID") or "")) in ENHANCED_MR


def frame_headers(dataset: Dataset) -> Iterator[Dataset]:
    """For each frame of an Enhanced file a header under the keywords of classic files, without pixels.

    What a frame says itself goes before what is said for all. SOP Instance UID and Instance Number are made different
    for every frame, so that their order is that of acquisition.
    """
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    common = Dataset()
    for keyword in _OF_ALL_FRAMES:
        _copy(dataset, keyword, common)
    _add_groups(dataset, common)
    for keywords in _GROUPS.values():
        for keyword, classic in keywords.items():
            _copy(dataset, keyword, common, classic)
    for keyword in _FROM_CLASSIC:
        _copy(dataset, keyword, common)
    if words := _SEQUENCE_KINDS.get(str(dataset.get("EchoPulseSequence"))):
        _set(common, "ScanningSequence", "CS", words)
    _add_groups(_first(dataset.get("SharedFunctionalGroupsSequence")), common)
    n_before = max(int(dataset.get("InstanceNumber") or 1) - 1, 0) * len(frames)
    for i, groups in enumerate(frames, start=1):
        header = Dataset()
        header.update(common)
        _add_groups(groups, header)
        _set(header, "SOPInstanceUID", "UI", f"{dataset.get('SOPInstanceUID', '')}.{i}")
        _set(header, "InstanceNumber", "UL", n_before + i)
        yield header


def dimension_indices(header: Dataset) -> dict[str, int]:
    """What the dimensions of a file point to -> a frame's Dimension Index Value along it; by it frames are ordered."""
    pointers = [item.get("DimensionIndexPointer") or 0 for item in header.get("DimensionIndexSequence") or ()]
    values = header.get("DimensionIndexValues", ())
    values = values if isinstance(values, MultiValue | list) else [values]
    return {keyword_for_tag(p) or str(p): int(i) for p, i in zip(pointers, values, strict=False)}


def index_along(header: Dataset, axis: Axis) -> int | None:
    """The index of a frame along the dimension that is an axis or, where none is, along all that are not in space."""
    found = dimension_indices(header)
    along = [index for keyword, index in found.items() if keyword in _AXIS_KEYWORDS.get(axis.keyword, ())]
    others = along[:1] or [index for keyword, index in found.items() if keyword not in _IN_SPACE]
    if not others or max(others) >= _LARGEST_INDEX or len(others) > 5:
        return None
    return sum(index * _LARGEST_INDEX**k for k, index in enumerate(reversed(others)))


def is_dimension(header: Dataset, axis: Axis) -> bool:
    """Whether one of the dimensions of its file is an axis."""
    return any(keyword in _AXIS_KEYWORDS.get(axis.keyword, ()) for keyword in dimension_indices(header))


def _add_groups(groups: Dataset, header: Dataset) -> None:
    for sequence, keywords in _GROUPS.items():
        item = _first(groups.get(sequence))
        for keyword, classic in keywords.items():
            _copy(item, keyword, header, classic)
    for sequence in _UNASSIGNED:
        item = _first(groups.get(sequence))
        for keyword in _FROM_CLASSIC:
            _copy(item, keyword, header)
    for keyword in _SCALES:
        _copy(groups, keyword, header)
    copy_philips_scale_slope(groups, header)


def _copy(source: Dataset, keyword: str, header: Dataset, classic: str = "") -> None:
    if keyword not in source:
        return
    element = source[keyword]
    value = element.value
    if element.VR == "FD":
        several = list(value) if isinstance(value, MultiValue | list) else [value]
        known = [number for number in several if number is not None and abs(number) < _PLACEHOLDER]
        value = known[0] if len(known) == 1 else known or None
    if value not in (None, ""):
        _set(header, classic or keyword, element.VR, value)


def _set(header: Dataset, keyword: str, vr: str, value: Any) -> None:
    """Always a new element: those of `common` belong to all frames. The value is taken as it is."""
    header[keyword] = DataElement(keyword, vr, value, already_converted=True)


def _first(sequence: Any) -> Dataset:
    """The one item of a functional group; empty where it is missing."""
    return sequence[0] if isinstance(sequence, Sequence) and sequence else Dataset()
