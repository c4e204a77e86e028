"""Classic MR images made by hand, for the tests of the DICOM reader."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from jaxqmri.io.dicom.reader import read_dicom

TE_MS = (5.0, 10.0, 20.0)
ROWS, COLUMNS, N_SLICES = 3, 4, 2
# A sagittal-oblique stack with a 3-4-5 rotation: everything below can be checked by hand.
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
FIRST, STEP = np.array([10.0, 20.0, 30.0]), np.array([-3.0, 4.0, 0.0])  # step = 5 mm along ROW x COLUMN
ROW_DISTANCE, COLUMN_DISTANCE = 2.0, 3.0


def values(echo: int, k: int) -> np.ndarray:
    """Stored values that name their place: echo, slice, row, column in the four digits."""
    row, column = np.indices((ROWS, COLUMNS))
    return (1000 * (echo + 1) + 100 * k + 10 * row + column).astype("<u2")


def image(te_ms: object, k: int, pixels: np.ndarray, **tags: Any) -> Dataset:
    """One classic MR image; `tags` set DICOM keywords, None deletes one."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = MRImageStorage, generate_uid(), "1.2.3"
    ds.Modality, ds.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "ND"]
    ds.SeriesNumber, ds.SeriesDescription, ds.Manufacturer = 7, "multi-echo GRE", "SIEMENS"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = list(FIRST + k * STEP), [*ROW, *COLUMN]
    ds.PixelSpacing = [ROW_DISTANCE, COLUMN_DISTANCE]
    ds.RepetitionTime, ds.FlipAngle, ds.MagneticFieldStrength, ds.EchoTime = 125, 25, 3, te_ms
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    for keyword, value in tags.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def series(te_ms: tuple = TE_MS, n_slices: int = N_SLICES, **tags: Any) -> list[Dataset]:
    return [
        image(te, k, values(e, k), **{"EchoNumbers": e + 1, "InstanceNumber": 1 + k + e * n_slices, **tags})
        for e, te in enumerate(te_ms)
        for k in range(n_slices)
    ]


def enhanced(images: Sequence[Dataset], shared: Sequence[str] = ()) -> Dataset:
    """Classic images of one series as the one Enhanced MR file that a scanner would write in their place.

    Args:
        images: they must agree in everything that is no functional group.
        shared: functional groups to be stated once for all frames, as the first frame has them.
    """
    first = images[0]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = first.file_meta.TransferSyntaxUID
    for element in first:
        if element.keyword in _OF_THE_FILE:
            ds[element.keyword] = element
    ds.SOPClassUID, ds.SOPInstanceUID, ds.NumberOfFrames = EnhancedMRImageStorage, generate_uid(), len(images)
    ds.InstanceNumber, ds.PixelData = 1, b"".join(image.PixelData for image in images)
    groups = [functional_groups(image) for image in images]
    ds.SharedFunctionalGroupsSequence = [Dataset()]
    for name in shared:
        setattr(ds.SharedFunctionalGroupsSequence[0], name, groups[0][name].value)
        for group in groups:
            delattr(group, name)
    ds.PerFrameFunctionalGroupsSequence = groups
    return ds


_OF_THE_FILE = (
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "Manufacturer", "MagneticFieldStrength",
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PatientName",
)  # fmt: skip
_FUNCTIONAL_GROUPS = {  # group -> classic keyword -> keyword there
    "MREchoSequence": {"EchoTime": "EffectiveEchoTime"},
    "MRTimingAndRelatedParametersSequence": {"RepetitionTime": "RepetitionTime", "FlipAngle": "FlipAngle"},
    "MRModifierSequence": {"InversionTime": "InversionTimes"},
    "MRImageFrameTypeSequence": {"ImageType": "FrameType", "ComplexImageComponent": "ComplexImageComponent"},
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {
        "RescaleSlope": "RescaleSlope", "RescaleIntercept": "RescaleIntercept", "RescaleType": "RescaleType",
    },
}  # fmt: skip


def functional_groups(image: Dataset) -> Dataset:
    """What a classic image says, as an item of the Per-frame Functional Groups Sequence."""
    groups = Dataset()
    for name, keywords in _FUNCTIONAL_GROUPS.items():
        item = Dataset()
        for classic, keyword in keywords.items():
            if classic in image:
                setattr(item, keyword, image[classic].value)
        setattr(groups, name, [item])
    return groups


def save(folder: Path, datasets: Sequence[Dataset], prefix: str = "IM") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, ds in enumerate(datasets):
        ds.save_as(folder / f"{prefix}{i:03d}.dcm", enforce_file_format=True)
    return folder


def quietly(path: object, **options: object):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_dicom(path, **options)  # pyright: ignore[reportArgumentType]


def ge_component(ds: Dataset, code: int) -> Dataset:
    ds.Manufacturer, ds.ImageType = "GE MEDICAL SYSTEMS", ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", code)
    return ds


def philips_scale(ds: Dataset, slope: float, scale_slope: float | None) -> Dataset:
    ds.Manufacturer, ds.RescaleSlope, ds.RescaleIntercept = "Philips Medical Systems", slope, 0
    if scale_slope is not None:
        ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", scale_slope)
    return ds
