"""Integers that ran over their range are no signal: they are told from air, vessels and clipped values."""

import dicom_series
import nifti_files
import numpy as np
import pytest

from jaxqmri import read_nifti
from jaxqmri.io.wrapped import wrapped

N = 40
TE = (0.005, 0.010, 0.020)


def bright_spot(largest, te=0.0):
    """(x, y) signal of an object that is brightest in its middle, in air; T2* 60 ms."""
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, N)], indexing="ij")
    r2 = x**2 + y**2
    return np.where(r2 < 0.8, largest * np.exp(-r2 - te / 0.06), 0.01 * largest)


def stored(signal, n):
    return (np.round(signal).astype(np.int64) % n).astype(np.uint16)


@pytest.mark.parametrize("n", [2**12, 2**16])
@pytest.mark.parametrize("over", [1.01, 1.15])
def test_what_ran_over_is_found_and_nothing_else(n, over):
    signal = bright_spot(over * n)
    found = wrapped(stored(signal, n))
    np.testing.assert_array_equal(found, signal >= n)
    assert found.any()
    np.testing.assert_array_equal(wrapped(stored(signal, n)[..., None])[..., 0], found)


def test_a_single_voxel_among_high_ones():
    signal = np.full((N, N), 0.96 * 2**16)
    signal[5, 7] = 1.03 * 2**16
    assert np.argwhere(wrapped(stored(signal, 2**16))).tolist() == [[5, 7]]


def test_air_vessels_and_clipped_values_are_no_such():
    n = 2**12
    for signal in (bright_spot(0.99 * n), bright_spot(0.5 * n), np.minimum(bright_spot(1.2 * n), n - 1)):
        assert not wrapped(stored(signal, n)).any()
    vessel = bright_spot(0.99 * n)
    vessel[18:23, 10:30] = 0.5 * vessel[18:23, 10:30]  # half of it in these voxels
    vessel[19:22, 11:29] = 40
    assert not wrapped(stored(vessel, n)).any()
    assert not wrapped(bright_spot(1.02 * n) % n).any()  # no integers


@pytest.mark.parametrize("n", [2**12, 2**16])
def test_both_readers_tell_them(tmp_path, n):
    images = [stored(bright_spot(1.2 * n, te), n) for te in TE]
    wanted = bright_spot(1.2 * n, TE[0]) >= n
    assert wanted.sum() > 3
    for k, (te, image) in enumerate(zip(TE, images, strict=True)):
        nifti_files.save(tmp_path / f"e{k}.nii", image[..., None], sidecar={"EchoTime": te})
    np.testing.assert_array_equal(read_nifti(tmp_path).clipped[..., 0], wanted)
    bits = {"BitsStored": n.bit_length() - 1, "HighBit": n.bit_length() - 2}
    files = [dicom_series.image(1e3 * te, 0, image, **bits) for te, image in zip(TE, images, strict=True)]
    found = dicom_series.quietly(dicom_series.save(tmp_path / "dicom", files)).clipped
    np.testing.assert_array_equal(found[..., 0], wanted[::-1].T)
