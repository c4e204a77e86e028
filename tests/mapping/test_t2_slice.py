"""`t2` of slices with a profile: which one is assumed, and what B1 is called where there is none."""

import json
from pathlib import Path

import numpy as np
import pytest
from nifti_files import save
from spin_echoes import B1, M0, SPACING, T2, series, signal

import jaxqmri as jq
from jaxqmri.errors import InputWarning, MetadataError, NoInputError, UsageError
from jaxqmri.io.nifti.sidecar import check_transmit_field
from jaxqmri.mapping.fitting.slice import profile_of, read_profile
from jaxqmri.mapping.t2 import T2 as T2Job
from jaxqmri.quantities import map_kind


@pytest.mark.slow
def test_the_usual_pulses_of_siemens_are_assumed_and_said():
    train = jq.FSE(np.full(8, np.pi), SPACING, magnitude=True, slice_profile=jq.slice_profile("sinc"))
    images = np.asarray(jq.simulate(train, jq.Tissue(m0=M0, t1=1.0, t2=T2, b1=B1)))
    scan = series(images, Manufacturer="SIEMENS", MRAcquisitionType="2D", FlipAngle=180.0)
    with pytest.warns(InputWarning, match=r"Hann-windowed sinc .*product 2, refocused slice 1.2 times"):
        maps = jq.t2_map(scan, slice_profile="auto")
    assert np.mean(maps["status"] == jq.Status.OK) > 0.9
    found = maps["status"] == jq.Status.OK
    np.testing.assert_allclose(maps["T2map"][found], T2[..., None][found], rtol=2e-3)
    np.testing.assert_allclose(maps["TB1map"][found], B1[..., None][found], rtol=5e-3)
    assert "EffectiveB1" not in maps.metadata


@pytest.mark.parametrize(
    ("acquisition", "why"),
    [
        ({"Manufacturer": "Philips", "MRAcquisitionType": "2D"}, "the usual pulses of Philips are not known"),
        ({"Manufacturer": "SIEMENS"}, "make or 2D is not stated"),
    ],
)
def test_where_pulses_are_not_known_no_profile_is_made_up(acquisition, why):
    with pytest.warns(InputWarning, match=why):
        assert profile_of(series(signal(), **acquisition), "auto", None, None)[0] is None


def test_a_volume_has_no_slice_profile(recwarn):
    volume = series(signal(), Manufacturer="SIEMENS", MRAcquisitionType="3D")
    assert profile_of(volume, "auto", None, None)[0] is None
    assert not recwarn.list


def test_a_profile_is_read_from_text_json_and_npy(tmp_path):
    table = np.array([[0.2, 1.0, 1.0], [0.5, 0.9, 0.8], [0.3, 0.4, 0.5]])
    np.savetxt(tmp_path / "a.txt", table, header="weight excitation refocusing")
    np.save(tmp_path / "a.npy", table)
    columns = dict(zip(("weights", "excitation", "refocusing"), table.T.tolist(), strict=True))
    (tmp_path / "a.json").write_text(json.dumps(columns))
    wanted = jq.measured_profile(*table.T)
    for name in ("a.txt", "a.npy", "a.json"):
        np.testing.assert_allclose(read_profile(tmp_path / name).refocusing, wanted.refocusing)
    np.savetxt(tmp_path / "degrees.txt", table * [1, 90, 180])
    (tmp_path / "other.json").write_text('{"weights": [1]}')
    for name, message in (("degrees.txt", "divide degrees"), ("other.json", "columns weight, excitation, refocusing")):
        with pytest.raises(MetadataError, match=message):
            read_profile(tmp_path / name)
    with pytest.raises(NoInputError, match="no such slice profile"):
        read_profile(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slice_profile": "sinx"}, "not one of none, auto, sinc, gauss or a `SliceProfile`"),
        ({"time_bandwidth": 2.0}, "is about pulses"),
        ({"thickness_ratio": 1.2, "slice_profile": Path("x.txt")}, "is about pulses"),
        ({"thickness_ratio": -1.0, "slice_profile": "sinc"}, "must be above 0"),
        ({"method": "mono", "slice_profile": "auto"}, "mono knows no B1"),
    ],
)
def test_settings_of_a_slice_that_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        T2Job(**settings)


def test_b1_without_a_profile_is_called_effective_and_is_no_b1_map(tmp_path):
    maps = jq.Maps({"TB1map": np.ones((2, 2, 1))}, {"EffectiveB1": True})
    jq.write_maps(tmp_path, maps, series(np.ones((2, 2, 8))))
    assert "effective" in json.loads((tmp_path / "TB1map.json").read_text())["Description"]
    assert (map_kind("TB1map", maps.metadata).title, map_kind("TB1map").title) == ("effective B1", "B1")
    with pytest.raises(MetadataError, match="an effective B1"):
        check_transmit_field(tmp_path / "TB1map.nii.gz")
    save(tmp_path / "measured.nii.gz", np.ones((2, 2, 1)))
    check_transmit_field(tmp_path / "measured.nii.gz")


def test_only_slices_without_a_profile_have_an_effective_b1():
    fitted = np.ones((16, 16, 1), bool)
    for acquisition, effective in (({}, True), ({"MRAcquisitionType": "3D"}, False)):
        facts = T2Job().plan(series(signal(), **acquisition), fitted).facts
        assert ("EffectiveB1" in facts) == effective
    assert "EffectiveB1" not in T2Job(b1=B1[..., None]).plan(series(signal()), fitted).facts
