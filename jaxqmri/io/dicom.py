"""DICOM files -> `ImageSeries`: which stack is meant, whether its images are complete, where its voxels lie.

Enhanced MR keeps many images in one file. `dicom_scan` turns every file into Frames, one per image, and `dicom_pixels`
decodes one; nothing between knows how many files there are.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import dicom_header as header
from .axis import ECHO_TIME, FLIP_ANGLE, INVERSION_TIME, Axis, requested_axis
from .dicom_choose import OWN_FOLDER, choose_stack
from .dicom_codec import decoder
from .dicom_geometry import IRREGULAR, stack_affine
from .dicom_header import Frame
from .dicom_identity import dicom_identity
from .dicom_pixels import at_top, rescaled, stored_values, upright, use_floating_point
from .dicom_scan import OTHER_SERIES, DicomScan, PathLike, in_brackets, scan_dicom
from .dicom_stack import ROUNDING, Stack, at, thickness
from .errors import CorruptInputError, warn
from .memory import check_memory
from .series import ImageSeries

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
    series: int | str | Sequence[int | str] = (),
) -> ImageSeries:
    """Reads the one series of different echo times, inversion times or flip angles among DICOM files.

    Files, classic or Enhanced, are told apart by what their headers say, never by name or folder. Values are rescaled
    image by image (Rescale Slope and Intercept; Philips' floating-point scale where the files have it), so that images
    are comparable. Series of one value each are joined if they cover the same slices with the same timing.

    Args:
        path: a folder (searched recursively), a file, or several of either.
        te: (n,) echo times [s] that replace those in the files, in the order of acquisition; see `scan_dicom`.
        ti: likewise inversion times [s].
        flip_angles: likewise flip angles [rad].
        axis: what varies, "te", "ti" or "flip_angle"; None: what is given, or else "te".
        component: "magnitude", "phase", "real" or "imaginary"; None: magnitude or, where inversion times vary in real
            images only, real.
        series: the series to read where there are several: Series Number (0020,0011), or Series Instance UID
            (0020,000E) or how it begins; several for those of one value each.

    Returns:
        data (x, y, z, n) float32, the axis ascending; x along rows, y from the bottom row up, z along the slice normal,
        as dcm2niix stores them; affine in RAS+ mm.

    Raises:
        NoInputError: nothing there that could be fitted.
        CorruptInputError: files damaged, incomplete, contradictory, or of several series.
        MetadataError: what varies is missing or implausible.
        UsageError: the values given do not fit the images; values for two axes; no such series.

    Sources:
        DICOM PS3.3 C.7.6.2 (geometry) and C.11.1 (rescale).
    """
    wanted, given = requested_axis(axis, te, ti, flip_angles)
    scan = scan_dicom(path, given, wanted).of_series(series)
    return read_stack(scan, choose_stack(scan, component))


def read_stack(scan: DicomScan, stack: Stack) -> ImageSeries:
    """Reads the images of a stack of any component; what else the scan found is counted as skipped.

    Raises:
        CorruptInputError: images damaged, missing, contradictory, or not a regular volume.
        MetadataError: the stack has no usable values of what varies.
        DeviceError: the images are larger than the memory.
    """
    axis = stack.axis
    if stack.value_error:
        raise stack.value_error
    check_complete(stack, scan.skipped)
    check_memory((*stack.shape, stack.n_slices, len(stack.values)), str(stack))
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
        warn(f"{negative} of {data.size} magnitude values are negative; they are kept. Is this a real or phase image?")
    if scan.given is not None and np.any(np.diff(scan.given) < 0):
        warn(f"the given {axis.quantities} do not ascend; they were sorted together with their images.")
    acquisition, values = _acquisition(frames, axis), np.array(stack.values)
    te = np.full(len(values), acquisition.get("EchoTime", np.nan))
    return ImageSeries(
        data=data,
        te=values if axis is ECHO_TIME else te,
        affine=affine,
        component=stack.component,
        description=stack.description,
        source_format="DICOM",
        n_files=len({id(frame.file) for frame in frames}),
        acquisition=acquisition,
        skipped=_all_skipped(scan, stack, n_duplicates),
        saturated=saturated,
        ti=values if axis is INVERSION_TIME else None,
        flip_angles=values if axis is FLIP_ANGLE else None,
        identity=dicom_identity(frame.file for frame in frames),
    )


def _one_image_each(stack: Stack) -> tuple[Images, int]:
    """Decodes the images; identical copies are dropped, different images of one slice and value refused."""
    images: Images = {}
    n_duplicates = 0
    with decoder() as decoding:
        decoded = [stored_values(frame, decoding) for frame in stack.frames]
    for k, frame, stored in zip(stack.slices.tolist(), stack.frames, decoded, strict=True):
        first, known = images.setdefault((k, frame.value), (frame, stored))
        if first is frame:
            continue
        if not np.array_equal(stored, known) or header.rescale(first.dataset) != header.rescale(frame.dataset):
            names = " and ".join(sorted((first.name, frame.name)))
            raise CorruptInputError(
                f"{names}: different images of slice {k + 1} at {at(frame.axis, frame.value)}"
                f"{_difference(first, frame)}; two measurements must not be mixed: {OWN_FOLDER}"
            )
        n_duplicates += 1
    if n_duplicates:
        warn(f"{n_duplicates} duplicate images (identical pixels) were dropped.")
    return images, n_duplicates


def _difference(a: Frame, b: Frame) -> str:
    tags = [tag for tag in _REPEATS if a.dataset.get(tag) != b.dataset.get(tag)]
    return f" (they differ in {', '.join(tags)})" if tags else ""


def check_complete(stack: Stack, skipped: Mapping[str, Sequence[str]]) -> None:
    """Refuses a stack in which a slice lacks an image, cell by cell; `skipped`: what the scan passed over.

    Raises:
        CorruptInputError: an image is missing.
    """
    n_missing = len(stack.missing)
    if n_missing:
        raise CorruptInputError(
            f"{stack}: {n_missing} of {stack.n_slices * len(stack.values)} images missing: {stack.lacking()}"
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
                f"{frame.name}: slice {k + 1} at {at(stack.axis, value)} lies {shift:.3f} mm from where the first "
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
                f"not depend on the {axis.quantity} alone; {OWN_FOLDER}"
            )
        elif values and key != "SliceThickness":
            warn(f"{key} differs between images; the signal then does not depend on the {axis.quantity} alone.")
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
    """Reason -> count of images, of which an Enhanced file has many, or of the files that hold none."""
    counts: dict[str, int] = defaultdict(int, {reason: len(names) for reason, names in scan.skipped.items()})
    for stack in scan.stacks:
        if stack is not chosen:
            kind = f"{stack.component} images" if stack.component != chosen.component else OTHER_SERIES
            counts[kind] += len(stack.frames)
    if n_duplicates:
        counts["duplicate images"] = n_duplicates
    return dict(counts)
