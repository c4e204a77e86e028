"""DICOM files -> `ImageSeries`: whether the images of a candidate are complete, their pixels, where the voxels lie."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from ...errors import CorruptInputError, MetadataError, remark
from ...quantities import ECHO_TIME, Axis
from ..axis import Values, requested_axis
from ..candidates import Candidate, Images, Place, Reader, Scan, at, in_brackets
from ..choose import OWN_FOLDER
from ..formats import as_paths, is_nifti, name_of
from ..load import read_files
from ..negative import Negative
from ..repeats import check_repeats
from ..series import ImageSeries
from . import header
from .codec import Decoder
from .enhanced import DIMENSION_INDEX, index_along, is_dimension
from .geometry import IRREGULAR, Slices, slices_affine
from .groups import candidates, thickness
from .header import Frame
from .identity import dicom_identity
from .pixels import at_top, check_size, common_scale, pixels_released, stored_values, upright
from .scan import find_frames
from .vendors import ge_receive_gains

# By these a scanner tells repeated images of one slice apart.
_REPEATS = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime", "FlipAngle", "InversionTime", "RepetitionTime",
    "TriggerTime",
)  # fmt: skip
_PHYSICS = {
    **{key: (key, Frame.time_unit) for key in ("RepetitionTime", "EchoTime", "InversionTime")},
    **{key: (key, 1.0) for key in ("FlipAngle", "MagneticFieldStrength", "SliceThickness", "Manufacturer")},
    "ManufacturersModelName": ("ManufacturerModelName", 1.0),
    **{key: (key, 1.0) for key in ("MRAcquisitionType", "ScanningSequence")},
}
_DCM2NIIX = "convert with dcm2niix and give its NIfTI files."
_NOT_READ = {
    header.MOSAIC: f"mosaics hold all slices of a volume in one image; {_DCM2NIIX}",
    header.MULTIFRAME: f"several frames in one classic MR file are not read; {_DCM2NIIX}",
}


def read_dicom(
    path: str | Path | Iterable[str | Path],
    *,
    te: Values | None = None,
    ti: Values | None = None,
    flip_angles: Values | None = None,
    axis: str | None = None,
    component: str | None = None,
    series: int | str | Sequence[int | str] = (),
    negative: Negative = "keep",
    time_point: int | None = None,
    **values: Values | None,
) -> ImageSeries:
    """Reads the one series of different echo times, inversion times or flip angles among DICOM files.

    Files, classic or Enhanced, are told apart by what their headers say, never by name or folder. Values are rescaled
    image by image (Rescale Slope and Intercept; Philips' floating-point scale where the files have it), so that images
    are comparable. Series of one value each are joined if they cover the same slices with the same timing.

    Args:
        path: a folder (searched recursively), an archive (zip, tar, tar.gz), a file, or several of these.
        te: (n,) echo times [s] that replace those in the files. Ascending, they go to the images by the echo times of
            the headers where these differ; otherwise in the order of acquisition: of Echo Number(s) or Instance Number,
            of Series Number for series of one echo each. An order that contradicts the headers is refused.
        ti: likewise inversion times [s].
        flip_angles: likewise flip angles [rad].
        axis: what varies, "te", "ti" or "flip_angle"; None: what is given, or else "te".
        component: "magnitude", "phase", "real" or "imaginary"; None: magnitude or, where inversion times vary in real
            images only, real.
        series: the series to read where there are several: Series Number (0020,0011), or Series Instance UID
            (0020,000E) or how it begins; several for those of one value each.
        negative: "keep" negative magnitudes, or take their absolute values: "abs".
        time_point: of images repeated in time those of this time point alone, counted from 1 in the order of Temporal
            Position Identifier, Acquisition Number or Trigger Time; None: there must be only one.
        values: likewise values of any other axis of `jaxqmri.quantities`, by its name [SI].

    Returns:
        data (x, y, z, n) float32, the axis ascending; x along rows, y from the bottom row up, z along the slice normal,
        as dcm2niix stores them; affine in RAS+ mm. Phase is in radians.

    Raises:
        NoInputError: nothing there that could be fitted.
        CorruptInputError: files damaged, incomplete, contradictory, or of several series; an archive not to be trusted.
        MetadataError: what varies is missing or implausible; phase images do not declare their range.
        UsageError: the values given do not fit the images; values for two axes; no such series.
        OutputError: no room to unpack an archive.

    Example:
        series = read_dicom("scan/")

    Sources:
        DICOM PS3.3 C.7.6.2 (geometry) and C.11.1 (rescale).
    """
    asked_for = requested_axis(axis, {"te": te, "ti": ti, "flip_angles": flip_angles, **values})
    return read_files(
        as_paths(path, "path"), scan_dicom, *asked_for, series, component, negative, time_point,
        is_other=is_nifti, instead="NIfTI files; read them by read_nifti",
    )  # fmt: skip


def scan_dicom(path: str | Path | Iterable[str | Path], axis: Axis = ECHO_TIME) -> Scan:
    """The candidates along an axis, from headers alone."""
    paths = as_paths(path, "path")
    frames, skipped = find_frames(paths)
    return Scan(name_of(paths), candidates(frames, axis), skipped, axis, None, READER)


def _refusal(scan: Scan) -> Exception | None:
    for reason, why in _NOT_READ.items():
        if reason in scan.skipped:
            return CorruptInputError(f"{scan.source}: {why}")
    if header.UNPLACED in scan.skipped and not scan.candidates:
        return MetadataError(
            f"{scan.source}: the images lack a usable {header.PLACE}, so no map could be placed; {_DCM2NIIX}"
        )
    return None


def _check_complete(scan: Scan, candidate: Candidate) -> None:
    """Refuses a candidate in which a slice lacks an image, cell by cell, or whose images have no common scale."""
    check_repeats(candidate)
    if n_missing := len(candidate.missing):
        n_cells, passed_over = candidate.n_slices * len(candidate.values), in_brackets(scan.skipped)
        raise CorruptInputError(
            f"{candidate}: {n_missing} of {n_cells} images missing: {candidate.lacking()}{passed_over}. Every "
            f"slice needs every {candidate.axis.one}; copy the series again."
        )
    _check_indices(candidate)
    images = list(candidate.one_each.values())
    common_scale(images)
    _remark_on_storage(images)
    gains = {gain for part in candidate.parts if (gain := ge_receive_gains(part.images[0].dataset))}
    if len(gains) > 1:
        remark(
            "GE's receive gains (0019,108A) and (0019,108B) differ between series, so that their images may not be "
            "comparable and the map wrong; give series that were measured after one prescan."
        )


def _check_indices(candidate: Candidate) -> None:
    """Refuses frames of one Enhanced file that are one by their indices, and not by the place or value they state."""
    axis, stated = candidate.axis, candidate.along(candidate.axis).each
    seen: dict[tuple, tuple[Frame, float]] = {}
    for frame, k, value in zip(candidate.images, candidate.slices.tolist(), stated, strict=True):
        place = frame.header("StackID"), frame.header("InStackPositionNumber")
        said = {("InStackPositionNumber (0020,9057)", "ImagePositionPatient (0020,0032)", *place): k}
        if is_dimension(frame.dataset, axis) and not np.isnan(value):
            index = index_along(frame.dataset, axis)
            said[f"{DIMENSION_INDEX} for the {axis.term}", frame.where(axis), axis.name, index] = value
        for key, means in said.items():
            first, before = seen.setdefault((id(frame.file), *key), (frame, means))
            index, where, _, number = key
            if before != means and number is not None:
                raise CorruptInputError(
                    f"{first.name} and {frame.name}: {index} is {number} in both, but {where} differs: one contradicts "
                    "the other, and which is right is not known; mend the one that is wrong."
                )


def _remark_on_storage(images: Sequence[Frame]) -> None:
    """Says what of the measured values may have got lost before these files were written."""
    bits = sorted({header.as_int(image.header("BitsStored")) or 0 for image in images})
    if len(bits) > 1 and len({tuple(image.scales.items()) for image in images}) == 1:
        remark(
            f"images have {' and '.join(map(str, bits))} bits (BitsStored (0028,0101)) and no scales of their own: if "
            "values were divided to fit into fewer bits, the map is wrong; export the images again, all alike."
        )
    n_lossy = sum(str(image.file.get("LossyImageCompression") or "") == "01" for image in images)
    if n_lossy:
        remark(
            f"{n_lossy} of {len(images)} images were compressed with loss (LossyImageCompression (0028,2110)), which "
            "changes weak signals most; export them without."
        )


def _load(candidate: Candidate) -> Images:
    """The images; a header may say any size, so pixels of that size are there before room is made for all of them."""
    first = candidate.images[0]
    with pixels_released(first.file):
        check_size(first)
    return _images(candidate)


def _images(candidate: Candidate) -> Images:
    """One image of each slice and value, whose copies must be identical; pixels of one file in memory at a time."""
    images, values = candidate.one_each, candidate.values
    n_copies = Counter(candidate.places)
    copies: dict[Place, tuple[Frame, np.ndarray]] = {}
    scale = common_scale(list(images.values()))
    by_file: dict[int, list[tuple[Place, Frame]]] = defaultdict(list)
    for place, frame in zip(candidate.places, candidate.images, strict=True):
        by_file[id(frame.file)].append((place, frame))
    with closing(Decoder()) as decoding:
        for members in by_file.values():
            with pixels_released(members[0][1].file):
                for place, frame in members:
                    stored = stored_values(frame, decoding)
                    if n_copies[place] > 1:
                        _check_copy(candidate.axis, place, *copies.setdefault(place, (frame, stored)), frame, stored)
                    if frame is images[place]:
                        index = (slice(None), slice(None), place[0], values.index(place[1]))
                        yield index, upright(scale(frame, stored)), upright(at_top(frame, stored))
    if n := len(candidate.images) - len(images):
        remark(f"{n} duplicate images (identical pixels) were dropped.")


def _check_copy(axis: Axis, place: Place, first: Frame, known: np.ndarray, frame: Frame, stored: np.ndarray) -> None:
    if first is frame or (first.scales == frame.scales and np.array_equal(stored, known)):
        return
    names = " and ".join(sorted((first.name, frame.name)))
    tags = [tag for tag in _REPEATS if first.header(tag) != frame.header(tag)]
    differ = f" (they differ in {', '.join(tags)})" if tags else ""
    raise CorruptInputError(
        f"{names}: different images of slice {place[0] + 1} at {at(axis, place[1])}{differ}; two measurements must "
        f"not be mixed: {OWN_FOLDER}"
    )


def _affine(candidate: Candidate) -> np.ndarray:
    """Voxel index -> RAS+ [mm], once all images of a slice are known to lie in one place."""
    axis, first, images = candidate.axis, candidate.images[0], candidate.one_each
    positions = np.array([images[k, candidate.values[0]].position for k in range(candidate.n_slices)])
    for (k, value), frame in images.items():
        shift = float(np.linalg.norm(frame.position - positions[k]))  # mm
        if shift > IRREGULAR * min(first.pixel_spacing):
            raise CorruptInputError(
                f"{frame.name}: slice {k + 1} at {at(axis, value)} lies {shift:.3f} mm from where the first {axis.one} "
                f"has it (ImagePositionPatient (0020,0032)); {axis.many} must cover the same voxels. Check that it is "
                "one series."
            )
    slices = Slices(positions, first.orientation, first.pixel_spacing)
    return slices_affine(slices, thickness(first), candidate.shape[1])


def _radians(candidate: Candidate) -> list[float | None]:
    """Angle [rad] per value that `_load` gives, of each image."""
    scale = common_scale(candidate.images)
    factors = [(frame.radians_per_value, scale.unit(frame)) for frame in candidate.images]
    return [factor if unit == 1 else factor and float(f"{factor * unit:.6g}") for factor, unit in factors]


READER = Reader(
    source_format="DICOM",
    refusal=_refusal,
    check=_check_complete,
    affine=_affine,
    load=_load,
    physics=_PHYSICS,
    radians=_radians,
    identity=lambda candidate: dicom_identity(frame.file for frame in candidate.one_each.values()),
)
