"""Folders of results that appear all at once or not at all.

A run fills a staging folder; its files are moved to their places once all of them are there. So a run that fails, is
interrupted or fills the disk changes nothing. What a killed run leaves is removed by the next one, or completed where
its files were being moved.
"""

import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout

from ...errors import named_as, remark
from ..maps import check_output_folder
from .atomic import TEMPORARY, output_errors, sync_folders
from .locks import acquire, one_at_a_time, release, remove_locked, uninterrupted
from .plain_files import read_bytes

RECORD = "provenance.json"  # its "outputs" name the files of a run
_PREFIX = ".jaxqmri-"
_STAGING = re.compile(re.escape(_PREFIX) + r"\w{8}")  # as tempfile names them
# In a staging folder: what is staged, the lock of its run and, while its files are being moved, those to be removed.
_FILES, _LOCK, _MOVING = "files", "lock", "moving.json"
_MAX_AGE = 3600  # s; older temporary files belong to no living run


@contextmanager
def result_folder(folder: Path, *, inputs: Sequence[Path] = (), overwrite: bool = False) -> Iterator[Path]:
    """A staging folder for the results of one run; at the end of the block they appear in `folder`.

    Its `provenance.json`, written last, names the files relative to it under "outputs". Files of an earlier run, known
    by its record, are removed or replaced; others stay. If the block raises, `folder` is as it was, and gone if it was
    not there. What `check_output_folder` refuses is refused before the block runs.
    """
    with output_errors(folder):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        if not missing and folder.is_dir():
            with output_errors(folder), one_at_a_time(folder):
                tidy_up(folder)
        check_output_folder(folder, inputs=inputs, overwrite=overwrite)
        with staging_folder(folder) as staged:
            yield staged
            with output_errors(folder), one_at_a_time(folder):
                check_output_folder(folder, overwrite=overwrite)  # another run may have been faster
                _publish(staged, folder)
    finally:
        for path in missing:
            with suppress(OSError):  # has the results, or was never created
                path.rmdir()


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder below `folder`, for files that are to be moved out of it; removed at the end.

    It is locked as long as it exists, so that no other run takes it for the leftovers of a killed one. Errors name
    `folder` in its place.
    """
    staging = lock = None
    try:
        # No other run tidies up before there is a lock.
        with uninterrupted(), output_errors(folder), one_at_a_time(folder):
            staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
            lock = acquire(staging / _LOCK)
            (files := staging / _FILES).mkdir()
        with named_as({files: folder}):
            yield files
    finally:
        if staging is not None:
            with uninterrupted(), one_at_a_time(folder):
                remove_locked(staging, lock)


def recorded_files(folder: Path, record: Path | str = RECORD, below: str = "") -> set[Path]:
    """The files of an earlier run that exist, according to its record, if it is one of this package.

    All paths are relative to `folder`. Files that are not below the subfolder `below` are ignored.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        content = json.loads(read_bytes(folder / record))
        if "jaxqmri" in content["versions"]:
            return {Path(name) for name in content["outputs"] if _is_file_below(folder / below, folder / name)}
    return set()


def _is_file_below(folder: Path, path: Path) -> bool:
    """What a record names is deleted, so it must not point elsewhere."""
    return path.is_file() and path.parent.resolve().is_relative_to(folder.resolve())


def _publish(staged: Path, folder: Path) -> None:
    stale = recorded_files(folder) - set(_files(staged))
    moving = staged.parent / _MOVING
    moving.write_text(json.dumps(sorted(map(str, stale))), encoding="utf-8")
    try:
        _move(staged, folder, stale)
    except KeyboardInterrupt:  # a few milliseconds more, and there is no mixture of two runs
        _move(staged, folder, stale)
        raise
    moving.unlink()


def _move(staged: Path, folder: Path, stale: set[Path]) -> None:
    """Moves the new files to their places and removes the stale ones; done again, it completes what was begun."""
    new = sorted(_files(staged), key=lambda path: path == Path(RECORD))  # stable: .json stays before its .nii.gz
    begins = Path(RECORD) in new  # else its new record is in its place
    replace_files(folder, {staged / path: path for path in new}, stale, RECORD if begins else None)


def replace_files(folder: Path, places: Mapping[Path, Path], stale: Iterable[Path], record: Path | str | None) -> None:
    """Moves files to their places, in order, and removes stale ones and the folders these leave empty.

    The old record goes first, then all old files, and the new record comes last: a kill in between leaves whole files,
    old or new ones, and no record, never a mixture. Places, by staged file, and all else are relative to `folder`.
    """
    for place in places.values():
        if (folder / place).is_dir():  # known before anything is removed
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / place))
    if record is not None:
        (folder / record).unlink(missing_ok=True)
    for path in sorted({*stale, *places.values()}, reverse=True):  # a .nii.gz before its .json
        (folder / path).unlink(missing_ok=True)
    for path in stale:
        with suppress(OSError):  # not empty
            (folder / path).parent.rmdir()
    for path, place in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        path.replace(folder / place)
    sync_folders((folder / place).parent for place in places.values())


def _files(staged: Path) -> list[Path]:
    """All files, relative to the folder, sorted."""
    return sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())


def tidy_up(folder: Path) -> None:
    """Removes what killed runs left, or completes it where their files were being moved, with a remark."""
    for staging in [path for path in folder.iterdir() if _STAGING.fullmatch(path.name) and path.is_dir()]:
        with suppress(Timeout):  # its run is alive
            lock = acquire(staging / _LOCK)
            if lock is None:  # it has ended in this moment, or belongs to another user
                continue
            try:
                done = _complete(staging, folder)
            except OSError:
                release(lock)
                raise
            remove_locked(staging, lock)
            remark(f"{folder}: the leftovers of a run that was killed {done}.")
    for path in [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]:
        with suppress(FileNotFoundError, PermissionError):  # removed by another run, or another user's
            if time.time() - path.lstat().st_mtime > _MAX_AGE:
                path.unlink()


def _complete(staging: Path, folder: Path) -> str:
    """Moves the files of a run that was killed while it moved them; says what became of its files."""
    try:
        named = json.loads(read_bytes(staging / _MOVING))
        stale = {Path(name) for name in named if _is_file_below(folder, folder / name)}
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        # Killed before, or while it wrote the list: nothing has moved.
        return "were removed"
    _move(staging / _FILES, folder, stale)
    return "were complete and are in their places now"
