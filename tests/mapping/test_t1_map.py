"""T1 by inversion recovery and by variable flip angles, against signals simulated without the package."""

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from command import run
from nifti_files import save as save_nifti
from small_scans import load
from t1_scans import (
    B1,
    EFFICIENCY,
    FLIP_ANGLES,
    IR_TR,
    M0,
    T1,
    TI,
    VFA_TR,
    flip_angle_nifti,
    flip_angle_series,
    inversion_dicom,
    inversion_nifti,
    inversion_series,
    recovery,
    series,
)

import jaxqmri as jq
from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, UsageError
from jaxqmri.mapping.fitting import estimate
from jaxqmri.mapping.t1 import T1 as T1Job

OK = jq.Status.OK
B1_MAP = B1[..., None]


@pytest.fixture(scope="module")
def from_magnitudes():
    return jq.t1_map(inversion_series())


@pytest.fixture(scope="module")
def from_flip_angles():
    return jq.t1_map(flip_angle_series(), b1=B1_MAP)


# accuracy -------------------------------------------------------------------------------------------------------------


def test_inversion_recovery_of_magnitudes_has_its_polarity_restored(from_magnitudes):
    assert np.all(from_magnitudes["status"] == OK)
    np.testing.assert_allclose(from_magnitudes["T1map"][..., 0], T1, rtol=1e-5)
    np.testing.assert_allclose(from_magnitudes["InversionEfficiency"][..., 0], EFFICIENCY, rtol=1e-5)
    np.testing.assert_allclose(from_magnitudes["M0map"], M0, rtol=1e-5)
    np.testing.assert_allclose(from_magnitudes["R1map"] * from_magnitudes["T1map"], 1, rtol=1e-6)
    assert from_magnitudes["residual"].max() < 1e-5


def test_variable_flip_angles_with_a_b1_map(from_flip_angles):
    assert np.all(from_flip_angles["status"] == OK)
    np.testing.assert_allclose(from_flip_angles["T1map"][..., 0], T1, rtol=1e-5)
    np.testing.assert_allclose(from_flip_angles["M0map"], M0, rtol=1e-5)
    assert "InversionEfficiency" not in from_flip_angles


def test_flip_angles_beyond_excitations_are_told():
    degrees = flip_angle_series(flip_angles=np.array([1.0, 2.0, 3.0]))  # taken for radians
    with pytest.warns(InputWarning, match=r"up to 171\.9 degrees, .*give the right ones with flip_angles="):
        T1Job(b1=1.0).plan(degrees, np.ones((16, 16, 1), bool))


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"SequenceVariant": "SK_SS"}, r"unspoiled gradient echoes \(SequenceVariant is SK_SS\)"),
        ({"ScanningSequence": "SE"}, r"spin echoes \(ScanningSequence is SE\)"),
    ],
)
def test_flip_angles_of_other_than_spoiled_gradient_echoes_are_told(header, what):
    with pytest.warns(InputWarning, match=f"these look like {what}, but T1 is that of spoiled"):
        T1Job(b1=1.0).plan(flip_angle_series(**header), np.ones((16, 16, 1), bool))


def test_without_a_b1_map_t1_is_off_by_twice_the_error_of_b1_which_is_warned_of():
    with pytest.warns(InputWarning, match="no B1 map .*off by 10 %, T1 is off by about 20 %"):
        found = jq.t1_map(flip_angle_series())["T1map"][..., 0]
    np.testing.assert_allclose(found, B1**2 * T1, rtol=0.03)


def test_voxels_without_an_answer_say_why_and_leave_their_neighbours_alone(from_magnitudes):
    images = np.abs(recovery())
    images[0, 0], images[0, 1, 2], images[0, 2] = 0.0, np.nan, 100.0
    found = jq.t1_map(series(images, ti=TI, RepetitionTime=IR_TR))
    status = [jq.Status(code).name for code in found["status"][0, :3, 0]]
    assert status[:2] == ["NO_SIGNAL", "NOT_FINITE"]
    assert status[2] != "OK", "a signal that does not recover tells nothing of T1"
    for name in set(found) - {"status"}:
        assert np.isnan(found[name][0, :3]).all()
        np.testing.assert_array_equal(found[name][1:], from_magnitudes[name][1:])


# what the model is told -----------------------------------------------------------------------------------------------


class Captured(Exception):
    """Raised in place of a fit, with what it was asked to do."""

    def __init__(self, model, known):
        super().__init__()
        self.model, self.known = model, known


@pytest.fixture
def fit_request(monkeypatch):
    """A series and arguments -> the model and what is held fixed, without a fit."""

    def fit(model, _signal, *, known, **_options):
        raise Captured(model, known)

    def request(images, **arguments):
        with pytest.raises(Captured) as caught:
            jq.t1_map(images, **arguments)
        return caught.value

    monkeypatch.setattr(estimate, "fit", fit)
    return request


@pytest.mark.parametrize("component", ["real", "magnitude"], ids=["called real", "found by its negative values"])
def test_signed_images_are_fitted_with_their_sign(fit_request, component):
    signed = series(recovery(), ti=TI, component=component, RepetitionTime=IR_TR)
    assert not fit_request(signed).model.magnitude
    assert fit_request(inversion_series()).model.magnitude
    without_sign = series(np.abs(recovery()), ti=TI, component="real", RepetitionTime=IR_TR)
    assert fit_request(without_sign).model.magnitude
    ringing = np.abs(recovery())
    ringing[0] = -1.0  # the edge of an interpolated magnitude image
    assert fit_request(series(ringing, ti=TI, RepetitionTime=IR_TR)).model.magnitude


def test_the_repetition_time_is_that_of_the_images_unless_given(fit_request):
    assert float(fit_request(inversion_series()).model.tr) == IR_TR
    assert float(fit_request(inversion_series(RepetitionTimePreparation=9.0)).model.tr) == 9.0
    with pytest.warns(InputWarning, match="given repetition time, 5000 ms, is used in place of the RepetitionTime of"):
        assert float(fit_request(inversion_series(), tr=5.0).model.tr) == 5.0
    assert fit_request(inversion_series(RepetitionTime=1.0), tr=np.inf).model.tr is None
    assert fit_request(inversion_series(RepetitionTime=None)).model.tr is None
    for key in ("RepetitionTimeExcitation", "RepetitionTimeInversion"):
        assert float(fit_request(inversion_series(RepetitionTime=None, **{key: 9.0})).model.tr) == 9.0
    of_readouts = inversion_series(RepetitionTime=None, RepetitionTimeExcitation=0.005)
    assert fit_request(of_readouts).model.tr is None
    b1 = {"b1": 1.0}
    assert float(fit_request(flip_angle_series(), **b1).model.tr) == pytest.approx(VFA_TR)
    assert float(fit_request(flip_angle_series(RepetitionTimeExcitation=0.007), **b1).model.tr) == pytest.approx(0.007)
    with pytest.warns(InputWarning, match=r"given repetition time, 10 ms, is used in place of .* of 5\.4 ms"):
        assert float(fit_request(flip_angle_series(), tr=0.01, **b1).model.tr) == pytest.approx(0.01)


def part(n, magnitude):
    signal = recovery()[..., :n]
    component = "magnitude" if magnitude else "real"
    return series(np.abs(signal) if magnitude else signal, ti=TI[:n], component=component, RepetitionTime=IR_TR)


@pytest.mark.parametrize(
    ("n", "magnitude", "free"), [(4, True, True), (3, True, False), (3, False, True), (2, False, False)]
)
def test_the_inversion_is_taken_to_be_perfect_where_there_are_too_few_inversion_times(fit_request, n, magnitude, free):
    if free and not magnitude:
        with pytest.warns(InputWarning, match="3 inversion times determine T1, M0 and InversionEfficiency exactly"):
            assert fit_request(part(n, magnitude)).known == {}
        return
    if free:
        assert fit_request(part(n, magnitude)).known == {}
        return
    with pytest.warns(InputWarning) as caught:
        assert fit_request(part(n, magnitude)).known == {"efficiency": 1.0}
    told = [str(warning.message) for warning in caught]
    assert sum(f"perfect inversion, as {n} inversion times are too few" in text for text in told) == 1
    assert sum("determine T1 and M0 exactly" in text for text in told) == (n == 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "2 inversion times determine T1 and M0 exactly", InputWarning)
        assert fit_request(part(n, magnitude), efficiency=0.9).known == {"efficiency": 0.9}


def test_magnitudes_of_a_known_noise_level_are_rician():
    magnitudes, signed = part(4, magnitude=True), part(4, magnitude=False)
    assert T1Job(sigma=5.0).noise_model(magnitudes) == "rician"
    assert T1Job(sigma=5.0).noise_model(signed) is None
    assert T1Job(sigma=5.0, noise="gaussian").noise_model(magnitudes) == "gaussian"


def test_two_magnitudes_can_be_explained_by_several_t1():
    with pytest.raises(CorruptInputError, match="2 inversion times of magnitude images cannot determine 2 parameters"):
        jq.t1_map(part(2, magnitude=True))


def test_voxels_of_a_b1_map_that_cannot_be_are_warned_of(fit_request):
    b1 = B1_MAP.copy()
    b1[0, :3, 0] = [np.nan, 0.0, 3.0]
    with pytest.warns(InputWarning, match=r"in 3 of 256 voxels to be fitted; they get no T1"):
        known = fit_request(flip_angle_series(), b1=b1).known["b1"]
    np.testing.assert_array_equal(known, [np.nan, np.nan, np.nan, *b1.ravel()[3:].astype("f4")])


def look_locker(**facts):
    """Magnitudes of gradient echoes read out after one inversion, which recover with T1* = 0.7 T1."""
    t1star = 0.7 * T1[..., None]
    images = 1e4 * np.abs(1 - (1 + 1 / 0.7) * np.exp(-TI / t1star))
    return series(images, **({"ti": TI, "RepetitionTime": 0.28} | facts))


@pytest.mark.parametrize(
    ("images", "arguments", "error", "words"),
    [
        (
            inversion_series(RepetitionTime=2.0),
            {},
            MetadataError,
            "RepetitionTime is 2000 ms, not longer than .*4000 ms",
        ),
        *[
            (look_locker(**facts), given, MetadataError, rf"several images after each inversion.*\({sign}.*T1\*")
            for facts, sign in (
                ({"ScanningSequence": "GR\\IR"}, "TR 280 ms, TI up to 4000 ms, ScanningSequence is GR"),
                ({"ScanningSequence": "RM", "FlipAngle": 35}, "TR 280 ms, TI up to 4000 ms, FlipAngle is 35 degrees"),
                ({"PulseSequenceName": "*tfi2d1_MOLLI", "RepetitionTime": None}, "its name says MOLLI"),
                ({"RepetitionTime": None, "RepetitionTimeExcitation": 0.003, "ScanningSequence": "GR"}, "TR 3 ms"),
            )
            for given in ({}, {"tr": np.inf})
        ],
        (inversion_series(), {"tr": 4.0}, UsageError, "above the longest inversion time, 4 s, got 4 s"),
        (
            inversion_series(RepetitionTime=8000.0),
            {},
            MetadataError,
            "is 8000 s, too long for any .*give the right one",
        ),
        (inversion_series(), {"tr": np.nan}, UsageError, "above the longest inversion time"),
        (inversion_series(), {"tr": 8000.0}, UsageError, "8000 s is too long; give the right one with tr= .seconds"),
        (inversion_series(), {"efficiency": 1.2}, UsageError, "from 0 .saturation. to 1 .perfect inversion., got 1.2"),
        (inversion_series(), {"b1": 1.0}, UsageError, "inversion recovery needs no B1 map"),
        (
            inversion_series(),
            {"method": "vfa"},
            UsageError,
            "different flip angles, in this series the inversion times",
        ),
        (inversion_series(), {"method": "mp2rage"}, ValueError, "'mp2rage' is not one of auto, ir, vfa"),
        (inversion_series(component="phase"), {}, ValueError, "this series is phase"),
        (inversion_series(False), {"noise": jq.Rician(9.0)}, UsageError, "Rician noise is that of magnitude images"),
        (flip_angle_series(RepetitionTime=None), {}, MetadataError, "no single RepetitionTime .*give it with tr="),
        *[
            (
                flip_angle_series(**{key: tr}),
                {},
                MetadataError,
                f"^{key} is {tr:g} s, too {words}; give that from",
            )
            for key in ("RepetitionTime", "RepetitionTimeExcitation")
            for tr, words in ((5.4, "long for spoiled gradient echoes.*"), (5.4e-6, "short for any.*"))
        ],
        (flip_angle_series(), {"tr": 5.4}, UsageError, "5.4 s is too long for spoiled gradient echoes"),
        (flip_angle_series(), {"tr": 5.4e-6}, UsageError, "above 0.0001 s"),
        (flip_angle_series(), {"efficiency": 1.0}, UsageError, "have no inversion"),
        (flip_angle_series(), {"b1": 100 * B1_MAP}, MetadataError, "B1 map is .*divide per cent by 100"),
        (flip_angle_series(component="real"), {}, ValueError, "this series is real"),
        (flip_angle_series(), {"mask": np.zeros((16, 16, 1))}, CorruptInputError, "mask is empty"),
    ],
)
def test_mistakes_are_named_before_anything_is_fitted(images, arguments, error, words):
    with pytest.raises(error, match=words) as caught:
        jq.t1_map(images, **arguments)
    assert "\n" not in str(caught.value)


def test_images_of_separate_series_have_an_inversion_each(fit_request):
    assert fit_request(replace(look_locker(FlipAngle=10), n_series=6), tr=9.0).model.tr == 9.0


def test_a_finite_time_between_inversions_is_believed_where_no_name_contradicts(fit_request):
    with pytest.warns(InputWarning, match=r"by their headers \(TR 280 ms.* and then this is T1\*"):
        assert fit_request(look_locker(FlipAngle=10), tr=9.0).model.tr == 9.0
    with pytest.raises(MetadataError, match="name says MOLLI"):
        fit_request(look_locker(PulseSequenceName="MOLLI"), tr=9.0)


def test_an_efficiency_that_no_inversion_has_is_remarked_on():
    """T1* in place of T1: S = 1 - (1 + T1 / T1*) exp(-TI / T1*), after Deichmann and Haase."""
    with pytest.warns(InputWarning, match=r"efficiency comes out as 1\.4.*Look-Locker"):
        found = jq.t1_map(look_locker(RepetitionTime=IR_TR))
    np.testing.assert_allclose(np.median(found["T1map"][..., 0] / T1), 0.7, rtol=1e-2)


def test_echoes_tell_no_t1_and_inversions_no_t2():
    echoes = jq.ImageSeries.from_arrays(np.ones((4, 4, 1, 3)), te=[0.01, 0.02, 0.03])
    with pytest.raises(UsageError, match="in this series the echo times vary; read the images with axis='ti'"):
        jq.t1_map(echoes)
    for pipeline in (jq.t2_map, jq.t2star_map):
        with pytest.raises(UsageError, match="in this series the inversion times vary"):
            pipeline(inversion_series())


def test_a_series_varies_one_thing():
    with pytest.raises(ValueError, match=r"one of te, ti, flip_angles.* says what varies"):
        series(np.ones((2, 2, 3)), ti=TI[:3], flip_angles=FLIP_ANGLES)
    with pytest.raises(ValueError, match=r"got shape \(2, 2, 1, 3\) and 6 inversion times"):
        series(np.ones((2, 2, 3)), ti=TI)


# what a report shows --------------------------------------------------------------------------------------------------

VOXELS = np.array([1, 8, 14]), np.array([3, 3, 12]), np.array([0, 0, 0])


def test_curves_of_inversion_recovery_pass_through_the_measurements():
    images = inversion_series()
    found = T1Job().estimate(images)
    ti, curves = found.points, found.curves(VOXELS)
    assert ti[0] == 0
    for curve, measured in zip(curves, images.data[VOXELS], strict=True):
        assert curve.min() >= 0, "a magnitude"
        np.testing.assert_allclose(np.interp(TI, ti, curve), measured, atol=0.01 * M0)


def test_curves_of_flip_angles_pass_through_the_measurements():
    images = flip_angle_series()
    found = T1Job(b1=B1_MAP).estimate(images)
    angles, curves = found.points, found.curves(VOXELS)
    for curve, measured in zip(curves, images.data[VOXELS], strict=True):
        np.testing.assert_allclose(np.interp(FLIP_ANGLES, angles, curve), measured, rtol=0.01)


# from files to files --------------------------------------------------------------------------------------------------

T1_MAPS = ("M0map", "R1map", "T1map", "T1map_stderr", "residual", "status")


def test_inversion_recovery_from_files_to_report(tmp_path, capsys):
    out = tmp_path / "out"
    done = run(capsys, "t1", inversion_nifti(tmp_path / "scan"), "-o", out)
    assert done.code == 0
    assert re.fullmatch("jaxqmri: warning: 6 series of one inversion time each, .*, are joined: .*\n", done.err)
    assert "6 inversion times, 50 ... 4000 ms, 256 voxels" in done.out
    assert re.search(rf"T1 +{1e3 * np.median(T1):.0f} ms median", done.out)
    assert re.search(r"efficiency +0\.900 median", done.out)
    np.testing.assert_allclose(load(out, "T1map")[..., 0], T1, rtol=1e-5)
    every = {f"{name}{suffix}" for name in (*T1_MAPS, "InversionEfficiency") for suffix in (".nii.gz", ".json")}
    assert {path.name for path in out.iterdir()} == every | {"T1map.png", "report.html", "provenance.json"}
    sidecar = json.loads((out / "T1map.json").read_text())
    assert (sidecar["Units"], sidecar["InversionTime"], sidecar["EchoTime"]) == ("s", TI.tolist(), 0.01)
    record = json.loads((out / "provenance.json").read_text())
    assert record["command"] == "jaxqmri t1 INPUT -o OUT --method auto --mask none"
    assert record["input"]["inversion_times_s"] == TI.tolist()
    report = re.sub(r"base64,[^\"]*", "", (out / "report.html").read_text())
    for words in ("T1 map", "Inversion times (6)", "50, 150, 400", "polarity restored", "8000 ms"):
        assert words in report
    examples = re.findall(r"voxel \((\d+), (\d+), 0\): T1 = [^,]+, inversion efficiency = ([\d.]+)", report)
    assert examples
    for x, y, efficiency in examples:
        assert efficiency == f"{EFFICIENCY[int(x), int(y)]:.2f}"
    assert "TE" not in re.sub(r"<style>.*?</style>", "", report, flags=re.DOTALL)


def test_flip_angles_with_a_b1_map_from_files(tmp_path, capsys):
    save_nifti(tmp_path / "b1.nii.gz", B1_MAP.astype(np.float32))
    scan, words = flip_angle_nifti(tmp_path / "scan"), ("--b1", tmp_path / "b1.nii.gz", "--no-report", "--json")
    done = run(capsys, "t1", scan, "-o", tmp_path / "out", *words)
    facts = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    np.testing.assert_allclose(facts["flip_angles_rad"], FLIP_ANGLES, rtol=1e-9)
    np.testing.assert_allclose(load(tmp_path / "out", "T1map")[..., 0], T1, rtol=1e-5)
    assert json.loads((tmp_path / "out" / "T1map.json").read_text())["FlipAngle"] == [3, 8, 17]
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert "--b1 FILE" in record["command"]
    assert str(tmp_path) not in json.dumps(record)


def test_dicom_gives_the_same_t1_to_its_rounding(tmp_path, capsys):
    done = run(
        capsys, "t1", inversion_dicom(tmp_path / "scan"), "-o", tmp_path / "out", "--no-report", "--method", "ir"
    )
    assert done.code == 0
    np.testing.assert_allclose(load(tmp_path / "out", "T1map")[..., 0], T1, rtol=2e-3)


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--ti-ms", 1, 2, "--flip-deg", 3, 4), 2, "not allowed with"),
        (("--method", "vfa", "--ti-ms", 1, 2), 2, "--method vfa needs no --ti-ms; give --flip-deg"),
        (("--method", "ir", "--b1", "x.nii"), 2, "inversion recovery needs no B1 map"),
        (("--flip-deg", 3, 4, "--efficiency", 1), 2, "have no inversion"),
        (("--sigma", -1), 2, "--sigma must be above 0"),
        (("--tr-ms", 100), 2, "above the longest inversion time"),
        (("--efficiency", 2), 2, "from 0 .saturation. to 1"),
        (("--ti-ms", "100,200,300"), 2, "3 inversion times are given, .*Give one inversion time per image of a slice"),
        (("--ti-ms", "0.1,0.2,0.4,0.8,1,2"), 5, "seconds in a field of milliseconds"),
        (("--flip-deg", "300,310,320,330,340,350"), 5, "degrees in a field of radians"),
        (("--method", "vfa"), 4, "6 .*flip angle|differ in InversionTime"),
        (("--component", "real"), 4, "said to be real, but none of their values is negative; leave out --component"),
    ],
)
def test_requests_that_make_no_sense_are_refused_in_one_line(tmp_path, capsys, words, code, complaint):
    done = run(capsys, "t1", inversion_nifti(tmp_path / "scan"), "-o", tmp_path / "out", *words)
    assert done.code == code, done.err
    assert re.search(complaint, done.error)
    assert not (tmp_path / "out").exists()
