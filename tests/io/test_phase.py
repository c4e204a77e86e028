"""Phase images are angles in radians where the file declares its range, and an error where it does not."""

import numpy as np
import pytest
from dicom_series import philips_scale, quietly, save, series
from nifti_files import OBLIQUE, TE, edit
from nifti_files import save as save_nifti

from jaxqmri.errors import MetadataError
from jaxqmri.io.choose import choose
from jaxqmri.io.dicom.reader import read_dicom, scan_dicom
from jaxqmri.io.load import read_candidate
from jaxqmri.io.nifti.reader import read_nifti
from jaxqmri.io.phase import radians_per_unit

PHASE = ["ORIGINAL", "PRIMARY", "P", "ND"]
STORED = np.array([[0, 1024, 2048], [3072, 4000, 4095]], "<u2")  # rows, columns


def phase_folder(folder, stored=STORED, **tags):
    """Three echoes of one slice."""
    datasets = series(n_slices=1, ImageType=PHASE, **tags)
    for ds in datasets:
        ds.Rows, ds.Columns = stored.shape
        ds.PixelData = stored.tobytes()
    return save(folder, datasets)


@pytest.mark.parametrize(
    ("tags", "radians"),
    [
        # of the stored values 0, 2048 and 4095: the lowest, the middle and the highest of 12 bits
        ({"RescaleSlope": 2, "RescaleIntercept": -4096}, (-np.pi, 0, np.pi * 4094 / 4096)),
        ({"RescaleSlope": "1.53455433455433", "RescaleIntercept": -3142}, (-3.142, 0.000767, 3.142)),
        ({"RescaleSlope": "0.00153435538", "RescaleIntercept": "-3.14159265"}, (-np.pi, 0.000767, np.pi)),
        ({"RescaleSlope": 1, "RescaleIntercept": -2000, "RescaleType": "mrad"}, (-2.0, 0.048, 2.095)),
    ],
    ids=["Siemens", "Philips", "radians", "by Rescale Type"],
)
def test_dicom_phase_is_in_radians(tmp_path, tags, radians):
    found = read_dicom(phase_folder(tmp_path, **tags), component="phase")
    assert found.component == "phase"
    assert found.data.dtype == np.float32
    np.testing.assert_allclose(found.data[[0, 2, 2], [1, 1, 0], 0, 0], [radians[0], radians[1], radians[2]], atol=2e-6)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"RescaleSlope": 1, "RescaleIntercept": 0},
        {"RescaleSlope": 1, "RescaleIntercept": -2048},
        {"RescaleSlope": 2, "RescaleIntercept": -4096, "Manufacturer": "", "RescaleType": "US", "BitsStored": 16}
        | {"RescaleSlope": 3},
    ],
)
def test_dicom_phase_of_unknown_range_is_refused(tmp_path, tags):
    with pytest.raises(MetadataError, match=r"series 7 .*phase images, and it is not declared which range") as refused:
        read_dicom(phase_folder(tmp_path, **tags), component="phase")
    assert "\n" not in str(refused.value)


def test_magnitudes_beside_need_no_range_of_the_phase(tmp_path):
    phase_folder(tmp_path / "phase", SeriesInstanceUID="1.2.9")
    save(tmp_path / "magnitude", series())
    assert read_dicom(tmp_path).skipped == {"phase images": 3}


def test_images_that_differ_in_their_range_are_refused(tmp_path):
    folder = phase_folder(tmp_path, RescaleSlope=2, RescaleIntercept=-4096)
    datasets = series((40.0,), n_slices=1, ImageType=PHASE, RescaleType="mrad")
    datasets[0].Rows, datasets[0].Columns = STORED.shape
    datasets[0].PixelData = STORED.tobytes()
    save(folder, datasets, prefix="other")
    with pytest.raises(MetadataError, match="its images differ in the range of values that is a whole turn"):
        quietly(folder, component="phase")


def test_a_declared_range_that_the_values_exceed_is_refused(tmp_path):
    with pytest.raises(MetadataError, match=r"phase of 4.095 rad by the range that its headers declare"):
        read_dicom(phase_folder(tmp_path, RescaleSlope=1, RescaleIntercept=0, RescaleType="mrad"), component="phase")


def test_both_scales_of_philips_give_the_same_angles(tmp_path):
    tags = {"RescaleSlope": "1.53455433455433", "RescaleIntercept": -3142}
    displayed = read_dicom(phase_folder(tmp_path / "displayed", **tags), component="phase")
    datasets = series(n_slices=1, ImageType=PHASE)
    for ds in datasets:
        ds.Rows, ds.Columns = STORED.shape
        ds.PixelData = STORED.tobytes()
        philips_scale(ds, 1.53455433455433, 2.5)  # floating-point values in any unit
        ds.RescaleIntercept = -3142
    scaled = read_dicom(save(tmp_path / "scaled", datasets), component="phase")
    np.testing.assert_allclose(scaled.data, displayed.data, rtol=2e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*is there twice")
def test_philips_scan_in_radians(shared_data):
    """Philips' floating-point values of phase are radians by themselves: a second opinion on the declared range."""
    folder = shared_data / "philips_gre2_classic_and_enhanced" / "s2001"
    scan = scan_dicom(folder)
    wanted = read_candidate(scan, choose(scan, "phase"))
    found = quietly(folder, component="phase")
    np.testing.assert_allclose(found.data, wanted.data, rtol=2e-4)
    assert 3.1 < found.data.max() <= 3.1421
    assert -3.1421 <= found.data.min() < -3.1


# NIfTI ----------------------------------------------------------------------------------------------------------------


def phase_nifti(folder, slope=1.0, intercept=0.0, values=None, **sidecar):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4) * 178 if values is None else values
    for echo, te in enumerate(TE):
        path = save_nifti(folder / f"gre_e{echo + 1}_ph.nii", stored, OBLIQUE, {"EchoTime": te, "SeriesNumber": 4})
        edit(folder, path.stem, **sidecar)
        raw = bytearray(path.read_bytes())
        raw[112:120] = np.array([slope, intercept], "<f4").tobytes()  # scl_slope, scl_inter
        path.write_bytes(raw)
    return stored


@pytest.mark.parametrize(
    ("slope", "intercept", "units", "radians"),
    [
        (2.0, -4096.0, ..., lambda stored: np.pi * (2.0 * stored - 4096) / 4096),
        (2 * np.pi / 4095, -np.pi, ..., lambda stored: 2 * np.pi * stored / 4095 - np.pi),
        (1e-3, -2.0, "rad", lambda stored: 1e-3 * stored - 2),
    ],
    ids=["Siemens", "in radians by its scale", "in radians by its sidecar"],
)
def test_nifti_phase_is_in_radians(tmp_path, slope, intercept, units, radians):
    stored = phase_nifti(tmp_path, slope, intercept, Units=units)
    found = read_nifti(tmp_path, component="phase")
    np.testing.assert_allclose(found.data, np.repeat(radians(stored)[..., None], 4, axis=-1), atol=2e-6)


@pytest.mark.parametrize(
    ("slope", "intercept", "units", "words"),
    [
        (1.0, 0.0, ..., "it is not declared which range"),
        (1.0, 0.0, "arbitrary", "it is not declared which range"),
        (1.0, 0.0, "rad", "phase of 4094 rad by the range that its headers declare, more than half a turn"),
    ],
)
def test_nifti_phase_of_unknown_range_is_refused(tmp_path, slope, intercept, units, words):
    phase_nifti(tmp_path, slope, intercept, Units=units)
    with pytest.raises(MetadataError, match=words):
        read_nifti(tmp_path, component="phase")


@pytest.mark.parametrize("n_bits", [8, 12, 16])
@pytest.mark.parametrize("half_turn", [4096, 3142, 3141.59, 3.14159, 3.14])
def test_a_scale_from_minus_to_plus_half_a_turn_is_a_declaration(n_bits, half_turn):
    for n_steps in (2**n_bits, 2**n_bits - 1):
        factor = radians_per_unit(2 * half_turn / n_steps, -half_turn)
        assert factor == pytest.approx(np.pi / half_turn, rel=1e-3)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, 4096), (-2, -4096), (2, -2048), (3, -4096), (0, -4096)])
def test_other_scales_are_none(slope, intercept):
    assert radians_per_unit(slope, intercept) is None
