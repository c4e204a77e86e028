"""Untrusted archives, zip, tar and tar.gz: unpacked completely or not at all, never outside the target folder.

`zipfile` alone renames `../x` to `x`, lets the later of two equal names win and inflates without a limit; `tarfile`
writes links and devices, and takes a damaged header for the end. Here such an archive is refused as a whole, before or
while it is unpacked into a scratch folder beside the target.
"""

import errno
import gzip
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from ...errors import CorruptInputError, NoInputError, OutputError
from ..formats import GZIP, start_of
from .atomic import sync_folders
from .plain_files import is_plain_file, opened

MAX_RATIO = 100  # unpacked size / archive size
RATIO_FLOOR = 10 * 2**20  # bytes; below this a high ratio is harmless and common (masks, empty slices)
MAX_NAME = 255  # bytes; the limit of one path component on the file systems in use
MAX_DEPTH = 100  # folders within each other
CHUNK = 2**20  # bytes
BYTES_PER_MEMBER = 300  # of the table of a zip: 46 and a name
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
OTHER_SUFFIXES = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # with members, empty, in several parts
_BLOCK = 512  # bytes; of a tar
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly encrypted, central directory masked
# The standard library inflates bzip2 and LZMA with no limit on the output of one step: a few kB could fill the memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FILE_OR_FOLDER = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: not stated
# Raised for damaged archives; ValueError: names that do not decode, impossible offsets.
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error, EOFError, NotImplementedError,
    OverflowError, ValueError, RecursionError,
)  # fmt: skip
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ABSOLUTE = re.compile(r"/|[A-Za-z]:")  # with the drive of Windows
_DISTRUST = "Nothing was unpacked; get it from a source you trust."
_GET_AGAIN = "Get it again from its source."
_BY_OTHER_MEANS = "Nothing was unpacked; if you trust it, unpack it with another program and use the folder."


class _Refused(Exception):
    """Why an archive is not unpacked."""

    def __init__(self, why: str, remedy: str = _DISTRUST):
        super().__init__(f"archive refused, {why}. {remedy}")


class _Member(NamedTuple):
    """One file or folder in an archive, as its header says."""

    name: str
    size: int  # bytes
    is_folder: bool
    is_other: bool  # a link, a device, ...
    cannot: str  # why it cannot be read, or ""
    open: Callable[[], IO[bytes]]


def starts_as_zip(start: bytes) -> bool:
    """Whether these are the first 132 bytes of a zip archive; a DICOM file may begin with any bytes."""
    return start[:4] in _MAGIC and start[128:132] != b"DICM"


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, by its content or its suffix. Raises OSError."""
    return is_plain_file(path) and (path.name.lower().endswith((*SUFFIXES, *OTHER_SUFFIXES)) or _is_zip_or_tar(path))


def _is_zip_or_tar(path: Path) -> bool:
    start = start_of(path, _BLOCK)
    return starts_as_zip(start) or start[257:262] == b"ustar"


def unpack(
    archive: Path,
    folder: Path,  # must not exist yet, its parent must
    *,
    max_bytes: int = 2**30,  # of everything unpacked
    max_members: int = 10_000,  # files and folders, also those that names imply
    durable: bool = True,  # sync every file to disk, so that it survives a power cut
) -> None:
    """Unpacks an archive into a new folder, completely or not at all.

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
        if archive.name.lower().endswith(OTHER_SUFFIXES):
            raise _Refused("only zip, tar and tar.gz are read", _BY_OTHER_MEANS)
        free = shutil.disk_usage(folder.parent).free
        limits = _Limits(archive.stat().st_size, max_bytes, max_members, free)
        with _members(archive, limits) as members:
            _write_all(members, folder, durable)
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


# --- what an archive may hold ---


class _Limits:
    """Admits members one after the other; refuses the first that must not be there."""

    def __init__(self, packed: int, max_bytes: int, max_members: int, free: int):
        self.packed, self.max_bytes, self.max_members, self.free = packed, max_bytes, max_members, free
        self.declared = self.count = 0
        self.tree: dict[str, Any] = {}  # name in lower case -> what a folder holds; None: a file

    def admit(self, member: _Member) -> _Member:
        # Against the file on disk: the members of a bomb may share their packed bytes.
        self.check_size(self.declared + member.size)
        _check_member(member)
        self._place(member)
        self.declared += member.size
        if self.declared > self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # rather than fill the disk for other programs
        return member

    def check_count(self, n_members: int) -> None:
        if n_members > self.max_members:
            raise _Refused(f"it has {n_members} members, more than {self.max_members}", _BY_OTHER_MEANS)

    def check_size(self, unpacked: int) -> None:
        if unpacked > self.max_bytes:
            raise _Refused(f"it unpacks to {unpacked} bytes, more than {self.max_bytes}", _BY_OTHER_MEANS)
        if unpacked > max(RATIO_FLOOR, MAX_RATIO * self.packed):
            why = f"{self.packed} bytes unpack to {unpacked}, more than {MAX_RATIO} times as many"
            raise _Refused(why, _BY_OTHER_MEANS)

    def _place(self, member: _Member) -> None:
        """Refuses a member that some file system would write over another one, and folders without number."""
        names = [_as_seen_by_others(part) for part in _components(member.name)]
        folder: Any = self.tree
        for depth, name in enumerate(names, start=1):
            is_file = depth == len(names) and not member.is_folder
            if name not in folder:
                folder[name] = None if is_file else {}
                self.count += 1
                if self.count > self.max_members:
                    why = f"its names make more than {self.max_members} files and folders"
                    raise _Refused(why, _BY_OTHER_MEANS)
            elif is_file or folder[name] is None:
                why = "has the same name as another one (upper and lower case alike)"
                raise _Refused(f"member {_shown(member)} {why}")
            folder = folder[name]


@lru_cache(1000)
def _as_seen_by_others(name: str) -> str:
    """macOS and Windows ignore case, composed or decomposed accents, trailing dots and blanks."""
    return unicodedata.normalize("NFC", name).casefold().rstrip(". ") or name


def _shown(member: _Member) -> str:
    return ascii(member.name[:80])


def _components(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _check_member(member: _Member) -> None:
    """Judges the name as stored, and the kind."""
    name, parts = member.name, _components(member.name)
    in_bytes = name.encode(errors="replace").split(b"/")
    distrust = {
        "has control characters in its name": _CONTROLS.search(name),
        "has no name": not parts and not member.is_folder,
        "has a backslash in its name, which Windows takes for a folder": "\\" in name,
        "has an absolute path": _ABSOLUTE.match(name),
        "points outside the folder ('..')": b".." in in_bytes,
        f"has a name longer than {MAX_NAME} bytes": len(max(in_bytes, key=len)) > MAX_NAME,
        f"lies more than {MAX_DEPTH} folders deep": len(parts) > MAX_DEPTH,
        "is a link or a device, not a file": member.is_other,
    }
    for why in (why for why, holds in distrust.items() if holds):
        raise _Refused(f"member {_shown(member)} {why}")
    if member.cannot:
        raise _Refused(f"member {_shown(member)} {member.cannot}", _BY_OTHER_MEANS)


# --- formats ---


class _Limited:
    """An open file that is never read in larger pieces than these: sizes of tables and headers may be lies."""

    def __init__(self, file: IO[bytes], at_once: int, check: Callable[[int], None] = lambda _: None):
        self.file, self.at_once, self.check = file, at_once, check

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        if size > self.at_once:
            raise _Refused(f"a table or header of it has {size} bytes, more than {self.at_once}", _BY_OTHER_MEANS)
        content = self.file.read(size)
        self.check(self.file.tell())
        return content


@contextmanager
def _members(archive: Path, limits: _Limits) -> Iterator[Iterator[_Member]]:
    """The members of an archive, admitted: of a zip all of them before the first is given, of a tar one by one."""
    with opened(archive) as file:
        start = file.read(_BLOCK)
        file.seek(0)
        compressed = start.startswith(GZIP)
        if compressed or start[257:262] == b"ustar" or archive.name.lower().endswith(".tar"):
            content: Any = gzip.GzipFile(fileobj=file) if compressed else file
            yield map(limits.admit, _members_of_tar(_Limited(content, CHUNK, limits.check_size)))
        else:
            with zipfile.ZipFile(_Limited(file, max(CHUNK, BYTES_PER_MEMBER * limits.max_members))) as directory:  # pyright: ignore[reportCallIssue, reportArgumentType]
                limits.check_count(len(directory.infolist()))
                yield iter([limits.admit(_member_of_zip(directory, info)) for info in directory.infolist()])


def _member_of_zip(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    cannot = f"uses compression method {info.compress_type}; only stored and deflated members are supported"
    cannot = "" if info.compress_type in _METHODS else cannot
    return _Member(
        name=info.orig_filename,  # before `zipfile` changes it
        size=info.file_size,
        is_folder=info.is_dir(),
        is_other=stat.S_IFMT(info.external_attr >> 16) not in _FILE_OR_FOLDER,
        cannot="is encrypted" if info.flag_bits & _ENCRYPTED else cannot,
        open=lambda: opened.open(info),
    )


def _members_of_tar(stream: Any) -> Iterator[_Member]:
    with tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape") as opened:
        for info in opened:
            if info.size < 0:
                raise tarfile.TarError("a negative size")
            is_file = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)  # no sparse one, which may be huge
            yield _Member(
                name=info.name,
                size=info.size,
                is_folder=info.isdir(),
                is_other=not (is_file or info.isdir()) or info.sparse is not None,
                cannot="",
                open=lambda info=info: opened.extractfile(info),  # pyright: ignore[reportArgumentType]
            )
        stream.seek(opened.offset)
        if stream.read(_BLOCK) != bytes(_BLOCK):  # tarfile ends as well at a damaged header
            raise EOFError("no mark of its end")
        while stream.read(CHUNK):  # up to the checksum of what is compressed
            pass


# --- writing ---


def _write_all(members: Iterator[_Member], folder: Path, durable: bool) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name[:40]}-", dir=folder.parent) as scratch:
        # A folder of its own: the scratch folder is private to the user and would stay so after the move.
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        for member in members:
            target = unpacked.joinpath(*_components(member.name))
            (target if member.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if not member.is_folder:
                _write_one(member, target, durable)
        unpacked.rename(folder)
    if durable:
        sync_folders([folder.parent])


def _write_one(member: _Member, target: Path, durable: bool) -> None:
    with member.open() as packed, target.open("xb") as plain:
        while chunk := packed.read(CHUNK):
            plain.write(chunk)
            if plain.tell() > member.size:
                raise ValueError(f"{_shown(member)} holds more than it declares")
        if plain.tell() < member.size:
            raise ValueError(f"{_shown(member)} holds {plain.tell()} bytes but declares {member.size}")
        if durable:
            plain.flush()
            os.fsync(plain.fileno())
