"""What a person looks at after a job: the picture of the maps and the report."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import visible
from ..io.maps import Maps
from ..io.series import ImageSeries
from ..mapping.fitting.estimate import Estimate, above
from ..quantities import Status, map_kind
from ..report.figures import main_maps
from ..report.page import ReportInput, VoxelFits, report_files

N_EXAMPLES = 4  # voxels


def pages(series: ImageSeries, estimate: Estimate, main_map: str, **told: Any) -> dict[str, bytes]:
    """A picture of the maps, named after the main one, and `report.html`: content by file name.

    `told` are fields of `ReportInput` that images and maps do not tell: warnings, command, versions, ...
    """
    maps, (whole, used) = estimate.maps, series.whole
    return report_files(
        ReportInput(
            title=f"{map_kind(main_map).symbol} map",
            main_map=main_map,
            maps=maps,
            affine=series.affine,
            axis=series.axis,
            values=whole.values,
            used=used,
            facts=_facts(series, maps),
            voxel_fits=_example_fits(series, estimate, main_map),
            images=whole.data,
            **told,
        )
    )


def _facts(series: ImageSeries, maps: Maps) -> dict[str, str]:
    (x, y, z, n), axis = series.data.shape, series.axis
    left_out = series.whole.series.values[~series.whole.used]
    skipped = ", ".join(f"{count} {reason}" for reason, count in series.skipped.items())
    scanner = (series.acquisition.get(key) for key in ("Manufacturer", "ManufacturersModelName"))
    facts = {
        "Series": series.description and f"{series.description} (its own name in the images, which may name a person)",
        "Files": f"{series.n_files} {series.source_format}" + (f"; passed over: {skipped}" if skipped else ""),
        "Matrix": f"{x} × {y} × {z}, {n} {axis.many}",
        "Left out": axis.described(left_out) if len(left_out) else "",
        "Voxel": " × ".join(f"{edge:.3g}" for edge in series.voxel_size) + " mm",
        "Scanner": " ".join(str(word) for word in scanner if word is not None),
        "Field strength": _with_unit(series.acquisition, "MagneticFieldStrength", "T"),
        "Repetition time": _with_unit({**series.acquisition, **maps.metadata}, "RepetitionTime", "ms", 1e3),
        "Echo time": _with_unit(series.acquisition, "EchoTime", "ms", 1e3),
        "Flip angle": _with_unit(series.acquisition, "FlipAngle", "°"),
        "Model": str(maps.metadata["Equation"]),
        "Solver": str(maps.metadata["EstimationAlgorithm"]),
        "Noise": str(maps.metadata.get("Noise", "")),
        "Assumed": "; ".join(maps.metadata.get("Assumptions", ())),
    }
    return {label: visible(text) for label, text in facts.items() if text}


def _with_unit(facts: Mapping[str, object], key: str, unit: str, per_stored: float = 1.0) -> str:
    value = facts.get(key)
    return f"{per_stored * value:g} {unit}" if isinstance(value, int | float) else ""


def _example_fits(series: ImageSeries, estimate: Estimate, main_map: str) -> VoxelFits | None:
    """Voxels at evenly spaced ranks of the main map, so that short, usual and long times are all seen."""
    maps = estimate.maps
    ok = np.flatnonzero(maps["status"] == Status.OK)
    if not len(ok):
        return None
    ranked = np.argsort(maps[main_map].ravel()[ok], kind="stable")
    ranks = np.linspace(0.05, 0.95, N_EXAMPLES) * (len(ranked) - 1)
    chosen = np.unravel_index(ok[ranked[np.unique(ranks.round().astype(int))]], maps[main_map].shape)
    words = [_fit_words(maps, main_map, voxel) for voxel in zip(*chosen, strict=True)]
    whole, used = series.whole
    used = np.tile(used, (len(words), 1))
    if estimate.floor is not None:
        used[:, series.whole.used] = above(series.data[chosen], estimate.floor)
    return VoxelFits(whole.data[chosen], estimate.points, estimate.curves(chosen), words, used)


def _fit_words(maps: Maps, main_map: str, voxel: tuple[int, ...]) -> str:
    """A voxel's place, its value with its standard error, and what else was estimated of the scanner."""
    kind = map_kind(main_map)
    value, error = (kind.shown_per_si * float(maps[name][voxel]) for name in (main_map, f"{main_map}_stderr"))
    error_words = f" ± {_digits(error, 2)}" if math.isfinite(error) else ""
    fields = [
        f", {map_kind(m, maps.metadata).symbol} = {maps[m][voxel]:.2f}"
        for m in main_maps(maps)
        if map_kind(m).role == "field"
    ]
    place = ", ".join(map(str, voxel))
    return f"voxel ({place}): {kind.symbol} = {_digits(value, 3)}{error_words} {kind.shown_unit}{''.join(fields)}"


def _digits(value: float, digits: int) -> str:
    """A number with some significant digits and no exponent."""
    decimals = digits - 1 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(decimals, 0)}f}"
