"""Rows 1 to 35 of the table of bad inputs: paths, DICOM files and echo times."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_dicom_files as bad
import numpy as np
import pytest
from bad_inputs import Build, Case
from dicom_series import enhanced, image, philips_scale, save, series
from nifti_files import edit, save_series
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    UID,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    KeyObjectSelectionDocumentStorage,
    MediaStorageDirectoryStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
)
from small_scans import T2STAR, TE_MS, datasets, dicom_folder, load, signal

from jaxqmri.io.dicom import codec as dicom_codec
from jaxqmri.io.dicom import pixels as dicom_pixels

TEXT = "Impression: normal. " * 20
OBJECTS = (
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    RTStructureSetStorage,
)


def spoiled(add: Callable[[Path], object], *options: object) -> Build:
    """A scan of known T2* with something beside it, or changed."""

    def build(folder: Path) -> list[object]:
        scan = dicom_folder(folder / "scan")
        add(scan)
        return [scan, *options]

    return build


def made(make: Callable[[Path], object], *options: object) -> Build:
    """A folder `scan` that `make` fills."""

    def build(folder: Path) -> list[object]:
        make(folder / "scan")
        return [folder / "scan", *options]

    return build


def scan_of(*, options: tuple[object, ...] = (), **tags: Any) -> Build:
    return made(lambda folder: save(folder, series(**tags)), *options)


def of_sidecar(**changes: Any) -> Build:
    """Four NIfTI files, one of them with other words in its sidecar."""

    def make(folder: Path) -> None:
        folder.mkdir()
        save_series(folder)
        edit(folder, "scan_e2", **changes)

    return made(make)


def right(out: Path) -> None:
    """T2* is that of the object; voxels of x = 0 may have been spoiled."""
    np.testing.assert_allclose(load(out, "T2starmap")[1:, :, 0], T2STAR[1:], rtol=1e-3)


def kept_apart(out: Path) -> None:
    """Maps of 4 slices, which hold the decays in another order."""
    assert np.isfinite(load(out, "T2starmap")).all()


# what is beside the images, or done to them ---------------------------------------------------------------------------


def other_files(scan: Path) -> None:
    for name in ("README", ".DS_Store", "Thumbs.db", "scan.json", "report.pdf"):
        (scan / name).write_bytes(b"%PDF-1.7 or whatever")


def index(scan: Path) -> None:
    """A DICOMDIR above the folder of its files."""
    (scan / "IMAGES").mkdir()
    for path in scan.glob("*.dcm"):
        path.rename(scan / "IMAGES" / path.name)
    (path,) = save(scan, datasets(SOPClassUID=MediaStorageDirectoryStorage)[:1]).glob("*.dcm")
    path.rename(scan / "DICOMDIR")


def other_objects(scan: Path) -> None:
    for i, sop_class in enumerate(OBJECTS):
        save(scan, datasets(SOPClassUID=sop_class)[:1], prefix=f"object{i}")


def no_preambles(scan: Path) -> None:
    for path in scan.glob("*.dcm"):
        path.write_bytes(path.read_bytes()[132:])


def text_like_a_data_set(folder: Path) -> None:
    folder.mkdir()
    (folder / "scan.dcm").write_bytes(b"\x08\x00" + TEXT.encode())


def instead_of_an_image(content: bytes) -> Build:
    return made(lambda folder: (save(folder, series()) / "IM003.dcm").write_bytes(content))


def compressed(syntax: UID, stream: bytes) -> Build:
    """All images with pixels of this transfer syntax."""

    def make(folder: Path) -> None:
        datasets = series()
        for ds in datasets:
            ds.file_meta.TransferSyntaxUID = syntax
            ds.PixelData = encapsulate([stream])
            ds["PixelData"].VR = "OB"
        save(folder, datasets)

    return made(make)


def decoder_that(does: str) -> Callable[[pytest.MonkeyPatch, Path], None]:
    """The process that decodes starts well and then does this."""
    ready = "import os, sys, time; os.write(1, b'R'); sys.stdin.buffer.read(8); "

    def patch(monkeypatch: pytest.MonkeyPatch, _out: Path) -> None:
        monkeypatch.setattr(dicom_codec, "COMMAND", (sys.executable, "-S", "-c", ready + does))
        monkeypatch.setattr(dicom_codec, "SECONDS_PER_IMAGE", 0.5)

    return patch


def no_codecs(monkeypatch: pytest.MonkeyPatch, _out: Path) -> None:
    monkeypatch.setattr(dicom_pixels, "has_decoder", lambda _syntax: False)


def no_echo_time_in_frames(folder: Path) -> None:
    save(folder, [enhanced(series(EchoTime=None))])


def echo_time(change: Callable[[Dataset], None]) -> Build:
    return made(bad.one_image(change))


def set_echo_time(value: object) -> Build:
    return echo_time(lambda ds: setattr(ds, "EchoTime", value))


def a_copy(scan: Path) -> None:
    shutil.copy(scan / "IM002.dcm", scan / "copy.dcm")


def in_another_series(ds: list[Dataset], scan: Path) -> None:
    for one in ds:
        one.SeriesInstanceUID, one.SeriesNumber = "1.2.9", 9
    save(scan, ds, prefix="other")


def one_echo_of_another_series(scan: Path) -> None:
    in_another_series(datasets(SeriesDescription="T1w")[:1], scan)


def phases(scan: Path) -> None:
    tags = {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"], "RescaleSlope": 2, "RescaleIntercept": -4096}
    save(scan, datasets(np.full((16, 16, 4), 1000.0), **tags), prefix="phase")


def another_orientation(scan: Path) -> None:
    ds = datasets()[0]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    in_another_series([ds], scan)


def localizer(scan: Path) -> None:
    tags = {"SeriesInstanceUID": "1.2.1", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "M"]}
    save(scan, datasets(**tags), prefix="loc")


def map_of_the_scanner(scan: Path) -> None:
    tags = {"SeriesInstanceUID": "1.2.2", "ImageType": ["DERIVED", "PRIMARY", "T2_STAR MAP", "ND"], "EchoTime": 0}
    ds = datasets()[0]
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    save(scan, [ds], prefix="map")


def slab(gap_mm: float) -> Callable[[Path], object]:
    """4 slices of 8 x 8 voxels, 5 mm apart but for the last one."""

    def make(folder: Path) -> None:
        values = signal().reshape(8, 8, 4, 4)
        files = []
        for e, te in enumerate(TE_MS):
            for k in range(4):
                ds = image(te, k, np.round(values[:, :, k, e]).astype("<u2"), EchoNumbers=e + 1)
                if k == 3:  # the normal of the slices is (-0.6, 0.8, 0)
                    ds.ImagePositionPatient = list(
                        np.array([10 - 9.0, 20 + 12.0, 30]) + gap_mm * np.array([-0.6, 0.8, 0])
                    )
                files.append(ds)
        save(folder, files)

    return make


def philips(scale_slopes: bool) -> Callable[[Path], object]:
    """Every echo stored on a scale of its own."""

    def make(folder: Path) -> None:
        factors = np.array([1.0, 0.5, 0.25, 0.2])
        files = datasets(signal() * factors)
        for ds, factor in zip(files, factors, strict=True):
            # Displayed values take the factor away again; with a scale slope only floating-point values do.
            slope = 3 * factor if scale_slopes else float(f"{1 / factor:g}")
            philips_scale(ds, slope, factor if scale_slopes else None)
        save(folder, files)

    return make


DICOM_CASES = [
    Case(1, "empty folder", made(bad.nothing), 3, "no DICOM or NIfTI images found in"),
    Case(2, "missing path", lambda folder: [folder / "nowhere"], 3, "nowhere: no such file or folder"),
    Case(3, "README, .DS_Store, JSON, PDF beside", spoiled(other_files), skipped={"not DICOM": 5}, check=right),
    Case(3, "only README and the like", made(bad.only_other_files), 3, "passed over: 1 empty file, 2 not DICOM"),
    Case(4, "DICOMDIR beside", spoiled(index), skipped={"DICOMDIR index": 1}, check=right),
    Case(
        5, "SR, PR, KO, SC, RTSTRUCT beside", spoiled(other_objects), check=right,
        skipped={f"not an MR image ({uid.name})": 1 for uid in OBJECTS},
    ),
    *[
        Case(5, f"only {uid.name}", scan_of(SOPClassUID=uid), 3, "no MR image")
        for uid in OBJECTS
    ],
    Case(
        6, "zero-byte file beside", spoiled(lambda scan: (scan / "IM999.dcm").touch()), words="1 empty file",
        skipped={"empty file": 1}, check=right,
    ),
    Case(6, "zero-byte file for a slice", instead_of_an_image(b""), 4, r"slice 2 of 2 lacks TE 10 ms.*1 empty file"),
    Case(
        7, "text renamed .dcm beside", spoiled(lambda scan: (scan / "report.dcm").write_text(TEXT)), check=right,
        words="1 not DICOM in spite of its name",
    ),
    Case(7, "text for a slice", instead_of_an_image(TEXT.encode()), 4, "2 of 2 lacks TE 10 ms.*1 not DICOM in spite"),
    Case(8, "no preambles", spoiled(no_preambles), skipped={}, check=right),
    Case(8, "text that starts like a data set", made(text_like_a_data_set), 3, "1 not DICOM in spite of its name"),
    Case(9, "truncated in its header", made(bad.cut(60)), 4, r"IM002.dcm: no pixels \(7FE0,0010\).*cut short"),
    Case(9, "header full of nonsense", made(bad.damaged_header), 4, "IM002.dcm: its DICOM header cannot be read"),
    Case(10, "truncated in its pixels", made(bad.cut(6)), 4, "IM002.dcm: 18 bytes of pixels .* need 24"),
    Case(11, "Rows of one image wrong", made(bad.one_image(lambda ds: setattr(ds, "Rows", 2))), 4, "4x3x2.*4x2x1"),
    Case(11, "Rows of all images wrong", scan_of(Rows=2), 4, "24 bytes of pixels .* 2x4 need 16"),
    Case(
        12, "compression without a codec", compressed(MPEG2MPML, b"\0\0\1\xb3"), 4,
        r'compressed .*no decoder.*pip install "jaxqmri\[dicom-codecs\]"',
    ),
    Case(
        12, "JPEG Lossless where the extra is not installed", compressed(JPEGLosslessSV1, b"\xff\xd8\xff\xd9"), 4,
        r'compressed \(JPEG Lossless.*no decoder.*pip install "jaxqmri\[dicom-codecs\]"', patch=no_codecs,
    ),
    Case(
        13, "corrupt JPEG stream", compressed(JPEG2000Lossless, b"\xff\x4f\xff\x51" * 9), 4,
        r"IM00\d.dcm: pixels .* cannot be decoded",
    ),
    Case(
        13, "corrupt JPEG stream that crashes its decoder", compressed(JPEG2000Lossless, b"\xff\x4f"), 4,
        r"cannot be decoded \(its decoder crashed\)", patch=decoder_that("os.abort()"),
    ),
    Case(
        13, "corrupt JPEG stream that hangs its decoder", compressed(JPEG2000Lossless, b"\xff\x4f"), 4,
        r"cannot be decoded \(its decoder took more than 0.5 s\)", patch=decoder_that("time.sleep(600)"),
    ),
    Case(14, "no EchoTime", scan_of(EchoTime=None), 5, r"IM00\d.dcm, EchoTime \(0018,0081\): missing.*--te-ms"),
    Case(15, "EchoTime empty", set_echo_time(None), 5, "IM002.dcm, EchoTime .*missing or empty.*--te-ms"),
    Case(16, "EchoTime 'abc'", echo_time(bad.with_raw_echo_time(b"abc")), 5, "'abc' is not a number.*--te-ms"),
    Case(16, "EchoTime text in a sidecar", of_sidecar(EchoTime="0.009"), 5, r"scan_e2\.json: EchoTime is \"0.009\""),
    Case(17, "EchoTime multi-valued", set_echo_time(["5", "6"]), 5, r"2 values where one is wanted.*--te-ms"),
    Case(17, "several EchoTimes for one volume", of_sidecar(EchoTime=[0.01, 0.02]), 5, "1 volume.*2 echo times"),
    Case(18, "EchoTime 0", set_echo_time(0), 5, "finite and positive.*--te-ms"),
    Case(18, "EchoTime negative", set_echo_time(-5), 5, "finite and positive.*--te-ms"),
    Case(18, "EchoTime NaN", echo_time(bad.with_raw_echo_time(b"nan")), 5, "finite and positive.*--te-ms"),
    Case(18, "EchoTime 0 in a sidecar", of_sidecar(EchoTime=0), 5, r"scan_e2\.json.*positive"),
    Case(18, "EchoTime NaN in a sidecar", of_sidecar(EchoTime=float("nan")), 5, r"scan_e2\.json.*finite"),
    Case(19, "seconds in a field of ms", set_echo_time(0.005), 5, "look like seconds in a field of milliseconds"),
    Case(19, "ms in a field of seconds", of_sidecar(EchoTime=9.0), 5, r"milliseconds in a field of.*--te-ms"),
    Case(20, "all EchoTimes equal", scan_of(EchoTime=4.6), 5, "all 3 echo times are 4.6 ms.*GE.*--te-ms"),
    Case(
        21, "echo times given in descending order",
        made(lambda folder: dicom_folder(folder, signal()[..., ::-1], EchoTime=None), "--te-ms", 25, 15, 8, 3),
        words="do not ascend; they were sorted", check=right,
    ),
    Case(
        21, "echo times given against those of the headers", made(dicom_folder, "--te-ms", 25, 15, 8, 3), 2,
        r"order of the given echo times contradicts EchoTime \(0018,0081\).*ascending order",
    ),
    Case(22, "duplicate, identical", spoiled(a_copy), words="1 duplicate images", check=right),
    Case(
        22, "duplicate, different",
        made(lambda folder: save(folder, [*series(), image(5.0, 0, np.full((3, 4), 7, "<u2"))])),
        4, "different images of slice 1 at TE 5 ms.*put the images of one of them in a folder",
    ),
    Case(22, "two runs", made(bad.another_run), 4, "differ in AcquisitionNumber"),
    Case(23, "single echo", made(lambda folder: save(folder, series((5.0,)))), 4, "need at least 2 echoes"),
    Case(25, "slice missing in one echo", made(bad.missing_slice), 4, "1 of 6 images missing: slice 2 of 2 lacks"),
    Case(26, "fewer --te-ms than echoes", scan_of(options=("--te-ms", 5, 10)), 2, "2 echo times .*images per slice: 3"),
    Case(26, "more --te-ms than echoes", scan_of(options=("--te-ms", 5, 10, 20, 30)), 2, "4 echo times are given"),
    Case(
        27, "one multi-echo series among others", spoiled(one_echo_of_another_series),
        words=r"passed over: series 9 .*\(differs in SeriesDescription\)", check=right,
    ),
    Case(27, "two multi-echo series", made(bad.two_series), 4, "2 multi-echo .*series 7.*series 8"),
    Case(28, "magnitude and phase mixed", spoiled(phases), skipped={"phase images": 4}, check=right),
    Case(
        28, "phase only", scan_of(ImageType=["ORIGINAL", "PRIMARY", "P"], RescaleSlope=2, RescaleIntercept=-4096),
        4, "phase.*not magnitude",
    ),
    Case(29, "echo of another matrix", made(bad.wider_echo), 4, "one series differ in matrix.*4x3x2.*6x3x2"),
    Case(29, "echo in another place", made(bad.moved_echo), 4, "lies 1.000 mm from where the first echo"),
    Case(29, "another orientation beside", spoiled(another_orientation), words="passed over: series 9", check=right),
    Case(30, "slice gap wrong", made(bad.uneven_slices), 4, r"10\.000 mm between slices 2 and 3"),
    Case(30, "slices lean sideways", made(bad.leaning_slices), 4, r"sideways by 2\.0 %"),
    Case(30, "slice gap off by 0.3 %", made(slab(0.025)), words="off an even, upright stack by", check=kept_apart),
    Case(31, "localizer beside", spoiled(localizer), words="4 localizer", skipped={"localizer": 4}, check=right),
    Case(31, "T2* map of the scanner beside", spoiled(map_of_the_scanner), words="1 map derived by", check=right),
    Case(32, "mosaic", scan_of(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), 4, "mosaic.*dcm2niix"),
    Case(
        33, "Enhanced, one echo time for all frames", made(bad.one_echo_time_for_all_frames), 5,
        r"EffectiveEchoTime \(0018,9082\).*all 3 echo times are 5 ms.*--te-ms",
    ),
    Case(33, "Enhanced, no echo time", made(no_echo_time_in_frames), 5, r"EffectiveEchoTime \(0018,9082\).*--te-ms"),
    Case(34, "Philips, every echo on its own scale", made(philips(True)), check=right),
    Case(34, "Philips, no scale slopes", made(philips(False)), words=r"lack the scale slope \(2005", check=right),
    Case(
        35, "phase of unknown range", scan_of(ImageType=["ORIGINAL", "PRIMARY", "P"], Manufacturer="GE"),
        5, "not magnitude, which a fit needs.*not declared which range.*Give the magnitude images",
    ),
]  # fmt: skip
