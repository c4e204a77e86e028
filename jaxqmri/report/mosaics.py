"""Many slices of one map, or one slice of many images, on one sheet under one colour scale."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from .colours import MapStyle, displayed, map_style
from .drawing import (
    LABEL_BOX,
    View,
    axes_at,
    blank_figure,
    colours_of,
    draw_colour_bar,
    draw_letters,
    draw_picture,
    draw_title,
    panel_size,
    radiological_view,
)


def columns_of_sheet(n: int, shape: float, wanted: float = 1.7) -> int:
    """How many pictures of height / width `shape` go in a row: a sheet `wanted` times as wide as high, few gaps."""

    def cost(across: int) -> float:
        down = math.ceil(n / across)
        return abs(math.log(across / (down * shape) / wanted)) + (across * down - n) / n

    return min(range(1, n + 1), key=cost)


def _montage_figure(
    pictures: Sequence[np.ndarray],
    labels: Sequence[str],
    shown: np.ndarray,
    style: MapStyle,
    view: View,
) -> Figure:
    """Pictures of equal shape in rows, under one colour scale and beside one colour bar."""
    n, (rows, columns) = len(pictures), pictures[0].shape
    across = columns_of_sheet(n, rows * view.pixel_aspect / columns)
    gap = max(1, round(0.012 * columns))
    # One image for all: an axes object per slice would take most of the time.
    sheet_shape = (math.ceil(n / across) * (rows + gap) - gap, across * (columns + gap) - gap, 4)
    sheet = np.full(sheet_shape, 255, dtype=np.uint8)
    corners = [((i // across) * (rows + gap), (i % across) * (columns + gap)) for i in range(n)]
    colours = colours_of(shown, style)
    for (row, column), picture in zip(corners, pictures, strict=True):
        sheet[row : row + rows, column : column + columns] = colours.to_rgba(picture, bytes=True)

    width, height = panel_size(sheet, view.pixel_aspect, min(9.0, 2.6 * across), 7.0)
    figure = blank_figure(width + 0.95, height + 0.48)
    axes = axes_at(figure, 0.1, 0.1, width, height)
    draw_picture(axes, sheet, view.pixel_aspect)
    draw_title(axes, style.title)
    for (row, column), label in zip(corners, labels, strict=True):
        axes.text(column + gap, row + gap, label, color="white", fontsize=7.5, ha="left", va="top", bbox=LABEL_BOX)
    first = axes.transData.transform([(-0.5, rows - 0.5), (columns - 0.5, -0.5)])
    draw_letters(axes, view.letters, Bbox(first).transformed(axes.transAxes.inverted()))
    draw_colour_bar(figure, axes_at(figure, width + 0.18, 0.1, 0.11, height), colours, shown, style.unit)
    return figure


def mosaic_figure(
    values: np.ndarray, name: str, affine: np.ndarray, *, max_slices: int = 30, status: np.ndarray | None = None
) -> Figure:
    """All slices of one map, counted from 0, or `max_slices` of them evenly spread, under one colour scale.

    Args:
        values: (x, y, z) in SI units.
        name: the map's name, see `map_style`.
        affine: (4, 4) voxel index -> RAS+ [mm].
        max_slices: more are thinned out evenly.
        status: (x, y, z) codes; voxels that are not OK are black.

    Raises:
        ValueError: the affine is singular.
    """
    style, view = map_style(name), radiological_view(affine)
    shown = displayed(values, style, status)
    n_slices = shown.shape[2]
    chosen = np.unique(np.linspace(0, n_slices - 1, min(n_slices, max_slices)).round().astype(int))
    pictures = [view(shown[:, :, k]) for k in chosen]
    return _montage_figure(pictures, [f"slice {k}" for k in chosen], shown, style, view)


def echo_figure(
    data: np.ndarray,
    values: Sequence[float],
    affine: np.ndarray,
    *,
    slice_index: int | None = None,
    symbol: str = "TE",
    unit: str = "ms",
) -> Figure:
    """The magnitudes of one slice with their echo times, or what else they differ in, under one grey scale.

    Args:
        data: (x, y, z, n) [a.u.].
        values: (n,) echo times [ms], or others in `unit`.
        affine: (4, 4) voxel index -> RAS+ [mm].
        slice_index: slice along the third axis; None = the middle one.
        symbol, unit: what stands before and after a value.

    Raises:
        ValueError: `values` does not match the images, or the affine is singular.
    """
    if len(values) != data.shape[-1]:
        raise ValueError(f"values has {len(values)} numbers, but data {data.shape} has {data.shape[-1]} images.")
    style, view = MapStyle("signal", "a.u.", 1.0, "gray"), radiological_view(affine)
    middle = data.shape[2] // 2 if slice_index is None else slice_index
    shown = displayed(np.abs(data[:, :, middle, :]), style)
    pictures = [view(shown[:, :, i]) for i in range(len(values))]
    return _montage_figure(pictures, [f"{symbol} {value:.4g} {unit}" for value in values], shown, style, view)
