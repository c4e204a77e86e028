"""The job from files to files: what it records, and what it never tells."""

import base64
import gzip
import json
import re
import signal as signals
import sys
import threading
import time
import warnings
from dataclasses import replace
from functools import partial
from importlib.machinery import ExtensionFileLoader

import nibabel as nib
import numpy as np
import pytest
from dicom_series import save
from nifti_files import save as save_nifti
from small_scans import T2STAR, TE_MS, datasets, dicom_folder, nifti_folder, signal

from jaxqmri import Rician
from jaxqmri.errors import CorruptInputError, InputWarning, OutputError, UsageError, error_in_words, remark
from jaxqmri.io.series import ImageSeries
from jaxqmri.mapping.fitting.noise import noise_of
from jaxqmri.mapping.job import Job
from jaxqmri.mapping.t2 import T2
from jaxqmri.mapping.t2star import T2star
from jaxqmri.workflow import provenance as record
from jaxqmri.workflow import run as job
from jaxqmri.workflow.interrupts import stop_on_signals
from jaxqmri.workflow.run import in_words, run_job


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return dicom_folder(tmp_path_factory.mktemp("scan"))


def recorded(out):
    return json.loads((out / "provenance.json").read_text())


def test_the_record_says_how_the_maps_were_made(scan, tmp_path):
    result = run_job(T2star(method="loglinear"), [scan], tmp_path / "out", report=False, timings={"starting": 1.5})
    found = recorded(tmp_path / "out")
    assert found["command"] == "jaxqmri t2star INPUT -o OUT --method loglinear --mask none --no-report"
    assert found["input"]["n_files"] == 4
    assert found["input"]["shape"] == [16, 16, 1, 4]
    assert found["input"]["echo_times_s"] == [te / 1e3 for te in TE_MS]
    assert found["method"]["EstimationAlgorithm"] == "LogLinear"
    assert found["status"] == {"OK": 256}
    assert set(found["outputs"]) == {path.name for path in (tmp_path / "out").iterdir()} == set(result.files)
    assert found["timings_s"]["starting"] == 1.5
    assert {"reading", "compiling", "fitting", "writing"} < set(found["timings_s"])
    assert found["warnings"] == []


def test_a_first_echo_that_is_wrong_is_left_out_of_the_fit_and_said_to_be(tmp_path):
    images = signal()
    images[..., 0] /= 3
    scan = dicom_folder(tmp_path / "scan", images)
    result = run_job(T2star(method="loglinear", drop_first=1), [scan], tmp_path / "out")
    np.testing.assert_allclose(result.maps["T2starmap"][..., 0], T2STAR, rtol=2e-3)  # of integers
    found = recorded(tmp_path / "out")
    assert found["command"] == "jaxqmri t2star INPUT -o OUT --method loglinear --mask none --drop-first 1"
    assert found["input"]["echo_times_s"] == [te / 1e3 for te in TE_MS[1:]]
    assert found["input"]["left_out_echo_times_s"] == [TE_MS[0] / 1e3]
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"Left out</\w+>\s*<\w+>3 ms<", page)
    assert "TE 3 ms, left out" in page


def test_the_share_of_saturated_voxels_is_warned_of(tmp_path):
    images = signal()
    images[:2, :8, 0] = 2.0**16 - 1
    with pytest.warns(InputWarning, match=r"6\.25 % of the voxels \(16 of 256\) hold the largest value .*clipped"):
        run_job(T2star(method="loglinear"), [dicom_folder(tmp_path / "a", images)], tmp_path / "out", report=False)
    assert "16 of 256" in recorded(tmp_path / "out")["warnings"][0]
    assert recorded(tmp_path / "out")["status"] == {"OK": 240, "SATURATED": 16}
    assert np.isfinite(nib.load(tmp_path / "out" / "T2starmap.nii.gz").get_fdata()).all()
    inside = np.zeros((16, 16, 1), np.uint8)
    inside[1:3] = 1
    affine = nib.load(tmp_path / "out" / "S0map.nii.gz").affine
    mask = save_nifti(tmp_path / "mask.nii.gz", inside, affine=affine)
    with pytest.warns(InputWarning, match=r"25 % of the voxels \(8 of 32\)"):
        run_job(T2star(method="loglinear", mask=mask), [tmp_path / "a"], tmp_path / "masked", report=False)


def test_one_voxel_at_the_top_of_the_range_is_no_saturation(tmp_path):
    images = signal()
    images[3, 3, 0] = 2.0**16 - 1
    run_job(T2star(method="loglinear"), [dicom_folder(tmp_path / "a", images)], tmp_path / "out", report=False)
    assert recorded(tmp_path / "out")["warnings"] == []
    assert recorded(tmp_path / "out")["status"] == {"OK": 256}


def test_the_hash_is_that_of_the_images_and_nothing_else(scan, tmp_path):
    other = signal()
    other[3, 3, 0] += 1.0
    inputs = {"a": scan, "b": dicom_folder(tmp_path / "renamed" / "deep"), "c": dicom_folder(tmp_path / "other", other)}
    for name, folder in inputs.items():
        run_job(T2star(), [folder], tmp_path / name, report=False)
    hashes = {name: recorded(tmp_path / name)["input"]["sha256_of_images_and_echo_times"] for name in inputs}
    assert hashes["a"] == hashes["b"]
    assert hashes["a"] != hashes["c"]


def test_equal_runs_give_equal_maps_to_the_byte(scan, tmp_path):
    for name in "ab":
        run_job(T2star(), [scan], tmp_path / name, report=False)
    for path in (tmp_path / "a").glob("*map*"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def all_content(folder):
    """Every byte written, compressed parts unpacked."""
    for path in folder.rglob("*"):
        raw = path.read_bytes()
        yield path.name.encode()
        yield raw
        if path.suffix == ".gz":
            yield gzip.decompress(raw)
        for embedded in re.findall(rb"base64,([A-Za-z0-9+/=]+)", raw):
            yield base64.b64decode(embedded)


def test_neither_names_nor_paths_of_the_input_get_into_the_results(tmp_path):
    files = datasets(
        PatientName="SECRET^NAME", PatientID="SECRET1", PatientComments="SECRET", StudyDescription="SECRET"
    )
    scan = save(tmp_path / "SECRET^NAME" / "study", files, prefix="SECRET^NAME")
    (scan / "SECRET report.dcm").write_text("SECRET")
    save_nifti(tmp_path / "SECRET mask.nii", np.full((16, 16, 1), 2, np.uint8), affine=_affine(scan))
    with pytest.warns(InputWarning, match="passed over"):
        run_job(T2star(mask=tmp_path / "SECRET mask.nii"), [scan], tmp_path / "out")
    assert recorded(tmp_path / "out")["warnings"], "something was passed over"
    for content in all_content(tmp_path / "out"):
        assert b"SECRET" not in content
        assert str(tmp_path).encode() not in content


def _affine(scan):
    from jaxqmri import read_dicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_dicom(scan).affine


def test_only_what_concerns_the_images_is_recorded_of_the_warnings(scan, tmp_path, monkeypatch):
    def noisy(*args):
        warnings.warn("/home/somebody/SECRET.dcm: invalid value", UserWarning, stacklevel=1)
        remark("2 files passed over")
        remark("2 files passed over")
        return read_images(*args)

    read_images = job.read_images
    monkeypatch.setattr(job, "read_images", noisy)
    with pytest.warns(UserWarning, match="SECRET"), pytest.warns(InputWarning, match="passed over"):
        result = run_job(T2star(), [scan], tmp_path / "out", report=False)
    assert result.warnings == recorded(tmp_path / "out")["warnings"] == ["2 files passed over"]


def test_summary_is_in_si_units_over_voxels_that_have_a_value(tmp_path):
    images = signal()
    images[0] = 0.0
    images[1] = np.nan
    summary = run_job(T2star(), [nifti_folder(tmp_path / "scan", images)], tmp_path / "out", report=False).summary()
    assert summary["status"] == {"OK": 224, "NO_SIGNAL": 16, "NOT_FINITE": 16}
    assert summary["n_voxels"] == 256
    low, median, high = np.percentile(T2STAR[2:], [25, 50, 75])
    found = summary["maps"]["T2starmap"]
    np.testing.assert_allclose([found["q25"], found["median"], found["q75"]], [low, median, high], rtol=1e-4)
    assert found["units"] == "s"
    assert summary["maps"]["R2starmap"]["units"] == "1/s"
    assert summary["maps"]["R2starmap"]["median"] == pytest.approx(np.median(1 / T2STAR[2:]), rel=1e-4)
    json.dumps(summary, allow_nan=False)


# noise ----------------------------------------------------------------------------------------------------------------


def test_a_rician_level_is_that_of_the_air_unless_given(rng):
    sigma = 12.0
    air = np.hypot(rng.normal(scale=sigma, size=(40, 40, 1, 4)), rng.normal(scale=sigma, size=(40, 40, 1, 4)))
    air[10:30, 10:30, 0] += 1000 * np.exp(-np.array(TE_MS) / 20)
    series = ImageSeries.from_arrays(air, te=np.array(TE_MS) / 1e3)

    model, words = noise_of(series, "rician", None)
    assert float(model.sigma) == pytest.approx(sigma, rel=0.03)
    assert re.fullmatch(r"Rician, sigma 1[12]\.\d+, from 1\d\d\d voxels of air", words)
    model, words = noise_of(series, "rician", 20.0)
    assert (type(model), float(model.sigma), words) == (Rician, 20.0, "Rician, sigma 20, given")
    assert noise_of(series, "gaussian", 20.0)[1] == "Gaussian, sigma 20, given"
    assert noise_of(series, None, None) == noise_of(series, "gaussian", None) == (None, None)
    without_air = replace(series, data=series.data[12:28, 12:28])
    with pytest.raises(CorruptInputError, match=r"^the images show no air.* measured\. Give its level with sigma="):
        noise_of(without_air, "rician", None)


@pytest.mark.parametrize("job", [partial(T2star, method="adam"), partial(T2, method="dictionary")])
def test_rician_noise_is_refused_where_it_is_not_known(job):
    with pytest.raises(UsageError, match=r"knows no Rician noise; use method='lm'") as refused:
        job(noise="rician")
    assert "knows no Rician noise; use --method lm" in error_in_words(refused.value)[1]


def test_regions_in_words_have_the_units_people_use():
    (row,) = in_words([{"region": "cortex", "voxels": 7, "true_T2star_s": 0.066, "error_of_median": -0.01234}])
    assert row == {"region": "cortex", "voxels": 7, "true T2* [ms]": 66.0, "error of median [%]": -1.23}


def test_a_failed_job_leaves_no_trace(tmp_path):
    (tmp_path / "scan").mkdir()
    save(tmp_path / "scan", datasets()[:1])
    with pytest.raises(CorruptInputError, match="only one echo"):
        run_job(T2star(), [tmp_path / "scan"], tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_full_when_the_pictures_are_written_leaves_the_earlier_results(scan, tmp_path, monkeypatch):
    run_job(T2star(), [scan], tmp_path / "out", report=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(files):
        (path, *_) = files
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(job, "write_files", full)
    with pytest.raises(OutputError, match=r"out/T2starmap\.png: No space left"):
        run_job(T2star(), [scan], tmp_path / "out", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_missing_package_version_is_said_and_does_no_harm(monkeypatch):
    monkeypatch.setattr(record, "PACKAGES", ("numpy", "no-such-package"))
    assert record.versions()["no-such-package"] == "not installed"
    assert record.versions()["numpy"] == np.__version__


def test_python_waits_at_its_end_for_what_is_still_loading(scan, tmp_path, monkeypatch):
    """A daemon thread that is ended within C++, which matplotlib loads, aborts the process with exit code -6."""
    threads = []
    monkeypatch.setattr(job, "import_module", lambda *_: threads.append(threading.current_thread()))
    run_job(T2star(method="loglinear"), [scan], tmp_path / "out")
    assert [thread.daemon for thread in threads] == [False]


def test_a_stop_waits_until_a_library_is_loaded():
    """An exception within the loading of jaxlib crashes the process."""
    loaded = []

    class Library(ExtensionFileLoader):
        def exec_module(self, module):
            signals.raise_signal(signals.SIGTERM)
            loaded.append(module)

    library = Library("library", "library.so")
    with stop_on_signals(), pytest.raises(KeyboardInterrupt):
        time.sleep(5 + len([library.exec_module("library")]))
    assert loaded == ["library"]


def test_a_stop_whose_exception_was_lost_comes_again():
    class Swallowing:
        def __del__(self):
            signals.raise_signal(signals.SIGTERM)

    with stop_on_signals(), pytest.raises(KeyboardInterrupt):
        time.sleep(5 + len([Swallowing()][:0]))


def test_a_stop_whose_exception_was_lost_stops_the_run_at_the_next_batch(scan, tmp_path, monkeypatch):
    class Swallowing:
        def __del__(self):  # an exception in a finaliser goes no further
            signals.raise_signal(signals.SIGTERM)

    job, lost, estimated = T2star(method="loglinear"), [], Job.estimate

    def estimate(*arguments):
        Swallowing()
        return estimated(*arguments)

    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: lost.append(ignored.exc_type))
    monkeypatch.setattr(Job, "estimate", estimate)
    with stop_on_signals(), pytest.raises(KeyboardInterrupt):
        run_job(job, [scan], tmp_path / "out", report=False)
    monkeypatch.setattr(Job, "estimate", estimated)
    assert lost == [], "it is remembered, so nobody needs to see it"
    assert not (tmp_path / "out").exists()
    run_job(job, [scan], tmp_path / "out", report=False)  # the next run has not been asked to stop
