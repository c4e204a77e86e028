"""What `jaxqmri inspect` says of a folder and `jaxqmri doctor` of the installation."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import run
from dicom_series import N_SLICES, enhanced, image, save, series, values
from nifti_files import echo_values, save_series
from nifti_files import save as save_nifti
from t1_scans import flip_angle_nifti, inversion_dicom, inversion_nifti

from jaxqmri.errors import remarks_collected
from jaxqmri.io.choose import choose
from jaxqmri.io.images import scan_images
from jaxqmri.workflow import installation

PHASE = ["ORIGINAL", "PRIMARY", "P", "ND"]


def description(facts):
    """The facts about a series without the verdict on it."""
    return {key: value for key, value in facts.items() if key not in ("input", "format", "commands", "why_not")}


def inspect(capsys, *words):
    """The JSON of a successful inspection."""
    done = run(capsys, "inspect", *words, "--json")
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_dicom_files_are_described_in_si_units(tmp_path, capsys):
    facts = inspect(capsys, save(tmp_path, series(RescaleSlope=2)))
    assert facts["would_fit"]["t2star"] == {"axis": "te", "numbers": [7], **description(facts["series"][0])}
    assert facts["series"][0] == {
        "number": 7,
        "uids": ["1.2.3"],
        "component": "magnitude",
        "echo_times_s": [0.005, 0.01, 0.02],
        "inversion_times_s": [],
        "flip_angles_rad": [0.436332312999],
        "repetition_times_s": [0.125],
        "shape": [4, 3, 2],
        "n_images": 6,
        "voxel_size_mm": [3, 2, 5],
        "scaling": "slope 2, intercept 0",
        "image_type": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "enhanced": False,
        "derived": False,
        "lacking": "",
        "input": "INPUT",
        "format": "DICOM",
        "commands": {"t2star": "jaxqmri t2star INPUT -o OUT"},
        "why_not": "",
    }
    assert facts["refusals"] == {}


def test_nifti_files_are_described_in_si_units(tmp_path, capsys):
    facts = inspect(capsys, save_series(tmp_path))
    (found,) = facts["series"]
    assert (found["number"], found["shape"], found["n_images"]) == (7, [5, 4, 3], 12)
    assert found["echo_times_s"] == [0.004, 0.009, 0.013, 0.05]
    np.testing.assert_allclose(found["voxel_size_mm"], [2, 1.5, 3], rtol=1e-6)
    assert (
        facts["would_fit"]["t2star"] == facts["would_fit"]["t2"] == {"axis": "te", "numbers": [7], **description(found)}
    )


def test_text_says_the_same_for_people(tmp_path, capsys):
    scan = save(tmp_path, series() + series(SeriesInstanceUID="1.2.9", SeriesNumber=8, ImageType=PHASE, EchoTime=5))
    (scan / "notes.txt").write_text("quench at noon")
    assert run(capsys, "inspect", scan).out.splitlines() == [
        "series 7: multi-echo GRE",
        "  magnitude, 3 echoes, TE 5 10 20 ms; flip angle 25 deg; TR 125 ms",
        "  matrix 4 x 3 x 2, voxel 3 x 2 x 5 mm, pixel values: slope 1, intercept 0",
        "  to map it: jaxqmri t2star INPUT -o OUT",
        "series 8: multi-echo GRE",
        "  phase, TE 5 ms; flip angle 25 deg; TR 125 ms",
        "  matrix 4 x 3 x 2, voxel 3 x 2 x 5 mm, pixel values: slope 1, intercept 0",
        "  6 images, where 2 slices of 1 echoes are 2",
        "  not mapped: phase images",
        "t2star would fit S(TE) = S0 exp(-TE / T2*) to series 7, the 3 magnitude echoes",
        "passed over: 1 not DICOM",
        "(-v names them)",
    ]
    assert run(capsys, "inspect", scan, "-v").out.splitlines()[-1] == "passed over: 1 not DICOM: notes.txt"


def test_missing_images_are_named_cell_by_cell_before_any_fit(tmp_path, capsys):
    datasets = series(n_slices=3)
    scan = save(tmp_path / "scan", [ds for i, ds in enumerate(datasets) if i not in (1, 4, 8)])
    lines = run(capsys, "inspect", scan).out.splitlines()
    assert lines[3] == "  incomplete: slice 2 of 3 lacks TE 5, 10 ms, slice 3 of 3 lacks TE 20 ms"
    assert lines[4].startswith("  not mapped: series 7 (magnitude, 3 echoes, 4x3x3): 3 of 9 images missing")
    assert lines[5] == lines[4].replace("  not mapped", "t2star would fit nothing")
    refusal = inspect(capsys, scan)["refusals"]["t2star"]
    assert run(capsys, "t2star", scan, "-o", tmp_path / "out").error == f"jaxqmri: error: {refusal}"


def test_what_is_derived_enhanced_or_of_the_same_number_is_marked(tmp_path, capsys):
    derived = series(SeriesInstanceUID="1.2.5", ImageType=["DERIVED", "SECONDARY", "M", "FILTERED"])
    lines = run(capsys, "inspect", save(tmp_path, [enhanced(series()), *derived])).out.splitlines()
    marks = {
        "series 7: multi-echo GRE (Enhanced MR)": "  UID 1.2.3, as another series has the same number",
        "series 7: multi-echo GRE": "  UID 1.2.5, as another series has the same number",
    }
    for title, uid in marks.items():
        assert lines.index(title) < lines.index(uid)
    assert lines.index("  derived by the scanner from other images: used only if there is nothing else") == (
        lines.index(marks["series 7: multi-echo GRE"]) - 1
    )


def test_a_series_can_be_looked_at_alone(tmp_path, capsys):
    scan = save(tmp_path / "scan", series() + series(SeriesInstanceUID="1.2.4", SeriesNumber=8))
    facts = inspect(capsys, scan, "--series", 8)
    assert [found["number"] for found in facts["series"]] == facts["would_fit"]["t2star"]["numbers"] == [8]
    assert facts["skipped"] == {"images of other series": 6}
    (tmp_path / "nifti").mkdir()
    save_nifti(tmp_path / "nifti" / "a.nii", echo_values(0.01), sidecar={"EchoTime": 0.01, "SeriesNumber": 3})
    save_nifti(tmp_path / "nifti" / "b.nii", echo_values(0.02), sidecar={"EchoTime": 0.02, "SeriesNumber": 4})
    assert [found["number"] for found in inspect(capsys, tmp_path / "nifti", "--series", 4)["series"]] == [4]
    assert inspect(capsys, tmp_path / "nifti", "--series", 4)["skipped"] == {"images of other series": 1}
    assert "no series 5, which is a series number" in run(capsys, "inspect", tmp_path / "nifti", "--series", 5).error


def test_images_without_number_description_or_echo_time(tmp_path, capsys):
    save_nifti(tmp_path / "a.nii", echo_values(0.01))
    done = run(capsys, "inspect", tmp_path)
    assert done.code == 0
    assert done.out.splitlines()[:2] == ["series without number: (no description)", "  magnitude, no usable echo times"]
    assert "t2star would fit nothing: a.nii: no EchoTime" in done.out


def test_series_in_which_no_flip_angle_varies_are_not_offered_as_flip_angles(tmp_path, capsys):
    for number, flip in ((3, 25), (4, 90)):  # a gradient and a spin echo of two echoes each
        for echo in (1, 2):
            sidecar = {"EchoTime": 0.01 * echo, "EchoNumber": echo, "SeriesNumber": number, "FlipAngle": flip}
            sidecar |= {"ScanningSequence": "GR" if number == 3 else "SE"}
            save_nifti(tmp_path / f"{number}_e{echo}.nii", echo_values(0.01 * echo), sidecar=sidecar)
    refusal = inspect(capsys, tmp_path)["refusals"]["t1"]
    assert "no inversion time or flip angle varies within any series" in refusal
    assert run(capsys, "t1", tmp_path, "-o", tmp_path / "out").error == f"jaxqmri: error: {refusal}"


def test_jobs_point_at_nifti_files_in_subfolders(tmp_path, capsys):
    (tmp_path / "sub-01").mkdir()
    save_series(tmp_path / "sub-01")
    done = run(capsys, "t2star", tmp_path, "-o", tmp_path / "out")
    assert done.code == 3
    assert "NIfTI files lie in subfolders, which are not searched; name the folder" in done.error
    assert "`jaxqmri bids`" in done.error


# one verdict per series -----------------------------------------------------------------------------------------------


def of_a_tree(folder):
    """DICOM and NIfTI series in folders of their own: echoes, phase, a lone echo, diffusion, spin locks, flips."""
    lone = [image(7.0, k, values(0, k), SeriesInstanceUID="1.9", SeriesNumber=9, RepetitionTime=2000) for k in range(2)]
    diffusion = {"EchoTime": 79, "EchoNumbers": 1, "ImageType": ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]}
    spin_locks = {"EchoTime": 5, "EchoNumbers": 1, "SeriesDescription": "T1rho prep"}
    files = [*series(), *series(SeriesInstanceUID="1.8", SeriesNumber=8, ImageType=PHASE), *lone]
    files += series(SeriesInstanceUID="1.10", SeriesNumber=10, **diffusion)
    files += series(SeriesInstanceUID="1.11", SeriesNumber=11, **spin_locks)
    save(folder / "dicom", files)
    (folder / "nifti").mkdir()
    save_series(folder / "nifti")
    flip_angle_nifti(folder / "sub-01" / "anat")
    return folder


def test_dicom_and_nifti_series_of_one_tree_get_a_verdict_each(tmp_path, capsys):
    found = inspect(capsys, of_a_tree(tmp_path / "tree"))["series"]
    commands = {(one["input"], one["number"]): one["commands"] for one in found if one["commands"]}
    assert commands == {
        ("INPUT/dicom", 7): {"t2star": "jaxqmri t2star INPUT/dicom -o OUT"},
        ("INPUT/nifti", 7): {
            "t2star": "jaxqmri t2star INPUT/nifti -o OUT",
            "t2": "jaxqmri t2 INPUT/nifti -o OUT --method mono",  # the echoes are not those of one train
        },
        ("INPUT/sub-01/anat", None): {"t1": "jaxqmri t1 INPUT/sub-01/anat -o OUT"},
    }  # fmt: skip
    assert {one["number"]: one["why_not"] for one in found if not one["commands"]} == {
        8: "phase images",
        9: "one echo alone; beside series 7 it differs in RepetitionTime 125 and 2000 ms",
        10: "TE 79 ms in all images; these are diffusion images, which are no echoes",
        11: "no spin-lock times are stated; give them: jaxqmri t1rho INPUT/dicom -o OUT --series 11 --tsl-ms"
        " TSL TSL TSL",
    }


def test_of_two_series_each_gets_its_own_command_which_works(tmp_path, capsys):
    scan = save(tmp_path / "scan", series() + series(SeriesInstanceUID="1.2.4", SeriesNumber=8))
    given = inspect(capsys, scan, "--te-ms", 4, 8, 12)["series"]
    assert given[1]["commands"] == {"t2star": "jaxqmri t2star INPUT -o OUT --series 8 --te-ms 4 8 12"}
    for found in inspect(capsys, scan)["series"]:
        words = found["commands"]["t2star"].replace("INPUT", str(scan)).split()[2:]
        with remarks_collected(), scan_images([Path(words[0])], series=words[4:]) as read:
            assert choose(read).numbers == (found["number"],)


def test_what_a_job_would_refuse_is_said_in_place_of_a_command(tmp_path, capsys):
    files = series((3.0, 3.0, 3.0), RepetitionTime=None)
    for i, ds in enumerate(files):
        ds.FlipAngle = (3, 8, 17)[i // N_SLICES]
    facts = inspect(capsys, save(tmp_path / "scan", files))
    (found,) = facts["series"]
    assert (found["commands"], facts["would_fit"]) == ({}, {})
    assert "no single RepetitionTime" in found["why_not"]
    assert "--tr-ms" in found["why_not"]
    assert "--tr-ms" in facts["refusals"]["t1"]


def test_time_points_are_inspected_one_by_one(tmp_path, capsys):
    files = series() + series(SeriesInstanceUID="1.2.4", SeriesNumber=8)
    for i, ds in enumerate(files[:6] + (later := series())):
        ds.TemporalPositionIdentifier = 1 + i // 6
    scan = save(tmp_path / "scan", files + later)
    commands = [found["commands"] for found in inspect(capsys, scan, "--time-point", 2)["series"]]
    assert commands == [
        {"t2star": "jaxqmri t2star INPUT -o OUT --series 7 --time-point 2"},
        {"t2star": "jaxqmri t2star INPUT -o OUT --series 8"},
    ]
    assert "--time-point 1" in inspect(capsys, scan)["series"][0]["why_not"]


@pytest.mark.parametrize("separate", [True, False], ids=["one series each", "one series"])
def test_spin_lock_series_are_told_how_to_give_their_times(tmp_path, capsys, separate):
    files = series(EchoTime=5, EchoNumbers=1, SeriesDescription="T1rho")
    for i, ds in enumerate(files):
        ds.SeriesInstanceUID, ds.SeriesNumber = (f"1.2.{i // 2}", 20 + i // 2) if separate else ("1.2", 20)
    for found in inspect(capsys, save(tmp_path / "scan", files))["series"]:
        assert found["why_not"].endswith("jaxqmri t1rho INPUT -o OUT --tsl-ms TSL TSL TSL")
    done = json.loads(run(capsys, "inspect", tmp_path / "scan", "--json", "--tsl-ms", 0, 20, 40).out)
    assert done["would_fit"]["t1rho"]["spin_lock_times_s"] == [0, 0.02, 0.04]


@pytest.mark.parametrize(
    ("datasets", "n_series", "words"),
    [
        (series(ImageType=PHASE), 1, "not magnitude"),
        (series((5.0,)), 1, "only one echo"),
        (series(EchoTime=None), 1, r"EchoTime (0018,0081): missing or empty"),
        (series() + series(SeriesInstanceUID="1.2.4", SeriesNumber=8), 2, "only one can be read"),
    ],
)
def test_what_cannot_be_fitted_is_listed_with_the_reason_that_the_job_would_give(
    tmp_path, capsys, datasets, n_series, words
):
    scan = save(tmp_path / "scan", datasets)
    facts = inspect(capsys, scan)
    assert len(facts["series"]) == n_series
    assert facts["would_fit"] == {}
    assert words in facts["refusals"]["t2star"]
    for job, refusal in facts["refusals"].items():
        assert run(capsys, job, scan, "-o", tmp_path / "out").error == f"jaxqmri: error: {refusal}"


def test_series_of_one_echo_each_are_described_as_they_would_be_joined(tmp_path, capsys):
    for number, te in enumerate((0.01, 0.02), start=1):
        sidecar = {"EchoTime": te, "SeriesNumber": number}
        save_nifti(tmp_path / f"{number}.nii", echo_values(te), sidecar=sidecar)
    done = run(capsys, "inspect", tmp_path, "--json")
    facts = json.loads(done.out)
    assert [found["echo_times_s"] for found in facts["series"]] == [[0.01], [0.02]]
    assert facts["would_fit"]["t2star"]["echo_times_s"] == [0.01, 0.02]
    assert "2 series of one echo each" in done.err


def test_inversion_times_and_flip_angles_are_for_t1(tmp_path, capsys):
    for make, axis, images in (
        (
            inversion_dicom,
            "ti",
            "inversion recovery to series 3, 4, 5, 6, 7, 8, the 6 magnitude images of different inv",
        ),
        (flip_angle_nifti, "flip_angle", "spoiled gradient echoes to series without number, the 3 magnitude images of"),
    ):
        scan = make(tmp_path / axis)
        done = run(capsys, "inspect", scan)
        assert done.code == 0
        assert f"t1 would fit {'an ' if axis == 'ti' else ''}{images}" in done.out.splitlines()[-1]
        facts = json.loads(run(capsys, "inspect", scan, "--json").out)
        assert (list(facts["would_fit"]), facts["would_fit"]["t1"]["axis"]) == (["t1"], axis)
        assert facts["refusals"] == {}


def test_beside_flip_angles_inversion_times_are_mapped_by_naming_the_method(tmp_path, capsys):
    flip_angle_nifti(tmp_path)
    found = inspect(capsys, inversion_nifti(tmp_path))["series"]
    commands = {word for one in found for word in one["commands"].values()}
    assert commands == {f"jaxqmri t1 INPUT -o OUT --method {method}" for method in ("ir", "vfa")}


def test_given_inversion_times_are_those_that_would_be_used(tmp_path, capsys):
    scan = inversion_dicom(tmp_path, InversionTime="")
    found = json.loads(run(capsys, "inspect", scan, "--json", "--ti-ms", "60,160,410,910,2010,4010").out)["would_fit"]
    assert found["t1"]["inversion_times_s"] == [0.06, 0.16, 0.41, 0.91, 2.01, 4.01]


def test_what_varies_in_one_job_only_is_told_where_it_does(tmp_path, capsys):
    for number, tsl in enumerate((0.0, 0.02, 0.05), start=1):
        sidecar = {"EchoTime": 0.01, "SpinLockTime": tsl, "SeriesNumber": number}
        save_nifti(tmp_path / f"{number}.nii", echo_values(tsl), sidecar=sidecar)
    text = run(capsys, "inspect", tmp_path).out
    model = "S(TSL) = S0 exp(-TSL / T1rho)"
    assert f"t1rho would fit {model} to series 1, 2, 3, the 3 magnitude images of different spin-lock times" in text
    done = run(capsys, "inspect", tmp_path, "--json", "--tsl-ms", 1, 10, 40)
    assert json.loads(done.out)["would_fit"]["t1rho"]["spin_lock_times_s"] == [0.001, 0.01, 0.04]


@pytest.mark.parametrize(("sequence", "jobs"), [("SE", ["t2"]), ("GR", ["t2star"]), ("RM", ["t2star", "t2"])])
def test_the_scanning_sequence_tells_t2_from_t2star(tmp_path, capsys, sequence, jobs):
    facts = inspect(capsys, save(tmp_path, series(ScanningSequence=sequence, FlipAngle=90)))
    assert list(facts["would_fit"]) == jobs


def test_given_echo_times_are_those_that_would_be_used(tmp_path, capsys):
    facts = inspect(capsys, save(tmp_path, series(EchoTime=None)), "--te-ms", 5, 10, 20)
    assert facts["would_fit"]["t2star"]["echo_times_s"] == [0.005, 0.01, 0.02]


def test_nothing_to_inspect_is_exit_code_3(tmp_path, capsys):
    done = run(capsys, "inspect", tmp_path)
    assert done.code == 3
    assert "no DICOM or NIfTI images found" in done.error


def test_files_of_both_formats_side_by_side_are_listed_and_not_guessed_about(tmp_path, capsys):
    save_series(save(tmp_path / "scan", series()))
    found = inspect(capsys, tmp_path / "scan")["series"]
    assert [(one["format"], one["input"]) for one in found] == [("NIfTI", "FOLDER"), ("DICOM", "FOLDER")]
    assert "DICOM files in FOLDER, one of their own" in run(capsys, "inspect", tmp_path / "scan").out
    done = run(capsys, "t2star", tmp_path / "scan", "-o", tmp_path / "out")
    assert done.code == 4
    assert "6 DICOM and 4 NIfTI files side by side" in done.error


def test_no_identity_is_printed(tmp_path, capsys):
    scan = save(tmp_path, series(PatientName="SECRET^NAME", PatientID="SECRET"), prefix="SECRET")
    for words in ((), ("-v",), ("--json",)):
        assert "SECRET" not in run(capsys, "inspect", scan, *words).out


def test_real_ge_images_told_apart_by_a_private_tag_only(shared_data, capsys):
    facts = inspect(capsys, shared_data / "ge_gre12_kidney" / "s16_dicom")
    assert [found["component"] for found in facts["series"]] == ["magnitude", "real", "imaginary"]
    (chosen,) = facts["would_fit"].values()
    assert chosen == {"axis": "te", "numbers": chosen["numbers"], **description(facts["series"][0])}
    assert (chosen["shape"], chosen["n_images"]) == ([256, 256, 3], 36)


# the installation -----------------------------------------------------------------------------------------------------


def test_doctor_lists_what_an_answer_to_a_question_needs(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXQMRI_DATA_DIR", str(tmp_path))
    done = run(capsys, "doctor", "--json")
    facts = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert {"jaxqmri", "python", "jax", "numpy", "pydicom"} <= set(facts["versions"])
    assert any(device.startswith("cpu:0") for device in facts["devices"]) or facts["jax_backend"] != "cpu"
    assert facts["x64"] is False
    assert set(facts["extras"]) == {"dicom-codecs", "cuda12", "cuda13", "tpu"}
    assert facts["data_cache"] == str(tmp_path)
    text = run(capsys, "doctor").out
    for name, version in facts["versions"].items():
        assert f"{name:<14} {version}\n" in text
    for line in text.splitlines():
        assert line[14] == " ", "names and facts stand in two columns"


def test_doctor_finds_missing_extras(capsys, monkeypatch):
    monkeypatch.setattr(installation, "version_of", lambda package: "0.1" if package == "libtpu" else None)
    lines = run(capsys, "doctor").out.splitlines()
    assert "extras         tpu" in lines
    assert 'extras missing dicom-codecs, cuda12, cuda13 (pip install "jaxqmri[NAME]")' in lines
    monkeypatch.setattr(installation, "version_of", lambda _: "0.1")
    assert "extras missing none" in run(capsys, "doctor").out.splitlines()


def test_doctor_survives_a_broken_device(capsys, monkeypatch):
    import jax

    def broken():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", broken)
    done = run(capsys, "doctor")
    assert done.code == 0
    assert "JAX backend    none: Unable to initialize backend 'cuda'" in done.out.splitlines()
