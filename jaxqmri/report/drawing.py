"""What all pictures of slices share: how a slice lies before the eye, canvas, frame, letters, colour bar.

Slices are shown as a radiologist holds them: the patient's right on the left of the picture, anterior or superior on
top, whatever order the file stores its voxels in. `pyplot` is never imported, so nothing depends on a display, on a
backend or on figures somebody else has open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from nibabel.orientations import aff2axcodes

from .colours import MapStyle, colour_map, colour_scale

DPI = 150
INK, FAINT = "#1c2126", "#646c75"  # 16:1 and 5.3:1 on white
LABEL_BOX = {"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1.2}


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


def blank_figure(width: float, height: float) -> Figure:
    """A white figure [inch] with its own Agg canvas."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the lower left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def draw_picture(axes: Axes, rgba: np.ndarray, pixel_aspect: float) -> None:
    """A picture without ticks or spines, its voxels as they are."""
    axes.set_facecolor("black")
    axes.xaxis.set_visible(False)
    axes.yaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    # "nearest": a colour blended from two tissues, or from tissue and black, would be a value nobody measured.
    axes.imshow(rgba, aspect=pixel_aspect, interpolation="nearest")


def draw_title(axes: Axes, title: str) -> None:
    """A title over the left edge."""
    # Without y, matplotlib measures every text of the axes to place the title: 40 % of the time of a figure.
    axes.set_title(title, fontsize=11, color=INK, loc="left", y=1.0, pad=6)


def draw_letters(axes: Axes, letters: Sequence[str], box: Bbox | None = None) -> None:
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


def colours_of(shown: np.ndarray, style: MapStyle) -> ScalarMappable:
    """What turns values in displayed units into colours."""
    return ScalarMappable(colour_scale(shown, style), colour_map(style.table, style.reverse))


def draw_colour_bar(figure: Figure, axes: Axes, colours: ScalarMappable, shown: np.ndarray, unit: str) -> None:
    """Colour bar with its unit on top; pointed where values lie beyond the scale."""
    low, high = colours.get_clim()
    below, beyond = bool(np.any(shown < low)), bool(np.any(shown > high))  # NaN is neither
    extend = {(False, False): "neither", (False, True): "max", (True, False): "min", (True, True): "both"}
    bar = figure.colorbar(colours, cax=axes, extend=extend[below, beyond], extendfrac=0.04)
    bar.outline.set(edgecolor="#aab1b8", linewidth=0.5)
    axes.tick_params(labelsize=8, length=2.5, width=0.6, color=FAINT, labelcolor=INK, pad=2)
    axes.set_title(unit, fontsize=8, color=FAINT, loc="left", y=1.04 if beyond else 1.0, pad=5)


def panel_size(picture: np.ndarray, pixel_aspect: float, width: float, height: float) -> tuple[float, float]:
    """Largest size [inch] of a picture in a box of width x height."""
    shape = picture.shape[0] * pixel_aspect / picture.shape[1]
    return (width, width * shape) if width * shape <= height else (height / shape, height)
