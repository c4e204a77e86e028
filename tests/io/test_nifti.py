"""NIfTI reading: what comes out is what the files say."""

import json
import shutil
import warnings

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import load
from nifti_files import OBLIQUE, SHAPE, SHIFTED, TE, echo_values, edit, expected, patch_header, save, save_series

from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, NoInputError, UsageError
from jaxqmri.io.nifti.reader import read_mask, read_nifti


@pytest.fixture
def folder(tmp_path):
    return save_series(tmp_path)


# what is read --------------------------------------------------------------------------------------------------------


def test_one_file_per_echo_is_ordered_by_echo_time(folder):
    series = read_nifti(folder)
    np.testing.assert_array_equal(series.te, TE)
    np.testing.assert_array_equal(series.data, expected())
    np.testing.assert_allclose(series.affine, OBLIQUE, rtol=1e-6)
    assert (series.source_format, series.component, series.n_files) == ("NIfTI", "magnitude", 4)


def test_file_names_and_listing_order_do_not_matter(folder, tmp_path_factory):
    renamed = tmp_path_factory.mktemp("renamed")
    for new, old in zip("dbca", (1, 2, 3, 10), strict=True):
        for suffix in (".nii.gz", ".json"):
            shutil.copy(folder / f"scan_e{old}{suffix}", renamed / f"{new}{suffix}")
    listed = read_nifti([renamed / f"{name}.nii.gz" for name in "cadb"])
    for series in (read_nifti(renamed), listed):
        np.testing.assert_array_equal(series.data, expected())
        np.testing.assert_array_equal(series.te, TE)


def test_4d_file_with_list_in_sidecar_equals_4d_file_with_te_argument(tmp_path):
    order = [2, 0, 3, 1]
    values = expected()[..., order]
    with_sidecar = save(tmp_path / "a.nii", values, sidecar={"EchoTime": [TE[i] for i in order]})
    plain = save(tmp_path / "b.nii", expected())
    for series in (read_nifti(with_sidecar), read_nifti(str(plain), te=TE), read_nifti([plain], te=np.array(TE))):
        np.testing.assert_array_equal(series.data, expected())
        np.testing.assert_array_equal(series.te, TE)


def test_unsorted_te_argument_is_sorted_with_its_volumes(tmp_path):
    path = save(tmp_path / "a.nii", expected()[..., ::-1])
    with pytest.warns(InputWarning, match="do not ascend"):
        series = read_nifti(path, te=TE[::-1])
    np.testing.assert_array_equal(series.data, expected())


def test_te_argument_goes_to_listed_files_in_order_and_to_folders_by_echo_number(folder):
    te = (0.01, 0.02, 0.03, 0.04)
    with pytest.warns(InputWarning, match="used in place of those in the files, 4, 9, 13, 50 ms"):
        listed = read_nifti([folder / f"scan_e{number}.nii.gz" for number in (1, 2, 3, 10)], te=te)
    for sidecar in folder.glob("*.json"):
        sidecar.unlink()
    for series in (listed, read_nifti(folder, te=te)):
        np.testing.assert_array_equal(series.te, te)
        np.testing.assert_array_equal(series.data, expected())


@pytest.mark.parametrize("sidecars", [True, False])
def test_list_sorted_as_text_with_ascending_te_is_refused(folder, sidecars):
    if not sidecars:
        for sidecar in folder.glob("*.json"):
            sidecar.unlink()
    with pytest.raises(UsageError, match="contradicts"):
        read_nifti(sorted(folder.glob("*.nii.gz")), te=(0.01, 0.02, 0.03, 0.04))


def test_te_for_unnumbered_files_of_a_folder_is_refused(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.nii", echo_values(0.01))
    with pytest.raises(UsageError, match=r"neither EchoTime nor a number .*tells the images of a slice apart"):
        read_nifti(tmp_path, te=(0.01, 0.02))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_byte_order_and_container_gives_native_float32(tmp_path, kind, endianness, suffix):
    path = save(tmp_path / f"a{suffix}", expected(), kind=kind, endianness=endianness)
    series = read_nifti(path, te=TE)
    assert series.data.dtype == np.dtype("=f4")
    assert series.data.dtype.isnative
    np.testing.assert_array_equal(series.data, expected())


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_of_64_bits_are_not_wrapped(tmp_path, dtype):
    values = (expected() * 2**33).astype(dtype)
    nib.Nifti1Image(values, OBLIQUE, dtype=dtype).to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii", te=TE).data, values.astype(np.float32))


def test_compression_is_told_by_content_not_by_name(tmp_path):
    plain, compressed = save(tmp_path / "a.nii", expected()), save(tmp_path / "b.nii.gz", expected())
    contents = plain.read_bytes(), compressed.read_bytes()
    plain.write_bytes(contents[1])
    compressed.write_bytes(contents[0])
    for path in (plain, compressed):
        np.testing.assert_array_equal(read_nifti(path, te=TE).data, expected())


def test_slope_and_intercept_of_every_file_are_applied(folder):
    stored = np.arange(60, dtype=np.int16).reshape(SHAPE)
    for number, (slope, intercept) in zip((1, 2), ((2.5, 100.0), (0.125, 0.0)), strict=True):
        path = save(folder / f"s_e{number}.nii", stored, sidecar={"EchoTime": TE[number]})
        patch_header(path, 112, np.array([slope, intercept], "<f4").tobytes())
    series = read_nifti([folder / "s_e1.nii", folder / "s_e2.nii"])
    np.testing.assert_array_equal(series.data[..., 0], stored * 2.5 + 100)
    np.testing.assert_array_equal(series.data[..., 1], stored * 0.125)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_slope_zero_or_nan_means_not_scaled(tmp_path, slope):
    stored = np.arange(120, dtype=np.int16).reshape((*SHAPE, 2))
    path = save(tmp_path / "a.nii", stored)
    patch_header(path, 112, np.array([slope, 5.0], "<f4").tobytes())
    np.testing.assert_array_equal(read_nifti(path, te=TE[:2]).data, stored)


def test_saturation_is_seen_in_any_echo_and_only_in_unscaled_integers(tmp_path):
    stored = np.ones((*SHAPE, 2), dtype=np.int16)
    stored[1, 2, 0, 1] = 32767
    series = read_nifti(save(tmp_path / "a.nii", stored), te=TE[:2])
    assert series.saturated is not None
    np.testing.assert_array_equal(np.argwhere(series.saturated), [[1, 2, 0]])
    path = save(tmp_path / "b.nii", stored)
    patch_header(path, 112, np.array([0.1, 0.0], "<f4").tobytes())
    assert read_nifti(path, te=TE[:2]).saturated is None


def test_2d_slices_and_trailing_axes_of_one_become_volumes(folder):
    flat = [save(folder / f"f_e{k}.nii", np.full((5, 4), k, np.float32), sidecar={"EchoTime": TE[k]}) for k in (1, 2)]
    padded = [
        save(folder / f"p_e{k}.nii", np.full((5, 4, 1, 1), k, np.float32), sidecar={"EchoTime": TE[k]}) for k in (1, 2)
    ]
    for files in (flat, padded):
        assert read_nifti(files).data[4, 3].tolist() == [[1.0, 2.0]]


def test_nan_voxels_stay_nan(tmp_path):
    values = expected()
    values[0, 0, 0, 1] = np.nan
    np.testing.assert_array_equal(read_nifti(save(tmp_path / "a.nii", values), te=TE).data, values)


def test_only_agreed_physics_is_passed_on_and_no_identity(folder):
    for name in ("scan_e1", "scan_e2", "scan_e3", "scan_e10"):
        edit(folder, name, PixelBandwidth=400 if name == "scan_e2" else 500, MagneticFieldStrength=3)
    assert read_nifti(folder).acquisition == {"RepetitionTime": 0.1, "MagneticFieldStrength": 3}


@pytest.mark.parametrize("head", [b"\xef\xbb\xbf", b""])
def test_sidecar_with_byte_order_mark_and_windows_line_ends(folder, head):
    path = folder / "scan_e2.json"
    path.write_bytes(head + json.dumps(json.loads(path.read_text()), indent=1).replace("\n", "\r\n").encode())
    np.testing.assert_array_equal(read_nifti(folder).te, TE)


def test_sidecar_in_latin_1(folder):
    for path in folder.glob("*.json"):
        edit(folder, path.stem, SeriesDescription="Schaedel")
        path.write_bytes(path.read_bytes().replace(b"Schaedel", "Sch\u00e4del".encode("latin-1")))
    series = read_nifti(folder)
    assert series.description == "Sch\u00e4del"
    np.testing.assert_array_equal(series.te, TE)


def test_halves_of_characters_become_question_marks(folder):
    for number in (1, 2, 3, 10):
        edit(folder, f"scan_e{number}", Manufacturer="\ud800GE", SeriesDescription="\udfff")
    series = read_nifti(folder)
    assert (series.acquisition["Manufacturer"], series.description) == ("?GE", "?")


def test_a_key_twice_with_one_value_is_no_contradiction(folder):
    (folder / "scan_e2.json").write_text(
        '{"EchoTime": 0.009, "SeriesNumber": 7, "RepetitionTime": 0.1, "EchoTime": 0.009}'
    )
    np.testing.assert_array_equal(read_nifti(folder).te, TE)


# what is mended ------------------------------------------------------------------------------------------------------


def test_sform_wins_over_a_qform_that_disagrees(tmp_path):
    image = nib.Nifti1Image(expected(), None)
    image.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
    image.set_sform(OBLIQUE, 1)
    image.to_filename(tmp_path / "a.nii")
    with pytest.warns(InputWarning, match="sform and qform disagree"):
        series = read_nifti(tmp_path / "a.nii", te=TE)
    np.testing.assert_allclose(series.affine, OBLIQUE, rtol=1e-6)


def test_qform_without_code_is_no_disagreement(tmp_path):
    image = nib.Nifti1Image(expected(), None)
    image.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), 0)
    image.set_sform(OBLIQUE, 1)
    image.to_filename(tmp_path / "a.nii")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        series = read_nifti(tmp_path / "a.nii", te=TE)
    np.testing.assert_allclose(series.affine, OBLIQUE, rtol=1e-6)


def test_file_without_orientation_is_read_with_a_warning(tmp_path):
    nib.Nifti1Image(expected(), None).to_filename(tmp_path / "a.nii")
    with pytest.warns(InputWarning, match="neither sform nor qform"):
        series = read_nifti(tmp_path / "a.nii", te=TE)
    np.testing.assert_array_equal(series.data, expected())


@pytest.mark.parametrize(("code", "unit", "per_mm"), [(1, "metres", 1e-3), (3, "micrometres", 1e3)])
def test_lengths_in_other_units_become_millimetres(tmp_path, code, unit, per_mm):
    path = save(tmp_path / "a.nii", expected(), affine=np.diag([per_mm, per_mm, per_mm, 1]) @ OBLIQUE)
    patch_header(path, 123, bytes([code]))
    with pytest.warns(InputWarning, match=f"lengths are in {unit} by xyzt_units"):
        np.testing.assert_allclose(read_nifti(path, te=TE).affine, OBLIQUE, rtol=1e-6)


def test_a_unit_that_voxels_cannot_have_is_not_believed(tmp_path):
    path = save(tmp_path / "a.nii", expected())
    patch_header(path, 123, bytes([1]))
    with pytest.warns(InputWarning, match="xyzt_units says metres, which voxels of 2 x 1.5 x 3 cannot be"):
        np.testing.assert_allclose(read_nifti(path, te=TE).affine, OBLIQUE, rtol=1e-6)


@pytest.mark.parametrize("patch", [(348, b"\1"), (-1, b"")])
def test_a_flag_without_an_extension_and_zeros_behind_the_voxels_do_no_harm(tmp_path, patch):
    path = save(tmp_path / "a.nii", expected())
    path.write_bytes(path.read_bytes() + bytes(160))
    patch_header(path, *patch)
    np.testing.assert_array_equal(read_nifti(path, te=TE).data, expected())


def test_negative_magnitude_is_kept_with_a_warning(tmp_path):
    values = expected() - 300
    with pytest.warns(InputWarning, match="are negative and are fitted as they are"):
        series = read_nifti(save(tmp_path / "a.nii", values), te=TE)
    np.testing.assert_array_equal(series.data, values)


# masks ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def series(folder):
    return read_nifti(folder)


@pytest.mark.parametrize("one", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_binary_mask_is_read_as_it_is(tmp_path, series, dtype, one):
    wanted = np.arange(60).reshape(SHAPE) % 3 == 0
    mask = read_mask(save(tmp_path / "mask.nii.gz", (wanted * one).astype(dtype)), series)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, wanted)


@pytest.mark.parametrize("odd", [0.5, 2.0, -1.0, np.nan])
def test_mask_of_other_values_is_cut_above_zero_with_a_warning(tmp_path, series, odd):
    values = np.ones(SHAPE, np.float32)
    values[0] = odd
    with pytest.warns(InputWarning, match="not binary"):
        mask = read_mask(save(tmp_path / "mask.nii.gz", values), series)
    np.testing.assert_array_equal(mask, values > 0)


def test_mask_that_does_not_fit_is_refused(tmp_path, series):
    ones = np.ones(SHAPE, np.uint8)
    cases = {
        "shape": save(tmp_path / "a.nii", np.ones((5, 4, 2), np.uint8)),
        "lies elsewhere": save(tmp_path / "b.nii", ones, affine=SHIFTED),
        "empty": save(tmp_path / "c.nii", 0 * ones),
    }
    for words, path in cases.items():
        with pytest.raises(CorruptInputError, match=f"{path.name}.*{words}"):
            read_mask(path, series)
    with pytest.raises(NoInputError, match="no such mask"):
        read_mask(tmp_path / "nope.nii", series)


def test_mask_moved_by_rounding_only_is_accepted(tmp_path, series):
    wobble = OBLIQUE.astype(np.float32).astype(np.float64) * (1 + 1e-5)
    assert read_mask(save(tmp_path / "mask.nii", np.ones(SHAPE, np.uint8), affine=wobble), series).all()


# real scans ----------------------------------------------------------------------------------------------------------


def test_philips_echoes_from_e1_e3_to_e13(shared_data):
    folder = shared_data / "philips_gre12_kidney"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        series = read_nifti(folder)
    te_ms = [4.611, 9.221, 13.831, 18.441, 23.051, 27.661, 32.271, 36.881, 41.491, 46.101, 50.712, 55.322]
    np.testing.assert_allclose(1e3 * series.te, te_ms, rtol=1e-12)
    assert series.data.shape == (128, 128, 5, 12)
    for index, number in ((0, 1), (1, 3), (11, 13)):
        image = load(next(folder.glob(f"*_e{number}.nii.gz")))
        np.testing.assert_array_equal(series.data[..., index], image.get_fdata(dtype=np.float32))
        np.testing.assert_array_equal(series.affine, image.affine)
    assert series.acquisition["FlipAngle"] == 25
    assert series.acquisition["RepetitionTime"] == 0.130389


def test_ge_magnitude_real_imaginary_along_the_4th_axis_are_not_taken_for_echoes(shared_data):
    with pytest.raises(MetadataError, match="3 volumes but one EchoTime"):
        read_nifti(shared_data / "ge_gre12_kidney" / "s16_dcm2niix")


def test_golden_4d_file_without_sidecar(shared_data):
    te = [26.4e-3 + 13.2e-3 * i for i in range(10)]
    path = shared_data / "prostate_mese10" / "invivo_images.nii.gz"
    series = read_nifti(path, te=te)
    np.testing.assert_array_equal(series.data, load(path).get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(series.te, te)
