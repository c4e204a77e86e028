"""Folders of DICOM files that the reader must refuse, each with the error and its words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
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

from jaxqmri.errors import CorruptInputError, MetadataError, NoInputError


def with_raw_echo_time(text: bytes) -> Callable[[Dataset], None]:
    """Sets EchoTime to bytes that pydicom would refuse to write."""

    def change(ds: Dataset) -> None:
        ds.add(pydicom.DataElement(0x00180081, "LO", text.decode()))

    return change


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


def set_to(tag: str, value: Any) -> Callable[[Dataset], None]:
    return lambda ds: setattr(ds, tag, value)


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


BAD_DICOM = [
    ("empty folder", nothing, NoInputError, "no DICOM or NIfTI images found"),
    ("only other files", only_other_files, NoInputError, "1 empty file, 2 not DICOM"),
    ("only other objects", only_other_objects, NoInputError, "Secondary Capture"),
    ("cut in its header", cut(60), CorruptInputError, r"IM002.dcm: no pixels \(7FE0,0010\).*cut short"),
    ("cut in its pixels", cut(6), CorruptInputError, r"IM002.dcm: 18 bytes of pixels .* need 24"),
    ("unknown kind of pixels", unknown_kind_of_pixels, CorruptInputError, "IM002.dcm"),
    ("damaged header", damaged_header, CorruptInputError, "IM002.dcm"),
    ("other rows", one_image(lambda ds: setattr(ds, "Rows", 2)), CorruptInputError, "4x3x2.*4x2x1"),
    ("rows wrong throughout", all_images(Rows=2), CorruptInputError, "24 bytes of pixels .* 2x4 need 16"),
    ("rows of a larger machine", all_images(Rows=65535, Columns=65535), CorruptInputError, "24 bytes .* 65535x65535"),
    ("missing slice", missing_slice, CorruptInputError, r"slice 2 of 2 lacks TE 10 ms \(passed over: 1 empty file\)"),
    ("two runs", another_run, CorruptInputError, "IM.*again.*differ in AcquisitionNumber"),
    ("single echo", lambda f: save(f, series((5.0,))), CorruptInputError, "need at least 2 echoes"),
    ("two series", two_series, CorruptInputError, "2 multi-echo .*series[= ]'?7.* or .*series[= ]'?8"),
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
    *[
        (f"{tag} {value}", all_images(**{tag: value}), MetadataError, "lack a usable ImagePositionPatient.*dcm2niix")
        for tag, value in (
            ("ImagePositionPatient", None), ("ImagePositionPatient", [1e30, 0, 0]), ("PixelSpacing", [1e-30, 2]),
            ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        )
    ],
    *[
        (f"{tag} {value} in one", one_image(set_to(tag, value)), CorruptInputError, "IM002.dcm: no usable Image")
        for tag, value in (
            ("ImagePositionPatient", None), ("ImagePositionPatient", [1e30, 0, 0]), ("PixelSpacing", [2, 1e30]),
            ("ImageOrientationPatient", [1, 0, 0, 0.8, 0.6, 0]),
        )
    ],
    ("slope zero", all_images(RescaleSlope=0, RescaleIntercept=0), CorruptInputError, r"RescaleSlope \(0028,1053\)"),
]  # fmt: skip
