"""The signal tells images that were computed of the others, and given values in another order than the images."""

import dicom_series
import nifti_files
import numpy as np
import pytest

from jaxqmri import read_nifti
from jaxqmri.errors import InputWarning, UsageError
from jaxqmri.io.course import computed_of_the_others

N = 24
TE = np.array([0.005, 0.010, 0.015, 0.020])


def decays(rng, times, noise=10.0):
    """(x, y, 1, n) whole numbers; times of decay 15 ... 60 ms."""
    t2, s0 = rng.uniform(0.015, 0.060, (2, N, N, 1, 1)) * [[[[[1]]]], [[[[3e4]]]]]
    return np.round(np.maximum(s0 * np.exp(-times / t2) + noise * rng.normal(size=(N, N, 1, len(times))), 0))


COMBINED = {
    "mean": lambda images: images.mean(-1),
    "sum": lambda images: images.sum(-1),
    "root mean square": lambda images: np.sqrt((images**2).mean(-1)),
    "scaled root mean square": lambda images: 0.7 * np.sqrt((images**2).sum(-1)),
}


def with_combined(images, how, te):
    values = np.append(TE, te)
    order = np.argsort(values)
    return np.concatenate([images, np.round(COMBINED[how](images))[..., None]], axis=-1)[..., order], values[order]


@pytest.mark.parametrize("noise", [0.0, 10.0])
@pytest.mark.parametrize("te", [0.002, 0.0125, 0.030])
@pytest.mark.parametrize("how", COMBINED)
def test_a_combination_of_the_echoes_is_found_wherever_it_harms(rng, how, te, noise):
    images = decays(rng, TE, noise)
    assert computed_of_the_others(images.reshape(-1, 4), TE) is None
    signals, values = (part.reshape(-1, part.shape[-1]) for part in with_combined(images, how, te))
    found = computed_of_the_others(signals, values.ravel())
    assert found == (int(np.flatnonzero(values.ravel() == te)[0]), how)


def test_images_made_by_a_rule_are_no_combinations():
    steps = np.arange(50.0)[:, None]
    for values in (TE, TE[:3], np.append(TE, 0.025)):
        for curve in (np.arange(1, len(values) + 1), np.arange(len(values), 0, -1)):
            assert computed_of_the_others(1000 * curve + 10 * steps, values) is None
            assert computed_of_the_others(1000 * curve + 0 * steps, values) is None
    for t2 in (0.003, 0.03, 0.3, 3.0):
        for values in (TE, TE[:3], np.arange(1, 13) * 0.005):
            curve = np.full((50, 1), 1000.0) * np.exp(-values / t2)
            assert computed_of_the_others(curve, values) is None
            assert computed_of_the_others(np.round(curve), values) is None


@pytest.mark.parametrize("form", ["DICOM", "NIfTI", "4-D NIfTI"])
def test_it_is_left_out_and_told(tmp_path, rng, form):
    echoes = decays(rng, TE)
    images, te = with_combined(echoes, "sum", 0.0125)
    images = images.astype(np.uint16)
    if form == "DICOM":
        files = [dicom_series.image(1e3 * t, 0, images[..., 0, k]) for k, t in enumerate(te)]
        folder, read = dicom_series.save(tmp_path, files), dicom_series.read_dicom
        echoes = echoes[::-1].swapaxes(0, 1)
    else:
        parts = images if form == "4-D NIfTI" else np.moveaxis(images, -1, 0)
        for k, part in enumerate([parts] if form == "4-D NIfTI" else parts):
            sidecar = {"EchoTime": te.tolist() if form == "4-D NIfTI" else te[k]}
            nifti_files.save(tmp_path / f"e{k}.nii", part, sidecar=sidecar)
        folder, read = tmp_path, read_nifti
    with pytest.warns(InputWarning, match=r"the image at TE 12\.5 ms is the sum of the others, .* left out"):
        found = read(folder)
    np.testing.assert_allclose(found.te, TE, rtol=1e-12)
    np.testing.assert_array_equal(found.data, echoes)


def curve(axis, values, rng):
    """(x, y, 1, n) signals of noise below 1 %."""
    t = rng.uniform(0.8, 1.2, (N, N, 1, 1))
    if axis == "ti":
        found = np.abs(1 - 1.9 * np.exp(-values / t))
    elif axis == "flip_angles":
        e1 = np.exp(-0.01 / t)
        found = 10 * np.sin(values) * (1 - e1) / (1 - np.cos(values) * e1)
    else:
        found = np.exp(-values / (0.05 * t))
    return (1000 * np.abs(found + 0.005 * rng.normal(size=found.shape))).astype(np.float32)


GIVEN = {
    "te": [0.01, 0.02, 0.04, 0.08],
    "tsl": [0.0, 0.02, 0.04, 0.08],
    "ti": [0.05, 0.3, 0.6, 1.0, 3.0],
    "flip_angles": np.deg2rad([2.0, 5.0, 10.0, 20.0]).tolist(),
}


@pytest.mark.parametrize("axis", GIVEN)
def test_given_values_in_an_order_that_no_tissue_could_have_are_told(tmp_path, rng, axis):
    values = np.array(GIVEN[axis])
    measured = np.array([1, 3, 0, 2] if len(values) == 4 else [1, 4, 0, 3, 2])
    images = curve(axis, values, rng)
    path = nifti_files.save(tmp_path / "a.nii", np.ascontiguousarray(images[..., measured]))
    right = values[measured].tolist()
    with pytest.warns(InputWarning, match="do not ascend"):
        found = read_nifti(path, **{axis: right})
    np.testing.assert_array_equal(found.data, images)
    if axis == "te":  # of fat in water the signal rises and falls
        with pytest.warns(InputWarning, match=r"by their brightness 20 80 10 40 ms\)"):
            read_nifti(path, te=values)
        return
    words = r"by their brightness 20 80 0 40 ms\)" if axis == "tsl" else "as if the images came in another order"
    with pytest.raises(UsageError, match=words):
        read_nifti(path, **{axis: values})


def test_a_signal_that_hardly_changes_has_no_course(tmp_path, rng):
    images = curve("tsl", np.array([0.0, 0.001, 0.002]), rng)
    path = nifti_files.save(tmp_path / "a.nii", np.ascontiguousarray(images[..., ::-1]))
    assert len(read_nifti(path, tsl=[0.0, 0.001, 0.002]).values) == 3
