"""One rule for DICOM and NIfTI: what is chosen, what is joined, where given values go, and what is said."""

from dataclasses import replace

import dicom_series
import nibabel as nib
import nifti_files
import numpy as np
import pytest
from nifti_files import TE, echo_values, expected, save_series

from jaxqmri import ImageSeries, Maps, quantities, read_dicom, read_mask, read_nifti, write_maps
from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, NoInputError, UsageError
from jaxqmri.quantities import ECHO_TIME

# the series that is read ----------------------------------------------------------------------------------------------


def test_a_nifti_series_is_chosen_by_its_number_or_bids_name(tmp_path):
    save_series(tmp_path)
    for number, (name, te) in enumerate((("b_e1", 0.01), ("b_e2", 0.02)), start=1):
        sidecar = {"EchoTime": te, "SeriesNumber": 8, "SeriesInstanceUID": "1.2.8"}
        nifti_files.save(tmp_path / f"{name}.nii", number * echo_values(te), sidecar=sidecar)
    for series in (8, "8", ["8"], "1.2."):
        found = read_nifti(tmp_path, series=series)
        np.testing.assert_array_equal(found.te, [0.01, 0.02])
        assert found.skipped == {"images of other series": 4}
    np.testing.assert_array_equal(read_nifti(tmp_path, series=7).data, expected())
    with pytest.raises(UsageError, match="no series 9, which is a series number, a BIDS name or how its UID begins"):
        read_nifti(tmp_path, series=9)


def test_a_bids_series_is_chosen_by_its_name(tmp_path):
    for run in (1, 2):
        for echo, te in enumerate(TE[:2], start=1):
            name = f"sub-01_run-{run}_echo-{echo}_part-mag_MEGRE.nii"
            nifti_files.save(tmp_path / name, run * echo_values(te), sidecar={"EchoTime": te})
    with pytest.raises(CorruptInputError, match=r"use series='sub-01_run-1_MEGRE' or use series='sub-01_run-2_MEGRE'"):
        read_nifti(tmp_path)
    np.testing.assert_array_equal(read_nifti(tmp_path, series="sub-01_run-2_MEGRE").data, 2 * expected(TE[:2]))


def test_measured_nifti_images_go_before_derived_ones(tmp_path):
    save_series(tmp_path)
    for k, te in enumerate(TE[:2]):
        sidecar = {"EchoTime": te, "SeriesNumber": 8, "ImageType": ["DERIVED", "SECONDARY", "M", "FILTERED"]}
        nifti_files.save(tmp_path / f"f_e{k}.nii", echo_values(te), sidecar=sidecar)
    np.testing.assert_array_equal(read_nifti(tmp_path).data, expected())
    with pytest.warns(InputWarning, match="marked DERIVED"):
        assert read_nifti(tmp_path, series=8).n_files == 2


def test_single_nifti_images_of_two_people_are_never_one_decay(tmp_path):
    for number, te in enumerate(TE[:2]):
        sidecar = {"EchoTime": te, "SeriesNumber": number, "PatientID": f"Doe-{number}"}
        nifti_files.save(tmp_path / f"{number}.nii", echo_values(te), sidecar=sidecar)
    with pytest.raises(CorruptInputError, match=r"only one echo.*They differ in the patient \(PatientID") as caught:
        read_nifti(tmp_path)
    assert "Doe" not in str(caught.value)


def test_single_nifti_images_on_different_grids_are_not_joined(tmp_path):
    for number, (te, affine) in enumerate(zip(TE, (nifti_files.OBLIQUE, nifti_files.SHIFTED), strict=False)):
        sidecar = {"EchoTime": te, "SeriesNumber": number}
        nifti_files.save(tmp_path / f"{number}.nii", echo_values(te), affine=affine, sidecar=sidecar)
    with pytest.raises(CorruptInputError, match=r"only one echo.*They do not cover the same slices"):
        read_nifti(tmp_path)


def test_given_values_need_an_order_of_the_images_that_are_read_only(tmp_path):
    save_series(tmp_path)
    for name in "abcd":  # phase without echo times or numbers
        nifti_files.save(tmp_path / f"{name}_ph.nii", echo_values(0.01), sidecar={"SeriesNumber": 7})
    np.testing.assert_array_equal(read_nifti(tmp_path, te=TE).data, expected())
    with pytest.raises(UsageError, match="neither EchoTime nor a number"):
        read_nifti(tmp_path, te=TE, component="phase")


# a quantity of its own ------------------------------------------------------------------------------------------------


@pytest.fixture
def mixing_time(monkeypatch):
    """A varied quantity that the readers have never heard of: one row, with a key for sidecars and no DICOM tag."""
    row = replace(
        ECHO_TIME, name="tm", term="mixing time", symbol="TM", low=0.0, high=1.0, keyword="MixingTimeOfSidecar", tag="",
        flag="tm-ms", one="mixing time", many="mixing times", use="the decay cannot be timed without it",
    )  # fmt: skip
    monkeypatch.setitem(quantities.AXES, "tm", row)
    monkeypatch.setitem(quantities.QUANTITIES, "tm", row)
    return row


TM = [0.0, 0.02, 0.04]


def test_a_new_row_is_enough_to_read_dicom_with_given_values(tmp_path, mixing_time):
    folder = dicom_series.save(tmp_path, dicom_series.series(EchoTime=3.0, EchoNumbers=1))
    found = read_dicom(folder, tm=TM)
    assert found.axis is mixing_time
    np.testing.assert_array_equal(found.values, TM)
    np.testing.assert_array_equal(found.data[0, -1, 0], [1000, 2000, 3000])
    np.testing.assert_array_equal(found.te, 3 * [0.003])
    with pytest.raises(MetadataError, match=r"no mixing time.*give the mixing times with tm= \(seconds\)"):
        read_dicom(folder, axis="tm")
    with pytest.raises(UsageError, match="te and tm given; only one can vary"):
        read_dicom(folder, tm=TM, te=TM)


def test_a_new_row_is_enough_to_read_nifti(tmp_path, mixing_time):
    for k, tm in enumerate(TM):
        facts = {"MixingTimeOfSidecar": tm, "EchoTime": 0.003, "SeriesNumber": 3}
        nifti_files.save(tmp_path / f"{'cab'[k]}.nii", echo_values(tm), sidecar=facts)
    for found in (read_nifti(tmp_path, axis="tm"), read_nifti([tmp_path / f"{n}.nii" for n in "cab"], tm=TM)):
        np.testing.assert_array_equal(found.values, TM)
        np.testing.assert_array_equal(found.data, expected(TM))
    assert "MixingTimeOfSidecar" not in found.acquisition
    written = ImageSeries.from_arrays(expected(TM), tm=TM)
    write_maps(tmp_path / "out", {"S0map": np.ones(expected(TM).shape[:3])}, written)
    assert '"MixingTimeOfSidecar"' in (tmp_path / "out" / "S0map.json").read_text()


def test_an_argument_that_is_no_quantity_is_refused_like_any_other(tmp_path):
    with pytest.raises(TypeError, match="unknown argument tm=; what may vary between images: te, ti, flip_angles,"):
        read_dicom(tmp_path, tm=TM)


def test_echoes_of_different_inversion_or_spin_lock_times_are_not_joined(tmp_path):
    for keyword in ("InversionTime", "SpinLockTime"):
        for k, te in enumerate(TE[:2]):
            facts = {"EchoTime": te, "SeriesNumber": k, keyword: 0.1 * (1 + k)}
            nifti_files.save(tmp_path / f"{k}.nii", echo_values(te), sidecar=facts)
        with pytest.raises(CorruptInputError, match=f"only one echo .*They differ in {keyword} 0.1 and 0.2"):
            read_nifti(tmp_path)


@pytest.mark.parametrize("key", ["RepetitionTime", "EchoTime"])
def test_timing_that_differs_within_a_nifti_series_makes_t1_meaningless(tmp_path, key):
    for k, ti in enumerate((0.1, 0.4, 1.6)):
        facts = {"InversionTime": ti, "RepetitionTime": 5.0, "EchoTime": 0.003, "SeriesNumber": 3}
        nifti_files.save(tmp_path / f"{k}.nii", echo_values(ti), sidecar=facts | {key: facts[key] * (1 + k)})
    with pytest.raises(CorruptInputError, match=f"{key} differs between images.*inversion time alone"):
        read_nifti(tmp_path, axis="ti")


# what is said ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["DICOM", "NIfTI"])
def test_times_that_a_scanner_nudges_with_the_flip_angle_are_one_protocol(tmp_path, format_):
    """As GE does: TR 8.180 and 8.188, TE 3.024 and 3.032 ms. T1 moves by as much as TR at most."""
    tr, te, degrees = (8.18, 8.188, 8.188), (3.024, 3.032, 3.032), (2, 5, 10)
    for k in range(3):
        if format_ == "NIfTI":
            sidecar = {
                "EchoTime": te[k] / 1e3,
                "RepetitionTime": tr[k] / 1e3,
                "FlipAngle": degrees[k],
                "SeriesNumber": k + 1,
            }
            nifti_files.save(tmp_path / f"f{k}.nii", echo_values(0.01 * (k + 1)), sidecar=sidecar)
        else:
            tags = {
                "RepetitionTime": tr[k],
                "FlipAngle": degrees[k],
                "SeriesNumber": k + 1,
                "SeriesInstanceUID": f"1.9.{k}",
            }
            dicom_series.save(tmp_path, dicom_series.series((te[k],), **tags), prefix=f"S{k}")
    with pytest.warns(InputWarning) as told:
        found = (read_nifti if format_ == "NIfTI" else read_dicom)(tmp_path, axis="flip_angle")
    assert len(found.values) == 3
    assert found.acquisition["RepetitionTime"] == pytest.approx(8.18e-3, rel=1e-3)
    assert found.acquisition["EchoTime"] == pytest.approx(3.032e-3, rel=1e-12)
    assert any("EchoTime differs between images by 0.26 %" in str(warning.message) for warning in told)


def test_what_was_remarked_is_on_the_series_and_a_warning_of_the_callers_line(tmp_path):
    folder = dicom_series.save(tmp_path / "dicom", dicom_series.series())
    (folder / "empty").touch()
    nifti_files.save(tmp_path / "a.nii", expected()[..., ::-1])
    for read in (lambda: read_dicom(folder), lambda: read_nifti(tmp_path / "a.nii", te=TE[::-1])):
        with pytest.warns(InputWarning) as caught:
            found = read()
        assert [str(one) for one in found.remarks] == [str(one.message) for one in caught]
        assert {one.filename for one in caught} == {__file__}
        assert found.remarks


def test_files_of_the_other_format_are_pointed_at(tmp_path):
    dicom = dicom_series.save(tmp_path / "dicom", dicom_series.series())
    (tmp_path / "nifti").mkdir()
    nifti = save_series(tmp_path / "nifti")
    for paths in (nifti, [nifti / "scan_e1.nii.gz"], tmp_path / "nifti"):
        with pytest.raises(NoInputError, match=r"NIfTI files; read them by read_nifti"):
            read_dicom(paths)
    for paths in (dicom, dicom / "IM000.dcm"):
        with pytest.raises(NoInputError, match=r"DICOM files; read them by read_dicom"):
            read_nifti(paths)


def test_arguments_of_other_types_are_refused_in_one_line(tmp_path):
    image = nib.Nifti1Image(expected(), np.eye(4))
    series, maps = ImageSeries.from_arrays(image, te=TE), Maps({"T2map": np.ones((5, 4, 3))})
    cases = [
        (lambda: read_nifti(image), "paths must be a path .*got Nifti1Image; of images in memory .*from_arrays"),
        (lambda: read_nifti(expected()), "paths must be a path .*got ndarray"),
        (lambda: read_dicom(None), "path must be a path or a list of paths, got None"),
        (lambda: read_dicom(7), "path must be a path or a list of paths, got int"),
        (lambda: read_dicom([tmp_path, 7]), "path must be a path or a list of paths"),
        (lambda: read_nifti(tmp_path, "5 10"), "te: echo times must be numbers in seconds, got '5 10'"),
        (lambda: read_mask(image, series), "path must be a path, got Nifti1Image"),
        (lambda: read_mask(series, tmp_path), "path must be a path, got ImageSeries"),
        (lambda: read_mask(tmp_path, tmp_path), "series must be an ImageSeries"),
        (lambda: write_maps(maps, tmp_path, series), "folder must be a path, got Maps"),
        (lambda: write_maps(tmp_path, maps, None), "series must be an ImageSeries.* got None"),
        (lambda: write_maps(tmp_path, series, maps), "maps must be arrays by name.* got ImageSeries"),
    ]
    for call, words in cases:
        with pytest.raises(UsageError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_absolute_values_of_negative_magnitudes_on_request(tmp_path):
    path = nifti_files.save(tmp_path / "a.nii", expected() - 300)
    with pytest.warns(InputWarning, match="negative='abs' to fit absolute values"):
        read_nifti(path, te=TE)
    with pytest.warns(InputWarning, match="their absolute values are fitted"):
        np.testing.assert_array_equal(read_nifti(path, te=TE, negative="abs").data, np.abs(expected() - 300))
