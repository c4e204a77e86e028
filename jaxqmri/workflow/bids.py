"""Every series of a BIDS dataset to maps, in a BIDS derivative: who is fitted, what is done already, what failed.

How images become maps is in `job` and `jobs`, what can be chosen in `bids_settings`; how files are named is in `io`.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputWarning, PartialFailureError, Remark, error_in_words, remark, remarks_collected
from ..io.bids.dataset import BidsDataset, BidsSeries, find_b1_map, find_series, open_dataset, wanted_participants
from ..io.bids.derivative import (
    SUMMARY,
    begin_derivative,
    check_derivative_folder,
    finish_derivative,
    place_results,
    read_problems,
    read_record,
    read_records,
    source_uri,
    update_summary,
    write_record,
)
from ..io.nifti.sidecar import sidecars_of
from ..io.storage.atomic import check_writable, write_text
from ..io.storage.result_folder import RECORD
from ..io.storage.staging import staging_folder
from ..mapping.job import Job
from ..quantities import Status
from .bids_settings import DEFAULTS, Settings, for_a_dataset, in_a_dataset
from .run import JobResult, fill_folder

Row = dict[str, Any]


@dataclass
class BidsResult:
    """What was done.

    Attributes:
        out: the derivative.
        rows: one per series, or per participant who has none: those of `summary.tsv`.
        n_made: how many series were fitted now.
        n_there: how many were complete before, outdated ones among them.
        errors: what went wrong, by series.
    """

    out: Path
    rows: list[Row] = field(default_factory=list)
    n_made: int = 0
    n_there: int = 0
    errors: dict[str, Exception] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """For JSON, in SI units."""
        return {"out": str(self.out), "n_made": self.n_made, "n_there": self.n_there, "series": self.rows}

    def lines(self) -> Iterator[str]:
        """For people."""
        n_outdated = sum(row["status"] == "outdated" for row in self.rows)
        numbers = {
            "made": self.n_made,
            "complete before": self.n_there - n_outdated,
            "outdated (--overwrite does them again)": n_outdated,
            "failed": len(self.errors),
        }
        yield f"series          {', '.join(f'{n} {what}' for what, n in numbers.items() if n)}"
        yield f"maps            {self.out}"
        yield f"summary         {self.out / SUMMARY}"

    def raise_failures(self) -> None:
        """Raises PartialFailureError where series failed, or their own error where all did for one kind of reason."""
        if not self.errors:
            return
        first, *others = self.errors.values()
        n_all = len(self.errors) + self.n_made + self.n_there
        alike = all(type(error) is type(first) for error in others)
        if n_all == len(self.errors) and alike and hasattr(first, "exit_code"):
            alone = f"all {n_all} series failed, the first: " if others else ""
            raise type(first)(f"{alone}{for_a_dataset(str(first))}") from first
        raise PartialFailureError(
            f"{len(self.errors)} of {n_all} series failed ({', '.join(list(self.errors)[:5])}"
            f"{', ...' if len(self.errors) > 5 else ''}); why is in {self.out / SUMMARY}. Mend them and run it again: "
            "what is complete is not done twice."
        ) from first


def run_bids(
    root: Path,
    out: Path,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    settings: Settings = DEFAULTS,
    mask: str = "none",
    overwrite: bool = False,
    report: bool = True,
    quiet: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> BidsResult:
    """Maps of every MEGRE (T2*), MESE (T2), IRT1 and VFA (T1) series of a raw BIDS dataset, as a derivative of it.

    A series that is complete in `out` is left as it is; its row says "outdated" where other images, metadata or
    settings would be used now. One that fails is told and never stops the others.

    Args:
        root: the raw dataset.
        out: the derivative; created where there is none.
        participants: labels, with or without `sub-`; None: all.
        sessions: labels, with or without `ses-`; None: all.
        settings: what the series are fitted with.
        mask: "none" or "auto".
        overwrite: do again what is complete.
        report: also draw pictures and a page per participant.
        quiet: no progress bars.
        say: called with a line about each series.

    Returns:
        What was done; see `BidsResult.raise_failures`.

    Raises:
        NoInputError, UsageError: no such dataset, participant or session, or nothing in it to be fitted.
        OutputError: `out` cannot take the results.
    """
    dataset = open_dataset(root)
    found = find_series(dataset, wanted_participants(dataset, participants), sessions)
    check_derivative_folder(out, root)
    check_writable(out)
    begin_derivative(out, {int(status): status.name for status in Status})
    result, seen = BidsResult(out), set()
    for number, (participant, several) in enumerate(found.items(), start=1):
        before, count = len(result.rows), f"[{number}/{len(found)}] sub-{participant}"
        if not several:
            result.rows.append(_row(participant, None, "nothing to fit"))
            say(f"{count}: nothing to fit")
        for series in several:
            task = _Task(dataset, series, out, _siblings(series, several), settings, mask, report, quiet)
            with _each_kind_of_warning_once(str(series.name), seen):
                outcome = _run_series(task, overwrite, result)
            say(f"{count} {_short(series)}: {outcome}")
        update_summary(out, result.rows[before:])
        if report and several:
            _write_page(out, participant)
    if result.n_made or result.n_there:
        finish_derivative(out, dataset)
    return result


def _write_page(out: Path, participant: str) -> None:
    from ..report.page import participant_page  # loads matplotlib, which takes a while

    page = participant_page(participant, read_records(out, participant), read_problems(out, participant), out)
    write_text(out / f"sub-{participant}.html", page)


@dataclass(frozen=True)
class _Task:
    """One series to be done."""

    dataset: BidsDataset
    series: BidsSeries
    out: Path
    siblings: Sequence[str]
    settings: Settings
    mask: str
    report: bool
    quiet: bool

    def b1_map(self) -> Path | None:
        return find_b1_map(self.series) if self.settings.uses_b1_map(self.series.name.suffix) else None

    def job(self, b1_map: Path | None) -> Job:
        return self.settings.job(self.series.name.suffix, b1_map)

    def command(self) -> str:
        """How to run it again, without the paths."""
        words = ["jaxqmri bids BIDS_ROOT OUT participant", f"--participant-label {self.series.participant}"]
        words += [f"--session-label {self.series.session}"] if self.series.session else []
        words += [*self.settings.options(self.series.name.suffix), f"--mask {self.mask}"]
        words += [] if self.report else ["--no-report"]
        return " ".join(words)

    def sources(self, job: Job) -> list[str]:
        return [source_uri(image, self.dataset.root) for image in (*self.series.images, *job.files.values())]


def _siblings(series: BidsSeries, several: Sequence[BidsSeries]) -> list[str]:
    return [other.name.suffix for other in several if other.name.entities == series.name.entities]


def _short(series: BidsSeries) -> str:
    """The name without the participant, who is named already."""
    return str(series.name).removeprefix(f"sub-{series.participant}_")


def _run_series(task: _Task, overwrite: bool, result: BidsResult) -> str:
    """Does one series unless it is done; what happened goes into `result` and comes back in words."""
    started = time.perf_counter()
    try:
        there = None if overwrite else read_record(task.out, task.series.name)
        if there is not None:
            changed = _what_changed(task, there)
            message = f"{changed}; left as it is, --overwrite does it again"
            result.n_there += 1
            result.rows.append(there["row"] | ({"status": "outdated", "message": message} if changed else {}))
            return f"outdated: {message}" if changed else "complete, left as it is"
        row = _make(task, started)
    except Exception as error:  # not even a bug in one series may stop the others
        result.errors[str(task.series.name)] = error
        message, seconds = _message(error, task), time.perf_counter() - started
        result.rows.append(_row(task.series.participant, task.series, "failed", message=message, seconds=seconds))
        return f"failed: {message}"
    result.n_made += 1
    result.rows.append(row)
    return _in_words(row)


def _make(task: _Task, started: float) -> Row:
    """Fits a series and puts its results into their places, the record last."""
    with remarks_collected(_as_warning) as said, staging_folder(task.out) as staged:
        if task.series.remark:
            remark(task.series.remark)
        task.series.check_fetched()
        b1_map = task.b1_map()
        if b1_map is None and task.series.name.suffix == "MESE" and task.settings.t2_b1 == "fmap":
            message = f"{task.series.name}: no TB1map in fmap/ that could be used, so B1 is estimated from the echoes."
            remark(message)
        job = task.job(b1_map)
        sources = task.sources(job)
        made = fill_folder(
            staged, replace(job, mask=task.mask), task.series.images,
            report=task.report, quiet=task.quiet, command=task.command(), remarks=list(said), wording=in_a_dataset,
        )  # fmt: skip
        record = json.loads((staged / RECORD).read_bytes())
        outputs = place_results(staged, task.out, task.series.name, task.siblings, sources)
    row = _result_row(task.series, made, time.perf_counter() - started)
    facts = {"outputs": outputs, "sources": sources, "warnings": made.warnings, "row": row}
    facts["fingerprint"] = _fingerprint(task.series, b1_map)
    write_record(task.out, task.series.name, record | facts)
    return row


def _as_warning(new: Remark) -> None:
    warnings.warn(new.told(in_a_dataset), InputWarning, stacklevel=2)


def _what_changed(task: _Task, record: Mapping[str, Any]) -> str:
    """Why the maps of a complete series would be others by now, or ""."""
    # A record from before there was a choice tells of no other than the default.
    before = DEFAULTS.arguments(task.series.name.suffix) | record.get("arguments", {})
    wanted = task.settings.arguments(task.series.name.suffix) | {"mask": task.mask}
    settings = [key for key, value in wanted.items() if before.get(key) != value]
    changed = [f"made with another {' and '.join(map(_setting, settings))}"] if settings else []
    with suppress(OSError, ValueError):  # content that is not on this disk any more is no change
        task.series.check_fetched()
        b1_map, b1_before = task.b1_map(), before.get("b1") is not None
        if b1_before != (b1_map is not None):
            changed.append(
                f"made {'with a B1 map that is not used now' if b1_before else 'without the B1 map in fmap/'}"
            )
        elif _fingerprint(task.series, b1_map) != record.get("fingerprint"):
            images = "the images" if b1_map is None else "the images, the B1 map"
            changed.append(f"{images} or their metadata have changed since")
    return ", and ".join(changed)


def _setting(key: str) -> str:
    return "treatment of negative values" if key == "negative" else key.removesuffix("_s").removesuffix("_rad")


def _fingerprint(series: BidsSeries, b1_map: Path | None) -> str:
    """Changes with names and sizes of the images and of their B1 map, and with what the metadata of these say."""
    b1_maps = [] if b1_map is None else [b1_map]
    parts = [f"{image.name} {image.stat().st_size}".encode() for image in (*series.images, *b1_maps)]
    sidecars = [*series.sidecars(), *(path for image in b1_maps for path in sidecars_of(image))]
    return hashlib.sha256(b"\0".join([*parts, *(path.read_bytes() for path in sidecars)])).hexdigest()


def _row(
    participant: str, series: BidsSeries | None, status: str, message: str = "", seconds: float = 0.0, **numbers: object
) -> Row:
    """A row of `summary.tsv`: times in s, numbers of voxels."""
    facts: Row = {
        "participant_id": f"sub-{participant}",
        "session_id": f"ses-{series.session}" if series is not None and series.session else None,
        "series": None if series is None else str(series.name),
        "suffix": None if series is None else series.name.suffix,
        "status": status,
        "message": message,
        "seconds": round(seconds, 2),
    }
    return facts | dict.fromkeys(("map", "median_s", "n_voxels", "n_fitted", "n_warnings")) | numbers


def _result_row(series: BidsSeries, made: JobResult, seconds: float) -> Row:
    found = made.values_found(made.job.main_map)
    return _row(
        series.participant, series, "done", seconds=seconds,
        map=made.job.main_map,
        median_s=float(np.median(found)) if found.size else None,
        n_voxels=int(made.maps["status"].size),
        n_fitted=made.status_counts().get(Status.OK.name, 0),
        n_warnings=len(made.warnings),
    )  # fmt: skip


def _in_words(row: Row) -> str:
    median = "no value" if row["median_s"] is None else f"{1e3 * row['median_s']:.4g} ms median"
    n = row["n_warnings"]
    warned = f", {n} warning{'s' if n > 1 else ''}" if n else ""
    fitted = f"{row['n_fitted']} of {row['n_voxels']} voxels fitted"
    return f"{row['map'].removesuffix('map').replace('star', '*')} {median}, {fitted}{warned}, {row['seconds']:.1f} s"


def _message(error: Exception, task: _Task) -> str:
    """One line, without the folders: it goes into the results."""
    _, text = error_in_words(error)
    for folder in (task.out, task.dataset.root):
        for path in (folder, folder.resolve()):
            text = text.replace(f"{path}/", "")
    return for_a_dataset(text)


@contextmanager
def _each_kind_of_warning_once(name: str, seen: set[str]) -> Iterator[None]:
    """Shows a warning for the first series only; each record has its own all the same.

    Args:
        name: the series, which may be named in the warning.
        seen: those shown before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)  # Python itself would tell, and record, each text once
        show = warnings.showwarning

        def show_once(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            text = str(message).replace(name, "")
            if not issubclass(category, InputWarning) or text not in seen:
                seen.add(text)
                shown = category(for_a_dataset(str(message))) if issubclass(category, InputWarning) else message
                show(shown, category, *rest, **more)

        warnings.showwarning = show_once
        yield
