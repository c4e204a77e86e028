"""Figures with axes, by matplotlib: maps side by side, histograms, fitted curves.

Everything here is pure: numpy arrays in, a `matplotlib.figure.Figure` or PNG bytes out. `pyplot` is never imported, so
nothing depends on a display, on a backend or on figures that somebody else has open.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from ..quantities import MAP_KINDS, map_kind
from .colours import colour_scale, colours_of, displayed, scale_limits
from .slices import fullest_slice, radiological_view

DPI = 150
INK, FAINT = "#1c2126", "#646c75"  # contrast 16:1 and 5.3:1 on white
BLUE = "#0072b2"


def main_maps(names: Iterable[str]) -> list[str]:
    """Amplitude, relaxation time, transmit field or inversion, misfit: what tells whether a fit can be believed."""
    named = [name for name in names if name != "status"]
    roles = ("amplitude", "time", "field", "fit")
    found = [name for role in roles for name in named if name in MAP_KINDS and MAP_KINDS[name].role == role]
    return found or named[:1]


def maps_figure(
    maps: Mapping[str, np.ndarray],
    affine: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    slice_index: int | None = None,
) -> Figure:
    """Maps of one slice side by side, each with its colour bar and unit.

    Args:
        maps: name -> (x, y, z) map in SI units (s, 1/s; `residual` as a fraction); "status", if there, blackens every
            voxel that is not OK.
        affine: (4, 4) voxel index -> RAS+ [mm].
        names: the maps to show, left to right; None = `main_maps`.
        slice_index: slice along the last axis; None = the one with most values in the first relaxometry map.

    Raises:
        ValueError: a name is not in `maps`, or the affine is singular.
    """
    names = main_maps(maps) if names is None else names
    missing = [name for name in names if name not in maps]
    if missing or not names:
        raise ValueError(f"names must be among the maps {sorted(maps)}, got {list(names)}.")
    metadata = getattr(maps, "metadata", {})
    view, kinds = radiological_view(affine), [map_kind(name, metadata) for name in names]
    shown = [displayed(maps[n], kind, maps.get("status")) for n, kind in zip(names, kinds, strict=True)]
    if slice_index is None:
        relaxometry = (s for s, kind in zip(shown, kinds, strict=True) if kind.relaxometry)
        slice_index = fullest_slice(np.isfinite(next(relaxometry, shown[0])))

    rows, columns = view(shown[0][:, :, 0]).shape
    shape = rows * view.pixel_aspect / columns
    width, height = (3.0, 3.0 * shape) if 3.0 * shape <= 3.8 else (3.8 / shape, 3.8)  # inches
    step, left, bottom, top = width + 0.85, 0.1, 0.1, 0.38
    figure = _blank_figure(left + step * len(names), bottom + height + top)
    for i, (volume, kind) in enumerate(zip(shown, kinds, strict=True)):
        axes = _axes_at(figure, left + i * step, bottom, width, height)
        colours = ScalarMappable(colour_scale(volume, kind), colours_of(kind))
        _draw_picture(axes, colours.to_rgba(view(volume[:, :, slice_index]), bytes=True), view.pixel_aspect)
        # Without y, matplotlib measures every text of the axes to place a title: 40 % of the time of a figure.
        axes.set_title(kind.title, fontsize=11, color=INK, loc="left", y=1.0, pad=6)
        _draw_letters(axes, view.letters)
        bar_axes = _axes_at(figure, left + i * step + width + 0.08, bottom, 0.11, height)
        _draw_colour_bar(figure, bar_axes, colours, volume, kind.shown_unit)
    return figure


def histogram_figure(
    values: np.ndarray,
    name: str,
    *,
    status: np.ndarray | None = None,
    metadata: Mapping[str, Any] = MappingProxyType({}),
) -> Figure:
    """How often each value occurs, in the colours of the map, with the median and the share beyond the scale in words.

    Args:
        values: any shape, SI units.
        name: the map's name, see `map_kind`.
        status: codes of the same shape; voxels that are not OK are not counted.
        metadata: of the maps, see `map_kind`.
    """
    kind = map_kind(name, metadata)
    shown = displayed(values, kind, status)
    finite = shown[np.isfinite(shown)]
    scale, (low, high) = colour_scale(shown, kind), scale_limits(shown, kind)
    counts, edges = np.histogram(finite, 64, (low, high))
    colours = colours_of(kind)(scale((edges[:-1] + edges[1:]) / 2))
    figure, axes = _plot_axes(4.6, 2.5, kind.title, "voxels")
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours, edgecolor="#8a929a", linewidth=0.3)
    axes.set_xlim(low, high)
    if finite.size:
        median = float(np.median(finite))
        axes.axvline(median, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        words = f"median {median:{'.0f' if abs(median) >= 1000 else '.3g'}} {kind.shown_unit}".rstrip()
        outside = [(np.mean(finite < low), f"below {low:.4g}"), (np.mean(finite > high), f"above {high:.4g}")]
        for share, where in outside:
            words += f", {100 * share:.2g} % of voxels {where} {kind.shown_unit}".rstrip() if share else ""
        axes.set_title(words, fontsize=8.5, color=INK, loc="right", y=1.0, pad=4)
    return figure


def voxel_fit_figure(
    x: np.ndarray,
    signal: np.ndarray,
    curve_x: np.ndarray,
    curve: np.ndarray,
    xlabel: str,
    used: np.ndarray | None = None,
) -> Figure:
    """Measured points (n,) and the fitted curve (point,) of a voxel [a.u.], over what varies in displayed units.

    Points that are not `used` by the fit, (n,) bool, are hollow.
    """
    figure, axes = _plot_axes(5.2, 3.0, xlabel, "signal [a.u.]")
    used = np.ones(len(x), bool) if used is None else used
    axes.plot(curve_x, curve, color=BLUE, linewidth=1.3)
    axes.plot(x[used], signal[used], "o", color=BLUE, markersize=3.8, markeredgecolor="white", markeredgewidth=0.5)
    if not used.all():
        axes.plot(x[~used], signal[~used], "o", color="white", markersize=3.8, markeredgecolor=BLUE, markeredgewidth=1)
    axes.set_xlim(left=0.0)
    lowest = min(float(np.nanmin(signal, initial=0.0)), float(np.nanmin(curve, initial=0.0)))
    axes.set_ylim(bottom=1.05 * lowest)
    if lowest < 0:
        axes.axhline(0.0, color=FAINT, linewidth=0.6)
    return figure


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as PNG; equal figures give equal bytes, with no date and no program name in them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _blank_figure(width: float, height: float) -> Figure:
    """A white figure [inch] with its own Agg canvas."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the lower left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _plot_axes(width: float, height: float, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one plain plot: two spines, a faint grid on y."""
    figure = _blank_figure(width, height)
    axes = _axes_at(figure, 0.68, 0.48, width - 0.83, height - 0.73)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, length=3, width=0.6, color=FAINT, labelcolor=INK)
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(nbins=6)  # ticks take most of the time of a plot
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    return figure, axes


def _draw_picture(axes: Axes, rgba: np.ndarray, pixel_aspect: float) -> None:
    """A picture without ticks or spines."""
    axes.set_facecolor("black")
    axes.xaxis.set_visible(False)
    axes.yaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    # "nearest": a colour blended from two tissues, or from tissue and black, would be a value nobody measured.
    axes.imshow(rgba, aspect=pixel_aspect, interpolation="nearest")


def _draw_letters(axes: Axes, letters: Sequence[str]) -> None:
    """The patient's sides, inside the left, right, top and bottom edge."""
    middle, edge = 0.5, 0.02  # fractions of the axes
    places = [
        (edge, middle, "left", "center"),
        (1 - edge, middle, "right", "center"),
        (middle, 1 - edge, "center", "top"),
        (middle, edge, "center", "bottom"),
    ]
    box = {"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1.2}
    for letter, (x, y, ha, va) in zip(letters, places, strict=True):
        axes.text(x, y, letter, ha=ha, va=va, transform=axes.transAxes, color="white", fontsize=8, bbox=box)


def _draw_colour_bar(figure: Figure, axes: Axes, colours: ScalarMappable, shown: np.ndarray, unit: str) -> None:
    """Colour bar with its unit on top; pointed where values lie beyond the scale."""
    low, high = colours.get_clim()
    below, beyond = bool(np.any(shown < low)), bool(np.any(shown > high))  # NaN is neither
    extend = {(False, False): "neither", (False, True): "max", (True, False): "min", (True, True): "both"}
    bar = figure.colorbar(colours, cax=axes, extend=extend[below, beyond], extendfrac=0.04)
    bar.outline.set(edgecolor="#aab1b8", linewidth=0.5)
    axes.tick_params(labelsize=8, length=2.5, width=0.6, color=FAINT, labelcolor=INK, pad=2)
    axes.set_title(unit, fontsize=8, color=FAINT, loc="left", y=1.04 if beyond else 1.0, pad=5)
