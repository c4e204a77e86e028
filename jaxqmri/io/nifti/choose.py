"""Which of the series that a scan found is fitted, in the order of what varies; and if none can be, why.

Where two readings are possible none is guessed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...errors import CorruptInputError, InputWarning, MetadataError, UsageError
from ...quantities import ECHO_TIME, Axis
from ..axis import check_axis_values
from ..bids.names import NUMBERS, parse_name
from ..phase import UNDECLARED
from ..series import wanted_component
from .file import NiftiImage, same_grid
from .scan import NiftiScan, Stack, ordered, stack_of
from .sidecar import image_number, stem


def choose_stack(scan: NiftiScan, component: str | None = None) -> Stack:
    """Picks the one series of several values of the axis and orders it by them.

    Args:
        scan: what `scan_nifti` found.
        component: which images; None: see `read_nifti`.

    Returns:
        The stack to be fitted, with its values; warns where something was passed over or mended.

    Raises:
        UsageError: the values given do not fit the files.
        CorruptInputError: no such component, no or several series, images on different grids or twice.
        MetadataError: values missing, or not those of the volumes; only phase images, of unknown range.
    """
    found = [stack.component for stack in scan.stacks for _ in range(stack.n_volumes)]
    component = wanted_component(scan.axis, component, found)
    wanted = [stack for stack in scan.stacks if stack.component == component]
    if not wanted:
        there = " and ".join(sorted(set(found)))
        refusal = f"{scan.source}: only {there} images; a fit needs {component} images, convert those too"
        images = [image for stack in scan.stacks for image in stack.images]
        if there == "phase" and any(image.radians_per_value is None for image in images):
            raise MetadataError(f"{refusal}. Nor could the phase be used: {UNDECLARED}.")
        raise CorruptInputError(f"{refusal}.")
    if scan.given is None:
        for image in (image for stack in wanted for image in stack.images):
            _check_volumes(image, scan.axis)
    stack = _the_series(wanted, scan)
    if stack.bids_series is not None:
        _check_bids_series(stack, given=scan.given is not None)
    if scan.given is not None:
        stack = _with_values(stack, tuple(scan.given.tolist()), scan)
    _check_values(stack, scan.source)
    _check_grid(stack.images)
    _pass_on_remarks(stack.images)
    return stack


def _check_volumes(image: NiftiImage, axis: Axis) -> None:
    name, n_values = image.path.name, len(image.values)
    if image.value_error:
        raise image.value_error
    if n_values == 0:
        raise MetadataError(
            f"{name}: no {axis.keyword}, as {stem(image.path)}.json is missing or lacks it; give the {axis.terms} "
            f"with {axis.option}, or move the file away if it is not one of the {axis.many}."
        )
    if n_values == 1 and image.n_volumes > 1:
        raise MetadataError(
            f"{name}: {image.n_volumes} volumes but one {axis.keyword} ({axis.described(image.values)}), so its "
            f"4th axis is not {axis.many} (from GE often magnitude, real, imaginary); keep the magnitude volume, "
            f"or give {axis.option} if they are."
        )
    if n_values != image.n_volumes:
        raise MetadataError(
            f"{name}: {image.n_volumes} volume(s), but {n_values} {axis.terms} in {stem(image.path)}.json; mend "
            f"it or give {axis.option}."
        )


def _the_series(stacks: Sequence[Stack], scan: NiftiScan) -> Stack:
    axis, several = scan.axis, [stack for stack in stacks if stack.n_volumes > 1]
    varying = [stack for stack in several if len(set(stack.values)) != 1]  # or nobody knows
    if scan.given is None and varying:
        several = varying
    elif scan.given is None and len(several) > 1:
        raise CorruptInputError(
            f"{scan.source}: the {axis.term} varies in none of {len(several)} series "
            f"({'; '.join(map(str, several))}); give images of different {axis.terms}, or one series with its "
            f"real ones, {axis.option}."
        )
    if len(several) > 1:
        raise CorruptInputError(
            f"{scan.source}: {len(several)} multi-{axis.term.split()[0]} series ({'; '.join(map(str, several))}); "
            f"{_how_to_choose(several)}"
        )
    if len(stacks) == 1:
        return stacks[0]
    if several:
        n_others = sum(stack.n_volumes for stack in stacks) - several[0].n_volumes
        message = f"{several[0]} is used; {n_others} single-{axis.one} image(s) of other series are not."
    else:
        _check_one_sequence(stacks, scan)
        message = f"{len(stacks)} series of one {axis.one} each are taken for one series."
    warnings.warn(message, InputWarning, stacklevel=2)
    return several[0] if several else stack_of([image for stack in stacks for image in stack.images], axis)


def _how_to_choose(stacks: Sequence[Stack]) -> str:
    """Names series numbers where they tell one from another."""
    numbers = [str(stack.series_number) for stack in stacks if stack.series_number is not None]
    if len(set(numbers)) < len(stacks):
        return "put the one you want into a folder of its own."
    return f"choose one with --series {' or --series '.join(numbers[:6])}, or put it into a folder of its own."


_ALIKE = ("RepetitionTime", "RepetitionTimeExcitation", "EchoTime", "InversionTime", "FlipAngle", "ScanningSequence")


def _check_one_sequence(stacks: Sequence[Stack], scan: NiftiScan) -> None:
    """Refuses to take images for those of one measurement where more differs than the axis."""
    axis = scan.axis
    named = [stack.bids_series for stack in stacks]
    if any(named) and len(set(map(str, named))) > 1:
        told = ", ".join(sorted({str(name or stack) for name, stack in zip(named, stacks, strict=True)}))
        raise CorruptInputError(
            f"{scan.source}: single images that are of different series by their BIDS names ({told}), so they are not "
            f"{axis.many} of one measurement; give the images of one series, or rename those that do belong together."
        )
    for key in (key for key in _ALIKE if key != axis.keyword):
        found = sorted({str(image.sidecar.get(key)) for stack in stacks for image in stack.images})
        if len(found) > 1:
            single = "no multi-echo series, but single images" if axis is ECHO_TIME else "single images"
            raise CorruptInputError(
                f"{scan.source}: {single} that differ in {key} ({', '.join(found)}), so they are not {axis.many} of "
                f"one sequence; need at least 2 {axis.many}."
            )


def _with_values(stack: Stack, given: tuple[float, ...], scan: NiftiScan) -> Stack:
    images, axis = stack.images, scan.axis
    if len(given) != stack.n_volumes:
        raise UsageError(
            f"{scan.source}: {len(given)} {axis.term}(s) given for {stack.n_volumes} volume(s) in {len(images)} "
            f"file(s), of shape {images[0].shape}; give one per volume."
        )
    if len(images) > 1 and stack.n_volumes > len(images):
        raise UsageError(f"{scan.source}: {axis.terms} given for several files with a 4th axis; name one of them.")
    if len(images) > 1:
        stack = replace(stack, images=_in_order_of(given, images, scan))
    if list(given) != sorted(given):
        message = f"{axis.terms} given are not ascending; sorted, with their images."
        warnings.warn(message, InputWarning, stacklevel=2)
    return ordered(stack, given)


def _in_order_of(given: Sequence[float], images: tuple[NiftiImage, ...], scan: NiftiScan) -> tuple[NiftiImage, ...]:
    """Files so that the k-th one belongs to the k-th value given: as listed, or in a folder by what they say."""
    axis, said = scan.axis, [image.values for image in images]
    if not all(said) or len(set(said)) < len(said):
        said = [image_number(image.path, image.sidecar, axis) for image in images]
    known = None not in said and len(set(said)) == len(said)
    if not scan.listed and not known:
        tried = {"te": "no EchoNumber, no _e1", "ti": "no inv-1", "flip_angles": "no flip-1"}[axis.name]
        raise UsageError(
            f"{scan.source}: nothing says which file belongs to which {axis.term} given ({tried} in the names); "
            "list the files one by one, or stack them into one 4-D file."
        )
    places = np.argsort(np.array(said, dtype=np.float64).ravel()) if known else np.arange(len(images))
    if not scan.listed:
        return tuple(images[i] for i in places)
    # A list sorted as text (e1, e10, e2) with ascending echo times would pass for good data.
    if known and not np.array_equal(places, np.argsort(given, kind="stable")):
        raise UsageError(
            f"{scan.source}: the order of the {axis.terms} given contradicts {axis.keyword} or the numbers of the "
            "files; list both in the same order."
        )
    return images


def _check_bids_series(stack: Stack, given: bool) -> None:
    """Refuses a series that lacks an image, and says that magnitudes are taken for granted where nothing tells."""
    names = [name for image in stack.images if (name := parse_name(stem(image.path)))]
    entity, numbers = NUMBERS[stack.axis.name], [name.number(stack.axis.name) for name in names]
    there = {number for number in numbers if number is not None}
    missing = sorted(set(range(1, max(there, default=0) + 1)) - there)
    if missing and not given:
        lacks = ", ".join(f"{entity}-{number}" for number in missing)
        raise CorruptInputError(
            f"{stack.bids_series}: {lacks} of {entity}-1 to {entity}-{max(there)} missing, and a fit without it may go "
            f"wrong unseen; copy or fetch it, or give the {stack.axis.terms} that are there with "
            f"{stack.axis.option}."
        )
    if stack.component == "magnitude" and not stack.image_type and not any("part" in n.entities for n in names):
        message = f"{stack.bids_series}: neither part- in the names nor ImageType tells; taken for magnitude images."
        warnings.warn(message, InputWarning, stacklevel=2)


def _check_values(stack: Stack, where: str) -> None:
    axis = stack.axis
    if len(stack.values) == 1:
        nothing = "one image shows no decay" if axis is ECHO_TIME else "one image shows no T1"
        raise CorruptInputError(
            f"{where}: only one {axis.one} ({axis.described(stack.values)}), and {nothing}; need at least 2 "
            f"{axis.many}."
        )
    check_axis_values(axis, np.array(stack.values), where)
    names = [image.path.name for image in stack.images for _ in range(image.n_volumes)]
    for k in np.flatnonzero(np.diff(stack.values) == 0):
        pair = sorted({names[stack.order[k]], names[stack.order[k + 1]]})
        raise CorruptInputError(
            f"{' and '.join(pair)}: {axis.term} {axis.described([stack.values[k]])} twice (two runs, coils "
            "or time points?); leave one of them out."
        )


def _check_grid(images: Sequence[NiftiImage]) -> None:
    first = images[0]
    for image in images[1:]:
        names = f"{first.path.name} and {image.path.name}"
        if image.shape[:3] != first.shape[:3]:
            raise CorruptInputError(
                f"{names}: shapes {first.shape[:3]} and {image.shape[:3]} differ, so they are not images of one "
                "measurement; leave out what does not belong."
            )
        if not same_grid(first.affine, image.affine):
            raise CorruptInputError(
                f"{names}: affines differ, so their voxels lie at different places; leave out what does not belong or "
                "resample it."
            )


def _pass_on_remarks(images: Sequence[NiftiImage]) -> None:
    remarks = [image.remark for image in images if image.remark]
    for remark in dict.fromkeys(remarks):
        message = f"{remark} ({remarks.count(remark)} of {len(images)} files)."
        warnings.warn(message, InputWarning, stacklevel=2)
