"""Real scans against other people's programs and against scipy in double precision.

Provenance of the scans and golden maps: the README beside them. Tolerances are those of the project's goals; what was
measured is in `references/t2star.md`.
"""

import csv
import json
import re

import nibabel as nib
import numpy as np
import pytest
from command import run
from scipy import ndimage, optimize

import jaxqmri as jq
from jaxqmri.mapping.fitting.voxels import auto_mask
from jaxqmri.mapping.t2 import T2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ge_kidney(shared_data):
    return jq.read_dicom(shared_data / "ge_gre12_kidney" / "s16_dicom")


@pytest.fixture(scope="module")
def philips_kidney(shared_data):
    return jq.read_nifti(shared_data / "philips_gre12_kidney")


@pytest.fixture(scope="module")
def ge_maps(ge_kidney):
    return jq.t2star_map(ge_kidney)


@pytest.fixture(scope="module")
def philips_maps(philips_kidney):
    return jq.t2star_map(philips_kidney)


def ukat_map(shared_data, name) -> np.ndarray:
    """T2* [s]; UKAT writes ms and 0 where it has no answer."""
    values = nib.load(shared_data / "philips_gre12_kidney_ukat_maps" / f"{name}.nii.gz").get_fdata() * 1e-3
    return np.where(values > 0, values, np.nan)


def scipy_t2star(signal, te, start):
    """(T2*, sum of squares) by trust-region least squares in float64, the better of our answer and a fixed start."""
    unit = signal.astype(float) / signal.max()

    def misfit(p):
        return np.exp(p[0] - te * np.exp(-p[1])) - unit

    starts = ([np.log(start[0] / signal.max()), np.log(start[1])], [0.0, np.log(0.02)])
    fits = [optimize.least_squares(misfit, x0, xtol=1e-15, ftol=1e-15, gtol=1e-15) for x0 in starts]
    best = min(fits, key=lambda result: result.cost)
    return np.exp(best.x[1]), 2 * best.cost, np.sum(misfit(starts[0]) ** 2)


@pytest.mark.parametrize("scan", ["ge", "philips"])
def test_lm_is_scipys_least_squares_on_a_thousand_real_voxels(scan, request, rng):
    series, maps = request.getfixturevalue(f"{scan}_kidney"), request.getfixturevalue(f"{scan}_maps")
    fitted = np.argwhere(maps["status"] == jq.Status.OK)  # signal and noise alike
    voxels = fitted[rng.choice(len(fitted), 1000, replace=False)]
    ours = np.array([maps["T2starmap"][tuple(v)] for v in voxels])
    rows = [
        scipy_t2star(series.data[tuple(v)], series.te, (maps["S0map"][tuple(v)], maps["T2starmap"][tuple(v)]))
        for v in voxels
    ]
    theirs, their_cost, our_cost = np.array(rows).T
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert np.max(our_cost / their_cost) < 1 + 1e-5


def test_nearly_every_voxel_with_signal_gets_an_answer(ge_kidney, ge_maps, philips_kidney, philips_maps):
    for series, maps in ((ge_kidney, ge_maps), (philips_kidney, philips_maps)):
        signal = series.data[..., 0] > 0.1 * np.percentile(series.data[..., 0], 98)
        assert np.mean(maps["status"][signal] == jq.Status.OK) > 0.998


def test_t2star_of_the_ge_kidneys_is_plausible(ge_kidney, ge_maps):
    signal = ge_kidney.data[..., 0] > 0.1 * np.percentile(ge_kidney.data[..., 0], 98)
    t2star = ge_maps["T2starmap"][signal & (ge_maps["status"] == jq.Status.OK)]
    assert 0.015 < np.median(t2star) < 0.025


def test_ge_maps_lie_where_dcm2niix_puts_the_images(shared_data, ge_kidney, ge_maps, tmp_path):
    jq.write_maps(tmp_path, ge_maps, ge_kidney)
    written = nib.load(tmp_path / "T2starmap.nii.gz")
    reference = nib.load(next((shared_data / "ge_gre12_kidney" / "s16_dcm2niix").glob("*_e1.nii")))
    to_reference = np.linalg.inv(reference.affine) @ written.affine  # voxel -> voxel of the 5-slice volume
    corners = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 2], [255, 255, 2]])
    there = corners @ to_reference[:3, :3].T + to_reference[:3, 3]
    np.testing.assert_allclose(there, np.round(there), atol=2e-3)
    np.testing.assert_array_equal(np.round(there - corners)[:, :2], 0)
    first_slice = round(there[0, 2])
    magnitude = np.asarray(reference.dataobj)[..., first_slice : first_slice + 3, 0]
    np.testing.assert_array_equal(ge_kidney.data[..., 0], magnitude)
    # The map is drawn from those very voxels: T2* is the fit of the signal found there.
    voxel = np.unravel_index(np.argmax(magnitude), magnitude.shape)
    there_again = jq.fit(jq.MonoExponential(ge_kidney.te), ge_kidney.data[voxel])
    np.testing.assert_allclose(written.get_fdata()[voxel], there_again.params.t2, rtol=1e-6)
    for code in ("sform_code", "qform_code"):
        assert int(written.header[code]) == 1
    # A qform is a pure rotation; the scanner's rounded directions are not quite. No corner moves by 1 % of a pixel.
    by_qform, by_sform = (
        nib.affines.apply_affine(form, corners) for form in (written.get_qform(), written.get_sform())
    )
    np.testing.assert_allclose(by_qform, by_sform, atol=0.015)


def test_lm_agrees_with_ukats_exponential_map(shared_data, philips_kidney, philips_maps):
    ratio = philips_maps["T2starmap"] / ukat_map(shared_data, "T2StarMap2pexp")
    signal = philips_kidney.data[..., 0] > 0.1 * np.percentile(philips_kidney.data[..., 0], 98)
    assert np.isfinite(ratio[signal]).mean() > 0.99
    assert np.nanmedian(np.abs(ratio[signal] - 1)) < 0.005


def test_unweighted_log_linear_agrees_with_ukats_where_every_echo_is_above_the_noise(shared_data, philips_kidney):
    maps = jq.t2star_map(philips_kidney, method=jq.LogLinear(weighted=False))
    corner = philips_kidney.data[:10, :10]
    noise = np.sqrt(np.mean(corner.astype(float) ** 2) / 2)  # Rayleigh: mean square is 2 sigma^2
    clear = philips_kidney.data.min(axis=-1) > 3 * noise
    ratio = maps["T2starmap"][clear] / ukat_map(shared_data, "T2StarMapLoglin")[clear]
    assert np.isfinite(ratio).sum() > 5000
    assert np.nanmedian(np.abs(ratio - 1)) < 0.005
    # Elsewhere UKAT's unequal weights show, see below.
    signal = philips_kidney.data[..., 0] > 0.1 * np.percentile(philips_kidney.data[..., 0], 98)
    everywhere = maps["T2starmap"][signal] / ukat_map(shared_data, "T2StarMapLoglin")[signal]
    assert 0.01 < np.nanmedian(np.abs(everywhere - 1)) < 0.02


def test_what_is_left_against_ukats_log_linear_map_are_its_weights(shared_data, philips_kidney):
    """UKAT weighs an echo by 1 / ln(S / 1e-4)^2, nearly but not quite equally; with these weights its map is met."""
    signal = philips_kidney.data.astype(float)
    usable = (signal > 0).all(axis=-1)
    log_signal = np.log(signal[usable])
    weight = 1 / np.log(signal[usable] / 1e-4) ** 2
    weight /= weight.sum(axis=-1, keepdims=True)
    te = philips_kidney.te
    te_mean = (weight * te).sum(axis=-1, keepdims=True)
    slope = (weight * (te - te_mean) * log_signal).sum(axis=-1) / (weight * (te - te_mean) ** 2).sum(axis=-1)
    golden = ukat_map(shared_data, "T2StarMapLoglin")[usable]
    ratio = (-1 / slope) / golden
    bright = signal[usable].max(axis=-1) > 300  # below, UKAT's variance test picks other weights
    assert np.nanpercentile(np.abs(ratio[bright] - 1), 99) < 1e-6


# T2 of multi-echo spin echoes -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kidney_mese(shared_data):
    return jq.read_nifti(shared_data / "philips_mese10_kidney")


@pytest.fixture(scope="module")
def prostate_mese(shared_data):
    """Scanner's echo times, the first echo of the train left out: README beside the data."""
    image = nib.load(shared_data / "prostate_mese10" / "invivo_images.nii.gz")
    return jq.ImageSeries.from_arrays(image, te=26.4e-3 + 13.2e-3 * np.arange(10))


def test_mono_exponential_t2_is_ukats(shared_data, kidney_mese):
    """All voxels of UKAT's mask but the 0.6 % where its own fit failed, which have T2 = 0."""
    folder = shared_data / "philips_mese10_kidney" / "ukat_fit"
    mask = nib.load(folder / "two_param_fit_mask.nii.gz").get_fdata() > 0
    theirs = nib.load(folder / "two_param_fit_t2_map.nii.gz").get_fdata() * 1e-3  # ms
    their_m0 = nib.load(folder / "two_param_fit_m0_map.nii.gz").get_fdata()
    maps, answered = jq.t2_map(kidney_mese, method="mono", mask=mask), mask & (theirs > 0)
    assert answered.sum() > 0.99 * mask.sum()
    assert np.all(maps["status"][answered] == jq.Status.OK)
    off = np.abs(maps["T2map"][answered] / theirs[answered] - 1)
    assert np.median(off) < 1e-6
    assert np.max(off) < 1e-3
    np.testing.assert_allclose(np.median(maps["M0map"][answered] / their_m0[answered]), 1, rtol=1e-6)


def test_mono_exponential_t2_of_the_prostate_is_that_of_the_published_fit(shared_data, prostate_mese):
    prediction = nib.load(shared_data / "prostate_mese10" / "invivo_nlls_prediction.nii.gz").get_fdata()
    theirs = prediction[..., 1] * 0.1452  # s, after the README beside the data
    maps = jq.t2_map(prostate_mese, method="mono")
    ok = maps["status"] == jq.Status.OK
    assert ok.mean() > 0.99
    off = np.abs(maps["T2map"] / theirs - 1)[ok]
    assert np.median(off) < 1e-5
    assert np.percentile(off, 99) < 1e-3


@pytest.mark.parametrize(("scan", "largest_ratio"), [("kidney_mese", 0.6), ("prostate_mese", 0.8)])
def test_extended_phase_graphs_with_b1_leave_less_of_the_signal_than_one_exponential(scan, largest_ratio, request):
    """Far less than a third parameter would take off noise. Stimulated echoes made the mono-exponential T2 too long."""
    series = request.getfixturevalue(scan)
    job = T2(mask="auto")
    estimate = job.estimate(series)
    maps = estimate.maps
    assert np.mean(maps["status"][maps["status"] != jq.Status.MASKED] == jq.Status.OK) > 0.95
    phase_graphs, exponential = job.compare(series, estimate)
    assert phase_graphs["rms_misfit_to_mono"] < largest_ratio < phase_graphs["by_noise_alone"]
    assert phase_graphs["share_better"] > 0.9
    assert phase_graphs["relative_error"] < 0.75 * exponential["relative_error"]
    assert phase_graphs["median_T2_s"] < 0.95 * exponential["median_T2_s"]


def test_muscle_t2_of_the_calves_stands_in_the_report(shared_data, tmp_path, capsys):
    """Muscle is told from fat by its late echoes; healthy calves have 30 ... 40 ms at 3 T without stimulated echoes."""
    folder = shared_data / "siemens_mese17_enhanced"
    series = jq.read_dicom(folder)
    late = series.data[..., 12] / np.maximum(series.data[..., 0], 1)  # 143 ms against 11 ms: T2 below 57 ms
    muscle = auto_mask(series.data) & (late < 0.1)
    muscle[..., np.arange(8) != 4] = False
    nib.Nifti1Image(muscle.astype(np.uint8), series.affine).to_filename(tmp_path / "muscle.nii.gz")
    done = run(capsys, "t2", folder, "-o", tmp_path / "out", "--mask", tmp_path / "muscle.nii.gz", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    t2 = found["maps"]["T2map"]
    assert 36e-3 < t2["q25"] < t2["median"] < t2["q75"] < 44e-3
    phase_graphs, exponential = found["models"]
    assert exponential["median_T2_s"] > 1.05 * phase_graphs["median_T2_s"]
    assert phase_graphs["share_better"] > 0.98
    page = (tmp_path / "out" / "report.html").read_text()
    row = re.search(r'<th scope="row">T2 \[ms\]</th><td class="number">([0-9.]+)</td>', page)
    assert row is not None
    assert float(row[1]) == pytest.approx(1e3 * t2["median"], rel=5e-3)


# T1 -------------------------------------------------------------------------------------------------------------------

BRAIN_TI = np.array([0.05, 0.1, 0.2, 0.5, 2.0, 4.0])  # s
BRAIN_TE = np.array([0.01, 0.025, 0.05, 0.09, 0.15, 0.25])  # s
BRAIN_TR = 15.0  # s, of the inversion recovery


@pytest.fixture(scope="module")
def brain(shared_data):
    """Inversion-recovery (signed) and spin-echo images of the voxels within the skull, (voxel, n) float32."""
    inversions, echoes = (np.load(shared_data / "brain_ir6_se6" / f"{name}dataset.npy") for name in ("t1", "t2"))
    bright = inversions[..., -1] > 0.5 * np.percentile(inversions[..., -1], 98)
    parts, _ = ndimage.label(ndimage.binary_erosion(bright, iterations=3))
    sizes = np.bincount(parts.ravel())
    centre = np.array(bright.shape) / 2  # the scalp is a ring around it
    nearest = min(
        np.flatnonzero(sizes > 1000)[1:], key=lambda i: np.linalg.norm(np.argwhere(parts == i).mean(axis=0) - centre)
    )
    mask = ndimage.binary_fill_holes(ndimage.binary_dilation(parts == nearest, iterations=3) & bright)
    assert 15_000 < mask.sum() < 17_000
    return inversions[mask].astype(np.float32), echoes[mask].astype(np.float32)


@pytest.fixture(scope="module")
def signed_t1(brain):
    return jq.fit(jq.InversionRecovery(BRAIN_TI, BRAIN_TR), brain[0])


def test_variable_flip_angle_r1_is_that_of_the_reference(shared_data):
    with (shared_data / "osipi_vfa" / "t1_brain_data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 76
    assert {(row["FA"].split()[-1], row["TR"].split()[0]) for row in rows} == {("12", "0.0054")}
    signal = np.array([row["s"].split() for row in rows], float)
    result = jq.fit(jq.SpoiledGradientEcho(np.deg2rad([2.0, 5.0, 12.0]), 5.4e-3), signal)
    np.testing.assert_allclose(1 / result.params.t1, [float(row["R1"]) for row in rows], rtol=1e-4)
    np.testing.assert_allclose(result.params.m0, [float(row["s0"]) for row in rows], rtol=1e-4)


def test_signed_inversion_recovery_is_scipys_least_squares(brain, signed_t1, rng):
    voxels = rng.choice(len(brain[0]), 300, replace=False)
    assert np.all(np.asarray(signed_t1.status) == jq.Status.OK)

    def scipy_t1(signal):
        unit = signal / np.abs(signal).max()

        def misfit(p):  # M0, ln T1, M0 times the efficiency
            rate = np.exp(-p[1])
            return p[0] - (p[0] + p[2]) * np.exp(-BRAIN_TI * rate) + p[2] * np.exp(-BRAIN_TR * rate) - unit

        tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
        fits = [optimize.least_squares(misfit, [1, np.log(t1), 0.9], **tight) for t1 in (0.8, 3.0)]
        return np.exp(min(fits, key=lambda fit: fit.cost).x[1])

    expected = [scipy_t1(signal) for signal in brain[0][voxels].astype(float)]
    np.testing.assert_allclose(np.asarray(signed_t1.params.t1)[voxels], expected, rtol=1e-4)


def test_magnitudes_give_the_same_t1_but_where_a_measurement_hits_the_null(brain, signed_t1):
    """At TI 0.5 s white matter is near its null, where noise and model alike leave the sign open."""
    t1 = np.asarray(signed_t1.params.t1)
    magnitude = jq.fit(jq.InversionRecovery(BRAIN_TI, BRAIN_TR, magnitude=True), np.abs(brain[0]))
    same = np.abs(np.asarray(magnitude.params.t1) / t1 - 1) < 0.01
    assert same.mean() > 0.975
    least = np.abs(brain[0]).min(axis=-1)
    away_from_null = least > 0.02 * np.abs(brain[0]).max(axis=-1)
    assert away_from_null.mean() > 0.95
    assert same[away_from_null].mean() > 0.985
    # Another polarity is chosen because it fits better, and nearly always within the error bars.
    worse = np.asarray(magnitude.residual) > np.asarray(signed_t1.residual) * (1 + 1e-4)
    assert not np.any(worse)
    off = np.abs(np.asarray(magnitude.params.t1) - t1) / np.asarray(signed_t1.stderr.t1)
    assert np.mean(off < 2) > 0.99


def test_t2_of_single_echoes_is_scipys_least_squares(brain, rng):
    voxels = rng.choice(len(brain[1]), 300, replace=False)
    result = jq.fit(jq.MonoExponential(BRAIN_TE), brain[1])
    ok = np.asarray(result.status) == jq.Status.OK
    assert ok.mean() > 0.99  # the others are fluid: it hardly decays within 250 ms
    voxels = voxels[ok[voxels]]
    ours = np.asarray(result.params.t2)[voxels]
    signals = brain[1][voxels].astype(float)
    theirs = [scipy_t2star(s, BRAIN_TE, (s[0], t2))[0] for s, t2 in zip(signals, ours, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
