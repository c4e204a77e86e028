"""The pictures of a report, each within its HTML."""

from collections.abc import Sequence

import numpy as np

from . import figures
from .colours import OK, MapStyle, colour_scale, displayed, map_style
from .input import ReportInput
from .markup import image, note, number, panels, picture
from .planes import colour_stops, plane_sheets
from .tables import status_table

_AMPLITUDES = ("S0map", "M0map")


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


def shown_slice(report: ReportInput, names: Sequence[str]) -> int:
    """The slice all pictures of the report show: the one with most values in the first relaxometry map."""
    first = next((name for name in names if map_style(name).relaxometry), names[0])
    return figures.fullest_slice(displayed(report.maps[first], map_style(first), report.maps.get("status")))


def map_pictures(report: ReportInput, names: Sequence[str]) -> str:
    """The main maps of one slice, large."""
    k, n_slices = shown_slice(report, names), np.shape(report.maps[names[0]])[2]
    pictures = []
    for name in main_names(names):
        # One picture per map, so that a narrow screen can stack them.
        figure = figures.maps_figure(report.maps, report.affine, names=(name,), slice_index=k)
        pictures.append(image(figure, f"Map of {map_style(name).title}, slice {k} of {n_slices}"))
    which = f"Slice {k} of 0 to {n_slices - 1}. " if n_slices > 1 else ""
    return panels(pictures) + note(
        f"{which}Black: no value. Colours after Fuderer et al., "
        '<a href="https://doi.org/10.1002/mrm.30290" rel="noreferrer">doi:10.1002/mrm.30290</a>.'
    )


def slice_mosaics(report: ReportInput, names: Sequence[str]) -> str:
    """All slices of the map that was asked for; nothing of a single slice."""
    if np.shape(report.maps[names[0]])[2] < 2:
        return ""
    status = report.maps.get("status")
    return "".join(
        image(
            figures.mosaic_figure(report.maps[name], name, report.affine, status=status),
            f"All slices of the map of {map_style(name).title}",
        )
        for name in main_names(names)
        if map_style(name).relaxometry
    )


def plane_mosaics(report: ReportInput, names: Sequence[str]) -> str:
    """Every map cut along three planes, with its colour bar; nothing of a single slice."""
    if np.shape(report.maps[names[0]])[2] < 2:
        return ""
    return "".join(_planes_of(report, name) for name in names)


def _planes_of(report: ReportInput, name: str) -> str:
    style = map_style(name)
    shown = displayed(report.maps[name], style, report.maps.get("status"))
    sheets = plane_sheets(shown, style, report.affine)
    pictures = [
        picture(
            sheet.png,
            (sheet.width, sheet.height),
            f"{sheet.plane.capitalize()} cuts through the map of {style.title}",
            f"{sheet.plane.capitalize()}, {sheet.axis} = {', '.join(map(str, sheet.positions))}; "
            f"left {sheet.letters[0]}, top {sheet.letters[2]}",
            "cuts",
        )
        for sheet in sheets
    ]
    return f"<h3>{style.title}</h3>\n{_colour_bar(shown, style)}{panels(pictures)}" if pictures else ""


def _colour_bar(shown: np.ndarray, style: MapStyle) -> str:
    scale = colour_scale(shown, style)
    low, middle, high = (number(float(scale.inverse(fraction))) for fraction in (0.0, 0.5, 1.0))
    kind = (
        "The same scale in every report."
        if style.limits
        else f"The scale ends at the {style.percentile:g}th percentile of this scan."
    )
    gradient = f"linear-gradient(to right, {', '.join(colour_stops(style))})"
    return (
        f'<div class="bar"><span>{low}</span><span>{middle}</span><span>{high} {style.unit}</span>'
        f'<i aria-hidden="true" style="background: {gradient}"></i></div>{note(kind)}'
    )


def histograms(report: ReportInput, names: Sequence[str]) -> str:
    """How often each value occurs, of the main maps and the standard errors."""
    main = [name for name in main_names(names) if name not in _AMPLITUDES]
    errors = [name for name in names if name.endswith("_stderr") and name.removesuffix("_stderr") in main]
    return panels(
        [
            image(
                figures.histogram_figure(report.maps[name], name, status=report.maps.get("status")),
                f"Histogram of {map_style(name).title}",
            )
            for name in main + errors
        ]
    )


def status_picture(report: ReportInput, names: Sequence[str]) -> str:
    """The table of what became of the voxels beside a picture of it, which tells nothing where all is well."""
    if "status" not in report.maps:
        return ""
    status = np.asarray(report.maps["status"])
    if np.all(status == OK):
        return status_table(report)
    k = shown_slice(report, names)
    figure = figures.status_figure(status, report.status_names, report.affine, slice_index=k)
    return f'<div class="beside">{status_table(report)}{image(figure, f"Status of the voxels of slice {k}")}</div>'


def voxel_fits(report: ReportInput) -> str:
    """A plot for each of a few voxels."""
    fits = report.voxel_fits
    if fits is None:
        return ""
    x, xlabel = np.asarray(report.varied.values), f"{report.varied.quantity} [{report.varied.unit}]"

    def plot(i: int, label: str) -> str:
        one = slice(i, i + 1)
        # One plot per voxel, its words outside: read on a telephone, and no curve hides another.
        figure = figures.voxel_fit_figure(
            x, fits.measured[one], fits.curve_x, fits.curves[one], [label], xlabel, legend=False
        )
        return image(figure, f"Measured signal (points) and fitted curve of {label}", label)

    return panels([plot(i, label) for i, label in enumerate(fits.labels)])


def measured_images(report: ReportInput, names: Sequence[str]) -> str:
    """The measured images of one slice."""
    if report.images is None:
        return ""
    k, varied = shown_slice(report, names), report.varied
    figure = figures.echo_figure(
        report.images, varied.values, report.affine, slice_index=k, symbol=varied.symbol, unit=varied.unit
    )
    return image(figure, f"The measured images of slice {k}: {len(varied.values)} {varied.many}")
