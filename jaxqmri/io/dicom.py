"""Classic DICOM files -> `ImageSeries`: which stack is meant, whether its images are complete, where its voxels lie.

Enhanced MR keeps many images in one file. It enters where `dicom_scan` turns a file into a `Frame`, one Frame per
image, and where `dicom_pixels` decodes one; everything between works on Frames.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import dicom_header as header
from .axis import ECHO_TIME, FLIP_ANGLE, INVERSION_TIME, Axis, check_axis_values, requested_axis
from .dicom_geometry import IRREGULAR, stack_affine
from .dicom_header import Frame
from .dicom_pixels import at_top, rescaled, stored_values, upright, use_floating_point
from .dicom_scan import DicomScan, PathLike, in_brackets, scan_dicom
from .dicom_stack import ROUNDING, Stack, differences, thickness
from .errors import CorruptInputError, InputWarning, MetadataError, NoInputError, UsageError
from .series import ImageSeries, wanted_component

_OWN_FOLDER = "put the images of one of them in a folder of their own and give that."
_DCM2NIIX = "convert with dcm2niix and give its NIfTI files."
_NOT_READ_YET = {
    header.ENHANCED: f"Enhanced MR is not read yet; {_DCM2NIIX}",
    header.MOSAIC: f"mosaics hold all slices of a volume in one image; {_DCM2NIIX}",
    header.MULTIFRAME: f"several frames in one classic MR file are not read; {_DCM2NIIX}",
}
# By these a scanner tells repeated images of one slice apart.
_REPEATS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "EchoTime",
    "FlipAngle",
    "InversionTime",
    "RepetitionTime",
    "TriggerTime",
)
_NUMBERS = {  # BIDS key -> what turns DICOM's unit into that of BIDS
    "RepetitionTime": 1e-3,
    "EchoTime": 1e-3,
    "InversionTime": 1e-3,
    "FlipAngle": 1.0,
    "MagneticFieldStrength": 1.0,
    "SliceThickness": 1.0,
}
_WORDS = {
    "Manufacturer": "Manufacturer",
    "ManufacturersModelName": "ManufacturerModelName",
    "MRAcquisitionType": "MRAcquisitionType",
    "ScanningSequence": "ScanningSequence",
}

Images = dict[tuple[int, float], tuple[Frame, np.ndarray]]  # slice, value of the axis -> image and its stored values


def read_dicom(
    path: PathLike | Iterable[PathLike],
    *,
    te: Sequence[float] | np.ndarray | None = None,
    ti: Sequence[float] | np.ndarray | None = None,
    flip_angles: Sequence[float] | np.ndarray | None = None,
    axis: str | None = None,
    component: str | None = None,
) -> ImageSeries:
    """Reads the one series of different echo times, inversion times or flip angles among classic DICOM files.

    Files are told apart by what their headers say, never by name or folder. Values are rescaled image by image (Rescale
    Slope and Intercept; Philips' floating-point scale where the files have it), so that images are comparable. Series
    of one value each are joined if they cover the same slices with the same timing.

    Args:
        path: a folder (searched recursively), a file, or several of either.
        te: (n,) echo times [s] that replace those in the files, in the order of acquisition; see `scan_dicom`.
        ti: likewise inversion times [s].
        flip_angles: likewise flip angles [rad].
        axis: what varies, "te", "ti" or "flip_angle"; None: what is given, or else "te".
        component: "magnitude", "phase", "real" or "imaginary"; None: magnitude or, where inversion times vary in real
            images only, real.

    Returns:
        data (x, y, z, n) float32, the axis ascending; x along rows, y from the bottom row up, z along the slice normal,
        as dcm2niix stores them; affine in RAS+ mm.

    Raises:
        NoInputError: nothing there that could be fitted.
        CorruptInputError: files damaged, incomplete, contradictory, or of several series.
        MetadataError: what varies is missing or implausible.
        UsageError: the values given do not fit the images; values for two axes.

    Sources:
        DICOM PS3.3 C.7.6.2 (geometry) and C.11.1 (rescale).
    """
    wanted, given = requested_axis(axis, te, ti, flip_angles)
    scan = scan_dicom(path, given, wanted)
    return read_stack(scan, choose_stack(scan, component))


def choose_stack(scan: DicomScan, component: str | None = None) -> Stack:
    """The one stack that can be fitted: of one component, two or more values; measured images before derived ones.

    Args:
        scan: what is there.
        component: see `read_dicom`.

    Raises:
        NoInputError: no MR image of any kind.
        CorruptInputError: several stacks could be meant; or there are single images, phase, mosaics or Enhanced only.
        MetadataError: the values of the axis cannot be used.
        UsageError: the number of given values is not that of the images of a slice.
    """
    component = wanted_component(scan.axis, component, [s.component for s in scan.stacks for _ in s.values])
    wanted = [s for s in scan.stacks if s.component == component]
    for candidates in ([s for s in wanted if not s.derived], [s for s in wanted if s.derived]):
        usable = [s for s in candidates if s.value_error is None and s.is_given == (scan.given is not None)]
        several = [s for s in usable if len(s.values) > 1]
        if len(several) > 1:
            raise CorruptInputError(
                f"{scan.source}: {len(several)} {_multi(scan.axis)} {component} stacks, {_listed(several)}; "
                f"only one can be fitted: {_OWN_FOLDER}{_what_differs(several)}"
            )
        if several:
            check_axis_values(scan.axis, np.array(several[0].values), f"{several[0]}, {scan.axis.where}")
            _check_alone(several[0], candidates)
            return several[0]
        if scan.given is None:
            _raise_value_error(candidates)
    raise _nothing_to_fit(scan, wanted, component)


def _multi(axis: Axis) -> str:
    return "multi-echo" if axis is ECHO_TIME else f"multi-{axis.quantity.replace(' ', '-')}"


def _check_alone(chosen: Stack, candidates: Sequence[Stack]) -> None:
    """Says what else was there; the rest of the same series must not be left out silently."""
    others = [s for s in candidates if s is not chosen]
    for other in others:
        if chosen.series_uids & other.series_uids:
            raise CorruptInputError(
                f"images of one series differ in matrix, pixel spacing or orientation: {_listed([chosen, other])}. "
                f"{chosen.axis.many.capitalize()} must cover the same voxels; {_OWN_FOLDER}"
            )
    if others:
        _warn(f"{chosen} is used; passed over: {_listed(others)}.")
    if len(chosen.series_uids) > 1:
        _warn(
            f"{len(chosen.series_uids)} series of one {chosen.axis.one} each, alike but for their "
            f"{chosen.axis.quantity}, are joined: {chosen}."
        )
    if chosen.derived:
        _warn(f"{chosen} is marked DERIVED in ImageType (0008,0008); noise and scale may not be those of the scan.")


def _raise_value_error(candidates: Sequence[Stack]) -> None:
    for stack in candidates:
        if stack.value_error:
            raise stack.value_error
        uids = {str(frame.dataset.get("SOPInstanceUID")) for frame in stack.frames}
        if len(uids) > stack.n_slices and len(stack.values) == 1:  # several images a slice, all of one value
            same = np.full(stack.images_per_slice[1], stack.values[0])
            check_axis_values(stack.axis, same, f"{stack}, {stack.axis.where}")


def _nothing_to_fit(scan: DicomScan, stacks: Sequence[Stack], component: str) -> Exception:
    axis = scan.axis
    if scan.given is not None and len(scan.given) > 1 and stacks:
        return UsageError(
            f"{len(scan.given)} {axis.quantities} are given ({axis.name}, {axis.option}), but no {component} series "
            f"has as many images of each slice: {_listed(stacks)} {_per_slice(stacks)}. Give one {axis.quantity} per "
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
        return CorruptInputError(
            f"{scan.source}: {_listed(scan.stacks)}: not {component}, and {fitted}. "
            f"Give the folder of the {component} series."
        )
    if header.UNPLACED in scan.skipped:
        return MetadataError(
            f"{scan.source}: the images lack ImagePositionPatient (0020,0032), ImageOrientationPatient (0020,0037) or "
            f"PixelSpacing (0028,0030), so no map could be placed; {_DCM2NIIX}"
        )
    return NoInputError(
        f"{scan.source}: no MR image that could be fitted{in_brackets(scan.skipped)}; check the folder."
    )


_SEEN = {ECHO_TIME.name: "a decay", INVERSION_TIME.name: "a recovery", FLIP_ANGLE.name: "T1"}


def _why_not_joined(stacks: Sequence[Stack]) -> str:
    """What keeps series of one value each apart, or nothing."""
    values = [stack.values for stack in _of_same_matrix(stacks)]
    twice = next((v for v in values if values.count(v) > 1), None)
    if twice:
        return f" {_at(stacks[0].axis, twice[0])} is there twice."
    return _what_differs(stacks) or (" They do not cover the same slices." if len(values) > 1 else "")


def _what_differs(stacks: Sequence[Stack]) -> str:
    first, *others = _of_same_matrix(stacks)
    found = [differences(first.frames[0], other.frames[0], first.axis) for other in others]
    return f" They differ in {', '.join(found[0])}." if found and found[0] else ""


def _of_same_matrix(stacks: Sequence[Stack]) -> list[Stack]:
    return [stack for stack in stacks if (stack.shape, stack.n_slices) == (stacks[0].shape, stacks[0].n_slices)]


def _per_slice(stacks: Sequence[Stack]) -> str:
    counts = sorted({n for stack in stacks for n in stack.images_per_slice})
    return f"(images per slice: {' or '.join(map(str, counts))})"


def _listed(stacks: Sequence[Stack]) -> str:
    text = "; ".join(str(stack) for stack in stacks[:6])
    return text if len(stacks) <= 6 else f"{text} and {len(stacks) - 6} more"


def read_stack(scan: DicomScan, stack: Stack) -> ImageSeries:
    """Reads the images of a stack of any component; what else the scan found is counted as skipped.

    Raises:
        CorruptInputError: images damaged, missing, contradictory, or not a regular volume.
        MetadataError: the stack has no usable values of what varies.
    """
    axis = stack.axis
    if stack.value_error:
        raise stack.value_error
    _check_complete(stack, scan.skipped)
    images, n_duplicates = _one_image_each(stack)
    frames = [frame for frame, _ in images.values()]
    affine = _affine(stack, images)
    data = np.empty((*stack.shape, stack.n_slices, len(stack.values)), np.float32)
    saturated = np.zeros(data.shape[:3], bool)
    floating_point = use_floating_point(frames)
    for (k, value), (frame, stored) in images.items():
        data[:, :, k, stack.values.index(value)] = upright(rescaled(frame, stored, floating_point=floating_point))
        saturated[:, :, k] |= upright(at_top(frame, stored))
    negative = int(np.count_nonzero(data < 0))
    if negative and stack.component == "magnitude":
        _warn(f"{negative} of {data.size} magnitude values are negative; they are kept. Is this a real or phase image?")
    if scan.given is not None and np.any(np.diff(scan.given) < 0):
        _warn(f"the given {axis.quantities} do not ascend; they were sorted together with their images.")
    acquisition, values = _acquisition(frames, axis), np.array(stack.values)
    te = np.full(len(values), acquisition.get("EchoTime", np.nan))
    return ImageSeries(
        data=data,
        te=values if axis is ECHO_TIME else te,
        affine=affine,
        component=stack.component,
        description=stack.description,
        source_format="DICOM",
        n_files=len(images),
        acquisition=acquisition,
        skipped=_all_skipped(scan, stack, n_duplicates),
        saturated=saturated,
        ti=values if axis is INVERSION_TIME else None,
        flip_angles=values if axis is FLIP_ANGLE else None,
    )


def _one_image_each(stack: Stack) -> tuple[Images, int]:
    """Decodes the images; identical copies are dropped, different images of one slice and value refused."""
    images: Images = {}
    n_duplicates = 0
    for k, frame in zip(stack.slices.tolist(), stack.frames, strict=True):
        stored = stored_values(frame)
        first, known = images.setdefault((k, frame.value), (frame, stored))
        if first is frame:
            continue
        if not np.array_equal(stored, known) or header.rescale(first.dataset) != header.rescale(frame.dataset):
            names = " and ".join(sorted((first.name, frame.name)))
            raise CorruptInputError(
                f"{names}: different images of slice {k + 1} at {_at(frame.axis, frame.value)}"
                f"{_difference(first, frame)}; two measurements must not be mixed: {_OWN_FOLDER}"
            )
        n_duplicates += 1
    if n_duplicates:
        _warn(f"{n_duplicates} duplicate images (identical pixels) were dropped.")
    return images, n_duplicates


def _at(axis: Axis, value: float) -> str:
    return f"{axis.symbol} {axis.listed(value)} {axis.unit}"


def _difference(a: Frame, b: Frame) -> str:
    tags = [tag for tag in _REPEATS if a.dataset.get(tag) != b.dataset.get(tag)]
    return f" (they differ in {', '.join(tags)})" if tags else ""


def _check_complete(stack: Stack, skipped: Mapping[str, Sequence[str]]) -> None:
    there = {(k, frame.value) for k, frame in zip(stack.slices.tolist(), stack.frames, strict=True)}
    missing = [(k, value) for value in stack.values for k in range(stack.n_slices) if (k, value) not in there]
    if missing:
        named = ", ".join(f"slice {k + 1} at {_at(stack.axis, value)}" for k, value in missing[:4])
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise CorruptInputError(
            f"{stack}: {len(missing)} of {stack.n_slices * len(stack.values)} images missing: {named}{more}"
            f"{in_brackets(skipped)}. Every slice needs every {stack.axis.one}; copy the series again."
        )


def _affine(stack: Stack, images: Images) -> np.ndarray:
    """Voxel index -> RAS+ [mm], once all images of a slice are known to lie in one place."""
    first = stack.frames[0]
    positions = np.array([images[k, stack.values[0]][0].position for k in range(stack.n_slices)])
    for (k, value), (frame, _) in images.items():
        shift = float(np.linalg.norm(frame.position - positions[k]))  # mm
        if shift > IRREGULAR * min(first.pixel_spacing):
            raise CorruptInputError(
                f"{frame.name}: slice {k + 1} at {_at(stack.axis, value)} lies {shift:.3f} mm from where the first "
                f"{stack.axis.one} has it (ImagePositionPatient (0020,0032)); {stack.axis.many} must cover the same "
                "voxels. Check that it is one series."
            )
    return stack_affine(positions, first.orientation, first.pixel_spacing, thickness(first), stack.shape[1])


def _acquisition(frames: Sequence[Frame], axis: Axis) -> dict[str, Any]:
    """What all images agree on. Timing that differs confounds a decay, which is warned of; T1 it makes meaningless."""
    found: dict[str, Any] = {}
    for key, factor in _NUMBERS.items():
        if key == axis.keyword:
            continue
        numbers = [header.as_float(frame.dataset.get(key)) for frame in frames]
        values = sorted({number for number in numbers if number is not None})
        if values and values[-1] - values[0] <= ROUNDING * abs(values[0]):
            found[key] = float(f"{factor * values[0]:.12g}")  # 125 ms is 0.125 s, not 0.12500000000000003
        elif values and axis is not ECHO_TIME and key in ("RepetitionTime", "EchoTime"):
            raise CorruptInputError(
                f"{key} differs between images ({', '.join(f'{v:g}' for v in values[:4])}), so that the signal does "
                f"not depend on the {axis.quantity} alone; {_OWN_FOLDER}"
            )
        elif values and key != "SliceThickness":
            _warn(f"{key} differs between images; the signal then does not depend on the {axis.quantity} alone.")
    for key, keyword in _WORDS.items():
        words = {_text(frame.dataset.get(keyword)) for frame in frames} - {""}
        if len(words) == 1:
            found[key] = words.pop()
    return found


def _text(value: Any) -> str:
    """Several words joined as DICOM has them in one value."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return "\\".join(map(str, value)) if several else str(value or "").strip()


def _all_skipped(scan: DicomScan, chosen: Stack, n_duplicates: int) -> dict[str, int]:
    """Reason -> count; together with the files read these are all files there are."""
    counts: dict[str, int] = defaultdict(int, {reason: len(names) for reason, names in scan.skipped.items()})
    for stack in scan.stacks:
        if stack is not chosen:
            kind = f"{stack.component} images" if stack.component != chosen.component else "images of other series"
            counts[kind] += len(stack.frames)
    if n_duplicates:
        counts["duplicate images"] = n_duplicates
    return dict(counts)


def _warn(message: str) -> None:
    warnings.warn(message, InputWarning, stacklevel=2)
