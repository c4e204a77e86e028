"""The values of one MR image: decoded, scaled, and laid out as NIfTI viewers expect them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from ...errors import CorruptInputError
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
            values = pixel_array(frame.file, index=frame.index, correct_unused_bits=False)
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
    return _without_unused_bits(frame, values)


def _without_unused_bits(frame: Frame, values: np.ndarray) -> np.ndarray:
    """The values in the bits that are theirs (PS3.5 8.1.1). Others may hold an overlay; a sign may be repeated in them.

    A program that scales values up may leave Bits Stored as it was: cut to that they would fold over, without a trace.
    """
    n_allocated = 8 * values.dtype.itemsize
    n_stored, high = as_int(frame.dataset.get("BitsStored")) or n_allocated, as_int(frame.file.get("HighBit"))
    if n_stored >= n_allocated:
        return values
    lowest = high + 1 - n_stored if high is not None and n_stored <= high + 1 <= n_allocated else 0
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    bits = values.view(f"u{values.dtype.itemsize}")
    found = (bits << (n_allocated - n_stored - lowest)).view(values.dtype) >> (n_allocated - n_stored)
    known = ((2**n_stored - 1) << lowest) | sum({1 << bit for bit in _overlay_bits(frame.file) if bit < n_allocated})
    unknown = bits & ~np.array(known, bits.dtype)
    sign = (found << lowest).view(bits.dtype) & ~np.array(known, bits.dtype)
    if n_foreign := np.count_nonzero((unknown != 0) & (unknown != sign)):
        raise CorruptInputError(
            f"{frame.name}: {n_foreign} pixels (7FE0,0010) have bits beyond BitsStored (0028,0101) {n_stored} and "
            f"HighBit (0028,0102) {high}, so that it is not certain which bits are their values; set these to "
            f"{n_allocated} and {n_allocated - 1} if all are, clear the others if not, or export the series again."
        )
    return found


def _overlay_bits(file: Dataset) -> list[int]:
    """Bits of the pixels that are overlays, as Overlay Bit Position (60xx,0102) says where there is no Overlay Data."""
    groups = [group for group in range(0x6000, 0x6020, 2) if (group, 0x0102) in file and (group, 0x3000) not in file]
    found = [as_int(file[group, 0x0102].value) for group in groups]
    return [bit for bit in found if bit is not None]


@contextmanager
def pixels_released(file: Dataset) -> Iterator[None]:
    """Afterwards the pixels of a file are on disk again and nowhere else; pydicom would keep what it has once read."""
    on_disk = file.get_item("PixelData", keep_deferred=True)
    try:
        yield
    finally:
        if isinstance(on_disk, RawDataElement) and on_disk.value is None:
            file["PixelData"] = on_disk


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
