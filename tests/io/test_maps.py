"""Writing maps: what a viewer reads back is what was estimated, and a failed write harms nothing."""

import errno
import gzip
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import load

from jaxqmri.errors import OutputError
from jaxqmri.io.maps import Maps, check_output_folder, write_maps
from jaxqmri.io.series import ImageSeries
from jaxqmri.io.storage.atomic import strict_json, write_bytes, write_files, write_text
from jaxqmri.quantities import ECHO_TIME, MAP_KINDS, map_kind

SHAPE = (4, 3, 2)
# 2 x 1.5 x 3 mm voxels, rotated about all axes.
ROTATION = np.array([[0.8660254, -0.5, 0.0], [0.4698463, 0.8137977, -0.3420201], [0.1710101, 0.2961981, 0.9396926]])
OBLIQUE = np.block([[ROTATION * [2.0, 1.5, 3.0], np.array([[-31.0], [12.5], [7.0]])], [np.zeros((1, 3)), 1.0]])


def make_series(affine=OBLIQUE):
    te_ms = np.array([4.1, 9.221, 13.831])  # 4.1 * 1e-3 is 0.0040999999999999995
    return ImageSeries(
        data=np.ones((*SHAPE, 3), np.float32),
        axis=ECHO_TIME,
        values=te_ms * 1e-3,
        affine=affine,
        acquisition={"RepetitionTime": 0.13, "FlipAngle": 25},
    )


def make_maps():
    t2star = np.linspace(0.005, 0.05, 24).reshape(SHAPE)
    t2star[0, 0, 0] = np.nan
    status = np.arange(24).reshape(SHAPE) % 5
    levels = {0: "OK", 1: "NO_SIGNAL"}
    metadata = {"EstimationAlgorithm": "Levenberg-Marquardt", "Tolerance": np.float32(1e-4), "Levels": levels}
    return Maps({"T2starmap": t2star, "T2starmap_stderr": t2star / 50, "status": status}, metadata)


# maps ----------------------------------------------------------------------------------------------------------------


def test_values_and_places_come_back(tmp_path):
    maps = make_maps()
    paths = write_maps(tmp_path / "new" / "out", maps, make_series())
    assert [path.name for path in paths] == ["T2starmap.nii.gz", "T2starmap_stderr.nii.gz", "status.nii.gz"]
    for path, values in zip(paths, maps.values(), strict=True):
        image = load(path)
        np.testing.assert_array_equal(image.get_fdata(), np.float32(values))
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
        for affine in (image.get_sform(), image.get_qform()):
            np.testing.assert_allclose(np.asarray(affine), OBLIQUE, rtol=0, atol=1e-5)
        assert image.header.get_xyzt_units() == ("mm", "sec")
        np.testing.assert_allclose(image.header.get_zooms(), (2.0, 1.5, 3.0), rtol=1e-6)
    assert [load(path).get_data_dtype() for path in paths] == [np.float32, np.float32, np.uint8]


def test_stored_floats_carry_no_scaling(tmp_path):
    # Some readers multiply by whatever the slope says, also by NaN.
    (path,) = write_maps(tmp_path, {"T2map": np.full(SHAPE, 0.1)}, make_series())
    raw = gzip.decompress(path.read_bytes())
    assert np.frombuffer(raw[112:120], "<f4").tolist() == [1.0, 0.0]


def test_left_handed_axes_come_back(tmp_path):
    flipped = OBLIQUE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    (path,) = write_maps(tmp_path, {"T2map": np.ones(SHAPE)}, make_series(flipped))
    np.testing.assert_allclose(np.asarray(load(path).get_qform()), flipped, rtol=0, atol=1e-5)


def test_sheared_grid_is_in_the_sform_and_no_reader_is_sent_to_the_qform(tmp_path):
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += 0.3 * sheared[:3, 1]  # a tilted gantry
    (path,) = write_maps(tmp_path, {"T2map": np.ones(SHAPE)}, make_series(sheared))
    header = load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(np.asarray(header.get_best_affine()), sheared, rtol=0, atol=1e-5)


def test_sidecars_say_units_echo_times_and_how_it_was_estimated(tmp_path):
    write_maps(tmp_path, make_maps(), make_series())
    content = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    t2star = content["T2starmap"]
    assert t2star["Units"] == content["T2starmap_stderr"]["Units"] == "s"
    assert t2star["EchoTime"] == [0.0041, 0.009221, 0.013831]
    assert t2star["SkullStripped"] is False
    assert (t2star["RepetitionTime"], t2star["FlipAngle"]) == (0.13, 25)
    assert t2star["EstimationAlgorithm"] == "Levenberg-Marquardt"
    assert t2star["Tolerance"] == pytest.approx(1e-4)
    assert content["status"]["Levels"] == {"0": "OK", "1": "NO_SIGNAL"}
    assert "Levels" not in t2star
    assert "standard error" in content["T2starmap_stderr"]["Description"]


def test_metadata_cannot_change_the_unit(tmp_path):
    write_maps(tmp_path, Maps({"T2map": np.ones(SHAPE)}, {"Units": "ms", "EchoTime": 3}), make_series())
    content = json.loads((tmp_path / "T2map.json").read_text())
    assert (content["Units"], len(content["EchoTime"])) == ("s", 3)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        *((f"T{k}map", "s") for k in ("1", "2", "2star")),
        *((f"R{k}map", "1/s") for k in ("1", "2", "2star")),
        ("S0map", "arbitrary"),
        ("M0map", "arbitrary"),
        ("R2starmap_stderr", "1/s"),
        ("residual", "1"),
        ("TB1map", "relative"),
    ],
)
def test_units_are_those_of_bids(name, units):
    assert map_kind(name).units == units


def test_equal_maps_give_equal_bytes_without_date_or_name(tmp_path):
    for folder in ("a", "b"):
        write_maps(tmp_path / folder, make_maps(), make_series())
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 6
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    head = (tmp_path / "a" / "status.nii.gz").read_bytes()[:8]
    assert head == b"\x1f\x8b\x08\0\0\0\0\0"  # no flags (so no name), time 0


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ({"T3map": np.ones(SHAPE)}, "T3map.*T2starmap"),
        ({"status_stderr": np.ones(SHAPE)}, "status_stderr"),
        ({"T2map": np.ones((3, 4, 2))}, r"\(3, 4, 2\).*\(4, 3, 2\)"),
        ({"T2map": np.ones(())}, "T2map"),
        ({"status": np.full(SHAPE, 256)}, "0 to 255"),
        ({"status": np.full(SHAPE, 0.5)}, "0 to 255"),
    ],
)
def test_maps_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, maps, words):
    with pytest.raises(ValueError, match=words):
        write_maps(tmp_path / "out", {"S0map": np.ones(SHAPE)} | maps, make_series())
    assert not (tmp_path / "out").exists()


def test_grid_without_extent_is_refused(tmp_path):
    with pytest.raises(ValueError, match="affine of the series has no inverse"):
        write_maps(tmp_path, {"T2map": np.ones(SHAPE)}, make_series(np.zeros((4, 4))))


def test_existing_maps_are_kept_unless_told_otherwise(tmp_path):
    series = make_series()
    (tmp_path / "notes.txt").write_text("stays")
    write_maps(tmp_path, {"T2map": np.ones(SHAPE)}, series)
    with pytest.raises(OutputError, match=r"T2map.*replace them with overwrite=True"):
        write_maps(tmp_path, {"T2map": np.zeros(SHAPE), "S0map": np.zeros(SHAPE)}, series)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["T2map.json", "T2map.nii.gz", "notes.txt"]
    np.testing.assert_array_equal(load(tmp_path / "T2map.nii.gz").get_fdata(), 1)
    write_maps(tmp_path, {"T2map": np.zeros(SHAPE)}, series, overwrite=True)
    np.testing.assert_array_equal(load(tmp_path / "T2map.nii.gz").get_fdata(), 0)


def fail_at(monkeypatch, function, call, error):
    """Makes the n-th call of os.fsync or os.replace fail."""
    genuine, calls = getattr(os, function), []

    def sometimes(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise error
        return genuine(*args, **kwargs)

    monkeypatch.setattr(os, function, sometimes)


@pytest.mark.parametrize("call", range(2, 8))  # the first is the probe of the folder; then six files
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_full_disk_or_interrupt_changes_no_old_file(tmp_path, monkeypatch, call, error):
    write_maps(tmp_path, make_maps(), make_series())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = Maps({name: values * 0 + 1 for name, values in make_maps().items()})
    fail_at(monkeypatch, "fsync", call, error)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        write_maps(tmp_path, other, make_series(), overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    if isinstance(error, OSError):
        assert "No space left on device" in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("call", range(1, 7))
def test_interrupt_between_renames_leaves_whole_files_and_no_image_without_its_sidecar(tmp_path, monkeypatch, call):
    fail_at(monkeypatch, "replace", call, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_maps(tmp_path, make_maps(), make_series())
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == call - 1
    assert not [name for name in names if name.endswith(".tmp")]
    for path in tmp_path.glob("*.nii.gz"):
        assert np.isfinite(load(path).get_fdata()).any()
        assert "Units" in json.loads((tmp_path / path.name.replace(".nii.gz", ".json")).read_text())


# the output folder ---------------------------------------------------------------------------------------------------


def test_new_and_empty_folders_are_fine_and_left_empty(tmp_path):
    for folder in (tmp_path / "a" / "b", tmp_path / "a" / "b"):
        check_output_folder(folder, inputs=[tmp_path])
        assert list(folder.iterdir()) == []


def test_folder_with_files_needs_overwrite(tmp_path):
    (tmp_path / ".DS_Store").write_bytes(b"")
    check_output_folder(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_text("")
    with pytest.raises(OutputError, match="already has 2 files; choose another folder, or replace"):
        check_output_folder(tmp_path)
    check_output_folder(tmp_path, overwrite=True)


def test_file_is_no_folder(tmp_path):
    path = tmp_path / "out"
    path.write_text("precious")
    for folder in (path, path / "maps"):
        with pytest.raises(OutputError):
            check_output_folder(folder, overwrite=True)
    assert path.read_text() == "precious"


def test_input_folder_is_never_the_output_folder(tmp_path, monkeypatch):
    source = tmp_path / "scan"
    source.mkdir()
    (source / "e1.nii").write_text("")
    (tmp_path / "link").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    for folder in (source, tmp_path / "link", Path("scan"), source / ".." / "scan"):
        for inputs in ([source], [source / "e1.nii"]):
            with pytest.raises(OutputError, match="is the input folder"):
                check_output_folder(folder, inputs=inputs, overwrite=True)
    check_output_folder(source / "maps", inputs=[source])


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system nobody can write to")
def test_what_cannot_be_written_is_found_by_trying(tmp_path):
    # Permission bits would not stop the superuser; /proc stops everybody.
    with pytest.raises(OutputError, match="cannot write /proc/self") as raised:
        check_output_folder("/proc/self", overwrite=True)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 6


def test_too_long_a_name_is_one_clean_message(tmp_path):
    with pytest.raises(OutputError, match="File name too long"):
        check_output_folder(tmp_path / ("x" * 300))


# atomic files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), KeyboardInterrupt(), SystemExit(1)])
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function, error):
    path = tmp_path / "report.html"
    write_text(path, "old")
    fail_at(monkeypatch, function, 1, error)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_content_is_on_disk_before_the_old_one_goes(tmp_path, monkeypatch):
    path, seen = tmp_path / "a", []
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((os.fstat(descriptor).st_size, path.read_bytes())))
    write_bytes(path, b"newer")
    assert seen[0] == (5, b"old")
    assert path.read_bytes() == b"newer"


def test_files_get_the_permissions_the_umask_says(tmp_path):
    write = "from jaxqmri.io.storage.atomic import write_bytes; write_bytes(sys.argv[1], b'')"
    code = f"import os, sys; os.umask(0o027); {write}"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True, cwd=Path(__file__).parents[2])
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("target", ["missing/a", "file/a", "folder"])
def test_impossible_targets_are_output_errors(tmp_path, target):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write") as raised:
        write_bytes(tmp_path / target, b"")
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_unicode_spaces_and_long_names(tmp_path):
    for name in ("é ü 図.json", "-o", "x" * 250 + ".txt"):
        write_text(tmp_path / name, "µs")
        assert (tmp_path / name).read_bytes() == "µs".encode()


def test_text_no_encoding_can_hold_is_written_with_a_question_mark(tmp_path):
    write_text(tmp_path / "a", "file \udcff.dcm")  # how Python shows a file name that is not UTF-8
    assert (tmp_path / "a").read_bytes() == b"file ?.dcm"


def test_files_that_belong_together_appear_in_order(tmp_path, monkeypatch):
    renamed, genuine = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (renamed.append(Path(b).name), genuine(a, b)))
    write_files({tmp_path / name: name.encode() for name in ("z", "a", "m")})
    assert renamed == ["z", "a", "m"]


def test_json_is_strict():
    content = {"b": np.float32("nan"), "a": [np.inf, 1.5, np.int64(3)], 1: np.array([[1.0, np.nan]]), "µ": (True, None)}
    text = strict_json(content)

    def refuse(token):
        raise AssertionError(token)

    assert json.loads(text, parse_constant=refuse) == {
        "b": None,
        "a": [None, 1.5, 3],
        "1": [[1.0, None]],
        "µ": [True, None],
    }
    assert text.endswith("}\n")
    assert text.index('"b"') < text.index('"a"')


def test_every_known_map_can_be_written(tmp_path):
    write_maps(tmp_path, dict.fromkeys(MAP_KINDS, np.ones(SHAPE)), make_series())
    for name, kind in MAP_KINDS.items():
        assert json.loads((tmp_path / f"{name}.json").read_text())["Units"] == kind.units
