"""NIfTI images as an `ImageSeries`, and masks drawn on them."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import About, CorruptInputError, Give, remark
from ...quantities import ECHO_TIME, INVERSION_TIME, Axis
from ..affines import same_grid
from ..axis import Values, requested_axis
from ..bids.names import NUMBERS, parse_name
from ..candidates import Candidate, Images, Reader, Scan, at
from ..formats import as_path, as_paths, check_series, is_dicom
from ..load import read_files
from ..negative import Negative
from ..series import ImageSeries
from .file import NiftiFile, check_length, read_on_grid, read_volumes
from .scale import on_one_scale
from .scan import Volume, scan_files
from .sidecar import PHYSICS, stem


def read_nifti(
    paths: str | Path | Sequence[str | Path],
    te: Values | None = None,
    *,
    ti: Values | None = None,
    flip_angles: Values | None = None,
    axis: str | None = None,
    component: str | None = None,
    series: int | str | Sequence[int | str] = (),
    negative: Negative = "keep",
    **values: Values | None,
) -> ImageSeries:
    """Reads the one series of different echo times, inversion times or flip angles, ordered by them, never by name.

    Which images are magnitude, phase, real or imaginary is known from their names or ImageType; what says nothing is
    what `component` asks for, else magnitude. Philips images on scales of their own are made comparable by the keys
    PhilipsRescaleSlope and PhilipsScaleSlope of their sidecars, lengths become millimetres. Arguments, result and
    errors are those of `read_dicom` but for:

    Args:
        paths: a folder (its subfolders are not searched), an archive (zip, tar, tar.gz), one file or a list of files.
        te: echo times [s] in place of those of the sidecars: one per volume of a 4-D file, or one per file in the
            order of the list. In a folder, files are put in order by EchoTime, EchoNumber, or `_e1` or `echo-1` in
            their names. An order that contradicts the sidecars is refused.
        ti: likewise inversion times [s]; InversionTime, or `inv-1` in the names.
        flip_angles: likewise flip angles [rad]; FlipAngle, or `flip-1` in the names.
        series: SeriesNumber of the sidecars, BIDS name, or SeriesInstanceUID or how it begins.

    Example:
        series = read_nifti(["e1.nii.gz", "e2.nii.gz"], te=[0.005, 0.010])
    """
    asked_for = requested_axis(axis, {"te": te, "ti": ti, "flip_angles": flip_angles, **values})
    return read_files(
        as_paths(paths, "paths"), scan_nifti, *asked_for, series, component, negative,
        is_other=is_dicom, instead="DICOM files; read them by read_dicom",
    )  # fmt: skip


def scan_nifti(paths: str | Path | Sequence[str | Path], axis: Axis = ECHO_TIME) -> Scan:
    """The candidates along an axis, voxels unread."""
    listed = as_paths(paths, "paths")
    source = (listed[0].name or str(listed[0])) if len(listed) == 1 else f"{len(listed)} files"
    return Scan(source, *scan_files(listed, axis), axis, None, READER)


def read_mask(path: str | Path, series: ImageSeries) -> np.ndarray:
    """Reads a mask drawn on a series.

    Args:
        path: a 3-D NIfTI file on the grid of `series`.
        series: the images it belongs to.

    Returns:
        (x, y, z) bool, True where voxels are wanted: above 0. Warns unless the values are 0 and one positive number.

    Raises:
        NoInputError: no such file.
        CorruptInputError: unreadable, on another grid, or empty.
        UsageError: no path, or no series.

    Example:
        maps = t2star_map(series, mask=read_mask("mask.nii.gz", series))
    """
    path = as_path(path, "path")
    check_series(series, "series")
    values = read_on_grid(path, "mask", series.affine, series.data.shape[:3], "draw it on")
    mask = values > 0
    if not mask.any():
        raise CorruptInputError(f"{path.name}: the mask is empty, so no voxel would be mapped; mark voxels with 1.")
    if not np.all((values == 0) | (values == values[mask][0])):
        remark("the mask is not binary; voxels above 0 are used.")
    return mask


def _files(candidate: Candidate) -> list[NiftiFile]:
    return list(dict.fromkeys(volume.file for volume in candidate.images))


def _check(scan: Scan, candidate: Candidate) -> None:
    files = _files(candidate)
    if candidate.first.bids is not None:
        _check_bids_series(candidate, given=scan.given is not None)
    by_value: dict[float, list[str]] = defaultdict(list)
    for volume, value in zip(candidate.images, candidate.each, strict=True):
        by_value[value].append(volume.name)
    for value, same in sorted(by_value.items()):
        if len(same) > 1:
            raise CorruptInputError(
                f"{' and '.join(sorted(set(same)))}: {at(candidate.axis, value)} twice (two runs, coils or time "
                "points?); leave one of them out."
            )
    first = files[0]
    for file in files[1:]:
        names = f"{first.path.name} and {file.path.name}"
        if file.shape[:3] != first.shape[:3]:
            raise CorruptInputError(
                f"{names}: shapes {first.shape[:3]} and {file.shape[:3]} differ, so they are not images of one "
                "measurement; leave out what does not belong."
            )
        if not same_grid(first.affine, file.affine):
            raise CorruptInputError(
                f"{names}: affines differ, so their voxels lie at different places; leave out what does not belong or "
                "resample it."
            )
    remarks = [text for file in files for text in file.remarks]
    for text in dict.fromkeys(remarks):
        remark(f"{text} ({remarks.count(text)} of {len(files)} files).")


def _check_bids_series(candidate: Candidate, given: bool) -> None:
    """Refuses a series that lacks an image, and says that magnitudes are taken for granted where nothing tells."""
    axis, series = candidate.axis, candidate.first.bids
    names = [name for file in _files(candidate) if (name := parse_name(stem(file.path)))]
    entity = NUMBERS.get(axis.name, "")
    there = {int(name.entities[entity]) for name in names if name.entities.get(entity, "").isdecimal()}
    missing = sorted(set(range(1, max(there, default=0) + 1)) - there)
    if missing and not given:
        lacks = ", ".join(f"{entity}-{number}" for number in missing)
        raise CorruptInputError(
            f"{series}: {lacks} of {entity}-1 to {entity}-{max(there)} missing, and a fit without it may go wrong "
            "unseen; copy or fetch it, or ",
            Give(axis.name, f"the {axis.terms} that are there", in_files="number the others without a gap"),
            ".",
        )
    unstated = not candidate.first.image_type and not any("part" in n.entities for n in names)
    if candidate.component == "magnitude" and unstated:
        unless = " unless many of their values are negative" if axis is INVERSION_TIME else ""
        told = f": neither part- in the names nor ImageType tells; taken for magnitude images{unless}."
        remark(About(series), told)


def _comparable(candidate: Candidate) -> Candidate:
    if candidate.component == "phase":  # an angle by its own rules
        return candidate
    files = _files(candidate)
    scaled = dict(zip(files, on_one_scale(files), strict=True))

    def with_file(volume: Volume, file: NiftiFile) -> Volume:
        return replace(volume, file=file, slope=file.slope, intercept=file.intercept)

    return replace(candidate, images=tuple(with_file(volume, scaled[volume.file]) for volume in candidate.images))


def _load(candidate: Candidate) -> Images:
    for file in _files(candidate):
        check_length(file)
    return _volumes(candidate)


def _volumes(candidate: Candidate) -> Images:
    order = {value: k for k, value in enumerate(candidate.values)}
    places = {(v.file, v.index): order[value] for v, value in zip(candidate.images, candidate.each, strict=True)}
    for file in _files(candidate):
        with closing(read_volumes(file)) as volumes:
            for index, (values, at_top) in enumerate(volumes):
                if (place := places.get((file, index))) is not None:
                    yield (slice(None), slice(None), slice(None), place), values, at_top


READER = Reader(
    source_format="NIfTI",
    check=_check,
    comparable=_comparable,
    affine=lambda candidate: candidate.images[0].file.affine,
    load=_load,
    physics={key: (key, 1.0) for key in PHYSICS},
    radians=lambda candidate: [volume.radians_per_value for volume in candidate.images],
)
