"""What a user of the command `jaxqmri` meets: results on stdout, the rest on stderr, and what the options promise."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
from command import COMMAND, ENVIRONMENT, run
from dicom_series import save
from nifti_files import OBLIQUE
from nifti_files import save as save_nifti
from small_scans import T2STAR, TE_MS, datasets, dicom_folder, load, nifti_folder
from small_scans import signal as decays
from spin_echoes import B1, T2, TE
from spin_echoes import nifti_folder as spin_echo_folder

MAPS = ("R2starmap", "S0map", "T2starmap", "T2starmap_stderr", "residual", "status")
MAP_FILES = {f"{name}{suffix}" for name in MAPS for suffix in (".nii.gz", ".json")}
NO_PICTURES = MAP_FILES | {"provenance.json"}
EVERYTHING = NO_PICTURES | {"T2starmap.png", "report.html"}


@pytest.fixture
def scan(tmp_path):
    return dicom_folder(tmp_path / "scan")


def strict(text):
    """One JSON document in which every number is a number."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def names(folder):
    return {path.name for path in folder.iterdir()}


# results --------------------------------------------------------------------------------------------------------------


def test_maps_of_dicom_files_are_right_and_complete(scan, tmp_path, capsys):
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert "256 OK (100.0 %)" in done.out
    assert str(tmp_path / "out" / "report.html") in done.out
    np.testing.assert_allclose(load(tmp_path / "out", "T2starmap")[..., 0], T2STAR, rtol=1e-3)
    assert names(tmp_path / "out") == EVERYTHING
    assert set(strict((tmp_path / "out" / "provenance.json").read_text())["outputs"]) == EVERYTHING


def test_dicom_and_nifti_of_the_same_images_give_the_same_maps(scan, tmp_path, capsys):
    images = np.round(decays())  # as DICOM stores them
    for source, out in ((scan, "a"), (nifti_folder(tmp_path / "nifti", images), "b")):
        assert run(capsys, "t2star", source, "-o", tmp_path / out, "--no-report").code == 0
    for name in MAPS:
        np.testing.assert_array_equal(load(tmp_path / "a", name), load(tmp_path / "b", name))


@pytest.mark.parametrize("loudness", [[], ["-q"], ["-v"]])
def test_json_is_one_strict_document_in_si_units(scan, tmp_path, capsys, loudness):
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--no-report", "--json", *loudness)
    facts = strict(done.out)
    assert (done.code, done.err) == (0, "")
    assert facts["echo_times_s"] == [te / 1e3 for te in TE_MS]
    assert facts["status"] == {"OK": 256}
    assert facts["maps"]["T2starmap"]["units"] == "s"
    assert facts["maps"]["T2starmap"]["median"] == pytest.approx(np.median(T2STAR), rel=1e-3)
    assert set(facts["files"]) == names(tmp_path / "out")


@pytest.mark.slow
def test_two_echoes_leave_no_error_bars_and_still_give_json_and_a_report(tmp_path, capsys):
    scan = dicom_folder(tmp_path / "scan", decays()[..., :2])
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--json")
    maps = strict(done.out)["maps"]
    assert maps["T2starmap"]["median"] == pytest.approx(np.median(T2STAR), rel=1e-3)
    assert "T2starmap_stderr" not in maps
    words = re.sub(r"base64,[^\"]*", "", (tmp_path / "out" / "report.html").read_text())
    assert not re.search(r"\bnan\b", words, flags=re.IGNORECASE)


def test_quiet_is_silent_and_verbose_names_the_files_passed_over(scan, tmp_path, capsys):
    (scan / "notes.txt").write_text("quench at noon")
    (scan / "report.dcm").write_text("Impression: normal. " * 20)
    quiet = run(capsys, "t2star", scan, "-o", tmp_path / "q", "--no-report", "-q")
    plain = run(capsys, "t2star", scan, "-o", tmp_path / "p", "--no-report")
    verbose = run(capsys, "t2star", scan, "-o", tmp_path / "v", "--no-report", "-v")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert plain.err == (
        "jaxqmri: warning: passed over: 1 not DICOM in spite of its name; `jaxqmri inspect -v` names them.\n"
    )
    assert "1 not DICOM: notes.txt" in verbose.err
    assert "1 not DICOM in spite of its name: report.dcm" in verbose.err
    for out in "qpv":
        assert strict((tmp_path / out / "provenance.json").read_text())["warnings"] == [
            plain.err.removeprefix("jaxqmri: warning: ").rstrip()
        ]


@pytest.mark.parametrize("name", ["out put", "Höhe µ", "./-x", os.fsdecode(b"o\xff")], ids=ascii)
def test_any_folder_name_will_do(scan, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    done = run(capsys, "t2star", "scan", "-o", name, "--no-report")
    assert (done.code, done.err) == (0, "")
    assert names(tmp_path / name) == NO_PICTURES


def test_affine_of_the_results_is_that_of_the_images(tmp_path, capsys):
    run(capsys, "t2star", nifti_folder(tmp_path / "scan"), "-o", tmp_path / "out", "--no-report")
    for name in MAPS:
        np.testing.assert_allclose(nib.load(tmp_path / "out" / f"{name}.nii.gz").affine, OBLIQUE, atol=1e-5)


# T2 -------------------------------------------------------------------------------------------------------------------

T2_MAPS = ("M0map", "R2map", "T2map", "T2map_stderr", "residual", "status")


@pytest.mark.slow
def test_t2_from_files_to_report(tmp_path, capsys):
    out = tmp_path / "out"
    done = run(capsys, "t2", spin_echo_folder(tmp_path / "scan"), "-o", out)
    assert (done.code, done.err) == (0, "")
    assert re.search(rf"T2 +{1e3 * np.median(T2):.1f}\d ms median", done.out)
    assert re.search(rf"B1 +{np.median(B1):.3f} median", done.out)
    assert re.search(r"EPG \+ B1 +256 ", done.out)
    np.testing.assert_allclose(load(out, "T2map")[..., 0], T2, rtol=1e-4)
    np.testing.assert_allclose(load(out, "TB1map")[..., 0], B1, rtol=1e-4)
    every = {f"{name}{suffix}" for name in (*T2_MAPS, "TB1map") for suffix in (".nii.gz", ".json")}
    assert names(out) == every | {"T2map.png", "report.html", "provenance.json"}
    record = strict((out / "provenance.json").read_text())
    assert record["command"] == "jaxqmri t2 INPUT -o OUT --method lm --mask none"
    assert record["method"]["RefocusingFlipAngle"] == 180
    assert record["method"]["EchoSpacing"] == 0.01
    better, mono = record["models"]
    assert better["relative_error"] < 1e-4 < mono["relative_error"]
    assert strict((out / "TB1map.json").read_text())["Units"] == "relative"
    report = (out / "report.html").read_text()
    for words in ("T2 map", "Models compared", "the images state 90", "T1 = 1 s", "M0 carries the saturation"):
        assert words in report


@pytest.mark.slow
def test_t2_with_a_b1_map_given(tmp_path, capsys):
    scan, b1 = spin_echo_folder(tmp_path / "scan"), tmp_path / "b1.nii.gz"
    save_nifti(b1, B1[..., None].astype(np.float32))
    words = ("--b1", b1, "--t1-ms", 1000, "--refocusing-deg", 180, "--no-report", "--json")
    facts = strict(run(capsys, "t2", scan, "-o", tmp_path / "out", *words).out)
    assert facts["status"] == {"OK": 256}
    assert set(facts["maps"]) == set(T2_MAPS) - {"status"}
    np.testing.assert_allclose(load(tmp_path / "out", "T2map")[..., 0], T2, rtol=1e-4)
    record = strict((tmp_path / "out" / "provenance.json").read_text())
    assert "--b1 FILE --t1-ms 1000 --refocusing-deg 180" in record["command"]
    assert record["arguments"]["b1"] == "FILE"
    assert str(tmp_path) not in json.dumps(record)


def test_t2_by_the_mono_exponential_model(tmp_path, capsys):
    decay = 1000 * np.exp(-TE / T2[..., None])
    scan = spin_echo_folder(tmp_path / "scan", decay)
    done = run(capsys, "t2", scan, "-o", tmp_path / "out", "--method", "mono", "--json")
    facts = strict(done.out)
    assert (done.code, done.err) == (0, "")
    assert facts["maps"]["T2map"]["units"] == "s"
    assert facts["maps"]["T2map"]["median"] == pytest.approx(np.median(T2), rel=1e-4)
    assert facts["models"] == []
    assert set(facts["files"]) == names(tmp_path / "out") >= {"T2map.png", "report.html"}
    np.testing.assert_allclose(load(tmp_path / "out", "M0map"), 1000, rtol=1e-4)


# echo times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("6", "16", "30", "50"), ("6,16,30,50",), ("6,", "16, 30", "50")])
def test_echo_times_can_be_given_in_milliseconds(scan, tmp_path, capsys, words):
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--no-report", "--te-ms", *words)
    assert done.code == 0
    told = "the given echo times are used in place of those in the files, 3, 8, 15, 25 ms."
    assert done.err == f"jaxqmri: warning: {told}\n"
    # Echoes said to be twice as late decay half as fast.
    np.testing.assert_allclose(load(tmp_path / "out", "T2starmap")[..., 0], 2 * T2STAR, rtol=1e-3)


def test_given_echo_times_equal_those_of_the_files_to_the_last_bit(tmp_path, capsys):
    te_ms = ("1.004", "8.013", "15.023", "25.032")  # 1.004 * 1e-3 and 1.004 / 1e3 differ
    files = datasets()
    for ds, te in zip(files, te_ms, strict=True):
        ds.EchoTime = te
    scan = save(tmp_path / "scan", files)
    for out, words in (("a", ()), ("b", ("--te-ms", *te_ms))):
        assert run(capsys, "t2star", scan, "-o", tmp_path / out, "--no-report", *words).code == 0
    records = [strict((tmp_path / out / "provenance.json").read_text())["input"] for out in "ab"]
    assert records[0] == records[1]


def test_a_given_echo_time_list_reads_a_bare_4d_file(tmp_path, capsys):
    save_nifti(tmp_path / "a.nii", decays().astype(np.float32)[:, :, None])
    words = ("t2star", tmp_path / "a.nii", "-o", tmp_path / "out", "--no-report", "--te-ms", *TE_MS)
    assert run(capsys, *words).code == 0
    np.testing.assert_allclose(load(tmp_path / "out", "T2starmap")[..., 0], T2STAR, rtol=1e-4)


# masks ----------------------------------------------------------------------------------------------------------------


def test_only_voxels_of_the_mask_are_fitted(tmp_path, capsys):
    scan, mask = nifti_folder(tmp_path / "scan"), np.zeros((16, 16, 1), np.uint8)
    mask[1:, 1:] = 1
    save_nifti(tmp_path / "mask.nii.gz", mask)
    run(capsys, "t2star", scan, "-o", tmp_path / "out", "--no-report", "--mask", tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.isfinite(load(tmp_path / "out", "T2starmap")), mask == 1)
    assert strict((tmp_path / "out" / "provenance.json").read_text())["arguments"]["mask"] == "FILE"


def test_automatic_mask_leaves_out_air(tmp_path, capsys, rng):
    images = np.hypot(rng.normal(size=(16, 16, 4)), 1.0)
    images[1:15] = decays()[1:15]
    run(capsys, "t2star", nifti_folder(tmp_path / "scan", images), "-o", tmp_path / "out", "--no-report", "--mask=auto")
    fitted = np.isfinite(load(tmp_path / "out", "T2starmap"))[..., 0]
    assert fitted[1:15].mean() > 0.95
    assert not fitted[[0, 15]].any()


def test_automatic_mask_of_nothing_is_an_error_like_an_empty_mask_file(tmp_path, capsys):
    scan = nifti_folder(tmp_path / "scan", np.zeros((16, 16, 4)))
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--mask", "auto")
    assert done.code == 4
    assert "automatic mask is empty" in done.error
    assert "--mask none" in done.error
    assert not (tmp_path / "out").exists()


# devices --------------------------------------------------------------------------------------------------------------


def test_the_device_asked_for_is_used_and_recorded(scan, tmp_path, capsys):
    assert run(capsys, "t2star", scan, "-o", tmp_path / "out", "--no-report", "--device", "cpu").code == 0
    assert strict((tmp_path / "out" / "provenance.json").read_text())["device"].startswith("cpu:0")


@pytest.mark.parametrize("device", ["nonsense", "cpu:7", "cpu:-1", "cpu:x", ""])
def test_a_device_that_is_not_there_is_no_silent_cpu(scan, tmp_path, capsys, device):
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out", f"--device={device}")
    assert done.code == 9
    assert f"--device {device}: not on this machine" in done.error
    assert "cpu:0" in done.error.split("which has")[1]
    assert not (tmp_path / "out").exists()


# runs again -----------------------------------------------------------------------------------------------------------


def test_overwrite_replaces_the_earlier_run_and_nothing_else(scan, tmp_path, capsys):
    out = tmp_path / "out"
    run(capsys, "t2star", scan, "-o", out)
    (out / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = run(capsys, "t2star", scan, "-o", out)
    assert refused.code == 6
    assert "--overwrite" in refused.error
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    done = run(capsys, "t2star", scan, "-o", out, "--overwrite", "--no-report", "--te-ms", 6, 16, 30, 50)
    assert done.code == 0
    assert names(out) == NO_PICTURES | {"notes.txt"}, "a report of the earlier run would lie"
    np.testing.assert_allclose(load(out, "T2starmap")[..., 0], 2 * T2STAR, rtol=1e-3)


@pytest.mark.parametrize("folder", [dicom_folder, nifti_folder])
def test_results_inside_the_input_folder_are_not_taken_for_images(tmp_path, capsys, folder):
    scan = folder(tmp_path / "scan")
    records = []
    for _ in range(2):
        assert run(capsys, "t2star", scan, "-o", scan / "out", "--no-report", "--overwrite").code == 0
        records.append(strict((scan / "out" / "provenance.json").read_text()))
    assert (
        records[0]["input"]["sha256_of_images_and_echo_times"] == records[1]["input"]["sha256_of_images_and_echo_times"]
    )
    assert records[1]["input"]["n_files"] == 4


# usage ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("t2star",), "required: -o/--out, INPUT|required: INPUT, -o/--out"),
        (("t2start", "x"), "invalid choice: 't2start'"),
        (("t2star", "x", "-o", "y", "--method", "magic"), "invalid choice: 'magic'"),
        (("t2", "x", "-o", "y", "--method", "epg"), "invalid choice: 'epg'"),
        (("t2", "x", "-o", "y", "--t1-ms", "long"), "--t1-ms: invalid float value: 'long'"),
        (("t2", "x", "-o", "y", "--method", "mono", "--b1", "z"), "--method mono knows no B1"),
        (
            ("t2", "x", "-o", "y", "--method", "mono", "--refocusing-deg", "150"),
            "leave out --refocusing-deg.",
        ),
        (("t2star", "x", "-o", "-x"), "expected one argument"),
        (("t2star", "x", "-o", "y", "-v", "-q"), "not allowed with"),
        (("t2star", "x", "-o", "y", "--overw"), "unrecognized arguments: --overw"),
        (("t2star", "-o", "y", "--te-ms", "2", "scan"), "'scan' is not a number of milliseconds (folders and files go"),
        (("data",), "required: list|fetch"),
        (("data", "fetch", "nope"), "no data set is called 'nope'; known are: ismrm2024-t2star"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line_and_exit_code_2(capsys, words, complaint):
    done = run(capsys, *words)
    assert done.code == 2
    assert any(option in done.error for option in complaint.split("|")) or complaint in done.error


def test_no_command_shows_what_there_is(capsys):
    done = run(capsys)
    assert done.code == 0
    for command in ("t2star", "t2", "t1", "demo", "inspect", "doctor", "data"):
        assert f"\n    {command} " in done.out


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["t2star", "--help"], ["data", "fetch", "--help"]])
def test_help_is_quick(words):
    script = f"import sys; from jaxqmri.cli import main; code = main({words}); print(code, *sys.modules)"
    done = subprocess.run(
        [*COMMAND[:1], "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1].split()  # fmt: skip
    assert done[0] == "0"
    assert not {"jax", "numpy", "pydicom", "nibabel", "matplotlib"} & set(done)


def test_signals_are_handled_as_before_once_the_command_is_done(capsys):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run(capsys, "data", "list")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_bug_is_called_a_bug(scan, tmp_path, capsys, monkeypatch):
    from jaxqmri.mapping.fitting import estimate

    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(estimate, "fit", broken)
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out")
    assert done.code == 1
    assert "unexpected ZeroDivisionError: division by zero. This is a bug" in done.error
    debug = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--debug")
    assert "in broken" in debug.err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"), "out of memory"),
        (RuntimeError("Unable to initialize backend 'cuda'"), "no device to compute on"),
    ],
)
def test_a_device_that_fails_is_exit_code_9(scan, tmp_path, capsys, monkeypatch, error, words):
    from jaxqmri.mapping.fitting import estimate

    def failing(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(estimate, "fit", failing)
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out")
    assert done.code == 9
    assert words in done.error


# data sets ------------------------------------------------------------------------------------------------------------


def test_data_sets_are_listed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAXQMRI_DATA_DIR", str(tmp_path))
    assert "jaxqmri data fetch ismrm2024-t2star" in run(capsys, "data", "list").out
    (listed,) = strict(run(capsys, "data", "list", "--json").out)["datasets"]
    assert (listed["name"], listed["cached"]) == ("ismrm2024-t2star", False)


def test_offline_a_data_set_is_exit_code_8_with_all_that_is_needed_to_get_it_by_hand(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAXQMRI_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JAXQMRI_OFFLINE", "1")
    done = run(capsys, "data", "fetch", "ismrm2024-t2star")
    assert done.code == 8
    for word in (
        "https://zenodo.org/records/10868361",
        "f387357a0b4024ca62e979203eff9def",
        "T2star.zip",
        str(tmp_path),
    ):
        assert word in done.error


# as a process ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["data", "list"], ["--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(words, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    environment = ENVIRONMENT | {"PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen([*COMMAND, *words], env=environment, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 0


@pytest.mark.parametrize("signal_number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_fit_leaves_nothing_behind(tmp_path, signal_number):
    images = np.tile(decays(), (8, 8, 1))  # 128 x 128 voxels: seconds of Adam
    scan = dicom_folder(tmp_path / "scan", images)
    (scan / "report.dcm").write_text("Impression: normal. " * 20)
    terminal, stderr = pty.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # progress bars need a width
    process = subprocess.Popen(
        [*COMMAND, "t2star", scan, "-o", tmp_path / "new" / "out", "--method", "adam"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=stderr,
    )  # fmt: skip
    os.close(stderr)
    shown = b""
    while b"fitting" not in shown:
        shown += os.read(terminal, 1024)
    process.send_signal(signal_number)
    with suppress(OSError):  # how the end of a terminal reads
        while part := os.read(terminal, 1024):
            shown += part
    assert process.communicate()[0] == b""
    assert process.returncode == 130
    lines = re.split(rb"[\r\n]+", shown.strip())
    assert lines[-1] == b"jaxqmri: interrupted; no half-written file was left"
    assert any(line.startswith(b"jaxqmri: warning: passed over") for line in lines), "not behind a progress bar"
    assert names(tmp_path) == {"scan"}
