"""Locks between runs, by lock files; the lock of a process that died is free at once. Steps that Ctrl-C waits for."""

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...errors import OutputError

MAX_WAIT = 60.0  # s; a folder is held while the files of one run are moved, which takes far less
_NAME = ".jaxqmri.lock"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end of the block, which takes milliseconds."""
    received: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # which alone receives signals
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in before:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received[:1]:
            signal.raise_signal(number)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Runs that change the same folder take turns; one that was stopped holds it longer than `MAX_WAIT`, an error."""
    try:
        lock = acquire(folder / _NAME, MAX_WAIT)
    except Timeout as error:
        raise OutputError(
            f"{folder}: another run of jaxqmri has held this folder for {MAX_WAIT:g} s; end it if it was stopped "
            "(Ctrl-Z), or choose another folder."
        ) from error
    try:
        yield
    finally:
        release(lock)


def acquire(path: Path, max_wait: float = 0.0) -> FileLock | None:
    """A lock on a file that is created for it; None where the file cannot be created or the disk has no locks.

    Timeout: another process still holds it after `max_wait` [s].
    """
    lock = FileLock(path, timeout=max_wait, poll_interval=0.01, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError:
        return None
    return lock


def release(lock: FileLock | None) -> None:
    """Removes the file of a lock and gives the lock back."""
    if lock is not None:
        with suppress(OSError):  # while it is locked, so that no other process has locked it; Windows: by release()
            Path(lock.lock_file).unlink()
        lock.release()


def remove_locked(folder: Path, lock: FileLock | None) -> None:
    """Removes a folder with the file of its lock in it, and gives the lock back."""
    shutil.rmtree(folder, ignore_errors=True)
    release(lock)
    shutil.rmtree(folder, ignore_errors=True)  # Windows keeps a lock file while it is locked
