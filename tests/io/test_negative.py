"""Magnitudes below zero: as they are, which no magnitude model explains, or their absolute values, on request."""

import json
import re

import dicom_series
import nibabel as nib
import numpy as np
import pytest
import spin_echoes
import t1_scans
from command import run
from nifti_files import SHAPE, patch_header, save
from scipy import optimize
from small_scans import T2STAR, TE_MS, load, nifti_folder, signal

from jaxqmri.errors import CorruptInputError, InputWarning
from jaxqmri.io.dicom.reader import read_dicom
from jaxqmri.io.nifti.reader import read_nifti

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


def recovery(t1):
    return 1 - 2 * np.exp(-np.array(TI) / t1)


TE, TI, ANGLES = (0.005, 0.010, 0.020, 0.040), (0.05, 0.2, 0.9, 2.0), np.deg2rad((3, 8, 15))
T1 = np.linspace(0.3, 1.2, 60).reshape(*SHAPE, 1)
DECAY = np.exp(-np.array(TE) / 0.03)
SPOILED = np.sin(ANGLES) * -np.expm1(-0.008 / T1) / (1 - np.cos(ANGLES) * np.exp(-0.008 / T1))
WRAPPED = {  # unsigned signals that signed integers do not hold, what they vary
    "first echo": (45000 * DECAY, "te"),
    "every echo": (np.linspace(65535, 33000, 4), "te"),
    "first echo by a little": (33100 * DECAY / DECAY[0], "te"),
    "first echo below the second": (np.array([45000, 50000, 40000, 32000]), "te"),
    "inversion times": (60000 * np.abs(recovery(T1)), "ti"),
    "flip angles": (60000 * SPOILED / SPOILED.max(), "flip_angles"),
}
VALUES = {"te": TE, "ti": TI, "flip_angles": ANGLES}


@pytest.mark.parametrize("negative", ["keep", "abs"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("case", WRAPPED)
def test_unsigned_integers_saved_as_signed_ones_are_mended(tmp_path, case, dtype, negative):
    signal, name = WRAPPED[case]
    stored = np.broadcast_to(signal, (*SHAPE, signal.shape[-1])).astype(np.uint16)
    path = save(tmp_path / "a.nii", stored.view(np.int16).astype(dtype))
    with pytest.warns(InputWarning, match="unsigned integers that were saved as signed ones") as told:
        series = read_nifti(path, negative=negative, **{name: VALUES[name]})
    assert len(told) == 1
    np.testing.assert_array_equal(series.data, stored)
    top = np.any(stored == 65535, axis=-1)
    np.testing.assert_array_equal(top, np.zeros(SHAPE) if series.saturated is None else series.saturated)


def test_unsigned_integers_of_8_bits_are_mended_and_a_slope_counts(tmp_path):
    stored = np.broadcast_to(250 * DECAY, (*SHAPE, 4)).astype(np.uint8)
    path = save(tmp_path / "a.nii", stored.view(np.int8))
    patch_header(path, 112, np.array([0.5, 0.0], "<f4").tobytes())
    with pytest.warns(InputWarning, match="unsigned integers"):
        np.testing.assert_array_equal(read_nifti(path, te=TE).data, stored / 2)


def test_signed_pixels_of_dicom_that_were_unsigned_are_mended(tmp_path):
    datasets = dicom_series.series()
    wanted = {}
    for k, ds in enumerate(datasets):
        stored = np.full((ds.Rows, ds.Columns), 45000 * np.exp(-float(ds.EchoTime) / 30), np.uint16) + k % 2
        wanted[float(ds.EchoTime)] = stored[0, 0] - k % 2
        ds.PixelData, ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = stored.tobytes(), 1, 1, 0
    with pytest.warns(InputWarning, match="unsigned integers"):
        found = read_dicom(dicom_series.save(tmp_path, datasets))
    np.testing.assert_allclose(found.data[0, 0, 0], list(wanted.values()), atol=1)


@pytest.mark.parametrize(
    ("signal", "name"),
    [
        (20000 * DECAY * np.cos(400 * np.array(TE) + 5 * T1), "te"),
        (-20000 * DECAY, "te"),
        (300 * DECAY - 100, "te"),
        (30000 * recovery(T1), "ti"),
        (-20000 * SPOILED / SPOILED.max(), "flip_angles"),
    ],
    ids=["real part", "real part, inverted", "offset", "inversion recovery", "flip angles"],
)
def test_signed_integers_that_are_signed_stay(tmp_path, signal, name):
    stored = np.broadcast_to(signal, (*SHAPE, signal.shape[-1])).astype(np.int16)
    path = save(tmp_path / "a.nii", stored)
    with pytest.warns(InputWarning, match="values .* are negative"):
        np.testing.assert_array_equal(read_nifti(path, **{name: VALUES[name]}).data, stored)
    np.testing.assert_array_equal(read_nifti(path, component="real", **{name: VALUES[name]}).data, stored)


@pytest.mark.parametrize(("ringing", "name"), [((-1, 500, 300, 200), "te"), ((-1, 300, 280, 500), "ti")])
def test_a_few_values_just_below_zero_stay(tmp_path, ringing, name):
    stored = np.broadcast_to(500 * DECAY, (*SHAPE, 4)).astype(np.int16)
    stored[0, 0, 0] = ringing
    with pytest.warns(InputWarning, match=r"1 of 240 magnitude values .* are fitted as they are"):
        np.testing.assert_array_equal(read_nifti(save(tmp_path / "a.nii", stored), **{name: VALUES[name]}).data, stored)


def test_a_signed_inversion_recovery_is_told_to_be_fitted_with_its_sign(tmp_path):
    path = save(tmp_path / "a.nii", (1000 * recovery(T1)).astype(np.float32))
    with pytest.warns(InputWarning, match=r"taken for real images.*[Uu]se component='real' to say so") as told:
        assert read_nifti(path, ti=TI).component == "magnitude"
    assert "no answer" not in str(told[0].message)
    assert read_nifti(path, ti=TI, component="real").component == "real"


@pytest.mark.parametrize("stated", [{"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}, None])
def test_images_that_say_what_they_are_are_nothing_else(tmp_path, stated):
    name = "a.nii" if stated else "sub-1_part-mag_MEGRE.nii"
    path = save(tmp_path / name, (1000 * recovery(T1)).astype(np.float32), sidecar=stated)
    with pytest.raises(CorruptInputError, match="not real, which a fit needs"):
        read_nifti(path, ti=TI, component="real")


def test_images_without_a_negative_value_are_not_real(tmp_path):
    path = save(tmp_path / "a.nii", np.abs(1000 * recovery(T1)).astype(np.float32))
    with pytest.raises(CorruptInputError, match="to be real, but none of their values is negative; leave out"):
        read_nifti(path, ti=TI, component="real")


def test_the_sign_of_real_images_is_not_touched(tmp_path, capsys):
    scan = t1_scans.inversion_nifti(tmp_path / "scan", real=True)
    done = run(capsys, "t1", scan, "-o", tmp_path / "out", "--negative", "abs")
    assert done.code == 2
    assert "the images to be fitted are real, whose sign is part of the signal" in done.error
