"""One damaged or closed part of a BIDS dataset, or of earlier results, stops nothing else and is done again."""

import json
import os
from pathlib import Path

import pytest
from bids_datasets import add_series, dataset
from command import run
from no_files import NO_FILES
from quick_bids import content, make_jobs_quick, rows

from jaxqmri.io.bids import dataset as datasets
from jaxqmri.io.storage.result_folder import RECORD


@pytest.fixture(autouse=True)
def quick_jobs(monkeypatch):
    make_jobs_quick(monkeypatch)


@pytest.fixture
def two(tmp_path):
    """Two participants with one series each."""
    root = dataset(tmp_path / "raw")
    for sub in ("01", "02"):
        add_series(root, sub, "MEGRE", part="_part-mag")
    return root


def mapped(capsys, root, out, code=0):
    done = run(capsys, "bids", root, out, "participant", "--no-report")
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    return done


def only_the_second(done, out):
    assert [path.name for path in out.glob("sub-*")] == ["sub-02"]
    assert (out / "dataset_description.json").exists()
    assert "1 of 2 series failed" in done.err


# in the raw dataset ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("no_file", NO_FILES[:2])
@pytest.mark.parametrize("name", ["sub-01_echo-1_part-mag_MEGRE.json", "sub-01_echo-9_part-mag_MEGRE.nii.gz"])
def test_a_sidecar_or_image_that_is_no_file(two, tmp_path, capsys, name, no_file):
    (two / "sub-01" / "anat" / name).unlink(missing_ok=True)
    no_file(two / "sub-01" / "anat" / name)
    only_the_second(mapped(capsys, two, tmp_path / "out", code=7), tmp_path / "out")
    assert "is a named pipe" in rows(tmp_path / "out")["sub-01_MEGRE"]["message"]


def test_a_folder_that_cannot_be_read(two, tmp_path, capsys, monkeypatch):
    listed = datasets._names  # the superuser passes permission bits, so the listing has to fail by itself

    def closed(folder: Path):
        if "sub-01" in folder.parts:
            raise datasets.NoInputError(f"{folder}: cannot be read (Permission denied); check its permissions.")
        return listed(folder)

    monkeypatch.setattr(datasets, "_names", closed)
    out = tmp_path / "out"
    done = mapped(capsys, two, out, code=7)
    only_the_second(done, out)
    assert "[1/2] sub-01: failed: sub-01: cannot be read (Permission denied)" in done.err
    assert rows(out)["n/a"]["status"] == "failed"
    monkeypatch.undo()
    make_jobs_quick(monkeypatch)
    mapped(capsys, two, out)
    assert {name: row["status"] for name, row in rows(out).items()} == {"sub-01_MEGRE": "done", "sub-02_MEGRE": "done"}


def test_an_image_that_may_not_be_looked_at(two, tmp_path, capsys, monkeypatch):
    def closed(series):
        if series.participant == "01":
            raise PermissionError(13, "Permission denied", str(series.images[0]))

    monkeypatch.setattr(datasets.BidsSeries, "check_fetched", closed)
    done = mapped(capsys, two, tmp_path / "out", code=7)
    only_the_second(done, tmp_path / "out")
    assert "MEGRE.nii.gz: cannot be read (Permission denied); check its name and permissions." in done.err


@pytest.mark.parametrize("label", [os.fsdecode(b"\x80"), "\x1b[31m"], ids=ascii)
def test_a_name_that_no_text_can_hold(two, tmp_path, capsys, label):
    folder = two / "sub-01" / "anat"
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("sub-01", f"sub-{label}")))
    folder.parent.rename(two / f"sub-{label}")
    done = mapped(capsys, two, tmp_path / "out", code=7)
    only_the_second(done, tmp_path / "out")
    assert "control characters, or no UTF-8, in their names; rename them" in done.err
    assert done.err.replace("\n", "").isprintable()
    mapped(capsys, two, tmp_path / "out", code=7)
    assert len((tmp_path / "out" / "summary.tsv").read_text().splitlines()) == 3


# in earlier results ---------------------------------------------------------------------------------------------------

DEEP = "[" * 100_000 + "]" * 100_000
DAMAGED = {
    "empty": lambda record: "",
    "a list": lambda record: "[1]",
    "deeply nested": lambda record: DEEP,
    "deeply nested within": lambda record: json.dumps(record)[:-1] + f', "x": {DEEP}}}',
    "not UTF-8": lambda record: json.dumps(record).replace("done", "d\udcffne"),
    **{
        f"without {key}": lambda record, key=key: json.dumps({k: v for k, v in record.items() if k != key})
        for key in ("row", "outputs")
    },
    **{
        f"{key} is {value!r}": lambda record, key=key, value=value: json.dumps(record | {key: value})
        for key in ("row", "outputs", "arguments", "warnings", "fingerprint")
        for value in (7, ["x", 7])
    },
    **{
        f"row without {key}": lambda record, key=key: json.dumps(
            record | {"row": {k: v for k, v in record["row"].items() if k != key}}
        )
        for key in ("map", "median_s", "series", "message")
    },
    "no such map": lambda record: json.dumps(record | {"row": record["row"] | {"map": "T9map"}}),
    "files elsewhere": lambda record: json.dumps(record | {"outputs": ["../raw/README.md"]}),
}


def test_a_damaged_record_is_one_of_nothing(two, tmp_path, capsys):
    out, record = tmp_path / "out", tmp_path / "out" / "logs" / "sub-01_MEGRE.json"
    mapped(capsys, two, out)
    whole, wanted = json.loads(record.read_text()), set(content(out))
    for name, damage in DAMAGED.items():
        record.write_bytes(damage(whole).encode(errors="surrogateescape"))
        done = run(capsys, "bids", two, out, "participant", "--no-report")
        assert done.code == 0, (name, done.err)
        assert set(content(out)) == wanted, name
        assert json.loads(record.read_text())["row"].keys() == whole["row"].keys(), name
        assert (two / "README.md").exists()


@pytest.mark.parametrize("name", ["summary.tsv", ".bidsignore", "logs/sub-01_MEGRE.json", "dataset_description.json"])
def test_results_that_are_no_files_are_replaced(two, tmp_path, capsys, name):
    out = tmp_path / "out"
    mapped(capsys, two, out)
    (out / name).unlink()
    if name == ".bidsignore":  # else it is not known as a derivative
        for path in [path for path in out.rglob("*") if path.is_file()]:
            path.unlink()
        for folder in (out / "logs", *out.glob("sub-*/*"), *out.glob("sub-*")):
            folder.rmdir()
    os.mkfifo(out / name)
    mapped(capsys, two, out)
    assert (out / name).is_file()


@pytest.mark.parametrize("damaged", ["[]", '{"versions": 1}', '{"versions": ["jaxqmri"], "outputs": [7]}', DEEP])
def test_a_damaged_record_of_a_run_names_nothing_to_remove(two, tmp_path, capsys, damaged):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    (out / RECORD).write_text(damaged)
    done = run(capsys, "t2star", two / "sub-01" / "anat", "-o", out, "--no-report", "--overwrite")
    assert done.code == 0, done.err
    assert (out / "mine").exists()
    assert "jaxqmri" in json.loads((out / RECORD).read_text())["versions"]
