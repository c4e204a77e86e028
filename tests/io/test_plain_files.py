"""What is no file on a disk is passed over or refused at once: reading a named pipe or a device would never end."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from command import run
from dicom_series import save, series
from nifti_files import save_series
from no_files import NO_FILES

from jaxqmri.errors import CorruptInputError, MetadataError, NoInputError
from jaxqmri.io.bids.dataset import open_dataset
from jaxqmri.io.choose import choose
from jaxqmri.io.dicom.reader import read_dicom, scan_dicom
from jaxqmri.io.load import read_candidate
from jaxqmri.io.nifti.reader import read_mask, read_nifti, scan_nifti
from jaxqmri.io.storage import plain_files
from jaxqmri.io.storage.result_folder import RECORD, recorded_files

KIND = "named pipe, socket, device or the like"


@pytest.fixture(autouse=True)
def no_endless_wait():
    """Instead of waiting for ever, a test fails."""

    def late(*_):
        raise TimeoutError("still reading")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=NO_FILES, ids=lambda make: make.__name__)
def no_file(request):
    return request.param


@pytest.fixture
def scan(tmp_path):
    (tmp_path / "scan").mkdir()
    return save_series(tmp_path / "scan")


def test_beside_images_it_is_passed_over(tmp_path, scan, no_file):
    no_file(scan / "more.nii")
    assert read_nifti(scan).skipped == {KIND: 1}
    dicom = save(tmp_path / "dicom", series())
    no_file(dicom / "more.dcm")
    assert read_dicom(dicom).skipped == {KIND: 1}


def test_a_link_to_the_folders_of_the_kernel_is_not_followed(tmp_path):
    dicom = save(tmp_path / "dicom", series())
    wanted = read_dicom(dicom)
    (dicom / "machine").symlink_to("/proc")
    np.testing.assert_array_equal(read_dicom(dicom).data, wanted.data)


def test_as_an_image_it_is_refused(tmp_path, scan, no_file):
    no_file(tmp_path / "image.nii")
    for reader, paths in ((read_nifti, tmp_path / "image.nii"), (read_dicom, [tmp_path / "image.nii"])):
        with pytest.raises(NoInputError, match=rf"image\.nii: is a {KIND}; name a file or a folder"):
            reader(paths)
    with pytest.raises(CorruptInputError, match=rf"image\.nii: .*is a {KIND}"):
        read_mask(tmp_path / "image.nii", read_nifti(scan))


def test_as_a_sidecar_it_is_refused(scan, no_file):
    (scan / "scan_e2.json").unlink()
    no_file(scan / "scan_e2.json")
    with pytest.raises(MetadataError, match=rf"scan_e2\.json: not readable \(is a {KIND}\)"):
        read_nifti(scan)


def test_as_a_map_it_is_refused_before_images_are_read(tmp_path, capsys, monkeypatch, no_file):
    monkeypatch.setattr("jaxqmri.workflow.run.read_images", lambda *_: pytest.fail("too late"))
    no_file(tmp_path / "map.nii.gz")
    for command, option in (("t2star", "--mask"), ("t2", "--b1"), ("t1", "--b1")):
        refused = run(capsys, command, tmp_path, "-o", tmp_path / "out", option, tmp_path / "map.nii.gz")
        assert refused.code == 3
        assert f"{option} {tmp_path / 'map.nii.gz'}: is a {KIND}" in refused.error


def test_as_a_description_of_a_dataset_it_is_told(tmp_path, no_file):
    (tmp_path / "sub-01").mkdir()
    no_file(tmp_path / "dataset_description.json")
    with pytest.warns(match=r"dataset_description\.json cannot be read"):
        assert open_dataset(tmp_path).description == {}


def test_as_a_record_it_names_no_files(tmp_path, no_file):
    no_file(tmp_path / RECORD)
    assert recorded_files(tmp_path) == set()


def test_text_beyond_any_sidecar_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_files, "LARGEST_TEXT", 10)
    path = Path(tmp_path / "a.json")
    path.write_text("0123456789")
    assert plain_files.read_bytes(path) == b"0123456789"
    path.write_text("0123456789 ")
    with pytest.raises(OSError, match="larger than 10 bytes"):
        plain_files.read_bytes(path)


# --- files that change while they are read ---


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes()[::-1])
    path.with_name("new").replace(path)


def written_to_without_a_newer_date(path: Path) -> None:
    before = path.stat()
    path.write_bytes(path.read_bytes() + bytes(512))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced, written_to_without_a_newer_date, Path.unlink])
@pytest.mark.parametrize("kind", ["DICOM", "NIfTI"])
def test_a_file_that_changes_between_header_and_pixels_is_noticed(tmp_path, scan, kind, change):
    found = scan_nifti(scan) if kind == "NIfTI" else scan_dicom(save(tmp_path / "dicom", series()))
    chosen = choose(found)
    assert read_candidate(found, chosen).n_files == len(chosen.images)
    file = chosen.images[1].file
    change(path := Path(file.path if kind == "NIfTI" else file.filename))
    with pytest.raises(CorruptInputError, match=f"{path.name}: was replaced, changed or removed .* try again"):
        read_candidate(found, chosen)


@pytest.mark.parametrize("kind", ["DICOM", "NIfTI"])
def test_a_file_that_changes_while_pixels_are_read_is_noticed(tmp_path, scan, monkeypatch, kind):
    found = scan_nifti(scan) if kind == "NIfTI" else scan_dicom(save(tmp_path / "dicom", series()))
    chosen = choose(found)
    images = found.reader.load(chosen)
    next(images)
    for image in chosen.images:
        os.utime(image.file.path if kind == "NIfTI" else image.file.filename, (1, 1))
    with pytest.raises(CorruptInputError, match="was replaced, changed or removed"):
        list(images)
