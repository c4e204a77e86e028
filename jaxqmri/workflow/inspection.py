"""What `jaxqmri inspect` tells of a folder: its series, and what each job would do with them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import error_in_words, remark, remarks_collected, visible
from ..io.axis import axis_named
from ..io.candidates import Candidate, Scan
from ..io.choose import choose, choose_axis
from ..io.images import scan_tree
from ..mapping import all_jobs
from ..quantities import AXES, ECHO_TIME, FLIP_ANGLE, INVERSION_TIME, Axis
from .verdicts import jobs_for, jobs_that_run, verdicts

IN_EVERY_HEADER = (ECHO_TIME, INVERSION_TIME, FLIP_ANGLE)  # other axes are told of where they vary


@dataclass(frozen=True)
class Inspection:
    """What a folder holds."""

    series: Sequence[Mapping[str, Any]]  # facts about each group of images, in the order of the scanner's numbers
    would_fit: Mapping[str, Mapping[str, Any]]  # job -> facts about the images it would fit
    refusals: Mapping[str, str]  # job -> why it would fit none; empty where any fits: other jobs are hardly meant
    skipped: Mapping[str, Sequence[str]]  # reason -> names of the images and other files passed over

    def facts(self) -> dict[str, Any]:
        """For JSON: times in s, angles in rad, lengths in mm; what is passed over is counted, series have no names."""
        skipped = {reason: len(names) for reason, names in self.skipped.items()}
        series = [_without_name(facts) for facts in self.series]
        would_fit = {job: _without_name(facts) for job, facts in self.would_fit.items()}
        return {"series": series, "would_fit": would_fit, "refusals": self.refusals, "skipped": skipped}

    def text(self, verbose: bool = False) -> str:
        """For people; `verbose` names what is passed over."""
        return "\n".join(map(visible, self.lines(verbose)))

    def lines(self, verbose: bool = False, names: bool = True) -> Iterator[str]:
        """The same line by line, as the files have it."""
        place, n_places = None, len({_place(facts) for facts in self.series})
        for facts in self.series:
            if n_places > 1 and place != (place := _place(facts)):
                alone = ", one of their own: they lie beside files of the other format" if place[0] == "FOLDER" else ""
                yield f"{facts['format']} files in {facts['input']}{alone}"
            number = "without number" if facts["number"] is None else facts["number"]
            kind, name = " (Enhanced MR)" if facts["enhanced"] else "", facts["description"] or "(no description)"
            yield f"series {number}{f': {name}' if names else ''}{kind}"
            yield f"  {facts['component']}, {_timing(facts)}"
            size = " x ".join(map(str, facts["shape"]))
            voxel = " x ".join(f"{edge:.4g}" for edge in facts["voxel_size_mm"])
            yield f"  matrix {size}, voxel {voxel} mm, pixel values: {facts['scaling']}"
            yield from self._remarks(facts)
            yield from _verdict(facts)
        yield from (self._would_fit(job) for job in self.would_fit)
        yield from (f"{job} would fit nothing: {refusal}" for job, refusal in self.refusals.items())
        for reason, files in self.skipped.items():
            yield f"passed over: {len(files)} {reason}" + (f": {', '.join(files)}" if verbose else "")
        if self.skipped and not verbose:
            yield "(-v names them)"

    def _remarks(self, facts: Mapping[str, Any]) -> Iterator[str]:
        n_slices, n_echoes, n_images = facts["shape"][2], len(facts["echo_times_s"]), facts["n_images"]
        n_varied = max(len(facts.get(axis.key, ())) for axis in AXES.values())
        if facts["lacking"]:
            yield f"  incomplete: {facts['lacking']}"
        elif n_echoes and n_images != n_slices * n_varied:
            yield f"  {n_images} images, where {n_slices} slices of {n_echoes} echoes are {n_slices * n_echoes}"
        if facts["derived"]:
            yield "  derived by the scanner from other images: used only if there is nothing else"
        if facts["uids"] and len(self._uids[_place(facts), facts["number"]]) > 1:
            yield f"  UID {' and '.join(facts['uids'])}, as another series has the same number"

    @cached_property
    def _uids(self) -> Mapping[Any, set[tuple[str, ...]]]:
        """Place and number of a series -> the UIDs under it."""
        found: dict[Any, set[tuple[str, ...]]] = defaultdict(set)
        for facts in self.series:
            found[_place(facts), facts["number"]].add(tuple(facts["uids"]))
        return found

    def _would_fit(self, job: str) -> str:
        chosen = self.would_fit[job]
        axis = axis_named(chosen["axis"])
        unsure = {"t2star": " if these are gradient echoes", "t2": " if these are spin echoes"}
        doubt = unsure.get(job, "") if unsure.keys() <= self.would_fit.keys() else ""
        model = next(one.fits[axis.name] for one in all_jobs() if one.name == job)
        series = ", ".join(map(str, chosen["numbers"])) or "without number"  # of all that would be joined
        images = axis.many if axis is ECHO_TIME else f"images of different {axis.terms}"
        which = f"the {len(chosen[axis.key])} {chosen['component']} {images}{doubt}"
        return f"{job} would fit {model} to series {series}, {which}"


def _place(facts: Mapping[str, Any]) -> tuple[str, str]:
    return facts["input"], facts["format"]


def _verdict(facts: Mapping[str, Any]) -> Iterator[str]:
    jobs = facts["commands"]
    unsure = {"t2star": ", if these are gradient echoes", "t2": ", if these are spin echoes"}
    for job, command in jobs.items():
        yield f"  to map it{unsure.get(job, '') if unsure.keys() <= jobs.keys() else ''}: {command}"
    if facts["why_not"]:
        yield f"  not mapped: {facts['why_not']}"


def _without_name(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts about a series but for its description, free text that may name a person."""
    return {key: value for key, value in facts.items() if key != "description"}


def _timing(facts: Mapping[str, Any]) -> str:
    n, echoes = len(facts["echo_times_s"]), f"TE {ECHO_TIME.listed(facts['echo_times_s'], ' ')} ms"
    words = ["no usable echo times" if n == 0 else echoes if n == 1 else f"{n} echoes, {echoes}"]
    for axis in AXES.values():
        if axis is not ECHO_TIME and facts.get(axis.key):
            words.append(f"{axis.symbol} {axis.listed(facts[axis.key], ' ')} {axis.shown_unit}")
    return "; ".join([*words, *(f"TR {1e3 * tr:g} ms" for tr in facts["repetition_times_s"][:1])])


def inspect_images(
    paths: Sequence[Path],
    given: Mapping[str, Sequence[float]] | None = None,
    series: Sequence[str] = (),
    time_point: int | None = None,
) -> Inspection:
    """Looks at the headers of a folder or archive of DICOM or NIfTI files, and at what each job would do with them.

    `given` are the values of one axis that replace those in the files [s] or [rad], as {"te": ...}.
    """
    name, values = next(iter((given or {}).items()), ("te", None))
    axis = axis_named(name)
    with ExitStack() as files:  # of an archive they are there as long as it lasts
        with remarks_collected():
            places = files.enter_context(scan_tree(paths, axis, values, series=series, time_point=time_point))
        option = "" if values is None else f" --{axis.flag} {axis.listed(values, ' ')}"
        return _inspected(places, option)


def _inspected(places: Sequence[tuple[str, Scan]], option: str) -> Inspection:
    facts: list[Mapping[str, Any]] = []
    skipped: dict[str, tuple[str, ...]] = {}
    for source, scan in places:
        said = zip(scan.candidates, verdicts(scan, source, option), strict=True)
        facts += [{**_facts(c), "input": source, "format": scan.reader.source_format, **vars(v)} for c, v in said]
        for reason, names in scan.skipped.items():
            skipped[reason] = (*skipped.get(reason, ()), *names)
    would_fit, refusals = _of_whole(places[0][1], bool(option)) if len(places) == 1 else ({}, {})
    return Inspection(facts, would_fit, {} if would_fit else refusals, skipped)


def _of_whole(scan: Scan, given: bool) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """What each job would fit of all the images, or why none."""
    would_fit: dict[str, Mapping[str, Any]] = {}
    refusals: dict[str, str] = {}
    for axes, jobs in _jobs_by_axes().items():
        if given and scan.axis not in axes:
            continue
        try:
            with remarks_collected() as remarks:
                if given or len(axes) == 1:
                    chosen = choose(scan if given else scan.along(axes[0]))
                else:
                    chosen = choose_axis(scan, [axis.name for axis in axes])[1]
        except (ValueError, OSError) as error:
            if given or axes[0] in IN_EVERY_HEADER:
                refusals[jobs[-1]] = error_in_words(error)[1]  # one of several jobs for the same images is enough
            continue
        for one in remarks:  # on what a job would mend, not on what it would refuse
            remark(*one.parts)
        names, why_not = jobs_that_run(scan, chosen, jobs_for(chosen) if chosen.axis is ECHO_TIME else jobs)
        would_fit |= dict.fromkeys(names, _facts(chosen, is_chosen=True))
        refusals |= {jobs[-1]: why_not} if not names else {}
    return would_fit, refusals


def _jobs_by_axes() -> dict[tuple[Axis, ...], list[str]]:
    """What may vary -> the names of the jobs for it, those of echo times first."""
    order, found = list(AXES.values()), {}
    for job in sorted((job() for job in all_jobs()), key=lambda job: order.index(job.axes[0])):
        found.setdefault(job.axes, []).append(job.name)
    return found


def _facts(candidate: Candidate, is_chosen: bool = False) -> dict[str, Any]:
    axes = dict.fromkeys((*IN_EVERY_HEADER, candidate.axis))
    facts = {
        "number": candidate.first.series_number,
        "uids": list(candidate.series_uids),
        "description": candidate.first.description,
        "component": candidate.component,
        **{axis.key: [float(f"{value:.12g}") for value in candidate.stated(axis)] for axis in axes},
        "repetition_times_s": [float(f"{tr:.12g}") for tr in candidate.repetition_times],
        "shape": [*candidate.shape, candidate.n_slices],
        "n_images": candidate.n_images,
        "voxel_size_mm": [float(f"{edge:.9g}") for edge in candidate.voxel_size],
        "scaling": candidate.scaling,
        "image_type": list(candidate.first.image_type),
        "enhanced": candidate.is_enhanced,
        "derived": candidate.first.derived,
        "lacking": candidate.lacking(),
    }
    if not is_chosen:
        return facts
    return {"axis": candidate.axis.name.removesuffix("s"), "numbers": list(candidate.numbers), **facts}
