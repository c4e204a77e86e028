"""Which series is read: chosen by the caller, or the only one that can be meant; maps of the scanner never."""

import warnings

import numpy as np
import pytest
from command import run
from dicom_series import N_SLICES, TE_MS, enhanced, image, save, series, values
from pydicom.uid import generate_uid

from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, UsageError
from jaxqmri.io.dicom.reader import read_dicom, scan_dicom
from jaxqmri.mapping.t2star import T2star
from jaxqmri.workflow import run as job


@pytest.fixture
def two_series(tmp_path):
    """Series 7 with the usual values, and series 8 with all values one higher."""
    others = series(SeriesInstanceUID="1.2.40.1", SeriesNumber=8, SeriesDescription="again")
    for ds in others:
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") + 1).astype("<u2").tobytes()
    return save(tmp_path / "two", series() + others)


@pytest.mark.parametrize("name", [8, "8", " 8", "1.2.40.1", "1.2.4", ["8"], (8,)])
def test_a_series_is_chosen_by_its_number_or_how_its_uid_begins(two_series, name):
    found = read_dicom(two_series, series=name)
    assert (found.description, found.data.min()) == ("again", 1001)
    assert found.skipped == {"images of other series": 6}


def test_without_a_choice_the_error_says_how_to_choose(two_series):
    with pytest.raises(CorruptInputError, match="use series='7' or use series='8', or put"):
        read_dicom(two_series)


def test_series_of_the_same_number_are_told_apart_by_uid(tmp_path):
    folder = save(tmp_path, series() + series(SeriesInstanceUID="1.2.4"))
    with pytest.raises(CorruptInputError, match=r"series='1\.2\.3' or use series='1\.2\.4'"):
        read_dicom(folder)
    assert read_dicom(folder, series="1.2.4").n_files == 6


@pytest.mark.parametrize("name", [9, "1.9", "2", "multi-echo GRE"])
def test_a_series_that_is_not_there_is_refused_with_those_that_are(two_series, name):
    with pytest.raises(UsageError, match=r"no series .*there are: series 7 .*UID 1\.2\.3; series 8 .*UID 1\.2\.40\.1"):
        read_dicom(two_series, series=name)


def test_some_of_the_series_of_one_echo_each_can_be_chosen(tmp_path):
    datasets = [
        image(te, k, values(e, k), SeriesInstanceUID=f"1.2.{e}", SeriesNumber=10 + e)
        for e, te in enumerate((5.0, 10.0, 20.0, 40.0))
        for k in range(N_SLICES)
    ]
    with pytest.warns(InputWarning, match="3 series of one echo each"):
        found = read_dicom(save(tmp_path, datasets), series=[13, 10, 12])
    np.testing.assert_array_equal(found.te, [0.005, 0.02, 0.04])
    assert found.skipped == {"images of other series": N_SLICES}


def test_given_echo_times_are_for_the_chosen_series_only(tmp_path):
    folder = save(tmp_path, series() + series((5.0, 10.0), SeriesInstanceUID="1.2.4", SeriesNumber=8))
    with pytest.warns(InputWarning, match=r"used in place of those in the files, 5, 10 ms"):
        np.testing.assert_array_equal(read_dicom(folder, te=[0.006, 0.012], series=8).te, [0.006, 0.012])


def test_the_command_line_reads_the_chosen_series_and_records_no_uid(two_series, tmp_path, capsys, monkeypatch):
    read, genuine = [], job.read_images

    def stop_after_reading(*arguments):
        read.append(genuine(*arguments))
        raise MetadataError("seen enough")

    monkeypatch.setattr(job, "read_images", stop_after_reading)
    for name in ("8", "1.2.40"):
        # No report, which is loaded by a thread that goes on, and with it what it changes of the filters of warnings.
        run(capsys, "t2star", two_series, "-o", tmp_path / "out", "--series", name, "--no-report")
    assert [series.description for series in read] == ["again", "again"]
    assert T2star(series=["8", "1.2.40"]).arguments()["series"] == ["8", "UID"]


# images of several people ---------------------------------------------------------------------------------------------

OWNERS = {"PatientID": ("Doe-1", "Doe-2"), "StudyInstanceUID": ("1.5", "1.6"), "FrameOfReferenceUID": ("1.7", "1.8")}


def two_echoes(keyword, first, second, uids=("1.2.1", "1.2.2")):
    """Echoes alike but for TE and one tag that says whose they are; None: blanked."""
    return [
        image(te, k, values(e, k), SeriesInstanceUID=uids[e], SeriesNumber=e, **({keyword: owner} if owner else {}))
        for e, (te, owner) in enumerate(zip(TE_MS[:2], (first, second), strict=True))
        for k in range(N_SLICES)
    ]


@pytest.mark.parametrize("keyword", OWNERS)
@pytest.mark.parametrize("uids", [("1.2.1", "1.2.2"), ("1.2.3", "1.2.3")], ids=["two series", "one series"])
def test_images_of_two_people_are_never_one_decay(tmp_path, keyword, uids):
    first, second = OWNERS[keyword]
    folder = save(tmp_path / "two", two_echoes(keyword, first, second, uids))
    with pytest.raises(CorruptInputError, match=rf"only one echo.*They differ in .*\({keyword} ") as caught:
        read_dicom(folder)
    assert not any(owner in str(caught.value) for owner in OWNERS[keyword] if "Doe" in owner)


def test_complete_scans_of_two_people_in_one_series_are_not_mixed(tmp_path):
    folder = save(tmp_path, series(PatientID="Doe-1") + series(PatientID="Doe-2"))
    with pytest.raises(CorruptInputError, match=r"2 multi-echo .* They differ in the patient \(PatientID"):
        read_dicom(folder)
    third = save(tmp_path / "more", series(PatientID="Doe-1") + series((40.0,), PatientID="Doe-2"))
    with pytest.raises(CorruptInputError, match=r"images of one series differ in the patient"):
        read_dicom(third)


@pytest.mark.parametrize("keyword", OWNERS)
def test_what_anonymisers_blank_keeps_no_echoes_apart(tmp_path, keyword):
    same, _ = OWNERS[keyword]
    for n, (first, second) in enumerate([(same, same), (same, None), (None, None)]):
        with pytest.warns(InputWarning, match="2 series of one echo each"):
            assert len(read_dicom(save(tmp_path / str(n), two_echoes(keyword, first, second))).te) == 2


def test_enhanced_files_of_two_people_are_never_one_decay(tmp_path):
    images = two_echoes("PatientID", *OWNERS["PatientID"])
    files = [enhanced(images[:N_SLICES]), enhanced(images[N_SLICES:])]
    files[0].PatientID, files[1].PatientID = OWNERS["PatientID"]
    with pytest.raises(CorruptInputError, match="They differ in the patient"):
        read_dicom(save(tmp_path, files))


# maps of the scanner --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "B0", "B0", "FFE"], "EchoTime": 0},  # Philips
        {"ImageType": ["ORIGINAL", "PRIMARY", "B0 MAP", "B0", "UNSPECIFIED"]},
        {"ImageType": ["DERIVED", "PRIMARY", "T2", "NONE"]},  # Siemens
        {"ImageType": ["DERIVED", "PRIMARY", "M", "FIELDMAPHZ"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "RescaleType": "Hz"},
    ],
)
def test_maps_are_never_taken_for_echoes(tmp_path, tags):
    maps = [image(ds.EchoTime, i, values(0, 0), **tags) for i, ds in enumerate(series()[:N_SLICES])]
    with pytest.warns(InputWarning, match="2 map derived by the scanner"):
        found = read_dicom(save(tmp_path, series() + maps))
    np.testing.assert_array_equal(found.te, np.array(TE_MS) / 1e3)
    assert found.skipped == {"map derived by the scanner": N_SLICES}


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.9"])
def test_a_volume_at_te_0_is_no_echo(tmp_path, uid):
    maps = [image(0, k, values(5, k), SeriesInstanceUID=uid) for k in range(N_SLICES)]
    with pytest.warns(InputWarning, match="TE 0; taken for a map|used; passed over: series 7 .*no usable echo times"):
        found = read_dicom(save(tmp_path, series() + maps))
    np.testing.assert_array_equal(found.te, np.array(TE_MS) / 1e3)
    assert found.skipped == {"images of other series": N_SLICES}
    assert found.data.max() < 6000


def test_a_single_image_at_te_0_is_an_error_not_a_map(tmp_path):
    with pytest.raises(MetadataError, match="finite and positive"):
        read_dicom(save(tmp_path, [*series(), image(0, 0, values(5, 0))]))


def test_phase_maps_are_phase(tmp_path):
    scan = scan_dicom(save(tmp_path, series(ImageType=["DERIVED", "PRIMARY", "PHASE MAP", "P", "FFE"])))
    assert [candidate.component for candidate in scan.candidates] == ["phase"]


def test_an_echo_marked_derived_is_left_out_with_a_remark(tmp_path):
    datasets = series((5.0, 10.0, 20.0, 40.0), n_slices=1)
    datasets[2].ImageType = ["DERIVED", "PRIMARY", "M", "ND"]
    with pytest.warns(InputWarning, match=r"1 echo.* is marked DERIVED in ImageType .* and left out"):
        np.testing.assert_array_equal(read_dicom(save(tmp_path, datasets)).te, [0.005, 0.01, 0.04])


# missing images -------------------------------------------------------------------------------------------------------


def test_missing_images_are_named_cell_by_cell(tmp_path):
    datasets = series(n_slices=7)
    lost = {0, 7, 1, 9, 10, 11}  # slices 1 (TE 5, 10), 2 (5), 3, 4, 5 (10)
    with pytest.raises(CorruptInputError) as caught:
        read_dicom(save(tmp_path, [ds for i, ds in enumerate(datasets) if i not in lost]))
    assert (
        "6 of 21 images missing: slice 1 of 7 lacks TE 5, 10 ms, slice 2 of 7 lacks TE 5 ms, slice 3 of 7 lacks TE 10 "
        "ms, slice 4 of 7 lacks TE 10 ms and 1 more slices lack images." in str(caught.value)
    )


def test_renaming_and_new_uids_change_nothing(tmp_path):
    datasets = series()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = read_dicom(save(tmp_path / "a", datasets))
        for ds in datasets:
            ds.SOPInstanceUID = generate_uid()
        other = read_dicom(save(tmp_path / "b", datasets[::-1], prefix="x"))
    np.testing.assert_array_equal(one.data, other.data)
