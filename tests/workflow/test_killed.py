"""Killed at any step, a full disk, two runs at once: old files stay whole, and no part of a file has its final name."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import killing
import numpy as np
import pytest
from command import ENVIRONMENT
from killing import NEW, OLD, SERIES, write

from jaxqmri import write_maps
from jaxqmri.errors import InputWarning, OutputError
from jaxqmri.io.storage.result_folder import RECORD, result_folder


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[Path]:
    """What `killing` has left, and the whole new run."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, killing.__file__, folder]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(done.stdout)
    assert told["codes"] == [0, 0]
    assert told["steps"] > 30, "every file is synced and moved"
    write(folder / "new", NEW, 2.0)
    yield folder
    shutil.rmtree(folder)


def killed_runs(runs: Path) -> list[Path]:
    return sorted(path for path in runs.iterdir() if path.name.isdigit())[:-1]  # the last one was not killed


def test_a_kill_leaves_whole_files_and_no_record_of_others(runs):
    old, new = visible(runs / "old"), visible(runs / "new")
    n_between = 0
    for folder in killed_runs(runs):
        found = visible(folder)
        assert found.items() <= old.items() or found.items() <= new.items(), f"{folder.name}: a mixture, or half a file"
        for name in (name for name in found if name.endswith(".nii.gz")):
            assert name.replace(".nii.gz", ".json") in found, f"{folder.name}: a map without its sidecar"
        if RECORD in found:
            assert found in (old, new)
        else:
            n_between += 1
    assert n_between > 5, "some kills came while the files were on the move"


def tidied(folder: Path, copy: Path) -> tuple[dict[str, bytes], list[str]]:
    """What is there once the next run, which is refused, has looked around; what it said."""
    shutil.copytree(folder, copy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(OutputError, match="overwrite"), result_folder(copy):
            raise AssertionError("must be refused")
    assert all(name.endswith(".tmp") for name in hidden(copy)), hidden(copy)
    return visible(copy), [str(w.message) for w in caught if w.category is InputWarning]


def test_the_next_run_finds_all_of_the_old_results_or_all_of_the_new_ones(runs, tmp_path):
    old, new = visible(runs / "old"), visible(runs / "new")
    kinds = []
    for folder in killed_runs(runs):
        found, said = tidied(folder, tmp_path / folder.name)
        assert found in (old, new), folder.name
        left = [name for name in hidden(folder) if not name.endswith((".tmp", ".lock"))]
        assert len(said) == len(left), "leftovers are named"
        kinds += [text.rpartition("killed ")[2] for text in said]
    assert set(kinds) == {"were removed.", "were complete and are in their places now."}


def test_a_new_run_after_a_kill_leaves_nothing_of_it(runs, tmp_path):
    wanted = visible(runs / "old")
    for folder in killed_runs(runs)[::4]:
        shutil.copytree(folder, tmp_path / folder.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(tmp_path / folder.name, OLD, 1.0)
        assert visible(tmp_path / folder.name) == wanted
        assert all(name.endswith(".tmp") for name in hidden(tmp_path / folder.name))


def test_two_processes_that_write_into_one_folder_never_mix(runs):
    assert visible(runs / "both") in (visible(runs / "old"), visible(runs / "new"))
    assert hidden(runs / "both") == []


def test_a_run_that_is_alive_is_left_alone(tmp_path):
    write(tmp_path / "out", OLD, 1.0)
    with warnings.catch_warnings(), result_folder(tmp_path / "out", overwrite=True) as alive:
        warnings.simplefilter("error")
        write(tmp_path / "out", OLD, 1.0)
        assert alive.is_dir()
        (alive / RECORD).write_text(json.dumps({"versions": {"jaxqmri": "0"}, "outputs": [RECORD]}))
    assert set(visible(tmp_path / "out")) == {RECORD}


def test_temporary_files_go_once_nobody_can_be_writing_them(tmp_path):
    write(tmp_path, OLD, 1.0)
    young, aged, other = (tmp_path / f".jaxqmri-{16 * c}.tmp" for c in "abg")
    for path in (young, aged, other):
        path.write_bytes(b"half")
    for path in (aged, other):
        os.utime(path, (time.time() - 7200,) * 2)
    write(tmp_path, OLD, 1.0)
    assert set(hidden(tmp_path)) == {young.name, other.name}, "'g' is no digit of ours"


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """The system cuts every file of this process here, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noisy(rng: np.random.Generator) -> Mapping[str, np.ndarray]:
    return {"S0map": np.ones((3, 2, 2)), "residual": rng.random((3, 2, 2))}


@pytest.mark.parametrize("n_bytes", [100, 150])
def test_a_file_cut_by_the_system_leaves_the_old_ones_and_nothing_half_written(tmp_path, rng, n_bytes):
    write_maps(tmp_path, {"S0map": np.zeros((3, 2, 2))}, SERIES)
    before = visible(tmp_path)
    with largest_file(n_bytes), pytest.raises(OutputError, match=r"cannot write .*ulimit -f") as refused:
        write_maps(tmp_path, noisy(rng), SERIES, overwrite=True)
    assert refused.value.exit_code == 6
    assert visible(tmp_path) == before
    assert hidden(tmp_path) == []
