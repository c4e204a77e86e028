"""Slice profiles against isochromats across the slice, which know no phase graphs."""

import isochromats
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqmri as jq

N, ESP = 16, 0.01
T2, B1 = (grid.ravel() for grid in np.meshgrid([0.02, 0.05, 0.2], [0.8, 0.9, 1.0, 1.1]))


def train(thickness_ratio=1.2, **options):
    profile = jq.slice_profile("sinc", thickness_ratio=thickness_ratio, time_bandwidth=4, **options)
    return jq.FSE(np.full(N, np.pi), ESP, slice_profile=profile, magnitude=True)


def scanned(thickness_ratio):
    return np.array([isochromats.train(t2, b1, thickness_ratio) for t2, b1 in zip(T2, B1, strict=True)])


def fitted(model, signal):
    return jq.fit(model, signal.astype("f4"), known={"t1": 1.0}, batch_size=12)


@pytest.mark.parametrize(
    "thickness_ratio", [pytest.param(1.0, marks=pytest.mark.slow), 1.2, pytest.param(1.5, marks=pytest.mark.slow)]
)
def test_t2_and_b1_of_a_scanned_slice(thickness_ratio):
    found = fitted(train(thickness_ratio), scanned(thickness_ratio))
    np.testing.assert_allclose(found.params.t2, T2, rtol=0.006)
    np.testing.assert_allclose(found.params.b1, B1, rtol=0.006)


@pytest.mark.slow
def test_without_its_profile_a_slice_has_a_longer_t2_and_a_lower_b1():
    found = fitted(jq.FSE(np.full(N, np.pi), ESP, magnitude=True), scanned(1.2))
    assert np.all(np.asarray(found.params.t2) > 1.05 * T2)
    assert np.all(np.asarray(found.params.b1) < 0.9 * B1)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "longer"), [(0.9, (-0.05, 0.02)), (1.1, (-0.04, 0.05))])
def test_a_profile_a_tenth_too_thin_or_thick_changes_t2_by_some_per_cent(factor, longer):
    found = fitted(train(1.2 * factor), scanned(1.2))
    assert longer[0] < np.min(np.asarray(found.params.t2) / T2 - 1)
    assert np.max(np.asarray(found.params.t2) / T2 - 1) < longer[1]


def test_many_samples_give_the_train_of_isochromats():
    b1 = np.array([0.8, 1.0, 1.1])
    signal = jq.simulate(train(1.2, n_samples=60), jq.Tissue(t1=1.0, t2=0.05, b1=b1))
    truth = np.array([isochromats.train(0.05, value, 1.2) for value in b1])
    np.testing.assert_allclose(signal / signal[1, 0], truth / truth[1, 0], atol=1e-3)


def test_a_profile_of_one_place_changes_nothing():
    flat = jq.measured_profile([2.0, 2.0], [1, 1], [1, 1])
    angles, tissue = np.deg2rad([150, 120, 100, 120]), jq.Tissue(t1=0.8, t2=0.05, b1=0.9)
    plain, profiled = (jq.simulate(jq.FSE(angles, ESP, tr=0.3, slice_profile=p), tissue) for p in (None, flat))
    np.testing.assert_allclose(profiled, plain, rtol=1e-5)


def test_a_measured_profile_weighs_excitation_and_refocusing_apart():
    weights, excitation, refocusing = np.array([0.3, 0.7]), np.array([0.5, 1.0]), np.array([0.8, 1.0])
    profile = jq.measured_profile(weights, excitation, refocusing)
    angles = np.full(4, 2.5)
    tissue = jq.Tissue(t2=0.05, b1=0.9)
    signal = jq.simulate(jq.FSE(angles, ESP, slice_profile=profile), tissue)
    parts = [
        w
        * np.sin(0.9 * e * np.pi / 2)
        / np.sin(0.9 * np.pi / 2)
        * np.asarray(jq.simulate(jq.FSE(r * angles, ESP), tissue))
        for w, e, r in zip(weights, excitation, refocusing, strict=True)
    ]
    excited = np.sum(weights * np.sin(excitation * np.pi / 2))
    np.testing.assert_allclose(signal, sum(parts) / excited, rtol=1e-5)


def test_trains_by_the_table_are_those_of_the_model(rng):
    model = train(1.2)
    table = model.prepared(("t2", "b1"))
    leaves = [jnp.asarray(rng.uniform(*ends, 64), "f4") for ends in ((0.3, 4), (0.005, 0.5), (0.4, 1.4))]
    tissue = jq.Tissue(jnp.ones(64), leaves[0], leaves[1], jnp.ones(64), leaves[2])
    by_model, by_table = (jax.jit(lambda p, m=m: m.batched(p))(tissue) for m in (model, table))
    np.testing.assert_allclose(by_table, by_model, atol=2e-6)
    assert model.prepared(("t2",)) is model, "where b1 is known nothing is gained"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jq.slice_profile("sinx"), "a pulse is 'sinc', 'gauss' or an array"),
        (lambda: jq.slice_profile(window="blackman"), "window hann"),
        (lambda: jq.slice_profile(np.arange(20.0)), "symmetric in time"),
        (lambda: jq.slice_profile(thickness_ratio=0), "thickness_ratio must be above 0"),
        (lambda: jq.measured_profile([1, 1], [1, 90], [1, 180]), "divide degrees by the nominal ones"),
        (lambda: jq.measured_profile([1, 1], [1], [1, 1]), "arrays of one shape"),
        (lambda: jq.measured_profile([1, np.nan], [1, 1], [1, 1]), "weights of a slice profile must be finite"),
    ],
)
def test_what_is_no_profile_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
