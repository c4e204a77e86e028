"""Decays that end on a constant: found, told from those that do not, or left out below the noise."""

import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri.errors import CorruptInputError, UsageError
from jaxqmri.mapping.fitting.estimate import above
from jaxqmri.mapping.t2 import T2
from jaxqmri.mapping.t2star import T2star

TE = 0.015 * np.arange(1, 13)  # s
T2STAR, S0, N = 0.030, 1000.0, 2048
T2STARS, OFFSETS = np.geomspace(0.015, 0.06, N), np.linspace(0.0, 0.3 * S0, N)  # of the voxels without noise
PENALTY = 2 + 2 * 4 * 5 / (12 - 5) - 2 * 3 * 4 / (12 - 4)  # of AICc for a parameter more


def decays(offset, t2star=T2STAR):
    """(voxel, 1, 1, echo) signals."""
    return (S0 * np.exp(-TE / np.reshape(t2star, (-1, 1))) + np.reshape(offset, (-1, 1)))[:, None, None]


@pytest.fixture(scope="module")
def images():
    """N voxels each without noise; with an offset of 5 %, SNR 50; without one. Signed noise has no floor of its own."""
    noise = np.random.default_rng(5).normal(scale=S0 / 50, size=(2, N, 1, 1, TE.size))
    return np.concatenate([decays(OFFSETS, T2STARS), decays(0.05 * S0) + noise[0], decays(0.0) + noise[1]])


@pytest.fixture(scope="module")
def maps(images):
    found = jq.t2star_map(jq.ImageSeries.from_arrays(images, te=TE), model="offset")
    return [{name: values[k * N : (k + 1) * N, 0, 0] for name, values in found.items()} for k in range(3)]


def test_decay_and_offset_are_found(maps):
    exact, _, _ = maps
    assert np.all(exact["status"] == jq.Status.OK)  # also where the offset is 0
    np.testing.assert_allclose(exact["T2starmap"], T2STARS, rtol=1e-4)
    np.testing.assert_allclose(exact["S0map"], S0, rtol=1e-4)
    np.testing.assert_allclose(exact["Offset"], OFFSETS, atol=1e-4 * S0)


def test_error_bars_are_the_spread_of_the_answers(maps):
    _, noisy, _ = maps
    z = (noisy["T2starmap"] - T2STAR) / noisy["T2starmap_stderr"]
    assert z.std() / np.sqrt(9 / 7) == pytest.approx(1, abs=0.05)  # Student's t with 9 degrees of freedom


def test_the_criterion_tells_who_has_an_offset(maps):
    _, with_offset, without = maps
    assert np.mean(with_offset["DeltaAICc"] < 0) > 0.95
    assert np.mean(without["DeltaAICc"] > 0) > 0.95
    assert np.max(without["DeltaAICc"]) == pytest.approx(PENALTY, rel=1e-3)  # of those whose offset is 0


def test_the_criterion_compares_misfits_of_both_models(images, maps):
    _, noisy, _ = maps
    signal = images[N : 2 * N, 0, 0]
    s0, t2star, offset = (noisy[name][:, None] for name in ("S0map", "T2starmap", "Offset"))
    squares = np.sum((s0 * np.exp(-TE / t2star) + offset - signal) ** 2, axis=1)
    of_plain = TE.size * np.asarray(jq.fit(jq.MonoExponential(TE), signal).residual) ** 2
    expected = TE.size * np.log(squares / of_plain) + PENALTY
    np.testing.assert_allclose(noisy["DeltaAICc"], expected, rtol=1e-3, atol=1e-3)


def test_a_known_offset_leaves_a_plain_decay():
    found = jq.fit(jq.MonoExponential(TE, offset=True), decays(OFFSETS, T2STARS)[:, 0, 0], known={"offset": OFFSETS})
    assert np.all(found.status == jq.Status.OK)
    np.testing.assert_allclose(found.params.t2, T2STARS, rtol=1e-4)


def test_echoes_from_the_first_below_the_noise_on_are_left_out():
    signal = np.array([[9.0, 8, 7, 2, 6, 5], [1, 8, 1, 8, 8, 8], [9, 8, 7, 6, 5, 4]])
    expected = [[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]  # the very first one is compared
    np.testing.assert_array_equal(above(signal, 3.0), expected)
    images = decays(0.0, [0.02, 0.03, 0.04])
    floor = 3 * 20.0
    images[images < floor] = floor / 2  # what the noise would leave
    series = jq.ImageSeries.from_arrays(images, te=TE)
    cut = jq.t2star_map(series, method="loglinear", drop_below_snr=3, sigma=20.0)
    np.testing.assert_allclose(cut["T2starmap"].ravel(), [0.02, 0.03, 0.04], rtol=1e-4)
    assert cut.metadata["LeftOutBelow"] == floor


@pytest.mark.parametrize(
    ("last", "settings", "noise", "words"),
    [
        (2.0, {}, "rician", "below 5 times the noise of the air, which is taken to be Rician; use noise='gaussian' if"),
        (2.0, {"sigma": 1.0}, None, "finds times too long there; use noise='rician'"),
        (2.0, {"method": "loglinear"}, None, "finds times too long there; use method='lm'"),
        (2.0, {"noise": "gaussian"}, "gaussian", None),
        (2.0, {"drop_below_snr": 3.0}, None, None),
        (20.0, {}, None, None),
    ],
)
def test_noise_is_rician_where_the_last_echoes_are_below_5_times_that_of_the_air(recwarn, last, settings, noise, words):
    rng, tissue = np.random.default_rng(1), np.arange(64 * 32).reshape(64, 32, 1, 1) % 2  # every second voxel
    clean = tissue * last * np.exp((TE[-1] - TE) / 0.08)
    noisy = np.abs(clean + rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))
    series = jq.ImageSeries.from_arrays(noisy, te=TE)
    assert T2star(**settings, mask=np.ones((64, 32, 1), bool)).noise_model(series) == noise
    assert [words in str(w.message) for w in recwarn] == ([True] if words else [])


@pytest.mark.parametrize(
    ("job", "settings", "words"),
    [
        (T2star, {"model": "offset", "method": "loglinear"}, "method loglinear knows no offset; use method='lm'"),
        (T2star, {"model": "two"}, "model 'two' is not one of mono, offset"),
        (T2star, {"drop_below_snr": 0.0}, "drop_below_snr must be above 0, got 0"),
        (T2, {"drop_below_snr": 3.0, "noise": "rician"}, "drop_below_snr is for least squares; .*leave out noise="),
        (T2, {"drop_below_snr": 3.0, "noise": jq.Gaussian(1.0)}, "drop_below_snr is for least squares"),
    ],
)
def test_settings_that_contradict_each_other_are_told_in_one_line(job, settings, words):
    with pytest.raises(UsageError, match=words) as refused:
        job(**settings)
    assert "\n" not in str(refused.value)


def test_two_echoes_cannot_tell_an_offset():
    series = jq.ImageSeries.from_arrays(decays(0.0)[..., :2], te=TE[:2])
    with pytest.raises(CorruptInputError, match=r"2 echoes cannot .* 3 .*\(T2\*, S0, Offset\); use model='mono'"):
        T2star(model="offset").plan(series, np.ones((1, 1, 1), bool))
    with pytest.raises(ValueError, match="te needs at least 3 echo times"):
        jq.MonoExponential(TE[:2], offset=True)
