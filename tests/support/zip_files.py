"""Zip archives, also such as no program writes; and what every archive is checked by."""

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxqmri.errors import CorruptInputError
from jaxqmri.io.storage.unpacking import unpack

CENTRAL_SIGNATURE, LOCAL_SIGNATURE = b"PK\x01\x02", b"PK\x03\x04"


def zip_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix: the upper half of external_attr is st_mode
    info.external_attr = mode << 16
    return info


def patched(archive: Path, at_central: int, at_local: int, value: bytes) -> Path:
    """Overwrites one header field of the last member in both of its headers."""
    raw = bytearray(archive.read_bytes())
    central, local = raw.rindex(CENTRAL_SIGNATURE), raw.rindex(LOCAL_SIGNATURE)
    raw[central + at_central : central + at_central + len(value)] = value
    raw[local + at_local : local + at_local + len(value)] = value
    archive.write_bytes(raw)
    return archive


def assert_refused(archive: Path, match: str, **limits: float) -> None:
    """In one line, with nothing unpacked."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(CorruptInputError, match=match) as refused:
        unpack(archive, archive.parent / "out", **limits)  # pyright: ignore[reportArgumentType]
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{archive.name}: archive refused, ")
    assert sorted(archive.parent.rglob("*")) == before


def unpacked_when_damaged(archive: Path, rng: np.random.Generator, n: int) -> Iterator[Path]:
    """Damages one byte of the archive at a time, at `n` places, and yields the folder where it unpacks all the same."""
    good, out = archive.read_bytes(), archive.parent / "out"
    for position in rng.permutation(len(good))[:n]:
        raw = bytearray(good)
        raw[position] ^= rng.integers(1, 256)
        archive.write_bytes(raw)
        try:
            unpack(archive, out)
        except CorruptInputError:
            assert not out.exists()
        else:  # a byte that has no checksum, or does not matter, such as a date or a letter of a name
            yield out
            shutil.rmtree(out)
        assert list(archive.parent.iterdir()) == [archive]
    archive.write_bytes(good)
