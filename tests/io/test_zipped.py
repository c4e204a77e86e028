"""A zip archive is as good as the folder it was made of, leaves nothing behind and is what messages speak of."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import ENVIRONMENT, run
from nifti_files import save_series
from small_scans import dicom_folder, load, nifti_folder
from zip_files import zip_of

from jaxqmri.io.dicom.reader import read_dicom
from jaxqmri.io.nifti.reader import read_nifti
from jaxqmri.io.storage import archive as archives

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
MAPS = ("T2starmap", "T2starmap_stderr", "S0map", "residual", "status")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files of this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def zipped_folder(folder: Path, archive: Path, below: str = "export/") -> Path:
    return zip_of(archive, *[(f"{below}{path.name}", path.read_bytes()) for path in sorted(folder.iterdir())])


@pytest.mark.parametrize("below", ["", "export/", "2024/a study/"])
@pytest.mark.parametrize("make", [dicom_folder, nifti_folder])
def test_maps_are_those_of_the_folder(tmp_path, capsys, temporary, make, below):
    scan = make(tmp_path / "scan")
    archive = zipped_folder(scan, tmp_path / "scan.zip", below)
    for source, out in ((scan, "folder"), (archive, "zip")):
        done = run(capsys, "t2star", source, "-o", tmp_path / out, "--no-report")
        assert (done.code, done.err) == (0, "")
    for name in MAPS:
        np.testing.assert_array_equal(load(tmp_path / "zip", name), load(tmp_path / "folder", name))
    facts = [json.loads((tmp_path / out / "provenance.json").read_text())["input"] for out in ("folder", "zip")]
    assert facts[0] == facts[1]
    assert not any(temporary.iterdir())


def test_no_name_of_an_archive_is_in_the_way_of_its_content(tmp_path, temporary):
    archive = zipped_folder(dicom_folder(tmp_path / "scan"), tmp_path / "content", below="content/")
    assert read_dicom(archive).n_files == read_dicom(tmp_path / "scan").n_files
    assert not any(temporary.iterdir())


def test_inspect_says_the_same_of_both(tmp_path, capsys, temporary):
    scan = dicom_folder(tmp_path / "scan")
    archive = zipped_folder(scan, tmp_path / "scan.zip")
    (tmp_path / "scan.zip").rename(tmp_path / "no suffix")
    for words in ((), ("--json",), ("-v",)):
        folder, of_zip = (run(capsys, "inspect", path, *words) for path in (scan, archive.with_name("no suffix")))
        assert (folder.code, folder.out) == (of_zip.code, of_zip.out)
    assert not any(temporary.iterdir())


def test_python_reads_archives_too(tmp_path, temporary):
    dicom, nifti = dicom_folder(tmp_path / "dicom"), nifti_folder(tmp_path / "nifti")
    for reader, folder in ((read_dicom, dicom), (read_nifti, nifti)):
        found, wanted = reader(zipped_folder(folder, tmp_path / f"{folder.name}.zip")), reader(folder)
        np.testing.assert_array_equal(found.data, wanted.data)
        np.testing.assert_array_equal(found.te, wanted.te)
    assert not any(temporary.iterdir())


def test_two_archives_of_one_name_are_one_series(tmp_path):
    scan = dicom_folder(tmp_path / "scan")
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        files = sorted(scan.iterdir())[2 * i : 2 * i + 2]
        zip_of(tmp_path / str(i) / "part.zip", *[(path.name, path.read_bytes()) for path in files])
    found = read_dicom([tmp_path / "0" / "part.zip", tmp_path / "1" / "part.zip"])
    np.testing.assert_array_equal(found.data, read_dicom(scan).data)


def test_what_finder_adds_is_no_image(tmp_path, capsys):
    scan = nifti_folder(tmp_path / "scan")
    members = [(f"scan/{path.name}", path.read_bytes()) for path in scan.iterdir()]
    apple = [(f"__MACOSX/scan/._{path.name}", b"\0\5\x16\7") for path in scan.iterdir()]
    done = run(capsys, "inspect", zip_of(tmp_path / "scan.zip", *members, *apple))
    assert (done.code, done.out) == (0, run(capsys, "inspect", scan).out)


# what is told ---------------------------------------------------------------------------------------------------------


def test_messages_name_the_archive_as_it_was_given(tmp_path, capsys, temporary):
    scan = dicom_folder(tmp_path / "scan")
    for path in sorted(scan.iterdir())[1:]:
        path.unlink()
    archive = zipped_folder(scan, tmp_path / "one echo.zip")
    refused = run(capsys, "t2star", archive, "-o", tmp_path / "out")
    assert refused.code == 4
    assert f"{archive}: only one echo in series 7" in refused.error
    inspected = run(capsys, "inspect", archive)
    assert f"t2star would fit nothing: {archive}: only one echo" in inspected.out
    empty = run(capsys, "t2star", zip_of(tmp_path / "empty.zip"), "-o", tmp_path / "out")
    assert empty.code == 3
    assert f"no DICOM or NIfTI images found in {tmp_path / 'empty.zip'}; check the path" in empty.error
    unknown = run(capsys, "t2star", archive, "-o", tmp_path / "out", "--series", 99)
    assert unknown.code == 2
    assert f"{archive}: no series 99" in unknown.error
    for done in (refused, inspected, empty, unknown):
        assert str(temporary) not in done.out + done.err


def test_nifti_messages_name_the_archive(tmp_path, capsys, temporary):
    (tmp_path / "scan").mkdir()
    archive = zipped_folder(save_series(tmp_path / "scan"), tmp_path / "scan.zip")
    done = run(capsys, "t2star", archive, "-o", tmp_path / "out", "--te-ms", 4, 9)
    assert done.code == 2
    assert "scan.zip: 2 echo times are given, but no magnitude series has as many images" in done.error
    assert str(temporary) not in done.err


def test_results_hold_no_name_of_a_temporary_folder(tmp_path, capsys, temporary):
    archive = zipped_folder(dicom_folder(tmp_path / "scan"), tmp_path / "SECRET.zip")
    assert run(capsys, "t2star", archive, "-o", tmp_path / "out", "-v").code == 0
    for path in (tmp_path / "out").iterdir():
        if path.suffix in (".json", ".html"):
            text = path.read_text()
            assert str(temporary) not in text
            assert "SECRET" not in text


def test_a_dicom_file_may_begin_like_an_archive(tmp_path):
    scan = dicom_folder(tmp_path / "scan")
    for path in scan.iterdir():  # the preamble of DICOM belongs to whoever wants it
        path.write_bytes(b"PK\3\4" + path.read_bytes()[4:])
    assert read_dicom(scan).n_files == 4
    assert read_dicom(sorted(scan.iterdir())).n_files == 4


def test_an_archive_beside_images_is_passed_over(tmp_path):
    for make, reader in ((dicom_folder, read_dicom), (nifti_folder, read_nifti)):
        scan = make(tmp_path / make.__name__)
        zip_of(scan / "more.zip", ("a.dcm", b"1"))
        assert reader(scan).skipped == {"archive": 1}


# nothing stays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [lambda: os.kill(os.getpid(), signal.SIGTERM), lambda: os.kill(os.getpid(), 2)])
def test_an_interrupted_run_leaves_no_file(tmp_path, capsys, temporary, monkeypatch, stop):
    archive = zipped_folder(dicom_folder(tmp_path / "scan"), tmp_path / "scan.zip")
    seen = []

    def interrupted(*_args, **_kwargs):
        seen.extend(path.name for path in temporary.rglob("*.dcm"))
        stop()

    monkeypatch.setattr("jaxqmri.io.images.read_candidate", interrupted)
    assert run(capsys, "t2star", archive, "-o", tmp_path / "out").code == 130
    assert len(seen) == 4
    assert not any(temporary.iterdir())


HOLDS = """
import sys
from pathlib import Path
from jaxqmri.io.storage.archive import unpacked
with unpacked([Path(sys.argv[1])]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_run_has_unpacked_is_removed_by_the_next_one(tmp_path, temporary):
    scan = dicom_folder(tmp_path / "scan")
    archive = zipped_folder(scan, tmp_path / "scan.zip")
    command = [sys.executable, "-c", HOLDS, archive]
    with subprocess.Popen(command, env=os.environ | ENVIRONMENT | {"TMPDIR": str(temporary)}, **PIPES) as process:
        assert process.stdout.readline() == b"held\n"
        os.kill(process.pid, signal.SIGSTOP)
        read_dicom(scan)
        (alive,) = temporary.iterdir()
        assert len(list(alive.rglob("*.dcm"))) == 4, "a run that is alive, if stopped, is left alone"
        process.kill()
    assert len(list(temporary.rglob("*.dcm"))) == 4
    read_dicom(scan)
    assert not any(temporary.iterdir())


def test_links_of_others_are_not_followed(tmp_path, temporary):
    scan, mine = dicom_folder(tmp_path / "scan"), tmp_path / "mine"
    mine.mkdir()
    (mine / "lock").write_text("precious")
    (temporary / "jaxqmri-unpacked-x").symlink_to(mine)
    read_dicom(scan)
    assert (mine / "lock").read_text() == "precious"


def test_a_private_folder(tmp_path, temporary, monkeypatch):
    archive = zipped_folder(dicom_folder(tmp_path / "scan"), tmp_path / "scan.zip")
    with archives.unpacked([archive]) as (folder,):
        (private,) = temporary.iterdir()
        assert private in folder.parents
        assert private.stat().st_mode & 0o77 == 0
    assert not any(temporary.iterdir())


def test_the_output_is_looked_at_before_anything_is_unpacked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(archives, "unpack", lambda *_args, **_kwargs: pytest.fail("too early"))
    archive = zipped_folder(dicom_folder(tmp_path / "scan"), tmp_path / "scan.zip")
    (tmp_path / "out").write_text("mine")
    done = run(capsys, "t2star", archive, "-o", tmp_path / "out")
    assert done.code == 6
    assert "is a file" in done.error


def test_no_folder_for_temporary_files(tmp_path, capsys, temporary):
    archive = zipped_folder(dicom_folder(tmp_path / "scan"), tmp_path / "scan.zip")
    temporary.rmdir()
    done = run(capsys, "t2star", archive, "-o", tmp_path / "out")
    assert done.code == 6
    assert "scan.zip: cannot be unpacked into the folder for temporary files (No such file" in done.error
    assert "TMPDIR" in done.error
    assert str(temporary) not in done.error
