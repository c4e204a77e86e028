"""What kind of images these are, by what headers say: gradient or spin echoes, one recovery per image or several; and
what varies in a series whose axis does not."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import MapWith, Part
from ..quantities import AXES
from .candidates import Candidate, Image, codes, number

EARLIEST_SPIN_ECHO = 4e-3  # s; two pulses and a readout of a clinical scanner hardly fit into less
LEAST_EXCITATION = 60.0  # deg; those of spin echoes are hardly below it
MOST_EXCITATION = 100.0  # deg; gradient echoes are never above it: what is states the refocusing
_GRADIENT_NAME = re.compile(
    r"gradient.?echo|(?<![a-z])(fl[23]d|epfid|flash|f?spgr|fiesta|\w*fgre|\w*grass|\w*fisp|\w*(gre|ffe|tfe)(?![a-z]))"
)
_SPIN_NAME = re.compile(
    r"spin.?echo|(?<![a-z])(t?se[23]d|epse|spc|memp|mese|grase|haste|cpmg|t?se(?![a-z])|\w*(fse|tse)(?![a-z]))"
)
_UNSPOILED_NAME = re.compile(r"b-?ssfp|fiesta|true?.?fisp|trufi|(?<![a-z])(tfi[23]d|b-?[ft]fe)", re.IGNORECASE)
_NAMES = ("PulseSequenceType", "PulseSequenceName", "SequenceName")
_OF_MANY_READOUTS = re.compile(r"molli|look.?locker|ti.?scout", re.IGNORECASE)
_TIME_SERIES = {  # words of Image Type (0008,0008) or suffixes of BIDS -> what such images are
    "DIFFUSION": "diffusion", "DWI": "diffusion", "ADC": "diffusion", "TRACEW": "diffusion",
    "PERFUSION": "perfusion", "ASL": "perfusion", "FMRI": "fMRI", "BOLD": "fMRI",
}  # fmt: skip


class Kind(NamedTuple):
    """What images are, and what says so."""

    echo: str = ""  # "GR" gradient, "SE" spin echoes; "" where nothing tells
    sign: str = ""  # "ScanningSequence is GR"
    readouts: str = ""  # what says that several images follow one inversion; "" where nothing does
    unspoiled: str = ""  # what says that the transverse magnetisation is kept from pulse to pulse; or ""


def kind_of(
    header: Callable[[str], Any], first_te: float | None = None, suffix: str = "", description: str = ""
) -> Kind:
    """By a header under keywords of DICOM or BIDS, the first echo time [s] and the suffix of a BIDS name.

    What the scanner states goes before names, names before what can be concluded from angles and times.
    """
    names = " ".join(str(header(key) or "") for key in _NAMES)
    many = _OF_MANY_READOUTS.search(f"{names} {description}")
    readouts = f"its name says {many[0]}" if many else ""
    balanced, variant = _UNSPOILED_NAME.search(names), codes(header("SequenceVariant"))
    unspoiled = f"its name says {balanced[0]}" if balanced else ""
    if {"SS", "TRSS"} & set(variant) and "SP" not in variant:
        unspoiled = f"SequenceVariant is {'_'.join(variant)}"
    return Kind(*_echo(header, names, first_te, suffix), readouts, unspoiled)


def _echo(header: Callable[[str], Any], names: str, first_te: float | None, suffix: str) -> tuple[str, str]:
    stated = codes(header("ScanningSequence"))
    if {"GR", "SE"} <= set(stated):  # GRASE
        return "", ""
    for kinds, sign in (
        ([kind for kind in ("GR", "SE") if kind in stated], "ScanningSequence is {}"),
        ([{"MEGRE": "GR", "T2starw": "GR", "VFA": "GR", "MESE": "SE"}.get(suffix)], f"its BIDS suffix is {suffix}"),
        (_by_name(names.lower()), "the name of its sequence says so"),
    ):
        if len(kinds) == 1 and kinds[0]:
            return kinds[0], sign.format(kinds[0])
    angle = number(header("FlipAngle"))
    if angle is not None and not LEAST_EXCITATION <= angle <= MOST_EXCITATION:
        return "GR" if angle < LEAST_EXCITATION else "SE", f"FlipAngle is {angle:g} degrees"
    if first_te is not None and first_te < EARLIEST_SPIN_ECHO:
        return "GR", f"the first echo comes at {1e3 * first_te:g} ms"
    states = {"SP", "SS", "TRSS"} & set(codes(header("SequenceVariant")))
    if states and angle is None and set(stated) <= {"RM"}:  # spoiled, or a steady state
        return "GR", f"SequenceVariant is {states.pop()}"
    return "", ""


def _by_name(names: str) -> list[str]:
    found = {"GR": _GRADIENT_NAME.search(names), "SE": _SPIN_NAME.search(names)}
    return [kind for kind, match in found.items() if match]


def kind_of_candidate(candidate: Candidate) -> Kind:
    """The same of the images of a candidate."""
    first, te = candidate.first, candidate.stated(AXES["te"])
    return kind_of(first.header, te[0] if te else None, first.bids.suffix if first.bids else "", first.description)


def varies_instead(candidate: Candidate) -> list[Part]:
    """What varies between images of a slice where its axis does not, and what maps that; nothing: []."""
    images, axis = candidate.images, candidate.axis
    if what := what_they_are(candidate.first):
        return [f"these are {what} images, which are no {axis.many}"]
    if axis.name == "te" and _tell_apart(candidate, "EchoNumbers", "EchoNumber"):
        return []  # echoes, whatever their times say
    for other in AXES.values():
        values = () if other is axis or not other.keyword else candidate.stated(other)
        if len(values) > 1 and _tell_apart(candidate, other.keyword):
            return [
                f"what varies is the {other.term}, {other.listed(values[:6])} {other.shown_unit}; ",
                MapWith(other.job),
            ]
    for keyword, what in (
        ("DiffusionBValue", "the b-value of diffusion"), ("TemporalPositionIdentifier", "the time point"),
        ("TriggerTime", "the time in the heart beat"), ("AcquisitionNumber", "the acquisition"),
    ):  # fmt: skip
        if len({number(image.header(keyword)) for image in images}) > 1:
            return [f"what varies is {what} ({keyword}), so that these are no {axis.many}"]
    return []


def what_they_are(image: Image) -> str:
    """Diffusion, perfusion or fMRI, if anything says so, or ""."""
    suffix = re.sub(r"\..*", "", image.name).split("_")[-1].upper()
    said = [*image.image_type[2:], *([suffix] if image.time_unit == 1 else [])]
    return next((_TIME_SERIES[word] for word in said if word in _TIME_SERIES), "")


def _tell_apart(candidate: Candidate, *keywords: str) -> bool:
    """Whether a number in the headers tells the images of every slice apart."""
    for keyword in keywords:
        found = [number(image.header(keyword)) for image in candidate.images]
        if None not in found and len(set(zip(candidate.slices.tolist(), found, strict=True))) == len(found):
            return True
    return False
