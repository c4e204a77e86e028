"""Results appear all at once or not at all, and nothing but an earlier run's files ever goes."""

import itertools
import json
import os
import threading
import time
from pathlib import Path

import pytest

from jaxqmri.errors import OutputError
from jaxqmri.io.storage.result_folder import RECORD, recorded_files, result_folder


def fill(folder, files, **more):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    outputs = [*files, RECORD]
    (folder / RECORD).write_text(json.dumps({"versions": {"jaxqmri": "0"}, "outputs": outputs, **more}))


def run(out, files, then=lambda: None, **options):
    with result_folder(out, **options) as folder:
        fill(folder, files)
        then()


def fails_with(error):
    def fail():
        raise error

    return fail


def content(folder):
    paths = folder.rglob("*")
    return {str(path.relative_to(folder)): path.read_text() for path in paths if path.is_file() and path.name != RECORD}


def test_results_appear_at_the_end_of_the_block(tmp_path):
    with result_folder(tmp_path / "new" / "out") as folder:
        fill(folder, {"map": "1", "dicom/IM1": "2"})
        (staging,) = (tmp_path / "new" / "out").iterdir()
        assert staging.name.startswith("."), "hidden"
        assert staging in folder.parents
    assert content(tmp_path / "new" / "out") == {"map": "1", "dicom/IM1": "2"}
    assert recorded_files(tmp_path / "new" / "out") == {Path("map"), Path("dicom/IM1"), Path(RECORD)}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_run_removes_what_it_created(tmp_path, error):
    with pytest.raises(error):
        run(tmp_path / "new" / "out", {"map": "1"}, then=fails_with(error))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_run_leaves_the_earlier_one(tmp_path, error):
    run(tmp_path, {"map": "1"})
    with pytest.raises(error):
        run(tmp_path, {"map": "2"}, then=fails_with(error), overwrite=True)
    assert content(tmp_path) == {"map": "1"}
    assert recorded_files(tmp_path)


def test_an_empty_folder_that_was_there_stays(tmp_path):
    with pytest.raises(ValueError, match="x"):
        run(tmp_path, {"map": "1"}, then=fails_with(ValueError("x")))
    assert tmp_path.is_dir()


def test_a_new_run_removes_what_the_earlier_one_left_and_nothing_else(tmp_path):
    run(tmp_path, {"map": "1", "report": "1", "dicom/IM1": "1"})
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(OutputError, match="overwrite"):
        run(tmp_path, {"map": "2"})
    run(tmp_path, {"map": "2"}, overwrite=True)
    assert content(tmp_path) == {"map": "2", "notes": "mine"}
    assert not (tmp_path / "dicom").exists()


def test_a_shared_subfolder_keeps_what_is_not_ours(tmp_path):
    run(tmp_path, {"dicom/IM1": "1"})
    (tmp_path / "dicom" / "scan").write_text("mine")
    run(tmp_path, {"map": "2"}, overwrite=True)
    assert content(tmp_path) == {"map": "2", "dicom/scan": "mine"}


def test_a_folder_in_the_place_of_a_file_is_found_before_anything_is_removed(tmp_path):
    run(tmp_path, {"a": "1"})
    (tmp_path / "b").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(OutputError, match="Is a directory"):
        run(tmp_path, {"a": "2", "b": "2"}, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("n_moved", range(3))
def test_no_record_ever_describes_other_files_than_those_there(tmp_path, monkeypatch, n_moved):
    run(tmp_path, {"a": "1", "b": "1", "report": "1"})
    replace, moved = Path.replace, []

    def killed(self, target):
        if len(moved) == n_moved:
            raise KeyboardInterrupt
        moved.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {"a": "2", "b": "2"}, overwrite=True)
    assert not (tmp_path / RECORD).exists()
    assert content(tmp_path) == dict([("a", "2"), ("b", "2")][:n_moved]), "nor is there a mixture"


def test_the_record_comes_last_and_a_sidecar_before_its_image(tmp_path, monkeypatch):
    replace, order = Path.replace, []
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append(self.name), replace(self, target))[1])
    run(tmp_path, {"z.nii.gz": "", "z.json": "", "a.nii.gz": "", "a.json": ""})
    assert order == ["a.json", "a.nii.gz", "z.json", "z.nii.gz", RECORD]


def test_of_two_runs_at_once_the_second_to_end_is_refused(tmp_path):
    def fast():
        run(tmp_path / "out", {"map": "fast", "extra": "fast"})

    with pytest.raises(OutputError, match="already has"):
        run(tmp_path / "out", {"map": "slow"}, then=fast)
    assert content(tmp_path / "out") == {"map": "fast", "extra": "fast"}


def test_of_two_runs_at_once_that_may_overwrite_the_last_wins_whole(tmp_path):
    def fast():
        run(tmp_path / "out", {"map": "fast", "extra": "fast"}, overwrite=True)

    run(tmp_path / "out", {"map": "slow"}, then=fast, overwrite=True)
    assert content(tmp_path / "out") == {"map": "slow"}


def test_many_runs_at_once_never_mix(tmp_path, monkeypatch):
    files = [f"map{i}" for i in range(10)]
    replace, order = Path.replace, []

    def slowly(self, target):
        time.sleep(1e-3)  # the others get their chance between any two files
        order.append(self.parent)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", slowly)

    def repeat(label):
        for _ in range(5):
            run(tmp_path, dict.fromkeys(files, label), overwrite=True)

    threads = [threading.Thread(target=repeat, args=(label,)) for label in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    n_changes = sum(a != b for a, b in itertools.pairwise(order))
    assert n_changes == 3 * 5 - 1, "all files of one run, then all files of the next"
    assert set(content(tmp_path)) == set(files)
    assert len(set(content(tmp_path).values())) == 1


@pytest.mark.parametrize(
    "record",
    [
        {"versions": {"jaxqmri": "0"}, "outputs": ["../precious", "/etc/hostname", "link/precious", "folder"]},
        {"versions": {"another tool": "1"}, "outputs": ["mine"]},
        {"outputs": ["mine"]},
        ["mine"],
    ],
)
def test_a_record_is_believed_only_where_it_is_ours_and_points_inside(tmp_path, record):
    out = tmp_path / "out"
    (out / "folder").mkdir(parents=True)
    (tmp_path / "precious").write_text("1")
    (out / "mine").write_text("1")
    (out / "link").symlink_to(tmp_path)
    (out / RECORD).write_text(json.dumps(record))
    run(out, {"map": "1"}, overwrite=True)
    assert (tmp_path / "precious").exists()
    assert (out / "mine").exists()
    assert (out / "folder").is_dir()


def test_leftovers_of_another_user_are_left_alone(tmp_path, monkeypatch):
    hidden = tmp_path / ".jaxqmri-abcd1234"
    hidden.mkdir(mode=0o700)

    def refused(path, *flags, **options):
        if hidden in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return os_open(path, *flags, **options)

    os_open = os.open
    monkeypatch.setattr(os, "open", refused)
    run(tmp_path, {"map": "1"})
    assert (tmp_path / "map").read_text() == "1"
    assert hidden.is_dir()


def test_a_full_disk_is_reported_under_the_name_the_user_gave(tmp_path):
    with pytest.raises(OutputError) as caught, result_folder(tmp_path / "out") as folder:
        raise OutputError(f"cannot write {folder}/S0map.json: No space left on device")
    assert str(caught.value) == f"cannot write {tmp_path}/out/S0map.json: No space left on device"


def test_an_interrupt_while_the_files_move_does_not_mix_two_runs(tmp_path, monkeypatch):
    run(tmp_path, {"a": "1", "b": "1", "old": "1"})
    replace, moved = Path.replace, []

    def interrupted(self, target):
        moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {"a": "2", "b": "2"}, overwrite=True)
    assert content(tmp_path) == {"a": "2", "b": "2"}
    assert recorded_files(tmp_path) == {Path("a"), Path("b"), Path(RECORD)}
