"""What a person looks at after a job: the picture of the maps and the report."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..io.maps import Maps
from ..io.series import ImageSeries
from ..quantities import Status
from ..report.build import ReportInput, Varied, VoxelFits, main_names, report_html
from ..report.figures import maps_figure, png_bytes

Rows = Sequence[Mapping[str, object]]


def pages(
    series: ImageSeries,
    maps: Maps,
    *,
    label: str,
    main_map: str,
    curves: Callable[[tuple[np.ndarray, ...]], tuple[np.ndarray, np.ndarray]],
    regions: Rows,
    models: Rows,
    timings: Mapping[str, float],
    warnings: Sequence[str],
    command: str,
    versions: Mapping[str, str],
) -> dict[str, bytes]:
    """Draws a picture of the maps, named after the main one, and `report.html`.

    Args:
        series: the images.
        maps: maps of them.
        label: what the main map shows, in print.
        main_map: its name.
        curves: indices of voxels along x, y, z -> (point,) values of the series' axis [s] or [rad] and (voxel, point)
            fitted signals [a.u.].
        regions, models, timings, warnings, command, versions: see `ReportInput`.

    Returns:
        Content by file name.
    """
    axis = series.axis
    page = report_html(
        ReportInput(
            title=f"{label} map",
            maps=maps,
            affine=series.affine,
            varied=Varied(axis.term, axis.many, axis.symbol, axis.shown_unit, axis.shown(series.values).tolist()),
            status_names={int(status): status.name for status in Status},
            facts=_facts(series, maps),
            regions=regions,
            models=models,
            timings=timings,
            warnings=warnings,
            command=command,
            versions=versions,
            voxel_fits=_example_fits(series, maps, label, main_map, curves),
            images=series.data,
        )
    )
    picture = maps_figure(maps, series.affine, names=main_names(list(maps)))
    return {f"{main_map}.png": png_bytes(picture), "report.html": page.encode()}


def _facts(series: ImageSeries, maps: Maps) -> dict[str, str]:
    x, y, z, n = series.data.shape
    skipped = ", ".join(f"{count} {reason}" for reason, count in series.skipped.items())
    facts = {
        "Series": series.description,
        "Files": f"{series.n_files} {series.source_format}" + (f"; passed over: {skipped}" if skipped else ""),
        "Matrix": f"{x} × {y} × {z}, {n} {series.axis.many}",
        "Voxel": " × ".join(f"{edge:.3g}" for edge in series.voxel_size) + " mm",
        "Scanner": _words(series, "Manufacturer", "ManufacturersModelName"),
        "Field strength": _with_unit(series.acquisition, "MagneticFieldStrength", "T"),
        "Repetition time": _with_unit({**series.acquisition, **maps.metadata}, "RepetitionTime", "ms", 1e3),
        "Echo time": _with_unit(series.acquisition, "EchoTime", "ms", 1e3),
        "Flip angle": _with_unit(series.acquisition, "FlipAngle", "°"),
        "Model": str(maps.metadata["Equation"]),
        "Solver": str(maps.metadata["EstimationAlgorithm"]),
        "Noise": str(maps.metadata.get("Noise", "")),
        "Assumed": "; ".join(maps.metadata.get("Assumptions", ())),
    }
    return {label: text for label, text in facts.items() if text}


def _words(series: ImageSeries, *keys: str) -> str:
    return " ".join(str(series.acquisition[key]) for key in keys if key in series.acquisition)


def _with_unit(facts: Mapping[str, object], key: str, unit: str, per_stored: float = 1.0) -> str:
    value = facts.get(key)
    return f"{per_stored * value:g} {unit}" if isinstance(value, int | float) else ""


def _example_fits(
    series: ImageSeries, maps: Maps, label: str, main_map: str, curves: Callable, n_examples: int = 4
) -> VoxelFits | None:
    """Voxels at evenly spaced ranks of the main map, so that short, usual and long decays are all seen."""
    ok = np.flatnonzero(maps["status"] == Status.OK)
    if not len(ok):
        return None
    ranked = np.argsort(maps[main_map].ravel()[ok], kind="stable")
    ranks = np.linspace(0.05, 0.95, n_examples) * (len(ranked) - 1)
    chosen = np.unravel_index(ok[ranked[np.unique(ranks.round().astype(int))]], maps[main_map].shape)
    curve_x, signals = curves(chosen)
    extra = next((name for name in ("TB1map", "InversionEfficiency") if name in maps), None)
    symbol = "B1" if extra == "TB1map" else "efficiency"
    more = [""] * len(chosen[0]) if extra is None else [f", {symbol} = {value:.2f}" for value in maps[extra][chosen]]
    labels = [
        f"voxel ({x}, {y}, {z}): {label} = {_ms(t, 3)}{f' ± {_ms(e, 2)}' if np.isfinite(e) else ''} ms{words}"
        for x, y, z, t, e, words in zip(
            *chosen, maps[main_map][chosen], maps[f"{main_map}_stderr"][chosen], more, strict=True
        )
    ]
    return VoxelFits(series.data[chosen], series.axis.shown_per_si * curve_x, signals, labels)


def _ms(seconds: float, digits: int) -> str:
    """Milliseconds with some significant digits and no exponent."""
    decimals = digits - 1 - math.floor(math.log10(1e3 * seconds)) if seconds > 0 else 0
    return f"{1e3 * seconds:.{max(decimals, 0)}f}"
