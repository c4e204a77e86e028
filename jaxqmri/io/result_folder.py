"""A folder of results: filled out of sight, then shown in one step.

Results are made in a hidden folder inside the target, so on the same disk. They move to their places once all of them
are there: a run that fails, is interrupted or meets a full disk changes nothing that was there before.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .atomic import output_errors
from .errors import OutputError
from .maps import check_output_folder

RECORD = "provenance.json"  # its "outputs" name the files of a run


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
    hidden = None
    try:
        check_output_folder(folder, inputs=inputs, overwrite=overwrite)
        with output_errors(folder):
            hidden = Path(tempfile.mkdtemp(prefix=".jaxqmri-", dir=folder))
        try:
            yield hidden
        except OutputError as error:
            raise OutputError(str(error).replace(str(hidden), str(folder))) from error
        with output_errors(folder), _one_at_a_time(folder):
            check_output_folder(folder, overwrite=overwrite)  # another run may have been faster
            _show(hidden, folder)
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
        for path in missing:
            with suppress(OSError):  # has the results, or was never created
                path.rmdir()


def recorded_files(folder: Path) -> set[Path]:
    """The files an earlier run left in `folder` according to its record, relative to it; empty if there is none."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if "jaxqmri" in record["versions"]:
            return {Path(name) for name in record["outputs"] if _is_file_below(folder, folder / name)}
    return set()


def _is_file_below(folder: Path, path: Path) -> bool:
    """Files are deleted by what the record says, so one that points elsewhere is not believed."""
    return path.is_file() and path.parent.resolve().is_relative_to(folder.resolve())


def _show(hidden: Path, folder: Path) -> None:
    """The old record goes first and the new one comes last: a kill in between leaves whole files and no record, never
    a record of other files than those that are there."""
    new = sorted(path.relative_to(hidden) for path in hidden.rglob("*") if path.is_file())
    new.sort(key=lambda path: path == Path(RECORD))  # stable: a sidecar, .json, stays before its image, .nii.gz
    stale = recorded_files(folder) - set(new)
    (folder / RECORD).unlink(missing_ok=True)
    for path in stale:
        (folder / path).unlink(missing_ok=True)
        if path.parent != Path():
            with suppress(OSError):  # not empty
                (folder / path.parent).rmdir()
    for path in new:
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        (hidden / path).replace(folder / path)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two runs into one folder take turns. The lock ends with its process, so a killed run leaves none behind."""
    try:
        import fcntl
    except ImportError:  # Windows, where the runs may mix
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network disks know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
