"""What was mended or assumed reaches people and records, in the words of whoever runs the job."""

import json
import threading
import warnings

import pytest
from bids_datasets import add_series, dataset
from command import run
from dicom_series import save, series
from quick_bids import make_jobs_quick, quick_estimate

from jaxqmri.errors import About, Choose, InputWarning, Remark, remark, remarks_collected
from jaxqmri.mapping.job import Job
from jaxqmri.mapping.t2star import T2star
from jaxqmri.workflow.run import run_job


def recorded(out):
    return json.loads((out / "provenance.json").read_text())["warnings"]


@pytest.fixture
def remarking(monkeypatch):
    """Jobs that fit nothing and make a remark."""
    make_jobs_quick(monkeypatch)

    def estimate(job, images, progress=None):
        remark("these are phantoms; ", Choose("method", "adam"), ".")
        return quick_estimate(job, images)

    monkeypatch.setattr(Job, "estimate", estimate)


def test_each_kind_of_caller_reads_its_own_words(tmp_path, capsys, remarking):
    scan = save(tmp_path / "scan", series())
    with pytest.warns(InputWarning, match="these are phantoms; use method='adam'"):
        made = run_job(T2star(), [scan], tmp_path / "python", report=False)
    assert made.warnings == recorded(tmp_path / "python") == ["these are phantoms; use method='adam'."]
    done = run(capsys, "t2star", scan, "-o", tmp_path / "typed", "--no-report")
    assert done.err == "jaxqmri: warning: these are phantoms; use --method adam.\n"
    assert recorded(tmp_path / "typed") == ["these are phantoms; use --method adam."]
    root = dataset(tmp_path / "raw")
    add_series(root, "01", "MEGRE", part="_part-mag")
    done = run(capsys, "bids", root, tmp_path / "out", "participant", "--no-report")
    assert "jaxqmri: warning: these are phantoms; use --t2star-method adam.\n" in done.err
    record = json.loads((tmp_path / "out" / "logs" / "sub-01_MEGRE.json").read_text())
    assert record["warnings"] == ["these are phantoms; use --t2star-method adam."]


def test_no_remark_is_lost_when_another_thread_restores_the_filters_of_warnings(
    tmp_path, capsys, remarking, monkeypatch
):
    """As an import of matplotlib may: it enters `catch_warnings` before a run and leaves it within."""
    entered, leave, estimate = threading.Event(), threading.Event(), Job.estimate

    def importing():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            entered.set()
            leave.wait(60)

    other = threading.Thread(target=importing)

    def estimate_meanwhile(*arguments):
        leave.set()
        other.join()
        return estimate(*arguments)

    monkeypatch.setattr(Job, "estimate", estimate_meanwhile)
    scan = save(tmp_path / "scan", series())
    with warnings.catch_warnings():
        other.start()
        entered.wait(60)
        done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--no-report")
    assert done.err == "jaxqmri: warning: these are phantoms; use --method adam.\n"
    assert recorded(tmp_path / "out") == ["these are phantoms; use --method adam."]


def test_warnings_of_other_libraries_are_shown_with_v_only_and_never_recorded(tmp_path, capsys, remarking, monkeypatch):
    estimate, text = Job.estimate, "/home/somebody/SECRET.dcm: invalid value"

    def warning(*arguments):
        warnings.warn(text, UserWarning, stacklevel=1)
        return estimate(*arguments)

    monkeypatch.setattr(Job, "estimate", warning)
    scan = save(tmp_path / "scan", series())
    for words in ((), ("-v",)):
        done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--no-report", "--overwrite", *words)
        assert done.code == 0
        assert done.err.count(text) == len(words)
        assert "SECRET" not in (tmp_path / "out" / "provenance.json").read_text()


def test_remarks_on_several_series_are_of_one_kind():
    first, second = (Remark((About(name), f": {text}")) for name, text in (("a", "no part-"), ("b", "no part-")))
    assert first != second
    assert first.kind == second.kind == (": no part-",)
    with remarks_collected() as found:
        for one in (first, second, first):
            remark(*one.parts)
    assert found == [first, second]
