"""A folder of results: filled out of sight, then shown in one step.

Results are made in a hidden folder inside the target, so on the same disk. They move to their places once all of them
are there: a run that fails, is interrupted or meets a full disk changes nothing that was there before. A run that is
killed leaves its hidden folder behind; the next run removes it or, where the files were already on the move, puts the
rest of them in their places.
"""

import json
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import InputWarning
from ..maps import check_output_folder
from .atomic import TEMPORARY, output_errors
from .hidden_folder import HIDDEN, hidden_folder, lock, one_at_a_time, unlock

RECORD = "provenance.json"  # its "outputs" name the files of a run
_MOVING = ".moving"  # in a hidden folder whose files are on the move: what has to go besides
_FORGOTTEN = 3600  # s; no temporary file of one file lives as long


@contextmanager
def result_folder(folder: Path, *, inputs: Sequence[Path] = (), overwrite: bool = False) -> Iterator[Path]:
    """A hidden folder to be filled with the results of one run; at the end of the block they appear in `folder`.

    Files of an earlier run, known by its record, are removed or replaced; others stay. If the block raises, `folder`
    is as it was, and gone if it was not there.

    Args:
        folder: where the results are to be; created where there is none.
        inputs: the files and folders read.
        overwrite: replace the results of an earlier run.

    Yields:
        A hidden folder. What is put there, subfolders too, is shown; the last file is `provenance.json`, which names
        them relative to the folder under "outputs".

    Raises:
        OutputError: `folder` cannot take the results, see `check_output_folder`; found before the block runs, save
            for a full disk or another run that was faster.
    """
    with output_errors(folder):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        if not missing and folder.is_dir():
            with output_errors(folder), one_at_a_time(folder):
                tidy_up(folder)
        check_output_folder(folder, inputs=inputs, overwrite=overwrite)
        with hidden_folder(folder) as hidden:
            yield hidden
            with output_errors(folder), one_at_a_time(folder):
                check_output_folder(folder, overwrite=overwrite)  # another run may have been faster
                _show(hidden, folder)
    finally:
        for path in missing:
            with suppress(OSError):  # has the results, or was never created
                path.rmdir()


def recorded_files(folder: Path, record: str = RECORD, below: str = "") -> set[Path]:
    """The files an earlier run left in `folder` according to its record.

    Args:
        folder: where the results are.
        record: its record, relative to `folder`.
        below: the subfolder that files must be in to be believed to be its own.

    Returns:
        The files that are there, relative to `folder`; none where there is no record, or one of something else.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads((folder / record).read_text(encoding="utf-8"))
        if "jaxqmri" in content["versions"]:
            return {Path(name) for name in content["outputs"] if _is_file_below(folder / below, folder / name)}
    return set()


def _is_file_below(folder: Path, path: Path) -> bool:
    """Files are deleted by what the record says, so one that points elsewhere is not believed."""
    return path.is_file() and path.parent.resolve().is_relative_to(folder.resolve())


def _show(hidden: Path, folder: Path) -> None:
    """Moves the new files to their places and removes those of the earlier run that have no successor."""
    stale = recorded_files(folder) - set(_files(hidden))
    (hidden / _MOVING).write_text(json.dumps(sorted(map(str, stale))), encoding="utf-8")
    try:
        _move(hidden, folder, stale)
    except KeyboardInterrupt:  # a few milliseconds more, and there is no mixture of two runs
        _move(hidden, folder, stale)
        raise


def _move(hidden: Path, folder: Path, stale: set[Path]) -> None:
    """The old record goes first and the new one comes last: a kill in between leaves whole files and no record, never
    a record of other files than those that are there. Doing it again completes what was begun."""
    new = sorted(_files(hidden), key=lambda path: path == Path(RECORD))  # stable: .json stays before its .nii.gz
    if Path(RECORD) in new:
        (folder / RECORD).unlink(missing_ok=True)
    for path in stale:
        (folder / path).unlink(missing_ok=True)
        if path.parent != Path():
            with suppress(OSError):  # not empty
                (folder / path.parent).rmdir()
    for path in new:
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        (hidden / path).replace(folder / path)


def _files(hidden: Path) -> list[Path]:
    """What a run has made, relative to its hidden folder, sorted."""
    found = (path.relative_to(hidden) for path in hidden.rglob("*") if path.is_file())
    return sorted(path for path in found if path != Path(_MOVING))


def tidy_up(folder: Path) -> None:
    """Removes what killed runs left, or completes it where their files were on the move; says so."""
    for hidden in [path for path in folder.iterdir() if HIDDEN.fullmatch(path.name) and path.is_dir()]:
        held = None
        with suppress(FileNotFoundError, PermissionError):  # its run has just ended, or was another user's
            held = lock(hidden)
        if held is None:  # its run is alive, or nobody can tell
            continue
        try:
            told = _complete(hidden, folder) if (hidden / _MOVING).exists() else "were removed"
            shutil.rmtree(hidden, ignore_errors=True)
        finally:
            unlock(held)
        warnings.warn(f"{folder}: the leftovers of a run that was killed {told}.", InputWarning, stacklevel=4)
    for path in [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]:
        with suppress(FileNotFoundError, PermissionError):  # another run has just removed it, or it is another user's
            if time.time() - path.lstat().st_mtime > _FORGOTTEN:
                path.unlink()


def _complete(hidden: Path, folder: Path) -> str:
    try:
        named = {Path(name) for name in json.loads((hidden / _MOVING).read_text(encoding="utf-8"))}
    except (ValueError, TypeError):  # killed while it wrote the list: nothing has moved yet
        return "were removed"
    _move(hidden, folder, {path for path in named if _is_file_below(folder, folder / path)})
    return "were complete and are in their places now"
