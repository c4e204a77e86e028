"""The numbers of a report: quartiles, shares, and how they are printed."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Quartiles(NamedTuple):
    """Quartiles of the voxels that have a value, in displayed units; NaN where there is none."""

    lower: float
    median: float
    upper: float
    count: int


def quartiles(shown: np.ndarray) -> Quartiles:
    """Quartiles of a map in displayed units, see `colours.displayed`."""
    valid = shown[np.isfinite(shown)]
    lower, median, upper = np.percentile(valid, [25, 50, 75]).tolist() if valid.size else [math.nan] * 3
    return Quartiles(lower, median, upper, int(valid.size))


def shares(counts: Sequence[int]) -> list[float]:
    """Percentages with one decimal that add up to exactly 100 (largest remainders), or zeros if nothing was counted."""
    total = sum(counts)
    if total == 0:
        return [0.0] * len(counts)
    tenths = [1000 * count // total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: -(1000 * counts[i] % total))
    for i in by_remainder[: 1000 - sum(tenths)]:
        tenths[i] += 1
    return [tenth / 10 for tenth in tenths]


class Table(NamedTuple):
    """Headings, rows of words, and which columns hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Collection[int]


def values_table(rows: Mapping[str, Quartiles]) -> Table:
    """Median, quartiles and interquartile range of every map."""
    columns = ("map", "median", "quartile 1", "quartile 3", "IQR", "voxels")
    body = [
        (title, *map(number, (q.median, q.lower, q.upper, q.upper - q.lower)), counted(q.count))
        for title, q in rows.items()
    ]
    return Table(columns, body, range(1, 6))


def rows_table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Rows under equal keys, which become the headings."""
    columns = list(rows[0]) if rows else []
    body = [[row.get(key, "") for key in columns] for row in rows]
    numeric = [i for i in range(len(columns)) if all(isinstance(row[i], int | float) for row in body if row[i] != "")]
    words = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in body]
    return Table(columns, words, numeric)


def transposed(table: Table) -> Table:
    """A column a row, for few rows of many columns, since a telephone is narrow."""
    columns, *rows = zip(table.columns, *table.rows, strict=True) if table.rows else [()]
    return Table(columns, rows, range(1, len(columns)))


def number(value: float) -> str:
    """Three significant digits without an exponent, which a reader would have to undo; an en dash for no number."""
    if not math.isfinite(value):
        return "–"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(decimals, 6)}f}".replace(",", "\N{THIN SPACE}")


def counted(n: int) -> str:
    """A whole number with its thousands apart."""
    return f"{n:,}".replace(",", "\N{THIN SPACE}")


def short(value: float) -> str:
    """Three significant digits without zeros at the end."""
    return f"{float(f'{value:.3g}'):,.12g}".replace(",", "\N{THIN SPACE}")
