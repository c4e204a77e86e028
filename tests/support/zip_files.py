"""Zip archives, also such as no program writes."""

import zipfile
from pathlib import Path

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
