"""Staging folders: hidden, on the disk of the results, gone at the end whatever happens."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from .atomic import output_errors
from .locks import acquire, one_at_a_time, release
from .naming import named_as

_PREFIX = ".jaxqmri-"
STAGING = re.compile(re.escape(_PREFIX) + r"\w{8}")  # as tempfile names them
FILES, LOCK = "files", "lock"  # in a staging folder: what is staged, and the lock of its run


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder below `folder`, for files that are to be moved out of it; removed at the end.

    It is locked as long as it exists, so that no other run takes it for the leftovers of a killed one.

    Raises:
        OutputError: it cannot be made, or the block could not write; names `folder`.
    """
    with output_errors(folder), one_at_a_time(folder):  # no other run tidies up before there is a lock
        staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        lock = acquire(staging / LOCK)
        (files := staging / FILES).mkdir()
    try:
        with named_as({files: folder}):
            yield files
    finally:
        with one_at_a_time(folder):
            remove(staging, lock)


def remove(staging: Path, lock: FileLock | None) -> None:
    """Removes a staging folder and gives its lock back; only while the folder around it is locked."""
    shutil.rmtree(staging, ignore_errors=True)
    release(lock)
    shutil.rmtree(staging, ignore_errors=True)  # Windows keeps a lock file while it is locked
