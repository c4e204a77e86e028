"""The values of one MR image: decoded, scaled, and laid out as NIfTI viewers expect them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from ...errors import CorruptInputError, remark
from . import vendors
from .codec import Decoder, has_decoder
from .header import Frame, as_int


def stored_values(frame: Frame, decoder: Decoder) -> np.ndarray:
    """(row, column) values as stored; other frames of the same file are left alone."""
    try:
        syntax = frame.file.file_meta.TransferSyntaxUID
        compressed = syntax.is_encapsulated
    except (AttributeError, ValueError) as error:
        raise CorruptInputError(
            f"{frame.name}: no valid TransferSyntaxUID (0002,0010), so the pixels cannot be decoded; export it again."
        ) from error
    if compressed and not has_decoder(syntax):
        raise CorruptInputError(
            f"{frame.name}: pixels are compressed ({syntax.name}) and no decoder for it is installed; "
            'install one with: pip install "jaxqmri[dicom-codecs]"'
        )
    try:
        if compressed:
            values = decoder.decode(frame.file, frame.index)
        else:
            _check_length(frame)
            values = pixel_array(frame.file, index=frame.index)
    except CorruptInputError:
        raise
    except Exception as error:  # decoders are plugins and raise what they like
        reason = " ".join(str(error).split())[:200]
        raise CorruptInputError(
            f"{frame.name}: pixels (7FE0,0010) cannot be decoded ({reason}); the file is damaged. Copy it again."
        ) from error
    if values.shape != frame.shape:
        raise CorruptInputError(
            f"{frame.name}: pixels are {values.shape}, but Rows and Columns say {frame.shape}; the file is damaged."
        )
    return values


@contextmanager
def pixels_released(file: Dataset) -> Iterator[None]:
    """Afterwards the pixels of a file are on disk again and nowhere else; pydicom would keep what it has once read."""
    on_disk = file.get_item("PixelData", keep_deferred=True)
    try:
        yield
    finally:
        if isinstance(on_disk, RawDataElement) and on_disk.value is None:
            file["PixelData"] = on_disk


def rescaled(frame: Frame, stored: np.ndarray, *, floating_point: bool) -> np.ndarray:
    """(row, column) float64 image values: displayed values, or Philips' floating-point values.

    DV = SV * RS + RI; FP = DV / (RS * SS). float64 keeps any integer exact until the one rounding to float32. Source:
    Chenevert et al., Transl Oncol 7:65 (2014).
    """
    if frame.slope == 0:
        raise CorruptInputError(
            f"{frame.name}: RescaleSlope (0028,1053) is 0, so every value vanishes; export the series again."
        )
    displayed = stored * frame.slope + frame.intercept
    return displayed / (frame.slope * frame.scale_slope) if floating_point and frame.scale_slope else displayed


def use_floating_point(frames: Sequence[Frame]) -> bool:
    """Whether all images carry Philips' scale slope, so that images scaled each on their own become comparable."""
    if all(frame.scale_slope for frame in frames):
        return True
    if vendors.is_philips(frames[0].dataset) and len({(frame.slope, frame.intercept) for frame in frames}) > 1:
        remark(
            "Philips images with different rescale slopes lack the scale slope (2005,100E): displayed values are used "
            "and may not be comparable between echoes; export the series without removing private tags."
        )
    return False


def at_top(frame: Frame, stored: np.ndarray) -> np.ndarray:
    """(row, column) bool: the largest storable value, where the signal may have been clipped."""
    bits = as_int(frame.dataset.get("BitsStored")) or 16
    signed = as_int(frame.dataset.get("PixelRepresentation")) or 0
    return stored == 2 ** (bits - signed) - 1


def upright(image: np.ndarray) -> np.ndarray:
    """(row, column) from the top -> (x, y) with y from the bottom."""
    return image[::-1].T


def _check_length(frame: Frame) -> None:
    """Refuses more pixels than Rows x Columns as well as fewer: cut to size they would be a scrambled image."""
    rows, columns = frame.shape
    n_bits = as_int(frame.dataset.get("BitsAllocated")) or 0
    n_frames = as_int(frame.file.get("NumberOfFrames")) or 1
    wanted, given = rows * columns * n_frames * n_bits // 8, len(frame.file.PixelData or b"")
    if given not in (wanted, wanted + wanted % 2):
        of_each = f"{n_frames} frames of " if n_frames > 1 else ""
        raise CorruptInputError(
            f"{frame.name}: {given} bytes of pixels (7FE0,0010), but {of_each}Rows x Columns = {rows}x{columns} need "
            f"{wanted}; the file is cut short or its header wrong. Copy it again."
        )
