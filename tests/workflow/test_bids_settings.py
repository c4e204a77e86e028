"""What `jaxqmri bids` can be told: used, recorded, compared with what is there; and its words, for a dataset."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
from bids_datasets import SHAPE, add_series, dataset
from command import run
from quick_bids import content, make_jobs_quick, quick_estimate, rows

from jaxqmri.errors import Choose, Give, InputWarning, LeaveOut, MapWith, Setting, in_words, remark
from jaxqmri.io.bids.names import FITTED
from jaxqmri.mapping.job import Job
from jaxqmri.mapping.t1 import T1
from jaxqmri.mapping.t2 import T2
from jaxqmri.mapping.t2star import T2star
from jaxqmri.workflow.bids import run_bids
from jaxqmri.workflow.bids_jobs import in_a_dataset, jobs


@pytest.fixture
def quick_jobs(monkeypatch):
    make_jobs_quick(monkeypatch)


def test_series_are_looked_for_by_the_suffixes_that_jobs_map():
    assert set(FITTED) == set(jobs())


@pytest.mark.parametrize(
    ("suffix", "words", "told", "arguments"),
    [
        ("MEGRE", ["--t2star-method", "loglinear"], "method", {"method": "loglinear"}),
        ("MEGRE", ["--noise", "rician"], "noise", {"noise": "rician", "sigma": None}),
        ("MEGRE", ["--sigma", "12.5"], "sigma", {"noise": None, "sigma": 12.5}),
        ("MEGRE", ["--t2-method", "mono"], "", {"method": "lm"}),
        ("MESE", ["--t2-method", "dictionary"], "method", {"method": "dictionary"}),
        ("MESE", ["--t2-method", "mono", "--noise", "rician"], "method and noise", {"method": "mono"}),
        ("IRT1", ["--noise", "rician", "--sigma", "3"], "noise and sigma", {"method": "ir", "sigma": 3.0}),
        ("IRT1", ["--t2star-method", "loglinear", "--t2-b1", "fmap"], "", {"method": "ir"}),
        ("IRT1", ["--negative", "abs"], "treatment of negative values", {"negative": "abs"}),
    ],
)
def test_the_settings_are_used_recorded_and_compared(tmp_path, capsys, quick_jobs, suffix, words, told, arguments):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    add_series(root, "01", suffix, part="_part-mag")
    run_bids(root, out, report=False)
    before = content(out / "sub-01")
    again = ["bids", root, out, "participant", "--no-report", *words]
    outcome = run(capsys, *again)
    assert outcome.code == 0, outcome.err
    assert (f"outdated: made with another {told}; left as it is" if told else "complete, left as it is") in outcome.err
    assert content(out / "sub-01") == before
    assert run(capsys, *again, "--overwrite").code == 0
    record = json.loads((out / "logs" / f"sub-01_{suffix}.json").read_text())
    assert arguments.items() <= record["arguments"].items()
    own = " ".join(words) + " " if told else ""
    assert record["command"] == (
        f"jaxqmri bids BIDS_ROOT OUT participant --participant-label 01 {own}--mask none --no-report"
    )
    assert "complete, left as it is" in run(capsys, *again).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--t2star-method", "loglinear", "--noise", "rician"], "--t2star-method loglinear knows no Rician noise; use"),
        (["--t2-method", "dictionary", "--noise", "rician"], "--t2-method dictionary knows no Rician noise; use"),
        (
            ["--t2-method", "mono", "--t2-b1", "fmap"],
            "refocusing angle; leave out --t2-b1.",
        ),
        (["--sigma", "0"], "--sigma must be above 0 and finite, got 0."),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_anything_is_done(tmp_path, capsys, words, message):
    root = dataset(tmp_path / "raw")
    add_series(root, "01", "MEGRE", part="_part-mag")
    outcome = run(capsys, "bids", root, tmp_path / "out", "participant", *words)
    assert outcome.code == 2
    assert message in outcome.error
    assert not (tmp_path / "out").exists()


def test_t2_takes_the_b1_map_of_the_session_where_it_is_asked_to(tmp_path, capsys, quick_jobs):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    folder = add_series(root, "01", "MESE", part="_part-mag")
    sidecar, b1_uri = out / "sub-01" / "anat" / "sub-01_T2map.json", "bids:raw:sub-01/fmap/sub-01_TB1map.nii.gz"
    words = ["bids", root, out, "participant", "--no-report", "--t2-b1", "fmap"]
    outcome = run(capsys, *words)
    assert "sub-01_MESE: no TB1map in fmap/ that could be used, so B1 is estimated" in outcome.err
    assert b1_uri not in json.loads(sidecar.read_text())["Sources"]
    assert "complete, left as it is" in run(capsys, *words).err, "there is still no map"

    (root / "sub-01" / "fmap").mkdir()
    first = nib.load(folder / "sub-01_echo-1_part-mag_MESE.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(SHAPE), first.affine), root / "sub-01" / "fmap" / "sub-01_TB1map.nii.gz")
    assert "complete, left as it is" in run(capsys, *words[:-2]).err, "nobody asked for the map"
    assert "outdated: made without the B1 map in fmap/; left as it is" in run(capsys, *words).err
    assert run(capsys, *words, "--overwrite").code == 0
    assert b1_uri in json.loads(sidecar.read_text())["Sources"]
    assert not (out / "sub-01" / "fmap").exists(), "B1 is none of the results any more"
    assert json.loads((out / "logs" / "sub-01_MESE.json").read_text())["command"].endswith(
        "--participant-label 01 --t2-b1 fmap --mask none --no-report"
    )
    assert "complete, left as it is" in run(capsys, *words).err
    assert "outdated: made with a B1 map that is not used now; left as it is" in run(capsys, *words[:-2]).err


def test_a_b1_map_that_cannot_be_used_is_recorded_with_the_reason(tmp_path, capsys, quick_jobs):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    folder = add_series(root, "01", "MESE", part="_part-mag")
    (root / "sub-01" / "fmap").mkdir()
    first = nib.load(folder / "sub-01_echo-1_part-mag_MESE.nii.gz")
    nib.save(nib.Nifti1Image(np.full(SHAPE, 100.0), first.affine), root / "sub-01" / "fmap" / "sub-01_TB1map.nii.gz")
    told = run(capsys, "bids", root, out, "participant", "--no-report", "--t2-b1", "fmap").err
    recorded = json.loads((out / "logs" / "sub-01_MESE.json").read_text())["warnings"]
    assert [text[:40] for text in recorded] == [
        "sub-01_MESE: sub-01_TB1map.nii.gz is not", "sub-01_MESE: no TB1map in fmap/ that cou",
    ]  # fmt: skip
    assert all(f"jaxqmri: warning: {text}\n" in told for text in recorded)


def test_a_b1_map_that_arrives_later_is_noticed(tmp_path, quick_jobs):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    folder = add_series(root, "01", "VFA", part="_part-mag")
    run_bids(root, out, report=False)
    (root / "sub-01" / "fmap").mkdir()
    first = nib.load(folder / "sub-01_flip-1_part-mag_VFA.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(SHAPE), first.affine), root / "sub-01" / "fmap" / "sub-01_TB1map.nii.gz")
    run_bids(root, out, report=False)
    assert rows(out)["sub-01_VFA"]["message"].startswith("made without the B1 map in fmap/; left as it is")
    for overwrite in (True, False):
        run_bids(root, out, report=False, overwrite=overwrite)
        assert rows(out)["sub-01_VFA"]["status"] == "done"


def test_the_b1_map_of_the_session_is_used_and_named_among_the_sources(tmp_path, quick_jobs):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    add_series(root, "01", "VFA", part="_part-mag")
    (root / "sub-01" / "fmap").mkdir()
    b1 = nib.Nifti1Image(
        np.ones(SHAPE, np.float32), nib.load(root / "sub-01/anat/sub-01_flip-1_part-mag_VFA.nii.gz").affine
    )
    nib.save(b1, root / "sub-01" / "fmap" / "sub-01_TB1map.nii.gz")
    run_bids(root, out, report=False)
    assert "bids:raw:sub-01/fmap/sub-01_TB1map.nii.gz" in json.loads(
        (out / "sub-01" / "anat" / "sub-01_T1map.json").read_text()
    )["Sources"]  # fmt: skip


def test_the_page_of_a_series_shows_every_warning_in_words_for_a_dataset(tmp_path, quick_jobs, monkeypatch):
    root, out = dataset(tmp_path / "raw"), tmp_path / "out"
    add_series(root, "01", "MESE", part="_part-mag")

    def remarks_and_fits_nothing(job, series, progress=None):
        remark("No B1 map. Measure one and ", Give("b1"), ".")
        found = quick_estimate(job, series)
        found.maps["status"][:] = 1
        return found

    monkeypatch.setattr(Job, "estimate", remarks_and_fits_nothing)
    with pytest.warns(InputWarning):
        run_bids(root, out, t2_b1="fmap")
    page = (out / "sub-01" / "figures" / "sub-01_MESE.html").read_text()
    listed = re.findall("<li>([^<]*)</li>", re.search('<ul class="warnings">.*?</ul>', page, re.DOTALL)[0])
    assert [text[:33] for text in listed] == [
        "sub-01_MESE: no TB1map in fmap/ t", "No B1 map. Measure one and put it", "no voxel could be fitted (128 NO_",
    ]  # fmt: skip
    assert listed[1].endswith("put it into fmap/ as TB1map and use --t2-b1 fmap.")
    assert json.loads((out / "logs" / "sub-01_MESE.json").read_text())["warnings"] == listed


@pytest.mark.parametrize(
    ("job", "remedy", "words"),
    [
        (T2star, Give("te"), "state EchoTime in the sidecars"),
        (T2star, Give("te", "the echo times"), "state the echo times (EchoTime) in the sidecars"),
        (T1, Give("tr"), "state RepetitionTime in the sidecars"),
        (T1, Give("b1"), "put it into fmap/ as TB1map"),
        (T2, Give("b1", "a B1 map"), "put a B1 map into fmap/ as TB1map and use --t2-b1 fmap"),
        (T2, Choose("method", "mono"), "use --t2-method mono"),
        (T2star, Choose("method", "lm"), "use --t2star-method lm"),
        (T2, LeaveOut("b1"), "leave out --t2-b1"),
        (T1, Choose("component", "real"), "name them part-real"),
        (T2, MapWith("t2star"), "name them MEGRE or T2starw if they are"),
        (T2star, MapWith("t2"), "name them MESE if they are"),
        (T2star, MapWith("t1"), "name them IRT1 or VFA if they are"),
        (T1, Give("sigma", "its level"), "give its level with --sigma, which then holds for all series"),
        (T1, Choose("negative", "abs"), "use --negative abs"),
        (T1, Choose("series", "4"), "keep only series 4"),
        (T1, Setting("device"), "--device"),
    ],
)
def test_remedies_are_those_of_a_dataset(job, remedy, words):
    assert in_words(["; ", remedy], in_a_dataset(job)) == f"; {words}"
