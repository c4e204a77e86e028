"""Slices of volumes as pictures on a page: one indexed PNG per sheet of slices; words stand in the HTML over it.

Slices are shown in radiological convention, whatever order the file stores its voxels in: the patient's right (in a
sagittal slice, anterior) on the left, anterior or superior on top. A figure of matplotlib with one image takes 0.1 s
and 50 kB, such a sheet 5 ms and 10 kB, so only plots with axes and the picture beside the report are left to it.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.orientations import aff2axcodes
from PIL import Image

_PLANES = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}
_MIN_THICKNESS = 4  # voxels; a picture of fewer rows is a stripe
_MARGIN = 2  # voxels around the box of all values
_GAP = 3  # pixels between slices


@dataclass(frozen=True)
class View:
    """How a stored slice (axis 0, axis 1) becomes a picture, its first row on top."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool
    pixel_aspect: float  # height / width
    letters: tuple[str, str, str, str]  # the patient's side at the left, right, top, bottom edge

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        picture = stored.T if self.transpose else stored
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def radiological_view(affine: np.ndarray) -> View:
    """The radiological view of slices `volume[:, :, k]`.

    Args:
        affine: (4, 4) voxel index -> RAS+ [mm].

    Raises:
        ValueError: the affine is singular.
    """
    codes = aff2axcodes(affine)
    if None in codes:
        raise ValueError(
            f"affine is singular, so left and right cannot be told; its 3 x 3 part is {affine[:3, :3].tolist()}."
        )
    rank = ["RL", "AP", "SI"]
    order = [next(i for i, pair in enumerate(rank) if code in pair) for code in codes[:2]]
    rows = int(order[1] > order[0])
    top, left = rank[order[rows]], rank[order[1 - rows]]
    top = top if top[0] in "AS" else top[::-1]
    size = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    return View(
        transpose=rows == 1,
        flip_rows=codes[rows] == top[0],  # picture rows count from the top
        flip_columns=codes[1 - rows] == left[0],
        pixel_aspect=float(size[rows] / size[1 - rows]),
        letters=(left[0], left[1], top[0], top[1]),
    )


def fullest_slice(filled: np.ndarray) -> int:
    """Index of the slice (last axis) with most filled voxels; ties go to the one nearest to the middle."""
    counts = np.count_nonzero(filled, axis=(0, 1))
    best = np.flatnonzero(counts == counts.max())
    return int(best[np.argmin(np.abs(best - (len(counts) - 1) / 2))])


@dataclass(frozen=True)
class Sheet:
    """Slices side by side, row by row, in one PNG file."""

    plane: str  # "axial", "coronal" or "sagittal"; an oblique one has the name of the nearest
    axis: str  # the voxel axis across the slices, "x", "y" or "z"
    positions: tuple[int, ...]  # voxel index of each slice along that axis
    letters: tuple[str, str, str, str]  # the patient's side at the left, right, top and bottom edge of a slice
    png: bytes
    width: int  # pixels
    height: int
    tile: tuple[float, float]  # width and height of a slice [% of the sheet]
    places: tuple[tuple[float, float], ...]  # left and top of each slice [% of the sheet]


def slice_sheet(
    indices: np.ndarray,
    palette: bytes,
    affine: np.ndarray,
    *,
    axis: int = 2,
    chosen: Sequence[int] | np.ndarray | None = None,
    widest: int = 480,
    proportion: float = 1.7,
) -> Sheet:
    """The chosen slices (None: all) across a voxel axis, reduced where their sheet would be wider than `widest` pixels.

    `indices` (x, y, z) uint8 are entries of the palette, RGB bytes of up to 256 colours, whose first fills the gaps.
    The sheet comes near to the proportion width / height. A singular affine is a ValueError.
    """
    order = [other for other in range(3) if other != axis] + [axis]
    view = radiological_view(np.column_stack([affine[:, order], affine[:, 3]]))
    volume = indices.transpose(order)
    chosen = np.arange(volume.shape[2]) if chosen is None else np.asarray(chosen)
    rows, columns = view(volume[:, :, 0]).shape
    shape = rows * view.pixel_aspect / columns  # height / width in space
    across = _columns_of_sheet(len(chosen), shape, proportion)
    width = max(min(widest // across, max(columns, round(columns / view.pixel_aspect))), 1)
    height = max(round(width * shape), 1)
    down = math.ceil(len(chosen) / across)
    sheet = np.zeros((down * (height + _GAP) - _GAP, across * (width + _GAP) - _GAP), np.uint8)
    corners = [(i // across * (height + _GAP), i % across * (width + _GAP)) for i in range(len(chosen))]
    for (row, column), k in zip(corners, chosen, strict=True):
        sheet[row : row + height, column : column + width] = _resized(view(volume[:, :, k]), height, width)
    percent = 100 / sheet.shape[1], 100 / sheet.shape[0]
    return Sheet(
        plane=_PLANES[str(aff2axcodes(affine)[axis])],
        axis="xyz"[axis],
        positions=tuple(chosen.tolist()),
        letters=view.letters,
        png=_indexed_png(sheet, palette),
        width=sheet.shape[1],
        height=sheet.shape[0],
        tile=(width * percent[0], height * percent[1]),
        places=tuple((column * percent[0], row * percent[1]) for row, column in corners),
    )


def plane_sheets(indices: np.ndarray, palette: bytes, affine: np.ndarray, *, max_slices: int = 9) -> list[Sheet]:
    """Axial, coronal and sagittal slices through the part of a volume that has values, as far as it is thick enough.

    See `slice_sheet`; entry 0 stands for "no value". At most `max_slices` are on a sheet, evenly spread.
    """
    radiological_view(affine)  # refuses a singular affine, also where there is nothing to draw
    thick = [n >= _MIN_THICKNESS for n in indices.shape]
    axes = [axis for axis in range(3) if indices.shape[axis] > 1 and all(thick[:axis] + thick[axis + 1 :])]
    box = [slice(None)] * 3
    for axis in range(3):
        filled = np.flatnonzero(indices.any(axis=tuple(other for other in range(3) if other != axis)))
        if filled.size:
            box[axis] = slice(max(int(filled[0]) - _MARGIN, 0), int(filled[-1]) + 1 + _MARGIN)
    sheets = []
    for axis in axes:
        first, end, _ = box[axis].indices(indices.shape[axis])
        n = min(end - first, max_slices)
        # The middles of equal parts: the outermost slices of a body show next to nothing.
        chosen = np.unique(first + ((np.arange(n) + 0.5) * (end - first) / n).astype(int))
        part = indices[tuple(slice(None) if other == axis else box[other] for other in range(3))]
        sheets.append(slice_sheet(part, palette, affine, axis=axis, chosen=chosen, proportion=1.3))
    return sorted(sheets, key=lambda sheet: sheet.plane)


def _columns_of_sheet(n: int, shape: float, proportion: float) -> int:
    """How many pictures of height / width `shape` go in a row: near to the wanted proportion, few places empty."""

    def cost(across: int) -> float:
        down = math.ceil(n / across)
        return abs(math.log(across / (down * shape) / proportion)) + (across * down - n) / n

    return min(range(1, n + 1), key=cost)


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Values repeated or left out, never blended: a blend of two tissues would be a value nobody measured."""
    rows, columns = (
        ((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip((height, width), picture.shape, strict=True)
    )
    return picture[rows][:, columns]


def _indexed_png(indices: np.ndarray, palette: bytes) -> bytes:
    picture = Image.fromarray(indices)
    picture.putpalette(palette)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
