"""The images of a candidate as an `ImageSeries`, whatever files they are in."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptInputError, LeaveOut, NoInputError, remark, remarks_kept
from ..quantities import INVERSION_TIME, Axis
from .axis import ROUNDING, Values, given_values
from .candidates import OTHER_SERIES, Candidate, Scan, at, only_number
from .choose import choose
from .course import check_given_order, computed_of_the_others, strong_signals
from .formats import files_below
from .negative import Negative, has_signs, settle_negative
from .phase import common_factor, to_radians
from .protocol import CONSTANT
from .repeats import of_time_point, only
from .sequence import kind_of_candidate
from .series import ImageSeries
from .storage.archive import unpacked
from .storage.memory import middle_slab, new_images

MOST_ALIKE = 32  # different values of an image; one of fewer is no measurement, or nothing is left of its signal


def read_files(
    paths: Sequence[Path],
    scan_files: Callable[[Sequence[Path], Axis], Scan],
    axis: Axis,
    given: Values | None,
    series: int | str | Sequence[int | str],
    component: str | None,
    negative: Negative,
    time_point: int | str | None = None,
    *,
    is_other: Callable[[Path], bool],
    instead: str,
) -> ImageSeries:
    """The one series among files of one format that can be fitted, phase in radians; keeps what was remarked.

    `is_other` tells files of the other format; where there are only such, the error says to read them `instead`.
    """
    values = given_values(axis, given)
    with remarks_kept() as remarks, unpacked(paths) as folders:
        try:
            scan = scan_files(folders, axis)
        except NoInputError as error:
            if any(map(is_other, files_below(folders))):
                raise NoInputError(f"{', '.join(map(str, paths))}: {instead}.") from None
            raise error
        scan = replace(narrowed(scan, series, component, time_point), given=values)
        chosen = choose(scan, component)
        is_phase = chosen.component == "phase"
        factor = common_factor(scan.reader.radians(chosen), str(chosen)) if is_phase else 1.0  # before all are read
        found = read_candidate(scan, chosen, negative)
        if is_phase:
            to_radians(found.data, factor, str(chosen))
        return replace(found, remarks=tuple(remarks))


def narrowed(
    scan: Scan,
    series: int | str | Sequence[int | str] = (),
    component: str | None = None,
    time_point: int | str | None = None,
) -> Scan:
    """The same as if only the images of some series, component and time point were there."""
    scan = scan.of_series(series).of_component(component)
    return scan if time_point is None else of_time_point(scan, time_point)


def read_candidate(scan: Scan, chosen: Candidate, negative: Negative = "keep") -> ImageSeries:
    """The images of a candidate of any component, scaled as the files say; others are counted as skipped."""
    reader, values = scan.reader, chosen.values
    if chosen.value_error:
        raise chosen.value_error
    comparable = reader.comparable(chosen)
    with closing(reader.load(comparable)) as images:  # which refuses sizes that are only said
        data = new_images((*chosen.shape, chosen.n_slices, len(values)), scan.source)
        saturated, n_negative = np.zeros(data.shape[:3], bool), 0
        for index, image, at_top in images:
            data[index] = image
            saturated[index[:3]] |= at_top
            n_negative += np.count_nonzero(data[index] < 0)
    _remark_on_copies(middle_slab(data), chosen)
    if chosen.component == "magnitude" and not n_negative and (others := _without_computed(chosen, data)):
        return read_candidate(scan, others, negative)
    affine = reader.affine(chosen)
    if chosen.component in ("real", "imaginary") and not n_negative and not chosen.first.component_is_stated:
        what = f"{chosen}: said to be {chosen.component}, but none of their values is negative; "
        raise CorruptInputError(what, LeaveOut("component"), ".")
    if chosen.component == "magnitude":
        settle_negative(data, saturated, int(n_negative), negative, chosen.axis, comparable.wraps)
    if scan.given is not None and len(chosen.along(chosen.axis).values) < 2:  # headers tell no order
        signed = chosen.axis is INVERSION_TIME and (chosen.component == "real" or has_signs(data))
        if signed or (chosen.component == "magnitude" and not n_negative):
            check_given_order(strong_signals(data), chosen.axis, scan.given, signed)
    return _as_series(scan, chosen, data, affine, saturated if saturated.any() else None)


def headers_as_series(scan: Scan, chosen: Candidate) -> ImageSeries:
    """What the headers say of a candidate, with one empty voxel in place of its images."""
    return _as_series(scan, chosen, np.zeros((1, 1, 1, len(chosen.values)), np.float32), np.eye(4), None)


def _as_series(
    scan: Scan, chosen: Candidate, data: np.ndarray, affine: np.ndarray, saturated: np.ndarray | None
) -> ImageSeries:
    return ImageSeries(
        data=data,
        axis=chosen.axis,
        values=np.array(chosen.values, np.float64),
        affine=affine,
        component=chosen.component,
        description=chosen.first.description,
        source_format=scan.reader.source_format,
        n_files=len({id(image.file) for image in chosen.one_each.values()}),
        acquisition=_acquisition(chosen, scan.reader.physics),
        skipped=_skipped(scan, chosen),
        saturated=saturated,
        identity=scan.reader.identity(chosen),
        n_series=len({(image.series_uid, image.series_number) for image in chosen.images}),
        kind=kind_of_candidate(chosen),
    )


def _remark_on_copies(some: np.ndarray, chosen: Candidate) -> None:
    """Says which of (..., n) images are alike in every voxel."""
    first: dict[bytes, float] = {}
    for k, value in enumerate(chosen.values):
        image = np.ascontiguousarray(some[..., k])
        same = first.setdefault(hashlib.sha256(image.data).digest(), value)
        if same != value and np.unique(image).size > MOST_ALIKE:
            axis = chosen.axis
            remark(
                f"the images at {at(axis, same)} and {at(axis, value)} are the same in every voxel, which two "
                "measurements never are: one is a copy of the other, and the map is wrong; export the images again."
            )
            return


def _without_computed(chosen: Candidate, data: np.ndarray) -> Candidate | None:
    """The candidate without an image that was computed of all others, with a remark, or None where there is none."""
    found = computed_of_the_others(strong_signals(data), np.array(chosen.values))
    if found is None:
        return None
    which, how = found
    value = chosen.values[which]
    remark(
        f"the image at {at(chosen.axis, value)} is the {how} of the others, not a measurement of its own; it is left "
        "out."
    )
    return only(chosen, np.array(chosen.each) != value)


def _acquisition(chosen: Candidate, physics: Mapping[str, tuple[str, float]]) -> dict[str, Any]:
    """What all images agree on; of times and angles that `check_one_protocol` lets pass, the median."""
    found: dict[str, Any] = {}
    for key, (keyword, factor) in physics.items():
        said = [value for image in chosen.one_each.values() if (value := image.header(keyword)) not in (None, "")]
        numbers = sorted(value for value in map(only_number, said) if value is not None)
        if key == chosen.axis.keyword or not said:
            continue
        if not numbers:
            texts = {_text(value) for value in said}
            found |= {key: texts.pop()} if len(texts) == 1 else {}
            continue
        same = numbers[-1] - numbers[0] <= ROUNDING * abs(numbers[0])
        if same or keyword in CONSTANT:
            middle = numbers[0] if same else float(np.median(numbers))
            found[key] = float(f"{factor * middle:.12g}")  # 125 ms is 0.125 s, not 0.12500000000000003
    return found


def _text(value: Any) -> str:
    """Several words joined as DICOM has them in one value."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return "\\".join(map(str, value)) if several else str(value).strip()


def _skipped(scan: Scan, chosen: Candidate) -> dict[str, int]:
    """Reason -> count of images of DICOM, of which an Enhanced file has many, or of files."""
    counts: dict[str, int] = defaultdict(int, {reason: len(names) for reason, names in scan.skipped.items()})
    used = set(chosen.images)
    for other in scan.candidates:
        if other.first not in used:
            kind = f"{other.component} images" if other.component != chosen.component else OTHER_SERIES
            counts[kind] += len(other.names)
        elif chosen.echo_times:
            counts["images of later echoes"] += sum(image not in used for image in other.images)
    counts["duplicate images"] = len(chosen.images) - len(chosen.one_each)
    return {reason: n for reason, n in counts.items() if n}
