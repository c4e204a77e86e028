"""The reference object is what it says, also after a trip through DICOM files."""

import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri import phantoms
from jaxqmri.io.dicom_write import write_dicom

TE = np.array([2e-3, 10e-3, 30e-3])


def test_true_maps_hold_the_values_of_the_regions():
    phantom = phantoms.head_slice(96)
    assert set(np.unique(phantom.labels)) == {phantoms.BACKGROUND, *phantoms.REGIONS}
    for label, region in phantoms.REGIONS.items():
        inside = phantom.labels == label
        assert np.all(phantom.t2star[inside] == region.t2star)
        assert np.all(phantom.s0[inside] == region.s0)
    air = phantom.labels == phantoms.BACKGROUND
    assert np.all(phantom.s0[air] == 0)
    assert np.all(np.isnan(phantom.t2star[air]))


def test_noise_is_rician_of_the_given_level(rng):
    phantom = phantoms.head_slice(128)
    images = phantoms.gradient_echo_images(phantom, TE, snr=50.0, gain=1000.0, rng=rng)
    air = images[phantom.labels == phantoms.BACKGROUND]
    sigma = 1000.0 / 50.0
    np.testing.assert_allclose(air.mean(), sigma * np.sqrt(np.pi / 2), rtol=0.02)  # Rayleigh
    fluid = images[phantom.labels == phantoms.FLUID][:, 0]
    np.testing.assert_allclose(fluid.std(), sigma, rtol=0.1)
    np.testing.assert_allclose(fluid.mean(), 1000 * np.exp(-TE[0] / 0.12), rtol=0.01)


def test_dicom_files_give_back_images_echo_times_and_place(tmp_path, rng):
    phantom = phantoms.head_slice(32)
    images = np.round(phantoms.gradient_echo_images(phantom, TE, snr=50.0, gain=1000.0, rng=rng))
    images = np.concatenate([images, images[::-1], 2 * images], axis=2)
    files = write_dicom(tmp_path, images, TE, phantom.affine, "reference object")
    assert len(files) == 9
    series = jq.read_dicom(tmp_path)
    np.testing.assert_array_equal(series.data, images)
    np.testing.assert_allclose(series.te, TE, rtol=1e-9)
    np.testing.assert_allclose(series.affine, phantom.affine, atol=1e-5)
    assert (series.component, series.description) == ("magnitude", "reference object")


def test_images_that_do_not_fit_into_16_bit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"0 \.\.\. 65535"):
        write_dicom(tmp_path, np.full((4, 4, 1, 2), 70000.0), TE[:2], np.eye(4), "too bright")
    assert not list(tmp_path.iterdir())
