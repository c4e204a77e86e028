"""Maps as DICOM Parametric Map objects: the numbers, the place, the codes, and whose they are."""

import json
import warnings

import nibabel as nib
import numpy as np
import pydicom
import pytest
from command import run
from highdicom.pm import ParametricMap
from pydicom.sr.codedict import codes
from pydicom.uid import ParametricMapStorage
from small_scans import dicom_folder, load, nifti_folder

from jaxqmri.errors import CorruptInputError
from jaxqmri.io.affines import same_grid
from jaxqmri.io.dicom.identity import DicomIdentity
from jaxqmri.io.dicom.maps import write_dicom_maps
from jaxqmri.io.dicom.reader import read_dicom
from jaxqmri.io.maps import Maps
from jaxqmri.io.series import ImageSeries
from jaxqmri.quantities import ECHO_TIME

SHAPE = (6, 5, 4)
MAPS = ("S0map", "T2starmap", "T2starmap_stderr", "R2starmap", "residual")
PATIENT = {
    "PatientName": "SECRET^NAME",
    "PatientID": "SECRET-1",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "StudyInstanceUID": "1.2.840.99.1",
    "StudyID": "SECRET-2",
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "AccessionNumber": "SECRET-3",
    "ReferringPhysicianName": "SECRET^DOCTOR",
    "FrameOfReferenceUID": "1.2.840.99.2",
    "StudyDescription": "SECRET-4",
}


def affines():
    """Axial as dcm2niix has it, a left-handed one, one with its axes permuted, and a tilted one."""
    turn = np.deg2rad(20)
    tilt = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    for axes in (
        np.diag([-2.0, 3, 5]),
        np.diag([2.0, 3, 5]),
        np.diag([2.0, 3, 5])[[2, 0, 1]],
        tilt @ np.diag([-2, 3, 5]),
    ):
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = axes, [-71.25, 33.5, 12.125]
        yield affine


def series_of(affine, **facts):
    te = np.array([0.01, 0.02, 0.03])
    return ImageSeries(np.ones((*SHAPE, 3), np.float32), ECHO_TIME, te, affine, **facts)


def make_maps(rng):
    maps = {name: rng.uniform(0.01, 0.1, SHAPE).astype(np.float32) for name in MAPS}
    for values in maps.values():
        values[1, 2, 3] = np.nan
    maps["status"] = np.where(np.isnan(maps["S0map"]), 1, 0).astype(np.uint8)
    return Maps(maps, {"EstimationAlgorithm": "LevenbergMarquardt", "Equation": "S(TE) = S0 exp(-TE / T2*)"})


def placed(path):
    """Every value with the centre of its voxel in RAS+ [mm], by the words of the standard alone (C.7.6.2.1.1)."""
    ds = pydicom.dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = np.frombuffer(ds.FloatPixelData, "<f4").reshape(-1, ds.Rows, ds.Columns)
    row, column = np.indices((ds.Rows, ds.Columns))
    points = []
    for item in ds.PerFrameFunctionalGroupsSequence:
        corner = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        along = column[..., None] * between_columns * orientation[:3] + row[..., None] * between_rows * orientation[3:]
        points.append((corner + along) * [-1, -1, 1])
    return np.concatenate(points).reshape(-1, 3), frames.ravel()


@pytest.mark.parametrize("affine", list(affines()))
def test_every_value_is_in_its_place(affine, rng, tmp_path):
    maps = make_maps(rng)
    for path in write_dicom_maps(tmp_path, maps, series_of(affine)):
        points, values = placed(path)
        voxels = (np.linalg.inv(affine) @ np.column_stack([points, np.ones(len(points))]).T)[:3].T
        index = np.round(voxels).astype(int)
        assert np.abs(voxels - index).max() < 1e-5
        assert len(np.unique(index, axis=0)) == maps["S0map"].size
        np.testing.assert_array_equal(values, maps[path.stem][tuple(index.T)])  # NaN equals NaN here


def test_highdicom_reads_the_same_volume_and_affine(rng, tmp_path):
    maps, affine = make_maps(rng), next(affines())
    write_dicom_maps(tmp_path, maps, series_of(affine))
    volume = ParametricMap.from_dataset(pydicom.dcmread(tmp_path / "T2starmap.dcm")).get_volume()
    wanted = nib.Nifti1Image(maps["T2starmap"], affine)
    # (slice, row, column) in LPS; both as the nearest RAS+ order
    ours = nib.as_closest_canonical(wanted)
    theirs = nib.Nifti1Image(volume.array.astype(np.float32), np.diag([-1.0, -1, 1, 1]) @ volume.affine)
    theirs = nib.as_closest_canonical(theirs)
    np.testing.assert_array_equal(theirs.get_fdata(), ours.get_fdata())
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-5)


def test_unit_and_quantity_are_codes_of_the_standard(rng, tmp_path):
    write_dicom_maps(tmp_path, make_maps(rng), series_of(next(affines())))
    wanted = {
        "T2starmap": ("s", codes.DCM.T2Star),
        "T2starmap_stderr": ("s", codes.DCM.T2Star),
        "R2starmap": ("/s", codes.DCM.R2Star),
        "S0map": ("[arb'U]", None),
        "residual": ("1", None),
    }
    for name, (unit, quantity) in wanted.items():
        ds = pydicom.dcmread(tmp_path / f"{name}.dcm")
        assert ds.SOPClassUID == ParametricMapStorage
        mapping = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
        assert mapping.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
        definition = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
        if quantity is None:
            assert definition.CodingSchemeDesignator == "99JAXQMRI"
        else:
            assert (definition.CodeValue, definition.CodingSchemeDesignator) == (quantity.value, "DCM")
        is_error = len(mapping.QuantityDefinitionSequence) == 2
        assert is_error == name.endswith("_stderr")


def test_missing_answers_are_declared_and_status_has_no_object(rng, tmp_path):
    paths = write_dicom_maps(tmp_path, make_maps(rng), series_of(next(affines())))
    assert [path.stem for path in paths] == list(MAPS)
    ds = pydicom.dcmread(paths[0])
    assert np.isnan([ds.FloatPixelPaddingValue, ds.FloatPixelPaddingRangeLimit]).all()
    assert np.isnan(np.frombuffer(ds.FloatPixelData, "<f4")).sum() == 1
    description = ds.SharedFunctionalGroupsSequence[0].DerivationImageSequence[0].DerivationDescription
    assert "LevenbergMarquardt" in description
    assert "exp(-TE / T2*)" in description


def test_a_map_without_any_value_can_be_written(tmp_path):
    empty = Maps({"T1map": np.full(SHAPE, np.nan, np.float32)})
    (path,) = write_dicom_maps(tmp_path, empty, series_of(next(affines())))
    assert np.isnan(placed(path)[1]).all()


def test_a_sheared_grid_is_refused(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    with pytest.raises(CorruptInputError, match=r"right angles.*leave out dicom="):
        write_dicom_maps(tmp_path, Maps({}), series_of(sheared))


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return dicom_folder(tmp_path_factory.mktemp("scan"), **PATIENT)


def everything(ds):
    """Text of all elements, nested ones too."""
    return "\n".join(str(element.value) for element in ds.iterall() if element.VR not in ("OF", "SQ"))


def test_without_being_told_nobody_is_named_and_no_uid_leads_back(scan, tmp_path, capsys):
    out = tmp_path / "out"
    done = run(capsys, "t2star", scan, "-o", out, "--dicom", "--no-report")
    assert done.code == 0
    originals = [pydicom.dcmread(path) for path in sorted(scan.iterdir())]
    uids = {str(e.value) for ds in originals for e in ds.iterall() if e.VR == "UI" and "UID" in e.keyword}
    uids -= {str(ds.SOPClassUID) for ds in originals}
    paths = sorted(out.glob("*.dcm"))
    assert {path.stem for path in paths} == {"T2starmap", "R2starmap", "S0map", "T2starmap_stderr", "residual"}
    for path in paths:
        ds = pydicom.dcmread(path)
        text = everything(ds)
        assert "SECRET" not in text
        assert not [uid for uid in uids if uid in text.split("\n")]
        assert (ds.PatientName, ds.PatientID, ds.StudyDate, ds.PatientIdentityRemoved) == (
            "Anonymous^", "anonymous", "", "YES",
        )  # fmt: skip
    values = placed(out / "T2starmap.dcm")[1]
    np.testing.assert_array_equal(np.sort(values), np.sort(load(out, "T2starmap").astype(np.float32).ravel()))
    record = json.loads((out / "provenance.json").read_text())
    assert record["command"].endswith("--no-report --dicom")
    assert {"T2starmap.dcm", "S0map.dcm"} <= set(record["outputs"])
    assert len({pydicom.dcmread(path).StudyInstanceUID for path in paths}) == 1, "maps of one run belong together"


def test_identity_is_kept_when_asked_for_and_in_no_other_file(scan, tmp_path, capsys):
    out = tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = run(capsys, "t2star", scan, "-o", out, "--dicom", "--dicom-identity", "keep", "--no-report")
    assert done.code == 0
    sources = [pydicom.dcmread(path) for path in scan.iterdir()]
    for path in out.glob("*.dcm"):
        ds = pydicom.dcmread(path)
        for keyword, value in PATIENT.items():
            assert ds[keyword].value == value
        assert "PatientIdentityRemoved" not in ds
        (reference,) = ds.ReferencedSeriesSequence
        assert reference.SeriesInstanceUID == sources[0].SeriesInstanceUID != ds.SeriesInstanceUID
        found = {item.ReferencedSOPInstanceUID for item in reference.ReferencedInstanceSequence}
        assert found == {source.SOPInstanceUID for source in sources}
    for path in set(out.iterdir()) - set(out.glob("*.dcm")):
        assert b"SECRET" not in path.read_bytes()
    assert "SECRET" not in done.out + done.err


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_what_the_archive_has_is_given_back_as_it_is(rng, tmp_path):
    odd = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Müller^Zoë", "StudyDate": "no date", "PatientSex": "?"}
    kept = DicomIdentity(odd, None, {})
    (path,) = write_dicom_maps(tmp_path, Maps({"T1map": np.ones(SHAPE)}), series_of(np.eye(4)), identity=kept)
    ds = pydicom.dcmread(path)
    assert {keyword: ds[keyword].value for keyword in odd} == odd
    assert "ReferencedSeriesSequence" not in ds


def test_a_series_does_not_show_whose_it_is(scan):
    series = read_dicom(scan)
    assert series.identity is not None
    assert "SECRET" not in repr(series) + repr(series.identity)


def test_nifti_has_no_identity_to_keep(tmp_path, capsys):
    scan = nifti_folder(tmp_path / "scan")
    refused = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--dicom", "--dicom-identity", "keep")
    assert refused.code == 2
    assert "no DICOM files" in refused.error
    assert not (tmp_path / "out").exists()
    assert run(capsys, "t2star", scan, "-o", tmp_path / "out", "--dicom", "--no-report").code == 0
    assert pydicom.dcmread(tmp_path / "out" / "T2starmap.dcm").PatientID == "anonymous"


def test_keeping_without_writing_is_a_mistake(scan, tmp_path, capsys):
    refused = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--dicom-identity", "keep")
    assert (refused.code, "--dicom" in refused.error) == (2, True)


def test_maps_are_not_taken_for_images(scan, tmp_path, capsys):
    assert run(capsys, "t2star", scan, "-o", tmp_path / "out", "--dicom", "--no-report").code == 0
    for path in scan.iterdir():
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    found = read_dicom(tmp_path / "out")
    assert (found.n_files, sum("Parametric Map" in reason for reason in found.skipped)) == (4, 1)


def test_the_grid_of_real_scans_survives(shared_data, tmp_path):
    series = read_dicom(shared_data / "siemens_gre2_fieldmap" / "s2")
    values = np.asarray(series.data[..., 0])
    (path,) = write_dicom_maps(tmp_path, Maps({"S0map": values}), series)
    points, stored = placed(path)
    voxels = (np.linalg.inv(series.affine) @ np.column_stack([points, np.ones(len(points))]).T)[:3].T
    index = np.round(voxels).astype(int)
    assert np.abs(voxels - index).max() < 1e-3  # voxels; DICOM has 16 characters for a number
    np.testing.assert_array_equal(stored, values[tuple(index.T)])
    volume = ParametricMap.from_dataset(pydicom.dcmread(path)).get_volume()
    theirs = nib.as_closest_canonical(nib.Nifti1Image(volume.array, np.diag([-1.0, -1, 1, 1]) @ volume.affine))
    ours = nib.as_closest_canonical(nib.Nifti1Image(values, series.affine))
    assert same_grid(theirs.affine, ours.affine)
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-5)
