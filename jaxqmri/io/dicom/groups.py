"""Frames that belong together: grouped by series, component and geometry, each group a candidate."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...quantities import Axis
from ..candidates import Candidate, number
from ..protocol import owners_differ, random_frames_of_reference
from ..series import COMPONENTS
from .enhanced import is_enhanced
from .geometry import Slices, slice_distance, slice_index
from .header import FARTHEST, SMALLEST, Frame


def candidates(frames: Sequence[Frame], axis: Axis) -> tuple[Candidate, ...]:
    """Groups frames in any order into candidates along an axis, by series number and component."""
    found = [_candidate(part, axis) for group in _group(frames) for part in _maps_apart(group)]
    return tuple(
        sorted(found, key=lambda c: (c.first.series_number or 0, COMPONENTS.index(c.component), tie(c.images[0])))
    )


def tie(frame: Frame) -> tuple:
    """An order that renaming and moving files does not change."""
    timed = bool(number(frame.header("EchoTime")))
    return frame.series_number or 0, frame.instance_number or 0, frame.uid, *frame.position, timed, frame.name


def thickness(frame: Frame) -> float:
    """Extent of a lone slice along its normal [mm]; 1 where the file does not say."""
    extents = (abs(number(frame.header(keyword)) or 0) for keyword in ("SpacingBetweenSlices", "SliceThickness"))
    return next((extent for extent in extents if SMALLEST <= extent <= FARTHEST), 1.0)


def _group(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of one patient, series, component, matrix, pixel spacing and orientation belong together."""
    alike: dict[tuple, list[list[Frame]]] = defaultdict(list)
    of_series: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        of_series[frame.series_uid].append(frame)
    random = {uid: random_frames_of_reference(members) for uid, members in of_series.items()}
    for frame in sorted(frames, key=tie):
        spacing = np.round(frame.pixel_spacing, 4).tobytes()
        key = (
            frame.series_uid, is_enhanced(frame.dataset), frame.component, frame.derived, frame.shape, spacing
        )  # fmt: skip
        for group in alike[key]:
            parallel = np.allclose(group[0].orientation, frame.orientation, rtol=0, atol=1e-3)
            if parallel and not owners_differ(group[0], frame, disregard=random[frame.series_uid]):
                group.append(frame)
                break
        else:
            alike[key].append([frame])
    return [group for groups in alike.values() for group in groups]


def _maps_apart(frames: list[Frame]) -> list[list[Frame]]:
    """Takes a full volume at TE 0 out of a group with other echo times: scanners put field maps there."""
    at_0 = [frame for frame in frames if number(frame.header("EchoTime")) == 0]
    images = [frame for frame in frames if number(frame.header("EchoTime")) != 0]
    if not at_0 or len({number(frame.header("EchoTime")) for frame in images}) < 2:
        return [frames]
    slices = slice_index(np.array([frame.position for frame in at_0 + images]), frames[0].orientation)
    if sorted(slices[: len(at_0)]) != list(range(max(slices) + 1)):
        return [frames]
    return [images, [replace(frame, derived=True) for frame in at_0]]


def _candidate(frames: list[Frame], axis: Axis) -> Candidate:
    first, positions = frames[0], np.array([frame.position for frame in frames])
    slices = slice_index(positions, first.orientation)
    _, lowest = np.unique(slices, return_index=True)
    dy, dx = first.pixel_spacing
    return Candidate(
        images=tuple(frames),
        slices=slices,
        shape=(first.shape[1], first.shape[0]),
        n_slices=len(lowest),
        voxel_size=(dx, dy, slice_distance(positions, first.orientation, thickness(first))),
        grid=Slices(positions[lowest], first.orientation, first.pixel_spacing),
        names=tuple(frame.name for frame in frames),
        axis=axis,
        is_enhanced=is_enhanced(first.dataset),
    ).along(axis)
