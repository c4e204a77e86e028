"""Bad input that the command survives: what is mended or passed over, and voxels that have no answer."""

import json
import shutil

import numpy as np
import pytest
from command import run
from dicom_series import save
from pydicom.uid import EnhancedSRStorage, MediaStorageDirectoryStorage, SecondaryCaptureImageStorage
from small_scans import T2STAR, datasets, dicom_folder, load, nifti_folder
from small_scans import signal as decays

MAPS = ("R2starmap", "S0map", "T2starmap", "T2starmap_stderr", "residual")


@pytest.fixture
def scan(tmp_path):
    return dicom_folder(tmp_path / "scan")


# what is mended or passed over ----------------------------------------------------------------------------------------


def add_empty_file(scan):
    (scan / "IM999.dcm").write_bytes(b"")


def add_text(scan):
    (scan / "report.dcm").write_text("Impression: normal. " * 20)


def add_copy(scan):
    shutil.copy(scan / "IM002.dcm", scan / "copy.dcm")


def add_localizer(scan):
    tags = {"SeriesInstanceUID": "1.2.1", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "M"]}
    save(scan, datasets(**tags), prefix="loc")


def add_other_objects(scan):
    for i, sop_class in enumerate((MediaStorageDirectoryStorage, EnhancedSRStorage, SecondaryCaptureImageStorage)):
        save(scan, datasets(SOPClassUID=sop_class)[:1], prefix=f"object{i}")


def add_other_files(scan):
    for name in ("README", ".DS_Store", "Thumbs.db", "scan.json", "report.pdf"):
        (scan / name).write_bytes(b"%PDF-1.7 or whatever")


def add_nothing(_scan):
    pass


@pytest.mark.parametrize(
    ("add", "options", "warning", "skipped"),
    [
        (add_empty_file, (), "1 empty file", {"empty file": 1}),
        (add_text, (), "1 not DICOM in spite of its name", {"not DICOM in spite of its name": 1}),
        (add_copy, (), "1 duplicate images", {"duplicate images": 1}),
        (add_localizer, (), "4 localizer", {"localizer": 4}),
        (add_other_files, (), None, {"not DICOM": 5}),
        (
            add_other_objects,
            (),
            None,
            {
                "DICOMDIR index": 1,
                "not an MR image (Enhanced SR Storage)": 1,
                "not an MR image (Secondary Capture Image Storage)": 1,
            },
        ),
        (add_nothing, ("--te-ms", "25", "15", "8", "3"), "do not ascend; they were sorted", {}),
    ],
)
def test_what_was_mended_is_said_counted_and_recorded(scan, tmp_path, capsys, add, options, warning, skipped):
    if "25" in options:  # the files say the opposite of what is given; together they are the usual scan
        scan = dicom_folder(tmp_path / "reversed", decays()[..., ::-1])
    add(scan)
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--no-report", *options)
    assert done.code == 0
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["input"]["skipped"] == skipped
    assert [f"jaxqmri: warning: {text}" for text in record["warnings"]] == done.err.splitlines()
    assert (warning in done.err) if warning else not done.err
    np.testing.assert_allclose(load(tmp_path / "out", "T2starmap")[..., 0], T2STAR, rtol=1e-3)


# voxels that cannot be fitted -----------------------------------------------------------------------------------------


def test_voxels_without_an_answer_say_why_and_leave_their_neighbours_alone(tmp_path, capsys):
    images = decays()
    images[0, 0], images[0, 1, 2], images[0, 2, 1] = 0.0, np.nan, np.inf
    images[0, 3], images[0, 4] = 100.0, [100.0, 200.0, 300.0, 400.0]
    for source, out in ((decays(), "good"), (images, "bad")):
        scan = nifti_folder(tmp_path / f"{out} scan", source)
        assert run(capsys, "t2star", scan, "-o", tmp_path / out, "--no-report").code == 0
    levels = json.loads((tmp_path / "bad" / "status.json").read_text())["Levels"]
    status = [levels[str(int(code))] for code in load(tmp_path / "bad", "status")[0, :6, 0]]
    assert status == ["NO_SIGNAL", "NOT_FINITE", "NOT_FINITE", "AT_BOUND", "AT_BOUND", "OK"]
    for name in MAPS:
        good, bad = load(tmp_path / "good", name), load(tmp_path / "bad", name)
        assert np.isnan(bad[0, :5]).all()
        good[0, :5] = np.nan
        np.testing.assert_array_equal(bad, good)


def test_images_of_nothing_give_empty_maps_a_report_and_a_warning(tmp_path, capsys):
    scan = nifti_folder(tmp_path / "scan", np.zeros((16, 16, 4)))
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "-v")
    assert done.code == 0
    assert done.err.count("warning") == 1, "no library stumbles over maps without values"
    assert "no voxel could be fitted (256 NO_SIGNAL)" in done.err
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".gz", ".json", ".png", ".html"}
    assert "no voxel could be fitted" in (tmp_path / "out" / "report.html").read_text()
    assert np.isnan(load(tmp_path / "out", "T2starmap")).all()
    again = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--overwrite", "--no-report", "--json")
    assert json.loads(again.out)["maps"] == {}
