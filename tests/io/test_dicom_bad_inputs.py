"""What the DICOM reader says of bad inputs, and what it passes over (one case per way of going wrong)."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_series import (
    COLUMNS,
    FIRST,
    N_SLICES,
    ROW,
    ROWS,
    STEP,
    TE_MS,
    enhanced,
    image,
    save,
    series,
)
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000Lossless,
    RawDataStorage,
    SecondaryCaptureImageStorage,
)

from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, NoInputError
from jaxqmri.io.dicom.reader import choose_stack, read_dicom, read_stack
from jaxqmri.io.dicom.scan import scan_dicom


def nothing(folder: Path) -> None:
    folder.mkdir()


def only_other_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "README.txt").write_text("Scans of 4 May")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "empty").write_bytes(b"")


def only_other_objects(folder: Path) -> None:
    save(folder, series(SOPClassUID=SecondaryCaptureImageStorage) + series(SOPClassUID=RawDataStorage))


def one_image(change: Callable[[Dataset], None]) -> Callable[[Path], None]:
    """A good folder but for its third image."""

    def build(folder: Path) -> None:
        datasets = series()
        change(datasets[2])
        save(folder, datasets)

    return build


def all_images(**tags: Any) -> Callable[[Path], None]:
    return lambda folder: save(folder, series(**tags)) and None


def cut(n_bytes: int) -> Callable[[Path], None]:
    """A good folder but for its third file, which lacks its last bytes."""

    def build(folder: Path) -> None:
        path = save(folder, series()) / "IM002.dcm"
        path.write_bytes(path.read_bytes()[:-n_bytes])

    return build


def damaged_header(folder: Path) -> None:
    path = save(folder, series()) / "IM002.dcm"
    content = path.read_bytes()
    path.write_bytes(content[:132] + b"\x02\x00\x00\x00UL\x04\x00" + b"\xff" * 40)


def unknown_kind_of_pixels(folder: Path) -> None:
    path = save(folder, series()) / "IM002.dcm"
    path.write_bytes(path.read_bytes().replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00O\x95"))


def missing_slice(folder: Path) -> None:
    save(folder, series())
    (folder / "IM003.dcm").write_bytes(b"")


def another_run(folder: Path) -> None:
    save(folder, series())
    again = series(AcquisitionNumber=2)
    for ds in again:
        ds.PixelData = bytes(len(ds.PixelData))
    save(folder, again, prefix="again")


def two_series(folder: Path) -> None:
    save(folder, series())
    save(folder, series(SeriesInstanceUID="1.2.4", SeriesNumber=8, SeriesDescription="high resolution"), prefix="b")


def wider_echo(folder: Path) -> None:
    wide = [image(40.0, k, np.ones((ROWS, COLUMNS + 2), "<u2")) for k in range(N_SLICES)]
    save(folder, series() + wide)


def uneven_slices(folder: Path) -> None:
    datasets = series(n_slices=4)
    save(folder, [ds for ds in datasets if ds.ImagePositionPatient != list(FIRST + 2 * STEP)])


def leaning_slices(folder: Path) -> None:
    datasets = series()
    for ds in datasets:
        k = (ds.InstanceNumber - 1) % N_SLICES
        ds.ImagePositionPatient = list(FIRST + k * (STEP + 0.1 * ROW))
    save(folder, datasets)


def moved_echo(folder: Path) -> None:
    datasets = series()
    for ds in datasets[:2]:
        ds.ImagePositionPatient = list(np.array(ds.ImagePositionPatient, float) + ROW)
    save(folder, datasets)


def compressed(folder: Path) -> None:
    """A good folder, in JPEG 2000."""
    pixels = np.arange(1024, dtype="<u2").reshape(32, 32)
    datasets = [image(te, 0, pixels + e) for e, te in enumerate(TE_MS)]
    for ds in datasets:
        ds.compress(JPEG2000Lossless)
    save(folder, datasets)


def damaged_stream(folder: Path) -> None:
    compressed(folder)
    ds = pydicom.dcmread(folder / "IM002.dcm")
    stream = bytearray(next(generate_frames(ds.PixelData, number_of_frames=1)))
    stream[100::3] = bytes(len(stream[100::3]))
    ds.PixelData = encapsulate([bytes(stream[: len(stream) * 2 // 3])])
    ds.save_as(folder / "IM002.dcm")


def one_echo_time_for_all_frames(folder: Path) -> None:
    save(folder, [enhanced(series(), shared=("MREchoSequence",))])


BAD_INPUTS = [
    ("empty folder", nothing, NoInputError, "no DICOM or NIfTI images found"),
    ("only other files", only_other_files, NoInputError, "1 empty file, 2 not DICOM"),
    ("only other objects", only_other_objects, NoInputError, "Secondary Capture"),
    ("cut in its header", cut(60), CorruptInputError, r"IM002.dcm: no pixels \(7FE0,0010\).*cut short"),
    ("cut in its pixels", cut(6), CorruptInputError, r"IM002.dcm: 18 bytes of pixels .* need 24"),
    ("unknown kind of pixels", unknown_kind_of_pixels, CorruptInputError, "IM002.dcm"),
    ("damaged header", damaged_header, CorruptInputError, "IM002.dcm"),
    ("other rows", one_image(lambda ds: setattr(ds, "Rows", 2)), CorruptInputError, "4x3x2.*4x2x1"),
    ("rows wrong throughout", all_images(Rows=2), CorruptInputError, "24 bytes of pixels .* 2x4 need 16"),
    ("missing slice", missing_slice, CorruptInputError, r"slice 2 of 2 lacks TE 10 ms \(passed over: 1 empty file\)"),
    ("two runs", another_run, CorruptInputError, "IM.*again.*differ in AcquisitionNumber"),
    ("single echo", lambda f: save(f, series((5.0,))), CorruptInputError, "need >= 2 echoes"),
    ("two series", two_series, CorruptInputError, "2 multi-echo .*8 'high resolution'.*--series 7 or --series 8"),
    ("another matrix", wider_echo, CorruptInputError, "one series differ in matrix.*4x3x2.*6x3x2"),
    ("uneven slices", uneven_slices, CorruptInputError, r"10\.000 mm between slices 2 and 3.*5\.000 mm between 1"),
    ("leaning slices", leaning_slices, CorruptInputError, r"sideways by 2\.0 %"),
    ("moved echo", moved_echo, CorruptInputError, "lies 1.000 mm from where the first echo"),
    (
        "phase only",
        all_images(ImageType=["ORIGINAL", "PRIMARY", "P"], RescaleSlope=2, RescaleIntercept=-4096),
        CorruptInputError,
        r"phase.*not magnitude",
    ),
    (
        "phase of unknown range only",
        all_images(ImageType=["ORIGINAL", "PRIMARY", "P"]),
        MetadataError,
        r"phase.*not magnitude.*nor could the phase be used, as it is not declared",
    ),
    ("mosaic", all_images(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), CorruptInputError, "mosaic.*dcm2niix"),
    ("damaged stream", damaged_stream, CorruptInputError, r"IM002.dcm: pixels \(7FE0,0010\) cannot be decoded"),
    ("one TE for all frames", one_echo_time_for_all_frames, MetadataError, "Effective.*all 3 echo times are 5 ms"),
    ("no position", all_images(ImagePositionPatient=None), MetadataError, r"ImagePositionPatient \(0020,0032\)"),
    ("slope zero", all_images(RescaleSlope=0, RescaleIntercept=0), CorruptInputError, r"RescaleSlope \(0028,1053\)"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("build", "error", "words"), [pytest.param(*c[1:], id=c[0]) for c in BAD_INPUTS])
def test_bad_input_raises_with_one_helpful_line(tmp_path, build, error, words):
    folder = tmp_path / "scan"
    build(folder)
    with pytest.raises(error, match=words) as caught:
        read_dicom(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(NoInputError, match="nowhere: no such file or folder"):
        read_dicom(tmp_path / "nowhere")


def with_raw_echo_time(text: bytes) -> Callable[[Dataset], None]:
    """Sets EchoTime to bytes that pydicom would refuse to write."""

    def change(ds: Dataset) -> None:
        ds.add(pydicom.DataElement(0x00180081, "LO", text.decode()))

    return change


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
    assert "--te-ms" in str(caught.value)
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
    stack = choose_stack(scan)
    assert scan.skipped == {"not DICOM": ("notes.txt",)}
    assert (stack.series_number, stack.description, stack.component) == (7, "multi-echo GRE", "magnitude")
    assert (stack.values, stack.shape, stack.n_slices) == ((0.005, 0.01, 0.02), (COLUMNS, ROWS), N_SLICES)
    assert stack.voxel_size == pytest.approx((3, 2, 5))
    assert stack.scaling == "slope 2, intercept -1"
    with pytest.raises(CorruptInputError, match=r"IM000.dcm: 23 bytes"):
        read_stack(scan, stack)
