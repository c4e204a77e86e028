"""The DICOM reader on scans of three vendors, against dcm2niix and the headers themselves."""

from typing import cast

import nibabel
import numpy as np
import pydicom
import pytest

from jaxqmri.io.dicom import read_dicom, read_stack
from jaxqmri.io.dicom_scan import scan_dicom
from jaxqmri.io.errors import (
    CorruptInputError,
    InputWarning,
)


@pytest.mark.parametrize(("component", "volume"), [("magnitude", 0), ("real", 1), ("imaginary", 2)])
@pytest.mark.parametrize("echo", [1, 6, 12])
def test_ge_voxels_and_affine_are_those_of_dcm2niix(shared_data, component, volume, echo):
    folder = shared_data / "ge_gre12_kidney"
    path = next(
        (folder / "s16_dcm2niix").glob(f"*_e{echo}.nii")
    )  # 5 slices; the DICOM folder has those numbered 1 ... 3
    nifti = cast(nibabel.Nifti1Image, nibabel.load(path))
    scan = scan_dicom(folder / "s16_dicom")
    (stack,) = (s for s in scan.stacks if s.component == component)
    found = read_stack(scan, stack)
    np.testing.assert_array_equal(found.data[..., echo - 1], np.asarray(nifti.dataobj)[:, :, 1:4, volume])
    corners = np.array([[x, y, z, 1] for x in (0, 255) for y in (0, 255) for z in (0, 2)], float)
    place = corners @ found.affine.T
    golden = (corners + np.array([0, 0, 1, 0])) @ np.asarray(nifti.affine).T
    # The headers give positions to 1e-3 mm, and dcm2niix averages the slice distance over 5 slices instead of 3.
    np.testing.assert_allclose(place, golden, atol=1e-3)


def test_ge_magnitude_is_chosen_with_all_its_echoes(shared_data):
    found = read_dicom(shared_data / "ge_gre12_kidney" / "s16_dicom")
    np.testing.assert_allclose(found.te, 4.6e-3 + 4.612e-3 * np.arange(12), atol=1e-9)
    assert found.data.shape == (256, 256, 3, 12)
    assert found.data.min() >= 0
    assert found.skipped == {"real images": 36, "imaginary images": 36}
    assert (found.acquisition["RepetitionTime"], found.acquisition["FlipAngle"]) == (0.125, 25.0)


@pytest.mark.parametrize("folder", ["s2", "."])
def test_siemens_field_map_magnitude(shared_data, folder):
    root = shared_data / "siemens_gre2_fieldmap"
    found = read_dicom(root / folder)
    np.testing.assert_allclose(found.te, [5.19e-3, 7.65e-3], rtol=1e-12)
    assert found.data.shape == (64, 64, 36, 2)
    assert found.skipped == ({} if folder == "s2" else {"phase images": 36})
    for path in sorted((root / "s2").iterdir())[::7]:
        ds = pydicom.dcmread(path)
        first_pixel = np.array([*ds.ImagePositionPatient, 1.0]) * [-1, -1, 1, 1]
        x, y, z = np.round(np.linalg.solve(found.affine, first_pixel)[:3], 6)
        assert (x, y) == (0, 63)
        echo = [5.19, 7.65].index(float(ds.EchoTime))
        np.testing.assert_array_equal(found.data[:, :, int(z), echo], ds.pixel_array[::-1].T)


def test_siemens_phase_alone_is_refused(shared_data):
    with pytest.raises(CorruptInputError, match=r"phase.*not magnitude"):
        read_dicom(shared_data / "siemens_gre2_fieldmap" / "s3")


def test_philips_classic_beside_its_enhanced_copy(shared_data):
    folder = shared_data / "philips_gre2_classic_and_enhanced" / "s2001"
    with pytest.warns(InputWarning, match="1 Enhanced MR"):
        found = read_dicom(folder)
    np.testing.assert_allclose(found.te, [2.3e-3, 4.6e-3], rtol=1e-12)
    assert found.data.shape == (80, 80, 53, 2)
    assert found.n_files == 106
    assert found.n_files + sum(found.skipped.values()) == len(list(folder.iterdir()))
    for name in ("2001_0080_e2.dcm", "2001_0083.dcm"):
        ds = pydicom.dcmread(folder / name)
        x, y, z = np.round(
            np.linalg.solve(found.affine, np.array([*ds.ImagePositionPatient, 1.0]) * [-1, -1, 1, 1])[:3], 4
        )
        assert (x, y) == (0, 79)
        measured = ds.pixel_array[::-1].T / ds[0x2005, 0x100E].value  # FP = SV / SS where the intercept is 0
        np.testing.assert_allclose(found.data[:, :, int(z), [2.3, 4.6].index(float(ds.EchoTime))], measured, rtol=1e-6)


@pytest.mark.parametrize("folder", ["siemens_mese17_enhanced", "siemens_xa30_gre2_enhanced"])
def test_enhanced_alone_is_refused_with_a_way_out(shared_data, folder):
    with (
        pytest.warns(InputWarning, match="Enhanced"),
        pytest.raises(CorruptInputError, match=r"Enhanced MR is not read yet.*dcm2niix"),
    ):
        read_dicom(shared_data / folder)
