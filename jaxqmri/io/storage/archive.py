"""Untrusted zip archives: unpacked completely or not at all, never outside the target folder; read like folders.

`zipfile` alone renames `../x` to `x`, lets the later of two equal names win and inflates without a limit. Here such an
archive is refused as a whole, before or while it is unpacked into a scratch folder beside the target.
Messages and records name an archive that is read like a folder, never the temporary folder.
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PureWindowsPath

from ...errors import CorruptInputError, NoInputError, OutputError, named_as
from .atomic import sync_folders
from .memory import temporary_folder
from .plain_files import is_plain_file, opened

MAX_BYTES = 8 * 2**30  # as large as the images of a long examination
MAX_FILES = 100_000  # one per slice and echo
_APPLE = "__MACOSX"  # what Finder adds to an archive
MAX_RATIO = 100  # unpacked size / archive size
RATIO_FLOOR = 10 * 2**20  # bytes; below this a high ratio is harmless and common (masks, empty slices)
MAX_NAME = 255  # bytes; the limit of one path component on the file systems in use
CHUNK = 2**20  # bytes

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # with members, empty, in several parts
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly encrypted, central directory masked
# The standard library inflates bzip2 and LZMA with no limit on the output of one step: a few kB could fill the memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FILE_OR_FOLDER = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: not stated
# Raised by `zipfile` for damaged archives; ValueError: names that do not decode, impossible offsets.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError, ValueError)
_DISTRUST = "Nothing was unpacked; get it from a source you trust."
_GET_AGAIN = "Get it again from its source."
_BY_OTHER_MEANS = "Nothing was unpacked; if you trust it, unpack it with another program and use the folder."


class _Refused(Exception):
    """Why an archive is not unpacked."""

    def __init__(self, why: str, remedy: str = _DISTRUST):
        super().__init__(f"archive refused, {why}. {remedy}")


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive by its content."""
    if not is_plain_file(path):
        return False
    with opened(path) as file:
        return starts_as_zip(file.read(132))


def starts_as_zip(start: bytes) -> bool:
    """The same of the first 132 bytes of a file; a DICOM file may begin with any bytes."""
    return start[:4] in _MAGIC and start[128:132] != b"DICM"


def unpack_zip(
    archive: Path,
    folder: Path,  # must not exist yet, its parent must
    *,
    max_bytes: int = 2**30,  # of everything unpacked
    max_members: int = 10_000,  # files and folders
    durable: bool = True,  # sync every file to disk, so that it survives a power cut
) -> None:
    """Unpacks a zip archive into a new folder, completely or not at all.

    Files are written as plain files with the user's default permissions; archives inside the archive stay packed.
    Safe against another process doing the same: the folder appears in one step.
    """
    if not is_plain_file(archive):
        raise NoInputError(f"{archive.name}: there is no such archive; check the path.")
    if folder.exists():
        raise OutputError(
            f"{folder}: exists already and is never mixed with {archive.name}; remove it or choose another."
        )
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            # Against the file on disk: the members of a bomb may share their packed bytes.
            _check_amount(members, archive.stat().st_size, max_bytes, max_members)
            for member in members:
                _check_member(member)
            _check_clashes(members)
            if sum(member.file_size for member in members) > shutil.disk_usage(folder.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # rather than fill the disk for other programs
            _write_all(opened, folder, durable)
    except _Refused as refused:
        raise CorruptInputError(f"{archive.name}: {refused}") from refused
    except _DAMAGE as error:
        damaged = _Refused(f"it is damaged ({_one_line(error)})", _GET_AGAIN)
        raise CorruptInputError(f"{archive.name}: {damaged}") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # an offset before the start of the archive, or a name this system cannot have
            damaged = _Refused("its offsets or names are impossible", _GET_AGAIN)
            raise CorruptInputError(f"{archive.name}: {damaged}") from error
        raise OutputError(
            f"{archive.name}: cannot be unpacked into {folder} ({error.strerror or _one_line(error)}); check that the "
            "archive can be read, that the folder can be written and that the disk is not full."
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__


def _check_amount(members: list[zipfile.ZipInfo], packed: int, max_bytes: int, max_members: int) -> None:
    declared = sum(member.file_size for member in members)
    if len(members) > max_members:
        raise _Refused(f"it has {len(members)} members, more than {max_members}", _BY_OTHER_MEANS)
    if declared > max_bytes:
        raise _Refused(f"it unpacks to {declared} bytes, more than {max_bytes}", _BY_OTHER_MEANS)
    if declared > max(RATIO_FLOOR, MAX_RATIO * packed):
        why = f"{packed} bytes unpack to {declared}, more than {MAX_RATIO} times as many"
        raise _Refused(why, _BY_OTHER_MEANS)


def _shown(member: zipfile.ZipInfo) -> str:
    return ascii(member.orig_filename[:80])


def _components(member: zipfile.ZipInfo) -> tuple[str, ...]:
    return tuple(part for part in member.orig_filename.split("/") if part not in ("", "."))


def _check_member(member: zipfile.ZipInfo) -> None:
    """Judges the name as stored, before `zipfile` changes it."""
    name = member.orig_filename
    in_bytes = name.encode(errors="replace").split(b"/")
    distrust = {
        "has control characters in its name": any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name),
        "has no name": not _components(member) and not member.is_dir(),
        "has a backslash in its name, which Windows takes for a folder": "\\" in name,
        "has an absolute path": name.startswith("/") or PureWindowsPath(name).drive,
        "points outside the folder ('..')": b".." in in_bytes,
        f"has a name longer than {MAX_NAME} bytes": any(len(part) > MAX_NAME for part in in_bytes),
        "is a link or a device, not a file": stat.S_IFMT(member.external_attr >> 16) not in _FILE_OR_FOLDER,
    }
    method = f"uses compression method {member.compress_type}; only stored and deflated members are supported"
    cannot = {"is encrypted": member.flag_bits & _ENCRYPTED, method: member.compress_type not in _METHODS}
    for reasons, remedy in ((distrust, _DISTRUST), (cannot, _BY_OTHER_MEANS)):
        for why in (why for why, holds in reasons.items() if holds):
            raise _Refused(f"member {_shown(member)} {why}", remedy)


def _check_clashes(members: list[zipfile.ZipInfo]) -> None:
    """Refuses a member that some file system would write over another one."""
    # macOS and Windows ignore case, composed or decomposed accents, trailing dots and blanks.
    keys = [
        tuple(unicodedata.normalize("NFC", part).casefold().rstrip(". ") for part in _components(member))
        for member in members
    ]
    folders = {key[:depth] for key in keys for depth in range(1, len(key))}
    seen: set[tuple[str, ...]] = set()
    for member, key in zip(members, keys, strict=True):
        if key in seen or (key in folders and not member.is_dir()):
            raise _Refused(f"member {_shown(member)} has the same name as another one (upper and lower case alike)")
        seen.add(key)


def _write_all(opened: zipfile.ZipFile, folder: Path, durable: bool) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name[:40]}-", dir=folder.parent) as scratch:
        # A folder of its own: the scratch folder is private to the user and would stay so after the move.
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        for member in opened.infolist():
            target = unpacked.joinpath(*_components(member))
            (target if member.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
            if not member.is_dir():
                _write_one(opened, member, target, durable)
        unpacked.rename(folder)
    if durable:
        sync_folders([folder.parent])


def _write_one(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, durable: bool) -> None:
    with opened.open(member) as packed, target.open("xb") as plain:
        while chunk := packed.read(CHUNK):
            plain.write(chunk)
            if plain.tell() > member.file_size:
                raise zipfile.BadZipFile(f"{_shown(member)} holds more than it declares")
        if plain.tell() < member.file_size:
            raise zipfile.BadZipFile(f"{_shown(member)} holds {plain.tell()} bytes but declares {member.file_size}")
        if durable:
            plain.flush()
            os.fsync(plain.fileno())


@contextmanager
def unpacked(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """The same paths with a folder in place of each zip archive, for the length of the block.

    A file is an archive by its content or its suffix `.zip`. Where all its files lie in one folder, that is the
    folder. Archives inside it stay packed. An error that leaves the block names the archive, not the folder.
    """
    with ExitStack() as folders:
        found = [folders.enter_context(_folder_of(path)) if _is_archive(path) else path for path in paths]
        with named_as(dict(zip(found, paths, strict=True))):
            yield found


def _is_archive(path: Path) -> bool:
    try:
        return is_zip(path) or (path.suffix.lower() == ".zip" and is_plain_file(path))
    except OSError:  # reported by those who read it
        return False


@contextmanager
def _folder_of(archive: Path) -> Iterator[Path]:
    """Its content in a folder of its name, readable by the user alone."""
    try:
        temporary = tempfile.TemporaryDirectory(
            prefix="jaxqmri-unpacked-", dir=temporary_folder(), ignore_cleanup_errors=True
        )
    except OSError as error:
        raise _no_room(archive, error) from error
    with temporary as private:
        # Two levels, so that no name in the archive clashes with that of the archive.
        content, folder = Path(private, "0", "content"), Path(private, "1", archive.name)
        content.parent.mkdir()
        folder.parent.mkdir()
        try:
            unpack_zip(archive, content, max_bytes=MAX_BYTES, max_members=MAX_FILES, durable=False)
        except OutputError as error:
            raise _no_room(archive, error.__cause__) from error
        _innermost(content).rename(folder)
        yield folder


def _no_room(archive: Path, cause: BaseException | None) -> OutputError:
    reason = (isinstance(cause, OSError) and cause.strerror) or os.strerror(errno.EIO)
    return OutputError(
        f"{archive.name}: cannot be unpacked into the folder for temporary files ({reason}), so its images cannot be "
        "read; free some space there, or set TMPDIR to a folder on a larger disk."
    )


def _innermost(folder: Path) -> Path:
    """The folder with the files, below folders that hold one folder only; hidden files do not count."""
    while True:
        shown = [entry for entry in folder.iterdir() if entry.name != _APPLE and not entry.name.startswith(".")]
        if len(shown) != 1 or not shown[0].is_dir():
            return folder
        folder = shown[0]
