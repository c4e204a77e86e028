"""Images of one slice that are repeated in time, or as echoes of every flip angle or inversion time."""

import numpy as np
import pytest
from dicom_series import N_SLICES, TE_MS, enhanced, image, save, series, values
from pydicom.dataset import Dataset

from jaxqmri.errors import CorruptInputError, InputWarning, UsageError, error_in_words
from jaxqmri.io.dicom.reader import read_dicom

N_POINTS = 3


def repeated(keyword="TemporalPositionIdentifier", first=1):
    """Three time points, each with all values higher by one than the one before."""
    datasets = []
    for point in range(N_POINTS):
        for e, te in enumerate(TE_MS):
            for k in range(N_SLICES):
                numbers = {keyword: first + point, "InstanceNumber": len(datasets) + 1, "EchoNumbers": e + 1}
                datasets.append(image(te, k, values(e, k) + np.uint16(point), **numbers))
    return datasets


def in_one_file(datasets):
    ds = enhanced(datasets)
    for groups, one in zip(ds.PerFrameFunctionalGroupsSequence, datasets, strict=True):
        groups.FrameContentSequence = [Dataset()]
        groups.FrameContentSequence[0].TemporalPositionIndex = one.TemporalPositionIdentifier
    return [ds]


MAKE = [repeated, lambda: in_one_file(repeated()), lambda: repeated("AcquisitionNumber", 21)]


@pytest.mark.parametrize("make", MAKE, ids=["classic", "enhanced", "acquisitions"])
def test_one_of_several_time_points_is_read(tmp_path, make):
    folder, wanted = save(tmp_path / "all", make()), read_dicom(save(tmp_path / "one", series()))
    for point in (1, 2, "3"):
        found = read_dicom(folder, time_point=point)
        np.testing.assert_array_equal(found.data, wanted.data + (int(point) - 1))
        assert found.skipped == {"images of other time points": 2 * N_SLICES * len(TE_MS)}
    with pytest.raises(CorruptInputError, match=r"3 time points: .* differ in \w+ \(0020,\d+\).*use time_point='1'"):
        read_dicom(folder)
    for point in (0, 4):
        with pytest.raises(UsageError, match=rf"there are 3 time points, counted from 1; no time point {point}"):
            read_dicom(folder, time_point=point)


def test_the_option_that_helps_is_advised(tmp_path):
    with pytest.raises(CorruptInputError) as caught:
        read_dicom(save(tmp_path / "all", in_one_file(repeated())))
    assert "use --time-point 1 or another" in error_in_words(caught.value)[1]


def test_a_time_point_of_images_that_are_not_repeated_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no images are repeated in time .*leave out time_point="):
        read_dicom(save(tmp_path, series()), time_point=1)


def several_echoes(keyword, shown, *, is_joined=False):
    """Every value of a keyword with three echoes."""
    datasets = []
    for i, value in enumerate(shown):
        for e, te in enumerate(TE_MS):
            uid = {"SeriesInstanceUID": f"1.2.{i}", "SeriesNumber": i} if is_joined else {}
            numbers = {keyword: value, "InstanceNumber": len(datasets) + 1, "EchoNumbers": e + 1}
            datasets.append(image(te, 0, values(e, 0) + np.uint16(i), **numbers, **uid))
    return datasets


@pytest.mark.parametrize(
    ("keyword", "axis", "shown"), [("FlipAngle", "flip_angle", (3, 10, 20)), ("InversionTime", "ti", (50, 400, 2000))]
)
@pytest.mark.parametrize("arrange", ["classic", "enhanced", "a series of each"])
@pytest.mark.filterwarnings("ignore:3 series of one")
def test_the_first_echo_of_each_flip_angle_or_inversion_time_is_used(tmp_path, keyword, axis, shown, arrange):
    datasets = several_echoes(keyword, shown, is_joined=arrange == "a series of each")
    files = [enhanced(datasets)] if arrange == "enhanced" else datasets
    with pytest.warns(InputWarning, match="has 3 echoes, TE 5, 10, 20 ms; the first alone is used"):
        found = read_dicom(save(tmp_path, files), axis=axis)
    np.testing.assert_array_equal(found.data[0, -1, 0], [1000, 1001, 1002])
    assert found.acquisition["EchoTime"] == 0.005
    assert found.skipped == {"images of later echoes": 6}


def test_echoes_are_no_repeats_where_their_time_varies(tmp_path):
    with pytest.raises(CorruptInputError, match=r"at TE 5 ms differ in FlipAngle, 3, 10 deg.*`t1_map` maps that"):
        read_dicom(save(tmp_path, several_echoes("FlipAngle", (3, 10))))


def test_placeholders_of_philips_are_no_inversion_times(tmp_path):
    datasets = several_echoes("InversionTime", (50, 400, 2000))[::3]
    ds = enhanced(datasets)
    for groups, one in zip(ds.PerFrameFunctionalGroupsSequence, datasets, strict=True):
        groups.MRModifierSequence[0].InversionTimes = [float(one.InversionTime), 1.7976931348623157e308]
    np.testing.assert_allclose(read_dicom(save(tmp_path / "some", [ds]), axis="ti").values, [0.05, 0.4, 2.0])
    gradient_echoes = enhanced(series())
    for groups in gradient_echoes.PerFrameFunctionalGroupsSequence:
        groups.MRModifierSequence = [Dataset()]
        groups.MRModifierSequence[0].InversionTimes = 1.7976931348623157e308
    assert "InversionTime" not in read_dicom(save(tmp_path / "none", [gradient_echoes])).acquisition
