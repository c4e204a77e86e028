"""The noise level found in images: what was put in comes out, and images without air are refused."""

import re

import numpy as np
import pytest

from jaxqmri import phantoms
from jaxqmri.estimation.noise_level import noise_level

SIGMA = 20.0
TE = np.linspace(5e-3, 55e-3, 8)


@pytest.fixture(scope="module")
def head():
    return phantoms.head_slice(128, skull_stripped=False)


@pytest.fixture(scope="module")
def images(head):
    return phantoms.gradient_echo_images(head, TE, snr=50, gain=50 * SIGMA, rng=np.random.default_rng(3))


@pytest.fixture(scope="module")
def channels():
    """Real and imaginary images of a disc of signal that decays, with noise of SIGMA in each."""
    x, y = np.mgrid[-1:1:96j, -1:1:96j]
    signal = 500 * (x**2 + y**2 < 0.4)[..., None] * np.exp(-TE / 40e-3)
    real, imaginary = np.random.default_rng(4).normal(scale=SIGMA, size=(2, *signal.shape))
    return signal + real, imaginary


def test_the_noise_of_magnitudes_is_found(images, head):
    found = noise_level(images)
    assert found.sigma == pytest.approx(SIGMA, rel=0.02)
    assert 0.9 < found.n_voxels / np.sum(head.labels == 0) < 1.1


@pytest.mark.parametrize("snr", [10, 300])
def test_at_any_signal_to_noise(snr, head):
    images = phantoms.gradient_echo_images(head, TE, snr=snr, gain=snr * SIGMA, rng=np.random.default_rng(snr))
    assert noise_level(images).sigma == pytest.approx(SIGMA, rel=0.02)


def test_two_echoes_are_enough(images):
    assert noise_level(images[..., :2]).sigma == pytest.approx(SIGMA, rel=0.02)


def test_the_noise_of_complex_and_of_signed_images_is_that_of_a_channel(channels):
    real, imaginary = channels
    assert noise_level(real + 1j * imaginary).sigma == pytest.approx(SIGMA, rel=0.02)
    assert noise_level(real).sigma == pytest.approx(SIGMA, rel=0.02)


def test_a_few_hundred_voxels_of_air_suffice(images):
    few = images[:, 2:-2][8:-8]
    corner = images[:18, :18].reshape(-1, 1, 8)
    middle = few[30:80, 30:80].reshape(-1, 1, 8)
    found = noise_level(np.concatenate([corner, middle]))
    assert found.n_voxels < 400
    assert found.sigma == pytest.approx(SIGMA, rel=0.05)


@pytest.mark.parametrize("factor", [1e-20, 1e30])
def test_it_has_the_scale_of_the_images(images, factor):
    scaled = (images * factor).astype(np.float32)
    assert noise_level(scaled).sigma == pytest.approx(noise_level(images).sigma * factor, rel=1e-5)


def test_whole_numbers_do(images):
    as_stored = np.round(images / SIGMA * 3).astype(np.int16)
    assert noise_level(as_stored).sigma == pytest.approx(3.0, rel=0.02)


def test_voxels_that_are_zero_or_not_finite_do_not_count(images):
    spoiled = images.copy()
    spoiled[:40] = 0
    spoiled[-3:] = np.nan
    assert noise_level(spoiled).sigma == pytest.approx(SIGMA, rel=0.02)


def sum_of_squares(channels) -> np.ndarray:
    """Two coils that see the same."""
    real, imaginary = channels
    return np.sqrt(real**2 + imaginary**2 + real[::-1] ** 2 + imaginary[::-1] ** 2)


@pytest.mark.parametrize("case", ["masked", "cropped", "flat", "slow", "coils", "empty", "zero"])
def test_no_air_is_an_error_that_says_what_to_do(case, images, head, channels, rng):
    without_air = {
        "masked": lambda: images * (head.labels > 0)[..., None],
        "cropped": lambda: images[44:84, 44:84],
        "flat": lambda: rng.uniform(300, 500, (64, 64, 1)) + rng.normal(size=(64, 64, 8)),
        "slow": lambda: rng.uniform(300, 500, (64, 64, 1)) * [1.0, 0.9] + rng.normal(size=(64, 64, 2)),
        "coils": lambda: sum_of_squares(channels),
        "empty": lambda: images[:0],
        "zero": lambda: np.zeros((16, 16, 1, 8)),
    }[case]()
    with pytest.raises(ValueError, match=re.escape("jq.Rician(sigma)")) as caught:
        noise_level(without_air)
    assert ("images[..., -4:]" in str(caught.value)) == (without_air.shape[-1] > 4), "fewer images than there are"


@pytest.mark.parametrize("shape", [(64, 64, 1), (8,), ()])
def test_one_image_is_not_a_series(shape):
    with pytest.raises(ValueError, match="2 or more measurements"):
        noise_level(np.ones(shape))


@pytest.fixture(scope="module")
def real_scan(shared_data):
    """Signed images; the rows above and below the head are free of ghosts, the columns beside it are not."""
    images = np.load(shared_data / "brain_ir6_se6" / "t1dataset.npy").astype(float)
    quiet = np.concatenate([images[:30], images[-10:]])
    return images, quiet, np.sqrt(np.mean(quiet**2))


def test_the_noise_of_a_real_scan_is_that_of_its_quiet_air(real_scan):
    images, quiet, expected = real_scan
    head = images[70:190, 50:140]
    found = noise_level(np.concatenate([quiet.reshape(-1, 6), head.reshape(-1, 6)]))
    assert found.sigma == pytest.approx(expected, rel=0.03)


def test_ghosts_in_the_air_of_a_real_scan_add_little(real_scan):
    images, _, expected = real_scan
    assert 1 < noise_level(images).sigma / expected < 1.15


def test_real_scans_with_ghosts_in_their_air_are_refused(shared_data):
    import jaxqmri as jq

    series = jq.read_nifti(shared_data / "philips_gre12_kidney")
    with pytest.raises(ValueError, match="no air"):
        noise_level(series.data)
