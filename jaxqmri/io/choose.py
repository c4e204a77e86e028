"""Which candidate of a scan of DICOM or NIfTI files is read. Of two possible readings none is guessed."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..errors import (
    About,
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
from .axis import ROUNDING, axis_named, check_axis_values
from .candidates import Candidate, Scan, at, in_brackets, listed
from .join import joined
from .phase import UNDECLARED
from .protocol import check_one_protocol, check_order, differences, owners_differ
from .repeats import first_echoes, remark_on_echoes
from .sequence import varies_instead
from .series import COMPONENTS

OWN_FOLDER = "put the images of one of them in a folder of their own and give that."


def choose(scan: Scan, component: str | None = None) -> Candidate:
    """The one candidate that can be fitted: of one component, two or more values; measured images before derived ones.

    Series of one value each are joined, copies left out. No component given: magnitude or, where inversion times vary
    in real images only, real.
    """
    scan = scan if scan.axis is ECHO_TIME else first_echoes(scan)
    candidates = joined(scan)
    component = _wanted_component(scan, component, candidates)
    wanted = [c for c in candidates if c.component == component]
    for c in wanted:  # it could be one of the images of another candidate
        is_identified = c.series_uids or c.numbers or c.first.description or c.first.bids
        if scan.given is None and c.value_error and not is_identified:
            raise c.value_error
    for alike in [c for c in wanted if not c.first.derived], [c for c in wanted if c.first.derived]:
        usable = [c for c in alike if c.value_error is None and c.is_given == (scan.given is not None)]
        several = [c for c in usable if len(c.values) > 1]
        copies = enhanced_copies(several)
        for copy in copies:
            remark(About(copy), " is there twice, as classic files and as Enhanced MR; the classic files are used.")
        several = [c for c in several if c not in copies]
        if len(several) > 1:
            kind = "echo" if scan.axis is ECHO_TIME else scan.axis.term.replace(" ", "-")
            there = f"{scan.source}: {len(several)} multi-{kind} {component} series, {listed(several)}"
            raise CorruptInputError(
                f"{there}; only one can be read: ", *_how_to_choose(several), _what_differs(several),
                " `jaxqmri inspect` shows what the images call them.",
            )  # fmt: skip
        if several:
            return _checked(scan, several[0], alike, candidates)
        _raise_value_error(scan, alike)
    raise _nothing_to_read(scan, wanted, component, candidates)


def choose_axis(scan: Scan, axes: Sequence[str], component: str | None = None) -> tuple[Scan, Candidate]:
    """The same along the one of several axes that the images vary, with the scan along it."""
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
    for turned, candidate, remarks in found:
        for one in remarks:
            remark(*one.parts)
        return turned, candidate
    raise _none_varies(scan, refused)


def _wanted_component(scan: Scan, component: str | None, candidates: Sequence[Candidate]) -> str:
    if component in COMPONENTS:
        return component
    if component is not None:
        raise UsageError(f"component {component!r} is not one of {', '.join(COMPONENTS)}.")
    found = [c.component for c in candidates for _ in range(len(c.values) or (scan.given is not None))]
    real_only = found.count("real") > 1 >= found.count("magnitude")
    return "real" if scan.axis is INVERSION_TIME and real_only else "magnitude"


def _is_copy(enhanced: Candidate, classic: Candidate) -> bool:
    """Whether an Enhanced series is there as classic files too: some archives export both."""
    return (
        enhanced.is_enhanced
        and not classic.is_enhanced
        and not owners_differ(enhanced.first, classic.first)
        and (enhanced.first.series_number, enhanced.values, enhanced.shape, enhanced.n_slices)
        == (classic.first.series_number, classic.values, classic.shape, classic.n_slices)
        and enhanced.grid.same_as(classic.grid)
    )


def enhanced_copies(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that are there as classic files too."""
    classic = [c for c in candidates if not c.is_enhanced]
    return [c for c in candidates if c.is_enhanced and any(_is_copy(c, other) for other in classic)]


def _checked(scan: Scan, chosen: Candidate, alike: Sequence[Candidate], candidates: Sequence[Candidate]) -> Candidate:
    """The candidate; says what else was there, and refuses to leave out the rest of its series silently."""
    axis = scan.axis
    check_axis_values(axis, np.array(chosen.values), f"{chosen}, {chosen.first.where(axis)}".rstrip(", "))
    if of_slices := chosen.values_of_slices():
        raise CorruptInputError(
            f"{chosen}: the {axis.terms} differ between slices ({of_slices}), which must share them; put the images of "
            "each slice in a folder of its own and map these one by one."
        )
    others = [c for c in alike if c is not chosen and not _is_copy(c, chosen)]
    for other in others:
        if set(chosen.series_uids) & set(other.series_uids):
            what = ", ".join(owners_differ(chosen.first, other.first)) or "matrix, pixel spacing or orientation"
            raise CorruptInputError(
                f"images of one series differ in {what}: {listed([chosen, other])}. {axis.many.capitalize()} must "
                f"cover the same voxels; {OWN_FOLDER}"
            )
    if others:
        left = "; ".join(f"{other} ({apart(chosen, other)})" for other in others[:6])
        more = f" and {len(others) - 6} more" if len(others) > 6 else ""
        remark(About(chosen), " is used; passed over: ", About(left + more), ".")
    if chosen.parts:
        remark(
            f"{len(chosen.parts)} series of one {axis.one} each, alike but for their {axis.term}, are joined: ",
            About(chosen),
            ".",
        )
    remark_on_echoes(chosen)
    if chosen.first.derived:
        remark(
            About(chosen), " is marked DERIVED in ImageType (0008,0008); noise and scale may not be those of the scan."
        )
    uids, values = set(chosen.series_uids), set(chosen.values)
    of_series = [c for c in candidates if uids & set(c.series_uids) and c.component == chosen.component]
    if derived := [c for c in of_series if c.first.derived and not chosen.first.derived and set(c.values) - values]:
        remark(
            About(listed(derived)), " is marked DERIVED in ImageType (0008,0008) and left out of ", About(chosen), "."
        )
    for other in candidates:
        if other.is_map_at_te_0 and set(chosen.series_uids) & set(other.series_uids):
            remark(
                f"{other.n_images} images of ",
                About(chosen),
                " have TE 0; taken for a map of the scanner, passed over.",
            )
    scan.reader.check(scan, chosen)
    check_one_protocol(chosen)
    check_order(chosen)
    if scan.given is not None and np.any(np.diff(scan.given) < 0):
        remark(f"the given {axis.terms} do not ascend; they were sorted together with their images.")
    replaced = chosen.along(axis).values if chosen.is_given else ()
    if len(replaced) == len(chosen.values) and not np.allclose(replaced, chosen.values, rtol=ROUNDING, atol=0):
        remark(f"the given {axis.terms} are used in place of those in the files, {axis.described(replaced)}.")
    return chosen


def apart(chosen: Candidate, other: Candidate) -> str:
    """Why a candidate is no part of the chosen one, in short."""
    first, axis = chosen.first, chosen.axis
    if other.value_error and not other.values:
        return f"no usable {axis.terms}"
    if other.component != first.component or other.first.derived != first.derived:
        return "derived from other images" if other.first.derived else f"{other.component} images"
    if (other.shape, other.n_slices) != (chosen.shape, chosen.n_slices):
        return "of another matrix"
    if not chosen.grid.same_as(other.grid):
        return "lies elsewhere"
    if differ := differences(first, other.first, axis):
        return f"differs in {', '.join(differ)}"
    if twice := [value for value in other.values if value in chosen.values]:
        return f"{at(axis, *twice[:3])} is there already"
    return f"another series of several {axis.many}" if len(chosen.parts) < 2 else "of another series"


def names_of(candidates: Sequence[Candidate]) -> list[str]:
    """Of each the number, BIDS name or UID of its series, whichever tells one from another; none does: []."""
    named = (
        [" ".join(map(str, c.numbers)) for c in candidates],
        [str(c.first.bids or "") for c in candidates],
        [" ".join(c.series_uids) for c in candidates],
    )
    return next((names for names in named if all(names) and len(set(names)) == len(names)), [])


def _how_to_choose(candidates: Sequence[Candidate]) -> list[Part]:
    names = sorted(names_of(candidates))
    parts: list[Part] = [part for name in names[:6] for part in (" or ", Choose("series", name))]
    return [*parts[1:], f", or {OWN_FOLDER}"] if names else [OWN_FOLDER]


def _raise_value_error(scan: Scan, candidates: Sequence[Candidate]) -> None:
    for candidate in candidates:
        if candidate.value_error and candidate.is_given == (scan.given is not None):
            raise candidate.value_error
    if scan.given is not None:
        return
    axis, constant = scan.axis, [c for c in candidates if c.is_constant]
    copies = enhanced_copies(constant)
    constant = [c for c in constant if c not in copies]
    instead = {c: varies_instead(c) for c in constant}
    explained = next(filter(None, instead.values()), [])
    mend: list[Part] = [f"give images of different {axis.terms}"]
    if not all(instead.values()):
        mend += [", or of one series alone and ", Give(axis.name, f"its real {axis.terms}")]
    if len(constant) > 1:
        varies = f"{scan.source}: the {axis.term} varies in none of {len(constant)} series, {listed(constant)}; "
        raise CorruptInputError(varies, *explained, "; " * bool(explained), *mend, ".")
    for candidate in constant:
        n, where = candidate.images_per_slice[1], f"{candidate}, {candidate.first.where(axis)}"
        if explained:
            same = f"{where}: all {n} {axis.terms} are {axis.listed(candidate.values)} {axis.shown_unit}; "
            raise MetadataError(same, *explained, "; ", *mend, ".")
        check_axis_values(axis, np.full(n, candidate.values[0]), where)


def _nothing_to_read(
    scan: Scan, wanted: Sequence[Candidate], component: str, candidates: Sequence[Candidate]
) -> Exception:
    axis = scan.axis
    if scan.given is not None and len(scan.given) > 1 and wanted:
        counts = sorted({n for c in wanted for n in c.images_per_slice})
        return UsageError(
            f"{scan.source}: {len(scan.given)} {axis.terms} are given, but no {component} series has as "
            f"many images of each slice: {listed(wanted)} (images per slice: {' or '.join(map(str, counts))}). Give "
            f"one {axis.term} per image of a slice."
        )
    if wanted:
        return CorruptInputError(
            f"{scan.source}: only one {axis.one} in {listed(wanted)}; need at least 2 {axis.many} of the same slices."
            f"{_why_not_joined(wanted)} Give all {axis.many}."
        )
    if refusal := scan.reader.refusal(scan):
        return refusal
    if not candidates:
        return NoInputError(
            f"{scan.source}: no MR image that could be fitted{in_brackets(scan.skipped)}; check the folder."
        )
    kinds = " and ".join(sorted({c.component for c in candidates}))
    found = f"{scan.source}: only {kinds} images, {listed(candidates)}: not {component}, which a fit needs"
    remedy = f"Give the {component} images."
    if kinds == "phase" and any(None in scan.reader.radians(c) for c in candidates):
        return MetadataError(f"{found}; nor could the phase be used, as {UNDECLARED}. {remedy}")
    return CorruptInputError(f"{found}. {remedy}")


def _why_not_joined(candidates: Sequence[Candidate]) -> str:
    """What keeps series of one value each apart, or nothing."""
    values = [c.values for c in _of_same_matrix(candidates)]
    twice = next((v for v, count in Counter(values).items() if v and count > 1), None)
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
