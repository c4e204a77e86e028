"""Maps as DICOM Parametric Map objects (PS3.3 A.75), which archives and viewers of a hospital can take.

Voxels without an answer are NaN, which Float Pixel Data may hold (PS3.5 section 8.2) and Float Pixel Padding Value
declares (PS3.3 C.7.6.24). Codes are no quantities and have no such object.
"""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import MRImageStorage, generate_uid

from ... import __version__
from ...errors import CorruptInputError, LeaveOut
from ...quantities import map_kind
from ..series import ImageSeries
from ..storage.atomic import write_files
from .identity import DicomIdentity

_RIGHT_ANGLE = 1e-4  # cosine; what float32 affines of NIfTI files miss it by is below 1e-6
_UCUM = {  # units in the words of BIDS -> code, meaning
    "s": ("s", "second"),
    "1/s": ("/s", "per second"),
    "arbitrary": ("[arb'U]", "arbitrary unit"),
    "relative": ("1", "no units"),
    "1": ("1", "no units"),
}
_DERIVATION = Code("121401", "DCM", "Derivation")
_STANDARD_ERROR = Code("STDERR", "99JAXQMRI", "Standard error")
_ACQUISITION = Code("109101", "DCM", "Acquisition Equipment")
_CALCULATION = Code("113066", "DCM", "Calculation from multiple images")


def check_dicom_place(series: ImageSeries) -> None:
    """Raises CorruptInputError where the axes of a series are not at right angles, which DICOM cannot say."""
    axes = series.affine[:3, :3] / np.linalg.norm(series.affine[:3, :3], axis=0)
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if not cosine < _RIGHT_ANGLE:
        raise CorruptInputError(
            f"the voxel axes of the images are not at right angles (affine with a cosine of {cosine:.2g}), which a "
            "DICOM image cannot say; ",
            LeaveOut("dicom"),
            ", or resample the images.",
        )


def write_dicom_maps(
    folder: str | Path, maps: Mapping[str, np.ndarray], series: ImageSeries, *, identity: DicomIdentity | None = None
) -> list[Path]:
    """Writes each map (x, y, z) of a quantity as `<name>.dcm`, a Parametric Map object, into an existing folder.

    Without an identity the patient is anonymous and every UID is new. With one, patient, study and frame of reference
    are those of the images, which are referenced.
    """
    check_dicom_place(series)
    source, series_uid = _source(), generate_uid()
    metadata = getattr(maps, "metadata", {})
    files: dict[Path, bytes] = {}
    for name, values in maps.items():
        if map_kind(name).is_code:
            continue
        if values.shape != series.data.shape[:3]:
            raise ValueError(f"map {name} has shape {values.shape}, but the series has {series.data.shape[:3]}.")
        found = _parametric_map(name, metadata, values, source, series, series_uid, len(files) + 1)
        _describe(found, metadata)
        for keyword in ("ReferencedSeriesSequence", "SourceImageSequence", "ReferencedImageSequence"):
            if keyword in found:
                delattr(found, keyword)  # to the placeholder image
        if identity is None:
            found.PatientIdentityRemoved, found.DeidentificationMethod = "YES", "never copied from the images"
        else:
            _give_back(found, identity)
        buffer = io.BytesIO()
        found.save_as(buffer, enforce_file_format=True)
        files[Path(folder) / f"{name}.dcm"] = buffer.getvalue()
    write_files(files)
    return list(files)


def _dataset(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _source() -> Dataset:
    """A placeholder image from which highdicom takes an anonymous patient and study."""
    unknown = (
        "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber",
        "ReferringPhysicianName",
    )  # fmt: skip
    uids = ("StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "SeriesInstanceUID")
    return _dataset(
        **dict.fromkeys(unknown, ""),
        **{keyword: generate_uid() for keyword in uids},
        PatientName="Anonymous^",
        PatientID="anonymous",
        SOPClassUID=MRImageStorage,
        Modality="MR",
        Rows=1,
        Columns=1,
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[1, 1],
        SliceThickness=1,
    )


def _parametric_map(
    name: str,
    metadata: Mapping[str, Any],
    values: np.ndarray,
    source: Dataset,
    series: ImageSeries,
    series_uid: str,
    number: int,
) -> Any:
    # Half a second, for a format few ask for.
    from highdicom import ContributingEquipment, VOILUTTransformation, Volume
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from highdicom.sr import CodeContentItem

    # (x, y, z) -> (slice, row from the top, column)
    frames = np.ascontiguousarray(np.asarray(values, np.float32).transpose(2, 1, 0)[:, ::-1])
    reorder = np.array([[0, 0, 1, 0], [0, -1, 0, values.shape[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ series.affine @ reorder  # (slice, row, column) -> LPS+ [mm]
    finite = frames[np.isfinite(frames)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    kind = map_kind(name, metadata)
    unit, meaning = _UCUM.get(kind.units, (kind.units, kind.units))
    mapping = RealWorldValueMapping(
        lut_label=name[:16],
        lut_explanation=kind.description[:64],
        unit=Code(unit, "UCUM", meaning),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=Code(*kind.concept) if kind.concept else None,
    )
    if name.endswith("_stderr"):  # known by its standard error: a second item (PS3.3 C.7.6.16.2.11)
        mapping.QuantityDefinitionSequence.append(CodeContentItem(_DERIVATION, _STANDARD_ERROR))
    darkest, brightest = np.percentile(finite, [2, 98]).tolist() if finite.size else (0.0, 1.0)
    window = VOILUTTransformation(window_center=(darkest + brightest) / 2, window_width=max(brightest - darkest, 1e-6))
    model = series.acquisition.get("ManufacturersModelName")
    equipment = [
        ContributingEquipment(str(scanner), _ACQUISITION, manufacturer_model_name=model and str(model))
        for scanner in [series.acquisition.get("Manufacturer")]
        if scanner
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom's quote the patient's name
        return ParametricMap(
            source_images=[source],
            pixel_array=Volume(frames, affine, "PATIENT", source.FrameOfReferenceUID),
            series_instance_uid=series_uid,
            series_number=1,
            sop_instance_uid=generate_uid(),
            instance_number=number,
            manufacturer="jaxqmri",
            manufacturer_model_name="jaxqmri",
            software_versions=__version__,
            device_serial_number=__version__,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[window],
            content_label=name.upper()[:16],
            content_description=kind.description[:64],
            contributing_equipment=equipment or None,
            series_description="jaxqmri maps",
        )


def _describe(found: Any, metadata: Mapping[str, Any]) -> None:
    """How the values came about, for all frames alike, and what stands where there is none."""
    words = "; ".join(str(metadata[key]) for key in ("Equation", "EstimationAlgorithm") if key in metadata)
    value, scheme, meaning = _CALCULATION[:3]
    code = _dataset(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
    for frame in found.PerFrameFunctionalGroupsSequence:
        if "DerivationImageSequence" in frame:
            del frame.DerivationImageSequence
    derivation = f"jaxqmri {__version__}: {words}"[:1024]
    found.SharedFunctionalGroupsSequence[0].DerivationImageSequence = [
        _dataset(DerivationDescription=derivation, DerivationCodeSequence=[code], SourceImageSequence=[])
    ]
    found.FloatPixelPaddingValue = found.FloatPixelPaddingRangeLimit = float("nan")


def _give_back(found: Any, identity: DicomIdentity) -> None:
    """Patient, study, frame of reference and references to the images."""
    for keyword, value in identity.attributes.items():
        tag = tag_for_keyword(keyword)
        # As it is: a date that is none is no reason to lose the maps, and the archive knows it so.
        found.add(DataElement(tag, dictionary_VR(keyword), value, validation_mode=IGNORE))  # pyright: ignore[reportArgumentType]
    found.SeriesNumber = 1000 + (identity.series_number or 0)
    referenced = [
        _dataset(
            SeriesInstanceUID=series_uid,
            ReferencedInstanceSequence=[
                _dataset(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=sop_uid)
                for sop_class, sop_uid in instances
            ],
        )
        for series_uid, instances in identity.sources.items()
    ]
    if referenced:
        found.ReferencedSeriesSequence = referenced
