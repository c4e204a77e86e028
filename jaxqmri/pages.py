"""What a person looks at after a job: the picture of the maps and the report."""

from collections.abc import Mapping, Sequence

import numpy as np

from .estimation.fit import Status
from .figures import maps_figure, png_bytes
from .io.maps import Maps
from .io.series import ImageSeries
from .models.base import simulate
from .models.decay import Decay, MonoExponential
from .report import ReportInput, VoxelFits, report_html


def pages(
    series: ImageSeries,
    maps: Maps,
    *,
    regions: Sequence[Mapping[str, object]],
    timings: Mapping[str, float],
    warnings: Sequence[str],
    command: str,
    versions: Mapping[str, str],
) -> dict[str, bytes]:
    """Draws `T2starmap.png` and `report.html`.

    Args:
        series: the images.
        maps: T2* maps of them.
        regions, timings, warnings, command, versions: see `ReportInput`.

    Returns:
        Content by file name.
    """
    page = report_html(
        ReportInput(
            title="T2* map",
            maps=maps,
            affine=series.affine,
            te=series.te,
            status_names={int(status): status.name for status in Status},
            facts=_facts(series, maps),
            regions=regions,
            timings=timings,
            warnings=warnings,
            command=command,
            versions=versions,
            voxel_fits=_example_fits(series, maps),
            echoes=series.data,
        )
    )
    return {"T2starmap.png": png_bytes(maps_figure(maps, series.affine)), "report.html": page.encode()}


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
    }
    return {label: text for label, text in facts.items() if text}


def _words(series: ImageSeries, *keys: str) -> str:
    return " ".join(str(series.acquisition[key]) for key in keys if key in series.acquisition)


def _with_unit(series: ImageSeries, key: str, unit: str) -> str:
    value = series.acquisition.get(key)
    return f"{value:g} {unit}" if isinstance(value, int | float) else ""


def _example_fits(series: ImageSeries, maps: Maps, n_examples: int = 4) -> VoxelFits | None:
    """Voxels at evenly spaced ranks of T2*, so that short, usual and long decays are all seen."""
    ok = np.argwhere(maps["status"] == Status.OK)
    if not len(ok):
        return None
    by_t2star = ok[np.argsort(maps["T2starmap"][tuple(ok.T)], kind="stable")]
    ranks = np.linspace(0.05, 0.95, n_examples) * (len(by_t2star) - 1)
    chosen = tuple(by_t2star[np.unique(ranks.round().astype(int))].T)
    t2star, stderr = maps["T2starmap"][chosen], maps["T2starmap_stderr"][chosen]
    curve_te = np.linspace(0, series.te[-1] * 1.05, 100)
    curves = simulate(MonoExponential(curve_te), Decay(s0=maps["S0map"][chosen], t2=t2star))  # pyright: ignore
    labels = [
        f"voxel ({x}, {y}, {z}): T2* = {1e3 * t:.3g}{f' ± {1e3 * e:.2g}' if np.isfinite(e) else ''} ms"
        for x, y, z, t, e in zip(*chosen, t2star, stderr, strict=True)
    ]
    return VoxelFits(series.te, series.data[chosen], curve_te, np.asarray(curves), labels)
