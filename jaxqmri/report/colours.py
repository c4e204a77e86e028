"""The colours of parameter maps: which values are shown, on which scale, in which table.

Relaxometry maps follow Fuderer et al., "Color-map recommendation for MR relaxometry maps", Magn Reson Med 2025
(doi:10.1002/mrm.30290): lipari for T1 and R1, navia for T2, T2*, R2 and R2*, reversed for rates, a log-remapped scale
between fixed limits, black where there is no value. Tables and limits stand in `quantities`; the tables are Fabio
Crameri's (doi:10.5281/zenodo.1243862), as packaged by cmcrameri.
"""

import math
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, FuncNorm, ListedColormap, Normalize, to_hex
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from ..quantities import MapKind, Status

N_COLOURS = 255  # of an indexed picture; one of 256 is left for "no value"


def log_remap(value: ArrayLike, low: float, high: float) -> np.ndarray:
    """Position (0 ... 1) of a value on the colour scale of a relaxometry map.

    Linear at the low end, logarithmic above. With a = high / e the scale is linear from low to a and logarithmic from
    max(a, low) to high. For low < a the value a lies at b = (a - low) / (2 a - low) and both pieces have the slope
    1 / (2 a - low) there; for low >= a all of it is logarithmic.

    Source: Fuderer et al., Magn Reson Med 2025, doi:10.1002/mrm.30290.
    """
    joint = max(high / math.e, low)
    span = 2 * joint - low  # 1 / slope of the linear piece
    b = (joint - low) / span
    x = np.asarray(value, dtype=float)
    log = b + (1 - b) * np.log(np.maximum(x, joint) / joint) / math.log(high / joint)
    return np.where(x < joint, (x - low) / span, log)


def log_remap_inverse(fraction: ArrayLike, low: float, high: float) -> np.ndarray:
    """The value at a position on the colour scale, see `log_remap`."""
    joint = max(high / math.e, low)
    span = 2 * joint - low
    b = (joint - low) / span
    f = np.asarray(fraction, dtype=float)
    return np.where(f < b, low + f * span, joint * np.exp((f - b) / (1 - b) * math.log(high / joint)))


@lru_cache
def colour_map(table: str, reverse: bool = False) -> Colormap:
    """A colour table from cmcrameri or matplotlib; black stands for "no value"."""
    if table in colormaps:
        cmap = colormaps[table]
    else:
        # Importing cmcrameri would import pyplot and register 100 colour maps; only its tables are wanted.
        spec = find_spec("cmcrameri")
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not folders:
            raise ImportError("the colour tables come from the package cmcrameri; install it: pip install cmcrameri.")
        cmap = ListedColormap(np.loadtxt(Path(folders[0]) / "cmaps" / f"{table}.txt"), name=table)
    return (cmap.reversed() if reverse else cmap).with_extremes(bad="black")


def colours_of(kind: MapKind) -> Colormap:
    """The colour table of a map, backwards for rates."""
    return colour_map(kind.table, reverse=kind.role == "rate")


def displayed(values: np.ndarray, kind: MapKind, status: np.ndarray | None = None) -> np.ndarray:
    """Values in displayed units as float32, NaN where there is none: not finite, status not OK, or relaxometry <= 0."""
    values = np.asarray(values, dtype=np.float32)
    valid = np.isfinite(values)
    if status is not None:
        valid &= np.asarray(status) == Status.OK
    if kind.relaxometry:
        valid &= values > 0
    return np.where(valid, values * np.float32(kind.shown_per_si), np.float32(np.nan))


def percentile_on_top(kind: MapKind) -> float:
    """Which percentile ends a scale without fixed limits: errors have rare and very large values, signals few."""
    return 98.0 if kind.role == "fit" else 99.5


def scale_limits(shown: np.ndarray, kind: MapKind) -> tuple[float, float]:
    """Ends of the colour scale of a map that is already in displayed units, see `displayed`."""
    if kind.limits is not None:
        return kind.limits
    finite = shown[np.isfinite(shown)]
    top = float(np.percentile(finite, percentile_on_top(kind))) if finite.size else 1.0
    return 0.0, top if top > 0 else 1.0


def colour_scale(shown: np.ndarray, kind: MapKind) -> Normalize:
    """The colour scale of a map that is already in displayed units; ticks of its colour bar are true values."""
    low, high = scale_limits(shown, kind)
    if not kind.relaxometry:
        return Normalize(low, high)
    forward, backward = partial(log_remap, low=low, high=high), partial(log_remap_inverse, low=low, high=high)
    return FuncNorm((forward, backward), vmin=low, vmax=high)


def indexed(shown: np.ndarray, kind: MapKind, scale: Normalize) -> tuple[np.ndarray, bytes]:
    """A map in displayed units as entries of a palette, 0 where there is no value, and the palette in RGB bytes."""
    # Flat, because the scales of matplotlib take no volumes.
    position = np.ma.filled(scale(np.nan_to_num(shown).ravel()), 0.0).reshape(shown.shape)
    indices = np.where(np.isfinite(shown), 1 + np.clip(position * N_COLOURS, 0, N_COLOURS - 1), 0).astype(np.uint8)
    return indices, bytes(3) + colours_of(kind)(np.linspace(0, 1, N_COLOURS), bytes=True)[:, :3].tobytes()


class ColourBar(NamedTuple):
    """Colour bar of a page: evenly spaced #rrggbb from the low end on, and (position [%], value) of its ticks."""

    colours: list[str]
    ticks: list[tuple[float, float]]
    below: bool  # whether there are values beyond the scale
    above: bool


def colour_bar(shown: np.ndarray, kind: MapKind, scale: Normalize, n_colours: int = 17) -> ColourBar:
    """The colour bar of a map that is already in displayed units, with ticks at both ends and at round values."""
    low, high = float(scale.vmin or 0.0), float(scale.vmax or 1.0)
    between = [(float(scale(value)), value) for value in MaxNLocator(4).tick_values(low, high)]
    ticks = [(0.0, low), *((at, value) for at, value in between if 0.15 < at < 0.78), (1.0, high)]
    colours = [to_hex(colour) for colour in colours_of(kind)(np.linspace(0, 1, n_colours))]
    beyond = bool(np.any(shown < low)), bool(np.any(shown > high))  # NaN is neither
    return ColourBar(colours, [(100 * at, value) for at, value in ticks], *beyond)
