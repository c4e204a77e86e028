"""Public data sets: downloaded once, checked against the published hash, unpacked into the user's cache.

`pooch` keeps cache, registry and hashes. `zenodo_get` downloads, in a process of its own: imported, it would take over
Ctrl-C and change the working directory, and its licence (AGPL) differs from ours. It does not write atomically and
reports success for a file that the record lacks, so it writes into a scratch folder.

Layout of the cache: `<cache>/<name>/<file>.zip` as published, and beside it `<file>-<md5>/` with its contents. That
folder appears in one step once the archive is verified, so it is complete.

Environment: `JAXQMRI_DATA_DIR` moves the cache; `JAXQMRI_OFFLINE=1` forbids any use of the network.
"""

import glob
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired
from typing import Any

import pooch

from .errors import DatasetUnavailableError, OutputError, UsageError
from .io.storage.unpacking import unpack

DOWNLOAD_TIMEOUT = 300.0  # s, for the whole transfer; the sets are small
_RETRIES = ["--retry", "1", "--pause", "1", "--time-out", "25", "--max-http-retries", "2", "--backoff-factor", "0.5"]
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Dataset:
    """One published archive of images."""

    name: str  # on the command line, and its folder in the cache
    title: str  # of the publication
    description: str
    record: str  # number of the Zenodo record
    doi: str  # of the record
    file: str  # the zip archive in the record
    size_kb: float  # as the record states it [kB]
    md5: str  # published hash of the archive

    @property
    def url(self) -> str:
        """The archive, for a browser."""
        return f"https://zenodo.org/records/{self.record}/files/{self.file}"

    @property
    def archive(self) -> Path:
        """As published, in the cache."""
        return cache_dir() / self.name / self.file

    @property
    def folder(self) -> Path:
        """Its unpacked files, once fetched."""
        return self.archive.with_name(f"{self.archive.stem}-{self.md5[:8]}")

    @property
    def cached(self) -> bool:
        """Whether `fetch` needs no network."""
        return self.folder.is_dir() or _md5(self.archive) == self.md5


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
    """The folder of all data sets: `JAXQMRI_DATA_DIR`, else the cache folder of the platform. It may not exist yet."""
    return Path(os.environ.get("JAXQMRI_DATA_DIR") or pooch.os_cache("jaxqmri")).expanduser().absolute()


def list_datasets() -> list[Dataset]:
    """Every known data set."""
    return list(DATASETS.values())


def fetch(name: str, *, progress: bool = False) -> Path:
    """Folder with the files of a public data set; downloaded, verified and unpacked on first use.

    The files are for reading only, as everything that uses the cache shares them. An archive put into the cache by hand
    is verified and used without the network. `progress` says on stderr what is being downloaded.
    """
    if name not in DATASETS:
        raise UsageError(f"no data set is called {name!r}; known are: {', '.join(DATASETS)}.")
    dataset = DATASETS[name]
    if not dataset.folder.is_dir():
        archive = _verified_archive(dataset, progress)
        try:
            unpack(archive, dataset.folder)
        except OutputError:
            if not dataset.folder.is_dir():  # else another process was faster, and the folder is complete
                raise
    return dataset.folder


def _md5(archive: Path) -> str | None:
    return pooch.file_hash(str(archive), alg="md5") if archive.is_file() else None


def _verified_archive(dataset: Dataset, progress: bool) -> Path:
    """The archive in the cache, downloaded unless the published one is there."""
    key = f"{dataset.name}/{dataset.file}"
    store = pooch.create(path=cache_dir(), base_url="", registry={key: f"md5:{dataset.md5}"}, urls={key: dataset.url})

    def downloader(*call: Any, **_: Any) -> None:  # pooch passes the URL, a temporary name in the cache, and itself
        _download(dataset, Path(call[1]), progress)

    def is_other(record: logging.LogRecord) -> bool:
        return key not in (record.args or ())

    # `progress` decides what is said about a download; other users of pooch keep its messages.
    pooch.get_logger().addFilter(is_other)
    try:
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
    finally:
        pooch.get_logger().removeFilter(is_other)


def _download(dataset: Dataset, target: Path, progress: bool) -> None:
    """Puts the file of the record at `target`, unverified."""
    if os.environ.get("JAXQMRI_OFFLINE", "") not in ("", "0"):
        raise _unavailable(dataset, "JAXQMRI_OFFLINE is set, so the network is not used")
    if progress:
        words = f"Downloading {dataset.file} ({dataset.size_kb:g} kB) from {dataset.url} ..."
        print(words, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as scratch:
        # -P: no modules from the working directory.
        command = [sys.executable, "-P", "-m", "zenodo_get", dataset.record, "--glob", glob.escape(dataset.file)]
        command += ["--output-dir", scratch, "--verbosity", "1", *_RETRIES]
        environment = {**os.environ, "PYTHONUTF8": "1"}
        with Popen(
            command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, encoding="utf-8", errors="replace", env=environment
        ) as process:
            try:
                output, _ = process.communicate(timeout=DOWNLOAD_TIMEOUT)
            except TimeoutExpired as error:
                raise _unavailable(dataset, f"no complete answer within {DOWNLOAD_TIMEOUT:g} s") from error
            finally:  # also on Ctrl-C
                process.kill()
                process.wait()
        downloaded = Path(scratch) / dataset.file
        if process.returncode != 0 or not downloaded.is_file():
            status = process.returncode
            why = f"zenodo_get ended with status {status}" if status else "the record has no such file"
            raise _unavailable(dataset, _cause(output) or why)
        downloaded.replace(target)


def _cause(output: str) -> str:
    """The first complaint in the output of zenodo_get (later ones follow from it), else the last line."""
    lines = [line.strip() for line in _COLOUR.sub("", output).splitlines() if line.strip()]
    complaints = [line.split(": ", 1)[1] for line in lines if line.startswith(("ERROR: ", "WARNING: "))]
    return (complaints + lines[-1:] + [""])[0][:300]


def _unavailable(dataset: Dataset, cause: str) -> DatasetUnavailableError:
    found = _md5(dataset.archive)
    if found not in (None, dataset.md5):
        cause = f"{cause}; the {dataset.file} in the cache has md5 {found} and is not the published one"
    return DatasetUnavailableError(
        f"{dataset.name}: data set not available ({cause}). Wanted: {dataset.file}, {dataset.size_kb:g} kB, md5 "
        f"{dataset.md5}, from {dataset.url} (doi:{dataset.doi}). Get it by hand, put it at {dataset.archive} and run "
        "again."
    )
