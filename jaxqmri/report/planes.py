"""A map cut along the patient's three planes: bare pictures, in the colours of the map, that take no time to draw.

A report has three of them for every map. Matplotlib would need a second for those of one map and bytes that a page to
be mailed does not have; so these are indexed PNG files, and their words stand in the HTML around them.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_hex
from nibabel.orientations import aff2axcodes
from PIL import Image

from .colours import MapStyle, colour_map, colour_scale
from .drawing import radiological_view
from .mosaics import columns_of_sheet

_PLANES = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}
_THICK = 4  # voxels; less is a stripe, no picture
_MARGIN = 2  # voxels around the part that is shown
_GAP = 3  # pixels between pictures
_WIDEST = 480  # pixels of a sheet; its panel on the page is narrower
_N_COLOURS = 255  # the 256th is black, for "no value"


@dataclass(frozen=True)
class Sheet:
    """Cuts through a volume along one plane, row by row on one sheet.

    Attributes:
        plane: "axial", "coronal" or "sagittal"; an oblique one has the name of the nearest.
        axis: the voxel axis it is cut across, "x", "y" or "z".
        positions: voxel index of each cut along that axis.
        letters: the patient's side at the left, right, top and bottom of each picture.
        png: the sheet.
        width, height: its size [pixel].
    """

    plane: str
    axis: str
    positions: tuple[int, ...]
    letters: tuple[str, str, str, str]
    png: bytes
    width: int
    height: int


def plane_sheets(shown: np.ndarray, style: MapStyle, affine: np.ndarray, *, max_cuts: int = 9) -> list[Sheet]:
    """Cuts evenly spread over the part of a map that has values, which alone is shown.

    Args:
        shown: (x, y, z) in displayed units, NaN where there is no value; see `colours.displayed`.
        style: how the map is shown.
        affine: (4, 4) voxel index -> RAS+ [mm].
        max_cuts: at most so many pictures on a sheet.

    Returns:
        Axial, coronal and sagittal cuts, as far as the volume is thick enough for a picture.

    Raises:
        ValueError: the affine is singular.
    """
    radiological_view(affine)  # refuses a singular affine
    thick = [n >= _THICK for n in shown.shape]
    cuts = [cut for cut in range(3) if shown.shape[cut] > 1 and all(thick[:cut] + thick[cut + 1 :])]
    part, first = _part_with_values(shown)
    indices = _palette_indices(part, shown, style)
    found = [_sheet(indices, first[cut], cut, style, affine, max_cuts) for cut in cuts]
    return sorted(found, key=lambda sheet: sheet.plane)


def colour_stops(style: MapStyle, n: int = 17) -> list[str]:
    """`n` evenly spaced colours of the scale of a map, low end first, as #rrggbb."""
    return [to_hex(colour) for colour in colour_map(style.table, style.reverse)(np.linspace(0, 1, n))]


def _part_with_values(shown: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The smallest box around all values with a margin, and its first voxel; everything where there are none."""
    valid = np.isfinite(shown)
    box, first = [], []
    for axis in range(3):
        there = np.flatnonzero(valid.any(axis=tuple(other for other in range(3) if other != axis)))
        low, high = (there[0], there[-1]) if there.size else (0, shown.shape[axis] - 1)
        first.append(max(int(low) - _MARGIN, 0))
        box.append(slice(first[-1], int(high) + 1 + _MARGIN))
    return shown[tuple(box)], first


def _palette_indices(part: np.ndarray, shown: np.ndarray, style: MapStyle) -> np.ndarray:
    """0 where there is no value, 1 to 255 along the colours; a scale that follows the values is that of all of them."""
    # Flat, because matplotlib's own scales take no volumes.
    position = np.ma.filled(colour_scale(shown, style)(np.nan_to_num(part).ravel()), 0.0).reshape(part.shape)
    return np.where(np.isfinite(part), 1 + np.clip(position * _N_COLOURS, 0, _N_COLOURS - 1), 0).astype(np.uint8)


def _sheet(indices: np.ndarray, first: int, cut: int, style: MapStyle, affine: np.ndarray, max_cuts: int) -> Sheet:
    order = [axis for axis in range(3) if axis != cut] + [cut]
    view = radiological_view(np.column_stack([affine[:, order], affine[:, 3]]))
    volume = indices.transpose(order)
    n = min(volume.shape[2], max_cuts)
    # The middles of equal parts: the outermost cuts of a body show next to nothing.
    chosen = np.unique(((np.arange(n) + 0.5) * volume.shape[2] / n).astype(int))
    rows, columns = view(volume[:, :, 0]).shape
    shape = rows * view.pixel_aspect / columns  # height / width in space
    across = columns_of_sheet(len(chosen), shape, wanted=1.3)
    width = min(_WIDEST // across, max(columns, round(columns / view.pixel_aspect)))
    size = max(round(width * shape), 1), width
    down = math.ceil(len(chosen) / across)
    sheet = np.zeros((down * (size[0] + _GAP) - _GAP, across * (size[1] + _GAP) - _GAP), np.uint8)
    for i, k in enumerate(chosen):
        row, column = i // across * (size[0] + _GAP), i % across * (size[1] + _GAP)
        sheet[row : row + size[0], column : column + size[1]] = _resized(view(volume[:, :, k]), *size)
    plane = _PLANES[str(aff2axcodes(affine)[cut])]
    png = _indexed_png(sheet, style)
    return Sheet(plane, "xyz"[cut], tuple((chosen + first).tolist()), view.letters, png, sheet.shape[1], sheet.shape[0])


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Values repeated or left out, never blended: a blend of two tissues would be a value nobody measured."""
    rows, columns = (
        ((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip((height, width), picture.shape, strict=True)
    )
    return picture[rows][:, columns]


def _indexed_png(indices: np.ndarray, style: MapStyle) -> bytes:
    table = colour_map(style.table, style.reverse)(np.linspace(0, 1, _N_COLOURS), bytes=True)[:, :3]
    picture = Image.fromarray(indices)
    picture.putpalette(bytes(3) + table.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
