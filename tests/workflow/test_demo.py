"""The demonstration: right to a known truth, complete, and careful with what was there before."""

import json
import shutil

import nibabel as nib
import pytest
from command import run, run_process

from jaxqmri.workflow.demo import run_demo

MAPS = ("R2starmap", "S0map", "T2starmap", "T2starmap_stderr", "residual", "status")
RESULTS = {f"{name}{suffix}" for name in MAPS for suffix in (".nii.gz", ".json")} | {"provenance.json"}


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    """Run once, as a process of its own."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, run_process("demo", "-o", out)


def test_demo_says_how_far_it_is_from_the_truth(demonstration):
    out, done = demonstration
    assert (done.code, done.err) == (0, ""), "results on stdout, and stderr is no terminal here"
    named = ", with the series' own name (--no-names leaves it out)"
    assert done.out.splitlines()[-2:] == [f"report          {out}/report.html{named}", f"images          {out}/dicom"]
    table = done.out.split("\n\n")[1].splitlines()
    assert len({len(line) for line in table}) == 1, "columns are aligned"
    assert len(table) == 6
    record = json.loads((out / "provenance.json").read_text())
    pictures = {"T2starmap.png", "report.html"}
    assert set(record["outputs"]) == RESULTS | pictures | {f"dicom/IM{i:04d}.dcm" for i in range(1, 12)}
    assert {"reading", "compiling", "fitting", "writing"} <= set(record["timings_s"])


def test_demo_is_right_to_one_and_a_half_percent_in_every_tissue(tmp_path, capsys):
    done = run(capsys, "demo", "-o", tmp_path / "demo", "--no-report", "--json")
    regions = json.loads(done.out)["regions"]
    assert len(regions) == 5
    for row in regions:
        assert abs(row["error_of_median"]) < 0.015, row
        assert row["median_T2star_s"] == pytest.approx(row["true_T2star_s"], rel=0.015)
        assert row["median_abs_error"] < 0.03


def test_demo_replaces_an_earlier_one_only_when_told_to_and_never_other_images(demonstration, tmp_path, capsys):
    out = shutil.copytree(demonstration[0], tmp_path / "demo")
    refused = run(capsys, "demo", "-o", out)
    assert refused.code == 6
    assert "--overwrite" in refused.error
    assert run(capsys, "demo", "-o", out, "--no-report", "--overwrite", "-q").code == 0
    assert names(out) == RESULTS | {"dicom"}
    (out / "dicom" / "IM0012.dcm").write_bytes(b"somebody's scan")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    refused = run(capsys, "demo", "-o", out, "--overwrite")
    assert refused.code == 6
    assert "not of an earlier demonstration" in refused.error
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_a_demo_of_another_size_replaces_an_earlier_one(demonstration, tmp_path):
    out = shutil.copytree(demonstration[0], tmp_path / "demo")
    run_demo(out, size=32, overwrite=True, report=False)
    assert nib.load(out / "T2starmap.nii.gz").shape == (32, 32, 1)
    assert names(out) == RESULTS | {"dicom"}


def test_the_images_of_the_demo_can_be_mapped_like_any_others(demonstration, tmp_path, capsys):
    out, _ = demonstration
    # The folder above holds maps too, which are no images.
    for i, source in enumerate((out / "dicom", out)):
        mine = tmp_path / str(i)
        assert run(capsys, "t2star", source, "-o", mine, "--mask", "auto", "--no-report").code == 0
        for name in MAPS:
            assert (mine / f"{name}.nii.gz").read_bytes() == (out / f"{name}.nii.gz").read_bytes()
