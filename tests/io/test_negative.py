"""Magnitudes below zero: as they are, which no magnitude model explains, or their absolute values, on request."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
import spin_echoes
import t1_scans
from command import run
from scipy import optimize
from small_scans import T2STAR, TE_MS, load, nifti_folder, signal

SCANS = {  # command -> (folder maker, true map, its name, an image whose values are well above zero)
    "t2star": (nifti_folder, T2STAR, "T2starmap", 1),
    "t2": (spin_echoes.nifti_folder, spin_echoes.T2, "T2map", 1),
    "t1": (t1_scans.inversion_nifti, t1_scans.T1, "T1map", 4),
}


def with_lost_signs(folder, command):
    """The scan; the voxels at x = 0 have a negative sign in one image."""
    make, _, _, k = SCANS[command]
    path = sorted(make(folder).glob("*.nii.gz"))[k]
    image = nib.load(path)
    values = image.get_fdata().astype(np.float32)
    values[0] *= -1
    nib.Nifti1Image(values, image.affine).to_filename(path)
    return folder


@pytest.mark.parametrize("command", SCANS)
def test_absolute_values_give_the_maps_of_the_magnitudes(tmp_path, capsys, command):
    scan, out = with_lost_signs(tmp_path / "scan", command), tmp_path / "out"
    assert run(capsys, command, scan, "-o", out, "--no-report", "--negative", "abs").code == 0
    _, truth, name, _ = SCANS[command]
    np.testing.assert_allclose(load(out, name)[..., 0], truth, rtol=2e-3)
    record = json.loads((out / "provenance.json").read_text())
    assert record["arguments"]["negative"] == "abs"
    assert "--negative abs" in record["command"]
    assert any("16 of " in text and "their absolute values are fitted" in text for text in record["warnings"])


@pytest.mark.parametrize("command", ["t2", "t1"])
def test_as_they_are_they_have_no_answer_as_the_warning_says(tmp_path, capsys, command):
    scan = with_lost_signs(tmp_path / "scan", command)
    done = run(capsys, command, scan, "-o", tmp_path / "out", "--no-report")
    assert done.code == 0
    assert "16 of " in done.err
    assert re.search(r"have no answer\. Use (--negative abs|negative='abs') to fit absolute values", done.err)
    found = load(tmp_path / "out", SCANS[command][2])
    levels = json.loads((tmp_path / "out" / "status.json").read_text())["Levels"]
    assert {levels[str(int(code))] for code in load(tmp_path / "out", "status")[0].ravel()} == {"NEGATIVE_MAGNITUDE"}
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()


def test_a_decay_is_fitted_to_them_as_they_are(tmp_path, capsys):
    """A real part: least squares of noise around zero is not biased by the noise floor of magnitudes."""
    images = signal()
    images[0, :, -1] = -20  # -0.1 % of the first echo
    scan = nifti_folder(tmp_path / "scan", images)
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out")
    assert done.code == 0
    found = load(tmp_path / "out", "T2starmap")[..., 0]
    np.testing.assert_allclose(found[1:], T2STAR[1:], rtol=1e-4)
    start = images[0, 0, 0], T2STAR[0, 0]
    (_, least_squares), _ = optimize.curve_fit(
        lambda te, s0, t2star: s0 * np.exp(-te / t2star), np.array(TE_MS) / 1e3, images[0, 0], start
    )
    np.testing.assert_allclose(found[0], least_squares, rtol=1e-4)
    assert least_squares < T2STAR[0, 0]
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["arguments"]["negative"] == "keep"
    assert "--negative" not in record["command"]


def test_the_report_says_how_to_run_it_again(tmp_path, capsys):
    scan = with_lost_signs(tmp_path / "scan", "t2star")
    assert run(capsys, "t2star", scan, "-o", tmp_path / "out", "--negative", "abs").code == 0
    report = (tmp_path / "out" / "report.html").read_text()
    assert "--mask none --negative abs" in report
    assert "their absolute values are fitted, as asked for" in report


def test_the_sign_of_real_images_is_not_touched(tmp_path, capsys):
    scan = t1_scans.inversion_nifti(tmp_path / "scan", real=True)
    done = run(capsys, "t1", scan, "-o", tmp_path / "out", "--negative", "abs")
    assert done.code == 2
    assert "the images to be fitted are real, whose sign is part of the signal" in done.error
