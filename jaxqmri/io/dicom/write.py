"""Writes images as classic MR DICOM files, one per slice and echo, as a scanner would export them."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from ...errors import OutputError


def write_dicom(folder: Path, images: np.ndarray, te: np.ndarray, affine: np.ndarray, description: str) -> list[Path]:
    """Writes (x, y, z, echo) magnitudes, rounded to 16 bit, into one file per slice and echo of an anonymous subject.

    `te` (echo,) [s]; `affine` (4, 4) voxel index -> RAS+ [mm], with y running up the image as dcm2niix has it.
    """
    if images.min() < 0 or images.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"images span {images.min():g} ... {images.max():g}; 16-bit DICOM holds 0 ... 65535.")
    series_uid, study_uid, frame_uid = generate_uid(), generate_uid(), generate_uid()
    written = []
    for echo, echo_time in enumerate(te):
        for z in range(images.shape[2]):
            number = len(written) + 1
            header = _slice(affine, images[:, :, z, echo], z)
            header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid()
            header.SeriesInstanceUID, header.StudyInstanceUID = series_uid, study_uid
            header.FrameOfReferenceUID = frame_uid
            header.Modality, header.Manufacturer = "MR", "jaxqmri"
            header.PatientName, header.PatientID = "anonymous", "anonymous"
            header.SeriesDescription, header.SeriesNumber, header.InstanceNumber = description, 1, number
            header.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
            header.ScanningSequence, header.SequenceVariant, header.MRAcquisitionType = "GR", "SP", "2D"
            header.EchoTime, header.EchoNumbers = f"{1e3 * echo_time:.6g}", echo + 1  # DICOM has milliseconds
            path = folder / f"IM{number:04d}.dcm"
            try:
                header.save_as(path, enforce_file_format=True)
            except OSError as error:
                raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder.") from error
            written.append(path)
    return written


def _slice(affine: np.ndarray, image: np.ndarray, z: int) -> FileDataset:
    """One slice (x, y) and its place. DICOM has LPS axes and starts at the TOP row, where y is largest."""
    rows = np.round(image.T[::-1]).astype("<u2")
    to_lps = np.diag([-1.0, -1.0, 1.0])
    columns = to_lps @ affine[:3, :3]
    pixel_mm = np.linalg.norm(columns, axis=0)
    along_row, along_column = columns[:, 0] / pixel_mm[0], -columns[:, 1] / pixel_mm[1]
    top_left = to_lps @ (affine @ np.array([0, len(rows) - 1, z, 1]))[:3]

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    header.ImageOrientationPatient = [f"{c:.10f}" for c in (*along_row, *along_column)]
    header.ImagePositionPatient = [f"{c:.8f}" for c in top_left]
    header.PixelSpacing = [f"{pixel_mm[1]:.8g}", f"{pixel_mm[0]:.8g}"]
    header.SliceThickness = header.SpacingBetweenSlices = f"{pixel_mm[2]:.8g}"
    header.Rows, header.Columns = rows.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.RescaleSlope, header.RescaleIntercept = "1", "0"
    header.PixelData = rows.tobytes()
    return header
