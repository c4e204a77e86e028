"""Which candidate of a scan is read: series of one value each are joined, copies and what cannot be meant left out.

Where two readings are possible none is guessed; the message says what to do. One rule for DICOM and NIfTI.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import (
    Choose,
    CorruptInputError,
    Give,
    MetadataError,
    NoInputError,
    Part,
    Remark,
    Setting,
    UsageError,
    remark,
    remarks_collected,
)
from ..quantities import ECHO_TIME, INVERSION_TIME, Axis
from .axis import axis_named, check_axis_values
from .candidates import Candidate, Image, Scan, at, listed, number
from .phase import UNDECLARED
from .series import COMPONENTS

OWN_FOLDER = "put the images of one of them in a folder of their own and give that."
ROUNDING = 1e-3  # of a time or an angle; scanners print the same one with more or fewer digits


def choose(scan: Scan, component: str | None = None) -> Candidate:
    """The one candidate that can be fitted: of one component, two or more values; measured images before derived ones.

    Args:
        scan: what is there.
        component: which images; None: magnitude or, where inversion times vary in real images only, real.

    Raises:
        NoInputError: no MR image of any kind.
        CorruptInputError: several could be meant; single images only, or only of other components; incomplete.
        MetadataError: the values of the axis cannot be used; there is only phase, of unknown range.
        UsageError: no such component; the number of given values is not that of the images of a slice.
    """
    candidates = _joined(scan)
    component = _wanted_component(scan, component, candidates)
    wanted = [c for c in candidates if c.component == component]
    for c in wanted:  # it could be one of the images of another candidate
        if scan.given is None and c.value_error and not c.says_its_series:
            raise c.value_error
    for alike in ([c for c in wanted if not c.derived], [c for c in wanted if c.derived]):
        usable = [c for c in alike if c.value_error is None and c.is_given == (scan.given is not None)]
        several = _without_copies([c for c in usable if len(c.values) > 1])
        if len(several) > 1:
            kind = "multi-echo" if scan.axis is ECHO_TIME else f"multi-{scan.axis.term.replace(' ', '-')}"
            there = (
                f"{scan.source}: {len(several)} {kind} {component} series, {listed(several)}; only one can be read: "
            )
            raise CorruptInputError(there, *_how_to_choose(several), _what_differs(several))
        if several:
            return _checked(scan, several[0], alike, candidates)
        if scan.given is None:
            _raise_value_error(scan, alike)
    raise _nothing_to_read(scan, wanted, component, candidates)


def choose_axis(scan: Scan, axes: Sequence[str], component: str | None = None) -> tuple[Scan, Candidate]:
    """The same along the one of several axes that the images vary, with the scan along it.

    Raises:
        UsageError: series of both are there.
        CorruptInputError, MetadataError: there is none; says why for each axis.
    """
    found: list[tuple[Scan, Candidate, list[Remark]]] = []
    refused: dict[Axis, ValueError] = {}
    for axis in map(axis_named, axes):
        turned = scan.along(axis)
        with remarks_collected() as remarks:
            try:
                found.append((turned, choose(turned, component), remarks))
            except ValueError as error:
                refused[axis] = error
    if len(found) > 1:
        both = " and ".join(str(candidate) for _, candidate, _ in found)
        raise UsageError(f"{scan.source}: {both} could both be meant; say which with ", Setting("method"), ".")
    if not found:
        raise _none_varies(scan, refused)
    turned, candidate, remarks = found[0]
    for one in remarks:
        remark(*one.parts)
    return turned, candidate


def differences(a: Image, b: Image, axis: Axis) -> list[str]:
    """In what two images that may belong to one measurement differ beside `axis`, e.g. "RepetitionTime 5.4 and 9".

    Whose images they are is not told, only that it differs.
    """
    found = owners_differ(a, b)
    for keyword in _TIMING:
        first, second = number(a.said(keyword)), number(b.said(keyword))
        if keyword != axis.keyword and not _alike(first, second):
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
    """In whose images they are two images differ; what either does not say is not held against them."""
    found = []
    for keyword, in_words in _OWNERS.items():
        first, second = (str(image.said(keyword) or "").strip() for image in (a, b))
        if first and second and first != second:
            found.append(in_words)
    return found


# Anonymisers blank these or give all patients the same: only different ones tell anything.
_OWNERS = {
    "PatientID": "the patient (PatientID (0010,0020))",
    "StudyInstanceUID": "the study (StudyInstanceUID (0020,000D))",
    "FrameOfReferenceUID": "the frame of reference (FrameOfReferenceUID (0020,0052))",
}
_TIMING = ("RepetitionTime", "RepetitionTimeExcitation", "EchoTime", "InversionTime", "FlipAngle")


def _alike(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and abs(a - b) <= ROUNDING * abs(a))


def _or_none(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


# joining, and values given by the caller ------------------------------------------------------------------------------


def _joined(scan: Scan) -> list[Candidate]:
    """The candidates; series of one value each of the same slices, as many scanners make them, as one of them."""
    families: list[list[Candidate]] = []
    for candidate in scan.candidates:
        family = next((f for f in families if _is_of(f, candidate, scan.axis)), None)
        if family is None:
            families.append([candidate])
        else:
            family.append(candidate)
    found: list[Candidate] = []
    for family in families:
        values = {value for member in family for value in member.values}
        complete = len(values) == len(family) and not any(member.value_error for member in family)
        if len(family) > 1 and (complete if scan.given is None else len(family) == len(scan.given)):
            found.append(_join(family))
        else:
            found += family
    return found if scan.given is None else [_with_given(c, scan.given) for c in found]


def _is_of(family: Sequence[Candidate], candidate: Candidate, axis: Axis) -> bool:
    """Whether a candidate has one image of each slice, and is like those of a family but for its value."""
    first = family[0]
    return (
        first.images_per_slice == candidate.images_per_slice == (1, 1)
        and not {uid for member in family for uid in member.series_uids} & set(candidate.series_uids)
        and (first.component, first.derived, first.shape, first.n_slices, first.is_enhanced)
        == (candidate.component, candidate.derived, candidate.shape, candidate.n_slices, candidate.is_enhanced)
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
    ranks = _ranks(candidate)
    positions = [image.listed for image in candidate.images]
    if None not in positions:
        # A list of files sorted as text (e1, e10, e2) with ascending values would pass for good data.
        if ranks is not None and not np.array_equal(np.argsort(ranks), np.argsort(given)):
            raise UsageError(
                f"the order of the given {candidate.axis.terms} contradicts {candidate.axis.keyword} or the numbers of "
                "the files; list both in the same order."
            )
        ranks = np.argsort(np.argsort(positions))
    if ranks is None:
        tried = [name for name, _ in _orders(candidate)[0]]
        raise UsageError(
            f"the given {candidate.axis.terms} cannot be matched to the images of {candidate}: "
            f"{'neither ' if len(tried) > 1 else 'no '}{' nor '.join(tried)} tells the images of a slice apart. Give "
            f"exactly one image per slice and {candidate.axis.one}, or files one by one in the order of the values."
        )
    return replace(candidate, each=tuple(given[ranks].tolist()), value_error=None, is_given=True)


def _orders(candidate: Candidate) -> list[Sequence[tuple[str, float | None]]]:
    several = len(candidate.parts) > 1
    return [image.order(candidate.axis, of_several_series=several) for image in candidate.images]


def _ranks(candidate: Candidate) -> np.ndarray | None:
    """(image,) place of each image among those of its slice by the first number that tells them apart, or None."""
    for of_images in zip(*_orders(candidate), strict=True):
        numbers = [found for _, found in of_images]
        if None in numbers or len(set(zip(candidate.slices.tolist(), numbers, strict=True))) < len(numbers):
            continue
        ranks = np.empty(len(numbers), int)
        per_slice = candidate.images_per_slice[0]
        ranks[np.lexsort((numbers, candidate.slices))] = np.arange(len(numbers)) % per_slice
        return ranks
    return None


# what is chosen -------------------------------------------------------------------------------------------------------


def _wanted_component(scan: Scan, component: str | None, candidates: Sequence[Candidate]) -> str:
    if component is not None:
        if component not in COMPONENTS:
            raise UsageError(f"component {component!r} is not one of {', '.join(COMPONENTS)}.")
        return component
    found = [c.component for c in candidates for _ in range(len(c.values) or (scan.given is not None))]
    real_only = found.count("real") > 1 >= found.count("magnitude")
    return "real" if scan.axis is INVERSION_TIME and real_only else "magnitude"


def _without_copies(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Leaves out Enhanced series that are there as classic files too: some archives export both."""
    kept = [c for c in candidates if not any(_is_copy(c, other) for other in candidates)]
    for candidate in candidates:
        if candidate not in kept:
            remark(f"{candidate} is there twice, as classic files and as Enhanced MR; the classic files are used.")
    return kept


def _is_copy(enhanced: Candidate, classic: Candidate) -> bool:
    return (
        enhanced.is_enhanced
        and not classic.is_enhanced
        and not owners_differ(enhanced.first, classic.first)
        and (enhanced.series_number, enhanced.values, enhanced.shape, enhanced.n_slices)
        == (classic.series_number, classic.values, classic.shape, classic.n_slices)
        and enhanced.grid.same_as(classic.grid)
    )


def _checked(scan: Scan, chosen: Candidate, alike: Sequence[Candidate], candidates: Sequence[Candidate]) -> Candidate:
    """The candidate; says what else was there, and refuses to leave out the rest of its series silently."""
    axis = scan.axis
    check_axis_values(axis, np.array(chosen.values), f"{chosen}, {chosen.first.where(axis)}")
    others = [c for c in alike if c is not chosen and not _is_copy(c, chosen)]
    for other in others:
        if set(chosen.series_uids) & set(other.series_uids):
            what = ", ".join(owners_differ(chosen.first, other.first)) or "matrix, pixel spacing or orientation"
            raise CorruptInputError(
                f"images of one series differ in {what}: {listed([chosen, other])}. {axis.many.capitalize()} must "
                f"cover the same voxels; {OWN_FOLDER}"
            )
    if others:
        remark(f"{chosen} is used; passed over: {listed(others)}.")
    if chosen.parts:
        remark(
            f"{len(chosen.parts)} series of one {axis.one} each, alike but for their {axis.term}, are joined: {chosen}."
        )
    if chosen.derived:
        remark(f"{chosen} is marked DERIVED in ImageType (0008,0008); noise and scale may not be those of the scan.")
    for other in candidates:
        if other.is_map_at_te_0 and set(chosen.series_uids) & set(other.series_uids):
            remark(f"{other.n_images} images of {chosen} have TE 0; taken for a map of the scanner, passed over.")
    scan.reader.check(scan, chosen)
    if scan.given is not None and np.any(np.diff(scan.given) < 0):
        remark(f"the given {axis.terms} do not ascend; they were sorted together with their images.")
    return chosen


# why nothing is -------------------------------------------------------------------------------------------------------


def _how_to_choose(candidates: Sequence[Candidate]) -> list[Part]:
    """Names series by number, BIDS name or UID, where one of these tells one from another."""
    named = (
        [" ".join(map(str, c.numbers)) for c in candidates],
        [str(c.first.bids or "") for c in candidates],
        [" ".join(c.series_uids) for c in candidates],
    )
    for names in map(sorted, named):
        if all(names) and len(set(names)) == len(names):
            parts: list[Part] = [part for name in names[:6] for part in (" or ", Choose("series", name))]
            return [*parts[1:], f", or {OWN_FOLDER}"]
    return [OWN_FOLDER]


def _raise_value_error(scan: Scan, candidates: Sequence[Candidate]) -> None:
    axis, constant = scan.axis, [c for c in candidates if c.is_constant and not c.value_error]
    constant = [c for c in constant if not any(_is_copy(c, other) for other in constant)]
    for candidate in candidates:
        if candidate.value_error:
            raise candidate.value_error
    if len(constant) > 1:
        varies = f"the {axis.term} varies in none of {len(constant)} series, {listed(constant)}"
        raise CorruptInputError(
            f"{scan.source}: {varies}; give images of different {axis.terms}, or of one series alone and ",
            Give(axis.name, f"its real {axis.terms}"), ".",
        )  # fmt: skip
    for candidate in constant:
        same = np.full(candidate.images_per_slice[1], candidate.values[0])
        check_axis_values(axis, same, f"{candidate}, {candidate.first.where(axis)}")


def _nothing_to_read(
    scan: Scan, wanted: Sequence[Candidate], component: str, candidates: Sequence[Candidate]
) -> Exception:
    axis = scan.axis
    if scan.given is not None and len(scan.given) > 1 and wanted:
        counts = sorted({n for c in wanted for n in c.images_per_slice})
        return UsageError(
            f"{scan.source}: {len(scan.given)} {axis.terms} are given ({axis.name}), but no {component} series has as "
            f"many images of each slice: {listed(wanted)} (images per slice: {' or '.join(map(str, counts))}). Give "
            f"one {axis.term} per image of a slice."
        )
    if wanted:
        return CorruptInputError(
            f"{scan.source}: only one {axis.one} in {listed(wanted)}; need at least 2 {axis.many} of the same slices."
            f"{_why_not_joined(wanted)} Give all {axis.many}."
        )
    refusal = scan.reader.refusal(scan)
    if refusal is not None:
        return refusal
    if not candidates:
        return NoInputError(f"{scan.source}: no MR image that could be fitted{scan.passed_over()}; check the folder.")
    kinds = " and ".join(sorted({c.component for c in candidates}))
    found = f"{scan.source}: only {kinds} images, {listed(candidates)}: not {component}, which a fit needs"
    remedy = f"Give the {component} images."
    if kinds == "phase" and any(None in scan.reader.radians(c) for c in candidates):
        return MetadataError(f"{found}; nor could the phase be used, as {UNDECLARED}. {remedy}")
    return CorruptInputError(f"{found}. {remedy}")


def _why_not_joined(candidates: Sequence[Candidate]) -> str:
    """What keeps series of one value each apart, or nothing."""
    values = [c.values for c in _of_same_matrix(candidates)]
    twice = next((v for v in values if v and values.count(v) > 1), None)
    if twice:
        return f" {at(candidates[0].axis, *twice)} is there twice."
    return _what_differs(candidates) or (" They do not cover the same slices." if len(values) > 1 else "")


def _what_differs(candidates: Sequence[Candidate]) -> str:
    first, *others = _of_same_matrix(candidates)
    found = next(filter(None, (differences(first.first, other.first, first.axis) for other in others)), [])
    return f" They differ in {', '.join(found)}." if found else ""


def _of_same_matrix(candidates: Sequence[Candidate]) -> list[Candidate]:
    first = candidates[0]
    return [c for c in candidates if (c.shape, c.n_slices) == (first.shape, first.n_slices)]


def _none_varies(scan: Scan, refused: dict[Axis, ValueError]) -> ValueError:
    """Why nothing can be read along any axis: the reason along the one that does vary, or all reasons."""
    varying = [axis for axis in refused if _varies(scan, axis)]
    terms = " or ".join(axis.term for axis in refused)
    if not varying and len(scan.candidates) > 1 and all(c.images_per_slice[1] > 1 for c in scan.candidates):
        return CorruptInputError(
            f"{scan.source}: no {terms} varies within any series; give images that differ in one of them."
        )
    if len(varying) == 1 or len({str(error) for error in refused.values()}) == 1:
        return refused[varying[0]] if varying else next(iter(refused.values()))
    kind = next((type(e) for e in refused.values() if isinstance(e, MetadataError)), CorruptInputError)
    reasons: list[Part] = []
    for axis, error in refused.items():
        reasons += [f" By {axis.term}: ", *getattr(error, "parts", [str(error)])]
    return kind(f"{scan.source}: images of no single series that differ in {terms}.", *reasons)


def _varies(scan: Scan, axis: Axis) -> bool:
    """Whether images that could belong together differ in it: those of one series, or series of one image each."""
    candidates = scan.along(axis).candidates
    single = {value for c in candidates if c.images_per_slice[1] == 1 for value in c.values}
    return len(single) > 1 or any(len(c.values) > 1 for c in candidates)
