"""Files damaged at random, in their bytes and in what they say: read, or refused in one line.

`pytest -m nightly tests/project/test_damaged_files.py` damages 5000 of them and prints how they ended.
"""

import collections
import json
import resource
import shutil
import signal
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bids_datasets
import dicom_series
import nibabel as nib
import numpy as np
import pydicom
import pytest
from command import Outcome, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.uid import JPEG2000Lossless
from small_scans import dicom_folder, nifti_folder

pytestmark = pytest.mark.filterwarnings("ignore")

CORRUPT = {0, 2, 3, 4, 5}  # exit codes
SECONDS, GIBIBYTES = 20, 2  # s of a processor; on the clock ten times as long, as other work may have it
PATTERNS = {  # kind of file -> which files of the folder are damaged
    "DICOM": "*.dcm", "Enhanced DICOM": "*.dcm", "JPEG 2000": "*.dcm", "NIfTI": "*.nii",
    "NIfTI, compressed": "*.nii.gz", "sidecar": "*.json", "BIDS": "**/*.*", "zip": "*.zip",
}  # fmt: skip
KEYWORDS = (
    "EchoTime", "EffectiveEchoTime", "RepetitionTime", "FlipAngle", "InversionTime", "InversionTimes", "EchoNumbers",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ImageType", "FrameType", "ComplexImageComponent",
    "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "Manufacturer", "SOPClassUID", "PhotometricInterpretation",
    "SeriesDescription", "SpecificCharacterSet", "PixelData",
)  # fmt: skip
TEXTS = (
    b"", b"0", b"-1", b"nan", b"inf", b"1e400", b"1E-300", b"abc", b"9" * 400, b"1\\2", b"1\\2\\3", b"0\\0\\0\\0\\0\\0",
    b"\xff\xfe", b"\0\0", b"\x1b[31m", b"<b>x</b>", b"\xed\xa0\x80", b"1.2.3.4", b" 5 ",
)  # fmt: skip
NUMBERS = (0, 1, 2, 7, 8, 11, 12, 16, 31, 32, 255, 256, 32767, 32768, 65535)
SAID = (
    None, True, [], {}, "", "abc", "0.01", -1, 0, 1e-300, 1e308, float("nan"), float("inf"), 10**400, [0.01, 0.02],
    ["a"], {"a": 1}, "\ud800", "\x1b[31m", "a\nb", [[[[0.01]]]],
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder of sound scans, by kind of file to be damaged."""
    folder = tmp_path_factory.mktemp("sound")
    dicom_folder(folder / "DICOM")
    dicom_series.save(folder / "Enhanced DICOM", [dicom_series.enhanced(dicom_series.series())])
    pixels = np.arange(1024, dtype="<u2").reshape(32, 32)
    images = [dicom_series.image(te, 0, pixels + e) for e, te in enumerate(dicom_series.TE_MS)]
    for image in images:
        image.compress(JPEG2000Lossless)
    dicom_series.save(folder / "JPEG 2000", images)
    nifti_folder(folder / "NIfTI, compressed")
    for kind in ("NIfTI", "sidecar"):
        for path in sorted(nifti_folder(folder / "packed").iterdir()):
            (folder / kind).mkdir(exist_ok=True)
            if path.suffix == ".json":
                shutil.copy(path, folder / kind)
            else:
                nib.save(nib.load(path), folder / kind / path.name.removesuffix(".gz"))
    bids_datasets.add_series(bids_datasets.dataset(folder / "BIDS"), "01", "MEGRE")
    (folder / "zip").mkdir()
    shutil.make_archive(str(folder / "zip" / "scan"), "zip", folder / "DICOM")
    return folder


def flipped(path: Path, draw: st.DrawFn) -> None:
    """Some bytes are others, or the end is missing."""
    place = st.one_of(st.integers(0, 400), st.integers(0, 2000))
    flips = draw(st.lists(st.tuples(place, st.integers(1, 255)), max_size=6))
    cut = draw(st.none() if flips and draw(st.booleans()) else st.floats(0, 1))
    raw = bytearray(path.read_bytes())
    for where, bits in flips:
        raw[where % len(raw)] ^= bits
    path.write_bytes(raw if cut is None else raw[: int(cut * len(raw))])


def said_otherwise(path: Path, draw: st.DrawFn) -> None:
    """One key of a sidecar or one attribute of a DICOM file has another value, well-formed or not."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        content[draw(st.sampled_from([*content, "EchoTime", "RepetitionTime"]))] = draw(st.sampled_from(SAID))
        path.write_text(json.dumps(content))
    elif path.suffix == ".dcm":
        ds = pydicom.dcmread(path)
        keyword = draw(st.sampled_from(KEYWORDS))
        tag, kind = pydicom.tag.Tag(tag_for_keyword(keyword)), dictionary_VR(keyword)
        text, number = draw(st.sampled_from(TEXTS)), draw(st.sampled_from(NUMBERS))
        kind = "OW" if keyword == "PixelData" else kind
        value = struct.pack("<H", number) if kind == "US" else struct.pack("<d", number) if kind == "FD" else text
        places = [found for found in every(ds) if keyword in found] or [ds]
        for found in places[: draw(st.integers(1, len(places)))]:
            found[tag] = RawDataElement(tag, kind, len(value), value + b" " * (len(value) % 2), 0, False, True)
        try:
            ds.save_as(path)
        except (ValueError, TypeError):  # pixels of a compressed file must be encapsulated to be written
            flipped(path, draw)
    else:
        flipped(path, draw)


def every(ds: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """A data set and those within it."""
    yield ds
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield from every(item)


@contextmanager
def time_limit() -> Iterator[None]:
    def too_long(*_):
        raise AssertionError(f"more than {SECONDS} s for a small file")

    limits = {
        signal.ITIMER_PROF: (signal.SIGPROF, SECONDS),
        signal.ITIMER_REAL: (signal.SIGALRM, 10 * SECONDS),
    }
    before = {number: signal.signal(number, too_long) for number, _ in limits.values()}
    decoders = children_s()
    for timer, (_, seconds) in limits.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in limits:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert children_s() - decoders < SECONDS


def children_s() -> float:
    """Time of processors that children have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command_on(capsys: pytest.CaptureFixture, kind: str, command: str, folder: Path) -> Outcome:
    scan = folder / kind if kind != "zip" else folder / kind / "scan.zip"
    if kind == "BIDS":
        return run(capsys, "bids", scan, folder / "out", "participant", "--t2star-method", "loglinear", "--no-report")
    options = ("-o", folder / "out", "--no-report", "--method", "loglinear") if command == "t2star" else ()
    return run(capsys, command, scan, *options)


def peak_memory() -> float:
    """Of this process and of its children, GiB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20


@pytest.mark.parametrize(
    "n", [40, pytest.param(250, marks=pytest.mark.slow), pytest.param(5000, marks=pytest.mark.nightly)]
)
def test_damaged_files_are_read_or_refused_in_one_line(sound, capsys, n):
    """Never a hang, never a traceback, never a part of the results, never the memory of another machine."""
    codes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    before = peak_memory()

    @settings(max_examples=n, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        kind = data.draw(st.sampled_from(list(PATTERNS)))
        damage = data.draw(st.sampled_from([flipped, said_otherwise]))
        command = data.draw(st.sampled_from(["t2star", "t2star", "inspect"]))
        with tempfile.TemporaryDirectory() as scratch, time_limit():
            folder = Path(scratch)
            shutil.copytree(sound / kind, folder / kind)
            files = sorted(path for path in (folder / kind).glob(PATTERNS[kind]) if path.is_file())
            damage(data.draw(st.sampled_from(files)), data.draw)
            done = command_on(capsys, kind, command, folder)
            assert done.code in (CORRUPT | {7} if kind == "BIDS" else CORRUPT), done.err
            assert all(line.startswith(("jaxqmri: ", "[1/1] ")) for line in done.err.splitlines()), done.err
            assert "\x1b" not in done.err + done.out
            if kind != "BIDS" and done.code:
                assert done.error
                assert not (folder / "out").exists()
            elif kind != "BIDS" and command == "t2star":
                assert_complete(folder / "out")
            assert peak_memory() < max(GIBIBYTES, before + 1)
        codes[kind][done.code] += 1

    check()
    assert set().union(*codes.values()) >= {0, 4, 5}, "the damage is of all kinds"
    with capsys.disabled():
        for kind, found in sorted(codes.items()):
            print(f"\n{found.total():5d} {kind}: exit codes {dict(sorted(found.items()))}", end="")


def assert_complete(out: Path) -> None:
    """Every file that the record names is there and whole, and no other."""
    outputs = json.loads((out / "provenance.json").read_text())["outputs"]
    assert {path.name for path in out.iterdir()} == set(outputs)
    for name in outputs:
        if name.endswith(".nii.gz"):
            nib.load(out / name).get_fdata()
        else:
            json.loads((out / name).read_text())
