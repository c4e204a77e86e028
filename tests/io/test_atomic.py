"""A file that was written is there after a power cut, under its name."""

import os
import stat
import sys
from pathlib import Path

import pytest
from test_result_folder import run
from zip_files import zip_of

from jaxqmri.io.storage import atomic
from jaxqmri.io.storage.unpacking import unpack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows opens no folders")


@pytest.fixture
def steps(monkeypatch):
    """In order: the names that files are moved to, and the folders that are synced."""
    found, replace, rename, fsync = [], Path.replace, Path.rename, os.fsync

    def moved(move):
        return lambda self, target: (found.append(Path(target).name), move(self, target))[1]

    def synced(descriptor):
        facts = os.fstat(descriptor)
        if stat.S_ISDIR(facts.st_mode):
            found.append(facts.st_ino)
        fsync(descriptor)

    monkeypatch.setattr(Path, "replace", moved(replace))
    monkeypatch.setattr(Path, "rename", moved(rename))
    monkeypatch.setattr(os, "fsync", synced)
    return found


def test_the_folder_is_synced_after_the_last_rename(tmp_path, steps):
    atomic.write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert steps == ["a", "b", tmp_path.stat().st_ino]


def test_the_folder_of_results_is_synced_after_the_record_has_moved(tmp_path, steps):
    run(tmp_path / "out", {"map": "1", "dicom/IM1": "2"})
    assert steps == ["IM1", "map", "provenance.json", *[(tmp_path / "out" / at).stat().st_ino for at in ("dicom", ".")]]


def test_the_folder_above_an_unpacked_archive_is_synced(tmp_path, steps):
    unpack(zip_of(tmp_path / "a.zip", ("x", b"1")), tmp_path / "out")
    assert steps == ["out", tmp_path.stat().st_ino]


def test_a_disk_that_syncs_no_folders_is_used_all_the_same(tmp_path, monkeypatch):
    fsync = os.fsync

    def refused(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refused)
    atomic.write_bytes(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
