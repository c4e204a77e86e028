"""What a scan of files found: candidates, each the images of one series, component and grid that could be fitted.

The readers of DICOM and NIfTI files fill them from headers alone and load the pixels of the one that is chosen; which
one that is, `choose` says for both.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import MetadataError, UsageError
from ..quantities import Axis
from .bids.names import BidsName

OTHER_SERIES = "images of other series"


@dataclass(frozen=True, eq=False, kw_only=True)
class Image(ABC):
    """One stored image, a slice in a DICOM file or a volume in a NIfTI file, as the choice sees it.

    Attributes:
        name: of its file, without folders, for messages.
        uid: what tells it from other images, but not from copies of itself.
        series_uid: Series Instance UID; "" where unknown.
        series_number: the scanner's number of the series.
        description: the series' own name for itself, in one line.
        bids: what BIDS calls the series, where files have such names.
        component: "magnitude", "phase", "real", "imaginary" or, never fitted, "derived map".
        derived: computed from other images, not measured.
        listed: its place in the caller's list of files, where that order means something.
    """

    name: str
    uid: str
    series_uid: str
    series_number: int | str | None
    description: str
    bids: BidsName | None = None
    component: str
    derived: bool
    listed: int | None = None

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

    @property
    @abstractmethod
    def scaling(self) -> tuple[float, float, float | None]:
        """Slope and intercept from stored to displayed values; Philips' scale slope or None."""

    @property
    @abstractmethod
    def repetition_time(self) -> float | None:
        """[s]"""

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
    """Images of one series and component on one grid.

    Attributes:
        images: in an order that does not depend on file names.
        slices: (image,) int, the slice each belongs to, counted along the normal; 0 for whole volumes.
        shape: the first two axes of the volume.
        n_slices: the third.
        voxel_size: along x, y, z [mm].
        grid: where the voxels lie; `grid.same_as(other)` says whether others lie there.
        names: what it is counted by: images of DICOM, files of NIfTI.
        is_enhanced: whether the images come from Enhanced MR files.
        axis: what is to vary.
        each: (image,) value of it [s] or [rad], NaN where there is none.
        value_error: why its values cannot be used, or None.
        is_given: the values come from the caller.
        parts: the candidates it was joined from.
    """

    images: tuple[Any, ...]
    slices: np.ndarray
    shape: tuple[int, int]
    n_slices: int
    voxel_size: tuple[float, float, float]
    grid: Any
    names: tuple[str, ...]
    axis: Axis
    is_enhanced: bool = False
    each: tuple[float, ...] = ()
    value_error: MetadataError | UsageError | None = None
    is_given: bool = False
    parts: tuple["Candidate", ...] = ()

    def along(self, axis: Axis) -> "Candidate":
        """The same images with what their headers say of an axis."""
        found, error = [], None
        for image in self.images:
            try:
                found.append(image.value_of(axis))
            except MetadataError as why:
                found.append(np.nan)
                error = error or why
        return replace(self, axis=axis, each=tuple(found), value_error=error, is_given=False)

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
    def derived(self) -> bool:
        return self.first.derived

    @property
    def series_number(self) -> int | str | None:
        return self.first.series_number

    @property
    def numbers(self) -> tuple[int | str, ...]:
        """The numbers of its series: several where series of one value each were joined."""
        return tuple(dict.fromkeys(i.series_number for i in self.images if i.series_number is not None))

    @property
    def series_uids(self) -> tuple[str, ...]:
        """Their Series Instance UIDs, sorted."""
        return tuple(sorted({image.series_uid for image in self.images} - {""}))

    @property
    def is_identified(self) -> bool:
        """Whether anything tells what series it is of."""
        return bool(self.series_uids or self.numbers or self.first.description or self.first.bids)

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
        return self.derived and at_0 and "DERIVED" not in self.first.image_type[:1]

    @property
    def one_each(self) -> dict[tuple[int, float], Any]:
        """Slice and value -> the first image of them; others are its copies."""
        found: dict[tuple[int, float], Any] = {}
        for place, image in zip(zip(self.slices.tolist(), self.each, strict=True), self.images, strict=True):
            found.setdefault(place, image)
        return found

    @property
    def repetition_times(self) -> tuple[float, ...]:
        """Different repetition times, ascending [s]."""
        return tuple(sorted({image.repetition_time for image in self.images if image.repetition_time}))

    @property
    def scaling(self) -> str:
        """How stored values become image values, in words."""
        slopes, intercepts, scale_slopes = zip(*(image.scaling for image in self.images), strict=True)
        text = f"slope {_span(slopes)}, intercept {_span(intercepts)}"
        return text if None in scale_slopes else f"{text}, Philips scale slope {_span(scale_slopes)}"

    @property
    def missing(self) -> tuple[tuple[int, float], ...]:
        """Slices, from 0, and values that have no image although other slices or values do; by slice."""
        there = set(zip(self.slices.tolist(), self.each, strict=True))
        return tuple((k, v) for k in range(int(self.slices.max()) + 1) for v in self.values if (k, v) not in there)

    def lacking(self, most: int = 4) -> str:
        """Words for `missing`, e.g. "slice 7 of 36 lacks TE 9.2 ms", or nothing; no more than `most` slices."""
        lacks: dict[int, list[float]] = defaultdict(list)
        for k, value in self.missing:
            lacks[k].append(value)
        named = [
            f"slice {k + 1} of {self.n_slices} lacks {at(self.axis, *values)}"
            for k, values in list(lacks.items())[:most]
        ]
        more = len(lacks) - len(named)
        return ", ".join(named) + (f" and {more} more slices lack images" if more else "")

    def __str__(self) -> str:
        axis, n = self.axis, len(self.values)
        values = f"1 {axis.one}" if n == 1 else f"{n} {axis.many}"
        if self.value_error:
            values = f"no usable {axis.terms}"
        elif self.is_constant:
            values = f"{axis.symbol} {axis.described(self.values * self.images_per_slice[1])}"
        number = "without number" if self.series_number is None else self.series_number
        name = self.first.bids or f"series {number} '{self.first.description}'"
        return f"{name} ({self.component}, {values}, {'x'.join(map(str, (*self.shape, self.n_slices)))})"


Index = tuple[slice | int, ...]


class Reader(NamedTuple):
    """What is particular to one file format.

    Attributes:
        source_format: its name.
        refusal: why a scan without a candidate of the wanted component cannot be fitted, or None: nothing particular.
        check: raises, or remarks, where the images of a candidate do not belong together.
        affine: (4, 4) voxel index -> RAS+ [mm].
        load: of each image its place in (x, y, z, n), its values and whether those are at the top of their range.
        physics: key of BIDS -> keyword of the files, and what turns their unit into that of BIDS.
        radians: of each image the angle per loaded value [rad], None where it is not declared; for phase images.
        identity: whose images they are, or None.
    """

    source_format: str
    refusal: Callable[["Scan"], Exception | None]
    check: Callable[["Scan", Candidate], None]
    affine: Callable[[Candidate], np.ndarray]
    load: Callable[[Candidate], Generator[tuple[Index, np.ndarray, np.ndarray], None, None]]
    physics: Mapping[str, tuple[str, float]]
    radians: Callable[[Candidate], Sequence[float | None]]
    identity: Callable[[Candidate], Any]


@dataclass(frozen=True, eq=False)
class Scan:
    """What was found.

    Attributes:
        source: what was scanned, for messages.
        candidates: by series number, or in the order of their files.
        skipped: reason -> names of the images, and of the files that hold none, passed over for it.
        axis: what is to vary.
        given: (n,) values of it that the caller gave [s] or [rad], or None.
        reader: of the files.
    """

    source: str
    candidates: tuple[Candidate, ...]
    skipped: Mapping[str, tuple[str, ...]]
    axis: Axis
    given: np.ndarray | None
    reader: Reader

    def along(self, axis: Axis) -> "Scan":
        """The same files where something else is to vary."""
        if axis is self.axis:
            return self
        return replace(self, candidates=tuple(c.along(axis) for c in self.candidates), axis=axis, given=None)

    def of_series(self, series: int | str | Sequence[int | str]) -> "Scan":
        """The same as if only some series were there; all of them if none is named.

        Args:
            series: Series Number (0020,0011), BIDS name, or Series Instance UID (0020,000E) or how it begins; one or
                several.

        Raises:
            UsageError: there is no such series.
        """
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


def _has_name(candidate: Candidate, name: str) -> bool:
    """Whether a series is called so; a number never is the beginning of a UID."""
    if "." in name:
        return any(uid.startswith(name) for uid in candidate.series_uids)
    return name in (str(candidate.series_number), str(candidate.first.bids))


def in_brackets(skipped: Mapping[str, Sequence[str]]) -> str:
    """' (passed over: 3 not DICOM, 1 empty file)', or nothing."""
    counts = ", ".join(f"{len(names)} {reason}" for reason, names in sorted(skipped.items()))
    return f" (passed over: {counts})" if counts else ""


def listed(candidates: Sequence[Candidate], most: int = 6) -> str:
    """Candidates in print."""
    text = "; ".join(map(str, candidates[:most]))
    return text if len(candidates) <= most else f"{text} and {len(candidates) - most} more"


def at(axis: Axis, *values: float) -> str:
    """Values of what varies in print: "TE 5 ms"."""
    return f"{axis.symbol} {axis.listed(values)} {axis.shown_unit}"


def words(value: Any) -> tuple[str, ...]:
    """The words of a value that may be one or several, upper case."""
    several = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else []
    return tuple(str(word).strip().upper() for word in several)


def number(value: Any) -> float | None:
    """The (first) number in a value of a header, or None."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} ... {high:g}"
