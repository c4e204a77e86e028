"""What must be the same in all images of a fit, and where given values go: one rule for DICOM and NIfTI."""

import warnings

import dicom_series
import nifti_files
import numpy as np
import pytest
from dicom_series import N_SLICES, image, values
from nifti_files import echo_values

from jaxqmri import read_dicom, read_nifti
from jaxqmri.errors import CorruptInputError, InputWarning, UsageError
from jaxqmri.io.protocol import NUDGED, change
from jaxqmri.quantities import AXES

VARIED = {"te": "EchoTime", "ti": "InversionTime", "flip_angle": "FlipAngle"}
VALUES = {"EchoTime": (5.0, 10.0, 20.0), "InversionTime": (100.0, 400.0, 1600.0), "FlipAngle": (3.0, 8.0, 17.0)}
ARGUMENT = {"EchoTime": "te", "InversionTime": "ti", "FlipAngle": "flip_angles"}
IN_WORDS = {
    "ScanningSequence": ("GR", "SE"),
    "SequenceVariant": (["SP", "OSP"], ["MTC", "SP", "OSP"]),
    "ReceiveCoilName": ("Head", "Body"),
    "ParallelAcquisitionTechnique": ("SENSE", "GRAPPA"),
    "ParallelReductionFactorInPlane": (1.0, 2.0),
    "MRAcquisitionType": ("3D", "2D"),
    "ImageType": (["ORIGINAL", "PRIMARY", "M", "ND"], ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]),
    "ContrastBolusAgent": ("NONE", "Gd-BOPTA"),
    "DiffusionBValue": (0.0, 500.0),
}
TIMES = ("EchoTime", "InversionTime", "RepetitionTime")


def in_si(keyword, shown):
    return np.deg2rad(shown) if keyword == "FlipAngle" else np.array(shown) / 1e3


def reading(folder, format_, images, one_series=True, **options):
    """Images of these headers (ms, degrees), the value of the k-th about 1000 (k + 1), read along an axis; quietly."""
    folder.mkdir(exist_ok=True)
    for e, tags in enumerate(images):
        number = {"SeriesNumber": 7 if one_series else 10 + e, "SeriesInstanceUID": "1.2" if one_series else f"1.2.{e}"}
        if format_ == "DICOM":
            tags = number | {"InstanceNumber": e + 1} | tags
            files = [image(5.0, k, values(e, k), **tags) for k in range(N_SLICES)]
            dicom_series.save(folder, files, prefix=f"I{e}")
            continue
        facts = {"EchoTime": 0.005, "RepetitionTime": 0.125} | number
        facts |= {name: value / 1e3 if name in TIMES and value is not None else value for name, value in tags.items()}
        pixels = echo_values(1e9) + 1000 * (e + 1)
        nifti_files.save(folder / f"scan_{e}.nii", pixels.astype(np.float32), sidecar=facts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (read_dicom if format_ == "DICOM" else read_nifti)(folder, **options)


def remarks(series):
    return [str(one) for one in series.remarks]


def order(series):
    """Which image is where along the axis, from 0."""
    return (np.round(series.data[0, -1, 0] / 1000) - 1).tolist()


both_formats = pytest.mark.parametrize("format_", ["DICOM", "NIfTI"])

# what must not vary ---------------------------------------------------------------------------------------------------


@both_formats
@pytest.mark.parametrize("axis", VARIED)
@pytest.mark.parametrize(
    "other", ["EchoTime", "RepetitionTime", "FlipAngle", "InversionTime", "SliceThickness", *IN_WORDS]
)
def test_what_else_varies_within_a_series_makes_its_map_meaningless(tmp_path, format_, axis, other):
    varied = VARIED[axis]
    if other == varied:
        other = "MagneticFieldStrength"
    odd = {"MagneticFieldStrength": (3, 1.5), **IN_WORDS}.get(other, (60.0, 66.0))
    images = [{varied: value, other: odd[e == 2]} for e, value in enumerate(VALUES[varied])]
    with pytest.raises(CorruptInputError, match=rf"{other} differs between images .*leave out ") as refused:
        reading(tmp_path, format_, images, axis=axis)
    assert f"does not depend on the {AXES[axis].term} alone" in str(refused.value)
    images[2][other] = odd[0]  # the remedy
    assert len(reading(tmp_path / "mended", format_, images, axis=axis).values) == 3


@pytest.mark.parametrize(
    ("format_", "keyword", "odd"),
    [
        ("DICOM", "AcquisitionMatrix", ([128, 0, 0, 96], [128, 0, 0, 64])),
        ("NIfTI", "AcquisitionMatrixPE", (96, 64)),
        ("NIfTI", "BaseResolution", (128, 96)),
    ],
)
def test_an_image_measured_with_another_matrix_is_refused_although_it_has_as_many_pixels(
    tmp_path, format_, keyword, odd
):
    images = [{"FlipAngle": angle, keyword: odd[angle > 10]} for angle in VALUES["FlipAngle"]]
    with pytest.raises(CorruptInputError, match=rf"{keyword} differs between images .*leave out "):
        reading(tmp_path, format_, images, axis="flip_angle")


@both_formats
def test_another_bandwidth_is_told_of_separate_scans(tmp_path, format_):
    for axis, keyword in VARIED.items():
        images = [{keyword: value, "PixelBandwidth": 200 + e} for e, value in enumerate(VALUES[keyword])]
        images[2]["PixelBandwidth"] = 400
        found = reading(tmp_path / axis, format_, images, axis=axis)
        assert len(found.values) == 3
        assert any("PixelBandwidth" in said for said in remarks(found)) == (axis != "te")


@both_formats
def test_series_of_another_preparation_or_brightness_are_not_joined(tmp_path, format_):
    for keyword in ("SequenceVariant", "ImageType"):
        odd = IN_WORDS[keyword]
        images = [{"FlipAngle": angle, keyword: odd[angle > 10]} for angle in VALUES["FlipAngle"]]
        found = reading(tmp_path / keyword, format_, images, one_series=False, axis="flip_angle")
        assert len(found.values) == 2
        assert any(f"(differs in {keyword} (" in said for said in remarks(found))
    for same in (["SP", "OSP"], ["SP"]), (["NONE"], ["SK"]):  # oversampling and segments are another matter
        images = [{"FlipAngle": a, "SequenceVariant": same[a > 10]} for a in VALUES["FlipAngle"]]
        assert len(reading(tmp_path / same[0][0], format_, images, one_series=False, axis="flip_angle").values) == 3


@both_formats
def test_a_copy_of_another_image_is_told(tmp_path, format_):
    pixels = np.arange(1000, 1064, dtype="<u2").reshape(8, 8)
    for e, te in enumerate((5.0, 10.0, 20.0)):
        echo = pixels[::-1] if e == 0 else pixels
        if format_ == "DICOM":
            dicom_series.save(tmp_path, [image(te, 0, echo, EchoNumbers=e + 1)], prefix=f"I{e}")
        else:
            nifti_files.save(tmp_path / f"scan_e{e + 1}.nii", echo[..., None], sidecar={"EchoTime": te / 1e3})
    with pytest.warns(InputWarning, match="images at TE 10 ms and TE 20 ms are the same in every voxel"):
        (read_dicom if format_ == "DICOM" else read_nifti)(tmp_path)


def test_a_list_that_is_not_one_per_volume_is_no_number(tmp_path):
    images = np.stack([echo_values(te / 1e3) for te in VALUES["EchoTime"]], axis=-1)
    facts = {"FlipAngle": [3, 8, 17], "RepetitionTime": [0.005, 0.010]}
    nifti_files.save(tmp_path / "scan.nii", images.astype(np.float32), sidecar=facts)
    assert read_nifti(tmp_path, axis="flip_angle").acquisition["RepetitionTime"] == "0.005\\0.01"  # words, no time


def test_a_volume_of_a_file_cannot_be_left_out(tmp_path):
    images = np.stack([echo_values(te) for te in VALUES["EchoTime"]], axis=-1)
    facts = {"EchoTime": [0.005, 0.01, 0.02], "FlipAngle": [10, 10, 30]}
    nifti_files.save(tmp_path / "scan.nii", images.astype(np.float32), sidecar=facts)
    with pytest.raises(CorruptInputError, match=r"FlipAngle differs .*; give images of one FlipAngle\.$"):
        read_nifti(tmp_path)


def test_one_nifti_image_of_another_patient_or_study_is_refused_within_a_series(tmp_path):
    for keyword in ("PatientID", "StudyInstanceUID"):
        images = [{"EchoTime": te, keyword: f"Doe-{te > 15}"} for te in VALUES["EchoTime"]]
        with pytest.raises(CorruptInputError, match=rf"images differ in the .*\({keyword}") as refused:
            reading(tmp_path, "NIfTI", images)
        assert "Doe" not in str(refused.value)


def test_one_dicom_image_of_another_acquisition_is_refused_within_a_series(tmp_path):
    def read(numbers):
        files = dicom_series.series()
        for ds, number in zip(files, numbers, strict=True):
            ds.AcquisitionNumber = number
        return read_dicom(dicom_series.save(tmp_path, files))

    for together in ((1, 1, 1, 1, 1, 1), (1, 1, 2, 2, 3, 3), (1, 2, 1, 2, 1, 2), (1, 2, 3, 4, 5, 6)):
        assert len(read(together).te) == 3
    with pytest.raises(CorruptInputError, match=r"AcquisitionNumber .*two acquisitions are mixed"):
        read((1, 1, 2, 1, 1, 1))


@pytest.mark.parametrize(
    ("keyword", "a", "b", "alike"),
    [
        ("EchoTime", 3.024e-3, 3.032e-3, True),  # GE, for flip angles of 2 and 5 degrees
        ("RepetitionTime", 8.180e-3, 8.188e-3, True),
        ("EchoTime", 50e-6, 70e-6, True),  # a fifth more, but no decay to speak of
        ("EchoTime", 2e-3, 5e-3, False),
        ("EchoTime", 0.080, 0.081, False),
        ("RepetitionTime", 15.0, 16.0, True),  # all has recovered
        ("RepetitionTime", 2.0, 2.1, False),
        ("RepetitionTime", 0.010, 0.011, False),
        ("FlipAngle", 90, 90.01, True),
        ("FlipAngle", 25, 30, False),
        ("MagneticFieldStrength", 3, 2.89, True),
        ("MagneticFieldStrength", 3, 1.5, False),
    ],
)
def test_the_tolerance_is_what_the_signal_changes_not_digits(keyword, a, b, alike):
    assert (change(keyword, a, b) <= NUDGED) == (change(keyword, b, a) <= NUDGED) == alike


def test_an_inversion_time_of_zero_is_none(tmp_path):
    images = [{"EchoTime": te, "InversionTime": ti} for te, ti in zip(VALUES["EchoTime"], (0, None, 0), strict=True)]
    for tags in images:
        tags |= {} if tags["InversionTime"] is not None else {"InversionTime": ""}
    assert len(reading(tmp_path, "DICOM", images, one_series=False).te) == 3


@both_formats
def test_what_is_passed_over_is_told_with_the_reason(tmp_path, format_):
    images = [{"EchoTime": te, "RepetitionTime": 125 if te < 40 else 150} for te in (5.0, 10.0, 20.0, 40.0)]
    found = reading(tmp_path, format_, images, one_series=False)
    assert len(found.te) == 3
    tr = "125 and 150 ms" if format_ == "DICOM" else "0.125 and 0.15 s"
    assert any(
        "passed over: series 13" in said and f"(differs in RepetitionTime {tr})" in said for said in remarks(found)
    )


# values that differ between slices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "told"), [(1e-4, False), (3e-3, True)])
def test_values_that_slices_round_differently_are_one(tmp_path, off, told):
    files = dicom_series.series(n_slices=3)
    for ds in files[1::3]:
        ds.EchoTime = f"{ds.EchoTime * (1 + off):.6g}"
    folder = dicom_series.save(tmp_path, files)
    if told:
        with pytest.warns(InputWarning, match="echo times differ between slices by up to 0.3 %"):
            found = read_dicom(folder)
    else:
        found = read_dicom(folder)
    np.testing.assert_array_equal(found.te, [0.005, 0.01, 0.02])
    np.testing.assert_array_equal(found.data[0, -1, 1], [1100, 2100, 3100])


def test_inversion_times_of_every_slice_its_own_are_named(tmp_path):
    files = dicom_series.series(n_slices=3, EchoTime=5)
    for i, ds in enumerate(files):
        ds.InversionTime = VALUES["InversionTime"][i // 3] + 30 * (i % 3)
    words = (
        r"inversion times differ between slices \(slice 1 of 3: 100, 400, 1600 ms, slice 2 of 3: 130, 430, 1630 ms\)"
    )
    with pytest.raises(CorruptInputError, match=words + ".*each slice in a folder of its own"):
        read_dicom(dicom_series.save(tmp_path / "all", files), axis="ti")
    one = read_dicom(dicom_series.save(tmp_path / "one", files[1::3]), axis="ti")  # the remedy
    np.testing.assert_allclose(one.values, [0.13, 0.43, 1.63], rtol=1e-12)


def test_series_that_lie_a_hundredth_of_a_voxel_apart_are_joined(tmp_path):
    files = [
        image(te, k, values(e, k), SeriesInstanceUID=f"1.2.{e}", SeriesNumber=e)
        for e, te in enumerate(VALUES["EchoTime"])
        for k in range(N_SLICES)
    ]
    for ds in files[-N_SLICES:]:
        ds.ImagePositionPatient = (np.array(ds.ImagePositionPatient, float) + 0.011).tolist()
    with pytest.warns(InputWarning, match="3 series of one echo each"):
        assert len(read_dicom(dicom_series.save(tmp_path, files)).te) == 3


# where given values go ------------------------------------------------------------------------------------------------


@both_formats
@pytest.mark.parametrize("one_series", [True, False], ids=["one series", "three series"])
@pytest.mark.parametrize("keyword", ARGUMENT)
def test_given_values_go_to_images_by_what_their_headers_say(tmp_path, format_, one_series, keyword):
    """However the images are numbered: scanned from the largest to the smallest, or in any order."""
    shown = np.array(VALUES[keyword])
    images = [{keyword: value} for value in shown[[2, 0, 1]]]
    found = reading(tmp_path, format_, images, one_series, **{ARGUMENT[keyword]: in_si(keyword, shown)})
    np.testing.assert_allclose(found.values, in_si(keyword, shown), rtol=1e-12)
    assert order(found) == [1, 2, 0]
    assert not any("in place of" in said for said in remarks(found))
    other = reading(tmp_path, format_, images, one_series, **{ARGUMENT[keyword]: in_si(keyword, 1.1 * shown)})
    assert order(other) == [1, 2, 0]
    assert any(f"used in place of those in the files, {shown[0]:g}, " in said for said in remarks(other))


def test_given_values_in_the_order_of_acquisition_may_descend(tmp_path):
    images = [{"FlipAngle": value} for value in (17.0, 8.0, 3.0)]
    found = reading(tmp_path, "DICOM", images, one_series=False, flip_angles=in_si("FlipAngle", [17.0, 8.0, 3.0]))
    assert order(found) == [2, 1, 0]


@pytest.mark.parametrize("te", [(0.02, 0.005, 0.01), (0.02, 0.01, 0.005)])
@both_formats
def test_given_values_against_the_order_of_the_headers_are_refused(tmp_path, format_, te):
    with pytest.raises(UsageError, match=r"contradicts EchoTime.*5, 10, 20 ms; give them in ascending order"):
        reading(tmp_path, format_, [{"EchoTime": value} for value in VALUES["EchoTime"]], te=te)


def test_headers_that_are_partly_the_same_still_contradict(tmp_path):
    with pytest.raises(UsageError, match=r"contradicts EchoTime \(0018,0081\)"):
        reading(tmp_path, "DICOM", [{"EchoTime": value} for value in (10.0, 10.0, 5.0)], te=(0.005, 0.01, 0.02))


def test_given_values_of_a_4d_file_must_not_contradict_its_sidecar(tmp_path):
    volumes = np.stack([echo_values(1e9) + 1000 * k for k in (3, 2, 1)], axis=-1).astype(np.float32)
    path = nifti_files.save(tmp_path / "a.nii", volumes, sidecar={"EchoTime": [0.02, 0.01, 0.005]})
    with pytest.raises(UsageError, match="contradicts EchoTime"):
        read_nifti(path, te=(0.005, 0.01, 0.02))
    with pytest.warns(InputWarning, match="sorted"):
        assert order(read_nifti(path, te=(0.02, 0.01, 0.005))) == [0, 1, 2]
