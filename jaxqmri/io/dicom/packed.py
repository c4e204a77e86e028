"""DICOM files that are compressed as a whole: by gzip (`IM1.dcm.gz`), or in the Deflated transfer syntax (PS3.5 A.5).

A few bytes may unpack to any number, so they are unpacked up to a limit, and again when their pixels are read.
"""

import zlib
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ...errors import CorruptInputError
from ..formats import GZIP
from ..storage.unpacking import MAX_RATIO, RATIO_FLOOR

MAX_BYTES = 2**29
START = 4096  # bytes of a file that hold its meta information
DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_SYNTAX = b"\2\0\x10\0UI"  # (0002,0010)
_META_LENGTH = b"\2\0\0\0UL\4\0"  # (0002,0000), of what follows it
_META_BEGINS = 132


def read_packed(path: Path, start: bytes, defer_size: int) -> Dataset | None:
    """The parsed file, whose values above `defer_size` bytes are unpacked when asked for; None where it is not packed.

    `start` are its first bytes, unpacked. Raises CorruptInputError where it unpacks to more than can be meant.
    """
    with path.open("rb") as file:
        is_zipped = file.read(len(GZIP)) == GZIP
    if not is_zipped and not _is_deflated(path, start):
        return None
    dataset = pydicom.dcmread(BytesIO(_content(path)), defer_size=defer_size)
    # What is left on disk is read from this in place of the file.
    dataset.filename, dataset.buffer = str(path), None
    dataset.fileobj_type = lambda name, mode: BytesIO(_content(Path(name)))
    return dataset


def _content(path: Path) -> bytes:
    """The file as it would be in Explicit VR Little Endian, not compressed."""
    content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    if content.startswith(GZIP):
        content = _inflated(content, 16 + zlib.MAX_WBITS, path.name)
    if not _is_deflated(BytesIO(content), content[:START]):
        return content
    if content[_META_BEGINS:][: len(_META_LENGTH)] != _META_LENGTH:
        raise ValueError("no FileMetaInformationGroupLength (0002,0000)")
    begins = _META_BEGINS + len(_META_LENGTH) + 4
    ends = begins + int.from_bytes(content[begins - 4 : begins], "little")
    meta = content[:ends].replace(DEFLATED, ExplicitVRLittleEndian.encode().ljust(len(DEFLATED), b"\0"))
    return meta + _inflated(content[ends:], -zlib.MAX_WBITS, path.name)


def _is_deflated(file: Path | BytesIO, start: bytes) -> bool:
    if DEFLATED not in start and _SYNTAX in start:  # looking into the meta information takes a while
        return False
    with nullcontext(file) if isinstance(file, BytesIO) else file.open("rb") as opened:
        read_preamble(opened, force=True)
        return _read_file_meta_info(opened).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian


def _inflated(packed: bytes, format_bits: int, name: str) -> bytes:
    limit = min(MAX_BYTES, max(RATIO_FLOOR, MAX_RATIO * len(packed)))
    unpacking = zlib.decompressobj(format_bits)
    content = unpacking.decompress(packed, limit + 1)
    if len(content) > limit:
        raise CorruptInputError(
            f"{name}: its {len(packed)} bytes unpack to more than {limit}, so it is not read; if you trust it, unpack "
            "it with another program (gunzip; dcmconv +te for the Deflated transfer syntax) and give the result."
        )
    if not unpacking.eof:
        raise ValueError("its compressed content is cut short")
    return content
