"""From an image series to maps."""

import warnings

import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri import phantoms
from jaxqmri.errors import InputWarning
from jaxqmri.mapping.fitting import estimate
from jaxqmri.mapping.fitting.voxels import auto_mask

TE = np.linspace(2e-3, 40e-3, 11)


@pytest.fixture(scope="module")
def phantom():
    return phantoms.head_slice(64)


@pytest.fixture(scope="module")
def series(phantom):
    images = phantoms.gradient_echo_images(phantom, TE, snr=100.0, gain=2000.0, rng=np.random.default_rng(1))
    return jq.ImageSeries.from_arrays(images, te=TE, affine=phantom.affine)


@pytest.fixture(scope="module")
def maps(series):
    return jq.t2star_map(series)


def test_every_tissue_gets_its_t2star(phantom, maps):
    for label, region in phantoms.REGIONS.items():
        inside = (phantom.labels == label) & (maps["status"] == jq.Status.OK)
        assert inside.sum() > 10
        np.testing.assert_allclose(np.median(maps["T2starmap"][inside]), region.t2star, rtol=0.02)
        np.testing.assert_allclose(np.median(maps["S0map"][inside]), 2000 * region.s0, rtol=0.02)


def test_maps_are_related_as_their_names_say(series, maps):
    ok = maps["status"] == jq.Status.OK
    np.testing.assert_allclose(maps["R2starmap"][ok] * maps["T2starmap"][ok], 1, rtol=1e-6)
    predicted = maps["S0map"][ok][:, None] * np.exp(-TE / maps["T2starmap"][ok][:, None])
    measured = series.data[ok]
    relative = np.abs(predicted - measured).sum(-1) / np.abs(measured).sum(-1)
    np.testing.assert_allclose(maps["residual"][ok], relative, rtol=1e-3)
    assert all(np.isnan(values[~ok]).all() for name, values in maps.items() if name != "status")


def test_error_bars_are_those_of_the_fit(series, maps):
    voxel = np.unravel_index(np.argmax(series.data[..., 0]), series.data.shape[:3])
    result = jq.fit(jq.MonoExponential(TE), series.data[voxel])
    np.testing.assert_allclose(maps["T2starmap_stderr"][voxel], result.stderr.t2, rtol=1e-5)


def test_mask_changes_no_voxel_inside_and_leaves_none_outside(series, maps):
    mask = series.data[..., 0] > 800
    masked = jq.t2star_map(series, mask=mask)
    np.testing.assert_array_equal(masked["T2starmap"][mask], maps["T2starmap"][mask])
    assert np.all(masked["status"][~mask] == jq.Status.MASKED)
    assert np.isnan(masked["T2starmap"][~mask]).all()


def test_auto_mask_leaves_out_air_and_keeps_the_head(phantom, series):
    mask = auto_mask(series.data)
    head = phantom.labels > 0
    assert mask[~head].mean() < 0.001
    assert mask[head].mean() > 0.99
    np.testing.assert_array_equal(jq.t2star_map(series, mask="auto")["status"] == jq.Status.MASKED, ~mask)


def test_auto_mask_survives_what_is_no_number(series):
    spoiled = series.data.copy()
    spoiled[0, 0], spoiled[1, 1] = np.nan, np.inf
    np.testing.assert_array_equal(auto_mask(spoiled), auto_mask(series.data))


def test_methods_agree_on_a_clear_signal(phantom, series, maps):
    inside = phantom.labels == phantoms.WHITE
    for method, tolerance in (("loglinear", 0.01), (jq.LogLinear(weighted=False), 0.02), ("adam", 0.005)):
        other = jq.t2star_map(series, method=method, mask=inside)
        np.testing.assert_allclose(
            np.nanmedian(other["T2starmap"]), np.median(maps["T2starmap"][inside]), rtol=tolerance
        )


def test_sigma_sets_the_error_bars(series):
    voxels = np.zeros(series.data.shape[:3], bool)
    voxels[30:34, 30:34] = True
    given = jq.t2star_map(series, mask=voxels, noise=jq.Gaussian(20.0))["T2starmap_stderr"]
    as_map = jq.t2star_map(series, mask=voxels, noise=jq.Gaussian(np.full(voxels.shape, 20.0)))["T2starmap_stderr"]
    double = jq.t2star_map(series, mask=voxels, noise=jq.Gaussian(40.0))["T2starmap_stderr"]
    np.testing.assert_allclose(as_map[voxels], given[voxels], rtol=1e-6)
    np.testing.assert_allclose(double[voxels], 2 * given[voxels], rtol=1e-5)


def test_sidecars_learn_how_the_maps_were_made(maps):
    assert maps.metadata["EstimationAlgorithm"] == "LevenbergMarquardt"
    assert maps.metadata["Levels"]["0"] == "OK"
    assert set(np.unique(maps["status"])) <= {int(s) for s in jq.Status}


def test_sidecars_say_where_the_noise_level_came_from(series):
    one = np.zeros(series.data.shape[:3], bool)
    one[32, 32] = True
    assert "n - p" in jq.t2star_map(series, mask=one).metadata["ErrorBars"]
    assert "sigma, given" in jq.t2star_map(series, mask=one, noise=jq.Gaussian(20.0)).metadata["ErrorBars"]


def test_a_mask_is_what_is_above_zero(series, maps):
    mask = np.full(series.data.shape[:3], np.nan)
    mask[32, 32], mask[33, 33] = 1, 0
    assert np.argwhere(jq.t2star_map(series, mask=mask)["status"] != jq.Status.MASKED).tolist() == [[32, 32, 0]]


def test_auto_mask_of_a_line_of_voxels_keeps_the_bright_ones():
    line = np.array([0.0, 100, 0, 0, 90, 80])[None, :, None, None] * np.ones(3)
    np.testing.assert_array_equal(auto_mask(line)[0, :, 0], [False, True, False, False, True, True])


@pytest.fixture
def two_echoes(series, monkeypatch):
    """Acquisition and noise -> the warnings of a map of the first two echoes, without a fit."""

    class Warned(Exception):
        pass

    def stop(*_args, **_options):
        raise Warned

    def warnings_of(n=2, noise=None, **acquisition):
        part = jq.ImageSeries.from_arrays(series.data[..., :n], te=TE[:n], acquisition=acquisition)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(Warned):
                jq.t2star_map(part, noise=noise)
        assert all(w.category is InputWarning and w.filename == __file__ for w in caught)
        return [str(w.message) for w in caught]

    monkeypatch.setattr(estimate, "fit", stop)
    return warnings_of


def test_as_many_echoes_as_parameters_are_warned_of(two_echoes):
    exactly = "2 echoes determine T2* and S0 exactly: "
    assert two_echoes() == [exactly + "no error bars, no check of the model."]
    assert two_echoes(noise=jq.Gaussian(20.0)) == [exactly + "no check of the model."]
    assert two_echoes(n=3) == []


def test_what_are_stated_to_be_spin_echoes_is_warned_of(two_echoes):
    (told,) = two_echoes(n=3, ScanningSequence="SE")
    assert "ScanningSequence is SE" in told
    assert "`t2_map` maps that" in told
    assert two_echoes(n=3, ScanningSequence="GR") == two_echoes(n=3, ScanningSequence="SE\\GR") == []


def test_mistakes_are_named(series):
    with pytest.raises(ValueError, match="'lme' is not one of lm, loglinear, adam"):
        jq.t2star_map(series, method="lme")
    with pytest.raises(ValueError, match="mask has shape"):
        jq.t2star_map(series, mask=np.ones((2, 2, 2), bool))
    with pytest.raises(ValueError, match=r"noise\.sigma has shape"):
        jq.t2star_map(series, noise=jq.Gaussian(np.ones((2, 2, 2))))
    phase = jq.ImageSeries.from_arrays(series.data, te=TE, component="phase")
    with pytest.raises(ValueError, match="this series is phase"):
        jq.t2star_map(phase)
