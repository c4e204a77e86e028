"""Classic DICOM files -> `ImageSeries`: which stack is meant, whether its images are complete, where its voxels lie.

Enhanced MR keeps many images in one file. It enters where `dicom_scan` turns a file into a `Frame`, one Frame per
image, and where `dicom_pixels` decodes one; everything between works on Frames.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from . import dicom_header as header
from .dicom_geometry import IRREGULAR, stack_affine
from .dicom_header import Frame
from .dicom_pixels import at_top, rescaled, stored_values, upright, use_floating_point
from .dicom_scan import DicomScan, PathLike, in_brackets, scan_dicom
from .dicom_stack import Stack, thickness
from .errors import CorruptInputError, InputWarning, MetadataError, NoInputError, UsageError
from .series import ImageSeries, check_echo_times

_OWN_FOLDER = "put the images of one of them in a folder of their own and give that."
_DCM2NIIX = "convert with dcm2niix and give its NIfTI files."
_NOT_READ_YET = {
    header.ENHANCED: f"Enhanced MR is not read yet; {_DCM2NIIX}",
    header.MOSAIC: f"mosaics hold all slices of a volume in one image; {_DCM2NIIX}",
    header.MULTIFRAME: f"several frames in one classic MR file are not read; {_DCM2NIIX}",
}
# By these a scanner tells repeated images of one slice and echo time apart.
_REPEATS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "FlipAngle",
    "InversionTime",
    "RepetitionTime",
    "TriggerTime",
)
_NUMBERS = {  # BIDS key -> what turns DICOM's unit into that of BIDS
    "RepetitionTime": 1e-3,
    "InversionTime": 1e-3,
    "FlipAngle": 1.0,
    "MagneticFieldStrength": 1.0,
    "SliceThickness": 1.0,
}
_WORDS = {
    "Manufacturer": "Manufacturer",
    "ManufacturersModelName": "ManufacturerModelName",
    "MRAcquisitionType": "MRAcquisitionType",
}

Images = dict[tuple[int, float], tuple[Frame, np.ndarray]]  # slice, echo time [s] -> image and its stored values


def read_dicom(path: PathLike | Iterable[PathLike], *, te: Sequence[float] | np.ndarray | None = None) -> ImageSeries:
    """Reads the one multi-echo magnitude series among classic DICOM files.

    Files are told apart by what their headers say, never by name or folder. Values are rescaled image by image (Rescale
    Slope and Intercept; Philips' floating-point scale where the files have it), so that echoes are comparable.

    Args:
        path: a folder (searched recursively), a file, or several of either.
        te: (echo,) echo times [s] that replace those in the files, in the order of acquisition; see `scan_dicom`.

    Returns:
        data (x, y, z, echo) float32 with echo times ascending; x along rows, y from the bottom row up, z along the
        slice normal, as dcm2niix stores them; affine in RAS+ mm.

    Raises:
        NoInputError: nothing there that could be fitted.
        CorruptInputError: files damaged, incomplete, contradictory, or of several series.
        MetadataError: echo times missing or implausible.
        UsageError: `te` does not fit the images.

    Sources:
        DICOM PS3.3 C.7.6.2 (geometry) and C.11.1 (rescale).
    """
    scan = scan_dicom(path, te)
    return read_stack(scan, choose_stack(scan))


def choose_stack(scan: DicomScan) -> Stack:
    """The one stack that can be fitted: magnitude, two or more echoes; measured images before derived ones.

    Raises:
        NoInputError: no MR image of any kind.
        CorruptInputError: several stacks could be meant; or there are single echoes, phase, mosaics or Enhanced only.
        MetadataError: the echo times of the stack cannot be used.
        UsageError: the number of given echo times is not that of the images of a slice.
    """
    magnitude = [s for s in scan.stacks if s.component == "magnitude"]
    for candidates in ([s for s in magnitude if not s.derived], [s for s in magnitude if s.derived]):
        usable = [s for s in candidates if s.te_error is None and s.te_given == (scan.te is not None)]
        multi_echo = [s for s in usable if len(s.te) > 1]
        if len(multi_echo) > 1:
            raise CorruptInputError(
                f"{scan.source}: {len(multi_echo)} multi-echo magnitude stacks, {_listed(multi_echo)}; "
                f"only one can be fitted: {_OWN_FOLDER}"
            )
        if multi_echo:
            _check_alone(multi_echo[0], candidates)
            return multi_echo[0]
        if scan.te is None:
            _raise_te_error(candidates)
    raise _nothing_to_fit(scan, magnitude)


def _check_alone(chosen: Stack, candidates: Sequence[Stack]) -> None:
    """Says what else was there; the rest of the same series must not be left out silently."""
    others = [s for s in candidates if s is not chosen]
    for other in others:
        if chosen.series_uids & other.series_uids:
            raise CorruptInputError(
                f"images of one series differ in matrix, pixel spacing or orientation: {_listed([chosen, other])}. "
                f"Echoes must cover the same voxels; {_OWN_FOLDER}"
            )
    if others:
        _warn(f"{chosen} is used; passed over: {_listed(others)}.")
    if len(chosen.series_uids) > 1:
        _warn(
            f"{len(chosen.series_uids)} series of one echo each, alike but for their echo time, are joined: {chosen}."
        )
    if chosen.derived:
        _warn(f"{chosen} is marked DERIVED in ImageType (0008,0008); noise and scale may not be those of the scan.")


def _raise_te_error(candidates: Sequence[Stack]) -> None:
    for stack in candidates:
        if stack.te_error:
            raise stack.te_error
        uids = {str(frame.dataset.get("SOPInstanceUID")) for frame in stack.frames}
        if len(uids) > stack.n_slices and len(stack.te) == 1:  # several images a slice, all of one echo time
            check_echo_times(np.full(stack.images_per_slice[1], stack.te[0]), f"{stack}, EchoTime (0018,0081)")


def _nothing_to_fit(scan: DicomScan, magnitude: Sequence[Stack]) -> Exception:
    if scan.te is not None and len(scan.te) > 1 and magnitude:
        return UsageError(
            f"{len(scan.te)} echo times are given (te, --te-ms), but no magnitude series has as many images of each "
            f"slice: {_listed(magnitude)} {_per_slice(magnitude)}. Give one echo time per image of a slice."
        )
    if magnitude:
        return CorruptInputError(
            f"{scan.source}: only one echo in {_listed(magnitude)}; need >= 2 echoes of the same slices to see a "
            "decay. Give the folder that holds all echoes."
        )
    for reason, message in _NOT_READ_YET.items():
        if reason in scan.skipped:
            return CorruptInputError(f"{scan.source}: {message}")
    if scan.stacks:
        return CorruptInputError(
            f"{scan.source}: {_listed(scan.stacks)}: not magnitude, and decay is fitted to magnitude images. "
            "Give the folder of the magnitude series."
        )
    if header.UNPLACED in scan.skipped:
        return MetadataError(
            f"{scan.source}: the images lack ImagePositionPatient (0020,0032), ImageOrientationPatient (0020,0037) or "
            f"PixelSpacing (0028,0030), so no map could be placed; {_DCM2NIIX}"
        )
    return NoInputError(
        f"{scan.source}: no MR image that could be fitted{in_brackets(scan.skipped)}; check the folder."
    )


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
        MetadataError: the stack has no usable echo times.
    """
    if stack.te_error:
        raise stack.te_error
    _check_complete(stack, scan.skipped)
    images, n_duplicates = _one_image_each(stack)
    frames = [frame for frame, _ in images.values()]
    affine = _affine(stack, images)
    data = np.empty((*stack.shape, stack.n_slices, len(stack.te)), np.float32)
    saturated = np.zeros(data.shape[:3], bool)
    floating_point = use_floating_point(frames)
    for (k, te), (frame, stored) in images.items():
        data[:, :, k, stack.te.index(te)] = upright(rescaled(frame, stored, floating_point=floating_point))
        saturated[:, :, k] |= upright(at_top(frame, stored))
    negative = int(np.count_nonzero(data < 0))
    if negative and stack.component == "magnitude":
        _warn(f"{negative} of {data.size} magnitude values are negative; they are kept. Is this a real or phase image?")
    if scan.te is not None and np.any(np.diff(scan.te) < 0):
        _warn("the given echo times do not ascend; they were sorted together with their images.")
    return ImageSeries(
        data=data,
        te=np.array(stack.te),
        affine=affine,
        component=stack.component,
        description=stack.description,
        source_format="DICOM",
        n_files=len(images),
        acquisition=_acquisition(frames),
        skipped=_all_skipped(scan, stack, n_duplicates),
        saturated=saturated,
    )


def _one_image_each(stack: Stack) -> tuple[Images, int]:
    """Decodes the images; identical copies are dropped, different images of one slice and echo time refused."""
    images: Images = {}
    n_duplicates = 0
    for k, frame in zip(stack.slices.tolist(), stack.frames, strict=True):
        stored = stored_values(frame)
        first, known = images.setdefault((k, frame.te), (frame, stored))
        if first is frame:
            continue
        if not np.array_equal(stored, known) or header.rescale(first.dataset) != header.rescale(frame.dataset):
            names = " and ".join(sorted((first.name, frame.name)))
            raise CorruptInputError(
                f"{names}: different images of slice {k + 1} at TE {1e3 * frame.te:g} ms"
                f"{_difference(first, frame)}; two measurements must not be mixed: {_OWN_FOLDER}"
            )
        n_duplicates += 1
    if n_duplicates:
        _warn(f"{n_duplicates} duplicate images (identical pixels) were dropped.")
    return images, n_duplicates


def _difference(a: Frame, b: Frame) -> str:
    tags = [tag for tag in _REPEATS if a.dataset.get(tag) != b.dataset.get(tag)]
    return f" (they differ in {', '.join(tags)})" if tags else ""


def _check_complete(stack: Stack, skipped: Mapping[str, Sequence[str]]) -> None:
    there = {(k, frame.te) for k, frame in zip(stack.slices.tolist(), stack.frames, strict=True)}
    missing = [(k, te) for te in stack.te for k in range(stack.n_slices) if (k, te) not in there]
    if missing:
        named = ", ".join(f"slice {k + 1} at TE {1e3 * te:g} ms" for k, te in missing[:4])
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise CorruptInputError(
            f"{stack}: {len(missing)} of {stack.n_slices * len(stack.te)} images missing: {named}{more}"
            f"{in_brackets(skipped)}. Every slice needs every echo; copy the series again."
        )


def _affine(stack: Stack, images: Images) -> np.ndarray:
    """Voxel index -> RAS+ [mm], once every echo of a slice is known to lie in one place."""
    first = stack.frames[0]
    positions = np.array([images[k, stack.te[0]][0].position for k in range(stack.n_slices)])
    for (k, te), (frame, _) in images.items():
        shift = float(np.linalg.norm(frame.position - positions[k]))  # mm
        if shift > IRREGULAR * min(first.pixel_spacing):
            raise CorruptInputError(
                f"{frame.name}: slice {k + 1} at TE {1e3 * te:g} ms lies {shift:.3f} mm from where the first echo has "
                "it (ImagePositionPatient (0020,0032)); echoes must cover the same voxels. Check that it is one series."
            )
    return stack_affine(positions, first.orientation, first.pixel_spacing, thickness(first), stack.shape[1])


def _acquisition(frames: Sequence[Frame]) -> dict[str, float | str]:
    """What all images agree on; timing that differs between them confounds the decay and is warned of."""
    found: dict[str, float | str] = {}
    for key, factor in _NUMBERS.items():
        numbers = [header.as_float(frame.dataset.get(key)) for frame in frames]
        values = {number for number in numbers if number is not None}
        if len(values) == 1:
            found[key] = float(f"{factor * values.pop():.12g}")  # 125 ms is 0.125 s, not 0.12500000000000003
        elif values and key != "SliceThickness":
            _warn(f"{key} differs between images; the signal then does not depend on the echo time alone.")
    for key, keyword in _WORDS.items():
        words = {str(frame.dataset.get(keyword) or "").strip() for frame in frames} - {""}
        if len(words) == 1:
            found[key] = words.pop()
    return found


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
