"""Folders that nobody sees while they are filled, and locks on folders, so that runs do not tread on each other."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import OutputError
from .atomic import output_errors

_PREFIX = ".jaxqmri-"
HIDDEN = re.compile(re.escape(_PREFIX) + r"\w{8}")  # as tempfile names them


@contextmanager
def hidden_folder(folder: Path) -> Iterator[Path]:
    """A folder inside `folder`, so on the same disk, that validators and people do not see; gone at the end.

    Locked as long as it is there, so that no other run takes it for the leftovers of a dead one.

    Raises:
        OutputError: it cannot be made, or the block could not write; names `folder`.
    """
    with output_errors(folder), one_at_a_time(folder):  # nobody tidies up between its making and its lock
        hidden = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        held = lock(hidden)
    try:
        yield hidden
    except OutputError as error:
        raise OutputError(str(error).replace(str(hidden), str(folder))) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        unlock(held)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Two runs into one folder take turns. The lock ends with its process, so a killed run leaves none behind."""
    descriptor = lock(folder, wait=True)
    try:
        yield
    finally:
        unlock(descriptor)


def lock(folder: Path, wait: bool = False) -> int | None:
    """A lock on a folder, or None where another process has it or the system knows none (Windows, network disks)."""
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def unlock(descriptor: int | None) -> None:
    """Gives back what `lock` returned."""
    if descriptor is not None:
        os.close(descriptor)
