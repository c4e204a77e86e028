"""Enhanced MR: many images in one file mean what the same images mean in files of their own."""

import warnings

import numpy as np
import pytest
from dicom_series import (
    COLUMNS,
    N_SLICES,
    ROWS,
    TE_MS,
    enhanced,
    functional_groups,
    philips_scale,
    save,
    series,
    values,
)
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import LegacyConvertedEnhancedMRImageStorage, RLELossless

from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError
from jaxqmri.io.choose import choose
from jaxqmri.io.dicom.reader import read_dicom, scan_dicom
from jaxqmri.io.load import read_candidate

PHASE = ["ORIGINAL", "PRIMARY", "P", "ND"]
T2_MAP = ["DERIVED", "PRIMARY", "T2 MAP", "NONE"]


def same(one, other):
    for name in ("data", "te", "affine", "saturated"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.acquisition == other.acquisition
    assert (one.component, one.description, one.axis) == (other.component, other.description, other.axis)


def rescaled_series():
    """Every image on a scale of its own, as Philips stores them."""
    datasets = series()
    for i, ds in enumerate(datasets):
        ds.RescaleSlope, ds.RescaleIntercept = 1 + i / 4, 10 * i
    return datasets


@pytest.mark.parametrize("shared", [(), ("PlaneOrientationSequence", "MRTimingAndRelatedParametersSequence")])
def test_one_file_is_the_same_as_many(tmp_path, shared):
    classic = read_dicom(save(tmp_path / "classic", rescaled_series()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_dicom(save(tmp_path / "enhanced", [enhanced(rescaled_series(), shared)]))
    same(found, classic)
    assert (found.n_files, found.skipped) == (1, {})


def test_one_file_per_echo_is_the_same_as_many(tmp_path):
    datasets = series()
    files = [enhanced(datasets[2 * e : 2 * e + 2], shared=("MREchoSequence",)) for e in range(len(TE_MS))]
    found = read_dicom(save(tmp_path / "enhanced", files))
    same(found, read_dicom(save(tmp_path / "classic", datasets)))
    assert found.n_files == len(TE_MS)


def test_the_order_of_frames_does_not_matter(tmp_path, rng):
    classic = read_dicom(save(tmp_path / "classic", series()))
    datasets = series()
    mixed = [datasets[i] for i in rng.permutation(len(datasets))]
    same(read_dicom(save(tmp_path / "mixed", [enhanced(mixed)])), classic)


def test_what_a_frame_says_goes_before_what_is_said_for_all(tmp_path):
    ds = enhanced(series())
    item = Dataset()
    item.EffectiveEchoTime = 99.0
    ds.SharedFunctionalGroupsSequence[0].MREchoSequence = [item]
    np.testing.assert_array_equal(read_dicom(save(tmp_path, [ds])).te, [0.005, 0.01, 0.02])


@pytest.mark.parametrize("named_by", ["ImageType", "ComplexImageComponent"])
def test_components_in_one_file_are_told_apart(tmp_path, named_by):
    phase = PHASE if named_by == "ImageType" else ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    other = series(ImageType=phase, ComplexImageComponent="PHASE" if named_by != "ImageType" else "MIXED")
    folder = save(tmp_path, [enhanced(series() + other)])
    found = read_dicom(folder)
    assert found.skipped == {"phase images": 6}
    same(found, read_dicom(save(tmp_path / "classic", series())))
    assert [candidate.component for candidate in scan_dicom(folder / "IM000.dcm").candidates] == ["magnitude", "phase"]


def test_a_weighting_is_no_map_but_a_map_is(tmp_path):
    # Value 3 of the frame type of Enhanced MR is the contrast, T2 say; a map says so.
    weighted = series(ImageType=["DERIVED", "PRIMARY", "T2", "M"])
    with pytest.warns(InputWarning, match="DERIVED"):
        assert read_dicom(save(tmp_path / "weighted", [enhanced(weighted)])).n_files == 1
    with pytest.warns(InputWarning, match="2 map derived by the scanner"):
        found = read_dicom(save(tmp_path / "map", [enhanced(series() + series((0.0,), ImageType=T2_MAP))]))
    assert found.skipped == {"map derived by the scanner": N_SLICES}
    np.testing.assert_array_equal(found.te, [0.005, 0.01, 0.02])


def test_units_of_real_world_values_tell_a_map(tmp_path):
    ds = enhanced(series())
    units = Dataset()
    units.CodeValue = "ms"
    for groups in ds.PerFrameFunctionalGroupsSequence:
        groups.RealWorldValueMappingSequence = [Dataset()]
        groups.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence = [units]
    with pytest.warns(InputWarning, match="6 map derived by the scanner"):
        skipped = scan_dicom(save(tmp_path, [ds])).skipped
    assert skipped == {"map derived by the scanner": tuple(f"IM000.dcm frame {i}" for i in range(1, 7))}


def test_images_passed_over_are_counted_alike_in_one_file_and_in_many(tmp_path):
    maps, phase = series((0.0,), ImageType=T2_MAP), series(SeriesInstanceUID="1.2.4", ImageType=PHASE)
    other = series(SeriesInstanceUID="1.2.5", SeriesNumber=8)
    many = save(tmp_path / "many" / "a", series() + maps).parent
    one = save(tmp_path / "one", [enhanced(series() + maps), enhanced(phase), enhanced(other)])
    save(many / "b", phase)
    save(many / "c", other)  # under the file names of b, as scanners number them anew in each folder
    for folder in (many, one):
        with pytest.warns(InputWarning, match="2 map derived by the scanner"):
            found = read_dicom(folder, series=7)
        assert found.skipped == {
            "map derived by the scanner": N_SLICES,
            "phase images": N_SLICES * len(TE_MS),
            "images of other series": N_SLICES * len(TE_MS),
        }


@pytest.mark.parametrize(
    ("keyword", "axis", "shown", "in_si"),
    [
        ("InversionTime", "ti", (50, 100, 2000), [0.05, 0.1, 2.0]),
        ("FlipAngle", "flip_angle", (3, 10, 20), np.deg2rad([3, 10, 20])),
    ],
)
def test_inversion_times_and_flip_angles_can_vary(tmp_path, keyword, axis, shown, in_si):
    datasets = series()
    for i, ds in enumerate(datasets):
        ds.EchoTime = 3
        setattr(ds, keyword, shown[i // N_SLICES])
    found = read_dicom(save(tmp_path / "enhanced", [enhanced(datasets)]), axis=axis)
    np.testing.assert_allclose(found.values, in_si, rtol=1e-12)
    same(found, read_dicom(save(tmp_path / "classic", datasets), axis=axis))


def test_philips_scale_slopes_are_those_of_each_frame(tmp_path):
    # Philips keeps the classic header of each frame in a private sequence, and the scale slope only there.
    datasets = [philips_scale(ds, 1 + i / 4, 0.5 + i / 8) for i, ds in enumerate(series())]
    ds = enhanced(datasets)
    for groups, classic in zip(ds.PerFrameFunctionalGroupsSequence, datasets, strict=True):
        original = Dataset()
        original.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(
            0x0E, "FL", classic[0x2005, 0x100E].value
        )
        block = groups.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        assert block.get_tag(0x0F) == (0x2005, 0x100F)  # the real files have block 14, hence element 140F
        groups.add_new((0x2005, 0x0014), "LO", "Philips MR Imaging DD 005")
        groups.add_new((0x2005, 0x140F), "SQ", Sequence([original]))
    same(read_dicom(save(tmp_path / "e", [ds])), read_dicom(save(tmp_path / "c", datasets)))


def test_a_philips_scale_slope_of_all_frames_is_told_once(tmp_path):
    # The rescale slope of each frame is that of its display alone.
    datasets = [philips_scale(ds, 1 + i / 4, 0.8) for i, ds in enumerate(series())]
    ds, classic = enhanced(datasets), Dataset()
    classic.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.8)
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.add_new((0x2005, 0x0014), "LO", "Philips MR Imaging DD 005")
    shared.add_new((0x2005, 0x140E), "SQ", Sequence([classic]))
    same(read_dicom(save(tmp_path / "e", [ds])), read_dicom(save(tmp_path / "c", datasets)))


def test_given_echo_times_follow_the_frames(tmp_path):
    ds = enhanced(series((5.0, 5.0, 5.0)))
    found = read_dicom(save(tmp_path, [ds]), te=[0.004, 0.008, 0.012])
    np.testing.assert_array_equal(found.te, [0.004, 0.008, 0.012])
    np.testing.assert_array_equal(found.data[0, ROWS - 1, 0], [1000, 2000, 3000])


def with_dimensions(images, pointers, indices):
    """One file whose frames are ordered by their indices along what `pointers` name, as the standard has it."""
    ds = enhanced(images)
    ds.DimensionIndexSequence = [Dataset() for _ in pointers]
    for item, pointer in zip(ds.DimensionIndexSequence, pointers, strict=True):
        item.DimensionIndexPointer = tag_for_keyword(pointer) if isinstance(pointer, str) else pointer
    for groups, index in zip(ds.PerFrameFunctionalGroupsSequence, indices, strict=True):
        content = Dataset()
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", index[0], list(index)
        groups.FrameContentSequence = [content]
    return ds


@pytest.mark.parametrize(
    ("axis", "pointer"),
    [("te", "EffectiveEchoTime"), ("ti", "InversionTimes"), ("flip_angles", "FlipAngle"), ("ti", 0x20051011)],
)
def test_given_values_follow_the_indices_of_frames_not_their_order(tmp_path, axis, pointer):
    images = series((5.0, 5.0, 5.0))[::-1]
    indices = [(2 - i % 2, 3 - i // 2) for i in range(len(images))]
    ds = with_dimensions(images, ("InStackPositionNumber", pointer), indices)
    found = read_dicom(save(tmp_path, [ds]), **{axis: [0.1, 0.2, 0.4]})
    np.testing.assert_array_equal(found.data[0, ROWS - 1, 0], [1000, 2000, 3000])


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ("12 22 11 21 13 23", r"echo times 10 and 5 ms, but DimensionIndexValues .*1 and 2"),
        ("11 21 11 22 13 23", r"frame 3: DimensionIndexValues .* is 1 in both, but EffectiveEchoTime"),
        ("11 21 22 12 13 23", r"InStackPositionNumber .* is 2 in both, but ImagePositionPatient"),
    ],
)
def test_indices_that_contradict_times_or_places_are_refused(tmp_path, indices, words):
    ds = with_dimensions(
        series(), ("InStackPositionNumber", "EffectiveEchoTime"), [tuple(map(int, one)) for one in indices.split()]
    )
    with pytest.raises(CorruptInputError, match=words):
        read_dicom(save(tmp_path, [ds]))


def test_files_made_of_classic_ones_keep_their_echo_times_apart(tmp_path):
    ds = enhanced(series(ScanningSequence="GR"))
    ds.SOPClassUID = LegacyConvertedEnhancedMRImageStorage
    for groups, classic in zip(ds.PerFrameFunctionalGroupsSequence, series(), strict=True):
        del groups.MREchoSequence
        item = Dataset()
        item.EchoTime, item.ScanningSequence = classic.EchoTime, "GR"
        groups.UnassignedPerFrameConvertedAttributesSequence = [item]
    found = read_dicom(save(tmp_path, [ds]))
    np.testing.assert_array_equal(found.te, [0.005, 0.01, 0.02])
    assert found.acquisition["ScanningSequence"] == "GR"


def test_compressed_frames(tmp_path):
    ds = enhanced(series())
    ds.compress(RLELossless)
    same(read_dicom(save(tmp_path / "e", [ds])), read_dicom(save(tmp_path / "c", series())))


def test_a_frame_is_decoded_without_the_others(tmp_path, monkeypatch):
    pixels = [np.full((ROWS, COLUMNS), 7 * i, "<u2") for i in range(6)]
    datasets = series()
    for ds, stored in zip(datasets, pixels, strict=True):
        ds.PixelData = stored.tobytes()
    from jaxqmri.io.dicom import pixels as dicom_pixels

    shapes = []
    decode = dicom_pixels.pixel_array
    monkeypatch.setattr(
        dicom_pixels, "pixel_array", lambda *a, **k: shapes.append((found := decode(*a, **k)).shape) or found
    )
    found = read_dicom(save(tmp_path, [enhanced(datasets)]))
    assert shapes == 6 * [(ROWS, COLUMNS)]
    np.testing.assert_array_equal(found.data[0, 0].ravel(), [0, 14, 28, 7, 21, 35])


# what is refused ------------------------------------------------------------------------------------------------------


def one_echo_time_for_all(ds):
    groups = ds.SharedFunctionalGroupsSequence[0]
    groups.MREchoSequence = ds.PerFrameFunctionalGroupsSequence[0].MREchoSequence
    for own in ds.PerFrameFunctionalGroupsSequence:
        del own.MREchoSequence


def no_echo_time(ds):
    del ds.PerFrameFunctionalGroupsSequence[3].MREchoSequence


def several_echo_times(ds):
    ds.PerFrameFunctionalGroupsSequence[3].MREchoSequence[0].EffectiveEchoTime = [5.0, 6.0]


def a_frame_too_many(ds):
    ds.PerFrameFunctionalGroupsSequence.append(functional_groups(series()[0]))


def pixels_cut_short(ds):
    ds.PixelData = ds.PixelData[:-2]


def a_slice_too_few(ds):
    ds.NumberOfFrames = 5
    ds.PixelData = ds.PixelData[24:]
    del ds.PerFrameFunctionalGroupsSequence[0]


def no_place(ds):
    for own in ds.PerFrameFunctionalGroupsSequence:
        del own.PlanePositionSequence


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (one_echo_time_for_all, MetadataError, r"EffectiveEchoTime \(0018,9082\).*all 3 echo times are 5 ms.*with te="),
        (
            no_echo_time,
            MetadataError,
            r"IM000.dcm frame 4, EffectiveEchoTime \(0018,9082\).*missing.*with te=",
        ),
        (several_echo_times, MetadataError, r"IM000.dcm frame 4, Effective.*2 values where one is wanted"),
        (a_frame_too_many, CorruptInputError, r"NumberOfFrames \(0028,0008\) is 6, but PerFrame.*describes 7"),
        (pixels_cut_short, CorruptInputError, r"142 bytes of pixels .* 6 frames of Rows x Columns = 3x4 need 144"),
        (a_slice_too_few, CorruptInputError, "1 of 6 images missing: slice 1 of 2 lacks TE 5 ms"),
        (no_place, MetadataError, r"ImagePositionPatient \(0020,0032\)"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_one_helpful_line(tmp_path, spoil, error, words):
    ds = enhanced(series())
    spoil(ds)
    with pytest.raises(error, match=words) as caught:
        read_dicom(save(tmp_path, [ds]))
    assert "\n" not in str(caught.value)


def test_no_identity_leaves_the_reader(tmp_path):
    found = read_dicom(save(tmp_path, [enhanced(series(PatientName="Doe^Jane"))], prefix="Doe"))
    assert "Doe" not in repr(found)


def test_the_same_images_classic_and_enhanced_are_read_once(tmp_path):
    folder = save(tmp_path, [*series(), enhanced(series())])
    scan = scan_dicom(folder)
    with pytest.warns(InputWarning, match="there twice.*the classic files are used"):
        found = read_candidate(scan, choose(scan))
    assert (found.n_files, found.skipped) == (6, {"images of other series": N_SLICES * len(TE_MS)})
    assert found.data[0, ROWS - 1, 1, 2] == values(2, 1)[0, 0]
