"""Every series of a BIDS dataset to maps, in a BIDS derivative: those to be done, those done before, those that failed.

What each is fitted with is in `bids_jobs`, how it becomes maps in `run`; how files are named is in `io.bids`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import (
    About,
    PartialFailureError,
    Remark,
    SwitchOn,
    Wording,
    error_in_words,
    in_python,
    in_words,
    listener,
    on_the_command_line,
    remark,
    remarks_collected,
    visible,
)
from ..io.bids import derivative
from ..io.bids.dataset import BidsDataset, BidsSeries, find_b1_map, find_series, open_dataset
from ..io.nifti.sidecar import sidecars_of
from ..io.storage.atomic import check_writable, write_text
from ..io.storage.plain_files import read_bytes
from ..io.storage.result_folder import RECORD, staging_folder
from ..quantities import Status
from .bids_jobs import FROM_FMAP, check_settings, chosen_for, in_a_dataset, jobs, make_job, settings_for
from .run import fill_folder

Row = dict[str, Any]


@dataclass
class BidsResult:
    """What was done."""

    out: Path  # the derivative
    rows: list[Row] = field(default_factory=list)  # of `summary.tsv`: one per series or participant who has none
    n_made: int = 0  # series fitted now
    n_there: int = 0  # those complete before, outdated ones among them
    errors: dict[str, Exception] = field(default_factory=dict)  # by series; no tracebacks: they would keep the images

    def facts(self) -> dict[str, Any]:
        """For JSON, in SI units."""
        return {"out": str(self.out), "n_made": self.n_made, "n_there": self.n_there, "series": self.rows}

    def lines(self, wording: Wording = in_python) -> Iterator[str]:
        """For people."""
        n_outdated = sum(row["status"] == "outdated" for row in self.rows)
        numbers = {
            "made": self.n_made,
            "complete before": self.n_there - n_outdated,
            in_words(["outdated (", SwitchOn("overwrite"), " does them again)"], wording): n_outdated,
            "failed": len(self.errors),
        }
        yield f"series          {', '.join(f'{n} {what}' for what, n in numbers.items() if n)}"
        yield f"maps            {self.out}"
        yield f"summary         {self.out / derivative.SUMMARY}"

    def raise_failures(self) -> None:
        """Raises PartialFailureError where series failed, or their own error where all did for one kind of reason."""
        if not self.errors:
            return
        first, *others = self.errors.values()
        n_all = len(self.errors) + self.n_made + self.n_there
        alike = all(type(error) is type(first) for error in others)
        if n_all == len(self.errors) and alike and hasattr(first, "exit_code"):
            message = next(row["message"] for row in self.rows if row["status"] == "failed")
            raise type(first)(f"all {n_all} series failed, the first: {message}" if others else message) from first
        named = ", ".join([*list(self.errors)[:5], *(["..."] if len(self.errors) > 5 else [])])
        raise PartialFailureError(
            f"{len(self.errors)} of {n_all} series failed ({named}); why is in {self.out / derivative.SUMMARY}. Mend "
            "them and run it again: what is complete is not done twice."
        ) from first


def run_bids(
    root: Path,
    out: Path,
    *,
    participants: Sequence[str] | None = None,  # labels, with or without `sub-`; None: all
    sessions: Sequence[str] | None = None,
    overwrite: bool = False,  # do again what is complete
    report: bool = True,  # also pictures, and a page per participant
    names: bool = True,  # the reports show the series' own names, which may name a person
    quiet: bool = True,  # no progress bars
    say: Callable[[str], None] = lambda _: None,  # called with a line about each series
    on_error: Callable[[Exception], None] = lambda _: None,  # called while the traceback is there
    **settings: Any,
) -> BidsResult:
    """Maps of every MEGRE (T2*), MESE (T2), IRT1 and VFA (T1) series of a raw BIDS dataset, as a derivative of it.

    A series that is complete in `out` is left as it is; its row says "outdated" where other images, metadata or
    settings would be used now. One that fails is told and never stops the others. `settings` are those of
    `dataset_settings`: `t2_method="mono"`, `mask="auto"`, ...
    """
    check_settings(settings)
    dataset = open_dataset(root)
    found = find_series(dataset, participants, sessions)
    derivative.check_derivative_folder(out, root)
    check_writable(out)
    derivative.begin_derivative(out, {int(status): status.name for status in Status})
    result, told = BidsResult(out), set()
    for number, (participant, several) in enumerate(found.items(), start=1):
        before, count = len(result.rows), f"[{number}/{len(found)}] sub-{participant}"
        if isinstance(several, Exception):
            on_error(several)
            result.errors[f"sub-{participant}"] = several.with_traceback(None)
            message = _message(several, dataset, out)
            result.rows.append(_row(participant, "failed", message=message))
            say(f"{count}: failed: {message}")
            several = []
        elif not several:
            result.rows.append(_row(participant, "nothing to fit"))
            say(f"{count}: nothing to fit")
        for series in several:
            siblings = [other.name.suffix for other in several if other.name.entities == series.name.entities]
            task = _Task(dataset, series, out, siblings, settings, report, names, quiet)
            with remarks_collected(task.tell_once(told)):
                outcome = _run_series(task, overwrite, result, on_error)
            say(f"{count} {str(series.name).removeprefix(f'sub-{participant}_')}: {outcome}")
        derivative.update_summary(out, result.rows[before:])
        if report and several:
            from ..report.page import participant_page  # loads matplotlib, which takes a while

            records, problems = derivative.read_records(out, participant), derivative.read_problems(out, participant)
            page = participant_page(participant, records, problems, out)
            write_text(out / f"sub-{participant}.html", page)
    if result.n_made or result.n_there:
        derivative.finish_derivative(out, dataset)
    return result


@dataclass(frozen=True)
class _Task:
    """One series to be done."""

    dataset: BidsDataset
    series: BidsSeries
    out: Path
    siblings: Sequence[str]  # suffixes of the series that differ in nothing else
    settings: Mapping[str, Any]
    report: bool
    names: bool
    quiet: bool
    started: float = field(default_factory=time.perf_counter)

    @property
    def suffix(self) -> str:
        return self.series.name.suffix

    @property
    def wording(self) -> Wording:
        return in_a_dataset(jobs()[self.suffix])

    @property
    def wants_b1_map(self) -> bool:
        return chosen_for(self.suffix, self.settings).get("b1") == FROM_FMAP

    def b1_map(self) -> Path | None:
        return find_b1_map(self.series) if self.wants_b1_map else None

    def command(self) -> str:
        """How to run it again, without the paths."""
        session = f" --session-label {self.series.session}" if self.series.session else ""
        rows = settings_for(jobs()[self.suffix]).values()
        words = [row.words(self.settings.get(row.name, row.default)) for row in rows]
        words += ["--no-report"] * (not self.report) + ["--no-names"] * (not self.names)
        who = f"--participant-label {self.series.participant}{session}"
        return " ".join(["jaxqmri bids BIDS_ROOT OUT participant", who, *filter(None, words)])

    def tell_once(self, told: set[Any]) -> Callable[[Remark], None]:
        """Tells of remarks of a kind that no earlier series had; each record has its own all the same."""
        tell, wording = listener(), self.wording

        def take(new: Remark) -> None:
            if new.kind not in told:
                told.add(new.kind)
                tell(Remark((new.told(wording),)))

        return take


def _run_series(task: _Task, overwrite: bool, result: BidsResult, on_error: Callable[[Exception], None]) -> str:
    """Does one series unless it is done; what happened goes into `result` and comes back in words."""
    name = task.series.name
    try:
        there = None if overwrite else derivative.read_record(task.out, name)
        if there is not None:
            changed = _what_changed(task, there)
            message = in_words([changed, "; left as it is, ", SwitchOn("overwrite"), " does it again"], task.wording)
            result.n_there += 1
            result.rows.append(there["row"] | ({"status": "outdated", "message": message} if changed else {}))
            return f"outdated: {message}" if changed else "complete, left as it is"
        row = _make(task)
    except Exception as error:  # not even a bug in one series may stop the others
        on_error(error)
        result.errors[str(name)] = error.with_traceback(None)
        message = _message(error, task.dataset, task.out, task.wording)
        result.rows.append(_row(task.series.participant, "failed", task, message=message))
        return f"failed: {message}"
    result.n_made += 1
    result.rows.append(row)
    return _in_words(row)


def _message(error: Exception, dataset: BidsDataset, out: Path, wording: Wording = on_the_command_line) -> str:
    """An error in words that can go into the results: without the folders of input and output."""
    _, message = error_in_words(error, wording)
    for folder in (out, out.resolve(), dataset.root, dataset.root.resolve()):
        message = message.replace(f"{visible(str(folder))}/", "")
    return message


def _make(task: _Task) -> Row:
    """Fits a series and puts its results into their places, the record last."""
    series = task.series
    with staging_folder(task.out) as staged:
        series.check_fetched()
        with remarks_collected() as remarks:
            if series.left_out:
                remark(About(series.name), f": {series.left_out}")
            b1_map = task.b1_map()
            if b1_map is None and task.wants_b1_map and task.suffix == "MESE":
                estimated = ": no TB1map in fmap/ that could be used, so B1 is estimated from the echoes."
                remark(About(series.name), estimated)
        job = make_job(task.suffix, task.settings, b1_map)
        made = fill_folder(
            staged, job, series.images, report=task.report, names=task.names, quiet=task.quiet,
            command=task.command(), remarks=remarks, wording=task.wording,
        )  # fmt: skip
        record = json.loads((staged / RECORD).read_bytes())
        sources = [derivative.source_uri(image, task.dataset.root) for image in (*series.images, *job.files.values())]
        outputs = derivative.place_results(staged, task.out, series.name, task.siblings, sources)
    found = made.values_found(job.main_map)
    row = _row(
        series.participant, "done", task,
        map=job.main_map,
        median_s=float(np.median(found)) if found.size else None,
        n_voxels=int(made.maps["status"].size),
        n_fitted=made.status_counts().get(Status.OK.name, 0),
        n_warnings=len(made.warnings),
    )  # fmt: skip
    facts = {"outputs": outputs, "sources": sources, "row": row, "fingerprint": _fingerprint(series, b1_map)}
    derivative.write_record(task.out, series.name, record | facts)
    return row


def _what_changed(task: _Task, record: Mapping[str, Any]) -> str:
    """Why the maps of a complete series would be others by now, or ""."""
    # A record from before there was a choice tells of no other than the default.
    before = make_job(task.suffix, {}).arguments() | record.get("arguments", {})
    wanted = make_job(task.suffix, task.settings).arguments()
    others = [key for key, value in wanted.items() if key != "b1" and before.get(key) != value]
    words = " and ".join("treatment of negative values" if key == "negative" else key for key in others)
    changed = [f"made with another {words}"] if others else []
    with suppress(OSError, ValueError):  # content that is not on this disk any more is no change
        task.series.check_fetched()
        b1_map, b1_before = task.b1_map(), before.get("b1") is not None
        if b1_before != (b1_map is not None):
            what = "with a B1 map that is not used now" if b1_before else "without the B1 map in fmap/"
            changed.append(f"made {what}")
        elif _fingerprint(task.series, b1_map) != record.get("fingerprint"):
            images = "the images" if b1_map is None else "the images, the B1 map"
            changed.append(f"{images} or their metadata have changed since")
    return ", and ".join(changed)


def _fingerprint(series: BidsSeries, b1_map: Path | None) -> str:
    """Changes with names and sizes of the images and of their B1 map, and with what the metadata of these say."""
    images = [*series.images, *filter(None, [b1_map])]
    parts = [f"{image.name} {image.stat().st_size}".encode() for image in images]
    sidecars = dict.fromkeys(path for image in images for path in sidecars_of(image))
    return hashlib.sha256(b"\0".join([*parts, *map(read_bytes, sidecars)])).hexdigest()


def _row(participant: str, status: str, task: _Task | None = None, **facts: object) -> Row:
    """A row of `summary.tsv`: times in s, numbers of voxels."""
    series = task and task.series
    row: Row = {
        "participant_id": f"sub-{participant}",
        "session_id": f"ses-{series.session}" if series and series.session else None,
        "series": series and str(series.name),
        "suffix": series and series.name.suffix,
        "status": status,
        "message": "",
        "seconds": round(time.perf_counter() - task.started, 2) if task else 0.0,
    }
    return row | dict.fromkeys(("map", "median_s", "n_voxels", "n_fitted", "n_warnings")) | facts


def _in_words(row: Row) -> str:
    median = "no value" if row["median_s"] is None else f"{1e3 * row['median_s']:.4g} ms median"
    n = row["n_warnings"]
    warned = f", {n} warning{'s' if n > 1 else ''}" if n else ""
    fitted = f"{row['n_fitted']} of {row['n_voxels']} voxels fitted"
    return f"{row['map'].removesuffix('map').replace('star', '*')} {median}, {fitted}{warned}, {row['seconds']:.1f} s"
