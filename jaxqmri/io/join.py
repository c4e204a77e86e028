"""Series of one value each as one candidate, in what others differ, and values that the caller gives."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import UsageError
from ..quantities import AXES, ECHO_TIME, Axis
from .candidates import Candidate, Image, Scan, number

ROUNDING = 1e-3  # of a time or an angle; scanners print the same one with more or fewer digits
NUDGED = 5e-3  # GE moves TE and TR a little with the flip angle; T1 moves by as much at most, which nobody can measure
# Anonymisers blank these or give all patients the same: only different ones tell anything.
_OWNERS = {
    "PatientID": "the patient (PatientID (0010,0020))",
    "StudyInstanceUID": "the study (StudyInstanceUID (0020,000D))",
    "FrameOfReferenceUID": "the frame of reference (FrameOfReferenceUID (0020,0052))",
}
TIMING = ("RepetitionTime", "RepetitionTimeExcitation", *(axis.keyword for axis in AXES.values() if axis.keyword))


def joined(scan: Scan) -> list[Candidate]:
    """The candidates; series of one value each of the same slices, as many scanners make them, as one of them."""
    families: list[list[Candidate]] = []
    for candidate in scan.candidates:
        family = next((f for f in families if _belongs_to(f, candidate, scan.axis)), [])
        if not family:
            families.append(family)
        family.append(candidate)
    found: list[Candidate] = []
    for family in families:
        values = {value for member in family for value in member.values}
        complete = len(values) == len(family) and not any(member.value_error for member in family)
        is_one = len(family) > 1 and (complete if scan.given is None else len(family) == len(scan.given))
        found += [_join(family)] if is_one else family
    return found if scan.given is None else [_with_given(c, scan.given) for c in found]


def _belongs_to(family: Sequence[Candidate], candidate: Candidate, axis: Axis) -> bool:
    """Whether a candidate has one image of each slice, and is like those of a family but for its value."""
    first = family[0]
    return (
        first.images_per_slice == candidate.images_per_slice == (1, 1)
        and not {uid for member in family for uid in member.series_uids} & set(candidate.series_uids)
        and (first.component, first.first.derived, first.shape, first.n_slices, first.is_enhanced)
        == (candidate.component, candidate.first.derived, candidate.shape, candidate.n_slices, candidate.is_enhanced)
        and first.grid.same_as(candidate.grid)
        and not differences(first.first, candidate.first, axis)
        and not any(owners_differ(member.first, candidate.first) for member in family)
    )


def _join(family: Sequence[Candidate]) -> Candidate:
    return replace(
        family[0],
        images=tuple(image for member in family for image in member.images),
        slices=np.concatenate([member.slices for member in family]),
        names=tuple(name for member in family for name in member.names),
        each=tuple(value for member in family for value in member.each),
        value_error=next((member.value_error for member in family if member.value_error), None),
        parts=tuple(family),
    )


def _with_given(candidate: Candidate, given: np.ndarray) -> Candidate:
    """The candidate with given values where it has as many images of each slice, in the order they were acquired."""
    n = len(given)
    if candidate.images_per_slice != (n, n):
        return candidate
    orders = [image.order(candidate.axis, of_several_series=len(candidate.parts) > 1) for image in candidate.images]
    ranks = _ranks(candidate, orders)
    positions = [image.listed for image in candidate.images]
    error = None
    if None not in positions:
        # A list of files sorted as text (e1, e10, e2) with ascending values would pass for good data.
        if ranks is not None and not np.array_equal(np.argsort(ranks), np.argsort(given)):
            error = UsageError(
                f"the order of the given {candidate.axis.terms} contradicts {candidate.axis.keyword} or the numbers of "
                "the files; list both in the same order."
            )
        ranks = np.argsort(np.argsort(positions))
    if ranks is None:
        tried = [name for name, _ in orders[0]]
        error = UsageError(
            f"the given {candidate.axis.terms} cannot be matched to the images of {candidate}: "
            f"{'neither ' if len(tried) > 1 else 'no '}{' nor '.join(tried)} tells the images of a slice apart. Give "
            f"exactly one image per slice and {candidate.axis.one}, or files one by one in the order of the values."
        )
    each = candidate.each if error or ranks is None else tuple(given[ranks].tolist())
    return replace(candidate, each=each, value_error=error, is_given=True)


def _ranks(candidate: Candidate, orders: Sequence[Sequence[tuple[str, float | None]]]) -> np.ndarray | None:
    """(image,) place of each image among those of its slice by the first number that tells them apart, or None."""
    for of_images in zip(*orders, strict=True):
        numbers = [found for _, found in of_images]
        if None in numbers or len(set(zip(candidate.slices.tolist(), numbers, strict=True))) < len(numbers):
            continue
        ranks = np.empty(len(numbers), int)
        per_slice = candidate.images_per_slice[0]
        ranks[np.lexsort((numbers, candidate.slices))] = np.arange(len(numbers)) % per_slice
        return ranks
    return None


def differences(a: Image, b: Image, axis: Axis) -> list[str]:
    """In what two images that may belong to one measurement differ beside `axis`, e.g. "RepetitionTime 5.4 and 9"."""
    found = owners_differ(a, b)
    for keyword in TIMING:
        first, second = number(a.header(keyword)), number(b.header(keyword))
        unlike = first != second and (first is None or second is None or abs(first - second) > NUDGED * abs(first))
        if keyword != axis.keyword and unlike:
            found.append(f"{keyword} {_or_none(first)} and {_or_none(second)}")
    if a.sequence != b.sequence:
        found.append("ScanningSequence")
    if a.bids != b.bids:
        return [*found, f"their BIDS names, {_or_none(a.bids)} and {_or_none(b.bids)}"]
    # Echoes are told from other scans by their name as well, but for its numbers; TI or flip angles are often set, and
    # series named, by hand.
    if axis is ECHO_TIME and len({re.sub(r"[\d.,]+", "#", image.description).lower() for image in (a, b)}) > 1:
        found.append("SeriesDescription")
    return found


def owners_differ(a: Image, b: Image) -> list[str]:
    """In whose images they are two images differ (not whose they are); what either does not say is not held against."""
    said = {key: {str(image.header(key) or "").strip() for image in (a, b)} - {""} for key in _OWNERS}
    return [in_words for key, in_words in _OWNERS.items() if len(said[key]) > 1]


def _or_none(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
