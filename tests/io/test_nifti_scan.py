"""Which NIfTI files are fitted: what is no echo is set aside, and what cannot be trusted is refused with a remedy."""

import gzip
import warnings

import nibabel as nib
import numpy as np
import pytest
from bad_nifti_files import BAD_NIFTI
from nifti_files import TE, echo_values, edit, expected, save, save_series

from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, NoInputError, UsageError
from jaxqmri.io.choose import choose
from jaxqmri.io.dicom.reader import read_dicom
from jaxqmri.io.nifti.reader import read_nifti, scan_nifti


@pytest.fixture
def folder(tmp_path):
    return save_series(tmp_path)


# what is set aside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image_type", "component"),
    [
        ("scan_e1_ph", None, "phase"),
        ("scan_e1_pha", None, "phase"),
        ("scan_e1_phase", None, "phase"),
        ("scan_e1_real", None, "real"),
        ("scan_e1_imaginary", None, "imaginary"),
        ("sub-1_echo-1_part-phase_MEGRE", None, "phase"),
        ("sub-1_echo-1_part-real_MEGRE", None, "real"),
        ("sub-1_echo-1_part-imag_MEGRE", None, "imaginary"),
        ("other_e1", ["ORIGINAL", "PRIMARY", "P", "ND", "PHASE"], "phase"),
        ("other_e1", ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "phase"),
        ("other_e1", ["ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE"], "real"),
        ("other_e1", ["ORIGINAL", "PRIMARY", "I", "NONE"], "imaginary"),
        ("other_e1", ["DERIVED", "PRIMARY", "T2_STAR MAP", "ND"], "derived map"),
    ],
)
def test_what_is_no_magnitude_is_never_fitted_as_one(folder, name, image_type, component):
    sidecar = {"EchoTime": 0.007, "SeriesNumber": 7, "ImageType": image_type}
    save(folder / f"{name}.nii.gz", -echo_values(0.007), sidecar=sidecar)
    series = read_nifti(folder)
    np.testing.assert_array_equal(series.data, expected())
    assert series.skipped == {f"{component} images": 1}


@pytest.mark.parametrize(
    ("name", "image_type"),
    [
        ("sub-1_echo-5_part-mag_gre", None),
        ("R2_Mapping_BH_+_phase_16_e15", ["ORIGINAL", "PRIMARY", "OTHER"]),
        ("brain_image", ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]),
        ("brain", ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]),
        ("brain", ["ORIGINAL", "PRIMARY", "T1", "MIXED"]),
    ],
)
def test_magnitudes_are_not_mistaken(folder, name, image_type):
    save(
        folder / f"{name}.nii",
        echo_values(0.08),
        sidecar={"EchoTime": 0.08, "SeriesNumber": 7, "ImageType": image_type},
    )
    np.testing.assert_array_equal(read_nifti(folder).data, expected((*TE, 0.08)))


def test_other_files_are_counted_and_named(folder):
    for name in ("README.txt", ".DS_Store", "._scan_e1.nii.gz", "report.pdf"):
        (folder / name).write_bytes(b"hello")
    (folder / "maps").mkdir()
    assert read_nifti(folder).skipped == {"not NIfTI": 2, "hidden file": 2, "subfolder (not searched)": 1}
    assert scan_nifti(folder).skipped["not NIfTI"] == ("README.txt", "report.pdf")


def test_single_image_of_another_series_is_left_out_with_a_warning(folder):
    save(folder / "t1w.nii", np.ones((8, 8, 8), np.float32), sidecar={"EchoTime": 0.003, "SeriesNumber": 2})
    with pytest.warns(InputWarning, match="series 7 .* is used; passed over: series 2"):
        series = read_nifti(folder)
    np.testing.assert_array_equal(series.data, expected())
    assert series.skipped == {"images of other series": 1}


def test_series_of_one_echo_each_are_joined_with_a_warning(folder):
    for number in (1, 2, 3, 10):
        edit(folder, f"scan_e{number}", SeriesNumber=number)
    with pytest.warns(InputWarning, match="4 series of one echo each"):
        np.testing.assert_array_equal(read_nifti(folder).data, expected())


def test_series_of_one_echo_each_with_different_tr_are_not_joined(folder):
    for number in (1, 2, 3, 10):
        edit(folder, f"scan_e{number}", SeriesNumber=number, RepetitionTime=float(number))
    with pytest.raises(CorruptInputError, match="differ in RepetitionTime"):
        read_nifti(folder)


@pytest.mark.parametrize("other", ["sub-02_echo-2_MEGRE", "sub-01_acq-b_echo-2_MEGRE", "sub-01_echo-2_MESE", "scan_e2"])
def test_single_images_of_different_bids_series_are_not_joined(tmp_path, other):
    for name, te in (("sub-01_echo-1_MEGRE", TE[0]), (other, TE[1])):
        save(tmp_path / f"{name}.nii.gz", echo_values(te), sidecar={"EchoTime": te})
    with pytest.raises(CorruptInputError, match=r"only one echo .*differ in their BIDS names, .*sub-01_MEGRE"):
        read_nifti(tmp_path)


def test_of_two_series_with_numbers_it_is_told_how_to_choose_one(folder):
    for k, te in enumerate(TE[:2]):
        save(folder / f"other_e{k}.nii.gz", echo_values(te), sidecar={"EchoTime": te, "SeriesNumber": 9})
    with pytest.raises(CorruptInputError, match=r"2 multi-echo magnitude series.*use series='7' or use series='9',"):
        read_nifti(folder)
    for k in (0, 1):
        edit(folder, f"other_e{k}", SeriesNumber=..., SeriesDescription="other")
    with pytest.raises(CorruptInputError, match=r"2 multi-echo .*read: put the images of one of them in a folder"):
        read_nifti(folder)


def test_values_that_do_not_vary_are_said_once_and_no_series_is_offered_for_them(folder):
    for k, te in enumerate(TE[:2]):
        save(folder / f"other_e{k}.nii.gz", echo_values(te), sidecar={"EchoTime": te, "SeriesNumber": 9})
    for path in folder.glob("*.json"):
        edit(folder, path.stem, FlipAngle=90 if path.stem.startswith("other") else 25)
    with pytest.raises(CorruptInputError, match="the flip angle varies in none of 2 series") as caught:
        read_nifti(folder, axis="flip_angle")
    assert "(magnitude, flip angle 25 deg in all 4 images, 5x4x3)" in str(caught.value)
    assert "(magnitude, flip angle 90 deg in all 2 images, 5x4x3)" in str(caught.value)
    assert "series=" not in str(caught.value)


@pytest.mark.parametrize("where", ["EchoNumber", "number behind _e"])
def test_echo_times_in_another_order_than_their_numbers_are_refused(folder, where):
    edit(folder, "scan_e2", EchoTime=TE[2])
    edit(folder, "scan_e3", EchoTime=TE[1])
    if where != "EchoNumber":
        for number in (1, 2, 3, 10):
            edit(folder, f"scan_e{number}", EchoNumber=...)
    words = rf"scan_e2\.nii\.gz and scan_e3\.nii\.gz: echo times 13 and 9 ms, but .*{where}.* is 2 and 3"
    with pytest.raises(CorruptInputError, match=words):
        read_nifti(folder)
    with pytest.raises(CorruptInputError, match="one contradicts the other"):
        read_nifti(folder, te=(0.01, 0.02, 0.03, 0.04))


@pytest.mark.parametrize(
    "names",
    [
        ("sub-01_magnitude1", "sub-01_magnitude2"),
        ("scan_TE1", "scan_TE2"),
        ("scan_te-4.9ms_mag1", "scan_te-7.3ms_mag2"),
        ("scan-echo_1", "scan-echo_2"),
        ("scan.e1", "scan.e2"),
    ],
)
def test_numbers_in_names_of_any_form_must_not_contradict_the_times(tmp_path, names):
    for name, te in zip(names, (0.010, 0.005), strict=True):
        save(tmp_path / f"{name}.nii", echo_values(te), sidecar={"EchoTime": te})
    with pytest.raises(CorruptInputError, match=rf"{names[0]}\.nii and {names[1]}.* 10 and 5 ms, but .*in its name is"):
        read_nifti(tmp_path)
    for name, te in zip(names, (0.005, 0.010), strict=True):
        edit(tmp_path, name, EchoTime=te)
    assert len(read_nifti(tmp_path).te) == 2


def test_one_number_in_all_images_tells_nothing(folder):
    for number, k in ((1, 1), (2, 1), (3, 2), (10, 2)):
        edit(folder, f"scan_e{number}", EchoNumber=k)
    np.testing.assert_array_equal(read_nifti(folder).te, TE)
    for number in (1, 2, 3, 10):
        edit(folder, f"scan_e{number}", EchoNumber=1)
    np.testing.assert_array_equal(read_nifti(folder).te, TE)


# the scan ------------------------------------------------------------------------------------------------------------


def test_scan_says_what_is_there_without_reading_voxels(folder):
    for path in folder.glob("*.nii.gz"):  # only headers left: reading voxels would fail
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:352]))
    save(folder / "scan_e1_ph.nii", echo_values(0.004), sidecar={"EchoTime": 0.004, "SeriesNumber": 7})
    scan = scan_nifti(folder)
    magnitude, phase = sorted(scan.candidates, key=lambda candidate: candidate.component)
    assert (magnitude.values, magnitude.shape, magnitude.n_slices, magnitude.first.series_number) == (TE, (5, 4), 3, 7)
    np.testing.assert_allclose(magnitude.voxel_size, (2.0, 1.5, 3.0), rtol=1e-6)
    assert magnitude.scaling == "slope 1, intercept 0"
    assert (phase.component, phase.values) == ("phase", (0.004,))
    assert choose(scan).images == magnitude.images
    with pytest.raises(CorruptInputError, match="truncated"):
        read_nifti(folder)


# what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BAD_NIFTI)
def test_bad_input_is_refused_in_one_line(folder, case):
    spoil, error, words = BAD_NIFTI[case]
    spoil(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=words) as raised:
            read_nifti(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("te", "error", "words"),
    [
        ((0.01, 0.02), UsageError, "2 echo times are given.*images per slice: 4"),
        ((), UsageError, "list of echo times"),
        (0.01, UsageError, "list of echo times"),
        (("a", "b"), UsageError, "numbers in seconds"),
        ((4.0, 9.0, 13.0, 50.0), MetadataError, "milliseconds"),
        ((0.01, 0.01, 0.02, 0.03), UsageError, "twice"),
    ],
)
def test_te_argument_that_does_not_fit_is_refused(tmp_path, te, error, words):
    path = save(tmp_path / "a.nii", expected())
    with pytest.raises(error, match=words):
        read_nifti(path, te=te)


def test_3d_file_with_several_te_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", echo_values(0.01))
    with pytest.raises(UsageError, match=r"2 echo times are given.*5x4x3.*images per slice: 1"):
        read_nifti(path, te=(0.01, 0.02))


def test_sidecars_of_which_one_is_broken_can_be_moved_away_and_the_times_given(folder):
    (folder / "scan_e2.json").write_text("{")
    with pytest.raises(
        MetadataError, match=r"scan_e2.json: not valid JSON.*give the echo times, without any sidecars, with te="
    ):
        read_nifti(folder)
    for sidecar in folder.glob("*.json"):
        sidecar.unlink()
    np.testing.assert_array_equal(read_nifti(folder, te=TE).data, expected())


@pytest.mark.parametrize("name", ["nope", "nope.nii.gz", "x" * 300])
def test_missing_path_is_named(tmp_path, name):
    with pytest.raises(NoInputError, match=f"{name}: (no such file|cannot be read)"):
        read_nifti(tmp_path / name)


def test_file_that_is_no_image_is_no_input(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    for paths in (path, [path], []):
        with pytest.raises(NoInputError, match="no DICOM or NIfTI images found in"):
            read_nifti(paths)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "x_e1.img",
            r"x_e1\.img is a NIfTI or .*nibabel\.save\(nibabel\.load\('x_e1\.img'\), 'x_e1\.nii\.gz'\)",
        ),
        ("A.REC", "A.REC is Philips PAR/REC; dcm2niix makes NIfTI"),
        ("a.nrrd", "a.nrrd is NRRD or MetaImage"),
        ("2dseq", "2dseq is Bruker ParaVision"),
    ],
)
def test_other_formats_are_named_with_what_converts_them(tmp_path, name, words):
    for file in (name, "readme.txt"):
        (tmp_path / file).write_bytes(bytes(200))
    for read in (read_nifti, read_dicom):
        with pytest.raises(NoInputError, match=words):
            read(tmp_path)


def test_a_pair_becomes_nifti_as_the_message_says(tmp_path):
    for te in TE[:2]:
        nib.save(nib.Nifti1Pair(echo_values(te), np.eye(4)), tmp_path / "x.img")
        nib.save(nib.load(tmp_path / "x.img"), tmp_path / f"{te}.nii.gz")
    files = [tmp_path / f"{te}.nii.gz" for te in TE[:2]]
    np.testing.assert_array_equal(read_nifti(files, te=TE[:2]).data, expected(TE[:2]))


def test_te_for_several_4d_files_is_refused(tmp_path):
    for number in (1, 2):
        save(tmp_path / f"a_e{number}.nii", expected()[..., :2])
    with pytest.raises(UsageError, match="no place along the 4th axis tells the images of a slice apart"):
        read_nifti(tmp_path, te=TE)
