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

STATUS_MEANINGS = {
    "OK": "fitted; the value can be used",
    "NO_SIGNAL": "every measurement is zero, nothing to fit",
    "NOT_FINITE": "a measurement, or a value given for the voxel, is not a usable number",
    "NOT_CONVERGED": "the solver found no minimum",
    "AT_BOUND": "outside what these measurements can tell apart, such as a signal that does not decay",
    "UNIDENTIFIABLE": "the measurements do not determine all parameters",
    "MASKED": "outside the mask, not fitted",
}
FIGURE_DPI = 110  # sharp at the width a figure has on the page; rendering time grows with its square


@dataclass(frozen=True)
class VoxelFits:
    """A few voxels as measured and as fitted.

    Attributes:
        te: (echo,) [s].
        measured: (voxel, echo) [a.u.].
        curve_te: (point,) [s].
        curves: (voxel, point) [a.u.].
        labels: (voxel,) words.
    """

    te: np.ndarray
    measured: np.ndarray
    curve_te: np.ndarray
    curves: np.ndarray
    labels: Sequence[str]


@dataclass(frozen=True)
class ReportInput:
    """All a report says.

    Attributes:
        title: headline.
        maps: BIDS suffix -> (x, y, z) map in SI units; "status", integer codes with 0 = OK, may be among them.
        affine: (4, 4) voxel index -> RAS+ [mm].
        te: (echo,) echo times [s].
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
        echoes: (x, y, z, echo) measured images, or None to leave them out.
    """

    title: str
    maps: Mapping[str, np.ndarray]
    affine: np.ndarray
    te: np.ndarray
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
    echoes: np.ndarray | None = None


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
        _section("Measured images", _echoes(report)),
        _section("Acquisition", _acquisition(report)),
        _section("How it was made", _provenance(report)),
    ]
    return _PAGE.format(title=escape(report.title), style=_STYLE, body="\n".join(filter(None, sections)))


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
    """Amplitude, first relaxation time, transmit field, misfit: what tells at a glance whether a fit can be believed.

    Args:
        names: the maps there are.

    Returns:
        Those of them to be shown; where none is of these kinds, the first.
    """
    wanted = [("S0map", "M0map"), ("T2starmap", "T2map", "T1map"), ("TB1map",), ("residual",)]
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
    figure = figures.voxel_fit_figure(1e3 * fits.te, fits.measured, 1e3 * fits.curve_te, fits.curves, fits.labels)
    return _image(figure, "Measured signal (points) and fitted curves of " + ", ".join(fits.labels), kind="plot")


def _echoes(report: ReportInput) -> str:
    if report.echoes is None:
        return ""
    k = _shown_slice(report, [name for name in report.maps if name != "status"])
    figure = figures.echo_figure(report.echoes, (1e3 * report.te).tolist(), report.affine, slice_index=k)
    return _image(figure, f"The {len(report.te)} measured echoes of slice {k}")


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def _acquisition(report: ReportInput) -> str:
    te_ms = ", ".join(f"{te:.4g}" for te in 1e3 * np.asarray(report.te))
    return _facts({**report.facts, f"Echo times ({len(report.te)})": f"{te_ms} ms"})


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


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --paper: #ffffff; --card: #f4f6f8; --ink: #1c2126; --faint: #5b646d; --line: #dde2e7; --warn: #fff5e0;
  --warn-line: #e69f00; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --card: #1e2328; --ink: #e8ebee; --faint: #a2abb4; --line: #333a41; --warn: #33290f;
    --warn-line: #e69f00; --link: #79b8ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; }
.card { background: var(--card); border-radius: 8px; padding: .8rem 1rem; }
.label { color: var(--faint); font-size: .85rem; }
.value { font-size: 1.55rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.value small { font-size: .95rem; font-weight: 400; color: var(--faint); }
.spread, .note, figcaption { color: var(--faint); font-size: .85rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: .75rem; }
figure { margin: 0 0 .75rem; background: #ffffff; border-radius: 8px; padding: .5rem; text-align: center;
  border: 1px solid var(--line); }
.panels figure { margin: 0; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 1.25rem;
  align-items: start; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
.facts th { font-weight: 400; color: var(--faint); white-space: nowrap; width: 1%; }
.facts td { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-line); border-radius: 4px; margin: 0;
  padding: .7rem 1rem .7rem 2rem; overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; font-size: .88rem; }
a { color: var(--link); }
@media (max-width: 480px) { main { padding: 1.2rem .8rem 3rem; } h1 { font-size: 1.4rem; }
  table { font-size: .82rem; } th, td { padding-right: .6rem; } }
@media print { section { break-inside: avoid; } body { font-size: 12px; } }
"""
