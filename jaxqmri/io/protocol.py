"""What must be the same in all images of a fit: one rule for DICOM and NIfTI, for one series and for several.

How far a time or an angle may be off is a question of how much of the signal that changes, not of digits.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import CorruptInputError, remark
from ..quantities import AXES, ECHO_TIME, Axis
from .axis import NUDGED, ROUNDING
from .candidates import Candidate, Image, codes, number, only_number, words

LONGEST_T1 = 2.0  # s; of blood and grey matter at 3 T: it says how much of a repetition time is recovery
SHORTEST_DECAY = {"EchoTime": 20e-3, "SpinLockTime": 20e-3}  # s; of tissue whose signal lasts
FIELD = 0.05  # of the field strength, which is nominal in some files
# Anonymisers blank these or give all patients the same: only different ones tell anything.
_OWNERS = {
    "PatientID": "the patient (PatientID (0010,0020))",
    "StudyInstanceUID": "the study (StudyInstanceUID (0020,000D))",
    "FrameOfReferenceUID": "the frame of reference (FrameOfReferenceUID (0020,0052))",
}
TIMING = (
    "RepetitionTime", "RepetitionTimeExcitation", "RepetitionTimePreparation", "RepetitionTimeInversion",
    *(axis.keyword for axis in AXES.values() if axis.keyword),
)  # fmt: skip
CONSTANT = (*TIMING, "MagneticFieldStrength", "DiffusionBValue", "SliceThickness")  # signals are as large as voxels
_UNIT_FREE = {  # all else are times
    "FlipAngle": "deg", "MagneticFieldStrength": "T", "DiffusionBValue": "s/mm2", "SliceThickness": "mm",
}  # fmt: skip
# Words of Sequence Variant (0018,0021) that tell one signal from another: magnetisation transfer or prepared, spoiled,
# a steady state.
_VARIANTS = {"MTC", "MP", "SP", "SS", "TRSS"}
# Of Image Type (0008,0008). NORM: Siemens, divided by the sensitivity; DIS2D: corrected for distortion.
_CONTENTS = {"NORM", "DIS2D", "DIS3D", "W", "F", "WATER", "FAT"}
_CONTRAST_AGENTS = ("ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusIngredient")
_NO_AGENT = re.compile(r"(no(ne|t .*)?|n|0|without.*)?", re.IGNORECASE)  # as it is typed at the scanner
_SAID_IN_WORDS = (
    "MTState", "MagnetizationTransfer", "SteadyStatePulseSequence", "ReceiveCoilName", "MRAcquisitionType",
    # Of these depends what an image is scaled by when it is reconstructed, also to the same matrix.
    "AcquisitionMatrix", "MRAcquisitionFrequencyEncodingSteps", "MRAcquisitionPhaseEncodingStepsInPlane",
    "BaseResolution", "AcquisitionMatrixPE", "ParallelAcquisitionTechnique", "ParallelReductionFactorInPlane",
)  # fmt: skip
BANDWIDTH = 0.01  # of itself; by another one the noise changes and where fat lies, the signal not


def change(keyword: str, a: float, b: float) -> float:
    """By how much of itself the signal differs, at most, between two values of a header [s], [deg] or [T]."""
    low, high = sorted((abs(a), abs(b)))
    if high - low <= ROUNDING * low:
        return 0.0
    if keyword in SHORTEST_DECAY:
        return (high - low) / SHORTEST_DECAY[keyword]
    if keyword.startswith("RepetitionTime"):  # 1 - exp(-TR / T1): in proportion to a short one, full after a long one
        return 1 - math.expm1(-low / LONGEST_T1) / math.expm1(-high / LONGEST_T1)
    return (high - low) / high * (NUDGED / FIELD if keyword == "MagneticFieldStrength" else 1)


def stated(image: Image, keyword: str) -> float | None:
    """The number that a header states [s], [deg] or [T]; scanners write a time of 0 where there is none."""
    value = only_number(image.header(keyword))
    if keyword == "DiffusionBValue":  # where it says nothing there is no diffusion weighting
        return value or 0.0
    if value is None or keyword in _UNIT_FREE:
        return value
    return value * image.time_unit if value or keyword in ("EchoTime", "SpinLockTime") else None


def differences(a: Image, b: Image, axis: Axis) -> list[str]:
    """In what two images of two series differ beside `axis`, e.g. "RepetitionTime 5.4 and 9 ms"."""
    found = owners_differ(a, b)
    for keyword in CONSTANT:
        first, second = stated(a, keyword), stated(b, keyword)
        unlike = first != second and keyword in TIMING
        if first is not None and second is not None:
            unlike = change(keyword, first, second) > NUDGED
        if keyword != axis.keyword and unlike:
            found.append(f"{keyword} {_shown(a, keyword, first)} and {_shown(a, keyword, second)}{_unit(a, keyword)}")
    if a.sequence != b.sequence:
        found.append("ScanningSequence")
    others = in_words(b)
    found += [f"{key} ({said} and {others[key]})" for key, said in in_words(a).items() if others.get(key, said) != said]
    if a.bids != b.bids:
        return [*found, f"their BIDS names, {a.bids or 'none'} and {b.bids or 'none'}"]
    if axis is ECHO_TIME and described(a) != described(b):
        found.append("SeriesDescription")
    return found


def in_words(image: Image) -> dict[str, str]:
    """What a header says of pulses, coil and brightness that images of one fit share, as far as it says so."""
    said = {key: _text(value) for key in _SAID_IN_WORDS if (value := image.header(key)) not in (None, "")}
    agents = [str(image.header(key) or "").strip() for key in _CONTRAST_AGENTS]
    said["ContrastBolusAgent"] = "none" if all(map(_NO_AGENT.fullmatch, agents)) else "stated"
    if variant := codes(image.header("SequenceVariant")):
        said["SequenceVariant"] = "\\".join(sorted(_VARIANTS & set(variant))) or "NONE"
    if types := (*image.image_type, *words(image.header("ImageTypeText"))):
        said["ImageType"] = "\\".join(sorted(_CONTENTS & set(types))) or "none of NORM, DIS2D, W, F"
    return said


def _text(value: Any) -> str:
    """Numbers in short; those of a matrix in an order that does not depend on the direction of phase encoding."""
    if isinstance(value, int | float):
        return f"{value:.4g}"
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return "\\".join(sorted(str(one) for one in value if one)) if several else str(value).strip()


def described(image: Image) -> str:
    """The series' own name, but for its numbers. Echoes are told from other scans by it as well; TI and flip angles are
    often set, and series named, by hand."""
    return re.sub(r"[\d.,]+", "#", image.description).lower()


def owners_differ(*images: Image, disregard: Collection[str] = ()) -> list[str]:
    """In whose images they are they differ (not whose they are); what one does not say is not held against it."""
    said = {key: {str(image.header(key) or "").strip() for image in images} - {""} for key in _OWNERS}
    return [in_words for key, in_words in _OWNERS.items() if len(said[key]) > 1 and key not in disregard]


def random_frames_of_reference(images: Sequence[Image]) -> tuple[str, ...]:
    """The keyword of the frame of reference where every image of a series has its own, as careless anonymisers leave
    them: these tell nothing. Otherwise ()."""
    uids = [str(image.header("FrameOfReferenceUID") or "") for image in images]
    return (
        ("FrameOfReferenceUID",) if len(set(uids)) == len(uids) > 2 and len({i.series_uid for i in images}) == 1 else ()
    )


def owner(image: Image) -> dict[str, str]:
    """Whose image it is, as far as it says so, by what `owners_differ` compares."""
    return {key: said for key in _OWNERS if (said := str(image.header(key) or "").strip())}


def check_one_protocol(chosen: Candidate) -> None:
    """Refuses images of one fit that differ in more than the axis, with a remark on what hardly matters.

    Between images of one series, what one of them does not say is not held against it.
    """
    axis, images = chosen.axis, list(chosen.one_each.values())
    alone = f"so that the signal does not depend on the {axis.term} alone; "
    for keyword in CONSTANT:
        said = {image: value for image in images if (value := stated(image, keyword)) is not None}
        if keyword == axis.keyword or len(set(said.values())) < 2:
            continue
        changes = change(keyword, min(said.values()), max(said.values()))
        if changes > NUDGED:
            raise CorruptInputError(f"{chosen}: {_odd_ones_out(keyword, said, alone)}")
        if changes:
            spread = (max(said.values()) - min(said.values())) / float(np.median(list(said.values())))
            share = f"{100 * spread:.2g} %"
            remark(f"{keyword} differs between images by {share}; their median is taken for all of them.")
    if not chosen.is_given and (off := _off_by_slice(chosen)) > ROUNDING:
        remark(f"the {axis.terms} differ between slices by up to {100 * off:.2g} %; those of most slices are taken.")
    texts: dict[str, dict[Image, str]] = defaultdict(dict)
    for image in images:
        for key, said in {"ScanningSequence": "\\".join(image.sequence), **in_words(image)}.items():
            texts[key] |= {image: said} if said else {}
    for key, of_images in texts.items():
        if len(set(of_images.values())) > 1:
            raise CorruptInputError(f"{chosen}: {_odd_ones_out(key, of_images, alone)}")
    bandwidths = [value for image in images if (value := number(image.header("PixelBandwidth")))]
    if axis is not ECHO_TIME and bandwidths and max(bandwidths) > (1 + BANDWIDTH) * min(bandwidths):
        remark(
            f"PixelBandwidth (0018,0095) differs between images ({min(bandwidths):g} ... {max(bandwidths):g} Hz), and "
            "with it their noise and the place of fat, which are taken to be alike."
        )
    random = random_frames_of_reference(chosen.images)
    if random:
        remark(
            f"{random[0]} (0020,0052) is another in every image of a series, as anonymisers may leave it; disregarded."
        )
    if owners := owners_differ(*images, disregard=random):
        raise CorruptInputError(f"{chosen}: images differ in {', '.join(owners)}; give those of one alone.")
    if _acquisitions_are_mixed(chosen):
        raise CorruptInputError(
            f"{chosen}: AcquisitionNumber (0020,0012) differs between images of one {axis.term} and not in step with "
            "their slices, so that two acquisitions are mixed; put the images of one of them in a folder of their own "
            "and give that."
        )


def _off_by_slice(chosen: Candidate) -> float:
    """By how much of it a value in use differs from what an image says, at most."""
    stated = [(image.value_of(chosen.axis), value) for image, value in zip(chosen.images, chosen.each, strict=True)]
    return max((abs(said - value) / value for said, value in stated if value), default=0.0)


def _odd_ones_out(keyword: str, said: dict[Image, float] | dict[Image, str], alone: str) -> str:
    """What differs, the most common value first, and the images to be left out where these are few."""
    counts = Counter(said.values()).most_common()
    first = next(iter(said))
    values = [value if isinstance(value, str) else _shown(first, keyword, value) for value, _ in counts[:4]]
    unit = "" if isinstance(counts[0][0], str) else _unit(first, keyword)
    differ = f"{keyword} differs between images"
    if len(counts) == 2 and counts[1][1] < counts[0][1]:
        odd = [image.name for image, value in said.items() if value == counts[1][0]]
        files = [{id(i.file) for i, value in said.items() if value == each} for each, _ in counts]
        can_leave_out = files[0].isdisjoint(files[1])
        names = f"{odd[0]} and {len(odd) - 1} more" if len(odd) > 1 else odd[0]
        mend = f"leave out {names}" if can_leave_out else f"give images of one {keyword}"
        return f"{differ} ({values[0]}, but {values[1]}{unit} in {names}), {alone}{mend}."
    return f"{differ} ({', '.join(values)}{unit}), {alone}give images of one {keyword}."


def _acquisitions_are_mixed(chosen: Candidate) -> bool:
    """Whether the images of neither a slice nor a value go together by their acquisition numbers.

    Scanners count acquisitions by value, by package of slices, or image by image.
    """
    places = chosen.one_each
    n_slices, values = int(chosen.slices.max()) + 1, chosen.values
    numbers = [number(places[k, v].header("AcquisitionNumber")) for k in range(n_slices) for v in values]
    if None in numbers or len(set(numbers)) in (1, len(numbers)):
        return False
    table = np.array(numbers, float).reshape(n_slices, len(values))
    return bool(np.any(table - table[:1] != (table - table[:1])[:, :1]))


def labels(keyword: str, found: Iterable[float | None], gap: float | None = None) -> list[int]:
    """Of each value a number that values next to each other share: no two within tolerance have different ones."""
    values = list(found)
    there = sorted({value for value in values if value is not None})
    near = [b - a <= gap if gap is not None else change(keyword, a, b) <= NUDGED for a, b in pairwise(there)]
    of_value = dict(zip(there, np.cumsum([0, *(not one for one in near)]).tolist(), strict=False))
    return [-1 if value is None else of_value[value] for value in values]


def _shown(image: Image, keyword: str, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value if keyword in _UNIT_FREE else value / image.time_unit:.6g}"


def _unit(image: Image, keyword: str) -> str:
    return f" {_UNIT_FREE.get(keyword) or ('s' if image.time_unit == 1 else 'ms')}"


def check_order(candidate: Candidate) -> None:
    """Refuses images whose values by their headers come in another order than their numbers: one of the two is wrong.

    Echoes are numbered in time; inversions and flip angles of BIDS as they come, upwards or downwards.
    """
    axis = candidate.axis
    each = candidate.along(axis).each if candidate.is_given else candidate.each
    numbered = [image.numbers(axis) for image in candidate.images]
    for where in sorted({where for numbers in numbered for where in numbers}):
        found: dict[float, dict[float, str]] = defaultdict(dict)  # number -> value -> name
        for numbers, value, image in zip(numbered, each, candidate.images, strict=True):
            if where in numbers and value == value:
                found[numbers[where]].setdefault(value, image.name)
        if any(len(values) > 1 for values in found.values()):  # they number something else
            continue
        pairs = list(pairwise((place, *next(iter(values.items()))) for place, values in sorted(found.items())))
        wrong = [pair for pair in pairs if pair[0][1] > pair[1][1]]
        if axis is not ECHO_TIME and 2 * len(wrong) > len(pairs):
            wrong = [pair for pair in pairs if pair[0][1] < pair[1][1]]
        for (place, value, name), (next_place, next_value, next_name) in wrong:
            values = f"{axis.listed([value, next_value], ' and ')} {axis.shown_unit}"
            raise CorruptInputError(
                f"{name} and {next_name}: {axis.terms} {values}, but {where} is {place:g} and {next_place:g}: one "
                "contradicts the other, and which is right is not known; mend the one that is wrong."
            )
