"""Zip archives where folders are meant: an export of images often is one.

An archive is unpacked into a private folder for temporary files, read like any folder and removed again. Whoever reads
about it, in a message or a record, reads the name that the archive was given by, never that of the temporary folder.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...errors import OutputError
from .archive import is_zip, unpack_zip
from .memory import temporary_folder

MOST_BYTES = 8 * 2**30  # what is unpacked may be as large as the images of a long examination
MOST_FILES = 100_000  # one per slice and echo
_APPLE = "__MACOSX"  # what Finder adds to an archive
_PREFIX = "jaxqmri-unpacked-"


@contextmanager
def unpacked(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """The same paths with a folder in place of each zip archive, which is there as long as the block.

    What is told by content to be a zip archive, or called `.zip`, is one. Where all its files lie in one folder, that
    is the folder. Archives inside it stay packed. An error that leaves the block names the archive, not the folder.

    Args:
        paths: folders and files.

    Raises:
        CorruptInputError: an archive is damaged, encrypted or not to be trusted; see `unpack_zip`.
        OutputError: there is no room for its files; names TMPDIR.
    """
    with ExitStack() as folders:
        given = [folders.enter_context(_folder_of(path)) if _is_meant_as_zip(path) else path for path in paths]
        try:
            yield given
        except Exception as error:
            renamed = [(str(folder), str(path)) for folder, path in zip(given, paths, strict=True) if folder != path]
            error.args = tuple(_renamed(part, renamed) if isinstance(part, str) else part for part in error.args)
            if isinstance(error, OSError):
                for name in ("filename", "filename2"):
                    if isinstance(there := getattr(error, name), str | Path):
                        setattr(error, name, _renamed(str(there), renamed))
            raise


def _renamed(text: str, names: Sequence[tuple[str, str]]) -> str:
    for name, given in names:
        text = text.replace(name, given)
    return text


def _is_meant_as_zip(path: Path) -> bool:
    try:
        return is_zip(path) or (path.suffix.lower() == ".zip" and path.is_file())
    except OSError:  # a path that cannot be looked at is told of by those who read it
        return False


@contextmanager
def _folder_of(archive: Path) -> Iterator[Path]:
    """Its content in a folder that has its name, and the user's eyes only."""
    private = _private_folder(archive)
    try:
        content = private / "0" / "content"  # so that no name of an archive or of a folder in it can be in the way
        content.parent.mkdir()
        try:
            unpack_zip(archive, content, max_bytes=MOST_BYTES, max_members=MOST_FILES, lasting=False)
        except OutputError as error:
            raise _no_room(archive, error.__cause__) from error
        folder = private / "1" / archive.name
        folder.parent.mkdir()
        _lone_folder(content).rename(folder)
        yield folder
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _private_folder(archive: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=temporary_folder()))
    except OSError as error:
        raise _no_room(archive, error) from error


def _no_room(archive: Path, cause: BaseException | None) -> OutputError:
    reason = (isinstance(cause, OSError) and cause.strerror) or os.strerror(errno.EIO)
    return OutputError(
        f"{archive.name}: cannot be unpacked into the folder for temporary files ({reason}), so its images cannot be "
        "read; free some space there, or set TMPDIR to a folder on a larger disk."
    )


def _lone_folder(folder: Path) -> Path:
    """The folder that holds all that is in an archive; what hides does not count."""
    while True:
        shown = [entry for entry in folder.iterdir() if entry.name != _APPLE and not entry.name.startswith(".")]
        if len(shown) != 1 or not shown[0].is_dir():
            return folder
        folder = shown[0]
