"""`benchmarks/accelerator.py` in its small form: every row, every check, and what it writes."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """From another folder, with only the script's own way to find jaxqmri."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), "--quick", "--json", "found.json", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accelerator")
    finished = run(folder, "--device", "cpu", "--limit", "900")  # other tests may run beside it
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout, json.loads((folder / "found.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cases():
    """Each row of the small form, by name: what makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        accelerator = importlib.import_module("accelerator")
        return accelerator.cases(accelerator.SIZES["quick"], jax.devices("cpu")[0])


@pytest.mark.slow
def test_table_has_every_row_and_all_checks_pass(done, cases):
    printed, found = done
    rows = re.findall(r"^\| (.+?) +\|.*\| (\w+) \|$", printed, re.MULTILINE)[1:]
    assert [row for row in rows if row[0] != "---"] == [(name, "pass") for name in cases]
    assert [row["name"] for row in found["rows"]] == list(cases)
    assert found["passed"]
    assert found["missing"] == []
    for row in found["rows"]:
        assert 0 <= row["error"] <= row["tolerance"] < 1.1e-2, row["name"]


@pytest.mark.slow
def test_file_says_what_was_measured_and_on_what(done):
    _, found = done
    assert found["device"]["platform"] == "cpu"
    assert found["device"]["versions"]["jax"] == jax.__version__
    assert {"kind", "runtime", "driver", "memory", "processor", "python"} <= set(found["device"])
    assert min(found["copy_bytes_per_second"], found["product_operations_per_second"]) > 1e6
    for row in found["rows"]:
        assert row["first_call"] == pytest.approx(row["compile"] + row["warm"], rel=1e-6) or row["compile"] == 0
        assert row["warm"] > 0
        assert row["bytes_per_second"] == pytest.approx(row["bytes"] / row["warm"])
        assert row["operations"] is None or row["operations"] > row["bytes"] / 100


def test_what_takes_too_long_is_left_out_and_said(tmp_path):
    finished = run(tmp_path, "--limit", "0.01")
    assert finished.returncode == 1
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert "match, T2 x B1" in found["missing"]
    assert not found["passed"]
    assert "Not measured: " in finished.stdout


def as_tf32(leaf):
    """With 10 bits of fraction, as the matrix units of some devices round what they are given."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    bits = jax.lax.bitcast_convert_type(leaf, jnp.int32)
    return jax.lax.bitcast_convert_type((bits + 2**12) & -(2**13), jnp.float32)


@pytest.mark.parametrize(
    "name", ["copy", "matrix product", "simulation", "simulation with derivatives", "fit of T2*, one slice"]
)
def test_a_device_that_rounds_to_tf32_would_fail(cases, name):
    case = cases[name]()
    assert case.error(jax.tree.map(as_tf32, case.run())) > 10 * case.tolerance


def test_a_match_to_the_next_atom_would_fail(cases):
    case = cases["match, T2"]()
    found = case.run()
    assert case.error(found) <= case.tolerance < 1e-3 * case.error(found._replace(index=np.asarray(found.index) ^ 1))


def test_a_fit_without_an_answer_would_fail(cases):
    case = cases["fit of T2*, one slice"]()
    found = case.run()
    assert np.isnan(case.error(found._replace(status=jnp.full_like(found.status, 3))))
