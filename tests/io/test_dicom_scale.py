"""Values of images stored each on a scale of its own are comparable wherever the scale is stated, or refused."""

import numpy as np
import pytest
from dicom_series import enhanced, image, philips_scale, quietly, save
from pydicom import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from jaxqmri.errors import CorruptInputError, InputWarning
from jaxqmri.io.dicom.reader import read_dicom, scan_dicom

TE_MS = (5, 10, 20)
SLOPES = (0.25, 0.5, 4.0)
SIGNAL = np.array([800.0, 400.0, 100.0])


def line(slope, unit="1"):
    item, code = Dataset(), Dataset()
    code.CodeValue = unit
    item.RealWorldValueSlope, item.RealWorldValueIntercept, item.MeasurementUnitsCodeSequence = slope, 0.0, [code]
    return item


def rescale(ds, slope):
    ds.RescaleSlope, ds.RescaleIntercept = slope, 0


def real_world(ds, slope):
    ds.RealWorldValueMappingSequence = [line(slope)]


def real_world_table(ds, slope):
    ds.RealWorldValueMappingSequence = [Dataset()]
    item = ds.RealWorldValueMappingSequence[0]
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLUTData = 10, [slope * v for v in range(10, 3300)]


def modality_lut(ds, slope):
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [3300, 0, 16], "US"
    lut.add(DataElement("LUTData", "OW", np.round(slope * np.arange(3300)).astype("<u2").tobytes()))
    ds.ModalityLUTSequence = [lut]


def scaled(*state, slopes=SLOPES):
    """One slice of three echoes, each stored on its scale, which `state` writes into it."""
    images = []
    for number, (te, slope, signal) in enumerate(zip(TE_MS, slopes, SIGNAL, strict=True), start=1):
        ds = image(te, 0, np.full((3, 4), round(signal / slope), "<u2"), InstanceNumber=number)
        for write in state:
            write(ds, slope)
        images.append(ds)
    return images


def same_in_all(value):
    return lambda ds, slope: rescale(ds, value)


def read(tmp_path, datasets):
    return read_dicom(save(tmp_path, datasets)).data[0, 0, 0]


@pytest.mark.parametrize(
    "state",
    [
        (rescale,),
        (real_world,),
        (real_world_table,),
        (modality_lut,),
        (real_world, same_in_all(1)),  # a rescale that tells no image from another is none
        (modality_lut, same_in_all(1)),
        (rescale, real_world),
    ],
)
def test_a_scale_is_read_wherever_it_is_stated(tmp_path, state):
    np.testing.assert_allclose(read(tmp_path, scaled(*state)), SIGNAL, rtol=1e-6)


def at_the_top(ds, images):
    """The scale where classic files have it, in a file per image."""
    files = [enhanced([one]) for one in images]
    for number, (file, one) in enumerate(zip(files, images, strict=True), start=1):
        groups = file.PerFrameFunctionalGroupsSequence[0]
        del groups.PixelValueTransformationSequence, groups.MREchoSequence
        rescale(file, one.RescaleSlope)
        file.EchoTime, file.InstanceNumber = one.EchoTime, number
    return files


def per_frame(ds, images):
    for groups, one in zip(ds.PerFrameFunctionalGroupsSequence, images, strict=True):
        del groups.PixelValueTransformationSequence
        groups.RealWorldValueMappingSequence = [line(float(one.RescaleSlope))]
    return [ds]


def shared_identity(ds, images):
    item = Dataset()
    rescale(item, 1)
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [item]
    return per_frame(ds, images)


@pytest.mark.parametrize("arrange", [at_the_top, per_frame, shared_identity])
def test_enhanced_files_may_state_it_in_any_of_their_places(tmp_path, arrange):
    images = scaled(rescale)
    np.testing.assert_allclose(read(tmp_path, arrange(enhanced(images), images)), SIGNAL, rtol=1e-6)


def unusable(value):
    def change(ds, slope):
        if slope == SLOPES[1]:
            ds.add(DataElement("RescaleSlope", "LO", value))

    return change


def only_some(write):
    return lambda ds, slope: write(ds, slope) if slope != SLOPES[1] else None


def another(ds, slope):
    real_world(ds, 3.0)


def two_lines(ds, slope):
    ds.RealWorldValueMappingSequence = [line(slope), line(2 * slope)]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        *[((rescale, unusable(v)), r"IM001.dcm: RescaleSlope \(0028,1053\) gives") for v in ("nan", "0", "inf", "2,5")],
        ((only_some(rescale),), r"IM000.dcm states its scale in RescaleSlope .*IM001.dcm does not"),
        ((only_some(real_world),), r"IM001.dcm does not"),
        ((rescale, another), r"in RescaleSlope \(0028,1053\) and in RealWorldValueMapping.* disagree"),
        ((two_lines,), r"RealWorldValueMappingSequence \(0040,9096\) gives its pixels no scale"),
    ],
)
def test_images_without_a_scale_in_common_are_refused(tmp_path, state, words):
    with pytest.raises(CorruptInputError, match=words):
        read(tmp_path, scaled(*state))


def test_real_world_values_of_a_quantity_are_a_map(tmp_path):
    datasets = scaled()
    for ds in datasets:
        ds.RealWorldValueMappingSequence = [line(0.5, "ms")]
    with pytest.warns(InputWarning, match="3 map derived by the scanner"):
        assert not scan_dicom(save(tmp_path, datasets)).candidates


# Philips' scale slope under another name ------------------------------------------------------------------------------

SCALE_SLOPES = (0.25, 1.0, 2.0)


def philips(manufacturer, creator="Philips MR Imaging DD 001", without=()):
    """Every image on a scale that only (2005,100E) makes comparable."""
    datasets = scaled(slopes=[1 / s for s in SCALE_SLOPES])
    for e, (ds, scale_slope) in enumerate(zip(datasets, SCALE_SLOPES, strict=True)):
        philips_scale(ds, 1 + e / 8, None if e in without else scale_slope)
        ds.Manufacturer = manufacturer
        if e not in without:
            ds[0x2005, 0x10].value = creator
    return datasets


@pytest.mark.parametrize("creator", ["Philips MR Imaging DD 001", ""])
@pytest.mark.parametrize("manufacturer", ["", "ANONYMIZED"])
def test_philips_images_are_known_by_their_private_elements(tmp_path, manufacturer, creator):
    np.testing.assert_allclose(read(tmp_path, philips(manufacturer, creator)), SIGNAL, rtol=1e-6)


def test_philips_frames_are_known_by_their_private_elements(tmp_path):
    datasets = philips("")
    ds = enhanced(datasets)
    for groups, classic in zip(ds.PerFrameFunctionalGroupsSequence, datasets, strict=True):
        groups.add_new((0x2005, 0x140F), "SQ", Sequence([classic]))
    np.testing.assert_allclose(read(tmp_path, [ds]), SIGNAL, rtol=1e-6)


def test_a_block_reserved_for_another_vendor_holds_no_scale_slope(tmp_path):
    found = read(tmp_path, philips("ELSCINT", creator="ELSCINT1"))  # displayed values
    np.testing.assert_allclose(found, SIGNAL * SCALE_SLOPES * (1 + np.arange(3) / 8), rtol=1e-6)


def test_philips_images_of_which_one_lacks_its_scale_slope_are_refused(tmp_path):
    with pytest.raises(CorruptInputError, match=r"IM001.dcm lacks Philips' scale slope \(2005,100E\)"):
        read(tmp_path, philips("", without=[1]))


@pytest.mark.parametrize(("gains", "told"), [((11, 11, 11), False), ((11, 11, 10), True)])
def test_ge_series_of_different_receive_gains_are_told(tmp_path, gains, told):
    datasets = scaled()
    for e, (ds, analog) in enumerate(zip(datasets, gains, strict=True)):
        block = ds.private_block(0x0019, "GEMS_ACQU_01", create=True)
        block.add_new(0x8A, "SS", analog)
        block.add_new(0x8B, "SS", 15)
        ds.SeriesInstanceUID, ds.SeriesNumber = f"1.2.{e}", e
    remarks = map(str, quietly(save(tmp_path, datasets)).remarks)
    assert any("GE's receive gains" in one for one in remarks) == told


@pytest.mark.filterwarnings("ignore:3 series")
def test_philips_series_without_scale_slopes_are_not_joined(tmp_path):
    datasets = philips("Philips", without=[0, 1, 2])
    for e, ds in enumerate(datasets):
        ds.SeriesInstanceUID, ds.SeriesNumber = f"1.2.{e}", e
    with pytest.raises(CorruptInputError, match=r"several series .* lack the scale slope \(2005,100E\)"):
        read(tmp_path, datasets)


def test_an_unknown_maker_of_differing_slopes_is_remarked_on(tmp_path):
    datasets = scaled(rescale)
    for ds in datasets:
        ds.Manufacturer = ""
    with pytest.warns(InputWarning, match=r"Manufacturer \(0008,0070\) is blanked"):
        read(tmp_path, datasets)


def test_images_that_lost_bits_or_were_compressed_with_loss_are_told(tmp_path):
    datasets = scaled()
    few = datasets[0]
    few.PixelData = np.full((3, 4), 200, "u1").tobytes()
    few.BitsAllocated, few.BitsStored, few.HighBit = 8, 8, 7
    with pytest.warns(InputWarning, match=r"images have 8 and 16 bits .* and no scales of their own"):
        read(tmp_path / "bits", datasets)
    datasets = scaled()
    datasets[1].LossyImageCompression = "01"
    with pytest.warns(InputWarning, match="1 of . images were compressed with loss"):
        read(tmp_path / "lossy", datasets)


# bits -----------------------------------------------------------------------------------------------------------------

ROW = np.array([0, 1, 2, 3], np.int64)


def of_bits(stored, *, n_stored=12, high=11, signed=False, overlay=None):
    """Two echoes of 3 x 4 stored 16-bit words."""
    datasets = []
    for e in range(2):
        words = np.tile(stored, (3, 1)).astype("<u2").view("<i2" if signed else "<u2")
        ds = image(TE_MS[e], 0, words, BitsStored=n_stored, HighBit=high)
        if overlay is not None:
            ds.add_new((0x6000, 0x0100), "US", 16)
            ds.add_new((0x6000, 0x0102), "US", overlay)
        datasets.append(ds)
    return datasets


@pytest.mark.parametrize(
    ("stored", "facts", "wanted"),
    [
        (100 + ROW + 2**12 * (ROW > 1), {"overlay": 12}, 100 + ROW),
        (16 * (100 + ROW), {"high": 15}, 100 + ROW),
        (16 * (100 + ROW) + (ROW > 1), {"high": 15, "overlay": 0}, 100 + ROW),
        (4096 - 1 - ROW, {"signed": True}, -1 - ROW),
        (65536 - 1 - ROW, {"signed": True}, -1 - ROW),
        (16 * (4096 - 1 - ROW), {"signed": True, "high": 15}, -1 - ROW),
        (60000 + ROW, {"n_stored": 16, "high": 11}, 60000 + ROW),
    ],
)
@pytest.mark.filterwarnings("ignore:.*negative")
def test_values_are_the_bits_that_the_header_says(tmp_path, stored, facts, wanted):
    found = read_dicom(save(tmp_path, of_bits(stored, **facts))).data
    np.testing.assert_array_equal(found[:, 0, 0, 0], wanted)


@pytest.mark.parametrize(
    ("stored", "facts"),
    [(4000 + 500 * ROW, {}), (100 + ROW + 2**15, {}), (100 + ROW, {"high": 15}), (100 + ROW + 2**13, {"overlay": 12})],
)
def test_values_with_other_bits_are_neither_cut_nor_believed(tmp_path, stored, facts):
    with pytest.raises(CorruptInputError, match=r"beyond BitsStored \(0028,0101\) 12 .* set these to 16 and 15 if all"):
        read_dicom(save(tmp_path, of_bits(stored, **facts)))
    whole = read_dicom(save(tmp_path / "whole", of_bits(stored, n_stored=16, high=15))).data
    np.testing.assert_array_equal(whole[:, 0, 0, 0], stored)
