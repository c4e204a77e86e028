"""The DICOM reader on scans of three vendors, against dcm2niix and the headers themselves."""

import json
import subprocess
from pathlib import Path
from typing import cast

import dcm2niix
import nibabel
import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom.uid import generate_uid

from jaxqmri.errors import CorruptInputError, InputWarning
from jaxqmri.io.choose import choose
from jaxqmri.io.dicom.reader import read_dicom, scan_dicom
from jaxqmri.io.load import read_candidate


@pytest.fixture(scope="module")
def ge_images(shared_data):
    """The images of each component."""
    scan = scan_dicom(shared_data / "ge_gre12_kidney" / "s16_dicom")
    return {candidate.component: read_candidate(scan, candidate) for candidate in scan.candidates}


@pytest.mark.parametrize(("component", "volume"), [("magnitude", 0), ("real", 1), ("imaginary", 2)])
@pytest.mark.parametrize("echo", [1, 6, 12])
def test_ge_voxels_and_affine_are_those_of_dcm2niix(shared_data, ge_images, component, volume, echo):
    folder = shared_data / "ge_gre12_kidney"
    path = next(
        (folder / "s16_dcm2niix").glob(f"*_e{echo}.nii")
    )  # 5 slices; the DICOM folder has those numbered 1 ... 3
    nifti = cast(nibabel.Nifti1Image, nibabel.load(path))
    found = ge_images[component]
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


PHILIPS = "philips_gre2_classic_and_enhanced/s2001"


@pytest.fixture(scope="module")
def philips_scan(shared_data):
    """One scan as 212 classic files and as one Enhanced file."""
    return scan_dicom(shared_data / PHILIPS)


def test_philips_classic_and_enhanced_are_the_same_scan(philips_scan):
    stacks = {(candidate.component, candidate.is_enhanced): candidate for candidate in philips_scan.candidates}
    assert len(stacks) == len(philips_scan.candidates) == 4
    for component in ("magnitude", "phase"):
        one, other = (read_candidate(philips_scan, stacks[component, is_enhanced]) for is_enhanced in (False, True))
        assert one.data.shape == (80, 80, 53, 2)
        np.testing.assert_array_equal(one.data, other.data)
        np.testing.assert_array_equal(one.te, other.te)
        np.testing.assert_allclose(one.affine, other.affine, rtol=0, atol=1e-12)  # mm; positions differ in digit 15
        assert one.acquisition == other.acquisition
        assert (one.n_files, other.n_files) == (106, 1)


def test_philips_classic_beside_its_enhanced_copy(shared_data, philips_scan):
    with pytest.warns(InputWarning, match="twice, as classic files and as Enhanced MR; the classic files are used"):
        found = read_candidate(philips_scan, choose(philips_scan))
    np.testing.assert_allclose(found.te, [2.3e-3, 4.6e-3], rtol=1e-12)
    assert found.data.shape == (80, 80, 53, 2)
    assert found.n_files == 106
    assert found.skipped == {
        "phase images": 212,
        "images of other series": 106,
        "not an MR image (Raw Data Storage)": 1,
    }
    for name in ("2001_0080_e2.dcm", "2001_0083.dcm"):
        ds = pydicom.dcmread(shared_data / PHILIPS / name)
        x, y, z = np.round(
            np.linalg.solve(found.affine, np.array([*ds.ImagePositionPatient, 1.0]) * [-1, -1, 1, 1])[:3], 4
        )
        assert (x, y) == (0, 79)
        measured = ds.pixel_array[::-1].T / ds[0x2005, 0x100E].value  # FP = SV / SS where the intercept is 0
        np.testing.assert_allclose(found.data[:, :, int(z), [2.3, 4.6].index(float(ds.EchoTime))], measured, rtol=1e-6)


def test_siemens_xa_echo_times_come_from_the_functional_groups(shared_data):
    found = read_dicom(shared_data / "siemens_xa30_gre2_enhanced")
    np.testing.assert_allclose(found.te, [10e-3, 12.46e-3], rtol=1e-12)
    assert (found.data.shape, found.n_files, found.skipped) == ((64, 64, 33, 2), 2, {"phase images": 33})


def test_siemens_enhanced_echo_train_of_one_file_per_echo(shared_data):
    found = read_dicom(shared_data / "siemens_mese17_enhanced")
    np.testing.assert_allclose(found.te, 11e-3 * np.arange(1, 18), rtol=1e-12)
    assert (found.data.shape, found.n_files) == ((256, 128, 8, 17), 17)
    facts = {key: found.acquisition[key] for key in ("RepetitionTime", "FlipAngle", "ScanningSequence")}
    assert facts == {"RepetitionTime": 5.0, "FlipAngle": 180.0, "ScanningSequence": "SE"}


@pytest.mark.filterwarnings("ignore:The string")  # highdicom's, of the name that stands for the blanked one
def test_siemens_images_put_into_one_file_by_highdicom_are_the_same(shared_data, tmp_path):
    folder = shared_data / "siemens_gre2_fieldmap" / "s2"
    images = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    blanked = ("StudyID", "AccessionNumber", "StudyDate", "StudyTime", "PatientBirthDate", "PatientSex")
    for keyword in blanked:  # highdicom wants them
        for ds in images:
            setattr(ds, keyword, ds.get(keyword, ""))
    LegacyConvertedEnhancedMRImage(images, generate_uid(), 9, generate_uid(), 1).save_as(tmp_path / "all.dcm")
    found, wanted = read_dicom(tmp_path), read_dicom(folder)
    for name in ("data", "te", "affine"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.acquisition == wanted.acquisition


# against dcm2niix -----------------------------------------------------------------------------------------------------

FOLDERS = {  # -> images that dcm2niix makes of it
    PHILIPS: 8,  # 2 echoes, magnitude and phase, classic and Enhanced
    "siemens_gre2_fieldmap": 3,
    "siemens_mese17_enhanced": 17,
    "siemens_xa30_gre2_enhanced": 3,
    "ge_gre12_kidney/s16_dicom": 36,
}
SUFFIXES = {"_ph": "phase", "_pha": "phase", "_real": "real", "_imaginary": "imaginary"}


def converted(folder: Path, out: Path) -> list[tuple[str, float, nibabel.Nifti1Image]]:
    """What dcm2niix makes of a folder: component, echo time [s] and image of each."""
    command = [dcm2niix.bin, "-f", "%s_%d", "-z", "n", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    images = []
    for path in sorted(out.glob("*.nii")):
        component = next((c for suffix, c in SUFFIXES.items() if path.stem.endswith(suffix)), "magnitude")
        te = json.loads(path.with_suffix(".json").read_text())["EchoTime"]
        images.append((component, te, nibabel.as_closest_canonical(nibabel.load(path))))
    return images


@pytest.mark.parametrize("folder", FOLDERS)
def test_echo_times_voxels_and_place_are_those_of_dcm2niix(shared_data, tmp_path, request, folder):
    scan = request.getfixturevalue("philips_scan") if folder == PHILIPS else scan_dicom(shared_data / folder)
    ours = {candidate.component: read_candidate(scan, candidate) for candidate in scan.candidates}
    images = converted(shared_data / folder, tmp_path)
    assert len(images) == FOLDERS[folder]
    for component in ours:
        theirs = {te for found, te, _ in images if found == component}
        np.testing.assert_allclose(ours[component].te, sorted(theirs), rtol=1e-9)
    for component, te, image in images:
        found = ours[component]
        volume = found.data[..., int(np.argmin(np.abs(found.te - te)))]
        turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, found.affine))
        given, wanted = turned.get_fdata(), image.get_fdata()
        # All but Philips' are whole numbers. Of Philips' phase dcm2niix rounds the scale to 7e-5; half a step of the
        # stored values is still less than would let one of them differ.
        tolerance = {"magnitude": 1e-6 * wanted.max(), "phase": np.pi / 4095}[component] if folder == PHILIPS else 0
        np.testing.assert_allclose(given, wanted, rtol=0, atol=tolerance)
        corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*np.array(given.shape) - 1, 1]
        # Headers give positions to 1e-3 mm, directions to 1e-5 or better; NIfTI has float32.
        np.testing.assert_allclose(corners @ turned.affine.T, corners @ image.affine.T, rtol=0, atol=1e-3)
