"""The table of bad inputs, row by row: exit code, one line that says what is wrong, nothing half written.

`pytest tests/cli/test_bad_inputs.py -s` prints it.
"""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from bad_inputs import NOTHING_IS_FITTED, Case, answer, table, verify
from bad_inputs_dicom import DICOM_CASES
from bad_inputs_nifti import NIFTI_CASES
from bad_inputs_places import MACHINE_CASES
from command import run
from small_scans import load, nifti_folder
from small_scans import signal as decays

from jaxqmri.dictionary import match as matching
from jaxqmri.mapping.fitting import estimate

CASES = [*DICOM_CASES, *NIFTI_CASES, *MACHINE_CASES]
MAPS = ("R2starmap", "S0map", "T2starmap", "T2starmap_stderr", "residual")


@pytest.fixture(scope="module")
def answers() -> Iterator[list[tuple[Case, str]]]:
    found: list[tuple[Case, str]] = []
    yield found
    print("\n" + table(found))


def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def computed(*_args, **_kwargs):
        raise AssertionError("bad input must be found before anything is computed")

    monkeypatch.setattr(estimate, "fit", computed)
    monkeypatch.setattr(matching, "match", computed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_row(case, tmp_path, capsys, monkeypatch, answers):
    if case.code in NOTHING_IS_FITTED:
        nothing_is_computed(monkeypatch)
    done = answer(case, tmp_path, capsys)
    told = "".join(line.removeprefix("jaxqmri: ") for line in done.err.splitlines()[-1:])  # an error is the last one
    answers.append((case, f"exit {done.code} {told.replace(f'{tmp_path}/', '')}"[:150]))
    verify(case, done, tmp_path)


def test_every_row_has_a_case():
    assert {case.row for case in CASES} == set(range(1, 59))


def test_voxels_without_an_answer_say_why_and_leave_their_neighbours_alone(tmp_path, capsys):
    images = decays()
    images[0, 0], images[0, 1, 2], images[0, 2, 1] = 0.0, np.nan, np.inf
    images[0, 3], images[0, 4] = 100.0, [100.0, 200.0, 300.0, 400.0]
    for source, out in ((decays(), "good"), (images, "bad")):
        scan = nifti_folder(tmp_path / f"{out} scan", source)
        assert run(capsys, "t2star", scan, "-o", tmp_path / out, "--no-report").code == 0
    levels = json.loads((tmp_path / "bad" / "status.json").read_text())["Levels"]
    status = [levels[str(int(code))] for code in load(tmp_path / "bad", "status")[0, :6, 0]]
    assert status == ["NO_SIGNAL", "NOT_FINITE", "NOT_FINITE", "AT_BOUND", "AT_BOUND", "OK"]
    for name in MAPS:
        good, bad = load(tmp_path / "good", name), load(tmp_path / "bad", name)
        assert np.isnan(bad[0, :5]).all()
        good[0, :5] = np.nan
        np.testing.assert_array_equal(bad, good)


def test_images_of_nothing_give_empty_maps_a_report_and_a_warning(tmp_path, capsys):
    scan = nifti_folder(tmp_path / "scan", np.zeros((16, 16, 4)))
    done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "-v")
    assert done.code == 0
    assert done.err.count("warning") == 1, "no library stumbles over maps without values"
    assert "no voxel could be fitted (256 NO_SIGNAL)" in done.err
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".gz", ".json", ".png", ".html"}
    assert "no voxel could be fitted" in (tmp_path / "out" / "report.html").read_text()
    assert np.isnan(load(tmp_path / "out", "T2starmap")).all()
    again = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--overwrite", "--no-report", "--json")
    assert json.loads(again.out)["maps"] == {}
