"""One scale for the images of a fit: Philips scales every series, some of its scans every image, on its own.

Stored values SV are displayed as DV = SV RS + RI, and comparable between images as FP = DV / (RS SS). The header of a
NIfTI file has room for one of these scales, or for the real world one; the sidecars of dcm2niix have all numbers. Which
one it is the slope tells: `UsePhilipsFloatNotDisplayScaling` is what was asked for, also where something else was
written (dcm2niix of November 2018 to February 2021, where there were real world values).

Sources: Chenevert et al., Transl Oncol 7:65 (2014); dcm2niix, notes on Philips, "Image Scaling", and its issue 493.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ...errors import CorruptInputError, remark
from ..candidates import number
from ..scale import AS_STORED, Line
from .file import NiftiFile

_CONVERT = "convert them again from DICOM by dcm2niix"


class _Philips(NamedTuple):
    """What a sidecar says of the scales of a file, None where it does not."""

    displayed: Line | None
    real_world: Line | None
    comparable: Line | None

    def kind(self, file: NiftiFile) -> str:
        """Which of them the header has, or "stored" for none in a file of integers; "": unknown."""
        scale = Line(file.slope, file.intercept)
        found = [name for name in reversed(self._fields) if scale.is_close(getattr(self, name))]
        return (found or ["stored" if file.dtype.kind in "iu" and scale == AS_STORED else ""])[0]

    def is_like(self, other: "_Philips") -> bool:
        return all(a.is_close(b) if a else b is None for a, b in zip(self, other, strict=True))


def on_one_scale(files: Sequence[NiftiFile]) -> Sequence[NiftiFile]:
    """The files, with other slopes and intercepts where by their sidecars the values are not comparable as they are.

    Raises CorruptInputError where it is unknown how they compare.
    """
    stated = [_philips(file) for file in files]
    if not any(any(one) for one in stated):
        _check_slopes(files)
        return files
    kinds = [one.kind(file) for one, file in zip(stated, files, strict=True)]
    alike = all(one.is_like(stated[0]) for one in stated)
    if {*kinds} == {"comparable"} or (alike and len({*kinds} - {""}) <= 1):
        return files
    for one, kind, file in zip(stated, kinds, files, strict=True):
        if not one.comparable or not kind:
            why = (
                f"its slope {file.slope:g} is not in its sidecar" if one.comparable else "PhilipsScaleSlope is missing"
            )
            raise CorruptInputError(
                f"{file.path.name}: Philips images each on a scale of its own, and {why}, so it is unknown how they "
                f"compare; {_CONVERT} or, if they are comparable as they are, take the keys that begin with Philips "
                "out of the sidecars."
            )
    remark("Philips images each on a scale of its own were made comparable by the PhilipsScaleSlope of their sidecars.")
    made = [one.comparable for one in stated if one.comparable]
    return [replace(file, slope=s.slope, intercept=s.intercept) for file, s in zip(files, made, strict=True)]


def _philips(file: NiftiFile) -> _Philips:
    names = ("RescaleSlope", "RescaleIntercept", "RWVSlope", "RWVIntercept", "ScaleSlope")
    stated = [file.sidecar.get(f"Philips{name}") for name in names]
    if any(isinstance(value, list) and len(set(map(str, value))) > 1 for value in stated):
        raise CorruptInputError(
            f"{file.path.name}: its sidecar has Philips scales for each of its volumes, its header one for all; "
            f"{_CONVERT}."
        )
    slope, intercept, world, at_0, scale = map(number, stated)
    return _Philips(
        displayed=Line(slope, intercept or 0.0) if slope else None,
        real_world=Line(world, at_0 or 0.0) if world else None,
        comparable=Line(1 / scale, (intercept or 0.0) / (slope * scale)) if slope and scale else None,
    )


def _check_slopes(files: Sequence[NiftiFile]) -> None:
    """Refuses a file without a usable slope among others that are scaled."""
    without = [file for file in files if not file.declares_slope]
    scaled = [file for file in files if (file.slope, file.intercept) != AS_STORED]
    if without and scaled:
        raise CorruptInputError(
            f"{without[0].path.name} and {scaled[0].path.name}: scl_slope in the header is 0 or no number in the one "
            f"and {scaled[0].slope:g} in the other, so it is unknown how they compare; convert the images again, or "
            "write the slope that is meant, 1 for none, into the header."
        )
    makers = {str(file.sidecar.get("Manufacturer") or "").strip().upper()[:7] for file in files}
    if "PHILIPS" not in makers or len({file.slope for file in files}) == 1:
        return
    series = {str(file.sidecar.get("SeriesInstanceUID") or file.sidecar.get("SeriesNumber")) for file in files}
    what = f"Philips images of {'several series with ' * (len(series) > 1)}different slopes whose sidecars lack"
    if len(series) > 1:  # which are displayed each on a scale of its own
        raise CorruptInputError(f"{what} PhilipsScaleSlope, so that it is unknown how they compare; {_CONVERT}.")
    remark(
        f"{what} PhilipsScaleSlope: where their values are those displayed, they may not be comparable, and the maps "
        f"wrong; {_CONVERT}."
    )
