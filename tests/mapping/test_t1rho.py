"""T1rho from spin-lock times, from arrays and from files to the report."""

import json

import numpy as np
from command import run
from nifti_files import save as save_nifti
from small_scans import load

import jaxqmri as jq

TSL = np.array([0.0, 0.010, 0.020, 0.040, 0.080])  # s
T1RHO = np.linspace(0.030, 0.120, 256).reshape(16, 16, 1)  # s
IMAGES = 1000 * np.exp(-TSL / T1RHO[..., None])


def test_a_decay_with_the_spin_lock_time_has_its_t1rho():
    found = jq.t1rho_map(jq.ImageSeries.from_arrays(IMAGES, tsl=TSL))
    assert np.all(found["status"] == jq.Status.OK)
    np.testing.assert_allclose(found["T1rhomap"], T1RHO, rtol=1e-5)
    np.testing.assert_allclose(found["R1rhomap"] * T1RHO, 1, rtol=1e-5)
    np.testing.assert_allclose(found["S0map"], 1000, rtol=1e-5)
    assert found["T1rhomap_stderr"].max() < 1e-6


def test_t1rho_from_files_to_report(tmp_path, capsys):
    save_nifti(tmp_path / "scan.nii.gz", IMAGES.astype(np.float32))
    out, given = tmp_path / "out", ["--tsl-ms", *(1e3 * TSL)]
    refused = run(capsys, "t1rho", tmp_path / "scan.nii.gz", "-o", out)
    assert refused.code == 5
    assert "give the spin-lock times with --tsl-ms" in refused.error
    assert json.loads(run(capsys, "inspect", tmp_path / "scan.nii.gz", "--json", *given).out)["would_fit"]["t1rho"]
    done = run(capsys, "t1rho", tmp_path / "scan.nii.gz", "-o", out, "--sigma", 0.5, *given)
    assert done.code == 0, done.err
    assert "5 spin-lock times, 0 ... 80 ms" in done.out
    np.testing.assert_allclose(load(out, "T1rhomap"), T1RHO, rtol=1e-5)
    sidecar = json.loads((out / "T1rhomap.json").read_text())
    assert (sidecar["Units"], sidecar["SpinLockTime"]) == ("s", TSL.tolist())
    record = json.loads((out / "provenance.json").read_text())
    assert record["command"] == "jaxqmri t1rho INPUT -o OUT --tsl-ms 0 10 20 40 80 --sigma 0.5 --mask none"
    assert (record["arguments"]["tsl_s"], record["input"]["spin_lock_times_s"]) == (TSL.tolist(), TSL.tolist())
    report = (out / "report.html").read_text()
    assert "T1rho map" in report
    assert "S(TSL) = S0 exp(-TSL / T1rho)" in report
