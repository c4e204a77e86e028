"""From files to files: read, fit, write the maps, draw the report, and leave a record of how it was done.

A job says what is estimated; `run_job` does everything else and is the same for all of them. The jobs are in `jobs`.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from ..errors import CorruptInputError, InputWarning, NoInputError, UsageError
from ..io.images import check_paths, read_images
from ..io.maps import Maps, write_maps
from ..io.negative import Negative
from ..io.nifti.reader import read_mask
from ..io.series import ImageSeries
from ..io.storage.atomic import strict_json, write_bytes, write_files
from ..io.storage.result_folder import RECORD, result_folder
from ..mapping import auto_mask
from ..quantities import Status, map_kind
from .interrupts import stop_if_asked
from .provenance import Clock, input_facts, recorded_warnings, surroundings, versions

Rows = Sequence[Mapping[str, object]]
DicomOut = Literal["no", "anonymous", "keep"]
Voxels = tuple[np.ndarray, ...]  # indices along x, y and z
Curves = Callable[
    [Voxels], tuple[np.ndarray, np.ndarray]
]  # voxels -> (point,) values of the axis, (voxel, point) signals


class Estimate(NamedTuple):
    """What a job estimated.

    Attributes:
        maps: the maps, `status` among them.
        curves: what the fitted model predicts for some voxels.
        compare: rows that hold the model against a simpler one, for the report; None: there is none.
    """

    maps: Maps
    curves: Curves
    compare: Callable[[], Rows] | None = None


@dataclass(frozen=True)
class Job:
    """One kind of map from one kind of series.

    Attributes:
        word: its subcommand.
        label: what it measures, in print ("T2*").
        main_map: the map of it.
        estimate: series, mask, progress -> the estimate; `progress` takes the number of voxels done after each batch.
        options: the words on the command line that choose all this, FILE in place of a path.
        arguments: the same for the record, in SI units.
        files: option -> image read beside the series.
        axes: what has to vary between the images, "te", "ti" or "flip_angle"; of several, what the images vary.
        component: which images, "magnitude" or "real"; None: as `read_images` chooses.
        given: (n,) values of the one axis that replace those in the files [s] or [rad].
        series: numbers of the series to read, or how their UIDs begin; empty: those that fit together.
        negative: what becomes of negative magnitudes, "keep" or "abs", see `settle_negative`.
    """

    word: str
    label: str
    main_map: str
    estimate: Callable[[ImageSeries, np.ndarray | None, Callable[[int], None]], Estimate]
    options: Sequence[str] = ()
    arguments: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    axes: Sequence[str] = ("te",)
    component: str | None = None
    given: Sequence[float] | None = None
    series: Sequence[str] = ()
    negative: Negative = "keep"


@dataclass
class JobResult:
    """What a job did.

    Attributes:
        job: the job.
        out: the folder of the results.
        series: the images.
        maps: what was written.
        files: the files written, relative to `out`.
        timings: step -> seconds.
        warnings: what was mended or passed over.
        regions: rows that hold regions against the truth, where it is known: SI units, errors as fractions.
        models: rows that hold the model against a simpler one, where the report does so: SI units, fractions.
    """

    job: Job
    out: Path
    series: ImageSeries
    maps: Maps
    files: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    regions: Rows = ()
    models: Rows = ()

    def status_counts(self) -> dict[str, int]:
        """How many voxels ended how, by name of the status; those that do not occur are left out."""
        counts = np.bincount(self.maps["status"].ravel(), minlength=len(Status))
        return {status.name: int(counts[status]) for status in Status if counts[status]}

    def values_found(self, name: str) -> np.ndarray:
        """(voxel,) what a map says where the fit went well; saturated voxels are no part of it."""
        values = self.maps[name]
        return values[np.isfinite(values) & (self.maps["status"] == Status.OK)]

    def summary(self) -> dict[str, Any]:
        """The numbers of the job, ready for JSON, in SI units; a map without a single value has no entry in `maps`."""
        found = ((name, self.values_found(name)) for name in self.maps if name != "status")
        return {
            "out": str(self.out),
            "files": self.files,
            "n_voxels": int(self.maps["status"].size),
            self.series.axis.key: [float(f"{value:.12g}") for value in self.series.values],
            "status": self.status_counts(),
            "maps": {name: _quartiles(values, name) for name, values in found if values.size},
            "regions": [dict(row) for row in self.regions],
            "models": [dict(row) for row in self.models],
            "timings_s": {step: round(seconds, 4) for step, seconds in self.timings.items()},
            "warnings": self.warnings,
        }


def _quartiles(values: np.ndarray, name: str) -> dict[str, float | str]:
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"units": map_kind(name).units, "q25": low, "median": median, "q75": high}


def run_job(
    job: Job,
    inputs: Sequence[Path],
    out: Path,
    *,
    mask: str | Path = "none",
    overwrite: bool = False,
    report: bool = True,
    dicom: DicomOut = "no",
    quiet: bool = True,
    timings: Mapping[str, float] | None = None,
) -> JobResult:
    """Maps from a folder of images, written to a folder.

    Args:
        job: what to estimate, e.g. `t2star_job()`.
        inputs: a folder or zip archive of DICOM or NIfTI files, or the files.
        out: folder for the results; it may be there if it is empty. If the job fails it stays as it was.
        mask: "none", "auto", or a NIfTI file on the grid of the images.
        overwrite: replace the results of an earlier run.
        report: also draw a picture of the main map and `report.html`.
        dicom: also write the maps as DICOM, "anonymous" or under the patient and study of the images, "keep".
        quiet: no progress bar, even on a terminal.
        timings: what was spent before, to be recorded.

    Raises:
        OutputError: `out` cannot take the results; found before anything is computed.
        NoInputError, CorruptInputError, MetadataError, UsageError: see `read_images`, `read_mask` and the job.
    """
    check_paths(inputs)
    for option, file in job.files.items():
        _check_file(option, file)
    sources = [*inputs, *job.files.values()]
    if mask not in ("none", "auto"):
        _check_file("--mask", Path(mask), ", or auto or none")
        sources.append(Path(mask))
    with result_folder(out, inputs=sources, overwrite=overwrite) as folder:
        result = fill_folder(folder, job, inputs, mask=mask, report=report, dicom=dicom, quiet=quiet, timings=timings)
    result.out = out
    return result


def fill_folder(
    folder: Path,
    job: Job,
    inputs: Sequence[Path],
    *,
    mask: str | Path = "none",
    report: bool = True,
    dicom: DicomOut = "no",
    quiet: bool = True,
    timings: Mapping[str, float] | None = None,
    compare: Callable[[Maps], Rows] | None = None,
    command: str | None = None,
    remarks: list[str] | None = None,
) -> JobResult:
    """The same into a folder of `result_folder`; what is in it already is recorded as part of the results.

    Args:
        folder: an existing folder.
        job, inputs, mask, report, dicom, quiet, timings: see `run_job`.
        compare: maps -> the rows of `JobResult.regions`.
        command: how to run it again, without the paths; None: by the subcommand of the job.
        remarks: the list of a `recorded_warnings` around this, whose words then stand in the results; None: its own.
    """
    if report:
        _load_matplotlib_meanwhile()
    clock = Clock(dict(timings or {}))
    with recorded_warnings() if remarks is None else nullcontext(remarks) as remarks:
        with _progress("reading", quiet), clock("reading"):
            series = read_images(inputs, job.axes, job.given, job.component, job.series, job.negative)
            where = _where_to_fit(mask, series)
            _warn_of_saturation(series, where)
            _check_dicom(dicom, series)
        n_voxels = int(np.prod(series.data.shape[:3]) if where is None else where.sum())
        with _progress("fitting", quiet, n_voxels) as advance, clock("fitting", compiling="compiling"):
            estimate = job.estimate(series, where, advance)
        result = JobResult(job, folder, series, estimate.maps, timings=clock.seconds, warnings=remarks)
        _warn_if_nothing_fitted(result)
        if compare is not None:
            result.regions = compare(estimate.maps)
        if report and estimate.compare is not None:
            with _progress("comparing", quiet), clock("comparing", compiling="compiling"):
                result.models = estimate.compare()
        command = command or _command(job, series, mask, report, dicom)
        with _progress("writing", quiet), clock("writing"):
            write_maps(folder, estimate.maps, series)
            if dicom != "no":
                _write_dicom(folder, estimate.maps, series, dicom)
            if report:
                write_files(_pictures(result, estimate.curves, command))
        written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        result.files = [*written, RECORD]
        given = {f"{series.axis.name}_{series.axis.unit}": job.given}
        chosen: dict[str, Any] = {"series": [_series_name(name) for name in job.series]} if job.series else {}
        chosen |= {"negative": job.negative, "report": report, "dicom": dicom}
        arguments = {**job.arguments, "mask": _mask_kind(mask), **given, **chosen}
        write_bytes(folder / RECORD, strict_json(_provenance(result, command, arguments)).encode())
    return result


def _check_dicom(dicom: DicomOut, series: ImageSeries) -> None:
    if dicom == "no":
        return
    from ..io.dicom.maps import check_dicom_place  # pydicom takes a while, and NIfTI files do not need it

    check_dicom_place(series)
    if dicom == "keep" and series.identity is None:
        raise UsageError(
            "--dicom-identity keep: the images are no DICOM files, which say whose they are; leave it out."
        )


def _write_dicom(folder: Path, maps: Maps, series: ImageSeries, dicom: DicomOut) -> None:
    from ..io.dicom.maps import write_dicom_maps

    write_dicom_maps(folder, maps, series, identity=series.identity if dicom == "keep" else None)


def _check_file(option: str, file: Path, otherwise: str = "") -> None:
    """Refuses what is no file before images are read."""
    if file.is_dir():
        raise UsageError(f"{option} {file}: is a folder; name a NIfTI file on the grid of the images{otherwise}.")
    if not file.exists():
        raise NoInputError(f"{option} {file}: no such file; name a NIfTI file on the grid of the images{otherwise}.")


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
            "the automatic mask is empty, as nothing in the images stands out from air; look at the images, or fit "
            "every voxel with --mask none."
        )
    return found


def _warn_of_saturation(series: ImageSeries, where: np.ndarray | None) -> None:
    clipped = series.clipped
    if clipped is None:
        return
    looked_at = clipped if where is None else clipped[where]
    n_saturated = int(looked_at.sum())
    if n_saturated:
        warnings.warn(
            f"{100 * n_saturated / looked_at.size:.3g} % of the voxels ({n_saturated} of {looked_at.size}) hold the "
            "largest value that can be stored: their signal may be clipped and their maps wrong (status SATURATED); "
            "look at them, and export the series at another scale if they matter.",
            InputWarning,
            stacklevel=2,
        )


def _warn_if_nothing_fitted(result: JobResult) -> None:
    counts = result.status_counts()
    if not {Status.OK.name, Status.SATURATED.name} & set(counts):
        reasons = ", ".join(f"{n} {name}" for name, n in counts.items())
        warnings.warn(
            f"no voxel could be fitted ({reasons}), so all maps are empty; look at the images and their "
            f"{result.series.axis.terms}.",
            InputWarning,
            stacklevel=2,
        )


def _command(job: Job, series: ImageSeries, mask: str | Path, report: bool, dicom: DicomOut) -> str:
    """How to run it again, without the paths."""
    words = [f"jaxqmri {job.word} INPUT -o OUT", *job.options, f"--mask {_mask_kind(mask)}"]
    if job.component is not None:
        words.append(f"--component {job.component}")
    if job.given is not None:
        words.append(f"{series.axis.option} {series.axis.listed(np.asarray(job.given), ' ')}")
    if job.negative != "keep":
        words.append(f"--negative {job.negative}")
    if job.series:
        words.append(f"--series {' '.join(map(_series_name, job.series))}")
    if not report:
        words.append("--no-report")
    if dicom != "no":
        words.append("--dicom" if dicom == "anonymous" else "--dicom --dicom-identity keep")
    return " ".join(words)


def _series_name(name: str) -> str:
    """A series number, but no UID: it leads to the patient."""
    return "UID" if "." in name else name


def in_words(rows: Rows) -> Rows:
    """Rows of `JobResult.regions` or `models` for people: times in ms, fractions in %, rounded."""
    return [dict(_in_words(key, value) for key, value in row.items()) for row in rows]


def _in_words(key: str, value: object) -> tuple[str, object]:
    if not isinstance(value, float):
        return key.replace("_", " "), value
    in_seconds = key.endswith("_s")
    name = key.removesuffix("_s").replace("_", " ").replace("T2star", "T2*")
    return f"{name} [{'ms' if in_seconds else '%'}]", round(value * (1e3 if in_seconds else 100), 2)


def _load_matplotlib_meanwhile() -> None:
    """It takes half a second, and XLA's compiler leaves a processor free."""
    Thread(target=import_module, args=(".pages", __package__), daemon=True).start()


def _pictures(result: JobResult, curves: Curves, command: str) -> dict[Path, bytes]:
    from .pages import pages  # loaded meanwhile

    drawn = pages(
        result.series,
        result.maps,
        result.job.main_map,
        curves,
        regions=in_words(result.regions),
        models=in_words(result.models),
        timings=result.timings,
        warnings=result.warnings,
        command=command,
        versions=versions(),
    )
    return {result.out / name: content for name, content in drawn.items()}


def _provenance(result: JobResult, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **surroundings(),
        "command": command,
        "arguments": dict(arguments),
        "input": input_facts(result.series),
        "method": result.maps.metadata,
        "status": result.status_counts(),
        "models": [dict(row) for row in result.models],
        "timings_s": {step: round(seconds, 4) for step, seconds in result.timings.items()},
        "warnings": result.warnings,
        "outputs": result.files,
    }


@contextmanager
def _progress(what: str, quiet: bool, n_voxels: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; it leaves no trace."""
    style: dict[str, Any] = {"unit": " voxels", "unit_scale": True} if n_voxels else {"bar_format": "{desc}"}
    with tqdm(total=n_voxels, desc=what, leave=False, disable=True if quiet else None, **style) as bar:

        def advance(n: int) -> None:
            bar.update(n)
            stop_if_asked()

        yield advance
        stop_if_asked()
