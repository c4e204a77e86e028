"""Runs take turns in a folder; neither a dead nor a stopped process makes the others wait for ever."""

import os
import signal
import subprocess
import sys

import pytest
from command import ENVIRONMENT

from jaxqmri.errors import OutputError
from jaxqmri.io.storage import locks
from jaxqmri.io.storage.locks import uninterrupted
from jaxqmri.io.storage.result_folder import staging_folder

HOLDS = """
import sys
from pathlib import Path
from jaxqmri.io.storage.locks import one_at_a_time
with one_at_a_time(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the folder until its standard input ends."""
    command = [sys.executable, "-c", HOLDS, tmp_path]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_lock_leaves_no_file(tmp_path):
    with locks.one_at_a_time(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    with staging_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_waits_until_the_folder_is_free(tmp_path, holder):
    with pytest.raises(locks.Timeout):
        locks.acquire(tmp_path / ".jaxqmri.lock")
    holder.stdin.close()
    with locks.one_at_a_time(tmp_path):
        assert holder.wait(10) == 0


def test_the_lock_of_a_dead_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait(10)
    with locks.one_at_a_time(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by SIGSTOP")
def test_the_lock_of_a_stopped_process_is_told_of(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(locks, "MAX_WAIT", 0.2)
    os.kill(holder.pid, signal.SIGSTOP)
    with pytest.raises(OutputError, match=r"another run of jaxqmri has held this folder for 0.2 s; end it if"):
        locks.one_at_a_time(tmp_path).__enter__()


def test_a_disk_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def refused(_self):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.FileLock, "acquire", refused)
    with staging_folder(tmp_path) as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_waits_for_a_step_of_milliseconds():
    done = []

    def step():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
