"""Series of one value each as one candidate, and values that the caller gives."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import UsageError
from ..quantities import ECHO_TIME, Axis
from .candidates import Candidate, Scan
from .protocol import TIMING, described, differences, labels, owner, stated

SAME_PLACE = 1.0  # mm; series whose first voxels are further apart are not compared any further


class _Family:
    """Candidates of one value each that are alike but for it."""

    def __init__(self, first: Candidate):
        self.members: list[Candidate] = []
        self.series_uids: set[str] = set()
        self.owner: dict[str, str] = {}  # as far as any member says it
        self.add(first)

    def add(self, candidate: Candidate) -> None:
        self.members.append(candidate)
        self.series_uids |= set(candidate.series_uids)
        self.owner |= owner(candidate.first)

    def takes(self, candidate: Candidate, axis: Axis) -> bool:
        """Whether a candidate that `_families` put beside it is like its members."""
        first, whose = self.members[0], owner(candidate.first)
        return (
            self.series_uids.isdisjoint(candidate.series_uids)
            and all(self.owner.get(key, said) == said for key, said in whose.items())
            and first.grid.same_as(candidate.grid)
            and not differences(first.first, candidate.first, axis)
        )

    def is_one(self, given: np.ndarray | None) -> bool:
        """Whether they make up one candidate."""
        if len(self.members) == 1 or given is not None:
            return given is not None and len(self.members) == len(given) > 1
        values = {value for member in self.members for value in member.values}
        return len(values) == len(self.members) and not any(member.value_error for member in self.members)


def joined(scan: Scan) -> list[Candidate]:
    """The candidates; series of one value each of the same slices, as many scanners make them, as one of them."""
    found: list[Candidate] = []
    for family in _families(scan.candidates, scan.axis):
        found += [_join(family.members)] if family.is_one(scan.given) else family.members
    return found if scan.given is None else [_with_given(c, scan.given) for c in found]


def _families(candidates: Sequence[Candidate], axis: Axis) -> list[_Family]:
    """Families in the order of their first members. Only what is alike in cheap respects is compared: there may be
    thousands of series of one image each."""
    single = [c.images_per_slice == (1, 1) for c in candidates]
    keywords = [keyword for keyword in TIMING if keyword != axis.keyword]
    respects = [labels(keyword, [stated(c.first, keyword) for c in candidates]) for keyword in keywords]
    respects += [labels("", [float(c.grid.origin[i]) for c in candidates], SAME_PLACE) for i in range(3)]
    families: list[_Family] = []
    alike: dict[tuple, list[_Family]] = defaultdict(list)
    for i, candidate in enumerate(candidates):
        first = candidate.first
        name = described(first) if axis is ECHO_TIME else ""
        key = (
            first.component, first.derived, candidate.shape, candidate.n_slices, candidate.is_enhanced,
            first.sequence, str(first.bids), name, *(of_each[i] for of_each in respects),
        )  # fmt: skip
        family = next((f for f in alike[key] if f.takes(candidate, axis)), None) if single[i] else None
        if family is not None:
            family.add(candidate)
            continue
        families.append(_Family(candidate))
        if single[i]:
            alike[key].append(families[-1])
    return families


def _join(members: Sequence[Candidate]) -> Candidate:
    return replace(
        members[0],
        images=tuple(image for member in members for image in member.images),
        slices=np.concatenate([member.slices for member in members]),
        names=tuple(name for member in members for name in member.names),
        each=tuple(value for member in members for value in member.each),
        value_error=next((member.value_error for member in members if member.value_error), None),
        parts=tuple(members),
    )


def _with_given(candidate: Candidate, given: np.ndarray) -> Candidate:
    """The candidate with given values where it has as many images of each slice.

    They go to images in the order in which these are listed; else, where they ascend, by the different values in the
    headers; else in the order of acquisition.
    """
    n, axis = len(given), candidate.axis
    if candidate.images_per_slice != (n, n):
        return candidate
    orders = [image.order(axis, of_several_series=len(candidate.parts) > 1) for image in candidate.images]
    numbered = ([found for _, found in of_images] for of_images in zip(*orders, strict=True))
    acquired = next((ranks for found in numbered if (ranks := _ranks(candidate, found)) is not None), None)
    by_header = _ranks(candidate, [None if np.isnan(value) else value for value in candidate.each])
    listed = _ranks(candidate, [image.listed for image in candidate.images])
    ascends = bool(np.all(np.diff(given) > 0))
    ranks = by_header if by_header is not None and (ascends or acquired is None) else acquired
    ranks = ranks if listed is None else listed
    if ranks is None:
        return replace(candidate, value_error=_no_order(candidate, [name for name, _ in orders[0]]), is_given=True)
    each, in_headers = given[ranks], np.array(candidate.each)
    against = in_headers
    if listed is not None and acquired is not None and np.isnan(in_headers).all():
        against = acquired.astype(float)  # a list of files sorted as text: e1, e10, e2
    if _contradicts(candidate.slices, each, against):
        where = candidate.first.where(axis) if against is in_headers else "the numbers of the files"
        mend = "list both in the same order" if listed is not None else "give them in ascending order"
        mend = mend if listed is not None or by_header is not None else "mend the headers"
        values = f", {axis.listed(candidate.values)} {axis.shown_unit}" if against is in_headers else ""
        contradiction = f"the order of the given {axis.terms} contradicts {where} of {candidate}{values}; {mend}."
        return replace(candidate, value_error=UsageError(contradiction), is_given=True)
    return replace(candidate, each=tuple(each.tolist()), value_error=None, is_given=True)


def _no_order(candidate: Candidate, tried: Sequence[str]) -> UsageError:
    axis = candidate.axis
    return UsageError(
        f"the given {axis.terms} cannot be matched to the images of {candidate}: "
        f"{'neither ' if len(tried) > 1 else 'no '}{' nor '.join(tried)} tells the images of a slice apart. Give "
        f"exactly one image per slice and {axis.one}, or files one by one in the order of the values."
    )


def _ranks(candidate: Candidate, numbers: Sequence[float | None]) -> np.ndarray | None:
    """(image,) place of each image among those of its slice by numbers that tell these apart, or None."""
    if None in numbers or len(set(zip(candidate.slices.tolist(), numbers, strict=True))) < len(numbers):
        return None
    ranks = np.empty(len(numbers), int)
    ranks[np.lexsort((np.array(numbers, float), candidate.slices))] = (
        np.arange(len(numbers)) % candidate.images_per_slice[0]
    )
    return ranks


def _contradicts(slices: np.ndarray, given: np.ndarray, stated: np.ndarray) -> bool:
    """Whether (image,) values of one slice ascend otherwise than those stated; NaN where nothing is."""
    order = np.lexsort((given, slices))
    order = order[~np.isnan(stated[order])]
    return bool(np.any((np.diff(stated[order]) < 0) & (np.diff(slices[order]) == 0)))
