"""No name of a person, wherever the images have it, gets into the results but for the report, which says so."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from bids_datasets import add_series, dataset
from command import run
from dicom_series import save
from nifti_files import TE, edit, save_series
from quick_bids import make_jobs_quick
from small_scans import datasets

NAME = "Doe-Jane"
SHOWN = f"{NAME} knee (its own name in the images, which may name a person)"


def places(out: Path) -> set[str]:
    """The files of results that hold the name, in their names or contents."""
    found = set()
    for path in (path for path in out.rglob("*") if path.is_file()):
        raw = path.read_bytes()
        if NAME.encode() in (gzip.decompress(raw) if path.suffix == ".gz" else raw) or NAME in path.name:
            found.add(path.name)
    return found


def dicom(folder: Path) -> Path:
    """Two series, and files that are no images, named after a person in every way."""
    free_text = dict.fromkeys(("PatientName", "SeriesDescription", "ProtocolName", "StudyDescription"), f"{NAME} knee")
    scan = save(folder / NAME, datasets(**free_text), prefix=NAME)
    (scout,) = datasets(**free_text | {"SeriesNumber": 9, "SeriesInstanceUID": "1.9", "SOPInstanceUID": "1.9.1"})[:1]
    scout.save_as(scan / f"{NAME} scout.dcm", enforce_file_format=True)
    (scan / f"{NAME} letter.dcm").write_text("Dear colleague")
    return scan


def nifti(folder: Path) -> Path:
    """The same as a zip archive of NIfTI files."""
    (folder / "scan").mkdir(parents=True)
    scan = save_series(folder / "scan")
    for path in sorted(scan.glob("*.json")):
        edit(scan, path.stem, SeriesDescription=f"{NAME} knee", ProtocolName=NAME, PatientName=NAME)
    for path in [*scan.iterdir()]:
        path.rename(path.with_name(path.name.replace("scan", NAME)))
    edit(scan, f"{NAME}_e10", SeriesNumber=9, EchoTime=TE[0])
    return Path(shutil.make_archive(str(folder / NAME), "zip", folder, "scan"))


@pytest.mark.parametrize(("make", "more"), [(dicom, ["--dicom"]), (nifti, [])])
def test_only_the_report_shows_the_name_of_the_series(tmp_path, capsys, make, more):
    out = tmp_path / "out"
    done = run(capsys, "t2star", make(tmp_path / "in"), "-o", out, "--json", *more)
    assert done.code == 0, done.err
    assert re.search("series 9 .*passed over|passed over: series 9", done.err)
    assert NAME not in done.out + done.err
    assert places(out) == {"report.html"}
    assert (out / "report.html").read_text().count(NAME) == (out / "report.html").read_text().count(SHOWN) == 1


def test_without_names_no_file_shows_it(tmp_path, capsys):
    out = tmp_path / "out"
    done = run(capsys, "t2star", dicom(tmp_path / "in"), "-o", out, "--no-names")
    assert done.code == 0, done.err
    assert places(out) == set()
    assert json.loads((out / "provenance.json").read_text())["command"].endswith("--no-names")


def test_the_terminal_says_that_the_report_shows_it(tmp_path, capsys):
    scan = save(tmp_path / "scan", datasets(SeriesDescription=NAME))
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out")
    assert "report.html, with the series' own name (--no-names leaves it out)" in done.out


def test_inspect_shows_it_to_people_alone(tmp_path, capsys):
    scan = dicom(tmp_path / "in")
    assert f"series 7: {NAME} knee" in run(capsys, "inspect", scan).out
    assert NAME not in run(capsys, "inspect", scan, "--no-names").out
    assert NAME not in run(capsys, "inspect", scan, "--json").out


def test_a_dataset(tmp_path, capsys, monkeypatch):
    make_jobs_quick(monkeypatch)
    root = dataset(tmp_path / NAME / "raw")
    for sub in ("01", "02"):
        add_series(root, sub, "MEGRE", part="_part-mag")
    (root / "MEGRE.json").write_text(json.dumps({"SeriesDescription": NAME, "ProtocolName": NAME}))
    (root / "sub-01" / "anat" / "sub-01_echo-1_part-mag_MEGRE.json").write_text("{")
    (root / "sub-02" / "fmap").mkdir()
    (root / "sub-02" / "fmap" / "sub-02_TB1map.nii.gz").write_bytes(b"")
    done = run(capsys, "bids", root, tmp_path / "out", "participant", "--no-report", "--json")
    assert done.code == 7, done.err
    assert places(tmp_path / "out") == set()
