"""Whatever names, headers and streams hold or become, the terminal gets plain lines, the shell the right exit code."""

import json
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest
from command import COMMAND, ENVIRONMENT, run
from dicom_series import save
from nifti_files import edit, save_series
from small_scans import datasets, dicom_folder, nifti_folder

from jaxqmri import __main__ as program
from jaxqmri.cli import main as command_line
from jaxqmri.cli.terminal import show, standard_streams
from jaxqmri.errors import CorruptInputError, visible

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
# Title of the window, cleared screen, clipboard; the same as one character (C1); a forged line; right to left; a byte.
CONTROLS = "\x1b]0;T\x07\x1b[2J\x1b]52;c;Cg==\x07\x9b31m\r\nforged\u202e\udcff"
SHOWN = r"\x1b]0;T\x07\x1b[2J\x1b]52;c;Cg==\x07\x9b31m\x0d\x0aforged\u202e\xff"
IN_A_NAME = CONTROLS.replace("/", "")


def assert_plain(text: str) -> None:
    assert text
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)
    assert not any(line.startswith("forged") for line in text.split("\n"))


# control characters ---------------------------------------------------------------------------------------------------


def test_control_characters_are_shown_by_their_codes():
    assert visible(CONTROLS) == SHOWN
    assert visible("Höhe µ 研究 👍🏽 a\u00a0b می‌خواهم") == "Höhe µ 研究 👍🏽 a\u00a0b می‌خواهم"
    assert visible(visible(CONTROLS)) == SHOWN
    assert str(CorruptInputError(f"{CONTROLS}: damaged")).startswith(SHOWN[:20])


def test_those_of_headers(tmp_path, capsys):
    scan = save(tmp_path / "scan", datasets(SeriesDescription="a\x1b[2Jb\x9b"))
    inspected = run(capsys, "inspect", scan)
    assert r"a\x1b[2Jb\x9b" in inspected.out
    assert_plain(inspected.out)
    for k, ds in enumerate(datasets(SeriesDescription="\x1b[2J", SeriesNumber=8, SeriesInstanceUID="1.9")):
        ds.SOPInstanceUID = f"1.9.{k}"
        ds.save_as(scan / f"other{k}.dcm", enforce_file_format=True)
    assert_plain(run(capsys, "t2star", scan, "-o", tmp_path / "out").error)


def test_those_of_sidecars(tmp_path, capsys):
    (tmp_path / "scan").mkdir()
    scan = save_series(tmp_path / "scan")
    edit(scan, "scan_e1", EchoTime="\x9b31m\u202e")
    assert_plain(run(capsys, "t2star", scan, "-o", tmp_path / "out").error)
    assert_plain(run(capsys, "inspect", scan).out)


def test_those_of_names(tmp_path, capsys):
    scan = dicom_folder(tmp_path / f"scan{IN_A_NAME}")
    (scan / f"note{IN_A_NAME}.txt").write_text("x")
    inspected = run(capsys, "inspect", scan, "-v")
    assert f"note{SHOWN}.txt" in inspected.out
    assert_plain(inspected.out)
    (scan / f"cut{IN_A_NAME}.dcm").write_bytes(next(scan.glob("*.dcm")).read_bytes()[:500])
    done = run(capsys, "t2star", scan, "-v", "-o", tmp_path / "out")
    assert done.code == 4
    assert_plain(done.err)
    assert_plain(run(capsys, "bids", tmp_path / f"raw{IN_A_NAME}", tmp_path, "participant").error)


def test_json_is_json_in_any_encoding(tmp_path):
    scan = nifti_folder(tmp_path / "Höhe \x9b")
    for path in sorted(scan.glob("*.nii*"))[1:]:
        path.unlink()
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    words = [*COMMAND, "inspect", os.fsencode(scan), "--json"]
    told = subprocess.run(words, env=environment, capture_output=True, timeout=60, check=True).stdout
    assert r"Höhe \x9b: only one" in " ".join(json.loads(told.decode("ascii"))["refusals"].values())


def test_other_libraries_warnings_and_tracebacks(tmp_path, capsys, monkeypatch):
    def broken(*_):
        warnings.warn("a\x1b[2J", stacklevel=1)
        raise RuntimeError("b\x1b[2J\x9b")

    monkeypatch.setattr("jaxqmri.workflow.inspection.inspect_images", broken)
    done = run(capsys, "inspect", tmp_path, "-v", "--debug")
    assert done.code == 1
    assert "UserWarning: a\\x1b[2J" in done.err
    assert "RuntimeError: b\\x1b[2J\\x9b" in done.err
    assert_plain(done.err)


# streams --------------------------------------------------------------------------------------------------------------


def shell(words: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-c", words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("streams", "code", "lines"),
    [
        ("2>&-", 0, None),
        (">&- <&-", 0, 0),
        (">/dev/full", 6, 1),
        ("--json >/dev/full 2>/dev/full", 6, None),
        ("| true", 0, 0),
    ],
)
def test_a_stream_that_is_closed_or_full(tmp_path, streams, code, lines):
    scan = nifti_folder(tmp_path / "scan")
    words = f"set -o pipefail; {sys.executable} -m jaxqmri inspect {scan} {streams}"
    done = subprocess.run(
        ["bash", "-c", words], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code
    assert lines is None or len(done.stderr.splitlines()) == lines, done.stderr
    if code and lines:
        assert "standard output cannot be written (No space left on device)" in done.stderr
    if streams == "2>&-":
        assert "t2star would fit" in done.stdout


def test_help_on_a_full_disk_is_told_in_one_line():
    done = shell(f"{sys.executable} -m jaxqmri --help >/dev/full")
    assert done.returncode == 6
    assert len(done.stderr.splitlines()) == 1


def test_an_address_space_in_which_jax_cannot_start_is_told_in_one_line():
    """Its libraries would crash without a word."""
    done = shell(f"ulimit -v 1500000; {sys.executable} -m jaxqmri t2star x -o y")
    assert done.returncode == 9
    assert len(done.stderr.splitlines()) == 1
    assert "limited to 1.5 GB (ulimit -v), but JAX needs at least 2 GB" in done.stderr


def test_a_closed_stream_is_no_number_for_the_next_file(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with standard_streams():
        print("lost", file=sys.stderr)
        show(())
    sys.stderr.close()


@pytest.mark.parametrize("columns", ["20", "1", "0", "x"])
def test_a_narrow_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    for words in (("--help",), ("t2", "--help"), ("bids", "--help")):
        assert run(capsys, *words).code == 0


# signals --------------------------------------------------------------------------------------------------------------


def test_no_timer_keeps_an_interrupted_command(tmp_path, capsys, monkeypatch):
    """JAX starts one for a minute where it looks for TPUs."""
    mine, theirs = threading.Timer(60, print), threading.Timer(60, print)
    mine.start()

    def interrupted(*_):
        theirs.start()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("jaxqmri.workflow.inspection.inspect_images", interrupted)
    assert run(capsys, "inspect", tmp_path).code == 130
    theirs.join(10)
    assert not theirs.is_alive()
    assert mine.is_alive(), "timers of the caller are none of ours"
    mine.cancel()


def test_a_signal_outside_of_the_command_prints_no_traceback(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    after, ended = [], []
    monkeypatch.setattr(program.os, "_exit", ended.append)
    monkeypatch.setattr(sys.modules[command_line.__module__], "main", interrupted)
    monkeypatch.setattr(program.signal, "signal", lambda *words: after.append(words))
    assert program.main() == 130
    assert ended == [130], "whatever is still loaded or computed"
    assert capsys.readouterr().err == "jaxqmri: interrupted\n"
    assert after == [(signal.SIGINT, signal.SIG_DFL)], "a signal that comes when all is done ends the process at once"
