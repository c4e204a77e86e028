"""What a person looks at after a job: the picture of the maps and the report."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .estimation.fit import Status
from .figures import maps_figure, png_bytes
from .io.maps import Maps
from .io.series import ImageSeries
from .report import ReportInput, VoxelFits, main_names, report_html

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
        curves: indices of voxels along x, y, z -> (point,) times [s] and (voxel, point) fitted signals [a.u.].
        regions, models, timings, warnings, command, versions: see `ReportInput`.

    Returns:
        Content by file name.
    """
    page = report_html(
        ReportInput(
            title=f"{label} map",
            maps=maps,
            affine=series.affine,
            te=series.te,
            status_names={int(status): status.name for status in Status},
            facts=_facts(series, maps),
            regions=regions,
            models=models,
            timings=timings,
            warnings=warnings,
            command=command,
            versions=versions,
            voxel_fits=_example_fits(series, maps, label, main_map, curves),
            echoes=series.data,
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
        "Matrix": f"{x} × {y} × {z}, {n} echoes",
        "Voxel": " × ".join(f"{edge:.3g}" for edge in series.voxel_size) + " mm",
        "Scanner": _words(series, "Manufacturer", "ManufacturersModelName"),
        "Field strength": _with_unit(series, "MagneticFieldStrength", "T"),
        "Repetition time": _with_unit(series, "RepetitionTime", "s"),
        "Flip angle": _with_unit(series, "FlipAngle", "°"),
        "Model": str(maps.metadata["Equation"]),
        "Solver": str(maps.metadata["EstimationAlgorithm"]),
        "Assumed": "; ".join(maps.metadata.get("Assumptions", ())),
    }
    return {label: text for label, text in facts.items() if text}


def _words(series: ImageSeries, *keys: str) -> str:
    return " ".join(str(series.acquisition[key]) for key in keys if key in series.acquisition)


def _with_unit(series: ImageSeries, key: str, unit: str) -> str:
    value = series.acquisition.get(key)
    return f"{value:g} {unit}" if isinstance(value, int | float) else ""


def _example_fits(
    series: ImageSeries, maps: Maps, label: str, main_map: str, curves: Callable, n_examples: int = 4
) -> VoxelFits | None:
    """Voxels at evenly spaced ranks of the main map, so that short, usual and long decays are all seen."""
    ok = np.argwhere(maps["status"] == Status.OK)
    if not len(ok):
        return None
    ranked = ok[np.argsort(maps[main_map][tuple(ok.T)], kind="stable")]
    ranks = np.linspace(0.05, 0.95, n_examples) * (len(ranked) - 1)
    chosen = tuple(ranked[np.unique(ranks.round().astype(int))].T)
    curve_te, signals = curves(chosen)
    b1 = [f", B1 = {b1:.2f}" for b1 in maps["TB1map"][chosen]] if "TB1map" in maps else [""] * len(chosen[0])
    labels = [
        f"voxel ({x}, {y}, {z}): {label} = {1e3 * t:.3g}{f' ± {1e3 * e:.2g}' if np.isfinite(e) else ''} ms{words}"
        for x, y, z, t, e, words in zip(
            *chosen, maps[main_map][chosen], maps[f"{main_map}_stderr"][chosen], b1, strict=True
        )
    ]
    return VoxelFits(series.te, series.data[chosen], curve_te, signals, labels)
