"""Decodes compressed pixels in a process of its own: a damaged stream may crash or hang a decoder, not this program.

Decoders of JPEG are C libraries that trust what they read. One process decodes all images of a series; it is given
single frames with the few attributes that decoding takes, and nothing else; and as much memory as an image of their
size needs, as a stream of a few bytes may claim to be any size. It runs this file, so it needs pydicom, but
neither this package nor the working directory.
"""

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from threading import Timer
from typing import IO

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, RLELossless

_SECONDS_TO_START = 120.0
SECONDS_PER_IMAGE = 60.0  # the slowest decoders take 1 s for the largest images
COMMAND = (sys.executable, "-P", "-W", "ignore", __file__)  # -P: the folder of this file holds no modules for it
_MEMORY = 2**30  # bytes, for the libraries of the decoders
_MEMORY_PER_BYTE = 16  # of the pixels; decoders hold several copies of 4 bytes each
_LARGE, _MAX_RATIO = 2**27, 1000  # bytes; below that air alone may be compressed to any degree
_EXPANSION = 64  # RLE makes at most 128 bytes of 2, and needs at most 2 bytes for one
_JPEG, _JPEG_2000, _JPEG_2000_BOX = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP"
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # 0xF7: of JPEG-LS
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_READY = b"R"
_ARRAY, _ERROR = b"A", b"E"
_NEEDED = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip


class Decoder:
    """Decodes frames of compressed files, in a process that starts with the first of them and ends with `close`."""

    def __init__(self):
        self.process: subprocess.Popen[bytes] | None = None
        self._file: Dataset | None = None  # images come file by file
        self._frames: list[bytes] = []  # of this file, encoded

    def decode(self, file: Dataset, index: int) -> np.ndarray:
        """(row, column) stored values of a frame (from 0) of a parsed file with encapsulated pixels.

        ValueError: whatever is wrong with the stream; also that its decoder crashed or took too long.
        """
        image = self.single_frame(file, index)
        if file.file_meta.TransferSyntaxUID == RLELossless:  # decoded by Python, which neither crashes nor hangs
            return pixel_array(image, decoding_plugin="pydicom", correct_unused_bits=False)
        content = BytesIO()
        image.save_as(content, enforce_file_format=True)
        return self._ask(content.getvalue())

    def single_frame(self, file: Dataset, index: int) -> Dataset:
        """A file of one frame with what decoding takes; ValueError where its stream is of another size."""
        if file is not self._file:
            n_frames = int(file.get("NumberOfFrames") or 1)
            self._file, self._frames = file, list(generate_frames(file.PixelData, number_of_frames=n_frames))
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = file.file_meta.TransferSyntaxUID
        image.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
        image.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
        for keyword in _NEEDED:
            if keyword in file:
                image[keyword] = file[keyword]
        _check_size(image, self._frames[index])
        image.PixelData = encapsulate([self._frames[index]])
        image["PixelData"].VR = "OB"
        return image

    def _ask(self, request: bytes) -> np.ndarray:
        """The answer of the process, which is ended if it takes too long."""
        process = self.process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        kind, answer, started = b"", None, time.monotonic()
        with _killed_after(SECONDS_PER_IMAGE, process), suppress(OSError):  # a broken pipe
            _send(process.stdin, request)
            kind = process.stdout.read(1)
            answer = _receive(process.stdout)
        if answer is None:
            late = time.monotonic() - started >= SECONDS_PER_IMAGE
            raise ValueError(f"its decoder {f'took more than {SECONDS_PER_IMAGE:g} s' if late else 'crashed'}")
        if kind == _ERROR:
            raise ValueError(answer.decode(errors="replace"))
        return np.load(BytesIO(answer), allow_pickle=False)

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())}
        self.process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        assert self.process.stdout is not None
        with _killed_after(_SECONDS_TO_START, self.process):  # of an image only its decoding counts
            if self.process.stdout.read(1) != _READY:
                raise ValueError("a process to decode it could not be started")
        return self.process

    def close(self) -> None:
        """Ends the process at once."""
        if self.process is not None:
            with suppress(OSError), self.process:  # a crashed process did not take all it was sent
                self.process.kill()


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the process, and with it the wait for its answer, when the time is up."""
    timer = Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_size(image: Dataset, stream: bytes) -> None:
    """Refuses a stream of another size than Rows and Columns say, before room is made for either."""
    n_bytes = _n_bytes(image)
    if n_bytes > max(_LARGE, _MAX_RATIO * len(stream)):
        raise ValueError(f"{len(stream)} bytes cannot be {n_bytes} bytes of pixels")
    if image.file_meta.TransferSyntaxUID == RLELossless:
        if not n_bytes / _EXPANSION <= len(stream) <= 2 * n_bytes + 1024:  # with the header and padding
            raise ValueError(f"{len(stream)} bytes of RLE cannot be {n_bytes} bytes of pixels")
    elif (shape := _shape(stream)) not in (None, (image.Rows, image.Columns)):
        rows, columns = shape or ()
        raise ValueError(f"its stream is {rows}x{columns}, but Rows x Columns = {image.Rows}x{image.Columns}")


def _n_bytes(image: Dataset) -> int:
    return image.Rows * image.Columns * image.SamplesPerPixel * image.BitsAllocated // 8


def _shape(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns in the header of a JPEG (ISO 10918-1 B.2), JPEG-LS or JPEG 2000 stream (ISO 15444-1 A.5.1)."""
    if stream.startswith((_JPEG_2000, _JPEG_2000_BOX)):
        start = stream.find(_JPEG_2000)
        if start < 0 or len(stream) < start + 24:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return bottom - top, right - left
    place = len(_JPEG) if stream.startswith(_JPEG) else len(stream)
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker, length = struct.unpack_from(">xBH", stream, place)
        if marker in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">HH", stream, place + 5)
            return rows, columns
        place += 1 if marker == 0xFF else 2 if marker in _ALONE else 2 + length
    return None


def has_decoder(syntax: str) -> bool:
    """Whether a decoder for this transfer syntax is installed."""
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _import_path() -> list[str]:
    """Where this process imports from, so that the other finds the same decoders; never the working directory."""
    return [path for path in sys.path if path and not (Path(path).exists() and Path(path).samefile(os.curdir))]


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(8, "little") + content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """One message, or None at the end of the stream."""
    header = pipe.read(8)
    length = int.from_bytes(header, "little")
    content = pipe.read(length) if len(header) == 8 else b""
    return content if len(header) == 8 and len(content) == length else None


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Decodes until there are no more requests."""
    answers.write(_READY)
    answers.flush()
    while (request := _receive(requests)) is not None:
        try:
            content, image = BytesIO(), pydicom.dcmread(BytesIO(request))
            _limit_memory(_MEMORY + _MEMORY_PER_BYTE * _n_bytes(image))
            pixels = pixel_array(image, correct_unused_bits=False)
            np.save(content, pixels, allow_pickle=False)
            answers.write(_ARRAY)
            _send(answers, content.getvalue())
        except Exception as error:  # decoders are plugins and may raise anything
            answers.write(_ERROR)
            _send(answers, " ".join(str(error).split())[:500].encode())


def _limit_memory(n_bytes: int) -> None:
    """Lets this process have that much more than it has, where the system can tell; sizes were checked in any case."""
    if sys.platform == "win32":
        return
    import resource

    with suppress(OSError, ValueError):  # no /proc; a lower limit already
        n_pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = n_pages * resource.getpagesize() + n_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
