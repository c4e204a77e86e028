"""Unpacking a zip from a stranger: all of it or nothing, and never outside the folder it was meant for.

`zipfile` alone would write what a hostile or damaged archive declares: it renames `../x` to `x` without a word, lets
the later of two equal names win and inflates without a limit. Here such an archive is refused as a whole, before or
while it is unpacked into a scratch folder beside the target: the target either holds everything or does not exist.
"""

import errno
import os
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from ...errors import CorruptInputError, NoInputError, OutputError

RATIO_FLOOR = 10 * 2**20  # bytes; below this a high ratio harms nobody and is common (masks, empty slices)
LONGEST_NAME = 255  # bytes; the limit of one path component on the file systems in use
CHUNK = 2**20  # bytes

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # with members, empty, in several parts
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly encrypted, central directory masked
# The standard library inflates bzip2 and LZMA with no limit on the output of one step: a few kB could fill the memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What `zipfile` raises on damaged archives; ValueError covers names that do not decode and impossible offsets.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError, ValueError)


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive by its content; False for all that is no file."""
    if not path.is_file():  # opening a named pipe would wait for ever
        return False
    with path.open("rb") as file:
        return starts_as_zip(file.read(132))


def starts_as_zip(start: bytes) -> bool:
    """Whether these first 132 bytes of a file are those of a zip archive; those of a DICOM file may be anything."""
    return start[:4] in _MAGIC and start[128:132] != b"DICM"


def unpack_zip(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int = 2**30,
    max_members: int = 10_000,
    max_ratio: float = 100.0,
    lasting: bool = True,
) -> None:
    """Unpacks a zip archive into a new folder, completely or not at all.

    Files are written as plain files with the user's default permissions; archives inside the archive stay packed.
    Safe against another process doing the same: the folder appears in one step.

    Args:
        archive: the zip file; stored and deflated members are supported.
        folder: where to; it must not exist yet, its parent must.
        max_bytes: limit on the size of everything unpacked, as declared and as found.
        max_members: limit on the number of files and folders.
        max_ratio: limit on unpacked size / archive size, for more than 10 MiB unpacked.
        lasting: whether the files have to survive a power cut, which takes time for each of them.

    Raises:
        NoInputError: there is no such archive.
        CorruptInputError: it is damaged, encrypted or too large once unpacked, or a member's name is absolute, has a
            drive, `..` or a backslash, is a link or device, or clashes with another one (also by case).
        OutputError: the folder is there already or cannot be written.
    """
    if not archive.is_file():
        raise NoInputError(f"{archive.name}: there is no such archive; check the path.")
    if folder.exists():
        raise OutputError(
            f"{folder}: exists already and is never mixed with {archive.name}; remove it or choose another."
        )
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check_amount(archive, members, max_bytes, max_members, max_ratio)
            paths = _checked_paths(archive, members)
            _check_space(members, folder.parent)
            _write_all(opened, list(zip(members, paths, strict=True)), folder, max_bytes, lasting)
    except CorruptInputError:
        raise
    except _DAMAGE as error:
        raise _refusal(archive, f"it is damaged ({_one_line(error)})", "Get it again from its source.") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # an offset before the start of the archive, or a name this system cannot have
            raise _refusal(archive, "its offsets or names are impossible", "Get it again from its source.") from error
        raise OutputError(
            f"{archive.name}: cannot be unpacked into {folder} ({error.strerror or _one_line(error)}); check that the "
            "archive can be read, that the folder can be written and that the disk is not full."
        ) from error


_BY_OTHER_MEANS = "Nothing was unpacked; if you trust it, unpack it with another program and use the folder."


def _refusal(
    archive: Path, why: str, remedy: str = "Nothing was unpacked; get it from a source you trust."
) -> CorruptInputError:
    return CorruptInputError(f"{archive.name}: archive refused, {why}. {remedy}")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__


def _check_amount(
    archive: Path, members: list[zipfile.ZipInfo], max_bytes: int, max_members: int, max_ratio: float
) -> None:
    if len(members) > max_members:
        raise _refusal(archive, f"it has {len(members)} members, more than {max_members}", _BY_OTHER_MEANS)
    declared = sum(member.file_size for member in members)
    if declared > max_bytes:
        raise _refusal(archive, f"it unpacks to {declared} bytes, more than {max_bytes}", _BY_OTHER_MEANS)
    # Against the file on disk, not the sum of the members' packed sizes: members of a bomb may share the same bytes.
    packed = archive.stat().st_size
    if declared > max(RATIO_FLOOR, max_ratio * packed):
        why = f"{packed} bytes unpack to {declared}, more than {max_ratio:g} times as many"
        raise _refusal(archive, why, _BY_OTHER_MEANS)


def _check_space(members: list[zipfile.ZipInfo], folder: Path) -> None:
    """A full disk harms everybody who uses it, so it is not tried out."""
    if sum(member.file_size for member in members) > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _checked_paths(archive: Path, members: list[zipfile.ZipInfo]) -> list[tuple[str, ...]]:
    """Path components of every member, or CorruptInputError if any of them cannot be trusted."""
    for member in members:
        if why := _distrust(member):
            raise _refusal(archive, f"member {_shown(member)} {why}")
        if why := _inability(member):
            raise _refusal(archive, f"member {_shown(member)} {why}", _BY_OTHER_MEANS)
    paths = [_components(member.orig_filename) for member in members]
    if clash := _clash(zip(members, paths, strict=True)):
        raise _refusal(archive, f"member {_shown(clash)} has the same name as another one (upper and lower case alike)")
    return paths


def _shown(member: zipfile.ZipInfo) -> str:
    return ascii(member.orig_filename[:80])


def _components(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _distrust(member: zipfile.ZipInfo) -> str | None:
    """Why a member must not be unpacked, or None. Judges the name as stored, before `zipfile` mends it."""
    name = member.orig_filename
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "has control characters in its name"
    if not _components(name) and not member.is_dir():
        return "has no name"
    if "\\" in name:
        return "has a backslash in its name, which Windows takes for a folder"
    if name.startswith("/") or PureWindowsPath(name).drive:
        return "has an absolute path"
    if ".." in name.split("/"):
        return "points outside the folder ('..')"
    if any(len(part.encode()) > LONGEST_NAME for part in name.split("/")):
        return f"has a name longer than {LONGEST_NAME} bytes"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    return None


def _inability(member: zipfile.ZipInfo) -> str | None:
    """Why a member cannot be unpacked here, or None."""
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in _METHODS:
        return f"uses compression method {member.compress_type}; only stored and deflated members are supported"
    return None


def _clash(members: Iterable[tuple[zipfile.ZipInfo, tuple[str, ...]]]) -> zipfile.ZipInfo | None:
    """The first member that some file system would write over another one, or None."""
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    listed: set[tuple[str, ...]] = set()
    for member, path in members:
        # What macOS and Windows consider equal: case, composed or decomposed accents, trailing dots and blanks.
        key = tuple(unicodedata.normalize("NFC", part).casefold().rstrip(". ") for part in path)
        if key in listed:
            return member
        listed.add(key)
        (folders if member.is_dir() else files).add(key)
        folders.update(key[:depth] for depth in range(1, len(key)))
        if not files.isdisjoint({key[:depth] for depth in range(1, len(key))}) or (key in files and key in folders):
            return member
    return None


def _write_all(
    opened: zipfile.ZipFile,
    members: list[tuple[zipfile.ZipInfo, tuple[str, ...]]],
    folder: Path,
    max_bytes: int,
    lasting: bool,
) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name[:40]}-", dir=folder.parent) as scratch:
        # A folder of its own: the scratch folder is private to the user and would stay so after the move.
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        left = max_bytes
        for member, path in members:
            target = unpacked.joinpath(*path)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                left -= _write_one(opened, member, target, left, lasting)
        unpacked.rename(folder)


def _write_one(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, max_bytes: int, lasting: bool) -> int:
    written = 0
    with opened.open(member) as packed, target.open("xb") as plain:
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > min(max_bytes, member.file_size):
                raise zipfile.BadZipFile(f"{_shown(member)} holds more than it declares")
            plain.write(chunk)
        if lasting:
            plain.flush()
            os.fsync(plain.fileno())  # the folder's name will promise complete files, also after a power cut
    if written != member.file_size:
        raise zipfile.BadZipFile(f"{_shown(member)} holds {written} bytes but declares {member.file_size}")
    return written
