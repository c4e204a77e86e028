"""From files to files: read, fit, write the maps, draw the report, and leave a record of how it was done.

A job says what is estimated; `run_job` does everything else and is the same for all of them. The jobs are in `mapping`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ..errors import LeaveOut, NoInputError, Remark, Setting, UsageError, Wording, in_python, remark, remarks_kept
from ..io.images import check_paths, read_images
from ..io.maps import Maps, write_maps
from ..io.series import ImageSeries
from ..io.storage.atomic import strict_json, write_bytes, write_files
from ..io.storage.plain_files import why_no_file
from ..io.storage.result_folder import RECORD, result_folder
from ..mapping.job import Job, Rows
from ..quantities import Status, map_kind
from .interrupts import stop_if_asked
from .provenance import Clock, input_facts, surroundings, versions

DicomOut = Literal["no", "anonymous", "keep"]


@dataclass
class JobResult:
    """What a job did."""

    job: Job
    out: Path
    series: ImageSeries
    maps: Maps
    files: list[str] = field(default_factory=list)  # relative to `out`
    timings: dict[str, float] = field(default_factory=dict)  # step -> seconds
    remarks: Sequence[Remark] = ()  # what was mended, assumed or passed over
    wording: Wording = in_python  # in which they are recorded
    regions: Rows = ()  # regions against the truth, where it is known: SI units, errors as fractions
    models: Rows = ()  # the model against a simpler one, where the report does so: SI units, fractions

    def status_counts(self) -> dict[str, int]:
        """How many voxels ended how, by name of the status; those that do not occur are left out."""
        counts = np.bincount(self.maps["status"].ravel(), minlength=len(Status))
        return {status.name: int(counts[status]) for status in Status if counts[status]}

    @property
    def warnings(self) -> list[str]:
        """The remarks in words."""
        return [remark.told(self.wording) for remark in self.remarks]

    def values_found(self, name: str) -> np.ndarray:
        """(voxel,) what a map says where the fit went well; saturated voxels are no part of it."""
        values = self.maps[name]
        return values[np.isfinite(values) & (self.maps["status"] == Status.OK)]

    def summary(self) -> dict[str, Any]:
        """The numbers of the job, ready for JSON, in SI units; a map without a single value has no entry in `maps`."""

        def quartiles(name: str, values: np.ndarray) -> dict[str, float | str]:
            low, median, high = np.percentile(values, [25, 50, 75]).tolist()
            return {"units": map_kind(name).units, "q25": low, "median": median, "q75": high}

        found = ((name, self.values_found(name)) for name in self.maps if name != "status")
        return {
            "out": str(self.out),
            "files": self.files,
            "n_voxels": int(self.maps["status"].size),
            self.series.axis.key: [float(f"{value:.12g}") for value in self.series.values],
            "status": self.status_counts(),
            "maps": {name: quartiles(name, values) for name, values in found if values.size},
            "regions": [dict(row) for row in self.regions],
            "models": [dict(row) for row in self.models],
            "timings_s": {step: round(seconds, 4) for step, seconds in self.timings.items()},
            "warnings": self.warnings,
        }


def run_job(job: Job, inputs: Sequence[Path], out: Path, *, overwrite: bool = False, **how: Any) -> JobResult:
    """Maps from a folder or archive of DICOM or NIfTI files, or from the files, written to a folder.

    The folder may be there if it is empty, or with `overwrite` hold an earlier run; if the job fails it stays as it
    was. That it can take results is known before anything is computed. How: see `fill_folder`.
    """
    check_paths(inputs)
    for setting, file in job.files.items():
        _check_file(setting, file)
    with result_folder(out, inputs=[*inputs, *job.files.values()], overwrite=overwrite) as folder:
        result = fill_folder(folder, job, inputs, **how)
    result.out = out
    return result


def fill_folder(
    folder: Path,
    job: Job,
    inputs: Sequence[Path],
    *,
    report: bool = True,  # also a picture of the main map and `report.html`
    names: bool = True,  # the report shows the series' own name, which may name a person
    dicom: DicomOut = "no",  # also DICOM maps, without a patient or under the patient and study of the images
    quiet: bool = True,  # no progress bar, even on a terminal
    timings: Mapping[str, float] | None = None,  # what was spent before, to be recorded
    compare: Callable[[Maps], Rows] | None = None,  # the rows of `JobResult.regions`
    command: str | None = None,  # how to run it again, without the paths; None: by the subcommand of the job
    remarks: Sequence[Remark] = (),  # what else is to be remarked and recorded
    wording: Wording = in_python,
) -> JobResult:
    """The same into a folder of `result_folder`; what is in it already is recorded as part of the results."""
    if report:  # matplotlib takes half a second to load, and XLA's compiler leaves a processor free
        # Python waits for it when it ends early: ended within C++, a daemon would abort the process.
        Thread(target=_load_pages).start()
    clock = Clock(dict(timings or {}))
    with remarks_kept() as made:
        for before in remarks:
            remark(*before.parts)
        with _progress("reading", quiet), clock("reading"):
            axes = [axis.name for axis in job.axes]
            series = read_images(inputs, axes, job.given, job.component, job.series, job.negative, job.time_point)
            series = job.selected(series if names else replace(series, description=""))
            settled = job.with_files_read(series)
            where = np.asarray(settled.mask)
            _remark_on_saturation(series, where)
            _check_dicom(dicom, series)
        with _progress("fitting", quiet, int(where.sum())) as advance, clock("fitting", compiling="compiling"):
            estimate = settled.estimate(series, advance)
        result = JobResult(job, folder, series, estimate.maps, timings=clock.seconds, remarks=made, wording=wording)
        if not {Status.OK.name, Status.SATURATED.name} & (counts := result.status_counts()).keys():
            reasons = ", ".join(f"{n} {name}" for name, n in counts.items())
            look_at = f"look at the images and their {series.axis.terms}."
            remark(f"no voxel could be fitted ({reasons}), so all maps are empty; {look_at}")
        if compare is not None:
            result.regions = compare(estimate.maps)
        if report and job.is_compared:
            with _progress("comparing", quiet), clock("comparing", compiling="compiling"):
                result.models = job.compare(series, estimate)
        command = command or _command(job, report, names, dicom)
        with _progress("writing", quiet), clock("writing"):
            write_maps(folder, estimate.maps, series)
            if dicom != "no":
                from ..io.dicom.maps import write_dicom_maps

                identity = series.identity if dicom == "keep" else None
                write_dicom_maps(folder, estimate.maps, series, identity=identity)
            if report:
                from .pages import pages  # loaded meanwhile

                drawn = pages(
                    series, estimate, job.main_map, regions=in_words(result.regions), models=in_words(result.models),
                    timings=result.timings, warnings=result.warnings, command=command, versions=versions(),
                )  # fmt: skip
                write_files({folder / name: content for name, content in drawn.items()})
        written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        result.files = [*written, RECORD]
        arguments = {**job.arguments(series.axis), "report": report, "dicom": dicom}
        write_bytes(folder / RECORD, strict_json(_provenance(result, command, arguments)).encode())
    return result


def _load_pages() -> None:
    with suppress(Exception):  # it is told where they are needed
        import_module(".pages", __package__)


def _check_dicom(dicom: DicomOut, series: ImageSeries) -> None:
    if dicom == "no":
        return
    from ..io.dicom.maps import check_dicom_place  # pydicom takes a while, and NIfTI files do not need it

    check_dicom_place(series)
    if dicom == "keep" and series.identity is None:
        raise UsageError(
            Setting("dicom_identity"), " keep: the images are no DICOM files, which say whose they are; ",
            LeaveOut("dicom_identity"), ".",
        )  # fmt: skip


def _check_file(setting: str, file: Path) -> None:
    """Refuses what is no file before images are read."""
    otherwise = "; name a NIfTI file on the grid of the images" + (", or auto or none." if setting == "mask" else ".")
    if file.is_dir():
        raise UsageError(Setting(setting), f" {file}: is a folder{otherwise}")
    if not file.exists():
        raise NoInputError(Setting(setting), f" {file}: no such file{otherwise}")
    if why := why_no_file(file):
        raise NoInputError(Setting(setting), f" {file}: {why}{otherwise}")


def _remark_on_saturation(series: ImageSeries, where: np.ndarray) -> None:
    if series.clipped is None:
        return
    looked_at = series.clipped[where]
    if n_saturated := int(looked_at.sum()):
        remark(
            f"{100 * n_saturated / looked_at.size:.3g} % of the voxels ({n_saturated} of {looked_at.size}) hold the "
            "largest value that can be stored, or seem to have run over it to 0: their signal may be clipped and their "
            "maps wrong (status SATURATED); look at them, and export the series at another scale if they matter."
        )


def _command(job: Job, report: bool, names: bool, dicom: DicomOut) -> str:
    """How to run it again, without the paths."""
    words = [f"jaxqmri {job.name} INPUT -o OUT", *job.words()]
    if not report:
        words.append("--no-report")
    if not names:
        words.append("--no-names")
    if dicom != "no":
        words.append("--dicom" if dicom == "anonymous" else "--dicom --dicom-identity keep")
    return " ".join(words)


def in_words(rows: Rows) -> Rows:
    """Rows of `JobResult.regions` or `models` for people: times in ms, fractions in %, rounded."""
    return [dict(_in_words(key, value) for key, value in row.items()) for row in rows]


def _in_words(key: str, value: object) -> tuple[str, object]:
    if not isinstance(value, float):
        return key.replace("_", " "), value
    unit, per_si = ("ms", 1e3) if key.endswith("_s") else ("%", 100)
    name = key.removesuffix("_s").replace("_", " ").replace("T2star", "T2*")
    return f"{name} [{unit}]", round(value * per_si, 2)


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
