"""Archives read like folders: unpacked for the time in which they are read, and removed whatever happens.

Messages and records name an archive that is read like a folder, never the temporary folder.
"""

import errno
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import Timeout

from ...errors import OutputError, named_as
from .locks import acquire, remove_locked, uninterrupted
from .memory import temporary_folder
from .unpacking import is_archive, unpack

MAX_BYTES = 8 * 2**30  # as large as the images of a long examination
MAX_FILES = 100_000  # one per slice and echo
_APPLE = "__MACOSX"  # what Finder adds to an archive
_PREFIX, _LOCK = "jaxqmri-unpacked-", "lock"


@contextmanager
def unpacked(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """The same paths with a folder in place of each archive (zip, tar, tar.gz), for the length of the block.

    A file is an archive by its content or its suffix. Where all its files lie in one folder, that is the folder.
    Archives inside it stay packed. An error that leaves the block names the archive, not the folder.
    """
    _remove_leftovers()
    with ExitStack() as folders:
        found = [folders.enter_context(_folder_of(path)) if _is_archive(path) else path for path in paths]
        with named_as(dict(zip(found, paths, strict=True))):
            yield found


def _is_archive(path: Path) -> bool:
    try:
        return is_archive(path)
    except OSError:  # reported by those who read it
        return False


@contextmanager
def _folder_of(archive: Path) -> Iterator[Path]:
    """Its content in a folder of its name, readable by the user alone."""
    with _private_folder(archive) as private:
        # Two levels, so that no name in the archive clashes with that of the archive.
        content, folder = private / "0" / "content", private / "1" / archive.name
        content.parent.mkdir()
        folder.parent.mkdir()
        try:
            unpack(archive, content, max_bytes=MAX_BYTES, max_members=MAX_FILES, durable=False)
        except OutputError as error:
            raise _no_room(archive, error.__cause__) from error
        _innermost(content).rename(folder)
        yield folder


@contextmanager
def _private_folder(archive: Path) -> Iterator[Path]:
    """A temporary folder, locked while it is used, so that no other run takes it for the leftovers of a killed one."""
    lock = folder = None
    try:
        while folder is None or not folder.exists():  # another run that tidied up was faster than the lock
            with uninterrupted():
                try:
                    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=temporary_folder()))
                except OSError as error:
                    raise _no_room(archive, error) from error
                with suppress(Timeout):
                    lock = acquire(folder / _LOCK)
        yield folder
    finally:
        if folder is not None:
            with uninterrupted():
                remove_locked(folder, lock)


def _remove_leftovers() -> None:
    """Removes what killed runs of this user have unpacked."""
    with suppress(OSError):
        for folder in Path(temporary_folder()).glob(f"{_PREFIX}*"):
            with suppress(OSError, Timeout):  # its run is alive, or has removed it
                # Others may put anything into a folder for temporary files, links above all.
                if folder.is_symlink() or (sys.platform != "win32" and folder.stat().st_uid != os.geteuid()):
                    continue
                if lock := acquire(folder / _LOCK):
                    remove_locked(folder, lock)


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
