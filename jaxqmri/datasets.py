"""Public data sets: fetched once, checked against the published hash, unpacked into the user's cache.

`pooch` owns the cache, the registry and the hashes. The transfer itself is `zenodo_get`, as a program of its own:
imported, it would take over Ctrl-C and change the working directory of the process that asked for data, and its licence
(AGPL) differs from ours. It writes in place and reports success when the record has no such file, so it works in a
scratch folder and what it leaves there is judged before it enters the cache.

Layout of the cache: `<cache>/<name>/<file>.zip` as published, and beside it `<file>-<md5>/`, its contents. That folder
appears in one step after the archive was verified: its name is the proof that it is complete.

Environment: `JAXQMRI_DATA_DIR` moves the cache; `JAXQMRI_OFFLINE=1` forbids any use of the network.
"""

import glob
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pooch

from .errors import DatasetUnavailableError, OutputError, UsageError
from .io.storage.archive import unpack_zip

DOWNLOAD_TIMEOUT = 300.0  # s, for the whole transfer; the sets are small, a stalled one should not look like work
_RETRIES = ["--retry", "1", "--pause", "1", "--time-out", "25", "--max-http-retries", "2", "--backoff-factor", "0.5"]
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Dataset:
    """One published archive of images.

    Attributes:
        name: what the command line calls it; also its folder in the cache.
        title: the publication's own title.
        description: what is in it.
        record: number of the Zenodo record.
        doi: persistent identifier of the record.
        file: name of the zip archive in the record.
        size_kb: size of the archive as the record states it, rounded [kB].
        md5: the archive's published hash.
        licence: the terms of use.
    """

    name: str
    title: str
    description: str
    record: str
    doi: str
    file: str
    size_kb: float
    md5: str
    licence: str = "see the record"

    @property
    def url(self) -> str:
        """Where a browser gets the archive."""
        return f"https://zenodo.org/records/{self.record}/files/{self.file}"


class Listing(NamedTuple):
    """A data set and its place on this computer."""

    dataset: Dataset
    folder: Path  # its unpacked files, once fetched
    cached: bool  # fetch() needs no network


DATASETS: Mapping[str, Dataset] = {
    "ismrm2024-t2star": Dataset(
        name="ismrm2024-t2star",
        title="QMRI Challenge ISMRM 2024: T2* mapping",
        description="multi-echo gradient echo, 11 DICOM files with one echo each",
        record="10868361",
        doi="10.5281/zenodo.10868361",
        file="T2star.zip",
        size_kb=445.8,
        md5="f387357a0b4024ca62e979203eff9def",
    )
}


def cache_dir() -> Path:
    """Where data sets are kept: `JAXQMRI_DATA_DIR`, else the cache folder of the platform. It may not exist yet."""
    return Path(os.environ.get("JAXQMRI_DATA_DIR") or pooch.os_cache("jaxqmri")).expanduser().absolute()


def list_datasets() -> list[Listing]:
    """Every known data set, where its files are or will be, and whether it can be had without the network."""
    return [Listing(dataset, _folder(dataset), _is_cached(dataset)) for dataset in DATASETS.values()]


def fetch(name: str, *, progress: bool = False) -> Path:
    """Folder with the files of a public data set; downloaded, verified and unpacked on first use.

    An archive put into the cache by hand is verified and used without the network.

    Args:
        name: one of `DATASETS`.
        progress: say on stderr what is being downloaded.

    Returns:
        The folder of the unpacked files. Treat it as read-only: it is shared by everything that uses the cache.

    Raises:
        UsageError: no data set of that name is known.
        DatasetUnavailableError: it could not be downloaded, is not the published file, or `JAXQMRI_OFFLINE` is set;
            the message says what to put where by hand.
        CorruptInputError: the published archive cannot be unpacked safely.
        OutputError: the cache cannot be written.
    """
    if name not in DATASETS:
        raise UsageError(f"no data set is called {name!r}; known are: {', '.join(DATASETS)}.")
    dataset = DATASETS[name]
    folder = _folder(dataset)
    if folder.is_dir():
        return folder
    archive = _verified_archive(dataset, progress)
    try:
        unpack_zip(archive, folder)
    except OutputError:
        if not folder.is_dir():  # else another process was faster, and the folder is complete
            raise
    return folder


def _archive(dataset: Dataset) -> Path:
    return cache_dir() / dataset.name / dataset.file


def _folder(dataset: Dataset) -> Path:
    archive = _archive(dataset)
    return archive.with_name(f"{archive.stem}-{dataset.md5[:8]}")


def _is_cached(dataset: Dataset) -> bool:
    archive = _archive(dataset)
    return _folder(dataset).is_dir() or (archive.is_file() and _md5(archive) == dataset.md5)


def _md5(path: Path) -> str:
    return pooch.file_hash(str(path), alg="md5")


def _is_offline() -> bool:
    return os.environ.get("JAXQMRI_OFFLINE", "") not in ("", "0")


def _verified_archive(dataset: Dataset, progress: bool) -> Path:
    """The archive in the cache, downloaded if it is not there or is not the published one."""
    key = f"{dataset.name}/{dataset.file}"
    store = pooch.create(path=cache_dir(), base_url="", registry={key: f"md5:{dataset.md5}"}, urls={key: dataset.url})

    def downloader(*call: Any, **_: Any) -> None:  # pooch passes the URL, a temporary name in the cache, and itself
        _download(dataset, Path(call[1]), progress)

    try:
        with _unannounced(key):
            return Path(store.fetch(key, downloader=downloader))
    except DatasetUnavailableError:
        raise
    except ValueError as error:  # pooch compared the hashes and removed what was downloaded
        raise _unavailable(dataset, f"{error}".split(" Deleted ")[0].rstrip(".")) from error
    except OSError as error:
        raise OutputError(
            f"{cache_dir()}: the cache cannot be written ({error.strerror or type(error).__name__}), so {dataset.name} "
            "cannot be kept; set JAXQMRI_DATA_DIR to a folder that can."
        ) from error


@contextmanager
def _unannounced(key: str) -> Iterator[None]:
    """pooch announces every download on stderr; here that is for `progress` to decide. Other users of pooch keep it."""

    def is_not_ours(record: logging.LogRecord) -> bool:
        return key not in (record.args or ())

    logger = pooch.get_logger()
    logger.addFilter(is_not_ours)
    try:
        yield
    finally:
        logger.removeFilter(is_not_ours)


def _download(dataset: Dataset, target: Path, progress: bool) -> None:
    """Puts what the record holds at `target`, unverified; raises DatasetUnavailableError if there is nothing."""
    if _is_offline():
        raise _unavailable(dataset, "JAXQMRI_OFFLINE is set, so the network is not used")
    if progress:
        print(
            f"Downloading {dataset.file} ({dataset.size_kb:g} kB) from {dataset.url} ...", file=sys.stderr, flush=True
        )
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as scratch:
        said = _run_zenodo_get(dataset, scratch)
        downloaded = Path(scratch) / dataset.file
        if not downloaded.is_file():
            raise _unavailable(dataset, said)
        downloaded.replace(target)


def _run_zenodo_get(dataset: Dataset, scratch: str) -> str:
    """Downloads into `scratch` and returns what went wrong, or what was said last; raises if it failed for sure."""
    # -P: the folder the user happens to be in must not supply modules to the child.
    command = [sys.executable, "-P", "-m", "zenodo_get", dataset.record, "--glob", glob.escape(dataset.file)]
    command += ["--output-dir", scratch, "--verbosity", "1", *_RETRIES]
    try:
        # run() kills the child on a time-out and on Ctrl-C alike.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUTF8": "1"},
            timeout=DOWNLOAD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unavailable(dataset, f"no complete answer within {DOWNLOAD_TIMEOUT:g} s") from error
    cause = _cause(done.stdout)
    if done.returncode != 0:
        raise _unavailable(dataset, cause or f"zenodo_get ended with status {done.returncode}")
    return cause or "the record has no such file"


def _cause(output: str) -> str:
    """The first complaint in what zenodo_get printed: the later ones only say that it gave up."""
    lines = [line.strip() for line in _COLOUR.sub("", output).splitlines() if line.strip()]
    complaints = [line.split(": ", 1)[1] for line in lines if line.startswith(("ERROR: ", "WARNING: "))]
    if complaints:
        return complaints[0][:300]
    return lines[-1][:300] if lines else ""


def _unavailable(dataset: Dataset, cause: str) -> DatasetUnavailableError:
    archive = _archive(dataset)
    if archive.is_file() and (found := _md5(archive)) != dataset.md5:
        cause = f"{cause}; the {archive.name} in the cache has md5 {found} and is not the published one"
    return DatasetUnavailableError(
        f"{dataset.name}: data set not available ({cause}). Wanted: {dataset.file}, {dataset.size_kb:g} kB, md5 "
        f"{dataset.md5}, from {dataset.url} (doi:{dataset.doi}). Get it by hand, put it at {archive} and run again."
    )
