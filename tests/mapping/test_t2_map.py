"""T2 and B1 of multi-echo spin echoes, against trains simulated without the package."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from spin_echoes import B1, M0, N_ECHOES, SPACING, T2, TE, series, signal, train

import jaxqmri as jq
from jaxqmri.errors import CorruptInputError, InputWarning, MetadataError, UsageError
from jaxqmri.io.series import echo_train
from jaxqmri.mapping.t2 import T2 as T2Job

OK = jq.Status.OK


@pytest.fixture(scope="module")
def scan():
    return series(signal(), FlipAngle=90.0, RepetitionTime=3.0)


@pytest.fixture(scope="module")
def maps(scan):
    return jq.t2_map(scan)


# accuracy -------------------------------------------------------------------------------------------------------------


def test_t2_b1_and_m0_of_a_noise_free_train_are_found(maps):
    assert np.all(maps["status"] == OK)
    np.testing.assert_allclose(maps["T2map"][..., 0], T2, rtol=1e-5)
    np.testing.assert_allclose(maps["TB1map"][..., 0], B1, rtol=2e-5)
    np.testing.assert_allclose(maps["M0map"][..., 0], M0, rtol=1e-5)
    np.testing.assert_allclose(maps["R2map"] * maps["T2map"], 1, rtol=1e-6)
    assert maps["residual"].max() < 1e-5


@pytest.mark.parametrize("b1", [None, B1[..., None]], ids=["b1 free", "b1 known"])
def test_a_dictionary_refined_off_its_grid_finds_the_same(scan, b1):
    found = jq.t2_map(scan, method="dictionary", b1=b1)
    assert np.all(found["status"] == OK)
    np.testing.assert_allclose(found["T2map"][..., 0], T2, rtol=1e-5)
    np.testing.assert_allclose(found["M0map"][..., 0], M0, rtol=1e-5)


def test_the_mono_exponential_model_takes_stimulated_echoes_for_a_longer_t2(scan, maps):
    mono = jq.t2_map(scan, method="mono")
    low = B1[..., None] < 0.85
    assert np.all(mono["T2map"][low] > 1.02 * T2[..., None][low])
    assert np.median(mono["residual"][low]) > 100 * np.median(maps["residual"][low])
    assert "TB1map" not in mono


def test_a_t2_shorter_than_the_spacing_makes_echoes_negative_which_a_magnitude_image_does_not_show():
    t2 = np.geomspace(0.004, 0.012, 16)[:, None] * np.ones(16)
    echoes = train(t2, B1)
    assert echoes.min() < -0.01
    for b1 in (None, B1[..., None]):
        found = jq.t2_map(series(M0 * np.abs(echoes)), b1=b1)
        assert np.all(found["status"] == OK)
        error = np.abs(found["T2map"][..., 0] / t2 - 1)
        assert np.mean(error < 1e-4) > 0.97  # where an echo passes through zero its magnitude has a kink
        assert error.max() < 0.1


def test_answers_beyond_the_reach_of_the_refinement_are_not_given_out_as_answers(rng):
    """Two echoes of a low B1: the match may be far from the answer."""
    b1 = np.linspace(0.3, 0.98, 16) * np.ones((16, 1))
    echoes = np.abs(train(T2, b1, n=2))
    with pytest.warns(InputWarning, match="2 echoes determine T2 and M0 exactly: no error bars"):
        found = jq.t2_map(series(M0 * echoes, TE[:2]), b1=b1[..., None], t1=1.0)
    ok = found["status"][..., 0] == OK
    assert ok.mean() > 0.8
    np.testing.assert_allclose(found["T2map"][..., 0][ok], T2[ok], rtol=1e-4)


def test_perfect_refocusing_is_a_regular_answer():
    t2 = np.geomspace(0.02, 0.2, 16)[:, None] * np.ones(16)
    found = jq.t2_map(series(M0 * np.exp(-TE / t2[..., None])))
    assert np.all(found["status"] == OK)
    np.testing.assert_allclose(found["T2map"][..., 0], t2, rtol=1e-4)
    np.testing.assert_allclose(found["TB1map"], 1.0, atol=3e-3)
    assert np.all(np.isfinite(found["T2map_stderr"]))


@pytest.mark.parametrize("kept", [slice(1, None, 2), [0, 3, 4]], ids=str)
def test_echoes_that_are_left_out_stay_in_the_train(kept):
    """Every second echo would look like a train of twice the spacing."""
    plan = T2Job(b1=0.8).plan(series(signal()).select(kept), np.ones((16, 16, 1), bool))
    found = plan.model(jq.Tissue(m0=M0, t1=1.0, t2=T2[5, 3], b1=B1[5, 3]))
    np.testing.assert_allclose(found, signal()[5, 3][kept], rtol=1e-4)


@pytest.mark.slow
def test_a_train_may_end_on_a_constant():
    found = jq.t2_map(series(signal() + 0.08 * M0), model="offset")
    assert np.all(found["status"] == OK)
    np.testing.assert_allclose(found["T2map"][..., 0], T2, rtol=2e-3)  # 8 echoes of 80 ms, T2 up to 200 ms
    np.testing.assert_allclose(found["TB1map"][..., 0], B1, rtol=1e-3)
    np.testing.assert_allclose(found["Offset"], 0.08 * M0, atol=2e-3 * M0)
    assert np.all(found["DeltaAICc"] < 0)


def test_the_signal_of_a_train_with_an_offset_is_that_of_the_train_and_a_constant():
    plan = T2Job(model="offset", b1=0.8).plan(series(signal()), np.ones((16, 16, 1), bool))
    tissue = jq.TissueWithOffset(m0=M0, t1=1.0, t2=T2[5, 3], b1=B1[5, 3], offset=70.0)
    np.testing.assert_allclose(jq.simulate(plan.model, tissue), signal()[5, 3] + 70.0, rtol=1e-4)
    assert (plan.plain, plan.maps["Offset"]) == (plan.model.model, "offset")
    with pytest.raises(UsageError, match="dictionary knows no offset; use method='lm'"):
        T2Job(model="offset", method="dictionary")
    with pytest.raises(ValueError, match="MonoExponential, wanted one of a Tissue"):
        jq.WithOffset(jq.MonoExponential(TE))


def test_a_b1_above_the_angle_of_perfect_refocusing_gives_its_mirror_image_and_the_same_t2():
    found = jq.t2_map(series(M0 * np.abs(train(T2, 2 - B1))))
    np.testing.assert_allclose(found["T2map"][..., 0], T2, rtol=1e-4)
    np.testing.assert_allclose(found["TB1map"][..., 0], B1, rtol=1e-4)


@pytest.mark.parametrize("b1", [B1, B1 + 0.25, 0.8], ids=["map", "map beyond 1", "number"])
def test_a_given_b1_is_believed(b1):
    images = M0 * np.abs(train(T2, b1 * np.ones_like(T2)))
    found = jq.t2_map(series(images), b1=b1 if np.isscalar(b1) else b1[..., None])
    np.testing.assert_allclose(found["T2map"][..., 0], T2, rtol=1e-5)
    np.testing.assert_allclose(found["M0map"][..., 0], M0, rtol=1e-5)
    assert "TB1map" not in found


def test_a_given_b1_does_nothing_to_single_spin_echoes():
    """Which are series of one echo each; the echoes of a train are one series."""
    several = replace(series(signal()), n_series=N_ECHOES)
    with pytest.warns(InputWarning, match="no train.*method='mono'"):
        T2Job(b1=0.8).plan(several, np.ones((16, 16, 1), bool))
    assert T2Job(method="mono").plan(several, np.ones((16, 16, 1), bool)).known == {}


def test_b1_is_looked_for_in_the_range_that_is_given():
    plan = T2Job(b1_range=(0.3, 1.3)).plan(series(signal()), np.ones((16, 16, 1), bool))
    assert plan.bounds == {"b1": (0.3, 1.3)}
    np.testing.assert_allclose(plan.model.limits().b1[0], 0.3)  # wider than that of the model, where it is
    assert "B1 within 0.3 ... 1.3, given" in plan.assumed


@pytest.mark.slow
def test_a_b1_at_an_end_of_the_given_range_is_no_answer():
    found = jq.t2_map(series(signal()), b1_range=(0.8, 1.3))
    inside = B1 > 0.8
    np.testing.assert_array_equal(found["status"][..., 0] == jq.Status.AT_BOUND, ~inside)
    np.testing.assert_allclose(found["T2map"][..., 0][inside], T2[inside], rtol=1e-4)


def test_error_bars_shrink_when_b1_is_given(rng):
    images = signal() + rng.normal(scale=5.0, size=(16, 16, N_ECHOES))
    given, free = (jq.t2_map(series(images), b1=b1)["T2map_stderr"] for b1 in (B1[..., None], None))
    both = np.isfinite(given) & np.isfinite(free)
    assert both.mean() > 0.9
    assert np.median(given[both] / free[both]) < 0.9


def test_error_bars_are_the_spread_of_the_answers(rng):
    """2048 voxels, SNR 100, B1 0.85."""
    sigma, t2 = M0 / 100, 0.080
    clean = M0 * np.abs(train(np.full((16, 16), t2), 0.85))
    z = []
    for _ in range(8):
        found = jq.t2_map(series(clean + rng.normal(scale=sigma, size=clean.shape)), noise=jq.Gaussian(sigma))
        ok = found["status"] == OK
        assert ok.mean() > 0.99
        z.extend((found["T2map"][ok] - t2) / found["T2map_stderr"][ok])
    assert np.std(z) == pytest.approx(1.0, abs=0.1)
    assert abs(np.mean(z)) < 0.1


def test_t1_hardly_matters_and_an_exact_one_mends_what_is_left():
    images = M0 * np.abs(train(T2, B1, t1=0.3))
    assumed = jq.t2_map(series(images))["T2map"][..., 0]
    exact = jq.t2_map(series(images), t1=0.3)["T2map"][..., 0]
    as_map = jq.t2_map(series(images), t1=np.full((16, 16, 1), 0.3))["T2map"][..., 0]
    np.testing.assert_allclose(assumed, T2, rtol=0.1)
    np.testing.assert_allclose(exact, T2, rtol=1e-3)
    np.testing.assert_allclose(as_map, T2, rtol=1e-3)


# the protocol ---------------------------------------------------------------------------------------------------------


def test_echoes_that_were_not_recorded_are_simulated_all_the_same():
    whole = signal(n=N_ECHOES + 1)
    found = jq.t2_map(series(whole[..., 1:], te=SPACING * np.arange(2, N_ECHOES + 2)))
    np.testing.assert_allclose(found["T2map"][..., 0], T2, rtol=1e-4)
    np.testing.assert_allclose(found["TB1map"][..., 0], B1, rtol=1e-4)
    assert any("1 of 9 echoes not recorded" in text for text in found.metadata["Assumptions"])


@pytest.mark.parametrize(
    ("stated", "given", "angle", "source"),
    [
        (90.0, None, 180, "assumed; the images state 90"),
        (None, None, 180, "assumed; none stated"),
        (150.0, None, 150, "FlipAngle of the images"),
        (150.0, 120.0, 120, "given"),
    ],
)
def test_the_refocusing_angle_is_given_stated_or_assumed(stated, given, angle, source):
    acquisition = {} if stated is None else {"FlipAngle": stated}
    images = M0 * np.abs(train(T2, 0.9 * np.ones_like(T2), flip_angle=np.deg2rad(angle)))
    low_angle = (
        pytest.warns(InputWarning, match="T1 is assumed to be 1 s, which matters") if angle < 140 else nullcontext()
    )
    with low_angle:
        found = jq.t2_map(series(images, **acquisition), flip_angle=None if given is None else np.deg2rad(given))
    assert found.metadata["RefocusingFlipAngle"] == angle
    assert source in found.metadata["Assumptions"][0]
    np.testing.assert_allclose(found["TB1map"], 0.9, rtol=1e-4)


@pytest.mark.parametrize(
    ("te_ms", "spacing_ms", "echoes"),
    [
        ([11.5, 23, 34.5, 46], 11.5, (0, 1, 2, 3)),
        ([8.3, 16.7, 25.0, 33.3, 41.7], 8.333, (0, 1, 2, 3, 4)),  # of 8 1/3 ms, printed to 0.1 ms
        ([5.0, 10.1, 15.1, 20.2], 5.04, (0, 1, 2, 3)),
        ([26.4, 39.6, 52.8], 13.2, (1, 2, 3)),
        ([10, 20, 40, 50], 10, (0, 1, 3, 4)),
        (np.round(6.67 * np.arange(1, 97), 1), 6.67, tuple(range(96))),
    ],
)
def test_the_train_is_known_from_its_echo_times(te_ms, spacing_ms, echoes):
    train = echo_train(np.array(te_ms) * 1e-3, "scan")
    assert train.spacing == pytest.approx(1e-3 * spacing_ms, rel=2e-3)
    assert train.echoes == echoes


@pytest.mark.parametrize(
    "te_ms", [[10, 25, 50, 90], [12, 20, 28, 36], [5, 15, 25, 35], [2.0, 12.0, 22.0], [10, 20, 30.3, 40.6]]
)
def test_echo_times_that_are_no_train_are_refused(te_ms):
    with pytest.raises(MetadataError, match=rf"{te_ms[0]:g}, .* ms .*not evenly spaced: not a multi-echo spin echo"):
        echo_train(np.array(te_ms) * 1e-3, "scan")


def test_uneven_echoes_can_still_be_mapped_by_the_mono_exponential_model():
    te = np.array([10, 20, 30, 45, 60, 75, 90, 120]) * 1e-3
    uneven = series(M0 * np.exp(-te / T2[..., None]), te)
    with pytest.raises(MetadataError, match=r"[Uu]se method='mono'"):
        jq.t2_map(uneven)
    np.testing.assert_allclose(jq.t2_map(uneven, method="mono")["T2map"][..., 0], T2, rtol=1e-4)


@pytest.mark.parametrize(
    ("te", "acquisition", "sign"),
    [
        (TE, {"ScanningSequence": "GR"}, "ScanningSequence is GR"),
        (TE, {"ScanningSequence": "RM", "FlipAngle": 25}, "FlipAngle is 25 degrees"),
        (TE, {"PulseSequenceName": "*fl3d12"}, "name of its sequence"),
        (TE, {"SequenceVariant": "SK\\SP"}, "SequenceVariant is SP"),
        (TE / 5, {}, "first echo comes at 2 ms"),
    ],
)
def test_what_looks_like_gradient_echoes_is_warned_of(te, acquisition, sign):
    with pytest.warns(InputWarning, match=f"{sign}.*t2star"):
        jq.t2_map(series(signal(), te, **acquisition), method="mono")


# voxels and values that cannot be used --------------------------------------------------------------------------------


def test_voxels_without_an_answer_say_why_and_leave_their_neighbours_alone(maps):
    images = signal()
    images[0, 0], images[0, 1, 2], images[0, 2, 1] = 0.0, np.nan, np.inf
    images[0, 3], images[0, 4] = 100.0, np.linspace(100, 800, N_ECHOES)
    found = jq.t2_map(series(images))
    status = [jq.Status(code).name for code in found["status"][0, :6, 0]]
    assert status == ["NO_SIGNAL", "NOT_FINITE", "NOT_FINITE", "AT_BOUND", "AT_BOUND", "OK"]
    for name in set(found) - {"status"}:
        assert np.isnan(found[name][0, :5]).all()
        np.testing.assert_array_equal(found[name][1:], maps[name][1:])


def test_voxels_of_a_b1_map_that_cannot_be_are_not_fitted():
    b1 = B1[..., None].copy()
    b1[0, :4, 0] = [np.nan, 0.0, -1.0, 3.0]
    with pytest.warns(InputWarning, match=r"outside 0\.1 \.\.\. 2.* in 4 of 256 voxels"):
        found = jq.t2_map(series(signal()), b1=b1)
    assert np.all(found["status"][0, :4] == jq.Status.NOT_FINITE)
    assert np.all(found["status"][1:] == OK)
    assert np.isnan(found["T2map"][0, :4]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"b1": 100 * B1[..., None]}, MetadataError, "B1 map is the true over .* got 79.*; divide per cent by 100"),
        ({"b1": 900 * B1[..., None]}, MetadataError, "divide tenths of degrees by 10 times the nominal angle"),
        ({"b1": -1.0}, MetadataError, r"outside 0.1 \.\.\. 2, or no number, in all voxels"),
        ({"b1": np.ones((2, 2, 2))}, ValueError, r"b1 has shape \(2, 2, 2\), the images have \(16, 16, 1\)"),
        (
            {"b1_range": (60.0, 130.0)},
            UsageError,
            "b1_range is the lowest and the highest B1, within 0.1 ... 2, got 60",
        ),
        ({"b1_range": (1.3, 0.6)}, UsageError, "got 1.3 and 0.6"),
        ({"t1": 1000.0}, UsageError, "T1 has the median 1000 s, .*give the right one with t1= .seconds."),
        ({"t1": 0.001}, UsageError, "T1 has the median 0.001 s"),
        ({"t1": -1.0}, UsageError, "T1 has no value above 0"),
        ({"flip_angle": 180.0}, UsageError, "at most pi, 180 degrees"),
        ({"flip_angle": 0.0}, UsageError, "above 0"),
        (
            {"t1": np.full((16, 16, 1), 1000.0)},
            MetadataError,
            "T1 has the median 1000 s, .*give the right one with t1= .seconds.",
        ),
        ({"method": "mono", "b1": 1.0}, UsageError, "mono knows no B1"),
        ({"method": "mono", "t1": 1.0}, UsageError, "leave out t1=."),
        ({"method": "dictionary", "noise": jq.Rician(10.0)}, UsageError, "knows no Rician noise; use method='lm'"),
        ({"method": "epg"}, ValueError, "'epg' is not one of lm, dictionary, mono"),
        ({"mask": np.zeros((16, 16, 1))}, CorruptInputError, "mask is empty"),
    ],
)
def test_mistakes_are_named(scan, arguments, error, words):
    with pytest.raises(error, match=words):
        jq.t2_map(scan, **arguments)


def test_two_echoes_determine_no_b1(scan):
    with pytest.raises(
        CorruptInputError, match=r"2 echoes cannot determine 3 param.*give a B1 map with b1=.*use method='mono'"
    ):
        jq.t2_map(series(signal()[..., :2], TE[:2]))


@pytest.mark.parametrize("b1", [None, 1.0])
def test_one_echo_determines_nothing(b1):
    with pytest.raises(CorruptInputError, match=r"1 echo cannot determine .*; give images of more echoes"):
        jq.t2_map(series(signal()[..., :1], TE[:1]), b1=b1)


# what a report shows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [{}, {"b1": B1[..., None], "t1": 1.0}])
def test_curves_of_the_report_pass_through_the_measurements(scan, known):
    found = T2Job(**known).estimate(scan)
    voxels = np.array([1, 8, 14]), np.array([3, 3, 12]), np.array([0, 0, 0])
    curves = found.curves(voxels)
    np.testing.assert_allclose(found.points, TE, rtol=1e-6)
    np.testing.assert_allclose(curves, scan.data[voxels], rtol=2e-3)


def test_models_are_compared_where_both_have_an_answer(rng):
    images = signal() + rng.normal(scale=2.0, size=(16, 16, N_ECHOES))
    images[0, 0] = np.nan
    scan = series(images)
    estimate = T2Job().estimate(scan)
    maps = estimate.maps
    train_row, mono_row = T2Job().compare(scan, estimate)
    assert train_row["voxels"] == mono_row["voxels"] <= 255
    mono = jq.t2_map(scan, method="mono")
    both = (maps["status"] == OK) & (mono["status"] == OK)
    for row, found in ((train_row, maps), (mono_row, mono)):
        assert row["median_T2_s"] == pytest.approx(np.median(found["T2map"][both]), rel=1e-5)
        assert row["relative_error"] == pytest.approx(np.median(found["residual"][both]), rel=1e-4)
    assert train_row["rms_misfit_to_mono"] < 0.5 < train_row["by_noise_alone"]
    assert train_row["share_better"] > 0.95
