"""DICOM files -> `ImageSeries`: which stack is meant, whether its images are complete, where its voxels lie.

Enhanced MR keeps many images in one file. `dicom_scan` turns every file into Frames, one per image, and `dicom_pixels`
decodes one; nothing between knows how many files there are.
"""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CorruptInputError, remark
from ...quantities import ECHO_TIME, Axis
from ..axis import requested_axis
from ..negative import Negative, settle_negative
from ..phase import common_factor, in_radians
from ..series import ImageSeries
from ..storage.memory import new_images
from ..storage.zipped import unpacked
from . import header
from .choose import OWN_FOLDER, choose_stack
from .codec import decoder
from .geometry import IRREGULAR, stack_affine
from .header import Frame
from .identity import dicom_identity
from .pixels import at_top, pixels_let_go, rescaled, stored_values, upright, use_floating_point
from .scan import OTHER_SERIES, DicomScan, PathLike, in_brackets, scan_dicom
from .stack import ROUNDING, Stack, at, thickness

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

Place = tuple[int, float]  # slice, value of the axis
Images = dict[Place, Frame]


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
        path: a folder (searched recursively), a zip archive, a file, or several of these.
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
        as dcm2niix stores them; affine in RAS+ mm. Phase is in radians.

    Raises:
        NoInputError: nothing there that could be fitted.
        CorruptInputError: files damaged, incomplete, contradictory, or of several series; an archive not to be trusted.
        MetadataError: what varies is missing or implausible; phase images do not declare their range.
        UsageError: the values given do not fit the images; values for two axes; no such series.
        OutputError: no room to unpack an archive.

    Sources:
        DICOM PS3.3 C.7.6.2 (geometry) and C.11.1 (rescale).
    """
    wanted, given = requested_axis(axis, te, ti, flip_angles)
    with unpacked([Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]) as folders:
        scan = scan_dicom(folders, given, wanted).of_series(series)
        stack = choose_stack(scan, component)
        if stack.component != "phase":
            return read_stack(scan, stack)
        return in_radians(read_stack(scan, stack), common_factor(_phase_factors(stack.frames), str(stack)))


def _phase_factors(frames: Sequence[Frame]) -> list[float | None]:
    """Angle [rad] per value that `read_stack` gives, of each image."""
    factors = [header.radians_per_displayed(frame.dataset) for frame in frames]
    if not use_floating_point(frames):
        return factors
    displayed = [header.rescale(f.dataset)[0] * (header.philips_scale_slope(f.dataset) or 1.0) for f in frames]
    return [factor and float(f"{factor * unit:.6g}") for factor, unit in zip(factors, displayed, strict=True)]


def read_stack(scan: DicomScan, stack: Stack, negative: Negative = "keep") -> ImageSeries:
    """Reads the images of a stack of any component, scaled as the files say.

    What else the scan found is counted as skipped. `negative`: see `settle_negative`.

    Raises:
        CorruptInputError: images damaged, missing, contradictory, or not a regular volume.
        MetadataError: the stack has no usable values of what varies.
        DeviceError, OutputError: neither memory nor disk suffice for the images, see `new_images`.
    """
    axis = stack.axis
    if stack.value_error:
        raise stack.value_error
    check_complete(stack, scan.skipped)
    data = new_images((*stack.shape, stack.n_slices, len(stack.values)), str(stack))
    images = _one_image_each(stack)
    frames, n_duplicates = list(images.values()), len(stack.frames) - len(images)
    saturated, n_negative = np.zeros(data.shape[:3], bool), 0
    floating_point = use_floating_point(frames)
    with closing(_decoded(stack, images)) as decoded:
        for (k, value), frame, stored in decoded:
            image = data[:, :, k, stack.values.index(value)]
            image[...] = upright(rescaled(frame, stored, floating_point=floating_point))
            saturated[:, :, k] |= upright(at_top(frame, stored))
            n_negative += np.count_nonzero(image < 0)
    affine = _affine(stack, images)
    if n_duplicates:
        remark(f"{n_duplicates} duplicate images (identical pixels) were dropped.")
    settle_negative(data, int(n_negative), stack.component, negative)
    if scan.given is not None and np.any(np.diff(scan.given) < 0):
        remark(f"the given {axis.terms} do not ascend; they were sorted together with their images.")
    acquisition, values = _acquisition(frames, axis), np.array(stack.values)
    return ImageSeries(
        data=data,
        axis=axis,
        values=values,
        affine=affine,
        component=stack.component,
        description=stack.description,
        source_format="DICOM",
        n_files=len({id(frame.file) for frame in frames}),
        acquisition=acquisition,
        skipped=_all_skipped(scan, stack, n_duplicates),
        saturated=saturated,
        identity=dicom_identity(frame.file for frame in frames),
    )


def _places(stack: Stack) -> Iterator[tuple[Place, Frame]]:
    for k, frame in zip(stack.slices.tolist(), stack.frames, strict=True):
        yield (k, frame.value), frame


def _one_image_each(stack: Stack) -> Images:
    images: Images = {}
    for place, frame in _places(stack):
        images.setdefault(place, frame)
    return images


def _decoded(stack: Stack, images: Images) -> Generator[tuple[Place, Frame, np.ndarray], None, None]:
    """Decodes these images one by one; also their copies, which must be identical.

    They come file by file, so that the pixels of no two files are in memory at once.

    Raises:
        CorruptInputError: pixels damaged, or different images of one slice and value.
    """
    n_copies = Counter(place for place, _ in _places(stack))
    copies: dict[Place, tuple[Frame, np.ndarray]] = {}
    number: dict[int, int] = {}
    for frame in stack.frames:
        number.setdefault(id(frame.file), len(number))
    by_file = sorted(_places(stack), key=lambda at_place: number[id(at_place[1].file)])
    with decoder() as decoding:
        for _, of_one_file in groupby(by_file, key=lambda at_place: id(at_place[1].file)):
            members = list(of_one_file)
            with pixels_let_go(members[0][1].file):
                for place, frame in members:
                    stored = stored_values(frame, decoding)
                    if n_copies[place] > 1:
                        _check_copy(place, *copies.setdefault(place, (frame, stored)), frame, stored)
                    if frame is images[place]:
                        yield place, frame, stored


def _check_copy(place: Place, first: Frame, known: np.ndarray, frame: Frame, stored: np.ndarray) -> None:
    if first is frame:
        return
    if not np.array_equal(stored, known) or header.rescale(first.dataset) != header.rescale(frame.dataset):
        names = " and ".join(sorted((first.name, frame.name)))
        raise CorruptInputError(
            f"{names}: different images of slice {place[0] + 1} at {at(frame.axis, frame.value)}"
            f"{_difference(first, frame)}; two measurements must not be mixed: {OWN_FOLDER}"
        )


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
    positions = np.array([images[k, stack.values[0]].position for k in range(stack.n_slices)])
    for (k, value), frame in images.items():
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
                f"not depend on the {axis.term} alone; {OWN_FOLDER}"
            )
        elif values and key != "SliceThickness":
            remark(f"{key} differs between images; the signal then does not depend on the {axis.term} alone.")
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
