"""What the headers in files say: candidates, each the images of one series, component and grid that could be fitted."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import MetadataError, UsageError
from ..quantities import Axis
from .axis import NUDGED
from .bids.names import BidsName
from .phase import radians_per_unit

OTHER_SERIES = "images of other series"
Place = tuple[int, float]  # slice from 0, value of the axis


@dataclass(frozen=True, eq=False, kw_only=True)
class Image(ABC):
    """One stored image, a slice in a DICOM file or a volume in a NIfTI file, as the choice sees it."""

    time_unit: ClassVar[float]  # of times in the header [s]
    file: Any  # that holds it, and perhaps others
    name: str  # of its file, without folders, for messages
    uid: str  # what tells it from other images, but not from copies of itself
    series_uid: str  # "" where unknown
    series_number: int | str | None
    description: str  # the series' own name for itself, in one line
    bids: BidsName | None = None  # what BIDS calls the series, where files have such names
    component: str  # one of COMPONENTS or, never fitted, "derived map"
    component_is_stated: bool = True  # whether anything says so; what says nothing is taken for a magnitude
    derived: bool  # computed from other images, not measured
    listed: int | None = None  # its place in the caller's list of files or along the 4th axis, which is an order
    slope: float  # displayed per stored value
    intercept: float  # displayed where the stored value is 0
    scale_slope: float | None = None  # Philips', see dicom.pixels.rescaled
    unit: str  # of displayed values, in the words of the file

    @abstractmethod
    def header(self, keyword: str) -> Any:
        """What the header says under a keyword of DICOM, which BIDS shares, in the unit of the format; or None."""

    @abstractmethod
    def value_of(self, axis: Axis) -> float:
        """Its echo time or the like [s] or [rad]; raises MetadataError where it has none that could be used."""

    def stated(self, axis: Axis) -> tuple[float, ...]:
        """The same, whether or not it could be used for this image alone; none: ()."""
        try:
            return (self.value_of(axis),)
        except MetadataError:
            return ()

    @abstractmethod
    def where(self, axis: Axis) -> str:
        """Where files of this kind have that value, for messages."""

    @abstractmethod
    def order(self, axis: Axis, *, of_several_series: bool) -> Sequence[tuple[str, float | None]]:
        """Numbers by which given values may go to the images of a slice, best first, each with its name."""

    def numbers(self, axis: Axis) -> Mapping[str, float]:
        """Its places along an axis, by where files of this kind state them."""
        return {}

    @property
    def wrap(self) -> float:
        """What saving unsigned integers as signed ones would take off a value, as displayed; 0: nothing could."""
        return 0.0

    @property
    def radians_per_value(self) -> float | None:
        """Angle per displayed value of a phase image [rad], or None where nothing declares it."""
        return radians_per_unit(self.slope, self.intercept, self.unit)

    @property
    def image_type(self) -> tuple[str, ...]:
        """Image Type (0008,0008), upper case."""
        return words(self.header("ImageType"))

    @property
    def sequence(self) -> tuple[str, ...]:
        """Scanning Sequence (0018,0020): SE, GR, IR, EP."""
        return words(self.header("ScanningSequence"))


@dataclass(frozen=True, eq=False)
class Candidate:
    """Images of one series and component on one grid."""

    images: tuple[Any, ...]  # in an order that does not depend on file names
    slices: np.ndarray  # (image,) int, the slice each belongs to, counted along the normal; 0 for whole volumes
    shape: tuple[int, int]  # the first two axes of the volume
    n_slices: int  # the third
    voxel_size: tuple[float, float, float]  # along x, y, z [mm]
    grid: Any  # where the voxels lie; `grid.same_as(other)` says whether others lie there
    names: tuple[str, ...]  # what it is counted by: images of DICOM, files of NIfTI
    axis: Axis  # what is to vary
    is_enhanced: bool = False  # whether the images come from Enhanced MR files
    each: tuple[float, ...] = ()  # (image,) value of the axis [s] or [rad], NaN where there is none
    value_error: MetadataError | UsageError | None = None  # why these cannot be used
    is_given: bool = False  # whether they come from the caller
    parts: tuple["Candidate", ...] = ()  # what it was joined from
    time_point: int | None = None  # of images repeated in time, where only those of one are here
    echo_times: tuple[float, ...] = ()  # of all echoes, where only images of the first are here [s]

    def along(self, axis: Axis) -> "Candidate":
        """The same images with what their headers say of an axis."""
        found, error = [], None
        for image in self.images:
            try:
                found.append(image.value_of(axis))
            except MetadataError as why:
                found.append(np.nan)
                error = error or why
        each = _one_in_all_slices(np.array(found), self.slices)
        return replace(self, axis=axis, each=each, value_error=error, is_given=False)

    @property
    def first(self) -> Image:
        return self.images[0]

    @property
    def values(self) -> tuple[float, ...]:
        """The different values of the axis, ascending [s] or [rad]."""
        return self.stated(self.axis)

    def stated(self, axis: Axis) -> tuple[float, ...]:
        """The different values of any axis in the headers, or of its own axis in use, ascending [s] or [rad]."""
        found = self.each if axis is self.axis else [value for image in self.images for value in image.stated(axis)]
        return tuple(sorted({value for value in found if value == value}))

    @property
    def component(self) -> str:
        return self.first.component

    @property
    def wraps(self) -> list[float]:
        """Of each value the `wrap` of its images; [0] where that differs."""
        found = {(value, image.wrap) for value, image in zip(self.each, self.images, strict=True)}
        return [wrap for _, wrap in sorted(found)] if len(found) == len(self.values) else [0.0]

    @property
    def numbers(self) -> tuple[int | str, ...]:
        """The numbers of its series: several where series of one value each were joined."""
        return tuple(dict.fromkeys(i.series_number for i in self.images if i.series_number is not None))

    @property
    def series_uids(self) -> tuple[str, ...]:
        """Their Series Instance UIDs, sorted."""
        return tuple(sorted({image.series_uid for image in self.images} - {""}))

    @property
    def n_images(self) -> int:
        """How many slices are stored."""
        return len(self.images) * self.n_slices // (int(self.slices.max()) + 1)

    @property
    def images_per_slice(self) -> tuple[int, int]:
        """Fewest and most images of any slice."""
        counts = np.bincount(self.slices)
        return int(counts.min()), int(counts.max())

    @property
    def is_constant(self) -> bool:
        """Whether it has several different images of a slice, all of one value."""
        return len(self.values) == 1 and len({image.uid for image in self.images}) > int(self.slices.max()) + 1

    @property
    def is_map_at_te_0(self) -> bool:
        """Whether it is a volume without echo time that came with images of other echo times."""
        at_0 = all(number(image.header("EchoTime")) == 0 for image in self.images)
        return self.first.derived and at_0 and "DERIVED" not in self.first.image_type[:1]

    @property
    def places(self) -> list[Place]:
        """(image,) of each its slice and value."""
        return list(zip(self.slices.tolist(), self.each, strict=True))

    @property
    def one_each(self) -> dict[Place, Any]:
        """Slice and value -> the first image of them; others are its copies."""
        found: dict[Place, Any] = {}
        for place, image in zip(self.places, self.images, strict=True):
            found.setdefault(place, image)
        return found

    @property
    def repetition_times(self) -> tuple[float, ...]:
        """Different repetition times, ascending [s]."""
        said = [(number(image.header("RepetitionTime")), image.time_unit) for image in self.images]
        return tuple(sorted({tr * unit for tr, unit in said if tr}))

    @property
    def scaling(self) -> str:
        """How stored values become image values, in words."""
        factors = {"slope": "slope", "intercept": "intercept", "Philips scale slope": "scale_slope"}
        found = {name: [getattr(image, field) for image in self.images] for name, field in factors.items()}
        return ", ".join(f"{name} {_span(values)}" for name, values in found.items() if None not in values)

    @property
    def missing(self) -> tuple[Place, ...]:
        """Slices, from 0, and values that have no image although other slices or values do; by slice."""
        there = set(self.places)
        return tuple((k, v) for k in range(int(self.slices.max()) + 1) for v in self.values if (k, v) not in there)

    def lacking(self) -> str:
        """Words for `missing`, e.g. "slice 7 of 36 lacks TE 9.2 ms", or nothing; four slices at most are named."""
        lacks = {k: [value for _, value in places] for k, places in groupby(self.missing, key=itemgetter(0))}
        named = [f"slice {k + 1} of {self.n_slices} lacks {at(self.axis, *values)}" for k, values in lacks.items()]
        return ", ".join(named[:4]) + (f" and {len(named) - 4} more slices lack images" if len(named) > 4 else "")

    def values_of_slices(self) -> str:
        """Words for values that differ from slice to slice, e.g. "slice 1 of 3: 50, 400 ms, slice 2 ...", or nothing.

        Slices that lack images of others have fewer of them.
        """
        of_slices: dict[int, set[float]] = {}
        for k, value in self.places:
            of_slices.setdefault(k, set()).add(value)
        if not self.missing or len({len(values) for values in of_slices.values()}) > 1:
            return ""
        named = [(k, self.axis.listed(sorted(values)[:6])) for k, values in sorted(of_slices.items())[:2]]
        return ", ".join(f"slice {k + 1} of {self.n_slices}: {these} {self.axis.shown_unit}" for k, these in named)

    def __str__(self) -> str:
        axis, n = self.axis, len(self.values)
        values = f"1 {axis.one}" if n == 1 else f"{n} {axis.many}"
        if self.value_error:
            values = f"no usable {axis.terms}"
        elif self.is_constant:
            values = f"{axis.symbol} {axis.described(self.values * self.images_per_slice[1])}"
        number = "without number" if self.first.series_number is None else self.first.series_number
        name = self.first.bids or f"series {number}"  # without its description, free text that may name a person
        return f"{name} ({self.component}, {values}, {'x'.join(map(str, (*self.shape, self.n_slices)))})"


def _one_in_all_slices(found: np.ndarray, slices: np.ndarray) -> tuple[float, ...]:
    """(image,) values where those of different slices that are off by rounding are the most common of them."""
    if len(found) < 2 or not slices.any():
        return tuple(found.tolist())
    merged = found.copy()
    values, counts = np.unique(found[~np.isnan(found)], return_counts=True)
    while len(values):
        alike = values <= values[0] * (1 + NUDGED)
        of_them = np.isin(found, values[alike])
        places = set(zip(slices[of_them].tolist(), found[of_them].tolist(), strict=True))
        if len({k for k, _ in places}) == len(places):  # no slice has two of them
            merged[of_them] = values[alike][np.argmax(counts[alike])]
        values, counts = values[~alike], counts[~alike]
    return tuple(merged.tolist())


Images = Generator[tuple[tuple[slice | int, ...], np.ndarray, np.ndarray], None, None]


class Reader(NamedTuple):
    """What is particular to one file format."""

    source_format: str
    # Angle per loaded value [rad] of each phase image, None where it is not declared.
    radians: Callable[[Candidate], Sequence[float | None]]
    # Raises, or remarks, where the images of a candidate do not belong together.
    check: Callable[["Scan", Candidate], None]
    affine: Callable[[Candidate], np.ndarray]  # (4, 4) voxel index -> RAS+ [mm]
    # Of each image its place in (x, y, z, n), its values and whether those are at the top of their range.
    load: Callable[[Candidate], Images]
    physics: Mapping[str, tuple[str, float]]  # key of BIDS -> keyword of the files, and BIDS's unit per theirs
    # Why a scan without a candidate of the wanted component cannot be fitted, where that is particular to the format.
    refusal: Callable[["Scan"], Exception | None] = lambda scan: None
    identity: Callable[[Candidate], Any] = lambda candidate: None  # whose images they are
    # The candidate with slopes and intercepts that make its images comparable.
    comparable: Callable[[Candidate], Candidate] = lambda candidate: candidate


@dataclass(frozen=True, eq=False)
class Scan:
    """What was found."""

    source: str  # what was scanned, for messages
    candidates: tuple[Candidate, ...]  # by series number, or in the order of their files
    skipped: Mapping[str, tuple[str, ...]]  # reason -> names of the images, and of files that hold none, passed over
    axis: Axis  # what is to vary
    given: np.ndarray | None  # (n,) values of it that the caller gave [s] or [rad]
    reader: Reader

    def along(self, axis: Axis) -> "Scan":
        """The same files where something else is to vary."""
        if axis is self.axis:
            return self
        return replace(self, candidates=tuple(c.along(axis) for c in self.candidates), axis=axis, given=None)

    def has_series(self, names: Sequence[str]) -> bool:
        """Whether there is any series of these names."""
        return any(_has_name(c, name.strip()) for c in self.candidates for name in names)

    def of_series(self, series: int | str | Sequence[int | str]) -> "Scan":
        """The same as if only the series of these names were there, all of them if none is named; see `_has_name`."""
        wanted = [str(name).strip() for name in ([series] if isinstance(series, int | str) else series)]
        if not wanted:
            return self
        for name in wanted:
            if not any(_has_name(c, name) for c in self.candidates):
                there = "; ".join(f"{c}{''.join(f', UID {uid}' for uid in c.series_uids)}" for c in self.candidates)
                what = "which is a series number, a BIDS name or how its UID begins"
                raise UsageError(f"{self.source}: no series {name}, {what}; there are: {there or 'none'}.")
        kept = tuple(c for c in self.candidates if any(_has_name(c, name) for name in wanted))
        others = sorted(name for c in self.candidates if c not in kept for name in c.names)
        skipped = {**self.skipped, OTHER_SERIES: tuple(others)} if others else self.skipped
        return replace(self, candidates=kept, skipped=skipped)

    def of_component(self, component: str | None) -> "Scan":
        """The same where images that do not say what they are are of a component that no others are."""
        if component is None or any(c.component == component for c in self.candidates):
            return self

        def stated(candidate: Candidate) -> Candidate:
            if candidate.component != "magnitude" or any(image.component_is_stated for image in candidate.images):
                return candidate
            return replace(candidate, images=tuple(replace(image, component=component) for image in candidate.images))

        return replace(self, candidates=tuple(map(stated, self.candidates)))


def _has_name(candidate: Candidate, name: str) -> bool:
    """Whether a series has this number, BIDS name or (beginning of a) UID; a number never is that of a UID."""
    if "." in name:
        return any(uid.startswith(name) for uid in candidate.series_uids)
    return name in (str(candidate.first.series_number), str(candidate.first.bids))


def in_brackets(skipped: Mapping[str, Sequence[str]]) -> str:
    """' (passed over: 3 not DICOM, 1 empty file)', or nothing."""
    counts = ", ".join(f"{len(names)} {reason}" for reason, names in sorted(skipped.items()))
    return f" (passed over: {counts})" if counts else ""


def listed(candidates: Sequence[Candidate]) -> str:
    """Candidates in print, six at most."""
    text = "; ".join(map(str, candidates[:6]))
    return text if len(candidates) <= 6 else f"{text} and {len(candidates) - 6} more"


def at(axis: Axis, *values: float) -> str:
    """Values of what varies in print: "TE 5 ms"."""
    return f"{axis.symbol} {axis.described(values)}"


def words(value: Any) -> tuple[str, ...]:
    """The words of a value that may be one or several, upper case."""
    several = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else []
    return tuple(str(word).strip().upper() for word in several)


def codes(value: Any) -> tuple[str, ...]:
    """The same of codes that some programs write as one word: SP_OSP."""
    return words(re.split(r"[\\_ ]+", value) if isinstance(value, str) else value)


def number(value: Any) -> float | None:
    """The (first) number in a value of a header, or None."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def only_number(value: Any) -> float | None:
    """The same; None where there are several different ones."""
    several = isinstance(value, Sequence) and not isinstance(value, str) and len({*map(number, value)}) > 1
    return None if several else number(value)


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} ... {high:g}"
