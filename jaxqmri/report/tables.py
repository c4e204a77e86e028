"""The numbers of a report: values of the maps, status of the voxels, models and regions compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from . import markup as report_markup
from .colours import displayed, map_style
from .input import ReportInput
from .markup import note, number, table


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of a map's valid voxels, in displayed units; NaN where there are none."""

    title: str
    unit: str
    median: float
    lower: float
    upper: float
    count: int


def summarise(values: np.ndarray, name: str, status: np.ndarray | None = None) -> Summary:
    """Median and quartiles of one map over its valid voxels.

    Args:
        values: any shape, SI units.
        name: the map's name, see `colours.map_style`.
        status: codes of the same shape; voxels that are not OK do not count.
    """
    style = map_style(name)
    shown = displayed(values, style, status)
    valid = shown[np.isfinite(shown)]
    quartiles = np.percentile(valid, [25, 50, 75]) if valid.size else np.full(3, np.nan)
    lower, median, upper = (float(q) for q in quartiles)
    return Summary(style.label, style.unit, median, lower, upper, int(valid.size))


def shares(counts: Sequence[int]) -> list[float]:
    """Percentages with one decimal that add up to exactly 100 (largest remainders), or zeros if nothing was counted."""
    total = sum(counts)
    if total == 0:
        return [0.0] * len(counts)
    tenths = [1000 * count // total for count in counts]
    remainders = [1000 * count % total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: -remainders[i])
    for i in by_remainder[: 1000 - sum(tenths)]:
        tenths[i] += 1
    return [tenth / 10 for tenth in tenths]


def cards(report: ReportInput, names: Sequence[str]) -> str:
    """The medians in large print."""
    found = []
    for name in names:
        s = summarise(report.maps[name], name, report.maps.get("status"))
        unit = f" <small>{escape(s.unit)}</small>" if s.unit else ""
        spread = f"{number(s.lower)} to {number(s.upper)}" if s.count else "no valid voxel"
        found.append((s.title, f"{number(s.median)}{unit}", spread))
    return f"{report_markup.cards(found)}\n" + note(
        "Median of the fitted voxels; below it, the first to the third quartile."
    )


def values_table(report: ReportInput, names: Sequence[str]) -> str:
    """Median, quartiles and interquartile range of every map over its valid voxels."""
    rows = []
    for name in names:
        s = summarise(report.maps[name], name, report.maps.get("status"))
        numbers = [number(x) for x in (s.median, s.lower, s.upper, s.upper - s.lower)]
        rows.append([escape(map_style(name).title), *numbers, counted(s.count)])
    columns = ("map", "median", "quartile 1", "quartile 3", "IQR", "voxels")
    within = "inside the mask and " if has_mask(report) else ""
    return table(columns, rows, range(1, 6), "Values of the maps") + note(
        f"Voxels that are {within}fitted (status OK). IQR: quartile 3 minus quartile 1."
    )


def has_mask(report: ReportInput) -> bool:
    """Whether voxels were left out by a mask."""
    masked = [code for code, name in report.status_names.items() if name == "MASKED"]
    return "status" in report.maps and bool(np.isin(report.maps["status"], masked).any())


def status_table(report: ReportInput) -> str:
    """How many voxels ended how, and what that means."""
    codes, counts = (a.tolist() for a in np.unique(np.asarray(report.maps["status"]), return_counts=True))
    rows = []
    for code, count, share in zip(codes, counts, shares(counts), strict=True):
        name = report.status_names.get(code, f"code {code}")
        meaning = report.status_meanings.get(name, "")
        words = f' <span class="meaning">{escape(meaning)}</span>' if meaning else ""
        rows.append((escape(name) + words, counted(count), f"{share:.1f} %"))
    return table(("status", "voxels", "share"), rows, (1, 2), "Status of the voxels")


def models_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Models side by side: a quantity a row, since there are more of them, and a telephone is narrow."""
    if not rows:
        return ""
    naming, *quantities = rows[0]
    body = [[escape(quantity), *(_cell(row.get(quantity, "")) for row in rows)] for quantity in quantities]
    columns = [naming, *(str(row.get(naming, "")) for row in rows)]
    return table(columns, body, range(1, len(columns)), "Models compared") + note(
        "Medians over the voxels where both models have an answer. Rms misfit to mono: root mean "
        "square misfit over that of the mono-exponential; by noise alone: what this ratio would be, for the parameter "
        "more, if all misfit were noise; share better: voxels that the model fits better."
    )


def rows_table(rows: Sequence[Mapping[str, object]], label: str) -> str:
    """A table of rows under equal keys."""
    if not rows:
        return ""
    columns = list(rows[0])
    numeric = [
        i for i, key in enumerate(columns) if all(isinstance(row[key], int | float) for row in rows if key in row)
    ]
    return table(columns, [[_cell(row.get(key, "")) for key in columns] for row in rows], numeric, label)


def counted(n: int) -> str:
    """A whole number with its thousands apart."""
    return f"{n:,}".replace(",", "&thinsp;")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
