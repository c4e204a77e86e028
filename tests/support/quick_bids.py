"""`jaxqmri bids` without fits, for tests of everything around them; and what is in the derivative."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxqmri.io.maps import Maps
from jaxqmri.mapping.job import Job
from jaxqmri.mapping.t2 import T2

PRODUCTS = {
    "t2star": ("T2starmap", "R2starmap", "S0map", "T2starmap_stderr"),
    "t2": ("T2map", "R2map", "M0map", "TB1map", "T2map_stderr"),
    "t1": ("T1map", "R1map", "M0map", "T1map_stderr"),
}


def quick_estimate(job: Job, series, progress=None):
    """Maps of ones, as nothing here depends on the fit: no compiling."""
    shape = series.data.shape[:3]
    maps = {name: np.ones(shape, np.float32) for name in (*PRODUCTS[job.name], "residual")}
    if job.arguments().get("b1"):
        maps.pop("TB1map", None)
    if series.ti is not None:
        maps["InversionEfficiency"] = np.ones(shape, np.float32)
    facts = {"Equation": "in words", "EstimationAlgorithm": "LevenbergMarquardt"}
    return SimpleNamespace(maps=Maps({**maps, "status": np.zeros(shape, np.uint8)}, facts), points=None)


def make_jobs_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "estimate", quick_estimate)
    monkeypatch.setattr(T2, "is_compared", False)


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.tsv").open(encoding="utf-8", newline="") as file:
        return {row["series"]: row for row in csv.DictReader(file, delimiter="\t")}


def content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
