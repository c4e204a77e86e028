"""Pictures of parameter maps: maps side by side, all slices, all images, histograms, fitted curves.

Slices are shown as a radiologist holds them, see `drawing`. Colours and scales: `colours`.

Everything here is pure: numpy arrays in, a `matplotlib.figure.Figure` or PNG bytes out.
"""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .colours import displayed, map_style, scale_limits
from .drawing import (
    DPI,
    FAINT,
    INK,
    axes_at,
    blank_figure,
    colours_of,
    draw_colour_bar,
    draw_letters,
    draw_picture,
    draw_title,
    fullest_slice,
    panel_size,
    radiological_view,
)
from .mosaics import echo_figure, mosaic_figure

__all__ = [
    "SERIES_COLOURS",
    "echo_figure",
    "fullest_slice",
    "histogram_figure",
    "maps_figure",
    "mosaic_figure",
    "png_bytes",
    "radiological_view",
    "status_figure",
    "voxel_fit_figure",
]

# Wong, Nat Methods 8:441 (2011): told apart with any colour vision. Yellow is left out, too faint on white.
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
STATUS_COLOURS = ("#b9d3e6", "#4d545c", "#d55e00", "#e69f00", "#cc79a7", "#009e73", "#0072b2", "#f0e442")


def maps_figure(
    maps: Mapping[str, np.ndarray],
    affine: np.ndarray,
    *,
    names: Sequence[str] = ("S0map", "T2starmap", "residual"),
    slice_index: int | None = None,
) -> Figure:
    """Maps of one slice side by side, each with its colour bar and unit.

    Args:
        maps: name -> (x, y, z) map in SI units (s, 1/s; `residual` as a fraction); "status", if there, blackens every
            voxel that is not OK.
        affine: (4, 4) voxel index -> RAS+ [mm].
        names: the maps to show, left to right.
        slice_index: slice along the last axis; None = the one with most values in the first relaxometry map.

    Raises:
        ValueError: a name is not in `maps`, or the affine is singular.
    """
    missing = [name for name in names if name not in maps]
    if missing or not names:
        raise ValueError(f"names must be among the maps {sorted(maps)}, got {list(names)}.")
    view, styles = radiological_view(affine), [map_style(name) for name in names]
    shown = [displayed(maps[n], style, maps.get("status")) for n, style in zip(names, styles, strict=True)]
    if slice_index is None:
        slice_index = fullest_slice(
            next((s for s, style in zip(shown, styles, strict=True) if style.relaxometry), shown[0])
        )

    width, height = panel_size(view(shown[0][:, :, 0]), view.pixel_aspect, 3.0, 3.8)
    column, left, bottom, top = width + 0.85, 0.1, 0.1, 0.38
    figure = blank_figure(left + column * len(names), bottom + height + top)
    for i, (volume, style) in enumerate(zip(shown, styles, strict=True)):
        axes = axes_at(figure, left + i * column, bottom, width, height)
        colours = colours_of(volume, style)
        draw_picture(axes, colours.to_rgba(view(volume[:, :, slice_index]), bytes=True), view.pixel_aspect)
        draw_title(axes, style.title)
        draw_letters(axes, view.letters)
        bar_axes = axes_at(figure, left + i * column + width + 0.08, bottom, 0.11, height)
        draw_colour_bar(figure, bar_axes, colours, volume, style.unit)
    return figure


def status_figure(
    status: np.ndarray, names: Mapping[int, str], affine: np.ndarray, *, slice_index: int | None = None
) -> Figure:
    """What became of every voxel of a slice: one colour and one line of the legend per status code.

    Args:
        status: (x, y, z) integer codes, 0 = OK.
        names: code -> name.
        affine: (4, 4) voxel index -> RAS+ [mm].
        slice_index: slice along the last axis; None = the middle one.

    Raises:
        ValueError: the affine is singular.
    """
    status, view = np.asarray(status), radiological_view(affine)
    codes = sorted({*names, *np.unique(status).tolist()})
    colours = [STATUS_COLOURS[i % len(STATUS_COLOURS)] for i in range(len(codes))]
    picture = view(np.searchsorted(codes, status[:, :, status.shape[2] // 2 if slice_index is None else slice_index]))
    width, height = panel_size(picture, view.pixel_aspect, 3.0, 3.8)
    figure = blank_figure(width + 1.75, height + 0.48)
    axes = axes_at(figure, 0.1, 0.1, width, height)
    draw_picture(axes, ListedColormap(colours)(picture, bytes=True), view.pixel_aspect)
    draw_title(axes, "status")
    draw_letters(axes, view.letters)
    present = set(np.unique(status).tolist())
    patches = [
        Patch(color=c, label=names.get(k, f"code {k}")) for k, c in zip(codes, colours, strict=True) if k in present
    ]
    anchor = ((width + 0.2) / (width + 1.75), (height + 0.1) / (height + 0.48))
    figure.legend(
        handles=patches, loc="upper left", bbox_to_anchor=anchor, fontsize=8, frameon=False, borderpad=0, labelcolor=INK
    )
    return figure


def _plot_axes(width: float, height: float, xlabel: str, ylabel: str, *, below: float = 0.0) -> tuple[Figure, Axes]:
    """A figure with one plain plot: two spines, a faint grid on y, `below` inches left free under it for a legend."""
    figure = blank_figure(width, height + below)
    axes = axes_at(figure, 0.68, 0.48 + below, width - 0.83, height - 0.73)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, length=3, width=0.6, color=FAINT, labelcolor=INK)
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    return figure, axes


def histogram_figure(values: np.ndarray, name: str, *, status: np.ndarray | None = None) -> Figure:
    """How often each value occurs, in the colours of the map, with the median and the share beyond the scale in words.

    Args:
        values: any shape, SI units.
        name: the map's name, see `map_style`.
        status: codes of the same shape; voxels that are not OK are not counted.
    """
    style = map_style(name)
    shown = displayed(values, style, status)
    finite = shown[np.isfinite(shown)]
    low, high = scale_limits(shown, style)
    counts, edges = np.histogram(finite, 64, (low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    figure, axes = _plot_axes(4.6, 2.5, style.title, "voxels")
    colours = colours_of(shown, style).to_rgba(centres)
    axes.bar(centres, counts, width=edges[1] - edges[0], color=colours, edgecolor="#8a929a", linewidth=0.3)
    axes.set_xlim(low, high)
    if finite.size:
        median = float(np.median(finite))
        outside = [(np.mean(finite < low), f"below {low:.4g}"), (np.mean(finite > high), f"above {high:.4g}")]
        axes.axvline(median, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        words = f"median {median:{'.0f' if abs(median) >= 1000 else '.3g'}} {style.unit}".rstrip()
        for share, where in outside:
            words += f", {100 * share:.2g} % of voxels {where} {style.unit}".rstrip() if share else ""
        axes.set_title(words, fontsize=8.5, color=INK, loc="right", y=1.0, pad=4)
    return figure


def voxel_fit_figure(
    x: np.ndarray,
    signals: np.ndarray,
    curve_x: np.ndarray,
    curves: np.ndarray,
    labels: Sequence[str],
    xlabel: str = "echo time [ms]",
    *,
    legend: bool = True,
) -> Figure:
    """Measured points and fitted curves of a few voxels.

    Args:
        x: (n,) where it was measured, in displayed units.
        signals: (voxel, n) measurements [a.u.].
        curve_x: (point,) where the curves are given.
        curves: (voxel, point) fitted signal [a.u.].
        labels: (voxel,) words for the legend.
        xlabel: name of the x axis, with its unit.
        legend: whether the labels are shown.

    Raises:
        ValueError: the numbers of voxels differ.
    """
    n = len(labels)
    if not len(signals) == len(curves) == n:
        raise ValueError(f"signals ({len(signals)}), curves ({len(curves)}) and labels ({n}) need one row per voxel.")
    columns = 1 if max(map(len, labels), default=0) > 30 else 2  # two long ones do not fit side by side
    figure, axes = _plot_axes(5.2, 3.0, xlabel, "signal [a.u.]", below=legend * (0.19 * math.ceil(n / columns) + 0.08))
    for i, (signal, curve, label) in enumerate(zip(signals, curves, labels, strict=True)):
        colour = SERIES_COLOURS[i % len(SERIES_COLOURS)]
        axes.plot(curve_x, curve, color=colour, linewidth=1.3, label=label)
        axes.plot(x, signal, "o", color=colour, markersize=3.8, markeredgecolor="white", markeredgewidth=0.5)
    axes.set_xlim(left=0.0)
    lowest = min(float(np.nanmin(signals, initial=0.0)), float(np.nanmin(curves, initial=0.0)))
    axes.set_ylim(bottom=1.05 * lowest)
    if lowest < 0:
        axes.axhline(0.0, color=FAINT, linewidth=0.6)
    if legend:
        figure.legend(loc="lower center", ncols=columns, fontsize=8, frameon=False, labelcolor=INK)
    return figure


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG; equal figures give equal bytes, with no date and no program name in them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
