"""The colours of parameter maps: which table, which limits, which scale.

Relaxometry maps follow Fuderer et al., "Color-map recommendation for MR relaxometry maps", Magn Reson Med 2025
(doi:10.1002/mrm.30290): lipari for T1 and R1, navia for T2, T2*, R2 and R2*, reversed for rates, a log-remapped scale
between fixed limits, black where there is no value. The tables are Fabio Crameri's (doi:10.5281/zenodo.1243862), as
packaged by cmcrameri.
"""

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, FuncNorm, ListedColormap, Normalize
from numpy.typing import ArrayLike

OK = 0  # status code of a voxel that can be trusted


@dataclass(frozen=True)
class MapStyle:
    """How one kind of map is shown.

    Attributes:
        label: the quantity as it is printed ("T2*").
        unit: the unit on display, "" for a number without one.
        factor: stored (SI) value times `factor` = displayed value.
        table: colour table, from cmcrameri or matplotlib.
        limits: ends of the colour scale in displayed units, or None: from 0 to the `percentile` of the valid voxels.
        percentile: see `limits`.
        relaxometry: log-remapped scale, values that are not positive are no values.
        reverse: the colour table runs backwards (rates).
    """

    label: str
    unit: str
    factor: float
    table: str
    limits: tuple[float, float] | None = None
    percentile: float = 99.5
    relaxometry: bool = False
    reverse: bool = False

    @property
    def title(self) -> str:
        return f"{self.label} [{self.unit}]" if self.unit else self.label


def _time(label: str, table: str, upper_ms: float) -> MapStyle:
    return MapStyle(label, "ms", 1e3, table, (0.0, upper_ms), relaxometry=True)


def _rate(label: str, table: str, upper: float) -> MapStyle:
    return MapStyle(label, "1/s", 1.0, table, (0.0, upper), relaxometry=True, reverse=True)


# Limits are fixed so that two subjects, or one subject twice, can be compared by eye. They hold the soft tissues at 1.5
# and 3 T and let fluid saturate: T2* of brain 30-70 ms and kidney 20-60 ms; T2 of muscle 30 ms to prostate 150 ms; T1
# of fat 350 ms to grey matter 1800 ms, with room for oedema. Rates end at short times: T1 0.33 s, T2 20 ms, T2* 5 ms as
# in an iron-loaded liver. The relative error of a usable fit is a few per cent; at 20 % the model does not hold.
_STYLES = {
    "T1map": _time("T1", "lipari", 3000.0),
    "T2map": _time("T2", "navia", 200.0),
    "T2starmap": _time("T2*", "navia", 100.0),
    "R1map": _rate("R1", "lipari", 3.0),
    "R2map": _rate("R2", "navia", 50.0),
    "R2starmap": _rate("R2*", "navia", 200.0),
    "S0map": MapStyle("S0", "a.u.", 1.0, "gray"),
    "M0map": MapStyle("M0", "a.u.", 1.0, "gray"),
    "TB1map": MapStyle("B1", "", 1.0, "coolwarm", (0.5, 1.5)),  # grey where the flip angle is as wanted
    "InversionEfficiency": MapStyle("inversion efficiency", "", 1.0, "batlow", (0.6, 1.1)),
    "residual": MapStyle("relative error", "%", 1e2, "acton", (0.0, 20.0)),
}


def map_style(name: str) -> MapStyle:
    """Style of a map by its BIDS suffix, e.g. "T2starmap" or "T2starmap_stderr".

    Standard errors take the unit of their map and a scale from 0 to their own 98th percentile: they tell where a map is
    weak, not how one scan compares with another. A name not listed is shown without unit on a scale of its own.
    """
    if name in _STYLES:
        return _STYLES[name]
    base = _STYLES.get(name.removesuffix("_stderr"))
    if base is not None:
        return MapStyle(f"{base.label} standard error", base.unit, base.factor, "acton", percentile=98.0)
    return MapStyle(name, "", 1.0, "acton")


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


def displayed(values: np.ndarray, style: MapStyle, status: np.ndarray | None = None) -> np.ndarray:
    """Values in displayed units as float32, NaN where there is none: not finite, status not OK, or relaxometry <= 0."""
    values = np.asarray(values, dtype=np.float32)
    valid = np.isfinite(values)
    if status is not None:
        valid &= np.asarray(status) == OK
    if style.relaxometry:
        valid &= values > 0
    return np.where(valid, values * np.float32(style.factor), np.float32(np.nan))


def scale_limits(shown: np.ndarray, style: MapStyle) -> tuple[float, float]:
    """Ends of the colour scale of a map that is already in displayed units, see `displayed`."""
    if style.limits is not None:
        return style.limits
    finite = shown[np.isfinite(shown)]
    top = float(np.percentile(finite, style.percentile)) if finite.size else 1.0
    return 0.0, top if top > 0 else 1.0


def colour_scale(shown: np.ndarray, style: MapStyle) -> Normalize:
    """The colour scale of a map that is already in displayed units; ticks of its colour bar are true values."""
    low, high = scale_limits(shown, style)
    if not style.relaxometry:
        return Normalize(low, high)
    there, back = partial(log_remap, low=low, high=high), partial(log_remap_inverse, low=low, high=high)
    return FuncNorm((there, back), vmin=low, vmax=high)
