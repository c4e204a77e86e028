"""Images of one slice that differ in something else than what varies: repeated in time, or as several echoes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import Choose, CorruptInputError, LeaveOut, MapWith, UsageError, remark
from ..quantities import AXES, ECHO_TIME, FLIP_ANGLE, INVERSION_TIME
from .candidates import Candidate, Place, Scan, at, number

OTHER_TIMES = "images of other time points"
# By these a scanner tells repeated images of one slice apart, best first.
_IN_TIME = {
    "TemporalPositionIdentifier": "TemporalPositionIdentifier (0020,0100)",
    "AcquisitionNumber": "AcquisitionNumber (0020,0012)",
    "TriggerTime": "TriggerTime (0018,1060)",
}


def is_repeated(scan: Scan) -> bool:
    """Whether images of any candidate are repeated in time."""
    return any(_time_points(candidate) for candidate in scan.candidates)


def of_time_point(scan: Scan, time_point: int | str) -> Scan:
    """The same as if of images repeated in time only those of one time point, counted from 1, were there."""
    n = int(time_point)
    found = [(candidate, _time_points(candidate)) for candidate in scan.candidates]
    if not any(points for _, points in found):
        tags = ", ".join(_IN_TIME.values())
        raise UsageError(f"{scan.source}: no images are repeated in time by {tags}; ", LeaveOut("time_point"), ".")
    kept: list[Candidate] = []
    others: list[str] = []
    for candidate, points in found:
        n_points = max((place for place, _ in points), default=1)
        if points and not 1 <= n <= n_points:
            raise UsageError(f"{candidate}: there are {n_points} time points, counted from 1; no time point {n}.")
        use = np.array([place == n for place, _ in points] or [True] * len(candidate.images))
        kept.append(replace(only(candidate, use), time_point=n if points else None))
        others += [name for name, used in zip(candidate.names, use, strict=True) if not used]
    return replace(scan, candidates=tuple(kept), skipped={**scan.skipped, OTHER_TIMES: tuple(sorted(others))})


def check_repeats(candidate: Candidate) -> None:
    """Refuses echoes of several flip angles or inversion times, and images that are repeated in time."""
    for axis in (INVERSION_TIME, FLIP_ANGLE) if candidate.axis is ECHO_TIME else ():
        found: dict[Place, set[float]] = defaultdict(set)
        for place, image in zip(candidate.places, candidate.images, strict=True):
            found[place] |= set(image.stated(axis))
        (k, te), several = max(found.items(), key=lambda item: len(item[1]))
        if len(several) > 1:
            raise CorruptInputError(
                f"{candidate}: images of slice {k + 1} at {at(ECHO_TIME, te)} differ in {axis.keyword}, "
                f"{axis.described(sorted(several))}, so that they are several measurements; ",
                MapWith("t1"), f", or put the images of one {axis.term} in a folder of their own and give that.",
            )  # fmt: skip
    if points := _time_points(candidate):
        n_points = max(place for place, _ in points)
        first, keyword = points[0]
        names = sorted(name for name, (place, _) in zip(candidate.names, points, strict=True) if place != first)
        pair = " and ".join(sorted((candidate.names[0], names[0])))
        raise CorruptInputError(
            f"{candidate}: {n_points} time points: {pair} differ in {_IN_TIME[keyword]}, and one alone can be mapped; ",
            Choose("time_point", "1"), " or another.",
        )  # fmt: skip


def first_echoes(scan: Scan) -> Scan:
    """The same with the first echo alone of each inversion time or flip angle: that of all is weighted alike."""
    single: dict[tuple, set[tuple[float, ...]]] = defaultdict(set)  # what series of one value each have in common
    for candidate in scan.candidates:
        if len(candidate.values) == 1:
            single[_echoes(candidate)].add(candidate.values)
    varied = [len(c.values) > 1 or len(single[_echoes(c)]) > 1 for c in scan.candidates]
    return replace(
        scan,
        candidates=tuple(_first_echo(c) if varies else c for c, varies in zip(scan.candidates, varied, strict=True)),
    )


def remark_on_echoes(chosen: Candidate) -> None:
    """Says that echoes were left out."""
    if len(chosen.echo_times) > 1:
        axis = chosen.axis
        remark(
            f"every {axis.term} has {len(chosen.echo_times)} echoes, TE {ECHO_TIME.described(chosen.echo_times)}; the "
            f"first alone is used, as its decay is the same at every {axis.term}."
        )


def _echoes(candidate: Candidate) -> tuple:
    return candidate.component, candidate.shape, candidate.n_slices, len(candidate.stated(ECHO_TIME))


def _first_echo(candidate: Candidate) -> Candidate:
    te = np.array([number(image.header("EchoTime")) or np.nan for image in candidate.images])
    first: dict[tuple, float] = {}
    for place, value in zip(candidate.places, te, strict=True):
        first[place] = min(first.get(place, value), value)
    use = np.array([value == first[place] for place, value in zip(candidate.places, te, strict=True)])
    if candidate.value_error or np.isnan(te).any() or use.all():
        return candidate
    return replace(only(candidate, use), echo_times=candidate.stated(ECHO_TIME))


def _time_points(candidate: Candidate) -> list[tuple[int, str]]:
    """(image,) time point of each image from 1, and by which keyword; empty where there is only one."""
    places: dict[tuple, list[int]] = defaultdict(list)
    for i, (image, k) in enumerate(zip(candidate.images, candidate.slices.tolist(), strict=True)):
        places[k, *(number(image.header(axis.keyword)) for axis in AXES.values())].append(i)
    if len(places) == len(candidate.images):
        return []
    for keyword in _IN_TIME:
        times = [number(image.header(keyword)) or 0.0 for image in candidate.images]
        of_places = {place: sorted({times[i] for i in members}) for place, members in places.items()}
        if max(map(len, of_places.values())) > 1:
            return _ranks(times, places, of_places, keyword)
    return []


def _ranks(
    times: Sequence[float], places: dict[tuple, list[int]], of_places: dict[tuple, list[float]], keyword: str
) -> list[tuple[int, str]]:
    """By the times of all places, or of each where these are its own."""
    of_all = sorted(set(times))
    is_common = len(of_all) == max(map(len, of_places.values()))
    found = [(1, keyword)] * len(times)
    for place, members in places.items():
        order = of_all if is_common else of_places[place]
        for i in members:
            found[i] = (order.index(times[i]) + 1, keyword)
    return found


def only(candidate: Candidate, use: np.ndarray) -> Candidate:
    """The candidate with some of its images, at least one of each slice."""
    if use.all():
        return candidate
    counted = candidate.names if len(candidate.names) == len(use) else ()  # files of several volumes stay
    images, names, each = (
        tuple(one for one, used in zip(ones, use, strict=bool(ones)) if used)
        for ones in (candidate.images, counted, candidate.each)
    )
    return replace(candidate, images=images, names=names or candidate.names, each=each, slices=candidate.slices[use])
