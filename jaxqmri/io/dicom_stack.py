"""Images that belong together: grouped by series, component and geometry, with their slices and echo times."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import dicom_header as header
from .dicom_geometry import SAME_SLICE, slice_distance, slice_index
from .dicom_header import Frame
from .errors import MetadataError, UsageError

_COMPONENTS = ("magnitude", "phase", "real", "imaginary")


@dataclass(frozen=True, eq=False)
class Stack:
    """Images of one component that share matrix, pixel spacing and orientation: a candidate for fitting.

    Attributes:
        frames: its images, in an order that does not depend on file names.
        slices: (image,) int, the slice each image belongs to, counted along the normal.
        te: its different echo times, ascending [s].
        te_error: why its echo times cannot be used, or None.
        te_given: the echo times come from the caller.
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
    te: tuple[float, ...]
    te_error: MetadataError | None
    te_given: bool
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
        """Series Instance UIDs (0020,000E): several where series of one echo each were joined."""
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
    def images_per_slice(self) -> tuple[int, int]:
        """Fewest and most images of any slice."""
        counts = np.bincount(self.slices)
        return int(counts.min()), int(counts.max())

    def __str__(self) -> str:
        number = "?" if self.series_number is None else self.series_number
        columns, rows = self.shape
        echoes = "1 echo" if len(self.te) == 1 else f"{len(self.te)} echoes"
        if self.te_error:
            echoes = "no usable echo times"
        return f"series {number} '{self.description}' ({self.component}, {echoes}, {columns}x{rows}x{self.n_slices})"


def find_stacks(frames: Iterable[Frame], te: np.ndarray | None = None) -> tuple[Stack, ...]:
    """Groups images into stacks, by series number.

    Args:
        frames: images in any order.
        te: (echo,) echo times that replace those in the headers [s], or None.

    Raises:
        UsageError: the images of a slice cannot be put in order for `te`.
    """
    stacks = [_stack(group, te) for group in _join_single_echoes(_group(frames), te)]
    return tuple(
        sorted(stacks, key=lambda s: (s.series_number or 0, _COMPONENTS.index(s.component), _tie(s.frames[0])))
    )


def _group(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Frames of one series, component, matrix, pixel spacing and orientation belong together."""
    alike: dict[tuple, list[list[Frame]]] = defaultdict(list)
    for frame in sorted(frames, key=_tie):
        key = (
            frame.series_uid,
            frame.component,
            frame.derived,
            frame.shape,
            np.round(frame.pixel_spacing, 4).tobytes(),
        )
        for group in alike[key]:
            if _parallel(group[0], frame):
                group.append(frame)
                break
        else:
            alike[key].append([frame])
    return [group for groups in alike.values() for group in groups]


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
        frame.te_error is None,
        frame.name,
    )


def _join_single_echoes(groups: list[list[Frame]], te: np.ndarray | None) -> list[list[Frame]]:
    """Joins series that are one echo each of the same slices: some scanners export every echo as a series."""
    families: list[list[list[Frame]]] = []
    for group in groups:
        for family in families:
            if _same_but_for_te(family[0], group):
                family.append(group)
                break
        else:
            families.append([group])
    joined: list[list[Frame]] = []
    for family in families:
        echo_times = {frame.te for group in family for frame in group}
        complete = len(echo_times) == len(family) and not any(f.te_error for group in family for f in group)
        if len(family) > 1 and (complete if te is None else len(family) == len(te)):
            joined.append([frame for group in family for frame in group])
        else:
            joined.extend(family)
    return joined


def _same_but_for_te(a: list[Frame], b: list[Frame]) -> bool:
    """Whether two groups differ in series and echo time only, with one image per slice each."""
    first, second = a[0], b[0]
    if (
        first.series_uid == second.series_uid
        or (first.component, first.derived, first.shape) != (second.component, second.derived, second.shape)
        or len(a) != len(b)
        or not np.allclose(first.pixel_spacing, second.pixel_spacing, rtol=1e-4)
        or not _parallel(first, second)
        or _contrast(first) != _contrast(second)
    ):
        return False
    places = [_places(group) for group in (a, b)]
    single = all(len(np.unique(slice_index(p, first.orientation))) == len(a) for p in places)
    return single and np.allclose(*places, rtol=0, atol=SAME_SLICE)


def _places(frames: Sequence[Frame]) -> np.ndarray:
    """(image, 3) positions, ascending along the normal."""
    positions = np.array([frame.position for frame in frames])
    return positions[np.argsort(slice_index(positions, frames[0].orientation), kind="stable")]


def _contrast(frame: Frame) -> tuple:
    """What two series of one measurement share: timing, flip angle, and the description but for its numbers."""
    physics = [header.as_float(frame.dataset.get(tag)) for tag in ("RepetitionTime", "FlipAngle", "InversionTime")]
    return (*physics, re.sub(r"[\d.,]+", "#", _description(frame)).lower())


def _description(frame: Frame) -> str:
    return " ".join(str(frame.dataset.get("SeriesDescription") or "").split())  # one line, whatever the file holds


def _stack(frames: list[Frame], te: np.ndarray | None) -> Stack:
    first = frames[0]
    positions = np.array([frame.position for frame in frames])
    slices = slice_index(positions, first.orientation)
    counts = np.bincount(slices)
    te_given = te is not None and bool(np.all(counts == len(te)))
    if te is not None and te_given:
        frames = _with_echo_times(frames, slices, te)
    dy, dx = first.pixel_spacing
    rows, columns = first.shape
    return Stack(
        frames=tuple(frames),
        slices=slices,
        te=tuple(sorted({frame.te for frame in frames if frame.te_error is None})),
        te_error=next((frame.te_error for frame in frames if frame.te_error), None),
        te_given=te_given,
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


def _with_echo_times(frames: list[Frame], slices: np.ndarray, te: np.ndarray) -> list[Frame]:
    """Gives each image of a slice its echo time, in the order the scanner numbered them."""
    keys = ["series_number"] if len({frame.series_uid for frame in frames}) > 1 else ["echo_number", "instance_number"]
    for key in keys:
        numbers = [getattr(frame, key) for frame in frames]
        if None in numbers or len(set(zip(slices.tolist(), numbers, strict=True))) < len(frames):
            continue
        order = np.lexsort((numbers, slices))
        rank = np.empty(len(frames), int)
        rank[order] = np.arange(len(frames)) % len(te)  # every slice holds len(te) images
        return [replace(f, te=float(te[r]), te_error=None) for f, r in zip(frames, rank, strict=True)]
    raise UsageError(
        "the given echo times cannot be matched to the images: neither EchoNumbers (0018,0086) nor InstanceNumber "
        "(0020,0013) tells the images of a slice apart. Put exactly one image per slice and echo in the folder."
    )


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} ... {high:g}"
