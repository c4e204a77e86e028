"""The report of one job: a single HTML page that needs nothing but itself.

Pictures are embedded, styles are inline, there is no script, and a content security policy forbids every request, so
the page can be mailed, archived and opened anywhere without telling anybody. Text that comes from outside is escaped.
"""

import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from matplotlib.figure import Figure

from . import figures
from .colours import OK, displayed, map_style
from .report_page import PAGE, STYLE

STATUS_MEANINGS = {
    "OK": "fitted; the value can be used",
    "NO_SIGNAL": "every measurement is zero, nothing to fit",
    "NOT_FINITE": "a measurement, or a value given for the voxel, is not a usable number",
    "NOT_CONVERGED": "the solver found no minimum",
    "AT_BOUND": "outside what these measurements can tell apart, such as a signal that does not change",
    "UNIDENTIFIABLE": "the measurements do not determine all parameters",
    "MASKED": "outside the mask, not fitted",
}
FIGURE_DPI = 110  # sharp at the width a figure has on the page; rendering time grows with its square


@dataclass(frozen=True)
class Varied:
    """What the measured images differ in.

    Attributes:
        quantity: its name, singular: "echo time".
        many: what the images are called: "echoes".
        symbol: before a value: "TE".
        unit: after it: "ms".
        values: (n,) in this unit.
    """

    quantity: str
    many: str
    symbol: str
    unit: str
    values: Sequence[float]


@dataclass(frozen=True)
class VoxelFits:
    """A few voxels as measured and as fitted.

    Attributes:
        measured: (voxel, n) [a.u.].
        curve_x: (point,) where the curves are given, in the unit of what varies.
        curves: (voxel, point) [a.u.].
        labels: (voxel,) words.
    """

    measured: np.ndarray
    curve_x: np.ndarray
    curves: np.ndarray
    labels: Sequence[str]


@dataclass(frozen=True)
class ReportInput:
    """All a report says.

    Attributes:
        title: headline.
        maps: BIDS suffix -> (x, y, z) map in SI units; "status", integer codes with 0 = OK, may be among them.
        affine: (4, 4) voxel index -> RAS+ [mm].
        varied: what the images differ in.
        status_names: code -> name.
        status_meanings: name -> what it means for the reader; names without one are shown bare.
        facts: label -> text, what is known of the series (never a patient's identity).
        regions: rows of a table under equal keys, e.g. each region's median and error against the truth.
        models: rows of a table likewise, the model that made the maps against a simpler one.
        timings: step -> seconds.
        warnings: what was mended or passed over in the input.
        command: how to run it again.
        versions: program -> version.
        voxel_fits: a few voxels to look at, or None.
        images: (x, y, z, n) measured images, or None to leave them out.
    """

    title: str
    maps: Mapping[str, np.ndarray]
    affine: np.ndarray
    varied: Varied
    status_names: Mapping[int, str]
    status_meanings: Mapping[str, str] = field(default_factory=lambda: STATUS_MEANINGS)
    facts: Mapping[str, str] = field(default_factory=dict)
    regions: Sequence[Mapping[str, object]] = ()
    models: Sequence[Mapping[str, object]] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    voxel_fits: VoxelFits | None = None
    images: np.ndarray | None = None


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


def report_html(report: ReportInput) -> str:
    """The report as one self-contained HTML page.

    Args:
        report: everything it shows; empty parts are left out.

    Returns:
        A complete HTML document; write it as UTF-8.

    Raises:
        ValueError: there is no map besides "status", or the affine is singular.
    """
    names = [name for name in report.maps if name != "status"]
    if not names:
        raise ValueError(f"maps needs at least one map besides 'status', got {sorted(report.maps)}.")
    sections = [
        _headline(report, names),
        _section("Warnings", _warnings(report.warnings)),
        _section("Maps", _map_figures(report, names)),
        _section("Regions", _rows_table(report.regions)),
        _section("Models compared", _models(report.models)),
        _section("All slices", _mosaics(report, names)),
        _section("Distribution", _histograms(report, names)),
        _section("Voxels", _status(report, names)),
        _section("Fits of single voxels", _voxel_fits(report)),
        _section("Measured images", _measured(report)),
        _section("Acquisition", _acquisition(report)),
        _section("How it was made", _provenance(report)),
    ]
    return PAGE.format(title=escape(report.title), style=STYLE, body="\n".join(filter(None, sections)))


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>" if content else ""


def _number(value: float) -> str:
    """Three significant digits without an exponent, which a reader would have to undo; an en dash for no number."""
    if not math.isfinite(value):
        return "&ndash;"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(decimals, 6)}f}".replace(",", "&thinsp;")


def _headline(report: ReportInput, names: Sequence[str]) -> str:
    cards = []
    for name in names:
        s = summarise(report.maps[name], name, report.maps.get("status"))
        unit = f" <small>{escape(s.unit)}</small>" if s.unit else ""
        spread = f"{_number(s.lower)} to {_number(s.upper)}" if s.count else "no valid voxel"
        cards.append(
            f'<div class="card"><div class="label">{escape(s.title)}</div>'
            f'<div class="value">{_number(s.median)}{unit}</div><div class="spread">{spread}</div></div>'
        )
    return (
        f'<div class="cards">{"".join(cards)}</div>\n'
        '<p class="note">Median of the fitted voxels; below it, the first to the third quartile.</p>'
    )


def _image(figure: Figure, alt: str, caption: str = "", kind: str = "") -> str:
    data = b64encode(figures.png_bytes(figure, FIGURE_DPI)).decode("ascii")
    width = round(figure.get_size_inches()[0] * 96)  # CSS pixels
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="{kind}"><img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{width}">'
        f"{text}</figure>"
    )


def _shown_slice(report: ReportInput, names: Sequence[str]) -> int:
    """The slice all pictures of the report show: the one with most values in the first relaxometry map."""
    first = next((name for name in names if map_style(name).relaxometry), names[0])
    return figures.fullest_slice(displayed(report.maps[first], map_style(first), report.maps.get("status")))


def main_names(names: Sequence[str]) -> list[str]:
    """Amplitude, first relaxation time, transmit field or inversion, misfit: what tells whether a fit can be believed.

    Args:
        names: the maps there are.

    Returns:
        Those of them to be shown; where none is of these kinds, the first.
    """
    wanted = [("S0map", "M0map"), ("T2starmap", "T2map", "T1map"), ("TB1map", "InversionEfficiency"), ("residual",)]
    found = [next((name for name in group if name in names), None) for group in wanted]
    return [name for name in found if name] or list(names[:1])


def _map_figures(report: ReportInput, names: Sequence[str]) -> str:
    k, n_slices = _shown_slice(report, names), np.shape(report.maps[names[0]])[2]
    pictures = []
    for name in main_names(names):
        # One picture per map, so that a narrow screen can stack them.
        figure = figures.maps_figure(report.maps, report.affine, names=(name,), slice_index=k)
        pictures.append(_image(figure, f"Map of {map_style(name).title}, slice {k} of {n_slices}", kind="panel"))
    note = f"Slice {k} of 0 to {n_slices - 1}. " if n_slices > 1 else ""
    return (
        f'<div class="panels">{"".join(pictures)}</div>\n<p class="note">{note}Black: no value. '
        "Colours after Fuderer et al., "
        '<a href="https://doi.org/10.1002/mrm.30290" rel="noreferrer">doi:10.1002/mrm.30290</a>.</p>'
    )


def _mosaics(report: ReportInput, names: Sequence[str]) -> str:
    shown = [name for name in main_names(names) if map_style(name).relaxometry]
    if np.shape(report.maps[names[0]])[2] < 2:
        return ""
    status = report.maps.get("status")
    return "".join(
        _image(
            figures.mosaic_figure(report.maps[name], name, report.affine, status=status),
            f"All slices of the map of {map_style(name).title}",
        )
        for name in shown
    )


def _histograms(report: ReportInput, names: Sequence[str]) -> str:
    wanted = [name for name in main_names(names) if name not in ("S0map", "M0map")]
    pictures = []
    for name in wanted:
        style, values = map_style(name), report.maps[name]
        figure = figures.histogram_figure(values, name, status=report.maps.get("status"))
        pictures.append(_image(figure, f"Histogram of {style.title}", kind="plot"))
    return f'<div class="panels">{"".join(pictures)}</div>' if pictures else ""


def _status(report: ReportInput, names: Sequence[str]) -> str:
    if "status" not in report.maps:
        return ""
    status = np.asarray(report.maps["status"])
    codes, counts = (a.tolist() for a in np.unique(status, return_counts=True))
    rows = []
    for code, count, share in zip(codes, counts, shares(counts), strict=True):
        name = report.status_names.get(code, f"code {code}")
        rows.append((name, f"{count:,}".replace(",", " "), f"{share:.1f} %", report.status_meanings.get(name, "")))
    table = _table(("status", "voxels", "share", "meaning"), rows, numeric=(1, 2))
    if codes == [OK]:
        return table
    k = _shown_slice(report, names)
    figure = figures.status_figure(status, report.status_names, report.affine, slice_index=k)
    return f'<div class="beside">{table}{_image(figure, f"Status of the voxels of slice {k}", kind="plot")}</div>'


def _voxel_fits(report: ReportInput) -> str:
    fits = report.voxel_fits
    if fits is None:
        return ""
    x, xlabel = np.asarray(report.varied.values), f"{report.varied.quantity} [{report.varied.unit}]"
    figure = figures.voxel_fit_figure(x, fits.measured, fits.curve_x, fits.curves, fits.labels, xlabel)
    return _image(figure, "Measured signal (points) and fitted curves of " + ", ".join(fits.labels), kind="plot")


def _measured(report: ReportInput) -> str:
    if report.images is None:
        return ""
    k = _shown_slice(report, [name for name in report.maps if name != "status"])
    varied = report.varied
    figure = figures.echo_figure(
        report.images, varied.values, report.affine, slice_index=k, symbol=varied.symbol, unit=varied.unit
    )
    return _image(figure, f"The measured images of slice {k}: {len(varied.values)} {varied.many}")


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def _acquisition(report: ReportInput) -> str:
    varied = report.varied
    values = ", ".join(f"{value:.4g}" for value in varied.values)
    name = f"{varied.quantity.capitalize()}s ({len(varied.values)})"
    return _facts({**report.facts, name: f"{values} {varied.unit}"})


def _provenance(report: ReportInput) -> str:
    command = f"<pre>{escape(report.command)}</pre>" if report.command else ""
    timings = {step: f"{seconds:.2f} s" for step, seconds in report.timings.items()}
    tables = [_facts(part) for part in (report.versions, timings) if part]
    return command + (f'<div class="beside">{"".join(tables)}</div>' if tables else "")


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>' for k, v in facts.items())
    return f'<div class="scroll"><table class="facts">{rows}</table></div>'


def _models(rows: Sequence[Mapping[str, object]]) -> str:
    if not rows:
        return ""
    return _rows_table(rows) + (
        '<p class="note">Medians over the voxels where both models have an answer. Rms misfit to mono: root mean '
        "square misfit over that of the mono-exponential; by noise alone: what this ratio would be, for the parameter "
        "more, if all misfit were noise; share better: voxels that the model fits better.</p>"
    )


def _rows_table(rows: Sequence[Mapping[str, object]]) -> str:
    if not rows:
        return ""
    columns = list(rows[0])
    numeric = [
        i for i, key in enumerate(columns) if all(isinstance(row[key], int | float) for row in rows if key in row)
    ]
    return _table(columns, [[_cell(row.get(key, "")) for key in columns] for row in rows], numeric)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int]) -> str:
    def cells(row: Sequence[str], opening: Callable[[str], str], closing: str) -> str:
        return "".join(
            opening(' class="number"' if i in numeric else "") + escape(text) + closing for i, text in enumerate(row)
        )

    head = cells(columns, lambda attribute: f'<th scope="col"{attribute}>', "</th>")
    body = "".join(f"<tr>{cells(row, lambda attribute: f'<td{attribute}>', '</td>')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
