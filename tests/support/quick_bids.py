"""`jaxqmri bids` without fits, for tests of everything around them; and what is in the derivative."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxqmri import FSE, InversionRecovery, MonoExponential, SpoiledGradientEcho
from jaxqmri.io.maps import Maps
from jaxqmri.mapping.metadata import how
from jaxqmri.workflow.bids_settings import Settings
from jaxqmri.workflow.run import Estimate, Job

PRODUCTS = {
    "t2star": ("T2starmap", "R2starmap", "S0map", "T2starmap_stderr"),
    "t2": ("T2map", "R2map", "M0map", "TB1map", "T2map_stderr"),
    "t1": ("T1map", "R1map", "M0map", "T1map_stderr"),
}


def quick(job: Job) -> Job:
    """The same job with maps of ones, as nothing here depends on the fit: no compiling."""

    def estimate(series, mask, progress):
        shape = series.data.shape[:3]
        maps = {name: np.ones(shape, np.float32) for name in (*PRODUCTS[job.word], "residual")}
        if job.arguments.get("b1"):
            maps.pop("TB1map", None)
        if series.ti is not None:
            maps["InversionEfficiency"] = np.ones(shape, np.float32)
        model = {
            "t2star": lambda: MonoExponential(series.te),
            "t2": lambda: FSE(np.full(8, np.pi), 0.01),
            "t1": lambda: (
                InversionRecovery(series.ti)
                if series.ti is not None
                else SpoiledGradientEcho(np.array([0.1, 0.2]), 0.01)
            ),
        }[job.word]()
        metadata = how(model, "in words", "LevenbergMarquardt", {"max_steps": 3}, None)
        return Estimate(Maps({**maps, "status": np.zeros(shape, np.uint8)}, metadata), curves=lambda voxels: None)

    return replace(job, estimate=estimate)


def make_jobs_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Settings.job
    monkeypatch.setattr(Settings, "job", lambda settings, suffix, b1: quick(job(settings, suffix, b1)))


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.tsv").open(encoding="utf-8", newline="") as file:
        return {row["series"]: row for row in csv.DictReader(file, delimiter="\t")}


def content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
