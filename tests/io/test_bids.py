"""What is read of a BIDS dataset: names, inherited metadata, series kept apart, and what is wrong with it."""

import json
import os

import numpy as np
import pytest
from bids_datasets import COMMON, SCANNER, SHAPE, T2STAR, TE_GRE, add_series, dataset, megre, save
from nifti_files import edit

from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, NoInputError, UsageError
from jaxqmri.io.bids.dataset import find_b1_map, find_series, open_dataset
from jaxqmri.io.bids.names import parse_name
from jaxqmri.io.nifti.reader import read_nifti
from jaxqmri.io.nifti.sidecar import read_sidecar


@pytest.fixture
def root(tmp_path):
    return dataset(tmp_path / "raw")


def names(root, *participants, **options):
    found = find_series(open_dataset(root), participants or None, **options)
    return {who: [str(series.name) for series in several] for who, several in found.items()}


# names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stem", ["sub-01_ses-pre_acq-a_run-2_echo-3_part-mag_MEGRE", "sub-01_T1w", "sub-Ärger_inv-1_IRT1", "sub-1_VFA"]
)
def test_a_name_taken_apart_and_put_together_is_the_same(stem):
    assert str(parse_name(stem)) == stem


@pytest.mark.parametrize("stem", ["scan_e1", "sub-01_echo-1", "sub-_MEGRE", "-01_MEGRE", "sub-01_x_MEGRE", ""])
def test_other_names_are_no_bids_names(stem):
    assert parse_name(stem) is None


def test_the_series_is_what_the_names_of_its_images_share():
    name = parse_name("sub-01_ses-pre_acq-a_run-2_echo-3_part-mag_MEGRE")
    assert name is not None
    assert str(name.series) == "sub-01_ses-pre_acq-a_run-2_MEGRE"
    assert name.number("te") == 3
    assert name.number("ti") is None


# inheritance ----------------------------------------------------------------------------------------------------------


def test_metadata_are_inherited_and_what_is_closer_wins(root):
    folder = add_series(root, "01", "MEGRE", "pre", "_acq-a")
    above = {
        root / "MEGRE.json": {"FlipAngle": 1, "RepetitionTime": 1, "EchoTime": 0.5, "Manufacturer": "A"},
        root / "acq-a_MEGRE.json": {"FlipAngle": 2},  # the same folder, but says more
        root / "acq-b_MEGRE.json": {"FlipAngle": 99},
        root / "MESE.json": {"FlipAngle": 98},
        root / "sub-01" / "sub-01_MEGRE.json": {"RepetitionTime": 3},
        root / "sub-01" / "ses-pre" / "sub-01_ses-pre_MEGRE.json": {"Manufacturer": "B"},
    }
    for path, content in above.items():
        path.write_text(json.dumps(content))
    found = read_sidecar(folder / "sub-01_ses-pre_acq-a_echo-2_MEGRE.nii.gz")
    assert found == {"FlipAngle": 2, "RepetitionTime": 3, "EchoTime": TE_GRE[1], "Manufacturer": "B"}


def test_a_series_in_a_dataset_is_read_with_what_it_inherits(root):
    folder = add_series(root, "01", "MEGRE", part="_part-mag")
    series = read_nifti(folder)
    np.testing.assert_allclose(series.te, TE_GRE)
    np.testing.assert_array_equal(series.data, np.stack(megre()[2], axis=-1).astype(np.float32))
    assert series.acquisition["RepetitionTimeExcitation"] == COMMON["MEGRE"]["RepetitionTimeExcitation"]
    assert series.acquisition["Manufacturer"] == SCANNER["Manufacturer"]


def test_one_4d_file_gets_its_echo_times_from_above(root):
    folder = root / "sub-01" / "anat"
    folder.mkdir(parents=True)
    save(folder / "sub-01_part-mag_MEGRE.nii.gz", np.stack(megre()[2], axis=-1))
    (root / "MEGRE.json").write_text(json.dumps({"EchoTime": list(TE_GRE)}))
    np.testing.assert_allclose(read_nifti(folder).te, TE_GRE)


def test_metadata_that_are_added_later_are_found(root):
    folder = add_series(root, "01", "MEGRE", part="_part-mag")
    for path in (root, folder, folder.parent):
        os.utime(path, (1e9, 1e9))  # long at rest, as folders of others are
    assert "FlipAngle" in read_nifti(folder).acquisition
    (folder / "sub-01_MEGRE.json").write_text(json.dumps({"FlipAngle": 33}))
    assert read_nifti(folder).acquisition["FlipAngle"] == 33


def test_broken_json_above_the_images_is_named(root):
    folder = add_series(root, "01", "MEGRE")
    (root / "MEGRE.json").write_text("{")
    with pytest.raises(MetadataError, match=r"^MEGRE\.json: not valid JSON"):
        read_nifti(folder)


# series ---------------------------------------------------------------------------------------------------------------


def test_acquisitions_runs_sessions_and_kinds_are_series_of_their_own(root):
    for ses in ("pre", "post"):
        for middle in ("_acq-a_run-1", "_acq-a_run-2", "_acq-b"):
            add_series(root, "01", "MEGRE", ses, middle)
    add_series(root, "02", "VFA")
    add_series(root, "02", "MESE", part="_part-mag")
    save(root / "sub-02" / "anat" / "sub-02_T1w.nii.gz", T2STAR)
    found = names(root)
    assert found["02"] == ["sub-02_MESE", "sub-02_VFA"]
    middles = ("acq-a_run-1", "acq-a_run-2", "acq-b")
    assert found["01"] == [f"sub-01_ses-{ses}_{middle}_MEGRE" for ses in ("post", "pre") for middle in middles]
    assert names(root, "sub-01", sessions=["ses-pre"])["01"] == [f"sub-01_ses-pre_{middle}_MEGRE" for middle in middles]


def test_several_echoes_named_t2starw_are_a_series_one_is_not(root):
    folder = add_series(root, "01", "MEGRE", part="_part-mag")
    for path in sorted(folder.iterdir()):
        path.rename(folder / path.name.replace("MEGRE", "T2starw"))
    assert read_nifti(folder).te.tolist() == list(TE_GRE)
    save(root / "sub-01" / "anat" / "sub-01_acq-one_T2starw.nii.gz", T2STAR)
    assert names(root) == {"01": ["sub-01_T2starw"]}


def test_phase_images_belong_to_the_series_and_are_not_fitted(root):
    folder = add_series(root, "01", "MEGRE", part="_part-mag")
    add_series(root, "01", "MEGRE", part="_part-phase")
    assert names(root) == {"01": ["sub-01_MEGRE"]}
    assert read_nifti(folder).skipped == {"phase images": 4}


def test_two_runs_are_never_mixed(root):
    folder = add_series(root, "01", "MEGRE", middle="_run-1")
    add_series(root, "01", "MEGRE", middle="_run-2")
    with pytest.raises(CorruptInputError, match=r"2 multi-echo .* series.*sub-01_run-1_MEGRE.*sub-01_run-2_MEGRE"):
        read_nifti(folder)


def test_inversion_times_with_a_series_number_each_are_one_series_without_a_word(root, recwarn):
    folder = add_series(root, "01", "IRT1", part="_part-mag")
    for number in range(1, 7):
        edit(folder, f"sub-01_inv-{number}_part-mag_IRT1", SeriesNumber=number)
    assert read_nifti(folder, axis="ti").data.shape == (*SHAPE, 6)
    assert not [w for w in recwarn if issubclass(w.category, InputWarning)]


@pytest.mark.parametrize(
    ("suffix", "entity", "axis"), [("MEGRE", "echo", "te"), ("IRT1", "inv", "ti"), ("VFA", "flip", "flip_angle")]
)
def test_values_in_another_order_than_their_entities_are_refused(root, suffix, entity, axis):
    folder = add_series(root, "01", suffix, part="_part-mag")
    images = {int(path.name.split(f"{entity}-")[1].split("_")[0]): path for path in folder.glob("*.json")}
    texts = [images[k].read_text() for k in sorted(images)]
    for k, text in zip(sorted(images, reverse=True), texts, strict=True):
        images[k].write_text(text)
    if entity != "echo":  # inversions and flip angles may be acquired downwards
        assert len(read_nifti(folder, axis=axis).values) == len(texts)
        texts[0], texts[1] = texts[1], texts[0]
        for k, text in enumerate(texts, start=1):
            images[k].write_text(text)
    words = rf"sub-01_{entity}-1_part-mag_{suffix}.nii.gz and sub-01_{entity}-2_.*number behind {entity}- .* is 1 and 2"
    with pytest.raises(CorruptInputError, match=words):
        read_nifti(folder, axis=axis)


def test_a_missing_echo_is_named_and_can_be_done_without_on_request(root):
    folder = add_series(root, "01", "MEGRE", part="_part-mag")
    (folder / "sub-01_echo-2_part-mag_MEGRE.nii.gz").unlink()
    with pytest.raises(CorruptInputError, match=r"sub-01_MEGRE: echo-2 of echo-1 to echo-4 missing.*with te="):
        read_nifti(folder)
    left = (TE_GRE[0], *TE_GRE[2:])
    np.testing.assert_allclose(read_nifti(folder, te=left).te, left)


def test_images_that_do_not_say_what_they_are_are_taken_for_magnitudes_with_a_warning(root):
    folder = add_series(root, "01", "MEGRE")
    with pytest.warns(InputWarning, match="sub-01_MEGRE: neither part- in the names nor ImageType"):
        assert read_nifti(folder).component == "magnitude"


def test_of_several_echoes_per_flip_angle_the_first_is_used(root):
    for echo in (2, 1):
        add_series(root, "01", "VFA", middle=f"_echo-{echo}")
    (series,) = find_series(open_dataset(root), ["01"])["01"]
    assert [path.name for path in series.images] == [f"sub-01_echo-1_flip-{n}_VFA.nii.gz" for n in (1, 2, 3)]
    assert "of 2 echoes of each image only echo-1" in series.left_out


def test_the_b1_map_of_the_session_is_found_if_it_fits(root):
    add_series(root, "01", "VFA")
    (series,) = find_series(open_dataset(root), ["01"])["01"]
    assert find_b1_map(series) is None
    folder = root / "sub-01" / "fmap"
    folder.mkdir()
    save(folder / "sub-01_TB1map.nii.gz", np.full(SHAPE, 0.9))
    assert find_b1_map(series) == folder / "sub-01_TB1map.nii.gz"
    save(folder / "sub-01_TB1map.nii.gz", np.full(SHAPE, 90.0))
    with pytest.warns(InputWarning, match="not used as B1 map .*no fractions"):
        assert find_b1_map(series) is None
    save(folder / "sub-01_TB1map.nii.gz", np.full((4, 4, 2), 0.9))
    with pytest.warns(InputWarning, match=r"not used as B1 map .*shape \(4, 4, 2\)"):
        assert find_b1_map(series) is None
    (folder / "sub-01_TB1map.json").write_text("{")
    with pytest.warns(InputWarning, match=r"not used as B1 map \(sub-01_TB1map.json: not valid JSON") as told:
        assert find_b1_map(series) is None
    assert str(root) not in str(told[0].message), "a warning goes into the results"
    save(folder / "sub-01_acq-b_TB1map.nii.gz", np.full(SHAPE, 0.9))
    with pytest.warns(InputWarning, match="there are 2 of them"):
        assert find_b1_map(series) is None


# what is wrong --------------------------------------------------------------------------------------------------------


def test_what_is_no_dataset_is_refused(tmp_path):
    (tmp_path / "file").write_text("hello")
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    for name, words in (("nope", "no such folder"), ("file", "is no folder"), ("sub-01", "folder of one participant")):
        with pytest.raises(NoInputError, match=words):
            open_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is missing"), ("{", "cannot be read"), ("[]", "no JSON object")]
)
def test_a_dataset_without_a_usable_description_is_used_with_a_warning(root, content, words):
    add_series(root, "01", "MEGRE")
    path = root / "dataset_description.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.warns(InputWarning, match=f"dataset_description.json .*{words}"):
        assert open_dataset(root).participants == ("01",)


def test_unknown_labels_are_refused_with_those_there_are(root):
    add_series(root, "01", "MEGRE", "pre")
    add_series(root, "b", "MEGRE", "post")
    with pytest.raises(UsageError, match=r"^participant_label 1 x: not in this dataset, which has 01 b\."):
        names(root, "1", "sub-x", "b")
    with pytest.raises(UsageError, match=r"^session_label 2: not in this dataset, which has post pre\."):
        names(root, sessions=["2"])
    assert names(root, sessions=["pre"]) == {"01": ["sub-01_ses-pre_MEGRE"], "b": []}


def test_nothing_to_fit_is_an_error_only_where_nobody_has_anything(root):
    (root / "sub-02" / "anat").mkdir(parents=True)
    save(root / "sub-02" / "anat" / "sub-02_T1w.nii.gz", T2STAR)
    words = (
        r"sub-02 has no images to be fitted \(there are T1w images, which are not mapped\); they are named sub-\*_MEGRE"
    )
    with pytest.raises(NoInputError, match=words):
        names(root)
    (root / "sub-03" / "ses-1" / "anat").mkdir(parents=True)
    save(root / "sub-03" / "ses-1" / "anat" / "sub-03_ses-1_inv-1_MP2RAGE.nii.gz", T2STAR)
    with pytest.raises(NoInputError, match=r"no participant has images to be fitted \(there are MP2RAGE, T1w images"):
        names(root)
    add_series(root, "01", "MEGRE")
    assert names(root) == {"01": ["sub-01_MEGRE"], "02": [], "03": []}


def test_a_file_of_another_participant_is_passed_over(root):
    folder = add_series(root, "01", "MEGRE")
    save(folder / "sub-02_echo-1_MEGRE.nii.gz", T2STAR)
    with pytest.warns(InputWarning, match="sub-02_echo-1_MEGRE.nii.gz is named after another participant"):
        assert names(root) == {"01": ["sub-01_MEGRE"]}


def test_images_named_after_another_session_are_never_merged_with_those_of_theirs(root):
    for ses in ("1", "2", ""):
        folder = add_series(root, "01", "MEGRE", ses)
        for number in (1, 2, 3, 4):
            stem = f"sub-01{f'_ses-{ses}' if ses else ''}_echo-{number}_MEGRE.nii.gz"
            (folder / stem).rename(folder / {"1": f"sub-01_echo-{number}_MEGRE.nii.gz"}.get(ses, stem))
    save(root / "sub-01" / "anat" / "sub-01_ses-2_echo-5_MEGRE.nii.gz", T2STAR)
    with pytest.warns(InputWarning, match="is named after another session and passed over") as told:
        found = find_series(open_dataset(root), ["01"])["01"]
    assert len(told) == 5
    assert {str(series.name): len(series.images) for series in found} == {"sub-01_MEGRE": 4, "sub-01_ses-2_MEGRE": 4}


@pytest.mark.parametrize("pointer", [False, True])
@pytest.mark.parametrize(("ending", "error"), [(".nii.gz", NoInputError), (".json", MetadataError)])
def test_content_that_was_not_fetched_is_told_as_such(root, pointer, ending, error):
    folder = add_series(root, "01", "MEGRE")
    path = folder / f"sub-01_echo-3_MEGRE{ending}"
    path.unlink()
    if pointer:
        path.write_text("/annex/objects/MD5E-s500--0123456789abcdef.nii.gz\n")
    else:
        path.symlink_to("../../.git/annex/objects/xx/yy/MD5E-s500--0123456789abcdef")
    (series,) = find_series(open_dataset(root), ["01"])["01"]
    for look in (series.check_fetched, lambda: read_nifti(folder), lambda: read_nifti(list(series.images))):
        with pytest.raises(error, match=rf"^sub-01_echo-3_MEGRE\{ending}: .*`datalad get`"):
            look()


def test_links_that_lead_somewhere_are_followed(root):
    folder = add_series(root, "01", "MEGRE", part="_part-mag")
    annex = root / ".git" / "annex"
    annex.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        path.rename(annex / f"MD5E-{path.name}")
        path.symlink_to(annex / f"MD5E-{path.name}")
    np.testing.assert_allclose(read_nifti(folder).te, TE_GRE)


def test_of_all_series_in_a_folder_the_one_that_varies_is_read(root):
    folder = add_series(root, "01", "MEGRE", part="_part-mag")
    add_series(root, "01", "VFA", part="_part-mag")
    for axis, wanted, n in (("te", "MEGRE", 3), ("flip_angle", "VFA", 4)):
        with pytest.warns(InputWarning, match=rf"sub-01_{wanted} \(magnitude, .* used; passed over: .* {n} images"):
            assert read_nifti(folder, axis=axis).description == f"sub-01_{wanted}"
