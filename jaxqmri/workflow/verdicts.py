"""What each series of a scan is good for: the command that maps it, or why there is none."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..errors import error_in_words, flag_of, in_words, on_the_command_line, remarks_collected
from ..io.candidates import Candidate, Scan, at
from ..io.choose import apart, choose, enhanced_copies, names_of
from ..io.join import joined
from ..io.load import headers_as_series
from ..io.repeats import first_echoes
from ..io.sequence import kind_of_candidate, varies_instead
from ..mapping import all_jobs
from ..quantities import AXES, ECHO_TIME, INVERSION_TIME, SPIN_LOCK_TIME, Axis

_SPIN_LOCK_NAME = re.compile(r"rho|spin.?lock|tsl|t1r", re.IGNORECASE)


@dataclass
class Verdict:
    """On one series."""

    commands: dict[str, str] = field(default_factory=dict)  # job -> what is typed to map it
    why_not: str = ""  # where there is no command


def verdicts(scan: Scan, source: str, given: str = "") -> list[Verdict]:
    """Of each candidate of a scan in their order; `source` stands for its files, `given` for options already typed."""
    found = {candidate: Verdict() for candidate in scan.candidates}
    of_image = {image: candidate for candidate in scan.candidates for image in candidate.images}
    fitted: list[Candidate] = []
    along: dict[Axis, tuple[Scan, dict[str, list[Candidate]]]] = {}
    for axis in [scan.axis] if scan.given is not None else AXES.values():
        turned = scan if axis is scan.axis else scan.along(axis)
        turned = turned if axis is ECHO_TIME else first_echoes(turned)
        alike: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in joined(turned):
            if len(candidate.values) > 1 and candidate.component in _components(axis):
                alike[candidate.component].append(candidate)
        along[axis] = turned, alike
    for axis, (turned, alike) in along.items():
        several = any(other.job == axis.job and also for other, (_, also) in along.items() if other is not axis)
        for groups in alike.values():
            copies = enhanced_copies(groups)
            for copy in copies:
                found[of_image[copy.first]].why_not = "there as classic files too, which are used"
            groups = [group for group in groups if group not in copies]
            names = names_of(groups) if len(groups) > 1 else [""]
            each = zip(groups, names or [None] * len(groups), _with_siblings(turned, groups), strict=True)
            for group, name, siblings in each:
                verdict = Verdict()
                try:
                    with remarks_collected():
                        chosen = choose(replace(turned, candidates=siblings), group.component)
                except (ValueError, OSError) as error:
                    verdict.why_not = error_in_words(error)[1]
                else:
                    options = f"{_options(group, name, scan, several)}{given}"
                    if set(chosen.images) & set(group.images):
                        jobs, verdict.why_not = jobs_that_run(turned, chosen, jobs_for(group))
                        verdict.commands = {
                            job: f"jaxqmri {job} {source} -o OUT{options}{more}" for job, more in jobs.items()
                        }
                        fitted += [group] if jobs else []
                    else:
                        verdict.why_not = "derived from other images of its series"
                for member in dict.fromkeys(of_image[image] for image in group.images):
                    found[member].commands |= verdict.commands
                    found[member].why_not = found[member].why_not or verdict.why_not
    spin_locks = _spin_locks(scan, source)
    for candidate, verdict in found.items():
        if verdict.commands:
            verdict.why_not = ""
        else:
            verdict.why_not = spin_locks.get(candidate) or verdict.why_not or _why_not(candidate, fitted)
    return list(found.values())


def jobs_that_run(scan: Scan, chosen: Candidate, names: Sequence[str]) -> tuple[dict[str, str], str]:
    """The jobs that the headers of a candidate have all for -> the options that takes; why another has not."""
    series, found, why_not = headers_as_series(scan, chosen), {}, ""
    for job in sorted((job for job in all_jobs() if job.name in names), key=lambda job: names.index(job.name)):
        for settings in ({}, job.simpler) if job.simpler else ({},):
            try:
                with remarks_collected():
                    job(**settings).check_headers(series)
            except ValueError as error:
                why_not = why_not or error_in_words(error)[1]
            else:
                found[job.name] = "".join(f" {flag_of(name)} {value}" for name, value in settings.items())
                break
    return found, why_not


def _components(axis: Axis) -> Sequence[str]:
    return next(job.components for job in all_jobs() if job.name == axis.job)


def jobs_for(candidate: Candidate) -> Sequence[str]:
    """The names of the jobs for what varies; of echoes, by what files say of the sequence, or both."""
    if candidate.axis is ECHO_TIME:
        return {"GR": ("t2star",), "SE": ("t2",)}.get(kind_of_candidate(candidate).echo, ("t2star", "t2"))
    return (candidate.axis.job,)


def _with_siblings(scan: Scan, groups: Sequence[Candidate]) -> Iterator[tuple[Candidate, ...]]:
    """Of each group what a job finds where it is told to read this series alone."""
    of_image = {image: candidate for candidate in scan.candidates for image in candidate.images}
    of_uid: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in scan.candidates:
        for uid in candidate.series_uids:
            of_uid[uid].append(candidate)
    for group in groups:
        own = [of_image[image] for image in group.images]
        yield tuple(dict.fromkeys([*own, *(c for uid in group.series_uids for c in of_uid[uid])]))


def _options(group: Candidate, name: str | None, scan: Scan, several: bool) -> str:
    """What a command needs besides its input: the `name` of the series where there are several, None: it has none.

    `several`: the scan has series of both methods of the job.
    """
    options = " (its files in a folder of their own)" if name is None else f" --series {name}" if name else ""
    if group.component != "magnitude" and any(c.component == "magnitude" for c in scan.candidates):
        options += f" --component {group.component}"
    options += f" --time-point {group.time_point}" if group.time_point else ""
    varying = [axis for axis in AXES.values() if axis.job == group.axis.job and len(group.stated(axis)) > 1]
    method = "ir" if group.axis is INVERSION_TIME else "vfa"
    return f"{options} --method {method}" if several or len(varying) > 1 else options


def _spin_locks(scan: Scan, source: str) -> dict[Candidate, str]:
    """Series whose names say that their images differ in the spin-lock time, for which DICOM has no field."""
    turned, alike = scan.along(SPIN_LOCK_TIME), defaultdict(list)
    for candidate, there in zip(turned.candidates, scan.candidates, strict=True):
        if (
            candidate.component == "magnitude"
            and not candidate.values
            and _SPIN_LOCK_NAME.search(there.first.description)
        ):
            alike[candidate.shape, candidate.n_slices, candidate.images_per_slice].append(there)
    found: dict[Candidate, str] = {}
    for (*_, (fewest, most)), members in alike.items():
        n = len(members) if most == 1 else most
        series = " ".join(str(number) for member in members for number in member.numbers)
        options = f" --series {series}" if len(members) < len(scan.candidates) and series else ""
        times = f"--tsl-ms {'TSL ' * n}".rstrip()
        if n > 1 and fewest == most and (most == 1 or len(members) == 1):
            command = f"jaxqmri t1rho {source} -o OUT{options} {times}"
            found |= dict.fromkeys(members, f"no spin-lock times are stated; give them: {command}")
    return found


def _why_not(candidate: Candidate, fitted: Sequence[Candidate]) -> str:
    """In what it differs from what is fitted, or what is lacking."""
    if candidate.component != "magnitude":
        return f"{candidate.component} images"
    if candidate.value_error:
        return in_words(candidate.value_error.parts, on_the_command_line)
    if candidate.is_constant:
        instead = in_words(varies_instead(candidate), on_the_command_line) or "nothing varies that files state"
        return f"{at(candidate.axis, *candidate.values)} in all images; {instead}"
    alike = [group for group in fitted if (group.shape, group.n_slices) == (candidate.shape, candidate.n_slices)]
    one = f"one {candidate.axis.one} alone"
    for group in alike or fitted[:1]:
        return f"{one}; beside series {' '.join(map(str, group.numbers))} it {_apart(group, candidate)}"
    return one


def _apart(group: Candidate, candidate: Candidate) -> str:
    why = apart(group, candidate.along(group.axis))
    return why if why.startswith(("differs", "lies")) else f"is {why}"
