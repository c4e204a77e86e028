"""From files to files: read, fit, write the maps, draw the report, and leave a record of how it was done."""

import hashlib
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from . import __version__
from .estimation.fit import Status
from .figures import maps_figure, png_bytes
from .io.atomic import strict_json, write_bytes, write_files
from .io.images import read_images
from .io.maps import Maps, check_output_folder, write_maps
from .io.nifti import read_mask
from .io.series import ImageSeries
from .models.base import simulate
from .models.decay import Decay, MonoExponential
from .pipelines import t2star_map
from .report import ReportInput, VoxelFits, report_html

PROVENANCE = "provenance.json"
PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "pydicom", "highdicom", "nibabel", "matplotlib")

Rows = Sequence[Mapping[str, object]]


@dataclass
class JobResult:
    """What a job did.

    Attributes:
        out: the folder of the results.
        series: the images.
        maps: what was written.
        files: names of the files written, in `out`.
        timings: step -> seconds.
        warnings: what was mended or passed over.
        regions: rows comparing regions with the truth, where it is known.
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
        """The numbers of the job, ready for JSON: medians and quartiles in SI units over the fitted voxels."""
        ok = self.maps["status"] == Status.OK
        quartiles = {
            name: dict(zip(("q25", "median", "q75"), np.percentile(values[ok], [25, 50, 75]).tolist(), strict=True))
            for name, values in self.maps.items()
            if name != "status" and ok.any()
        }
        return {
            "out": str(self.out),
            "files": self.files,
            "n_voxels": int(ok.size),
            "echo_times_s": [float(f"{t:.12g}") for t in self.series.te],
            "status": self.status_counts(),
            "maps": quartiles,
            "regions": [dict(row) for row in self.regions],
            "timings_s": {step: round(seconds, 4) for step, seconds in self.timings.items()},
            "warnings": self.warnings,
        }


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
    compare: Callable[[Maps], Rows] | None = None,
) -> JobResult:
    """T2* maps from a folder of images, written to a folder.

    Args:
        inputs: a folder of DICOM or NIfTI files, or the files.
        out: folder for the results; it may be there if it is empty.
        method: "lm", "loglinear" or "adam", see `t2star_map`.
        mask: "none", "auto", or a NIfTI file on the grid of the images.
        te: (echo,) echo times [s] that replace those in the files.
        overwrite: replace the results of an earlier run.
        report: also draw `T2starmap.png` and `report.html`.
        quiet: no progress bar, even on a terminal.
        timings: what was spent before, to be recorded.
        compare: maps -> rows of a table that holds them against a known truth.

    Raises:
        OutputError: `out` cannot take the results; found before anything is computed.
        NoInputError, CorruptInputError, MetadataError, UsageError: see `read_images`.
    """
    mask_files = [] if str(mask) in ("none", "auto") else [Path(mask)]
    check_output_folder(out, inputs=[*inputs, *mask_files], overwrite=overwrite)
    earlier = _outputs_of_earlier_run(out)
    clock = _Clock(dict(timings or {}))
    with _recorded_warnings() as remarks:
        with _progress("reading", quiet), clock("reading"):
            series = read_images(inputs, te)
            where = read_mask(mask_files[0], series) if mask_files else (None if mask == "none" else "auto")
        n_voxels = int(np.prod(series.data.shape[:3]))
        with _progress("fitting", quiet, n_voxels) as bar, clock("fitting", compiling="compiling"):
            maps = t2star_map(series, method=method, mask=where, progress=bar.update)
        result = JobResult(out, series, maps, timings=clock.seconds, warnings=remarks)
        if compare is not None:
            result.regions = compare(maps)
        command = f"jaxqmri t2star INPUT -o OUT --method {method} --mask {'FILE' if mask_files else mask}"
        command += "" if te is None else " --te-ms " + " ".join(f"{1e3 * t:g}" for t in te)
        with _progress("writing", quiet), clock("writing"):
            result.files = [file for name in maps for file in (f"{name}.nii.gz", f"{name}.json")]
            write_maps(out, maps, series, overwrite=overwrite)
            if report:
                result.files += ["T2starmap.png", "report.html"]
                write_files(_pictures(result, command))
        result.files.append(PROVENANCE)
        arguments = {"method": method, "mask": "FILE" if mask_files else mask, "te_s": te, "report": report}
        write_bytes(out / PROVENANCE, strict_json(_provenance(result, command, arguments)).encode())
        _remove_stale(out, earlier, result.files)
    return result


def _pictures(result: JobResult, command: str) -> dict[Path, bytes]:
    maps, series = result.maps, result.series
    picture = png_bytes(maps_figure(maps, series.affine))
    page = report_html(
        ReportInput(
            title="T2* map",
            maps=maps,
            affine=series.affine,
            te=series.te,
            status_names={int(status): status.name for status in Status},
            facts=_facts(series, maps),
            regions=result.regions,
            timings=result.timings,
            warnings=result.warnings,
            command=command,
            versions=versions(),
            voxel_fits=_example_fits(series, maps),
            echoes=series.data,
        )
    )
    return {result.out / "T2starmap.png": picture, result.out / "report.html": page.encode()}


def _facts(series: ImageSeries, maps: Maps) -> dict[str, str]:
    x, y, z, n = series.data.shape
    skipped = ", ".join(f"{count} {reason}" for reason, count in series.skipped.items())
    facts = {
        "Series": series.description,
        "Files": f"{series.n_files} {series.source_format}" + (f"; passed over: {skipped}" if skipped else ""),
        "Matrix": f"{x} × {y} × {z}, {n} echoes",
        "Voxel": " × ".join(f"{edge:.3g}" for edge in series.voxel_size) + " mm",
        "Scanner": _words(series, "Manufacturer", "ManufacturersModelName"),
        "Field strength": _with_unit(series, "MagneticFieldStrength", "T"),
        "Repetition time": _with_unit(series, "RepetitionTime", "s"),
        "Flip angle": _with_unit(series, "FlipAngle", "°"),
        "Model": str(maps.metadata["Equation"]),
        "Solver": str(maps.metadata["EstimationAlgorithm"]),
    }
    return {label: text for label, text in facts.items() if text}


def _words(series: ImageSeries, *keys: str) -> str:
    return " ".join(str(series.acquisition[key]) for key in keys if key in series.acquisition)


def _with_unit(series: ImageSeries, key: str, unit: str) -> str:
    value = series.acquisition.get(key)
    return f"{value:g} {unit}" if isinstance(value, int | float) else ""


def _example_fits(series: ImageSeries, maps: Maps, n_examples: int = 4) -> VoxelFits | None:
    """Voxels at evenly spaced ranks of T2*, so that short, usual and long decays are all seen."""
    ok = np.argwhere(maps["status"] == Status.OK)
    if not len(ok):
        return None
    by_t2star = ok[np.argsort(maps["T2starmap"][tuple(ok.T)], kind="stable")]
    ranks = np.linspace(0.05, 0.95, n_examples) * (len(by_t2star) - 1)
    chosen = tuple(by_t2star[np.unique(ranks.round().astype(int))].T)
    t2star, stderr = maps["T2starmap"][chosen], maps["T2starmap_stderr"][chosen]
    curve_te = np.linspace(0, series.te[-1] * 1.05, 100)
    curves = simulate(MonoExponential(curve_te), Decay(s0=maps["S0map"][chosen], t2=t2star))  # pyright: ignore
    labels = [
        f"voxel ({x}, {y}, {z}): T2* = {1e3 * t:.3g} ± {1e3 * e:.2g} ms"
        for x, y, z, t, e in zip(*chosen, t2star, stderr, strict=True)
    ]
    return VoxelFits(series.te, series.data[chosen], curve_te, np.asarray(curves), labels)


def versions() -> dict[str, str]:
    """Versions of everything that decides a number or a file."""
    ours = {"jaxqmri": __version__, "python": platform.python_version()}
    return ours | {package: version(package) for package in PACKAGES}


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


def _outputs_of_earlier_run(out: Path) -> list[str]:
    with suppress(OSError, ValueError, TypeError, KeyError):
        names = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))["outputs"]
        return [name for name in names if Path(name).name == name]
    return []


def _remove_stale(out: Path, earlier: Sequence[str], written: Sequence[str]) -> None:
    """A report of the last run beside the maps of this one would tell lies."""
    for name in set(earlier) - set(written):
        (out / name).unlink(missing_ok=True)


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

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return durations


@contextmanager
def _recorded_warnings() -> Iterator[list[str]]:
    """Collects the text of every warning, once, and lets it pass on."""
    texts: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def record(message, category, *args, **kwargs):
            if str(message) not in texts:
                texts.append(str(message))
                show(message, category, *args, **kwargs)

        warnings.showwarning = record
        yield texts


@contextmanager
def _progress(what: str, quiet: bool, total: int | None = None) -> Iterator[tqdm]:
    """A bar on stderr where that is a terminal; it leaves no trace."""
    style = {"unit": " voxels", "unit_scale": True} if total else {"bar_format": "{desc}"}
    with tqdm(total=total, desc=what, leave=False, disable=True if quiet else None, **style) as bar:
        yield bar
