"""Images of different inversion times or flip angles: found, put in order, and refused where they cannot be meant."""

import re
from pathlib import Path

import dicom_series
import nifti_files
import numpy as np
import pytest
from dicom_series import ge_component
from t1_scans import (
    FLIP_ANGLES,
    FLIP_DEG,
    TI,
    TI_MS,
    dicom_images,
    flip_angle_dicom,
    flip_angle_nifti,
    inversion_dicom,
    inversion_nifti,
    recovery,
    spoiled,
)

from jaxqmri import read_dicom, read_nifti
from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, UsageError
from jaxqmri.io.images import read_images

pytestmark = pytest.mark.filterwarnings("ignore::jaxqmri.errors.InputWarning")


# what is read ---------------------------------------------------------------------------------------------------------


def test_dicom_series_of_one_inversion_time_each_are_joined(tmp_path):
    with pytest.warns(InputWarning, match="6 series of one inversion time each, alike but for their inversion time"):
        found = read_dicom(inversion_dicom(tmp_path), axis="ti")
    np.testing.assert_array_equal(found.ti, TI)
    np.testing.assert_array_equal(found.te, 6 * [0.005])
    np.testing.assert_array_equal(found.data[:, :, 0], np.round(np.abs(recovery())))
    assert (found.component, found.acquisition["RepetitionTime"], found.n_files) == ("magnitude", 8.0, 6)
    assert "InversionTime" not in found.acquisition


def test_dicom_flip_angles_become_radians(tmp_path):
    found = read_dicom(flip_angle_dicom(tmp_path), axis="flip_angle")
    np.testing.assert_allclose(found.flip_angles, FLIP_ANGLES, rtol=1e-15)
    np.testing.assert_array_equal(found.data[:, :, 0], np.round(10 * spoiled()))


@pytest.mark.parametrize("axis", ["ti", "flip_angle"])
def test_nifti_sidecars_have_seconds_and_degrees(tmp_path, axis):
    found = read_nifti((inversion_nifti if axis == "ti" else flip_angle_nifti)(tmp_path), axis=axis)
    np.testing.assert_allclose(found.values, TI if axis == "ti" else FLIP_ANGLES, rtol=1e-15)
    expected = np.abs(recovery()) if axis == "ti" else spoiled()
    np.testing.assert_array_equal(found.data[:, :, 0], expected.astype(np.float32))


def test_one_series_of_all_inversion_times_in_any_order(tmp_path):
    tags = {"SeriesInstanceUID": "1.9", "SeriesNumber": 3}
    datasets = dicom_images(np.abs(recovery()), "InversionTime", TI_MS, **tags)
    found = read_dicom(dicom_series.save(tmp_path, datasets[::-1]), axis="ti")
    np.testing.assert_array_equal(found.ti, TI)
    np.testing.assert_array_equal(found.data[:, :, 0], np.round(np.abs(recovery())))


def test_4d_nifti_with_values_in_the_sidecar_or_given(tmp_path):
    values = np.abs(recovery()).astype(np.float32)[:, :, None]
    nifti_files.save(tmp_path / "a.nii", values[..., ::-1], sidecar={"InversionTime": TI[::-1].tolist()})
    nifti_files.save(tmp_path / "b.nii", values)
    for found in (read_nifti(tmp_path / "a.nii", axis="ti"), read_nifti(tmp_path / "b.nii", ti=TI)):
        np.testing.assert_array_equal(found.ti, TI)
        np.testing.assert_array_equal(found.data, values)
        assert np.isnan(found.te).all(), "nobody says what they are"


def test_files_of_a_folder_take_given_values_by_their_bids_numbers(tmp_path):
    folder = flip_angle_nifti(tmp_path)
    for sidecar in folder.glob("*.json"):
        sidecar.unlink()
    found = read_nifti(folder, flip_angles=FLIP_ANGLES)
    np.testing.assert_array_equal(found.data[:, :, 0], spoiled().astype(np.float32))
    for number in (1, 2, 3):
        (folder / f"sub-1_flip-{number}_VFA.nii.gz").rename(folder / f"{'abc'[number - 1]}.nii.gz")
    with pytest.raises(UsageError, match=r"neither FlipAngle nor a number \(flip-1 in the names\) tells"):
        read_nifti(folder, flip_angles=FLIP_ANGLES)


def test_spin_lock_times_have_numbers_in_names_too(tmp_path):
    for number in (2, 1):
        nifti_files.save(tmp_path / f"tsl-{number}.nii", np.full((2, 2, 1), 10.0 / number))
    assert read_nifti(tmp_path, tsl=[0.0, 0.02]).data[0, 0, 0].tolist() == [10.0, 5.0]
    for number in (1, 2):
        (tmp_path / f"tsl-{number}.nii").rename(tmp_path / f"{'ab'[number - 1]}.nii")
    with pytest.raises(UsageError, match=r"neither SpinLockTime nor a number \(tsl-1 in the names\) tells"):
        read_nifti(tmp_path, tsl=[0.0, 0.02])


def test_given_values_equal_those_of_the_files_to_the_last_bit(tmp_path):
    angles = [np.float64(d) / (180 / np.pi) for d in FLIP_DEG]
    folder = flip_angle_dicom(tmp_path)
    np.testing.assert_array_equal(
        read_dicom(folder, axis="flip_angle").flip_angles, read_dicom(folder, flip_angles=angles).flip_angles
    )


# real images ----------------------------------------------------------------------------------------------------------


def test_real_images_are_used_where_there_are_no_others_and_where_asked_for(tmp_path):
    real = inversion_nifti(tmp_path / "real", real=True)
    only = read_nifti(real, axis="ti")
    assert (only.component, only.data.min() < -5000) == ("real", True)
    inversion_nifti(real)  # the magnitudes beside them
    assert read_nifti(real, axis="ti").component == "magnitude"
    asked = read_nifti(real, axis="ti", component="real")
    np.testing.assert_array_equal(asked.data, only.data)
    assert asked.skipped == {"magnitude images": 6}
    with pytest.raises(CorruptInputError, match="said to be imaginary, but none of their values is negative"):
        read_nifti(real, axis="ti", component="imaginary")
    with pytest.raises(UsageError, match="component 'modulus' is not one of magnitude, phase, real, imaginary"):
        read_nifti(real, axis="ti", component="modulus")


def test_real_dicom_images_are_not_joined_with_magnitudes(tmp_path):
    signal = recovery()
    magnitudes = [ge_component(ds, 0) for ds in dicom_images(np.abs(signal), "InversionTime", TI_MS)]
    real = [ge_component(ds, 2) for ds in dicom_images(np.abs(signal), "InversionTime", TI_MS, RescaleSlope=-1)]
    folder = dicom_series.save(dicom_series.save(tmp_path, magnitudes), real, prefix="real")
    assert read_dicom(folder, axis="ti").data.min() >= 0
    found = read_dicom(folder, axis="ti", component="real")
    assert (found.component, found.data.max() <= 0) == ("real", True)


# what varies ----------------------------------------------------------------------------------------------------------

BOTH = ("ti", "flip_angle")


def test_of_several_axes_the_one_that_varies_is_read(tmp_path):
    for make, name in ((inversion_dicom, "ti"), (flip_angle_dicom, "flip_angles"), (inversion_nifti, "ti")):
        assert read_images([make(tmp_path / make.__name__)], BOTH).axis.name == name


def test_series_of_both_kinds_are_not_guessed_about(tmp_path):
    inversion_dicom(tmp_path / "ir")
    datasets = dicom_images(10 * spoiled(), "FlipAngle", FLIP_DEG, RepetitionTime=5.4)
    for k, ds in enumerate(datasets):
        ds.SeriesInstanceUID = f"1.7.{k}"
    dicom_series.save(tmp_path / "vfa", datasets)
    with pytest.raises(UsageError, match="could both be meant; say which with method"):
        read_images([tmp_path], BOTH)
    assert read_images([tmp_path], ("ti",)).data.shape[-1] == 6
    assert read_images([tmp_path], ("flip_angle",)).data.shape[-1] == 3


def test_where_neither_varies_it_is_said_why_for_each(tmp_path):
    dicom_series.save(tmp_path, dicom_series.series())
    by_inversion_time = r"By inversion time: IM000.dcm, InversionTime \(0018,0082\): missing.*with ti="
    by_flip_angle = "By flip angle: .*all 3 flip angles are 25 deg; what varies is the echo time.*`t2star_map`"
    with pytest.raises(MetadataError, match=f"differ in .*{by_inversion_time}.*{by_flip_angle}"):
        read_images([tmp_path], BOTH)


def test_what_is_wrong_along_the_one_that_varies_is_said(tmp_path):
    inversion_nifti(tmp_path)
    for number in range(1, 6, 2):
        nifti_files.edit(tmp_path, f"ir_{number}", RepetitionTime=9.0)
    with pytest.raises(CorruptInputError, match=r"2 multi-inversion-time .*differ in RepetitionTime 8 and 9"):
        read_images([tmp_path], BOTH)


# what is refused ------------------------------------------------------------------------------------------------------


def changed(keyword: str, values: list, image: int | None = None, **tags):
    """Inversion recovery whose images, or one of them, have another value."""

    def build(folder: Path) -> Path:
        datasets = dicom_images(np.abs(recovery()), "InversionTime", TI_MS, **tags)
        for k, ds in enumerate(datasets):
            if image in (None, k):
                setattr(ds, keyword, values[k % len(values)])
        return dicom_series.save(folder, datasets)

    return build


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (changed("InversionTime", [None], 2), MetadataError, r"IM002.dcm, .*\(0018,0082\): missing .*with ti="),
        (changed("InversionTime", [0], 2), MetadataError, r"IM002.dcm, .*finite and positive, got 0 ms"),
        (changed("InversionTime", [0.05, 0.5, 1, 2, 4, 6]), MetadataError, "IM000.* seconds in a field of milli"),
        (changed("InversionTime", [1, 2, 3, 4, 5, 6]), MetadataError, "stay below 20 ms; they look like seconds"),
        (changed("InversionTime", [40000], 5), MetadataError, "40000 ms are outside 1 ... 30000 ms"),
        (changed("InversionTime", [500], SeriesInstanceUID="1.9"), MetadataError, "are 500 ms. T1 is seen in how"),
        (changed("InversionTime", [900.0], 4), CorruptInputError, "TI 900 ms is there twice"),
        (changed("RepetitionTime", [8000, 9000]), CorruptInputError, "They differ in RepetitionTime 8000 and 9000"),
        (changed("EchoTime", [5, 6]), CorruptInputError, "They differ in EchoTime 5 and 6"),
        (changed("RepetitionTime", [8000, 9000], SeriesInstanceUID="1.9"), CorruptInputError, "RepetitionTime differs"),
    ],
)  # fmt: skip
def test_inversion_times_that_cannot_be_meant(tmp_path, build, error, words):
    with pytest.raises(error, match=words) as caught:
        read_dicom(build(tmp_path), axis="ti")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("angles", "words"),
    [
        ([0.05, 0.14, 0.3], "outside 0.5 ... 180 deg; they look like radians in a field of degrees"),
        ([0.6, 1.2, 1.57], "stay below 2 deg; they look like radians in a field of degrees"),
        ([10, 20, 270], "outside 0.5 ... 180 deg"),
        ([10, 10, 10], "all 3 flip angles are 10 deg"),
        (
            [10, "20", 30],
            'FlipAngle is "20", not a number of degrees; mend it or give the right one with flip_angles=',
        ),
    ],
)
def test_flip_angles_that_cannot_be_meant(tmp_path, angles, words):
    folder = flip_angle_nifti(tmp_path)
    for number, angle in enumerate(angles, start=1):
        nifti_files.edit(folder, f"sub-1_flip-{number}_VFA", FlipAngle=angle)
    with pytest.raises(MetadataError, match=re.escape(words)):
        read_nifti(folder, axis="flip_angle")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"flip_angles": [3.0, 8.0, 17.0]}, MetadataError, "degrees in a field of radians"),
        ({"flip_angles": [3.5, 3.5, 3.5]}, MetadataError, "flip angles 200.535 deg in all 3 images are outside"),
        ({"flip_angles": [0.1, 0.2]}, UsageError, "2 flip angles are given.*images per slice: 3"),
        ({"flip_angles": [0.1, 0.2, 0.2]}, UsageError, "name one flip angle twice"),
        ({"flip_angles": "abc"}, UsageError, "must be numbers in radians"),
        (
            {"flip_angles": FLIP_ANGLES, "te": [0.1, 0.2, 0.3]},
            UsageError,
            "te and flip_angles given; only one can vary",
        ),
        ({"flip_angles": FLIP_ANGLES, "axis": "ti"}, UsageError, "flip_angles given with axis 'ti'"),
        ({"axis": "tr"}, UsageError, "axis 'tr' is not one of te, ti, flip_angle"),
        ({}, MetadataError, "all 3 echo times are 2 ms"),
    ],
)
def test_arguments_that_cannot_be_meant(tmp_path, arguments, error, words):
    with pytest.raises(error, match=words):
        read_nifti(flip_angle_nifti(tmp_path), **arguments)
