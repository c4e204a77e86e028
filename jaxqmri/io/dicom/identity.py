"""Whose images these are: kept in memory for maps that are to go back to the archive, and never written unasked."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset

from .header import as_int

# Patient and General Study modules, DICOM PS3.3 C.7.1.1 and C.7.2.1, and the frame of reference, C.7.4.1.
_KEPT = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID",
)  # fmt: skip


@dataclass(frozen=True)
class DicomIdentity:
    """Patient, study and images that a series was read from. Not in the repr, which ends up in logs and reports."""

    attributes: Mapping[str, object] = field(default_factory=dict, repr=False)  # by keyword, those that the files have
    series_number: int | None = None
    # Series Instance UID -> (SOP Class UID, SOP Instance UID) of every file
    sources: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict, repr=False)


def dicom_identity(files: Iterable[Dataset]) -> DicomIdentity:
    """The identity in the parsed files of one series, of which some may be there twice, as the first of them has it."""
    files = list({id(file): file for file in files}.values())
    attributes = {keyword: value for keyword in _KEPT if (value := _value(files[0], keyword)) is not None}
    sources: dict[str, tuple[tuple[str, str], ...]] = {}
    for file in files:
        series_uid, sop_class, sop_uid = (
            str(_value(file, keyword) or "") for keyword in ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
        )
        if series_uid and sop_class and sop_uid:
            sources[series_uid] = (*sources.get(series_uid, ()), (sop_class, sop_uid))
    return DicomIdentity(attributes, as_int(_value(files[0], "SeriesNumber")), sources)


def _value(file: Dataset, keyword: str) -> Any:
    """The value as it is, or None: a name that cannot be read is no reason to refuse the images."""
    with suppress(Exception):  # whatever pydicom makes of a value that its type does not allow
        return file[keyword].value if keyword in file else None
    return None
