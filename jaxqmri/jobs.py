"""From files to files: read, fit, write the maps, draw the report, and leave a record of how it was done."""

import hashlib
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from . import __version__
from .estimation.fit import Status
from .io.atomic import strict_json, write_bytes, write_files
from .io.errors import CorruptInputError, InputWarning, NoInputError, UsageError
from .io.images import check_paths, read_images
from .io.maps import Maps, map_kind, write_maps
from .io.nifti import read_mask
from .io.result_folder import RECORD, result_folder
from .io.series import ImageSeries
from .pipelines import auto_mask, t2star_map

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "pydicom", "highdicom", "nibabel", "matplotlib")

Rows = Sequence[Mapping[str, object]]


@dataclass
class JobResult:
    """What a job did.

    Attributes:
        out: the folder of the results.
        series: the images.
        maps: what was written.
        files: the files written, relative to `out`.
        timings: step -> seconds.
        warnings: what was mended or passed over.
        regions: rows that hold regions against the truth, where it is known: SI units, errors as fractions.
    """

    out: Path
    series: ImageSeries
    maps: Maps
    files: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    regions: Rows = ()

    def status_counts(self) -> dict[str, int]:
        """How many voxels ended how, by name of the status; those that do not occur are left out."""
        counts = np.bincount(self.maps["status"].ravel(), minlength=len(Status))
        return {status.name: int(counts[status]) for status in Status if counts[status]}

    def summary(self) -> dict[str, Any]:
        """The numbers of the job, ready for JSON, in SI units; a map without a single value has no entry in `maps`."""
        finite = {name: values[np.isfinite(values)] for name, values in self.maps.items() if name != "status"}
        return {
            "out": str(self.out),
            "files": self.files,
            "n_voxels": int(self.maps["status"].size),
            "echo_times_s": [float(f"{t:.12g}") for t in self.series.te],
            "status": self.status_counts(),
            "maps": {name: _quartiles(values, name) for name, values in finite.items() if values.size},
            "regions": [dict(row) for row in self.regions],
            "timings_s": {step: round(seconds, 4) for step, seconds in self.timings.items()},
            "warnings": self.warnings,
        }


def _quartiles(values: np.ndarray, name: str) -> dict[str, float | str]:
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"units": map_kind(name).units, "q25": low, "median": median, "q75": high}


def run_t2star(
    inputs: Sequence[Path],
    out: Path,
    *,
    method: str = "lm",
    mask: str | Path = "none",
    te: Sequence[float] | None = None,
    overwrite: bool = False,
    report: bool = True,
    quiet: bool = True,
    timings: Mapping[str, float] | None = None,
) -> JobResult:
    """T2* maps from a folder of images, written to a folder.

    Args:
        inputs: a folder of DICOM or NIfTI files, or the files.
        out: folder for the results; it may be there if it is empty. If the job fails it stays as it was.
        method: "lm", "loglinear" or "adam", see `t2star_map`.
        mask: "none", "auto", or a NIfTI file on the grid of the images.
        te: (echo,) echo times [s] that replace those in the files.
        overwrite: replace the results of an earlier run.
        report: also draw `T2starmap.png` and `report.html`.
        quiet: no progress bar, even on a terminal.
        timings: what was spent before, to be recorded.

    Raises:
        OutputError: `out` cannot take the results; found before anything is computed.
        NoInputError, CorruptInputError, MetadataError, UsageError: see `read_images` and `read_mask`.
    """
    check_paths(inputs)
    sources = [*inputs, *([] if mask in ("none", "auto") else [_mask_file(mask)])]
    with result_folder(out, inputs=sources, overwrite=overwrite) as folder:
        result = fill_with_t2star(
            folder, inputs, method=method, mask=mask, te=te, report=report, quiet=quiet, timings=timings
        )
    result.out = out
    return result


def fill_with_t2star(
    folder: Path,
    inputs: Sequence[Path],
    *,
    method: str = "lm",
    mask: str | Path = "none",
    te: Sequence[float] | None = None,
    report: bool = True,
    quiet: bool = True,
    timings: Mapping[str, float] | None = None,
    compare: Callable[[Maps], Rows] | None = None,
) -> JobResult:
    """The same into a folder of `result_folder`; what is in it already is recorded as part of the results.

    Args:
        folder: an existing folder.
        inputs, method, mask, te, report, quiet, timings: see `run_t2star`.
        compare: maps -> the rows of `JobResult.regions`.
    """
    if report:
        _load_matplotlib_meanwhile()
    clock = _Clock(dict(timings or {}))
    with _recorded_warnings() as remarks:
        with _progress("reading", quiet), clock("reading"):
            series = read_images(inputs, te)
            where = _where_to_fit(mask, series)
        n_voxels = int(np.prod(series.data.shape[:3]) if where is None else where.sum())
        with _progress("fitting", quiet, n_voxels) as advance, clock("fitting", compiling="compiling"):
            maps = t2star_map(series, method=method, mask=where, progress=advance)
        result = JobResult(folder, series, maps, timings=clock.seconds, warnings=remarks)
        _warn_if_nothing_fitted(result)
        if compare is not None:
            result.regions = compare(maps)
        command = _command(method, mask, te, report)
        with _progress("writing", quiet), clock("writing"):
            write_maps(folder, maps, series)
            if report:
                write_files(_pictures(result, command))
        written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        result.files = [*written, RECORD]
        arguments = {"method": method, "mask": _mask_kind(mask), "te_s": te, "report": report}
        write_bytes(folder / RECORD, strict_json(_provenance(result, command, arguments)).encode())
    return result


def _mask_file(mask: str | Path) -> Path:
    """Refuses what is no file before images are read."""
    file = Path(mask)
    if file.is_dir():
        raise UsageError(f"--mask {mask}: is a folder; name a NIfTI file on the grid of the images, or auto or none.")
    if not file.exists():
        raise NoInputError(f"--mask {mask}: no such file; name a NIfTI file on the grid of the images, auto or none.")
    return file


def _mask_kind(mask: str | Path) -> str:
    return str(mask) if mask in ("none", "auto") else "FILE"


def _where_to_fit(mask: str | Path, series: ImageSeries) -> np.ndarray | None:
    if mask == "none":
        return None
    if mask != "auto":
        return read_mask(mask, series)
    found = auto_mask(series.data)
    if not found.any():
        raise CorruptInputError(
            "the automatic mask is empty, as nothing in the first echo stands out from air; look at the images, or fit "
            "every voxel with --mask none."
        )
    return found


def _warn_if_nothing_fitted(result: JobResult) -> None:
    counts = result.status_counts()
    if Status.OK.name not in counts:
        reasons = ", ".join(f"{n} {name}" for name, n in counts.items())
        warnings.warn(
            f"no voxel could be fitted ({reasons}), so all maps are empty; look at the images and their echo times.",
            InputWarning,
            stacklevel=2,
        )


def _command(method: str, mask: str | Path, te: Sequence[float] | None, report: bool) -> str:
    """How to run it again, without the paths."""
    words = ["jaxqmri t2star INPUT -o OUT", f"--method {method}", f"--mask {_mask_kind(mask)}"]
    if te is not None:
        words.append("--te-ms " + " ".join(f"{1e3 * t:.10g}" for t in te))
    if not report:
        words.append("--no-report")
    return " ".join(words)


def in_words(regions: Rows) -> Rows:
    """Rows of `JobResult.regions` for people: times in ms, fractions in %, rounded."""
    return [dict(_in_words(key, value) for key, value in row.items()) for row in regions]


def _in_words(key: str, value: object) -> tuple[str, object]:
    if not isinstance(value, float):
        return key, value
    in_seconds = key.endswith("_s")
    name = key.removesuffix("_s").replace("_", " ").replace("T2star", "T2*")
    return f"{name} [{'ms' if in_seconds else '%'}]", round(value * (1e3 if in_seconds else 100), 2)


def _load_matplotlib_meanwhile() -> None:
    """It takes half a second, and XLA's compiler leaves a processor free."""
    Thread(target=import_module, args=(".pages", __package__), daemon=True).start()


def _pictures(result: JobResult, command: str) -> dict[Path, bytes]:
    from .pages import pages  # loaded meanwhile

    drawn = pages(
        result.series,
        result.maps,
        regions=in_words(result.regions),
        timings=result.timings,
        warnings=result.warnings,
        command=command,
        versions=versions(),
    )
    return {result.out / name: content for name, content in drawn.items()}


def versions() -> dict[str, str]:
    """Versions of everything that decides a number or a file."""
    found = {"jaxqmri": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_in_use() -> str:
    """The device that new arrays go to, in words."""
    device = jax.numpy.zeros(()).devices().pop()
    return f"{device.platform}:{device.id} {device.device_kind}"


def _provenance(result: JobResult, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Neither paths nor file names of the input: they often carry names of patients."""
    series = result.series
    content = hashlib.sha256(np.ascontiguousarray(series.data).tobytes() + series.te.tobytes())
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "arguments": dict(arguments),
        "input": {
            "format": series.source_format,
            "n_files": series.n_files,
            "skipped": dict(series.skipped),
            "shape": list(series.data.shape),
            "echo_times_s": [float(f"{t:.12g}") for t in series.te],
            "sha256_of_images_and_echo_times": content.hexdigest(),
        },
        "method": result.maps.metadata,
        "status": result.status_counts(),
        "device": device_in_use(),
        "versions": versions(),
        "platform": platform.platform(),
        "timings_s": {step: round(seconds, 4) for step, seconds in result.timings.items()},
        "warnings": result.warnings,
        "outputs": result.files,
    }


class _Clock:
    """Wall-clock seconds by step; JAX's own compilation time is taken out of a step and put under its own name."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds

    @contextmanager
    def __call__(self, step: str, compiling: str | None = None) -> Iterator[None]:
        compiled_before, start = sum(_compilations()), time.perf_counter()
        yield
        elapsed, compiled = time.perf_counter() - start, sum(_compilations()) - compiled_before
        if compiling is not None:
            self.seconds[compiling] = min(compiled, elapsed)
            elapsed -= self.seconds[compiling]
        self.seconds[step] = elapsed


@cache
def _compilations() -> list[float]:
    """Seconds of each step of tracing, lowering and compiling in this process, from now on."""
    durations: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            durations.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return durations


@contextmanager
def _recorded_warnings() -> Iterator[list[str]]:
    """Collects what was mended or passed over, and lets every warning pass on.

    Warnings of other libraries are not collected: pydicom's name files, and with them people.
    """
    texts: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def record(message, category, *args, **kwargs):
            if issubclass(category, InputWarning) and str(message) not in texts:
                texts.append(str(message))
            with tqdm.external_write_mode(file=sys.stderr):  # not behind a progress bar
                show(message, category, *args, **kwargs)

        warnings.showwarning = record
        yield texts


@contextmanager
def _progress(what: str, quiet: bool, n_voxels: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; it leaves no trace."""
    style: dict[str, Any] = {"unit": " voxels", "unit_scale": True} if n_voxels else {"bar_format": "{desc}"}
    with tqdm(total=n_voxels, desc=what, leave=False, disable=True if quiet else None, **style) as bar:

        def advance(n: int) -> None:
            bar.update(n)

        yield advance
