"""The images of a candidate as an `ImageSeries`, whatever files they are in."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import NoInputError, remarks_kept
from .candidates import OTHER_SERIES, Candidate, Scan
from .choose import choose
from .formats import files_below, is_there
from .negative import Negative, settle_negative
from .phase import common_factor, to_radians
from .series import ImageSeries
from .storage.memory import new_images
from .storage.zipped import unpacked


class OtherFormat(NamedTuple):
    """Files that the caller may have meant to read: their name, how to tell them, and what reads them."""

    name: str
    is_one: Callable[[Path], bool]
    function: str


def read_files(
    paths: Sequence[Path],
    scan_files: Callable[[Sequence[Path]], Scan],
    other: OtherFormat,
    *,
    series: int | str | Sequence[int | str],
    component: str | None,
    negative: Negative,
) -> ImageSeries:
    """The one series among files of one format that can be fitted, phase in radians; keeps what was remarked.

    Raises as `scan_files`, `Scan.of_series`, `choose` and `read_candidate`; NoInputError names the function for files
    of the `other` format where there are only such.
    """
    with remarks_kept() as remarks, unpacked(paths) as folders:
        try:
            scan = scan_files(folders)
        except NoInputError as error:
            if any(map(other.is_one, files_below(list(filter(is_there, folders))))):
                where = ", ".join(map(str, paths))
                raise NoInputError(f"{where}: {other.name} files; read them by {other.function}.") from None
            raise error
        scan = scan.of_series(series)
        chosen = choose(scan, component)
        is_phase = chosen.component == "phase"
        factor = common_factor(scan.reader.radians(chosen), str(chosen)) if is_phase else 1.0  # before all are read
        found = read_candidate(scan, chosen, negative)
        if is_phase:
            to_radians(found.data, factor, found.description)
        return replace(found, remarks=tuple(remarks))


def read_candidate(scan: Scan, chosen: Candidate, negative: Negative = "keep") -> ImageSeries:
    """The images of a candidate of any component, scaled as the files say.

    What else the scan found is counted as skipped. `negative`: see `settle_negative`.

    Raises:
        CorruptInputError: images damaged, contradictory, or not a regular volume.
        MetadataError: the candidate has no usable values of what varies.
        DeviceError, OutputError: neither memory nor disk suffice for the images, see `new_images`.
    """
    reader, values = scan.reader, chosen.values
    if chosen.value_error:
        raise chosen.value_error
    images = reader.load(chosen)  # which refuses files that are too short before room is made for them
    data = new_images((*chosen.shape, chosen.n_slices, len(values)), scan.source)
    saturated, n_negative = np.zeros(data.shape[:3], bool), 0
    with closing(images):
        for index, image, at_top in images:
            data[index] = image
            saturated[index[:3]] |= at_top
            n_negative += np.count_nonzero(data[index] < 0)
    affine = reader.affine(chosen)
    settle_negative(data, int(n_negative), chosen.component, negative)
    return ImageSeries(
        data=data,
        axis=chosen.axis,
        values=np.array(values, np.float64),
        affine=affine,
        component=chosen.component,
        description=chosen.description,
        source_format=reader.source_format,
        n_files=reader.n_files(chosen),
        acquisition=reader.acquisition(chosen),
        skipped=_skipped(scan, chosen),
        saturated=saturated if saturated.any() else None,
        identity=reader.identity(chosen),
    )


def _skipped(scan: Scan, chosen: Candidate) -> dict[str, int]:
    """Reason -> count of images of DICOM, of which an Enhanced file has many, or of files."""
    counts: dict[str, int] = defaultdict(int, {reason: len(names) for reason, names in scan.skipped.items()})
    for other in scan.candidates:
        if other.first not in chosen.images:
            kind = f"{other.component} images" if other.component != chosen.component else OTHER_SERIES
            counts[kind] += len(other.names)
    if n := scan.reader.n_duplicates(chosen):
        counts["duplicate images"] = n
    return dict(counts)
