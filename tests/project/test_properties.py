"""What must hold whatever the input: laws of reading, writing and fitting."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dicom_series
import nibabel as nib
import nifti_files
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_scans import TE_MS
from small_scans import signal as decays

from jaxqmri import ImageSeries, t2star_map, write_maps
from jaxqmri.io.dicom.reader import read_dicom
from jaxqmri.io.dicom.write import write_dicom
from jaxqmri.io.nifti.reader import read_nifti

pytestmark = pytest.mark.filterwarnings("ignore")


def examples(n: int) -> settings:
    """The same ones in every run."""
    return settings(
        max_examples=n, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


# order and names ------------------------------------------------------------------------------------------------------

LETTERS = st.text("abcxyzÄé", min_size=1, max_size=12)


def assert_same(found: ImageSeries, wanted: ImageSeries) -> None:
    for name in ("data", "te", "affine"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.acquisition == wanted.acquisition


def test_neither_order_nor_names_nor_folders_of_dicom_files_matter(tmp_path):
    files = sorted(dicom_series.save(tmp_path, dicom_series.series()).iterdir())
    wanted = read_dicom(tmp_path)
    folders = st.lists(st.sampled_from(["a", "b/c", "."]), min_size=len(files), max_size=len(files))
    names = st.lists(LETTERS, min_size=len(files), max_size=len(files), unique=True)

    @examples(25)
    @given(st.permutations(files), names, folders)
    def check(order, names, folders):
        with scratch() as scan:
            for source, name, folder in zip(order, names, folders, strict=True):
                (scan / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(source, scan / folder / f"{name}.dcm")
            assert_same(read_dicom(scan), wanted)
        assert_same(read_dicom(order), wanted)

    check()


def test_neither_order_nor_names_of_nifti_files_matter(tmp_path):
    files = sorted(nifti_files.save_series(tmp_path).glob("*.nii.gz"))
    wanted = read_nifti(tmp_path)
    names = st.lists(LETTERS, min_size=len(files), max_size=len(files), unique=True)

    @examples(25)
    @given(st.permutations(files), names)
    def check(order, names):
        with scratch() as scan:
            for source, name in zip(order, names, strict=True):
                shutil.copy(source, scan / f"{name}.nii.gz")
                shutil.copy(source.with_name(source.name.replace(".nii.gz", ".json")), scan / f"{name}.json")
            assert_same(read_nifti(scan), wanted)
        assert_same(read_nifti(order), wanted)

    check()


# geometry -------------------------------------------------------------------------------------------------------------

MILLIMETRES = st.floats(-500, 500, width=32)


@st.composite
def affines(draw: st.DrawFn, upright: bool) -> np.ndarray:
    """Rotated voxels of 0.1 to 10 mm: upright as DICOM slices are stored, z against x cross y, or sheared at will."""
    unit = st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3)
    matrix = np.array([[draw(unit) for _ in range(3)] for _ in range(3)])
    rotation, _ = np.linalg.qr(matrix + 2 * np.eye(3))
    rotation *= np.sign(np.linalg.det(rotation))
    edges = [draw(st.floats(0.1, 10)) for _ in range(3)]
    shear = np.eye(3) if upright else np.eye(3) + np.triu(0.3 * matrix, 1)
    mirror = -1 if upright else draw(st.sampled_from([1, -1]))
    linear = rotation @ shear * edges * [mirror, 1, 1]
    return np.block([[linear, np.array([[draw(MILLIMETRES)] for _ in range(3)])], [np.zeros((1, 3)), np.ones((1, 1))]])


@examples(25)
@given(affines(upright=False))
def test_an_affine_comes_back_from_nifti_to_the_last_bit_of_float32(affine):
    with scratch() as folder:
        for echo in range(2):
            values = np.full((3, 2, 2), 100.0 / (echo + 1), np.float32)
            nifti_files.save(folder / f"e{echo}.nii", values, affine, {"EchoTime": 0.01 * (echo + 1)})
        series = read_nifti(folder)
        (path,) = write_maps(folder / "out", {"S0map": series.data[..., 0]}, series)
        back = nib.load(path)
        np.testing.assert_array_equal(back.affine, affine.astype(np.float32))
        np.testing.assert_array_equal(back.get_fdata(), series.data[..., 0])


@examples(25)
@given(affines(upright=True))
def test_an_affine_comes_back_from_dicom(affine):
    images = np.arange(1, 25, dtype=np.float64).reshape(3, 2, 2, 2)
    with scratch() as folder:
        write_dicom(folder, images, np.array([0.01, 0.02]), affine, "two echoes")
        series = read_dicom(folder)
    corners = np.array(np.meshgrid([0, 2], [0, 1], [0, 1], [1])).reshape(4, -1)
    np.testing.assert_allclose(series.affine @ corners, affine @ corners, atol=1e-4)  # mm
    np.testing.assert_array_equal(series.data, images)


# scale ----------------------------------------------------------------------------------------------------------------


@examples(10)
@given(st.integers(-30, 30))
def test_a_scanner_of_another_gain_measures_the_same(exponent):
    """Powers of two change no mantissa, so not even the last bit may differ."""
    series, gain = (
        ImageSeries.from_arrays(decays() * factor, te=np.array(TE_MS) / 1e3) for factor in (1.0, 2.0**exponent)
    )
    one, other = t2star_map(series), t2star_map(gain)
    for name in ("T2starmap", "R2starmap", "T2starmap_stderr", "residual", "status"):
        np.testing.assert_array_equal(other[name], one[name], err_msg=name)
    np.testing.assert_array_equal(other["S0map"], one["S0map"] * 2.0**exponent)
