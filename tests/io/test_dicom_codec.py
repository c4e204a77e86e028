"""Compressed pixels: the same values as uncompressed ones, and no damaged stream that takes the program with it."""

import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import jpeg_streams
import numpy as np
import pytest
from command import run
from dicom_series import enhanced, image, save, series
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from jaxqmri.errors import CorruptInputError
from jaxqmri.io.dicom import codec as dicom_codec
from jaxqmri.io.dicom.reader import read_dicom

SIZE = 32


@pytest.fixture
def images(rng):
    """Two slices of three echoes, large enough for every codec."""
    pixels = rng.integers(0, 4096, (6, SIZE, SIZE)).astype("<u2")
    pixels[:, ::2] = pixels[0, 0]  # something to compress
    return [
        image(te, k, pixels[2 * e + k], InstanceNumber=1 + k + 2 * e)
        for e, te in enumerate((5.0, 10.0, 20.0))
        for k in range(2)
    ]


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("make", [list, lambda images: [enhanced(images)]], ids=["classic", "enhanced"])
def test_compression_does_not_change_the_values(tmp_path, images, syntax, make):
    wanted = read_dicom(save(tmp_path / "plain", images))
    datasets = make(images)
    for ds in datasets:
        ds.compress(syntax)
    found = read_dicom(save(tmp_path / "compressed", datasets))
    np.testing.assert_array_equal(found.data, wanted.data)
    np.testing.assert_array_equal(found.affine, wanted.affine)


def with_streams(images, syntax, encode, n_bits):
    """The images with JPEG streams for pixels; `encode`: (row, column) values -> stream."""
    for ds in images:
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(SIZE, SIZE)
        ds.file_meta.TransferSyntaxUID = syntax
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 if n_bits == 8 else 16, n_bits, n_bits - 1
        ds.PixelData = encapsulate([encode(pixels)])
        ds["PixelData"].VR = "OB"
    return images


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("n_bits", [12, 16])
def test_lossless_jpeg_does_not_change_the_values(tmp_path, images, syntax, n_bits):
    if n_bits == 16:  # all differences there are, up to the one of 16 bits
        for ds in images:
            pixels = np.frombuffer(ds.PixelData, "<u2") * 16
            pixels[:4] = [32768, 0, 32768, 65535]
            ds.PixelData = pixels.tobytes()
    wanted = read_dicom(save(tmp_path / "plain", images))
    coded = with_streams(images, syntax, lambda pixels: jpeg_streams.lossless(pixels, n_bits), n_bits)
    found = read_dicom(save(tmp_path / "compressed", coded))
    np.testing.assert_array_equal(found.data, wanted.data)


def smooth(n_bits):
    """(row, column) values over most of the range, as smooth as an image is."""
    y, x = np.indices((SIZE, SIZE))
    return ((0.5 + 0.25 * np.sin(x / 7) + 0.2 * np.cos(y / 5)) * 2**n_bits).astype("<u2")


def as_read(image):
    """(row, column) from the top -> the (x, y) of a series."""
    return image[::-1].T


COPIES = pytest.mark.filterwarnings("ignore:the images at .* are the same in every voxel")


@COPIES
@pytest.mark.parametrize("step", [1, 16])
def test_extended_jpeg_is_what_its_coefficients_say(tmp_path, images, step):
    stream, wanted = jpeg_streams.extended(smooth(12), 12, step)
    coded = with_streams(images, JPEGExtended12Bit, lambda _: stream, 12)
    found = read_dicom(save(tmp_path, coded)).data
    assert np.ptp(wanted) > 3000
    for k in range(2):
        for echo in range(3):
            np.testing.assert_allclose(found[:, :, k, echo], as_read(wanted), atol=1)


@COPIES
def test_baseline_jpeg_is_what_another_decoder_makes_of_it(tmp_path, images):
    content = BytesIO()
    Image.fromarray(smooth(8).astype(np.uint8)).save(content, "JPEG", quality=90)
    coded = with_streams(images, JPEGBaseline8Bit, lambda _: content.getvalue(), 8)
    found = read_dicom(save(tmp_path, coded)).data
    wanted = np.asarray(Image.open(content)).astype(float)
    assert np.ptp(wanted) > 180
    np.testing.assert_allclose(found[:, :, 0, 0], as_read(wanted), atol=1)


def test_the_encoder_of_these_tests_is_understood_by_another_decoder():
    for step in (1, 7):
        stream, wanted = jpeg_streams.extended(smooth(8), 8, step)
        np.testing.assert_allclose(np.asarray(Image.open(BytesIO(stream))), wanted, atol=1)


def test_rle_is_decoded_without_another_process(tmp_path, images, monkeypatch):
    monkeypatch.setattr(dicom_codec, "COMMAND", ("no such program",))
    for ds in images:
        ds.compress(RLELossless)
    assert read_dicom(save(tmp_path, images)).n_files == 6


@pytest.mark.parametrize("entry", ["", ".", "the folder itself"])
def test_the_process_imports_nothing_from_the_working_directory(tmp_path, images, monkeypatch, entry):
    for ds in images:
        ds.compress(JPEG2000Lossless)
    scan = save(tmp_path / "scan", images)
    for name in ("pydicom", "numpy", "PIL", "jaxqmri", "gdcm", "openjpeg"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, entry if len(entry) < 2 else str(tmp_path)])
    assert read_dicom(scan).n_files == 6
    assert not (tmp_path / "imported").exists()
    assert all(Path(path).resolve() != tmp_path for path in dicom_codec._import_path())


@pytest.fixture
def damaged(tmp_path, images):
    """A folder whose third file has a JPEG 2000 stream that ends early and is scrambled before."""
    for ds in images:
        ds.compress(JPEG2000Lossless)
    stream = bytearray(next(generate_frames(images[2].PixelData, number_of_frames=1)))
    stream[120::3] = bytes(len(stream[120::3]))
    images[2].PixelData = encapsulate([bytes(stream[: len(stream) // 2])])
    return save(tmp_path / "scan", images)


def test_a_damaged_stream_is_named_in_one_line(damaged, tmp_path, capsys):
    done = run(capsys, "t2star", damaged, "-o", tmp_path / "out")
    assert done.code == 4
    assert "IM002.dcm: pixels (7FE0,0010) cannot be decoded" in done.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, RLELossless], ids=lambda u: u.name
)
@pytest.mark.parametrize("stated", ["in the stream", "in the header", "in both"])
def test_a_small_stream_of_a_large_image_is_never_decoded(tmp_path, images, monkeypatch, syntax, stated):
    # Its decoder would make room for what it claims to be.
    monkeypatch.setattr(dicom_codec, "COMMAND", ("no such program",))
    if syntax == JPEGLosslessSV1:
        with_streams(images, syntax, lambda pixels: jpeg_streams.lossless(pixels, 12), 12)
    else:
        for ds in images:
            ds.compress(syntax)
    for ds in images:
        stream = bytearray(next(generate_frames(ds.PixelData, number_of_frames=1)))
        if stated != "in the header":
            place = stream.find({JPEGLSLossless: b"\xff\xf7", JPEGLosslessSV1: b"\xff\xc3"}.get(syntax, b"\xff\x51"))
            large = (65500).to_bytes(2, "big")
            if syntax == RLELossless:
                stream += bytes(2**14)
            elif syntax == JPEG2000Lossless:
                stream[place + 6 : place + 14] = (bytes(2) + large) * 2
            else:
                stream[place + 5 : place + 9] = large * 2
        if stated != "in the stream":
            ds.Rows = ds.Columns = 65500
        ds.PixelData = encapsulate([bytes(stream)])
    words = r"its stream is|cannot be \d+ bytes of pixels"
    with pytest.raises(CorruptInputError, match=rf"IM00\d.dcm: pixels .* cannot be decoded \(.*({words})"):
        read_dicom(save(tmp_path, images))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
def test_the_process_has_no_more_memory_than_an_image_needs():
    code = "import codec; codec._limit_memory(2**26); bytearray(2**25); bytearray(2**27)"
    folder = Path(dicom_codec.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("MemoryError")


READY = "import os, sys, time; os.write(1, b'R'); sys.stdin.buffer.read(8); "


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("os.abort()", "its decoder crashed"),
        ("os.write(1, b'A' + (999).to_bytes(8, 'little') + b'cut'); os.abort()", "its decoder crashed"),
        ("time.sleep(600)", "its decoder took more than 1 s"),
    ],
    ids=["crash", "crash in its answer", "hang"],
)
def test_a_decoder_that_crashes_or_hangs_is_an_error_of_the_file(tmp_path, images, monkeypatch, does, words):
    monkeypatch.setattr(dicom_codec, "COMMAND", (sys.executable, "-S", "-c", READY + does))
    if "sleep" in does:
        monkeypatch.setattr(dicom_codec, "SECONDS_PER_IMAGE", 1.0)
    for ds in images:
        ds.compress(JPEG2000Lossless)
    started = time.monotonic()
    with pytest.raises(CorruptInputError, match=rf"IM00\d.dcm: pixels \(7FE0,0010\) cannot be decoded \({words}\)"):
        read_dicom(save(tmp_path, images))
    assert time.monotonic() - started < 30


def test_no_decoder_outlives_the_reading(tmp_path, images, monkeypatch):
    started = []
    start = dicom_codec.Decoder._start
    monkeypatch.setattr(dicom_codec.Decoder, "_start", lambda self: started.append(start(self)) or started[-1])
    for ds in images:
        ds.compress(JPEG2000Lossless)
    read_dicom(save(tmp_path, images))
    (process,) = started
    assert process.poll() is not None
    assert process.stdin.closed
    assert process.stdout.closed


def test_what_the_process_is_given_names_nobody(images):
    ds = images[0]
    ds.PatientName = "Doe^Jane"
    ds.compress(JPEG2000Lossless)
    assert "PatientName" not in dicom_codec.Decoder().single_frame(ds, 0)


def test_compression_without_decoder_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxqmri.io.dicom.pixels.has_decoder", lambda _: False)
    datasets = series()
    for ds in datasets:
        ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        ds.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        ds["PixelData"].VR = "OB"
    with pytest.raises(CorruptInputError, match=r'pip install "jaxqmri\[dicom-codecs\]"'):
        read_dicom(save(tmp_path, datasets))
