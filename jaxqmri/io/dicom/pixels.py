"""The values of one MR image: decoded, scaled, and laid out as NIfTI viewers expect them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from ...errors import CorruptInputError, remark
from ..scale import AS_STORED, ROUNDING, Line
from ..storage.plain_files import unchanged
from ..wrapped import wrapped
from .codec import Decoder, has_decoder
from .header import Frame, as_int
from .scale import REAL_WORLD, RESCALE, TABLE, Scale


def check_size(frame: Frame) -> None:
    """Refuses pixels that are not those of Rows x Columns, as their length or the header of their stream says."""
    compressed = _is_compressed(frame)
    with _damage_named(frame):
        if compressed:
            Decoder().single_frame(frame.file, frame.index)
        else:
            _check_length(frame)


def stored_values(frame: Frame, decoder: Decoder) -> np.ndarray:
    """(row, column) values as stored; other frames of the same file are left alone."""
    compressed = _is_compressed(frame)
    with _damage_named(frame):
        if compressed:
            values = decoder.decode(frame.file, frame.index)
        else:
            _check_length(frame)
            values = pixel_array(frame.file, index=frame.index, correct_unused_bits=False)
    if values.shape != frame.shape:
        raise CorruptInputError(
            f"{frame.name}: pixels are {values.shape}, but Rows and Columns say {frame.shape}; the file is damaged."
        )
    return _without_unused_bits(frame, values)


def _is_compressed(frame: Frame) -> bool:
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
    return compressed


@contextmanager
def _damage_named(frame: Frame) -> Iterator[None]:
    """Whatever is wrong with the pixels as an error of their file."""
    try:
        yield
    except CorruptInputError:
        raise
    except Exception as error:  # decoders are plugins and raise what they like
        reason = " ".join(str(error).split())[:200]
        raise CorruptInputError(
            f"{frame.name}: pixels (7FE0,0010) cannot be decoded ({reason}); the file is damaged. Copy it again."
        ) from error


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
        with unchanged(Path(file.filename), file.stamp):
            yield
    finally:
        if isinstance(on_disk, RawDataElement) and on_disk.value is None:
            file["PixelData"] = on_disk


class CommonScale(NamedTuple):
    """The scale that all images of one fit have."""

    name: str  # where they state it; "": nowhere, values are as stored
    is_floating_point: bool  # whether displayed values become Philips' floating-point values

    def of(self, frame: Frame) -> Scale:
        """The scale of one image before `unit`."""
        return frame.scales.get(self.name, AS_STORED)

    def unit(self, frame: Frame) -> float:
        """Displayed values in one value of the image: FP = DV / (RS * SS)."""
        scale = self.of(frame)
        slope = scale.slope if isinstance(scale, Line) else 1.0
        return slope * (frame.scale_slope or 1.0) if self.is_floating_point else 1.0

    def __call__(self, frame: Frame, stored: np.ndarray) -> np.ndarray:
        """(row, column) float64 image values, which keep any integer exact until the one rounding to float32."""
        return self.of(frame)(stored) / self.unit(frame)


def common_scale(frames: Sequence[Frame]) -> CommonScale:
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
    is_philips = any(frame.is_philips for frame in frames)
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


def _common_name(frames: Sequence[Frame]) -> str:
    """Where the scale is that all state; real-world values go before a rescale that is the same in all of them."""
    names = [name for name in (RESCALE, TABLE, REAL_WORLD) if any(name in frame.scales for frame in frames)]
    of_all = [name for name in names if all(name in frame.scales for frame in frames)]
    is_phase = frames[0].component == "phase"  # of which all images must declare the same range, see `common_factor`
    if is_phase and not of_all:
        return next(iter(names), "")
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
        agree = None not in factors and np.ptp(factors) <= ROUNDING * abs(factors[0] or 1.0)
        if agree and (name in of_all or abs((factors[0] or 0.0) - 1) <= ROUNDING):
            continue
        if name in of_all and len({frame.scales[chosen] for frame in frames}) == 1 and not is_phase:
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


def at_top(frame: Frame, stored: np.ndarray) -> np.ndarray:
    """(row, column) bool: the largest storable value, where the signal may have been clipped, or what ran over it."""
    bits = as_int(frame.dataset.get("BitsStored")) or 16
    signed = as_int(frame.dataset.get("PixelRepresentation")) or 0
    return (stored == 2 ** (bits - signed) - 1) | wrapped(stored)


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
