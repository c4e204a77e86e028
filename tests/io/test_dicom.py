"""What the DICOM reader promises of a good folder: order, place, values, and echo times given by the caller."""

import warnings

import numpy as np
import pydicom
import pytest
from dicom_series import (
    COLUMNS,
    FIRST,
    N_SLICES,
    ROWS,
    STEP,
    TE_MS,
    ge_component,
    image,
    philips_scale,
    save,
    series,
    values,
)
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, NoInputError, UsageError
from jaxqmri.io.dicom.reader import read_dicom, scan_dicom


def test_voxels_lie_where_the_headers_put_them(tmp_path):
    # By hand: x along ROW by 3 mm, y against COLUMN by 2 mm, z by STEP; voxel (0, 0, 0) is the first pixel of the
    # bottom row: FIRST + 2 rows * 2 mm * COLUMN = (10, 20, 26) in LPS; RAS negates the first two coordinates.
    expected = np.array([[-2.4, 0, 3, -10], [-1.8, 0, -4, -20], [0, 2, 0, 26], [0, 0, 0, 1]])
    found = read_dicom(save(tmp_path, series()))
    np.testing.assert_allclose(found.affine, expected, atol=1e-9)
    assert found.voxel_size == pytest.approx((3.0, 2.0, 5.0))


def test_every_pixel_gets_its_place(tmp_path):
    found = read_dicom(save(tmp_path, series()))
    assert found.data.dtype == np.float32
    assert found.data.shape == (COLUMNS, ROWS, N_SLICES, len(TE_MS))
    for e in range(len(TE_MS)):
        for k in range(N_SLICES):
            for row in range(ROWS):
                for column in range(COLUMNS):
                    assert found.data[column, ROWS - 1 - row, k, e] == 1000 * (e + 1) + 100 * k + 10 * row + column


def test_physics_is_in_si_and_bids_units_and_the_file_count_adds_up(tmp_path):
    folder = save(tmp_path, series())
    (folder / "README").write_text("phantom scan")
    save(folder / "phase", series(ImageType=["ORIGINAL", "PRIMARY", "P", "ND"], SeriesInstanceUID="1.2.4"))
    found = read_dicom(folder)
    np.testing.assert_array_equal(found.te, [0.005, 0.01, 0.02])
    assert found.acquisition == {
        "RepetitionTime": 0.125,
        "FlipAngle": 25.0,
        "MagneticFieldStrength": 3.0,
        "Manufacturer": "SIEMENS",
    }
    assert (found.component, found.description, found.source_format) == ("magnitude", "multi-echo GRE", "DICOM")
    assert found.skipped == {"not DICOM": 1, "phase images": 6}
    assert found.n_files == 6


def test_a_clean_folder_warns_of_nothing(tmp_path):
    folder = save(tmp_path, series())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_dicom(folder)


def test_names_order_and_nesting_of_files_do_not_matter(tmp_path, rng):
    datasets = series()
    reference = read_dicom(save(tmp_path / "a", datasets))
    for trial in range(3):
        folder = tmp_path / f"b{trial}"
        for i in rng.permutation(len(datasets)):
            place = folder / ("x" * int(rng.integers(1, 4))) / f"{rng.integers(1 << 30)}{'.dcm' if i % 2 else ''}"
            place.parent.mkdir(parents=True, exist_ok=True)
            datasets[i].save_as(place, enforce_file_format=True)
        found = read_dicom(folder)
        np.testing.assert_array_equal(found.data, reference.data)
        np.testing.assert_array_equal(found.te, reference.te)
        np.testing.assert_array_equal(found.affine, reference.affine)
        assert (found.acquisition, found.description) == (reference.acquisition, reference.description)


def test_a_list_of_files_is_the_same_as_their_folder(tmp_path):
    folder = save(tmp_path, series())
    np.testing.assert_array_equal(read_dicom(sorted(folder.iterdir())).data, read_dicom(str(folder)).data)


def test_links_that_loop_are_followed_once(tmp_path):
    folder = save(tmp_path / "scan", series())
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to(folder / "self")
    with pytest.warns(InputWarning, match="1 not readable"):
        found = read_dicom(folder)
    assert found.n_files == 6


@pytest.mark.parametrize("cut_meta", [False, True], ids=["without preamble", "without preamble and meta information"])
def test_files_without_preamble_are_read(tmp_path, cut_meta):
    reference = read_dicom(save(tmp_path / "a", series()))
    folder = save(tmp_path / "b", series())
    for path in folder.iterdir():
        content = path.read_bytes()
        # The meta information says its own length in the last 4 bytes of its first, 12-byte element.
        meta_length = 12 + int.from_bytes(content[140:144], "little")
        path.write_bytes(content[132 + (meta_length if cut_meta else 0) :])
    np.testing.assert_array_equal(read_dicom(folder).data, reference.data)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_transfer_syntax_does_not_change_the_values(tmp_path, syntax: UID):
    reference = read_dicom(save(tmp_path / "a", series()))
    folder = tmp_path / "b"
    folder.mkdir()
    for i, ds in enumerate(series()):
        if syntax == RLELossless:
            ds.compress(RLELossless)
        else:
            ds.PixelData = (
                ds.PixelData if syntax.is_little_endian else np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()
            )
            ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(folder / str(i), enforce_file_format=True)
    found = read_dicom(folder)
    assert found.data.dtype.isnative
    np.testing.assert_array_equal(found.data, reference.data)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_pixels_left_on_disk_by_the_scan_are_found_again(tmp_path, syntax: UID):
    pixels = [np.arange(64 * 64, dtype="<u2").reshape(64, 64) + e for e in range(2)]  # too large to stay in memory
    datasets = [image(te, 0, stored) for te, stored in zip((5, 10), pixels, strict=True)]
    for ds in datasets:
        ds.file_meta.TransferSyntaxUID = syntax
    found = read_dicom(save(tmp_path, datasets))
    np.testing.assert_array_equal(found.data[:, :, 0, 1], pixels[1][::-1].T)


def test_rescale_is_applied_to_each_image_without_integer_overflow(tmp_path):
    datasets = series(n_slices=1)
    datasets[0].PixelData = np.full((ROWS, COLUMNS), 65535, "<u2").tobytes()
    for ds, slope in zip(datasets, (2, 0.5, 1), strict=True):
        ds.RescaleSlope, ds.RescaleIntercept = slope, -100
    found = read_dicom(save(tmp_path, datasets))
    assert np.all(found.data[..., 0] == 2 * 65535 - 100)
    np.testing.assert_array_equal(found.data[0, ROWS - 1, 0, 1:], [0.5 * 2000 - 100, 3000 - 100])


def test_philips_echoes_scaled_each_on_their_own_become_comparable(tmp_path):
    # Chenevert 2014: the scanner stores FP = DV / (RS * SS); FP is the measured signal, here the same in all echoes.
    signal, slopes, scale_slopes = 800.0, (1.5, 0.5, 2.0), (0.25, 0.5, 0.125)
    datasets = series(n_slices=1)
    for ds, rs, ss in zip(datasets, slopes, scale_slopes, strict=True):
        ds.PixelData = np.full((ROWS, COLUMNS), round(signal * ss), "<u2").tobytes()  # SV = FP * SS where RI = 0
        philips_scale(ds, rs, ss)
    np.testing.assert_allclose(read_dicom(save(tmp_path, datasets)).data, signal, rtol=1e-6)


def test_philips_without_scale_slope_warns_only_if_slopes_differ(tmp_path):
    same = save(tmp_path / "same", [philips_scale(ds, 2.0, None) for ds in series()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_dicom(same).data.max() == 2 * values(2, 1).max()
    differ = [philips_scale(ds, 1.0 + i, None) for i, ds in enumerate(series())]
    with pytest.warns(InputWarning, match=r"\(2005,100E\)"):
        read_dicom(save(tmp_path / "differ", differ))


def test_clipped_pixels_are_marked(tmp_path):
    datasets = series(BitsStored=12, HighBit=11)
    clipped = values(0, 1)
    clipped[0, 2] = 4095
    datasets[1].PixelData = clipped.tobytes()
    found = read_dicom(save(tmp_path, datasets))
    assert found.saturated is not None
    assert np.argwhere(found.saturated).tolist() == [[2, ROWS - 1, 1]]


def test_echo_times_in_another_order_than_their_numbers_are_refused(tmp_path):
    datasets = series()
    for ds in datasets:
        ds.EchoNumbers = -int(float(ds.EchoTime))
    with pytest.raises(CorruptInputError, match=r"echo times .* ms, but EchoNumbers \(0018,0086\) is .*contradicts"):
        read_dicom(save(tmp_path, datasets))


def test_negative_magnitudes_are_kept_and_warned_of(tmp_path):
    datasets = [image(te, 0, np.full((ROWS, COLUMNS), -3 + e, "<i2")) for e, te in enumerate((5, 10))]
    with pytest.warns(InputWarning, match=r"24 of 24 magnitude values .* are negative"):
        found = read_dicom(save(tmp_path, datasets))
    np.testing.assert_array_equal(found.data[0, 0, 0], [-3, -2])


@pytest.mark.parametrize(("code", "component"), [(0, "magnitude"), (1, "phase"), (2, "real"), (3, "imaginary")])
def test_ge_tells_the_component_by_its_private_tag(tmp_path, code, component):
    scan = scan_dicom(save(tmp_path, [ge_component(ds, code) for ds in series()]))
    assert [candidate.component for candidate in scan.candidates] == [component]


@pytest.mark.parametrize(
    ("image_type", "component"),
    [
        (["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], "magnitude"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "phase"),
        (["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"], "real"),
        (["ORIGINAL", "PRIMARY", "I", "IR", "FFE"], "imaginary"),
        (["ORIGINAL", "PRIMARY", "P", "ND"], "phase"),
        (["ORIGINAL", "PRIMARY", "OTHER"], "magnitude"),
    ],
)
def test_image_type_tells_the_component(tmp_path, image_type, component):
    scan = scan_dicom(save(tmp_path, series(ImageType=image_type)))
    assert [candidate.component for candidate in scan.candidates] == [component]


def test_places_in_a_table_of_colours_are_no_signal(tmp_path):
    save(tmp_path, series(PhotometricInterpretation="PALETTE COLOR"))
    with pytest.raises(NoInputError, match="6 colour picture"):
        read_dicom(tmp_path)


def test_magnitude_is_picked_out_of_a_series_that_mixes_components(tmp_path):
    datasets = [ge_component(ds, code) for code in (3, 0, 2) for ds in series(SeriesInstanceUID="1.9")]
    for ds in datasets[:6]:
        ds.PixelData = bytes(len(ds.PixelData))
    found = read_dicom(save(tmp_path, datasets))
    assert found.skipped == {"real images": 6, "imaginary images": 6}
    assert found.data.min() == 1000


def test_single_echo_series_of_the_same_slices_are_joined(tmp_path):
    datasets = [
        image(te, k, values(e, k), SeriesInstanceUID=f"1.2.{e}", SeriesNumber=10 + e, SeriesDescription=f"gre TE{te}")
        for e, te in ((1, 10.0), (0, 5.0), (2, 20.0))
        for k in range(N_SLICES)
    ]
    with pytest.warns(InputWarning, match="3 series of one echo each"):
        found = read_dicom(save(tmp_path / "joined", datasets))
    reference = read_dicom(save(tmp_path / "reference", series()))
    np.testing.assert_array_equal(found.data, reference.data)
    np.testing.assert_array_equal(found.te, reference.te)


@pytest.mark.parametrize("difference", ["RepetitionTime", "place"])
def test_single_echo_series_that_differ_in_more_than_echo_time_are_not_joined(tmp_path, difference):
    first, second = (image(te, 0, values(0, 0), SeriesInstanceUID=f"1.{te}") for te in (5, 10))
    if difference == "place":
        second.ImagePositionPatient = list(FIRST + STEP)
    else:
        second.RepetitionTime = 2 * first.RepetitionTime
    with pytest.raises(CorruptInputError, match="only one echo"):
        read_dicom(save(tmp_path, [first, second]))


def test_the_only_multi_echo_series_is_used_and_the_others_named(tmp_path):
    save(tmp_path, series())
    other = series((3.0,), SeriesInstanceUID="1.2.99", SeriesNumber=2, SeriesDescription="scout", RepetitionTime=5)
    save(tmp_path / "scout", other)
    with pytest.warns(InputWarning, match="series 7 .* is used; passed over: series 2 "):
        found = read_dicom(tmp_path)
    assert found.skipped == {"images of other series": 2}


def test_slightly_uneven_slices_are_warned_of(tmp_path):
    datasets = series(n_slices=3)
    for ds in datasets[1::3]:
        ds.ImagePositionPatient = list(FIRST + 1.004 * STEP)
    with pytest.warns(InputWarning, match=r"off an even, upright stack by up to 0\.40 %"):
        np.testing.assert_allclose(read_dicom(save(tmp_path, datasets)).affine[:3, 2], [3, -4, 0], atol=1e-9)


def test_a_single_slice_takes_its_thickness_from_the_header(tmp_path):
    found = read_dicom(save(tmp_path, series(n_slices=1, SliceThickness=8)))
    np.testing.assert_allclose(found.affine[:3, 2], [8 * 0.6, -8 * 0.8, 0], atol=1e-12)


def test_no_identity_and_no_file_name_leaves_the_reader(tmp_path):
    folder = tmp_path / "DoeJane"
    save(folder, [*series(PatientName="Doe^Jane", PatientID="Doe"), series(PatientName="Doe^Jane")[0]], prefix="Doe")
    (folder / "Doe.dcm").write_text("not an image")
    (folder / "DoeEmpty.dcm").write_bytes(b"")
    datasets = [pydicom.dcmread(folder / "Doe000.dcm")]
    datasets[0].SOPInstanceUID = generate_uid()
    save(folder, datasets, prefix="DoeCopy")
    with pytest.warns(InputWarning) as caught:
        found = read_dicom(folder)
    told = [str(w.message) for w in caught] + [repr(found)]
    assert len(caught) >= 2
    assert not any("Doe" in text for text in told)


# echo times given by the caller ------------------------------------------------------------------------------------


def test_given_echo_times_replace_those_in_the_files(tmp_path):
    folder = save(tmp_path, series((5.0, 5.0, 5.0)))  # a GE research sequence: the shortest echo time everywhere
    with pytest.raises(MetadataError, match=r"GE .* with te="):
        read_dicom(folder)
    found = read_dicom(folder, te=[0.004, 0.008, 0.012])
    np.testing.assert_array_equal(found.te, [0.004, 0.008, 0.012])
    np.testing.assert_array_equal(found.data[0, ROWS - 1, 0], [1000, 2000, 3000])


def test_given_echo_times_follow_echo_numbers_before_instance_numbers(tmp_path):
    datasets = series(n_slices=1, EchoTime=None)
    for ds in datasets:
        ds.InstanceNumber = 10 - ds.EchoNumbers
    found = read_dicom(save(tmp_path, datasets), te=[0.004, 0.008, 0.012])
    np.testing.assert_array_equal(found.data[0, ROWS - 1, 0], [1000, 2000, 3000])


def test_given_echo_times_follow_instance_numbers_where_echo_numbers_do_not_tell(tmp_path):
    folder = save(tmp_path, series(EchoNumbers=1, EchoTime=None))
    found = read_dicom(folder, te=[0.004, 0.008, 0.012])
    np.testing.assert_array_equal(found.data[0, ROWS - 1, 1], [1100, 2100, 3100])


def test_given_echo_times_join_series_of_one_echo_in_order_of_series_number(tmp_path):
    tags = [{"SeriesInstanceUID": f"1.2.{9 - e}", "SeriesNumber": 10 + e, "EchoTime": None} for e in range(3)]
    datasets = [
        image(5.0, k, values(e, k), InstanceNumber=N_SLICES - k, **tags[e]) for e in range(3) for k in range(N_SLICES)
    ]
    with pytest.warns(InputWarning, match="3 series of one echo each"):
        found = read_dicom(save(tmp_path, datasets), te=[0.004, 0.008, 0.012])
    np.testing.assert_array_equal(found.data[0, ROWS - 1], [[1000, 2000, 3000], [1100, 2100, 3100]])


def test_given_echo_times_are_sorted_together_with_their_images(tmp_path):
    with pytest.warns(InputWarning, match="sorted"):
        found = read_dicom(save(tmp_path, series(EchoTime=None)), te=[0.02, 0.005, 0.01])
    np.testing.assert_array_equal(found.te, [0.005, 0.01, 0.02])
    np.testing.assert_array_equal(found.data[0, ROWS - 1, 0], [2000, 3000, 1000])


@pytest.mark.parametrize(
    ("te", "error", "words"),
    [
        ([0.005, 0.01], UsageError, r"2 echo times are given, .*images per slice: 3"),
        ([0.005, 0.01, 0.01], UsageError, "twice"),
        ([[0.005, 0.01, 0.02]], UsageError, "shape"),
        ([5.0, 10.0, 20.0], MetadataError, "milliseconds in a field of seconds"),
        ([-0.005, 0.01, 0.02], MetadataError, "finite and positive"),
    ],
)
def test_given_echo_times_that_cannot_be_meant(tmp_path, te, error, words):
    with pytest.raises(error, match=words):
        read_dicom(save(tmp_path, series()), te=te)


def test_given_echo_times_need_an_order_of_images(tmp_path):
    with pytest.raises(UsageError, match="EchoNumbers"):
        read_dicom(save(tmp_path, series(EchoNumbers=1, InstanceNumber=1, EchoTime=5)), te=[0.004, 0.008, 0.012])
