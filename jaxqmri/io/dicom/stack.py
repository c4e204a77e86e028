"""Images that belong together: grouped by series, component and geometry, with their slices and what varies."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import MetadataError, UsageError
from ...quantities import ECHO_TIME, Axis
from ..series import COMPONENTS
from . import header
from .enhanced import is_enhanced
from .geometry import SAME_SLICE, slice_distance, slice_index
from .header import Frame

ROUNDING = 1e-3  # of a time or an angle; scanners print the same one with more or fewer digits


@dataclass(frozen=True, eq=False)
class Stack:
    """Images of one component that share matrix, pixel spacing and orientation: a candidate for fitting.

    Attributes:
        frames: its images, in an order that does not depend on file names.
        slices: (image,) int, the slice each image belongs to, counted along the normal.
        axis: what is to vary: echo time, inversion time or flip angle.
        values: its different values, ascending [s] or [rad].
        value_error: why its values cannot be used, or None.
        is_given: the values come from the caller.
        series_number: Series Number (0020,0011) of its first image.
        description: Series Description (0008,103E).
        component: "magnitude", "phase", "real" or "imaginary".
        derived: computed from other images, not measured.
        image_type: Image Type (0008,0008).
        shape: columns, rows: the first two axes of the volume.
        n_slices: number of slices.
        voxel_size: along x, y, z [mm].
    """

    frames: tuple[Frame, ...]
    slices: np.ndarray
    axis: Axis
    values: tuple[float, ...]
    value_error: MetadataError | None
    is_given: bool
    series_number: int | None
    description: str
    component: str
    derived: bool
    image_type: tuple[str, ...]
    shape: tuple[int, int]
    n_slices: int
    voxel_size: tuple[float, float, float]

    @property
    def series_uids(self) -> frozenset[str]:
        """Series Instance UIDs (0020,000E): several where series of one value each were joined."""
        return frozenset(frame.series_uid for frame in self.frames)

    @property
    def scaling(self) -> str:
        """How stored values become image values, in words."""
        slopes, intercepts = zip(*(header.rescale(frame.dataset) for frame in self.frames), strict=True)
        text = f"slope {_span(slopes)}, intercept {_span(intercepts)}"
        scale_slopes = [header.philips_scale_slope(frame.dataset) for frame in self.frames]
        given = [scale for scale in scale_slopes if scale is not None]
        return f"{text}, Philips scale slope {_span(given)}" if len(given) == len(self.frames) else text

    @property
    def sequence(self) -> tuple[str, ...]:
        """Scanning Sequence (0018,0020): SE, GR, IR, EP."""
        value = self.frames[0].dataset.get("ScanningSequence") or ()
        return tuple(str(word).strip().upper() for word in ([value] if isinstance(value, str) else value))

    @property
    def repetition_times(self) -> tuple[float, ...]:
        """Different repetition times, ascending [s]."""
        found = {header.as_float(frame.dataset.get("RepetitionTime")) for frame in self.frames} - {None}
        return tuple(sorted(tr / 1e3 for tr in found if tr))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Series Numbers (0020,0011), ascending."""
        return tuple(sorted({frame.series_number for frame in self.frames if frame.series_number is not None}))

    @property
    def is_enhanced(self) -> bool:
        """Whether its images come from Enhanced MR files."""
        return is_enhanced(self.frames[0].dataset)

    @property
    def is_map_at_te_0(self) -> bool:
        """Whether it is a volume without echo time that came with images of other echo times."""
        return self.derived and all(map(_at_te_0, self.frames)) and not _says_derived(self.frames[0])

    @property
    def where(self) -> str:
        """Where its files have what varies."""
        return header.axis_where(self.frames[0].dataset, self.axis)

    @property
    def places(self) -> np.ndarray:
        """(slice, 3) Image Position (Patient) of the first image of each slice, LPS+ [mm]."""
        _, first = np.unique(self.slices, return_index=True)
        return np.array([self.frames[i].position for i in first])

    @property
    def missing(self) -> tuple[tuple[int, float], ...]:
        """Slices, from 0, and values that have no image although other slices or values do; by slice."""
        there = {(k, frame.value) for k, frame in zip(self.slices.tolist(), self.frames, strict=True)}
        return tuple((k, v) for k in range(self.n_slices) for v in self.values if (k, v) not in there)

    def lacking(self, most: int = 4) -> str:
        """Words for `missing`, e.g. "slice 7 of 36 lacks TE 9.2 ms", or nothing; no more than `most` slices."""
        lacks: dict[int, list[float]] = defaultdict(list)
        for k, value in self.missing:
            lacks[k].append(value)
        axis = self.axis
        named = [
            f"slice {k + 1} of {self.n_slices} lacks {axis.symbol} {axis.listed(values)} {axis.shown_unit}"
            for k, values in list(lacks.items())[:most]
        ]
        more = len(lacks) - len(named)
        return ", ".join(named) + (f" and {more} more slices lack images" if more else "")

    @property
    def images_per_slice(self) -> tuple[int, int]:
        """Fewest and most images of any slice."""
        counts = np.bincount(self.slices)
        return int(counts.min()), int(counts.max())

    def __str__(self) -> str:
        number = "?" if self.series_number is None else self.series_number
        columns, rows = self.shape
        values = f"1 {self.axis.one}" if len(self.values) == 1 else f"{len(self.values)} {self.axis.many}"
        if self.value_error:
            values = f"no usable {self.axis.terms}"
        return f"series {number} '{self.description}' ({self.component}, {values}, {columns}x{rows}x{self.n_slices})"


def find_stacks(frames: Iterable[Frame], given: np.ndarray | None = None, axis: Axis = ECHO_TIME) -> tuple[Stack, ...]:
    """Groups images into stacks, by series number.

    Args:
        frames: images in any order, all with this axis.
        given: (n,) values that replace those in the headers [s] or [rad], or None.
        axis: what is to vary.

    Raises:
        UsageError: the images of a slice cannot be put in order for `given`.
    """
    groups = [part for group in _group(frames) for part in _maps_apart(group)]
    stacks = [_stack(group, given, axis) for group in _join_single_values(groups, given, axis)]
    return tuple(sorted(stacks, key=lambda s: (s.series_number or 0, COMPONENTS.index(s.component), _tie(s.frames[0]))))


def _group(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Frames of one patient, series, component, matrix, pixel spacing and orientation belong together."""
    alike: dict[tuple, list[list[Frame]]] = defaultdict(list)
    for frame in sorted(frames, key=_tie):
        key = (
            frame.series_uid,
            is_enhanced(frame.dataset),
            frame.component,
            frame.derived,
            frame.shape,
            np.round(frame.pixel_spacing, 4).tobytes(),
        )
        for group in alike[key]:
            if _parallel(group[0], frame) and not owners_differ(group[0], frame):
                group.append(frame)
                break
        else:
            alike[key].append([frame])
    return [group for groups in alike.values() for group in groups]


def _maps_apart(frames: list[Frame]) -> list[list[Frame]]:
    """Takes a full volume at TE 0 out of a group with other echo times: scanners put field maps there."""
    at_0 = [frame for frame in frames if _at_te_0(frame)]
    images = [frame for frame in frames if not _at_te_0(frame)]
    if not at_0 or len({header.as_float(frame.dataset.get("EchoTime")) for frame in images}) < 2:
        return [frames]
    slices = slice_index(np.array([frame.position for frame in at_0 + images]), frames[0].orientation)
    if sorted(slices[: len(at_0)]) != list(range(max(slices) + 1)):
        return [frames]
    return [images, [replace(frame, derived=True) for frame in at_0]]


def _at_te_0(frame: Frame) -> bool:
    return header.as_float(frame.dataset.get("EchoTime")) == 0


def _says_derived(frame: Frame) -> bool:
    return "DERIVED" in header.image_type(frame.dataset)[:1]


def _parallel(a: Frame, b: Frame) -> bool:
    return np.allclose(a.orientation, b.orientation, rtol=0, atol=1e-3)


def _tie(frame: Frame) -> tuple:
    """An order that renaming and moving files does not change."""
    uid = str(frame.dataset.get("SOPInstanceUID", ""))
    return (
        frame.series_number or 0,
        frame.instance_number or 0,
        uid,
        *frame.position,
        frame.value_error is None,
        frame.name,
    )


def _join_single_values(groups: list[list[Frame]], given: np.ndarray | None, axis: Axis) -> list[list[Frame]]:
    """Joins series that are one value each of the same slices: many scanners make every echo, or TI, a series."""
    families: list[list[list[Frame]]] = []
    for group in groups:
        for family in families:
            if not _same_slices(family[0], group) or differences(family[0][0], group[0], axis):
                continue
            if not any(owners_differ(member[0], group[0]) for member in family):
                family.append(group)
                break
        else:
            families.append([group])
    joined: list[list[Frame]] = []
    for family in families:
        values = {frame.value for group in family for frame in group}
        complete = len(values) == len(family) and not any(f.value_error for group in family for f in group)
        if len(family) > 1 and (complete if given is None else len(family) == len(given)):
            joined.append([frame for group in family for frame in group])
        else:
            joined.extend(family)
    return joined


def _same_slices(a: list[Frame], b: list[Frame]) -> bool:
    """Whether two groups are different series of one image each of the same slices."""
    first, second = a[0], b[0]
    if (
        first.series_uid == second.series_uid
        or (first.component, first.derived, first.shape) != (second.component, second.derived, second.shape)
        or len(a) != len(b)
        or not np.allclose(first.pixel_spacing, second.pixel_spacing, rtol=1e-4)
        or not _parallel(first, second)
    ):
        return False
    places = [_places(group) for group in (a, b)]
    single = all(len(np.unique(slice_index(p, first.orientation))) == len(a) for p in places)
    return single and np.allclose(*places, rtol=0, atol=SAME_SLICE)


def _places(frames: Sequence[Frame]) -> np.ndarray:
    """(image, 3) positions, ascending along the normal."""
    positions = np.array([frame.position for frame in frames])
    return positions[np.argsort(slice_index(positions, frames[0].orientation), kind="stable")]


# Anonymisers blank these or give all patients the same: only different ones tell anything.
_OWNERS = {
    "PatientID": "the patient (PatientID (0010,0020))",
    "StudyInstanceUID": "the study (StudyInstanceUID (0020,000D))",
    "FrameOfReferenceUID": "the frame of reference (FrameOfReferenceUID (0020,0052))",
}
_TIMING = ("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle")


def differences(a: Frame, b: Frame, axis: Axis) -> list[str]:
    """In what two images that may belong to one measurement differ beside `axis`, e.g. "RepetitionTime 5.4 and 9".

    Whose images they are is not told, only that it differs.
    """
    found = owners_differ(a, b)
    for keyword in _TIMING:
        pair = [header.as_float(frame.dataset.get(keyword)) for frame in (a, b)]
        if keyword != axis.keyword and not _alike(*pair):
            first, second = ("none" if value is None else f"{value:g}" for value in pair)
            found.append(f"{keyword} {first} and {second}")
    # Echoes are told from other scans by their name as well, but for its numbers; TI or flip angles are often set, and
    # series named, by hand.
    if axis is ECHO_TIME and len({re.sub(r"[\d.,]+", "#", _description(frame)).lower() for frame in (a, b)}) > 1:
        found.append("SeriesDescription")
    return found


def owners_differ(a: Frame, b: Frame) -> list[str]:
    """In whose images they are two images differ; what either does not say is not held against them."""
    found = []
    for keyword, words in _OWNERS.items():
        first, second = (str(frame.dataset.get(keyword) or "").strip() for frame in (a, b))
        if first and second and first != second:
            found.append(words)
    return found


def _alike(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and abs(a - b) <= ROUNDING * abs(a))


def _description(frame: Frame) -> str:
    return " ".join(str(frame.dataset.get("SeriesDescription") or "").split())  # one line, whatever the file holds


def _stack(frames: list[Frame], given: np.ndarray | None, axis: Axis) -> Stack:
    first = frames[0]
    positions = np.array([frame.position for frame in frames])
    slices = slice_index(positions, first.orientation)
    counts = np.bincount(slices)
    is_given = given is not None and bool(np.all(counts == len(given)))
    if given is not None and is_given:
        frames = _with_values(frames, slices, given, axis)
    dy, dx = first.pixel_spacing
    rows, columns = first.shape
    return Stack(
        frames=tuple(frames),
        slices=slices,
        axis=axis,
        values=tuple(sorted({frame.value for frame in frames if frame.value_error is None})),
        value_error=next((frame.value_error for frame in frames if frame.value_error), None),
        is_given=is_given,
        series_number=first.series_number,
        description=_description(first),
        component=first.component,
        derived=first.derived,
        image_type=header.image_type(first.dataset),
        shape=(columns, rows),
        n_slices=len(counts),
        voxel_size=(dx, dy, slice_distance(positions, first.orientation, thickness(first))),
    )


def thickness(frame: Frame) -> float:
    """Extent of a lone slice along its normal [mm]; 1 where the file does not say."""
    for tag in ("SpacingBetweenSlices", "SliceThickness"):
        value = abs(header.as_float(frame.dataset.get(tag)) or 0)
        if value > 0:
            return value
    return 1.0


def _with_values(frames: list[Frame], slices: np.ndarray, given: np.ndarray, axis: Axis) -> list[Frame]:
    """Gives each image of a slice its value, in the order the scanner numbered them."""
    keys = ["echo_number", "instance_number"] if axis is ECHO_TIME else ["instance_number"]
    if len({frame.series_uid for frame in frames}) > 1:
        keys = ["series_number"]
    for key in keys:
        numbers = [getattr(frame, key) for frame in frames]
        if None in numbers or len(set(zip(slices.tolist(), numbers, strict=True))) < len(frames):
            continue
        order = np.lexsort((numbers, slices))
        rank = np.empty(len(frames), int)
        rank[order] = np.arange(len(frames)) % len(given)  # every slice holds len(given) images
        return [replace(f, value=float(given[r]), value_error=None) for f, r in zip(frames, rank, strict=True)]
    numbers_tried = "EchoNumbers (0018,0086) nor " if axis is ECHO_TIME else ""
    raise UsageError(
        f"the given {axis.terms} cannot be matched to the images: "
        f"{'neither ' if numbers_tried else 'no '}{numbers_tried}InstanceNumber (0020,0013) tells the images of a "
        f"slice apart. Put exactly one image per slice and {axis.one} in the folder."
    )


def at(axis: Axis, value: float) -> str:
    """A value of what varies in print: "TE 5 ms"."""
    return f"{axis.symbol} {axis.listed(value)} {axis.shown_unit}"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} ... {high:g}"
