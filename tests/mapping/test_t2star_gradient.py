"""T2* maps through a field gradient: isochromats in float64 across the slice, and what is refused."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri.errors import MetadataError, UsageError
from jaxqmri.mapping import all_jobs

TE = 4e-3 * np.arange(1, 11)
THICKNESS, SPACING = 4.0, 5.0  # mm; a gap of 1 mm
T2STAR = 0.04  # s


@pytest.fixture(scope="module")
def gradient():
    return np.tile(np.linspace(-4.0, 4.0, 8)[:, None, None], (1, 8, 3))  # Hz/mm


@pytest.fixture(scope="module")
def series(gradient):
    z = THICKNESS * ((np.arange(4000) + 0.5) / 4000 - 0.5)
    off = 2j * np.pi * gradient[:, :1, :1] * z
    images = 1000 * np.abs(np.stack([np.mean(np.exp(off * te), axis=-1) for te in TE], axis=-1)) * np.exp(-TE / T2STAR)
    images = np.broadcast_to(images[:, :1, None].reshape(8, 1, 1, TE.size), (8, 8, 3, TE.size))
    acquisition = {"SliceThickness": THICKNESS, "MRAcquisitionType": "2D"}
    affine = np.diag([2, 2, SPACING, 1.0])
    return jq.ImageSeries.from_arrays(images, te=TE, affine=affine, acquisition=acquisition)


def test_a_given_gradient_gives_t2star_back(series, gradient):
    maps = jq.t2star_map(series, gradient_hz_per_mm=gradient)
    np.testing.assert_allclose(maps["T2starmap"], T2STAR, rtol=1e-3)
    np.testing.assert_allclose(maps["S0map"], 1000, rtol=1e-3)
    assert maps["residual"].max() < 1e-3
    assert "corrected" in maps.metadata["ThroughSliceDephasing"]
    assert "4 mm thick" in maps.metadata["Assumptions"][0]
    plain = jq.t2star_map(series)
    assert plain["T2starmap"].min() < 0.7 * T2STAR
    assert "ThroughSliceDephasing" not in plain.metadata


def test_the_gradient_of_a_map_of_b0_is_its_difference_over_the_distance_of_slices(series, gradient):
    b0 = gradient * SPACING * np.arange(3)
    np.testing.assert_allclose(jq.through_slice_gradient(b0, SPACING), gradient, atol=1e-9)
    np.testing.assert_allclose(jq.t2star_map(series, b0_hz=b0)["T2starmap"], T2STAR, rtol=1e-3)
    wrapped = b0 - 60 * np.round(b0 / 60)
    np.testing.assert_allclose(jq.through_slice_gradient(wrapped, SPACING, period=60.0), gradient, atol=1e-9)
    holes = np.where(np.arange(3) == 2, np.nan, b0)
    found = jq.through_slice_gradient(holes, SPACING)
    np.testing.assert_allclose(found[..., :2], gradient[..., :2], atol=1e-9)
    with pytest.raises(UsageError, match="at least 2 slices"):
        jq.through_slice_gradient(b0[..., :1], SPACING)


def test_what_cannot_be_is_refused(series, gradient):
    def acquired(**facts):
        return replace(series, acquisition={**series.acquisition, **facts})

    for wrong, scan, error, message in (
        ({"gradient_hz_per_mm": 1e3 * gradient}, series, MetadataError, "divide Hz/m by 1000"),
        ({"gradient_hz_per_mm": gradient * 23.5e-6}, series, MetadataError, r"outside 0\.001"),
        ({"gradient_hz_per_mm": gradient[:4]}, series, UsageError, "the images have"),
        ({"gradient_hz_per_mm": gradient, "method": "loglinear"}, series, UsageError, "use method='lm'"),
        ({"gradient_hz_per_mm": gradient, "b0_hz": gradient}, series, UsageError, "either is enough"),
        ({"slice_thickness_mm": 4.0}, series, UsageError, "leave out slice_thickness_mm"),
        (
            {"gradient_hz_per_mm": gradient},
            acquired(MRAcquisitionType="3D"),
            UsageError,
            "leave out gradient_hz_per_mm",
        ),
        (
            {"gradient_hz_per_mm": gradient},
            acquired(SliceThickness=None),
            MetadataError,
            "may hold a gap; give the thick",
        ),
        ({"b0_hz": gradient, "slice_thickness_mm": 12.0}, series, MetadataError, "not the slices that were excited"),
        ({"gradient_hz_per_mm": gradient, "slice_thickness_mm": 4e-3}, series, MetadataError, "cannot be"),
    ):
        with pytest.raises(error, match=message):
            jq.t2star_map(scan, **wrong)


def test_a_map_in_another_unit_by_its_sidecar_is_refused(series, gradient, tmp_path):
    file = tmp_path / "fieldmap.nii.gz"
    nib.save(nib.Nifti1Image(gradient * np.arange(3), series.affine), file)
    (tmp_path / "fieldmap.json").write_text('{"Units": "rad/s"}')
    with pytest.raises(MetadataError, match=r"its Units are rad/s, wanted Hz"):
        jq.t2star_map(series, b0_hz=file)


def test_a_dataset_offers_no_transmit_field_for_a_gradient():
    from jaxqmri.workflow.bids_jobs import settings_for

    (t2star,) = (job for job in all_jobs() if job.name == "t2star")
    assert not {"gradient_hz_per_mm", "b0_hz"} & set(settings_for(t2star))
