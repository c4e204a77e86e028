"""What the DICOM reader says of bad inputs, and what it passes over (one case per way of going wrong)."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from bad_dicom_files import BAD_DICOM, one_image, with_raw_echo_time
from dicom_series import (
    COLUMNS,
    N_SLICES,
    ROWS,
    save,
    series,
)

from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, NoInputError
from jaxqmri.io.choose import choose
from jaxqmri.io.dicom.reader import read_dicom, scan_dicom
from jaxqmri.io.load import read_candidate


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("build", "error", "words"), [pytest.param(*c[1:], id=c[0]) for c in BAD_DICOM])
def test_bad_input_raises_with_one_helpful_line(tmp_path, build, error, words):
    folder = tmp_path / "scan"
    build(folder)
    with pytest.raises(error, match=words) as caught:
        read_dicom(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(NoInputError, match="nowhere: no such file or folder"):
        read_dicom(tmp_path / "nowhere")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda ds: delattr(ds, "EchoTime"), "missing or empty", id="missing"),
        pytest.param(lambda ds: setattr(ds, "EchoTime", None), "missing or empty", id="empty"),
        pytest.param(lambda ds: setattr(ds, "EchoTime", ["5", "6"]), "2 values", id="several values"),
        pytest.param(with_raw_echo_time(b"abc"), "'abc' is not a number", id="text"),
        pytest.param(lambda ds: setattr(ds, "EchoTime", 0), "finite and positive", id="zero"),
        pytest.param(lambda ds: setattr(ds, "EchoTime", -5), "finite and positive", id="negative"),
        pytest.param(with_raw_echo_time(b"nan"), "finite and positive", id="NaN"),
        pytest.param(lambda ds: setattr(ds, "EchoTime", 0.005), "seconds in a field of milliseconds", id="in seconds"),
        pytest.param(lambda ds: setattr(ds, "EchoTime", 5000), "milliseconds in a field of seconds", id="in us"),
    ],
)
def test_an_unusable_echo_time_is_named_with_file_and_tag(tmp_path, change, words):
    one_image(change)(tmp_path / "scan")
    with pytest.raises(MetadataError, match=rf"IM002.dcm, EchoTime \(0018,0081\).*{words}") as caught:
        read_dicom(tmp_path / "scan")
    assert "with te= (seconds)" in str(caught.value)
    assert "\n" not in str(caught.value)


# what is passed over -------------------------------------------------------------------------------------------------


def add_text_named_dicom(folder: Path) -> None:
    (folder / "report.dcm").write_text("Impression: normal. " * 20)


def add_empty_file(folder: Path) -> None:
    (folder / "IM999").write_bytes(b"")


def add_copies(folder: Path) -> None:
    for path in sorted(folder.glob("IM00[01].dcm")):
        shutil.copy(path, folder / f"copy of {path.name}")


def add_localizer(folder: Path) -> None:
    tags = {"SeriesInstanceUID": "1.2.1", "EchoTime": None, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "M"]}
    save(folder, series(**tags), prefix="loc")


def add_map(folder: Path) -> None:
    tags = {"SeriesInstanceUID": "1.2.2", "EchoTime": 0, "ImageType": ["DERIVED", "PRIMARY", "T2_STAR MAP", "ND"]}
    save(folder, series(**tags), prefix="map")


def add_derived(folder: Path) -> None:
    tags = {"SeriesInstanceUID": "1.2.5", "ImageType": ["DERIVED", "SECONDARY", "M", "FILTERED"]}
    save(folder, series(**tags), prefix="filtered")


@pytest.mark.parametrize(
    ("add", "words", "skipped"),
    [
        (add_text_named_dicom, "not DICOM in spite of its name", {"not DICOM in spite of its name": 1}),
        (add_empty_file, "1 empty file", {"empty file": 1}),
        (add_copies, "2 duplicate images", {"duplicate images": 2}),
        (add_localizer, "6 localizer", {"localizer": 6}),
        (add_map, "6 map derived by the scanner", {"map derived by the scanner": 6}),
        (add_derived, None, {"images of other series": 6}),
    ],
)
def test_what_is_passed_over_is_counted_and_changes_nothing(tmp_path, add, words, skipped):
    folder = save(tmp_path, series())
    reference = read_dicom(folder)
    add(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_dicom(folder)
    assert found.skipped == skipped
    assert found.n_files + sum(found.skipped.values()) == len(list(folder.iterdir()))
    np.testing.assert_array_equal(found.data, reference.data)
    told = " ".join(str(w.message) for w in caught if w.category is InputWarning)
    assert (words in told) if words else not told


def test_derived_images_are_fitted_only_where_there_is_nothing_else(tmp_path):
    add_derived(tmp_path)
    with pytest.warns(InputWarning, match="DERIVED"):
        assert read_dicom(tmp_path).n_files == 6


def test_the_scan_names_files_and_describes_stacks_without_reading_pixels(tmp_path):
    folder = save(tmp_path, series(RescaleSlope=2, RescaleIntercept=-1))
    (folder / "notes.txt").write_text("quench at noon")
    for path in folder.glob("*.dcm"):
        path.write_bytes(path.read_bytes()[:-1])  # a pixel is missing: only reading would find out
    scan = scan_dicom(folder)
    candidate = choose(scan)
    assert scan.skipped == {"not DICOM": ("notes.txt",)}
    assert str(candidate) == "series 7 (magnitude, 3 echoes, 4x3x2)"
    assert (candidate.values, candidate.shape, candidate.n_slices) == ((0.005, 0.01, 0.02), (COLUMNS, ROWS), N_SLICES)
    assert candidate.voxel_size == pytest.approx((3, 2, 5))
    assert candidate.scaling == "slope 2, intercept -1"
    with pytest.raises(CorruptInputError, match=r"IM000.dcm: 23 bytes"):
        read_candidate(scan, candidate)
