"""`jaxqmri bids`: a valid derivative, series by series; what fails stops nothing, what is complete is left alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_datasets import SHAPE, T2STAR, TE_GRE, add_series, all_kinds, dataset
from command import run
from quick_bids import content, make_jobs_quick, rows

from jaxqmri.errors import CorruptInputError, InputWarning, NoInputError, OutputError, PartialFailureError
from jaxqmri.io.bids import derivative
from jaxqmri.io.bids.derivative import map_place, read_problems, read_records, update_summary
from jaxqmri.io.bids.names import parse_name
from jaxqmri.report.page import participant_page
from jaxqmri.workflow import bids
from jaxqmri.workflow.bids import run_bids

STEM = "sub-01_MEGRE"


@pytest.fixture
def quick_jobs(monkeypatch):
    make_jobs_quick(monkeypatch)


@pytest.fixture
def three(tmp_path):
    """Three participants with one series each."""
    root = dataset(tmp_path / "raw")
    for sub in ("01", "02", "03"):
        add_series(root, sub, "MEGRE", part="_part-mag")
    return root


@pytest.fixture
def validator_errors():
    """What the BIDS validator, which needs no network, calls errors in a folder."""
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.exists():
        pytest.skip("bids-validator-deno is not installed")

    def errors(folder):
        command = [program, folder, "--ignoreWarnings", "--format", "json"]
        found = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)["issues"]["issues"]
        return [(issue["code"], issue.get("subCode"), issue["location"]) for issue in found]

    return errors


# the derivative -------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_true_map_its_sources_and_a_page(tmp_path, capsys):
    root = dataset(tmp_path / "raw")
    folder = add_series(root, "01", "MEGRE", "pre", "_run-2", part="_part-mag")
    out = root / "derivatives" / "jaxqmri"
    outcome = run(capsys, "bids", root, out, "participant", "--participant-label", "01")
    assert outcome.code == 0, outcome.err
    assert re.search(r"^\[1/1\] sub-01 ses-pre_run-2_MEGRE: T2\* 36 ms median, 128 of 128 voxels fitted", outcome.err)
    place = out / "sub-01" / "ses-pre" / "anat" / "sub-01_ses-pre_run-2_T2starmap"
    np.testing.assert_allclose(nib.load(f"{place}.nii.gz").get_fdata(), T2STAR, rtol=1e-4)
    sidecar = json.loads(Path(f"{place}.json").read_text())
    assert sidecar["Units"] == "s"
    assert sidecar["EchoTime"] == list(TE_GRE)
    assert sidecar["Sources"] == [
        f"bids:raw:sub-01/ses-pre/anat/{path.name}" for path in sorted(folder.glob("*.nii.gz"))
    ]
    assert sidecar["EstimationAlgorithm"] == "LevenbergMarquardt"
    assert "doi:" in sidecar["EstimationReference"]
    assert sidecar["SkullStripped"] is False
    page = (out / "sub-01.html").read_text()
    report = out / re.search(r'href="([^"]+\.html)"', page)[1]
    assert report.is_file()
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    assert str(tmp_path) not in page
    assert (
        "<pre>jaxqmri bids BIDS_ROOT OUT participant --participant-label 01 --session-label pre --mask none</pre>"
        in (report.read_text())
    )


def test_a_derivative_of_every_kind_of_series(tmp_path, quick_jobs):
    root, out = all_kinds(tmp_path / "raw"), tmp_path / "out"
    with pytest.warns(InputWarning, match="sub-02_VFA: neither part-"):
        result = run_bids(root, out, report=False)
    assert result.n_made == 6
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "jaxqmri"
    assert description["DatasetLinks"] == {"raw": "../raw"}
    found = {path.name for path in (out / "sub-02" / "anat").glob("*T1map.nii.gz")}
    assert found == {f"sub-02_desc-{kind}_T1map.nii.gz" for kind in ("IRT1", "IRT1stderr", "VFA", "VFAstderr")}
    levels = (out / "dseg.tsv").read_text().splitlines()
    assert levels[:2] == ["index\tname", "0\tOK"]


@pytest.mark.parametrize(
    ("series", "map_name", "siblings", "place"),
    [
        ("sub-1_MEGRE", "T2starmap", [], "sub-1/anat/sub-1_T2starmap"),
        ("sub-1_ses-a_acq-b_run-2_VFA", "T1map", [], "sub-1/ses-a/anat/sub-1_ses-a_acq-b_run-2_T1map"),
        ("sub-1_VFA", "T1map", ["IRT1"], "sub-1/anat/sub-1_desc-VFA_T1map"),
        ("sub-1_VFA", "T1map_stderr", ["IRT1"], "sub-1/anat/sub-1_desc-VFAstderr_T1map"),
        ("sub-1_VFA", "T1map_stderr", ["MEGRE"], "sub-1/anat/sub-1_desc-stderr_T1map"),
        ("sub-1_MESE", "M0map", ["VFA"], "sub-1/anat/sub-1_desc-MESE_M0map"),
        ("sub-1_MESE", "TB1map", ["VFA"], "sub-1/fmap/sub-1_TB1map"),
        ("sub-1_MESE", "status", [], "sub-1/anat/sub-1_desc-MESEstatus_dseg"),
        ("sub-1_MESE", "residual", [], "sub-1/anat/sub-1_desc-MESE_residual"),
    ],
)
def test_where_a_map_goes(series, map_name, siblings, place):
    assert map_place(parse_name(series), map_name, siblings) == place


@pytest.mark.parametrize(("stated", "doi"), [({}, ""), ({"DatasetDOI": "10.1234/abc"}, "doi:10.1234/abc")])
def test_the_derivative_names_the_raw_dataset_but_no_folders_above_it(tmp_path, quick_jobs, stated, doi):
    root = dataset(tmp_path / "study" / "raw", **stated)
    add_series(root, "01", "MEGRE", part="_part-mag")
    places = {
        root / "derivatives" / "maps": "../..",
        tmp_path / "study" / "out": "../raw",
        tmp_path / "study" / "a" / "b": "../../raw",
        tmp_path / "elsewhere" / "out": doi or "sourcedata/raw",
    }
    for out, link in places.items():
        run_bids(root, out, report=False)
        description = json.loads((out / "dataset_description.json").read_text())
        assert description["DatasetLinks"] == {"raw": link}
        assert description["SourceDatasets"] == [{"DOI": doi} if doi else {"URL": link}]
        assert (out / link).resolve() == root or "elsewhere" in out.parts
        told = [raw for raw in content(out).values() if str(tmp_path).encode() in raw or b"study" in raw]
        assert not told


def test_a_raw_dataset_may_lie_in_the_derivative_where_its_sources_belong(tmp_path, quick_jobs):
    out = tmp_path / "maps"
    root = dataset(out / "sourcedata" / "raw")
    add_series(root, "01", "MEGRE", part="_part-mag")
    run_bids(root, out, report=False)
    assert json.loads((out / "dataset_description.json").read_text())["DatasetLinks"] == {"raw": "sourcedata/raw"}
    assert run_bids(root, out, report=False).n_there == 1


@pytest.mark.slow
@pytest.mark.parametrize("raw", ["raw", "maps/sourcedata/raw"])
@pytest.mark.parametrize("doi", [None, "10.1234/abc"])
def test_the_validator_finds_no_error_in_raw_data_derivative_and_pages(
    tmp_path, quick_jobs, validator_errors, raw, doi
):
    root, out = all_kinds(tmp_path / raw), tmp_path / "maps"
    if doi:
        description = json.loads((root / "dataset_description.json").read_text()) | {"DatasetDOI": doi}
        (root / "dataset_description.json").write_text(json.dumps(description))
    assert validator_errors(root) == []
    run_bids(root, out, participants=["01"])
    with pytest.warns(InputWarning, match="sub-02_VFA: neither part-"):
        run_bids(root, out, report=False)
    assert validator_errors(out) == []


# again and again ------------------------------------------------------------------------------------------------------


def test_what_is_complete_is_left_as_it_is_unless_asked(three, tmp_path, quick_jobs):
    out = tmp_path / "out"
    run_bids(three, out, participants=["01"], report=False)
    before, lines = content(out / "sub-01"), []
    result = run_bids(three, out, report=False, say=lines.append)
    assert (result.n_made, result.n_there) == (2, 1)
    assert lines[0] == "[1/3] sub-01 MEGRE: complete, left as it is"
    assert content(out / "sub-01") == before
    assert list(rows(out)) == ["sub-01_MEGRE", "sub-02_MEGRE", "sub-03_MEGRE"]
    (out / "sub-02" / "anat" / "sub-02_S0map.nii.gz").unlink()
    assert run_bids(three, out, report=False).n_made == 1
    assert run_bids(three, out, report=False, overwrite=True).n_made == 3


def test_a_run_that_was_killed_is_taken_up(three, tmp_path, quick_jobs, monkeypatch):
    out = tmp_path / "out"
    write_record = derivative.write_record

    def killed(folder, series, record):
        if str(series) == "sub-02_MEGRE":
            raise KeyboardInterrupt  # as SIGTERM: maps are in their places, the record is not
        write_record(folder, series, record)

    monkeypatch.setattr(derivative, "write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        run_bids(three, out, report=False)
    assert not (out / "dataset_description.json").exists(), "no dataset before it is finished"
    assert not list(out.glob(".jaxqmri-*"))
    monkeypatch.setattr(derivative, "write_record", write_record)
    result = run_bids(three, out, report=False)
    assert (result.n_made, result.n_there) == (2, 1)
    assert (out / "dataset_description.json").is_file()


def test_the_leftovers_of_a_killed_run_are_removed(three, tmp_path, quick_jobs):
    out = tmp_path / "out"
    run_bids(three, out, participants=["01"], report=False)
    (out / ".jaxqmri-abcd1234").mkdir()
    (out / ".jaxqmri-abcd1234" / "T2starmap.nii.gz").write_bytes(b"half")
    with pytest.warns(InputWarning, match="leftovers of a run that was killed were removed"):
        run_bids(three, out, participants=["01"], report=False)
    assert not list(out.glob(".jaxqmri-*"))


def test_other_images_or_settings_are_told_and_not_mixed_in(three, tmp_path, quick_jobs):
    out = tmp_path / "out"
    run_bids(three, out, participants=["01"], report=False)
    before = content(out / "sub-01")
    lines, again = [], {"participants": ["01"], "report": False}
    result = run_bids(three, out, **again, mask="auto", say=lines.append)
    told = "made with another mask; left as it is, --overwrite does it again"
    assert lines == [f"[1/1] sub-01 MEGRE: outdated: {told}"]
    assert (rows(out)[STEM]["status"], rows(out)[STEM]["message"]) == ("outdated", told)
    assert "1 outdated" in next(result.lines())
    (three / "MEGRE.json").write_text("{}")
    run_bids(three, out, **again, say=lines.append)
    assert lines[1].startswith("[1/1] sub-01 MEGRE: outdated: the images or their metadata have changed since; left")
    page = participant_page("01", read_records(out, "01"), read_problems(out, "01"), out)
    assert "<li>outdated: the images or their metadata have changed since" in page
    assert content(out / "sub-01") == before
    (three / "sub-01" / "anat" / "sub-01_echo-2_part-mag_MEGRE.json").write_text("{")
    assert run_bids(three, out, **again, overwrite=True).errors
    run_bids(three, out, **again)
    assert rows(out)[STEM]["status"] == "outdated", "that it could not be done again is not forgotten"
    for path in (three / "sub-01" / "anat").glob("*.nii.gz"):  # datalad drop
        path.unlink()
        path.symlink_to("nowhere")
    assert run_bids(three, out, participants=["01"], report=False).n_there == 1


def test_sessions_done_one_by_one_leave_no_row_of_nothing_to_fit(tmp_path, quick_jobs):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    for sub, ses in (("01", "post"), ("02", "pre")):
        add_series(root, sub, "MEGRE", ses, part="_part-mag")
    for ses, left in (("pre", {"n/a", "sub-02_ses-pre_MEGRE"}), ("post", set()), ("pre", set())):
        run_bids(root, out, sessions=[ses], report=False)
        assert set(rows(out)) == (left or {"sub-01_ses-post_MEGRE", "sub-02_ses-pre_MEGRE"})


def test_the_record_says_how_to_run_it_again(tmp_path, quick_jobs):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    add_series(root, "01", "MEGRE", "pre", part="_part-mag")
    run_bids(root, out, report=False, mask="auto")
    assert json.loads((out / "logs" / "sub-01_ses-pre_MEGRE.json").read_text())["command"] == (
        "jaxqmri bids BIDS_ROOT OUT participant --participant-label 01 --session-label pre --mask auto --no-report"
    )


def test_maps_that_got_another_name_are_not_left_behind(tmp_path, quick_jobs):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    add_series(root, "01", "VFA", part="_part-mag")
    run_bids(root, out, report=False)
    assert (out / "sub-01" / "anat" / "sub-01_T1map.nii.gz").is_file()
    add_series(root, "01", "IRT1", part="_part-mag")
    run_bids(root, out, report=False, overwrite=True)
    assert {path.name for path in (out / "sub-01" / "anat").glob("*T1map.nii.gz") if "stderr" not in path.name} == {
        "sub-01_desc-IRT1_T1map.nii.gz", "sub-01_desc-VFA_T1map.nii.gz",
    }  # fmt: skip


# what fails -----------------------------------------------------------------------------------------------------------


def test_one_that_fails_stops_no_other(three, tmp_path, quick_jobs, capsys):
    out = tmp_path / "out"
    (three / "sub-02" / "anat" / "sub-02_echo-2_part-mag_MEGRE.nii.gz").write_bytes(b"no image")
    (three / "sub-04").mkdir()
    outcome = run(capsys, "bids", three, out, "participant", "--no-report")
    assert outcome.code == 7
    assert [line[:12] for line in outcome.err.splitlines() if line.startswith("[")] == [
        f"[{n}/4] sub-0{n}" for n in (1, 2, 3, 4)
    ]
    assert "[2/4] sub-02 MEGRE: failed: sub-02_echo-2_part-mag_MEGRE.nii.gz: not a readable" in outcome.err
    assert "jaxqmri: error: 1 of 3 series failed (sub-02_MEGRE)" in outcome.err
    assert "Traceback" not in outcome.err
    found = rows(out)
    assert {row["participant_id"]: row["status"] for row in found.values()} == {
        "sub-01": "done", "sub-02": "failed", "sub-03": "done", "sub-04": "nothing to fit",
    }  # fmt: skip
    assert found["sub-01_MEGRE"]["n_fitted"] == str(np.prod(SHAPE))
    assert str(tmp_path) not in (out / "summary.tsv").read_text()
    assert not (out / "sub-02").exists()
    assert (out / "dataset_description.json").is_file()


def test_debug_shows_the_traceback_of_each_failing_series_as_it_fails(three, tmp_path, quick_jobs, capsys):
    (three / "sub-02" / "anat" / "sub-02_echo-2_part-mag_MEGRE.nii.gz").write_bytes(b"no image")
    (three / "sub-03" / "anat" / "sub-03_echo-2_part-mag_MEGRE.json").write_text("{")
    outcome = run(capsys, "bids", three, tmp_path / "out", "participant", "--no-report", "--debug")
    second, third = (outcome.err.index(f"[{n}/3] sub-0{n} MEGRE: failed") for n in (2, 3))
    assert "Traceback (most recent call last)" in outcome.err[:second]
    assert re.search(r"CorruptInputError: \S*sub-02_echo-2_part-mag_MEGRE", outcome.err[:second])
    assert re.search(r"MetadataError: \S*sub-03_echo-2_part-mag_MEGRE", outcome.err[second:third])


def test_where_all_fail_for_one_kind_of_reason_the_code_is_its_own(three, tmp_path, quick_jobs, capsys):
    for echo in three.glob("sub-*/anat/*_echo-2_*"):
        echo.unlink()
    outcome = run(capsys, "bids", three, tmp_path / "out", "participant", "--no-report", "-q")
    assert outcome.code == CorruptInputError.exit_code
    assert outcome.error.startswith("jaxqmri: error: all 3 series failed, the first: sub-01_MEGRE: echo-2 of")
    assert not (tmp_path / "out" / "dataset_description.json").exists()
    outcome = run(capsys, "bids", three, tmp_path / "out", "participant", "--participant-label", "02", "-q")
    assert outcome.error.startswith("jaxqmri: error: sub-02_MEGRE: echo-2 of")


def test_even_a_bug_in_one_stops_no_other(three, tmp_path, quick_jobs, monkeypatch):
    fill_folder = bids.fill_folder

    def buggy(folder, job, inputs, **options):
        if "sub-01" in inputs[0].name:
            raise ZeroDivisionError(f"in {three}/sub-01")
        return fill_folder(folder, job, inputs, **options)

    monkeypatch.setattr(bids, "fill_folder", buggy)
    result = run_bids(three, tmp_path / "out", report=False)
    assert result.n_made == 2
    with pytest.raises(PartialFailureError, match="1 of 3 series failed"):
        result.raise_failures()
    message = rows(tmp_path / "out")["sub-01_MEGRE"]["message"]
    assert message.startswith("unexpected ZeroDivisionError: in ")
    assert str(tmp_path) not in message


def test_results_of_a_series_that_fails_later_stay(three, tmp_path, quick_jobs):
    out = tmp_path / "out"
    run_bids(three, out, participants=["01"], report=False)
    before = content(out / "sub-01")
    (three / "sub-01" / "anat" / "sub-01_echo-2_part-mag_MEGRE.json").write_text("{")
    result = run_bids(three, out, participants=["01"], report=False, overwrite=True)
    assert list(result.errors) == [STEM]
    assert content(out / "sub-01") == before
    assert rows(out)[STEM]["status"] == "failed"


def test_content_that_was_not_fetched_fails_its_series_with_the_remedy(three, tmp_path, quick_jobs):
    image = three / "sub-02" / "anat" / "sub-02_echo-2_part-mag_MEGRE.nii.gz"
    image.unlink()
    image.symlink_to("../../.git/annex/objects/xx")
    result = run_bids(three, tmp_path / "out", report=False)
    assert result.n_made == 2
    assert isinstance(result.errors["sub-02_MEGRE"], NoInputError)
    assert "datalad get" in rows(tmp_path / "out")["sub-02_MEGRE"]["message"]


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        (
            "missing",
            "sub-01_MEGRE: echo-2 of echo-1 to echo-4 missing, and a fit without it may go wrong unseen; copy "
            "or fetch it, or number the others without a gap.$",
        ),
        (
            "{",
            "sub-01_echo-2_part-mag_MEGRE.json: not valid .*; mend it, convert the images again, or write it anew.$",
        ),
        ("{}", ".*; state the echo times .EchoTime. in the sidecars, or move the file away"),
        ('{"EchoTime": "3"}', '.*: EchoTime is "3", not a number of seconds; mend it or state .* in the sidecars.$'),
        ('{"EchoTime": 15}', ".* look like milliseconds.* State the right ones .EchoTime. in the sidecars.$"),
    ],
)
def test_what_is_advised_can_be_done_in_a_dataset(three, tmp_path, quick_jobs, edited, message):
    sidecar = three / "sub-01" / "anat" / "sub-01_echo-2_part-mag_MEGRE.json"
    sidecar.write_text(edited)
    if edited == "missing":
        sidecar.with_suffix(".nii.gz").unlink()
    result = run_bids(three, tmp_path / "out", participants=["01"], report=False)
    assert re.match(message, rows(tmp_path / "out")[STEM]["message"])
    with pytest.raises(ValueError, match=r"^sub-01") as caught:
        result.raise_failures()
    assert "--" not in str(caught.value)


def test_what_warnings_advise_can_be_done_in_a_dataset(tmp_path, capsys):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    add_series(root, "01", "VFA", part="_part-mag")
    outcome = run(capsys, "bids", root, out, "participant", "--no-report")
    (recorded,) = json.loads((out / "logs" / "sub-01_VFA.json").read_text())["warnings"]
    for text in (outcome.err, recorded):
        assert "Measure one and put it into fmap/ as TB1map." in text
        assert "--b1" not in text


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (".", "is the raw dataset itself"),
        ("sub-01/anat", "lies inside the raw dataset"),
        ("maps", "lies inside the raw dataset"),
        ("derivatives", "lies inside the raw dataset"),
        ("README.md", "is a file"),
        ("../other", r"has 1 file\(s\) or folder\(s\) that are no results"),
    ],
)
def test_a_place_that_maps_must_not_go_to_is_refused_before_anything_is_computed(three, tmp_path, place, words):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(OutputError, match=words):
        run_bids(three, three / place)
    assert content(tmp_path) == before


def test_a_link_into_the_raw_dataset_is_seen_through(three, tmp_path):
    (tmp_path / "link").symlink_to(three / "sub-01", target_is_directory=True)
    with pytest.raises(OutputError, match="lies inside the raw dataset"):
        run_bids(three, tmp_path / "link")


def test_labels_and_folders_of_any_alphabet(tmp_path, quick_jobs):
    root, out = dataset(tmp_path / "Größe 日本"), tmp_path / "Maße ç"
    add_series(root, "Ärger", "MEGRE", part="_part-mag")
    assert run_bids(root, out, report=False).n_made == 1
    assert (out / "sub-Ärger" / "anat" / "sub-Ärger_T2starmap.nii.gz").is_file()
    assert list(rows(out)) == ["sub-Ärger_MEGRE"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["participant", "--participant-label", "7"],
            2,
            "--participant-label 7: not in this dataset, which has 01 02 03.",
        ),
        (["participant", "--session_label", "a"], 2, "--session-label a: not in this dataset, which has none."),
        (["group"], 2, "invalid choice: 'group'"),
        ([], 2, "required: level"),
        (["participant", "--te-ms", "3"], 2, "unrecognized arguments: --te-ms 3; see jaxqmri bids --help"),
    ],
)
def test_words_that_make_no_sense(three, tmp_path, capsys, words, code, message):
    outcome = run(capsys, "bids", three, tmp_path / "out", *words)
    assert outcome.code == code
    assert message in outcome.error
    assert not (tmp_path / "out").exists()


def test_each_kind_of_warning_is_shown_once_and_recorded_for_every_series(tmp_path, quick_jobs, capsys):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    for sub in ("01", "02"):
        add_series(root, sub, "MEGRE")
    outcome = run(capsys, "bids", root, out, "participant", "--no-report")
    assert outcome.err.count("jaxqmri: warning: ") == 1
    assert outcome.err.count("1 warning,") == 2
    for sub in ("01", "02"):
        (warning,) = json.loads((out / "logs" / f"sub-{sub}_MEGRE.json").read_text())["warnings"]
        assert warning.startswith(f"sub-{sub}_MEGRE: neither part-")


def test_the_summary_of_one_run_keeps_what_another_wrote(tmp_path):
    def row(who, series, status):
        return {"participant_id": who, "series": series, "status": status, "median_s": None}

    update_summary(tmp_path, [row("sub-2", "sub-2_MEGRE", "failed"), row("sub-1", None, "nothing to fit")])
    update_summary(tmp_path, [row("sub-1", "sub-1_VFA", "done"), row("sub-2", "sub-2_MEGRE", "done")])
    assert (tmp_path / "summary.tsv").read_text() == (
        "participant_id\tseries\tstatus\tmedian_s\nsub-1\tsub-1_VFA\tdone\tn/a\nsub-2\tsub-2_MEGRE\tdone\tn/a\n"
    )
