"""Files that can be read to an end: what is no such file is told apart before it is opened.

Opening a named pipe waits for a writer that never comes, a device may do anything, and below /proc and /sys the kernel
makes files up as they are read. Whatever was not made by this process is opened here.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from ...errors import CorruptInputError

LARGEST_TEXT = 2**26  # bytes of a sidecar or a record
NO_FILE = "named pipe, socket, device or the like"
_MADE_UP = (Path("/proc"), Path("/sys"))  # where Linux describes itself
_KINDS = {stat.S_IFDIR: "is a folder", stat.S_IFREG: ""}


class NotAFileError(OSError):
    """A path that leads to something else."""


class Stamp(NamedTuple):
    """What changes where a file is replaced or written to."""

    size: int  # bytes
    modified: int  # ns


def is_plain_file(path: Path) -> bool:
    """Whether a path leads, perhaps by links, to a file whose content is on a disk."""
    try:
        return not why_no_file(path)
    except OSError:
        return False


def why_no_file(path: Path) -> str:
    """Why a path that exists is no file to be read: "is a folder", "is a named pipe ..."; or "". Raises OSError."""
    found = path.stat()
    if not getattr(found, "st_blocks", 1) and is_made_up(path):  # such files take no room on a disk
        return f"is a {NO_FILE}"
    return _KINDS.get(stat.S_IFMT(found.st_mode), f"is a {NO_FILE}")


def is_made_up(path: Path) -> bool:
    """Whether a file or folder is the system's description of itself."""
    real = path.resolve()
    return any(real.is_relative_to(root) for root in _MADE_UP)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file open for reading; OSError where it is none."""
    if why := why_no_file(path):
        raise NotAFileError(None, why)
    with path.open("rb") as file:
        yield file


def read_bytes(path: Path) -> bytes:
    """The content of a sidecar or a record; OSError where it is none or larger than any of these."""
    with opened(path) as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise OSError(None, f"is larger than {LARGEST_TEXT} bytes")
    return content


def stamp_of(path: Path) -> Stamp:
    """The stamp that a file has now. Raises OSError."""
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns)


@contextmanager
def unchanged(path: Path, stamp: Stamp) -> Iterator[None]:
    """For reading what belongs to a header; CorruptInputError where the file is not, or no more, the one it is of."""
    _check_stamp(path, stamp)
    try:
        yield
    finally:  # it may also be why reading it failed
        _check_stamp(path, stamp)


def _check_stamp(path: Path, stamp: Stamp) -> None:
    with suppress(OSError):
        if stamp_of(path) == stamp:
            return
    raise CorruptInputError(
        f"{path.name}: was replaced, changed or removed after its header was read; try again once nothing writes to it."
    )
