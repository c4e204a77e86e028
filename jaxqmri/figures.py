"""Pictures of parameter maps: maps side by side, all slices, all images, histograms, fitted curves.

Slices are shown as a radiologist holds them: the patient's right on the left of the picture, anterior or superior on
top, whatever order the file stores its voxels in. Colours and scales: `colours`.

Everything here is pure: numpy arrays in, a `matplotlib.figure.Figure` or PNG bytes out. `pyplot` is never imported, so
nothing depends on a display, on a backend or on figures somebody else has open.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox
from nibabel.orientations import aff2axcodes

from .colours import MapStyle, colour_map, colour_scale, displayed, map_style, scale_limits

DPI = 150
INK, FAINT = "#1c2126", "#646c75"  # 16:1 and 5.3:1 on white
# Wong, Nat Methods 8:441 (2011): told apart with any colour vision. Yellow is left out, too faint on white.
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
LABEL_BOX = {"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1.2}
STATUS_COLOURS = ("#b9d3e6", "#4d545c", "#d55e00", "#e69f00", "#cc79a7", "#009e73", "#0072b2", "#f0e442")


@dataclass(frozen=True)
class View:
    """How a stored slice (axis 0, axis 1) becomes a picture, its first row on top."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool
    pixel_aspect: float  # height / width
    letters: tuple[str, str, str, str]  # at the left, right, top, bottom edge

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        picture = stored.T if self.transpose else stored
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def radiological_view(affine: np.ndarray) -> View:
    """The radiological view of slices `volume[:, :, k]`.

    The patient's right (or, in a sagittal slice, anterior) is on the left, anterior or superior on top.

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


def fullest_slice(volume: np.ndarray) -> int:
    """Index of the slice (last axis) with most finite voxels, of equals the one nearest to the middle."""
    counts = np.isfinite(volume).sum(axis=(0, 1))
    best = np.flatnonzero(counts == counts.max())
    return int(best[np.argmin(np.abs(best - (volume.shape[2] - 1) / 2))])


def _figure(width: float, height: float) -> Figure:
    """A white figure [inch] with its own Agg canvas."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the lower left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _draw_picture(axes: Axes, rgba: np.ndarray, pixel_aspect: float) -> None:
    axes.set_facecolor("black")
    axes.xaxis.set_visible(False)
    axes.yaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    # "nearest": a colour blended from two tissues, or from tissue and black, would be a value nobody measured.
    axes.imshow(rgba, aspect=pixel_aspect, interpolation="nearest")


def _draw_title(axes: Axes, title: str) -> None:
    # Without y, matplotlib measures every text of the axes to place the title: 40 % of the time of a figure.
    axes.set_title(title, fontsize=11, color=INK, loc="left", y=1.0, pad=6)


def _draw_letters(axes: Axes, letters: Sequence[str], box: Bbox | None = None) -> None:
    """Letters inside the left, right, top and bottom edge of a box in axes fractions, by default all of the axes."""
    x0, y0, x1, y1 = (box or Bbox.unit()).extents
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    places = [(x0, middle[1], 1, 0), (x1, middle[1], -1, 0), (middle[0], y1, 0, -1), (middle[0], y0, 0, 1)]
    for letter, (x, y, inward_x, inward_y) in zip(letters, places, strict=True):
        axes.annotate(
            letter,
            (x, y),
            (5 * inward_x, 4 * inward_y),
            xycoords="axes fraction",
            textcoords="offset points",
            ha=("center", "left", "right")[inward_x],
            va=("center", "bottom", "top")[inward_y],
            color="white",
            fontsize=8,
            bbox=LABEL_BOX,
        )


def _colours(shown: np.ndarray, style: MapStyle) -> ScalarMappable:
    return ScalarMappable(colour_scale(shown, style), colour_map(style.table, style.reverse))


def _draw_colour_bar(figure: Figure, axes: Axes, colours: ScalarMappable, shown: np.ndarray, unit: str) -> None:
    """Colour bar with its unit on top; pointed where values lie beyond the scale."""
    low, high = colours.get_clim()
    below, beyond = bool(np.any(shown < low)), bool(np.any(shown > high))  # NaN is neither
    extend = {(False, False): "neither", (False, True): "max", (True, False): "min", (True, True): "both"}
    bar = figure.colorbar(colours, cax=axes, extend=extend[below, beyond], extendfrac=0.04)
    bar.outline.set(edgecolor="#aab1b8", linewidth=0.5)
    axes.tick_params(labelsize=8, length=2.5, width=0.6, color=FAINT, labelcolor=INK, pad=2)
    axes.set_title(unit, fontsize=8, color=FAINT, loc="left", y=1.04 if beyond else 1.0, pad=5)


def _panel_size(picture: np.ndarray, pixel_aspect: float, width: float, height: float) -> tuple[float, float]:
    """Largest size [inch] of a picture in a box of width x height."""
    shape = picture.shape[0] * pixel_aspect / picture.shape[1]
    return (width, width * shape) if width * shape <= height else (height / shape, height)


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

    width, height = _panel_size(view(shown[0][:, :, 0]), view.pixel_aspect, 3.0, 3.8)
    column, left, bottom, top = width + 0.85, 0.1, 0.1, 0.38
    figure = _figure(left + column * len(names), bottom + height + top)
    for i, (volume, style) in enumerate(zip(shown, styles, strict=True)):
        axes = _axes(figure, left + i * column, bottom, width, height)
        colours = _colours(volume, style)
        _draw_picture(axes, colours.to_rgba(view(volume[:, :, slice_index]), bytes=True), view.pixel_aspect)
        _draw_title(axes, style.title)
        _draw_letters(axes, view.letters)
        bar_axes = _axes(figure, left + i * column + width + 0.08, bottom, 0.11, height)
        _draw_colour_bar(figure, bar_axes, colours, volume, style.unit)
    return figure


def _columns(n: int, shape: float) -> int:
    """How many pictures of height / width `shape` go in a row: a sheet about 1.7 times as wide as high, few gaps."""

    def cost(across: int) -> float:
        down = math.ceil(n / across)
        return abs(math.log(across / (down * shape) / 1.7)) + (across * down - n) / n

    return min(range(1, n + 1), key=cost)


def _montage_figure(
    pictures: Sequence[np.ndarray], labels: Sequence[str], shown, style: MapStyle, view: View
) -> Figure:
    """Pictures of equal shape in rows, under one colour scale and beside one colour bar."""
    n, (rows, columns) = len(pictures), pictures[0].shape
    across = _columns(n, rows * view.pixel_aspect / columns)
    gap = max(1, round(0.012 * columns))
    # One image for all: an axes object per slice would take most of the time.
    sheet_shape = (math.ceil(n / across) * (rows + gap) - gap, across * (columns + gap) - gap, 4)
    sheet = np.full(sheet_shape, 255, dtype=np.uint8)
    corners = [((i // across) * (rows + gap), (i % across) * (columns + gap)) for i in range(n)]
    colours = _colours(shown, style)
    for (row, column), picture in zip(corners, pictures, strict=True):
        sheet[row : row + rows, column : column + columns] = colours.to_rgba(picture, bytes=True)

    width, height = _panel_size(sheet, view.pixel_aspect, min(9.0, 2.6 * across), 7.0)
    figure = _figure(width + 0.95, height + 0.48)
    axes = _axes(figure, 0.1, 0.1, width, height)
    _draw_picture(axes, sheet, view.pixel_aspect)
    _draw_title(axes, style.title)
    for (row, column), label in zip(corners, labels, strict=True):
        axes.text(column + gap, row + gap, label, color="white", fontsize=7.5, ha="left", va="top", bbox=LABEL_BOX)
    first = axes.transData.transform([(-0.5, rows - 0.5), (columns - 0.5, -0.5)])
    _draw_letters(axes, view.letters, Bbox(first).transformed(axes.transAxes.inverted()))
    _draw_colour_bar(figure, _axes(figure, width + 0.18, 0.1, 0.11, height), colours, shown, style.unit)
    return figure


def mosaic_figure(values: np.ndarray, name: str, affine: np.ndarray, *, max_slices: int = 30, status=None) -> Figure:
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
    width, height = _panel_size(picture, view.pixel_aspect, 3.0, 3.8)
    figure = _figure(width + 1.75, height + 0.48)
    axes = _axes(figure, 0.1, 0.1, width, height)
    _draw_picture(axes, ListedColormap(colours)(picture, bytes=True), view.pixel_aspect)
    _draw_title(axes, "status")
    _draw_letters(axes, view.letters)
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
    figure = _figure(width, height + below)
    axes = _axes(figure, 0.68, 0.48 + below, width - 0.83, height - 0.73)
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
    colours = _colours(shown, style).to_rgba(centres)
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
) -> Figure:
    """Measured points and fitted curves of a few voxels.

    Args:
        x: (n,) where it was measured, in displayed units.
        signals: (voxel, n) measurements [a.u.].
        curve_x: (point,) where the curves are given.
        curves: (voxel, point) fitted signal [a.u.].
        labels: (voxel,) words for the legend.
        xlabel: name of the x axis, with its unit.

    Raises:
        ValueError: the numbers of voxels differ.
    """
    n = len(labels)
    if not len(signals) == len(curves) == n:
        raise ValueError(f"signals ({len(signals)}), curves ({len(curves)}) and labels ({n}) need one row per voxel.")
    columns = 1 if max(map(len, labels), default=0) > 30 else 2  # two long ones do not fit side by side
    figure, axes = _plot_axes(5.2, 3.0, xlabel, "signal [a.u.]", below=0.19 * math.ceil(n / columns) + 0.08)
    for i, (signal, curve, label) in enumerate(zip(signals, curves, labels, strict=True)):
        colour = SERIES_COLOURS[i % len(SERIES_COLOURS)]
        axes.plot(curve_x, curve, color=colour, linewidth=1.3, label=label)
        axes.plot(x, signal, "o", color=colour, markersize=3.8, markeredgecolor="white", markeredgewidth=0.5)
    axes.set_xlim(left=0.0)
    lowest = min(float(np.nanmin(signals, initial=0.0)), float(np.nanmin(curves, initial=0.0)))
    axes.set_ylim(bottom=1.05 * lowest)
    if lowest < 0:
        axes.axhline(0.0, color=FAINT, linewidth=0.6)
    figure.legend(loc="lower center", ncols=columns, fontsize=8, frameon=False, labelcolor=INK)
    return figure


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG; equal figures give equal bytes, with no date and no program name in them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
