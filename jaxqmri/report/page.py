"""The report of one job, and the page of one participant: single HTML files that need nothing but themselves.

Pictures are embedded, styles are inline, there is no script, and a content security policy forbids every request, so
a page can be mailed, archived and opened anywhere without telling anybody. The templates escape all text.
"""

import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.colors import to_rgb

from ..quantities import Axis, MapKind, Status, map_kind
from .colours import colour_bar, colour_scale, displayed, indexed, percentile_on_top
from .figures import histogram_figure, main_maps, maps_figure, png_bytes, voxel_fit_figure
from .slices import fullest_slice, plane_sheets, slice_sheet
from .tables import counted, number, quartiles, rows_table, shares, short, transposed, values_table

FIGURE_DPI = 110  # sharp at the width a figure has on the page; rendering time grows with its square
MAX_SLICES = 30  # on one sheet
WIDE = 980  # pixels of a sheet as wide as the page
# Wong, Nat Methods 8:441 (2011), told apart with any colour vision, and two for the usual statuses.
STATUS_COLOURS = ("#b9d3e6", "#4d545c", "#d55e00", "#e69f00", "#cc79a7", "#009e73", "#0072b2", "#f0e442")
_SIGNAL = MapKind("arbitrary", "measured signal", "signal", "amplitude", "a.u.", table="gray")


@dataclass(frozen=True)
class VoxelFits:
    """A few voxels as measured and as fitted."""

    measured: np.ndarray  # (voxel, n) [a.u.]
    curve_x: np.ndarray  # (point,) where the curves are given [SI unit of what varies]
    curves: np.ndarray  # (voxel, point) [a.u.]
    labels: Sequence[str]  # (voxel,) words
    used: np.ndarray | None = None  # (voxel, n) bool, False where a measurement is left out; None: all are in the fit


@dataclass(frozen=True)
class ReportInput:
    """All a report says."""

    title: str
    main_map: str  # the map that was asked for; the picture beside the report is named after it
    maps: Mapping[str, np.ndarray]  # BIDS suffix -> (x, y, z) map in SI units; "status" may be among them
    affine: np.ndarray  # (4, 4) voxel index -> RAS+ [mm]
    axis: Axis  # what the measured images differ in
    values: Sequence[float] | np.ndarray  # (n,) of it [s] or [rad]
    used: np.ndarray | None = None  # (n,) bool, False where an image is left out of the fit; None: all are in it
    facts: Mapping[str, str] = field(default_factory=dict)  # label -> text; never a patient's identity
    regions: Sequence[Mapping[str, object]] = ()  # rows under equal keys: each region's median and error
    models: Sequence[Mapping[str, object]] = ()  # rows likewise: the model that made the maps, and a simpler one
    timings: Mapping[str, float] = field(default_factory=dict)  # step -> seconds
    warnings: Sequence[str] = ()  # what was mended or passed over in the input
    command: str = ""  # how to run it again
    versions: Mapping[str, str] = field(default_factory=dict)  # program -> version
    voxel_fits: VoxelFits | None = None
    images: np.ndarray | None = None  # (x, y, z, n) measured images; None: they are left out


def report_files(report: ReportInput) -> dict[str, bytes]:
    """The report and a picture of the maps, by file name; see `report_html`."""
    picture = png_bytes(maps_figure(report.maps, report.affine))
    return {f"{report.main_map}.png": picture, "report.html": report_html(report).encode()}


def report_html(report: ReportInput) -> str:
    """The report as one self-contained HTML page.

    Args:
        report: everything it shows; empty parts are left out.

    Returns:
        A complete HTML document; write it as UTF-8.

    Raises:
        ValueError: there is no map besides "status", one has an unknown name, or the affine is singular.
    """
    status = report.maps.get("status")
    metadata = getattr(report.maps, "metadata", {})
    maps = {n: _ShownMap(map_kind(n, metadata), values, status) for n, values in report.maps.items() if n != "status"}
    if not maps:
        raise ValueError(f"maps needs at least one map besides 'status', got {sorted(report.maps)}.")
    names = main_maps(maps)
    main, n_slices = [maps[name] for name in names], maps[names[0]].indices.shape[2]
    k = fullest_slice(next((m for m in maps.values() if m.kind.relaxometry), main[0]).indices)
    every = np.unique(np.linspace(0, n_slices - 1, min(n_slices, MAX_SLICES)).round().astype(int))
    plotted = [name for name in names if maps[name].kind.role != "amplitude"]
    plotted += [error for name in plotted if (error := f"{name}_stderr") in maps]
    volumes = maps.values() if n_slices > 1 else ()
    return _render(
        "report.html",
        report=report,
        maps=list(maps.values()),
        values=values_table({m.kind.title: m.quartiles for m in maps.values()}),
        regions=rows_table(report.regions),
        models=transposed(rows_table(report.models)),
        acquisition=_acquisition(report),
        timings={step: f"{seconds:.2f} s" for step, seconds in report.timings.items()},
        masked=status is not None and bool(np.any(np.asarray(status) == Status.MASKED)),
        slice_index=k,
        n_slices=n_slices,
        main=[(m, slice_sheet(m.indices, m.palette, report.affine, chosen=[k])) for m in main],
        all_slices=[
            (m, slice_sheet(m.indices, m.palette, report.affine, chosen=every, widest=WIDE))
            for m in volumes
            if m.kind.role == "time"
        ],
        slice_labels=[f"slice {i}" for i in every],
        histograms=[
            (maps[n].kind, png_bytes(histogram_figure(report.maps[n], n, status=status, metadata=metadata), FIGURE_DPI))
            for n in plotted
        ],
        status=None if status is None else _status_part(np.asarray(status), report.affine, k),
        fits=_fit_plots(report),
        planes=[(m, plane_sheets(m.indices, m.palette, report.affine)) for m in volumes],
        measured=None if report.images is None else _measured_part(report, report.images, k),
    )


def participant_page(
    participant: str, records: Mapping[str, Mapping[str, Any]], problems: Mapping[str, str], out: Path
) -> str:
    """The page of one participant of a BIDS derivative: a picture, the numbers and the warnings of each series.

    Args:
        participant: label without `sub-`.
        records: what `write_record` wrote, by name of the series.
        problems: what is wrong with a series, by its name; it may have no record.
        out: the derivative, whose pictures are embedded and to whose reports the page links.
    """
    series = []
    for name in sorted({*records, *problems}):
        record = records.get(name, {})
        files = record.get("outputs", ())
        series.append(
            {
                "name": name,
                "row": record.get("row"),
                "kind": map_kind(record["row"]["map"]) if record else None,
                "warnings": [*filter(None, [problems.get(name)]), *record.get("warnings", ())],
                "pictures": [(out / file).read_bytes() for file in files if file.endswith(".png")],
                "reports": [file for file in files if file.endswith(".html")],
            }
        )
    return _render("participant.html", participant=participant, series=series)


class _ShownMap:
    """A map as the page shows it: voxels that are not OK have no value."""

    def __init__(self, kind: MapKind, values: np.ndarray, status: np.ndarray | None = None):
        shown = displayed(values, kind, status)  # not kept: all maps of a large volume would take gigabytes
        scale = colour_scale(shown, kind)
        self.kind = kind
        self.indices, self.palette = indexed(shown, kind, scale)
        self.bar = colour_bar(shown, kind, scale)
        self.quartiles = quartiles(shown)
        self.percentile = None if kind.limits else percentile_on_top(kind)


def _status_part(status: np.ndarray, affine: np.ndarray, slice_index: int) -> dict[str, Any]:
    """The rows of the table, and a picture where not all voxels are OK."""
    codes, counts = (found.tolist() for found in np.unique(status, return_counts=True))
    known = {int(member): (member.name, member.meaning) for member in Status}
    words = [known.get(code, (f"code {code}", "")) for code in codes]
    colours = [STATUS_COLOURS[code % len(STATUS_COLOURS)] for code in codes]
    rows = [(*row, *of) for *row, of in zip(colours, counts, shares(counts), words, strict=True)]
    palette = bytes(3) + bytes(round(255 * part) for colour in STATUS_COLOURS for part in to_rgb(colour))
    indices = (1 + status[:, :, [slice_index]] % len(STATUS_COLOURS)).astype(np.uint8)
    sheet = None if codes == [Status.OK] else slice_sheet(indices, palette, affine)
    return {"rows": rows, "sheet": sheet}


def _measured_part(report: ReportInput, images: np.ndarray, slice_index: int) -> dict[str, Any]:
    """The magnitudes of one slice under one grey scale, each with its value of what they differ in."""
    axis, n = report.axis, len(report.values)
    if images.shape[-1] != n:
        raise ValueError(f"values has {n} numbers, but images {images.shape} has {images.shape[-1]} on its last axis.")
    shown = _ShownMap(_SIGNAL, np.abs(images[:, :, slice_index]))
    used = np.ones(n, bool) if report.used is None else report.used
    labels = [
        f"{axis.symbol} {value:.4g} {axis.shown_unit}" + ("" if is_used else ", left out")
        for value, is_used in zip(axis.shown(report.values), used, strict=True)
    ]
    return {
        "map": shown,
        "labels": labels,
        "sheet": slice_sheet(shown.indices, shown.palette, report.affine, widest=WIDE),
    }


def _acquisition(report: ReportInput) -> dict[str, str]:
    axis, n = report.axis, len(report.values)
    values = ", ".join(f"{value:.4g}" for value in axis.shown(report.values))
    return {**report.facts, f"{axis.terms.capitalize()} ({n})": f"{values} {axis.shown_unit}"}


def _fit_plots(report: ReportInput) -> list[tuple[str, bytes]]:
    """One plot per voxel, its words outside: read on a telephone, and no curve hides another."""
    fits, axis = report.voxel_fits, report.axis
    if fits is None:
        return []
    x, curve_x, xlabel = axis.shown(report.values), axis.shown_per_si * fits.curve_x, f"{axis.term} [{axis.shown_unit}]"
    used = np.ones(fits.measured.shape, bool) if fits.used is None else fits.used
    voxels = zip(fits.labels, fits.measured, fits.curves, used, strict=True)
    figures = (
        (of, voxel_fit_figure(x, signal, curve_x, curve, xlabel, in_fit)) for of, signal, curve, in_fit in voxels
    )
    return [(label, png_bytes(figure, FIGURE_DPI)) for label, figure in figures]


def _css_size(png: bytes) -> tuple[int, ...]:
    """Width and height of a figure [CSS pixel]."""
    return tuple(round(96 * n / FIGURE_DPI) for n in struct.unpack(">II", png[16:24]))  # of its header, which is first


@cache
def _templates() -> Environment:
    # StrictUndefined: a name that is wrong in a template is an error, not an empty place on the page.
    loader = PackageLoader(__name__.rpartition(".")[0])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "number": number,
        "short": short,
        "counted": counted,
        "png_source": lambda png: f"data:image/png;base64,{b64encode(png).decode('ascii')}",
        "css_size": _css_size,
    }
    return environment


def _render(template: str, **content: Any) -> str:
    return _templates().get_template(template).render(content)
