"""Atomic writes: a temporary file beside the target, synced to disk, then renamed over it."""

import errno
import json
import math
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import OutputError

TEMPORARY = re.compile(r"\.jaxqmri-[0-9a-f]{16}\.tmp")  # left by a run that was killed while it wrote a file
REMEDIES = {
    errno.ENOSPC: "Free some space or choose another folder.",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f) or choose another folder.",
    errno.EDQUOT: "Free some of your quota or choose another folder.",
    errno.EROFS: "Choose a folder on a disk that can be written.",
    errno.EACCES: "Choose a folder you may write to.",
    errno.EPERM: "Choose a folder you may write to.",
    errno.ENOENT: "Create the folder first.",
}


def write_bytes(path: Path | str, data: bytes) -> None:
    """Writes one file into an existing folder; where it cannot, an old file of this name is still as it was."""
    write_files({Path(path): data})


def write_text(path: Path | str, text: str) -> None:
    """The same of UTF-8 text, line ends as given."""
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_files(files: Mapping[Path, bytes]) -> None:
    """Writes several files that belong together.

    All of them are on disk under temporary names before the first is renamed, so a full disk changes none, and none of
    these names is left. They are renamed in the order given: a reader that sees the last one sees those before it.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            with output_errors(path):
                staged[path] = _temporary_name(path.parent)
                _write_through(staged[path], data)
        for path, temporary in staged.items():
            with output_errors(path):
                temporary.replace(path)
        sync_folders(path.parent for path in staged)
    finally:  # also on Ctrl-C
        for temporary in staged.values():
            with suppress(OSError):  # the folder may be what failed
                temporary.unlink(missing_ok=True)


def sync_folders(folders: Iterable[Path]) -> None:
    """Syncs the entries of folders to disk, so that new names survive a power cut."""
    if sys.platform == "win32":  # folders cannot be opened there
        return
    for folder in dict.fromkeys(folders):
        with suppress(OSError):  # some network disks refuse; the files themselves are synced
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Creates a folder where there is none and tries whether files can be written there.

    Permission bits do not tell: the superuser passes them, a read-only mount ignores them.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = _temporary_name(folder)
        try:
            _write_through(probe, b"\0")
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns any OSError within the block into an OutputError about `path`, one line with a remedy."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "Choose another output folder.")
        reason = error.strerror or type(error).__name__
        raise OutputError(f"cannot write {path}: {reason}; no half-written file was left. {remedy}") from error


def strict_json(content: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """JSON every parser accepts: NaN and infinity become null, numpy numbers plain ones; indented, key order kept.

    What is no Unicode (lone surrogates) becomes "?"; `ascii_only`, for streams of any encoding, escapes it as well.
    """
    text = json.dumps(_plain(content), allow_nan=False, ensure_ascii=ascii_only, indent=2)
    return text.encode(errors="replace").decode() + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _temporary_name(folder: Path) -> Path:
    # Hidden and without the suffix of an image, so that no reader takes it for one.
    return folder / f".jaxqmri-{secrets.token_hex(8)}.tmp"


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb") as file:  # not tempfile: its files are private to the user whatever the umask says
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
