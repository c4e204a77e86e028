"""The report of one job: a single HTML page that needs nothing but itself.

Pictures are embedded, styles are inline, there is no script, and a content security policy forbids every request, so
the page can be mailed, archived and opened anywhere without telling anybody. Text that comes from outside is escaped.
"""

from collections.abc import Sequence
from html import escape

from . import pictures, tables
from .input import STATUS_MEANINGS, ReportInput, Varied, VoxelFits
from .markup import facts, section, warning_list
from .page import FOOTER, PAGE, STYLE
from .pictures import main_names
from .tables import Summary, shares, summarise

__all__ = [
    "STATUS_MEANINGS",
    "ReportInput",
    "Summary",
    "Varied",
    "VoxelFits",
    "main_names",
    "report_html",
    "shares",
    "summarise",
]


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
    parts = [
        ("warnings", "Warnings", warning_list(report.warnings)),
        ("maps", "Maps", pictures.map_pictures(report, names)),
        ("values", "Values", tables.values_table(report, names)),
        ("regions", "Regions", tables.rows_table(report.regions, "Regions")),
        ("models", "Models compared", tables.models_table(report.models)),
        ("slices", "All slices", pictures.slice_mosaics(report, names)),
        ("distribution", "Distribution", pictures.histograms(report, names)),
        ("voxels", "Voxels", pictures.status_picture(report, names)),
        ("fits", "Fits of single voxels", pictures.voxel_fits(report)),
        ("mosaics", "Mosaics of every map", pictures.plane_mosaics(report, names)),
        ("measured", "Measured images", pictures.measured_images(report, names)),
        ("acquisition", "Acquisition", _acquisition(report)),
        ("provenance", "How it was made", _provenance(report)),
    ]
    there = [(name, heading) for name, heading, content in parts if content]
    body = [_contents(there), tables.cards(report, names), *(section(*part) for part in parts if part[2]), FOOTER]
    return PAGE.format(title=escape(report.title), style=STYLE, body="\n".join(body))


def _contents(there: Sequence[tuple[str, str]]) -> str:
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading in there)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _acquisition(report: ReportInput) -> str:
    varied = report.varied
    values = ", ".join(f"{value:.4g}" for value in varied.values)
    name = f"{varied.quantity.capitalize()}s ({len(varied.values)})"
    return facts({**report.facts, name: f"{values} {varied.unit}"}, "Acquisition")


def _provenance(report: ReportInput) -> str:
    command = f"<pre>{escape(report.command)}</pre>" if report.command else ""
    timings = {step: f"{seconds:.2f} s" for step, seconds in report.timings.items()}
    parts = [facts(rows, label) for rows, label in ((report.versions, "Versions"), (timings, "Timings")) if rows]
    return command + (f'<div class="beside">{"".join(parts)}</div>' if parts else "")
