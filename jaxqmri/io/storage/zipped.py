"""Zip archives in place of folders: unpacked into a private temporary folder, read like any folder, removed again.

Messages and records name the archive, never the temporary folder.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ...errors import OutputError, named_as
from .archive import is_zip, unpack_zip
from .memory import temporary_folder

MAX_BYTES = 8 * 2**30  # as large as the images of a long examination
MAX_FILES = 100_000  # one per slice and echo
_APPLE = "__MACOSX"  # what Finder adds to an archive


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
        return is_zip(path) or (path.suffix.lower() == ".zip" and path.is_file())
    except OSError:  # reported by those who read it
        return False


@contextmanager
def _folder_of(archive: Path) -> Iterator[Path]:
    """Its content in a folder of its name, readable by the user alone."""
    try:
        temporary = TemporaryDirectory(prefix="jaxqmri-unpacked-", dir=temporary_folder(), ignore_cleanup_errors=True)
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
