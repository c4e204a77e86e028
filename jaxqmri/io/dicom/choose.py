"""Which of the stacks that a scan found is meant, and if none can be, why."""

from collections.abc import Sequence

import numpy as np

from ...errors import CorruptInputError, MetadataError, NoInputError, UsageError, remark
from ...quantities import ECHO_TIME, FLIP_ANGLE, INVERSION_TIME, Axis
from ..axis import check_axis_values
from ..phase import UNDECLARED
from ..series import wanted_component
from . import header
from .geometry import SAME_SLICE
from .scan import DicomScan, in_brackets
from .stack import Stack, at, differences, owners_differ

OWN_FOLDER = "put the images of one of them in a folder of their own and give that."
_DCM2NIIX = "convert with dcm2niix and give its NIfTI files."
_NOT_READ_YET = {
    header.MOSAIC: f"mosaics hold all slices of a volume in one image; {_DCM2NIIX}",
    header.MULTIFRAME: f"several frames in one classic MR file are not read; {_DCM2NIIX}",
}


def choose_stack(scan: DicomScan, component: str | None = None) -> Stack:
    """The one stack that can be fitted: of one component, two or more values; measured images before derived ones.

    Args:
        scan: what is there.
        component: see `read_dicom`.

    Raises:
        NoInputError: no MR image of any kind.
        CorruptInputError: several stacks could be meant; or there are single images, phase, or mosaics only.
        MetadataError: the values of the axis cannot be used; there is only phase, of unknown range.
        UsageError: the number of given values is not that of the images of a slice.
    """
    component = wanted_component(scan.axis, component, [s.component for s in scan.stacks for _ in s.values])
    wanted = [s for s in scan.stacks if s.component == component]
    for candidates in ([s for s in wanted if not s.derived], [s for s in wanted if s.derived]):
        usable = [s for s in candidates if s.value_error is None and s.is_given == (scan.given is not None)]
        several = _without_copies([s for s in usable if len(s.values) > 1])
        if len(several) > 1:
            raise CorruptInputError(
                f"{scan.source}: {len(several)} {_multi(scan.axis)} {component} stacks, {_listed(several)}; "
                f"only one can be fitted: {_how_to_choose(several)}{_what_differs(several)}"
            )
        if several:
            check_axis_values(scan.axis, np.array(several[0].values), f"{several[0]}, {several[0].where}")
            _check_alone(several[0], candidates)
            _tell_of_maps(several[0], scan.stacks)
            return several[0]
        if scan.given is None:
            _raise_value_error(candidates)
    raise _nothing_to_fit(scan, wanted, component)


def _multi(axis: Axis) -> str:
    return "multi-echo" if axis is ECHO_TIME else f"multi-{axis.term.replace(' ', '-')}"


def _without_copies(stacks: Sequence[Stack]) -> list[Stack]:
    """Leaves out Enhanced stacks that are there as classic files too: some archives export both."""
    kept = [s for s in stacks if not (s.is_enhanced and any(_is_copy(s, other) for other in stacks))]
    for stack in stacks:
        if stack not in kept:
            remark(f"{stack} is there twice, as classic files and as Enhanced MR; the classic files are used.")
    return kept


def _is_copy(enhanced: Stack, classic: Stack) -> bool:
    return (
        not classic.is_enhanced
        and not owners_differ(enhanced.frames[0], classic.frames[0])
        and (enhanced.series_number, enhanced.values, enhanced.shape, enhanced.n_slices)
        == (classic.series_number, classic.values, classic.shape, classic.n_slices)
        and np.allclose(enhanced.places, classic.places, rtol=0, atol=SAME_SLICE)
    )


def _how_to_choose(stacks: Sequence[Stack]) -> str:
    """Names series numbers, or UIDs where numbers do not tell."""
    for names in ([stack.numbers for stack in stacks], [tuple(sorted(stack.series_uids)) for stack in stacks]):
        each = [" ".join(map(str, name)) for name in sorted(names)]
        if all(each) and len(set(each)) == len(each):
            return f"choose one with --series {' or --series '.join(each[:6])} (series= in Python), or {OWN_FOLDER}"
    return OWN_FOLDER


def _tell_of_maps(chosen: Stack, stacks: Sequence[Stack]) -> None:
    for other in stacks:
        if other.is_map_at_te_0 and chosen.series_uids & other.series_uids:
            remark(f"{len(other.frames)} images of {chosen} have TE 0; taken for a map of the scanner, passed over.")


def _check_alone(chosen: Stack, candidates: Sequence[Stack]) -> None:
    """Says what else was there; the rest of the same series must not be left out silently."""
    others = [s for s in candidates if s is not chosen and not (s.is_enhanced and _is_copy(s, chosen))]
    for other in others:
        if chosen.series_uids & other.series_uids:
            raise CorruptInputError(
                f"images of one series differ in {_what_parts(chosen, other)}: {_listed([chosen, other])}. "
                f"{chosen.axis.many.capitalize()} must cover the same voxels; {OWN_FOLDER}"
            )
    if others:
        remark(f"{chosen} is used; passed over: {_listed(others)}.")
    if len(chosen.series_uids) > 1:
        remark(
            f"{len(chosen.series_uids)} series of one {chosen.axis.one} each, alike but for their "
            f"{chosen.axis.term}, are joined: {chosen}."
        )
    if chosen.derived:
        remark(f"{chosen} is marked DERIVED in ImageType (0008,0008); noise and scale may not be those of the scan.")


def _what_parts(a: Stack, b: Stack) -> str:
    return ", ".join(owners_differ(a.frames[0], b.frames[0])) or "matrix, pixel spacing or orientation"


def _raise_value_error(candidates: Sequence[Stack]) -> None:
    for stack in candidates:
        if stack.value_error:
            raise stack.value_error
        uids = {str(frame.dataset.get("SOPInstanceUID")) for frame in stack.frames}
        if len(uids) > stack.n_slices and len(stack.values) == 1:  # several images a slice, all of one value
            same = np.full(stack.images_per_slice[1], stack.values[0])
            check_axis_values(stack.axis, same, f"{stack}, {stack.where}")


def _nothing_to_fit(scan: DicomScan, stacks: Sequence[Stack], component: str) -> Exception:
    axis = scan.axis
    if scan.given is not None and len(scan.given) > 1 and stacks:
        return UsageError(
            f"{len(scan.given)} {axis.terms} are given ({axis.name}, {axis.option}), but no {component} series "
            f"has as many images of each slice: {_listed(stacks)} {_per_slice(stacks)}. Give one {axis.term} per "
            "image of a slice."
        )
    if stacks:
        return CorruptInputError(
            f"{scan.source}: only one {axis.one} in {_listed(stacks)}; need >= 2 {axis.many} of the same slices to see "
            f"{_SEEN[axis.name]}.{_why_not_joined(stacks)} Give the folder that holds all {axis.many}."
        )
    for reason, message in _NOT_READ_YET.items():
        if reason in scan.skipped:
            return CorruptInputError(f"{scan.source}: {message}")
    if scan.stacks:
        fitted = "decay is fitted to magnitude images" if axis is ECHO_TIME else f"{component} images are wanted"
        refusal = f"{scan.source}: {_listed(scan.stacks)}: not {component}, and {fitted}"
        remedy = f"Give the folder of the {component} series."
        if _is_phase_of_unknown_range(scan.stacks):
            return MetadataError(f"{refusal}; nor could the phase be used, as {UNDECLARED}. {remedy}")
        return CorruptInputError(f"{refusal}. {remedy}")
    if header.UNPLACED in scan.skipped:
        return MetadataError(
            f"{scan.source}: the images lack ImagePositionPatient (0020,0032), ImageOrientationPatient (0020,0037) or "
            f"PixelSpacing (0028,0030), so no map could be placed; {_DCM2NIIX}"
        )
    return NoInputError(
        f"{scan.source}: no MR image that could be fitted{in_brackets(scan.skipped)}; check the folder."
    )


def _is_phase_of_unknown_range(stacks: Sequence[Stack]) -> bool:
    frames = [frame for stack in stacks for frame in stack.frames]
    return all(frame.component == "phase" for frame in frames) and any(
        header.radians_per_displayed(frame.dataset) is None for frame in frames
    )


_SEEN = {ECHO_TIME.name: "a decay", INVERSION_TIME.name: "a recovery", FLIP_ANGLE.name: "T1"}


def _why_not_joined(stacks: Sequence[Stack]) -> str:
    """What keeps series of one value each apart, or nothing."""
    values = [stack.values for stack in _of_same_matrix(stacks)]
    twice = next((v for v in values if values.count(v) > 1), None)
    if twice:
        return f" {at(stacks[0].axis, twice[0])} is there twice."
    return _what_differs(stacks) or (" They do not cover the same slices." if len(values) > 1 else "")


def _what_differs(stacks: Sequence[Stack]) -> str:
    first, *others = _of_same_matrix(stacks)
    found = (differences(first.frames[0], other.frames[0], first.axis) for other in others)
    words = next(filter(None, found), [])
    return f" They differ in {', '.join(words)}." if words else ""


def _of_same_matrix(stacks: Sequence[Stack]) -> list[Stack]:
    return [stack for stack in stacks if (stack.shape, stack.n_slices) == (stacks[0].shape, stacks[0].n_slices)]


def _per_slice(stacks: Sequence[Stack]) -> str:
    counts = sorted({n for stack in stacks for n in stack.images_per_slice})
    return f"(images per slice: {' or '.join(map(str, counts))})"


def _listed(stacks: Sequence[Stack]) -> str:
    text = "; ".join(str(stack) for stack in stacks[:6])
    return text if len(stacks) <= 6 else f"{text} and {len(stacks) - 6} more"
