"""Bad input on the command line: its exit code, one line that says what is wrong, and no trace of results.

The table of bad inputs is in `test_bad_inputs.py`. Here every case of the readers' own tests goes through the command,
and there are variants that the table does not name.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from bad_dicom_files import BAD_DICOM
from bad_nifti_files import BAD_NIFTI
from command import run
from dicom_series import save, series
from nifti_files import OBLIQUE, SHIFTED, TE, echo_values, save_series
from nifti_files import save as save_nifti
from small_scans import dicom_folder, nifti_folder
from spin_echoes import nifti_folder as spin_echo_folder

from jaxqmri.dictionary import match as matching
from jaxqmri.mapping.fitting import estimate
from jaxqmri.workflow import run as job

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    def computed(*_args, **_kwargs):
        raise AssertionError("bad input must be found before anything is computed")

    monkeypatch.setattr(estimate, "fit", computed)
    monkeypatch.setattr(matching, "match", computed)


def refused(capsys, tmp_path, code, words, *argv, command="t2star"):
    """Runs `COMMAND ARGV -o OUT` and holds it to what every refusal must be."""
    before = sorted(tmp_path.rglob("*"))
    done = run(capsys, command, *argv, *([] if "-o" in argv else ["-o", tmp_path / "out" / "deep"]))
    assert done.code == code, done.err
    assert re.search(words, done.error), done.error
    assert sorted(tmp_path.rglob("*")) == before, "a failed run leaves nothing, not even an empty folder"


# what the readers refuse ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "error", "words"), [pytest.param(*c[1:], id=c[0]) for c in BAD_DICOM])
def test_dicom(tmp_path, capsys, build, error, words):
    build(tmp_path / "scan")
    refused(capsys, tmp_path, error.exit_code, words, tmp_path / "scan")


@pytest.mark.parametrize("case", [case for case in BAD_NIFTI if case not in ("empty folder", "text")])
def test_nifti(tmp_path, capsys, case):
    spoil, error, words = BAD_NIFTI[case]
    (tmp_path / "scan").mkdir()
    spoil(save_series(tmp_path / "scan"))
    refused(capsys, tmp_path, error.exit_code, words, tmp_path / "scan")


# paths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nowhere", "nowhere/deep", "x" * 300, "scan/IM000.dcm/below"])
def test_a_path_that_is_not_there(tmp_path, capsys, name):
    save(tmp_path / "scan", series())
    refused(capsys, tmp_path, 3, "(no such file or folder|cannot be read)", tmp_path / name)


def test_one_of_several_paths_that_is_not_there(tmp_path, capsys):
    save(tmp_path / "scan", series())
    refused(capsys, tmp_path, 3, "nowhere: no such file", tmp_path / "scan", tmp_path / "nowhere")


def test_dicom_and_nifti_side_by_side(tmp_path, capsys):
    scan = nifti_folder(tmp_path / "scan")
    for i, ds in enumerate(series()):
        ds.save_as(scan / f"IM{i}", enforce_file_format=True)  # told by content: scanners' exports have no suffix
    refused(capsys, tmp_path, 4, "6 DICOM and 4 NIfTI files side by side.*one format", scan)


def test_maps_given_as_images(tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    for name in ("T2starmap", "status"):
        path = tmp_path / "maps" / f"{name}.nii.gz"
        save_nifti(path, echo_values(0.01), sidecar={"GeneratedBy": [{"Name": "jaxqmri"}]})
    refused(capsys, tmp_path, 3, "maps made by jaxqmri", tmp_path / "maps")
    refused(capsys, tmp_path, 3, "maps made by jaxqmri", *(tmp_path / "maps").glob("*.nii.gz"))


# echo times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("x",), 2, "'x' is not a number of milliseconds"),
        (("5ms",), 2, "'5ms' is not a number of milliseconds"),
        (("",), 2, "echo times"),
        (("5", "10"), 2, "2 echo times are given, .*images per slice: 3"),
        (("5", "10", "20", "30"), 2, "4 echo times are given, .*images per slice: 3"),
        (("5", "5", "10"), 2, "one echo time twice"),
        (("0.005", "0.01", "0.02"), 5, "seconds in a field of milliseconds"),
        (("-5", "10", "20"), 5, "finite and positive"),
        (("nan", "10", "20"), 5, "finite and positive"),
        (("5000", "10000", "20000"), 5, "outside 0.05 ... 2000 ms"),
    ],
)
def test_echo_times_that_cannot_be_meant(tmp_path, capsys, words, code, complaint):
    scan = save(tmp_path / "scan", series())
    refused(capsys, tmp_path, code, complaint, scan, "--te-ms", *words)


@pytest.mark.parametrize("words", [("5", "10"), ("0.005", "0.01", "0.02", "0.03")])
def test_echo_times_that_do_not_fit_nifti_files(tmp_path, capsys, words):
    code, complaint = (
        (2, "2 echo times .*per slice: 4") if len(words) == 2 else (5, "seconds in a field of milliseconds")
    )
    refused(capsys, tmp_path, code, complaint, save_series(tmp_path), "--te-ms", *words, "-o", tmp_path / "out")


# images that do not make a series are among the readers' cases; here a lone file -------------------------------------


def test_a_single_file(tmp_path, capsys):
    scan = dicom_folder(tmp_path / "scan")
    refused(capsys, tmp_path, 4, "only one echo.*need at least 2 echoes", scan / "IM000.dcm")


# masks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda folder: folder / "nowhere.nii", 3, "--mask .*nowhere.nii: no such file.*auto or none"),
        (lambda _: "Auto", 3, "--mask Auto: no such file"),
        (lambda folder: folder / "scan", 2, "--mask .*scan: is a folder"),
        (lambda folder: folder / "notes.txt", 4, "notes.txt: not a readable NIfTI"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit(tmp_path, capsys, make, code, words):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "scan").mkdir()
    scan = save_series(tmp_path / "scan")
    refused(capsys, tmp_path, code, words, scan, "--mask", make(tmp_path))


# what T2 of spin echoes needs besides ---------------------------------------------------------------------------------


@pytest.fixture
def spin_echoes(tmp_path):
    return spin_echo_folder(tmp_path / "scan")


def b1_file(folder, values, affine=OBLIQUE):
    return save_nifti(folder / "b1.nii.gz", values.astype(np.float32), affine=affine)


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda folder: folder / "nowhere.nii", 3, "--b1 .*nowhere.nii: no such file; name a NIfTI file on the grid"),
        (lambda folder: folder / "scan", 2, "--b1 .*scan: is a folder"),
        (lambda folder: b1_file(folder, np.ones((16, 16, 2))), 4, r"B1 map has shape \(16, 16, 2\).*\(16, 16, 1\)"),
        (lambda folder: b1_file(folder, np.ones((16, 16, 1)), SHIFTED), 4, "B1 map .*lies elsewhere"),
        (lambda folder: b1_file(folder, np.full((16, 16, 1), 95)), 5, "B1 map is .* got 95; divide per cent by 100"),
        (lambda folder: folder / "notes.txt", 4, "notes.txt: not a readable NIfTI"),
    ],
)  # fmt: skip
def test_b1_maps_that_do_not_fit(tmp_path, capsys, spin_echoes, make, code, words):
    (tmp_path / "notes.txt").write_text("hello")
    refused(capsys, tmp_path, code, words, spin_echoes, "--b1", make(tmp_path), command="t2")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--te-ms", "10,25,50,90,100,110,120,130"), 5, "echo times 10, 25, .*not evenly spaced.*--method mono"),
        (("--te-ms", "15,25,35,45,55,65,75,85"), 5, "not a multi-echo spin echo.*--method mono"),
        (("--refocusing-deg", "0"), 2, "above 0 and at most pi, 180 degrees"),
        (("--refocusing-deg", "190"), 2, r"\(190 degrees\)"),
        (("--t1-ms", "-5"), 2, "T1 has no value above 0.*give the right one with --t1-ms"),
        (("--t1-ms", "1"), 2, "T1 has the median 0.001 s.*give the right one with --t1-ms"),
        (("--mask", "nowhere.nii"), 3, "--mask nowhere.nii: no such file"),
    ],
)
def test_trains_that_cannot_be(tmp_path, capsys, spin_echoes, argv, code, words):
    refused(capsys, tmp_path, code, words, spin_echoes, *argv, command="t2")


# the output -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def unread(monkeypatch):
    """Reading the images would be a failure: the output is to be looked at first."""

    def read(*_args, **_kwargs):
        raise AssertionError("the output must be looked at before the images are read")

    monkeypatch.setattr(job, "read_images", read)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("full", "already has 1 file;.*--overwrite"),
        ("full/file", "is a file"),
        ("full/file/below", "cannot write .*Not a directory"),
        ("scan", "is the input folder"),
        ("scan/../scan/.", "is the input folder"),
        ("x" * 300, "cannot write .*File name too long"),
    ],
)
def test_an_output_that_cannot_be(tmp_path, capsys, out, words):
    save(tmp_path / "scan", series())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    refused(capsys, tmp_path, 6, words, tmp_path / "scan", "-o", tmp_path / out)


@pytest.mark.usefixtures("unread")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc, which nobody can write to")
def test_an_output_where_nothing_can_be_written(tmp_path, capsys):
    refused(capsys, tmp_path, 6, "cannot write /proc/out", save(tmp_path / "scan", series()), "-o", "/proc/out")


@pytest.mark.usefixtures("unread")
def test_an_output_on_a_read_only_disk(tmp_path, capsys, monkeypatch):
    from jaxqmri.io.storage import atomic

    def read_only(path, _data):
        raise OSError(30, os.strerror(30), str(path))

    monkeypatch.setattr(atomic, "_write_through", read_only)
    words = "cannot write .*Read-only file system.*Choose a folder on a disk that can be written"
    refused(capsys, tmp_path, 6, words, save(tmp_path / "scan", series()))


@pytest.mark.usefixtures("unread")
def test_files_given_one_by_one_are_not_mixed_with_their_maps(tmp_path, capsys):
    scan = save_series(tmp_path)
    argv = (*sorted(scan.glob("*.nii.gz")), "-o", tmp_path, "--overwrite")
    refused(capsys, tmp_path, 6, "is the input folder", *argv)


def test_given_echo_times_and_the_nifti_files_they_belong_to(tmp_path, capsys):
    """Files sorted as text with ascending echo times would pass for good data."""
    files = [save_nifti(tmp_path / f"a_e{n}.nii", echo_values(te)) for n, te in zip((1, 10, 2, 3), TE, strict=True)]
    words = "order of the given echo times contradicts"
    refused(capsys, tmp_path, 2, words, *files, "--te-ms", 4, 9, 13, 50, "-o", tmp_path / "out")
