"""Spoiled gradient echoes against extended phase graphs, the Ernst angle, finite differences and a full search."""

import csv

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import jaxqmri as jq
from jaxqmri import epg

ANGLES, TR = np.deg2rad([2.0, 5.0, 12.0]), 5.4e-3
ECHOES = np.tile([2.3e-3, 4.6e-3, 9e-3, 20e-3], 2)
MULTI_ECHO = (np.repeat(np.deg2rad([4.0, 20.0]), 4), 25e-3, ECHOES)


def formula(angle, tr, t1, b1=1.0, te=0.0, t2star=1.0):
    e1 = np.exp(-tr / t1)
    return np.sin(b1 * angle) * (1 - e1) / (1 - np.cos(b1 * angle) * e1) * np.exp(-te / t2star)


@pytest.mark.usefixtures("double_precision")
def test_signal_is_the_steady_state_of_pulses_with_ideal_spoiling():
    t1, t2, te, b1, tr = 0.3, 0.04, 4e-3, 0.9, 50e-3

    def steady_state(angle):
        def repetition(states, _):
            echo = epg.relax(epg.rf(states, b1 * angle), te, t1, t2)
            return epg.spoil(epg.relax(echo, tr - te, t1, t2)), jnp.abs(echo[0, 0])

        return jax.lax.scan(repetition, epg.equilibrium(2, jnp.complex128), length=250)[1][-1]

    angles = np.deg2rad([5.0, 40.0])
    expected = jax.jit(jax.vmap(steady_state))(angles)
    model = jq.SpoiledGradientEcho(angles, tr, te)
    np.testing.assert_allclose(model(jq.Tissue(t1=t1, t2star=t2, b1=b1)), expected, rtol=1e-10)


def test_the_ernst_angle_gives_most_signal():
    t1 = 1.2
    ernst = np.arccos(np.exp(-TR / t1))
    below, at, above = jq.SpoiledGradientEcho(ernst * np.array([0.95, 1.0, 1.05]), TR)(jq.Tissue(t1=t1))
    assert at > below
    assert at > above
    # There the signal is tan(a / 2): Ernst, Anderson (1966).
    np.testing.assert_allclose(at, np.tan(ernst / 2), rtol=1e-5)


def test_limits_of_small_angle_and_long_tr():
    tiny = np.array([1e-4, 2e-4])
    np.testing.assert_allclose(jq.SpoiledGradientEcho(tiny, TR)(jq.Tissue(t1=0.8)), tiny, rtol=1e-5)
    angles = np.array([0.3, 1.5])
    np.testing.assert_allclose(jq.SpoiledGradientEcho(angles, 1.9)(jq.Tissue(t1=0.01)), np.sin(angles), rtol=1e-6)


def test_batched_is_the_formula_of_each_voxel(rng):
    angles, tr, te = np.deg2rad([5.0, 10.0, 20.0]), np.array([0.01, 0.02, 0.03]), np.array([2e-3, 3e-3, 5e-3])
    m0, t1, t2star, b1 = rng.uniform(0.5, 1.5, (4, 6)).astype(np.float32)
    tissue = jq.Tissue(m0=m0, t1=t1, t2star=t2star * 0.02, b1=b1)
    expected = m0[:, None] * formula(angles, tr, t1[:, None], b1[:, None], te, 0.02 * t2star[:, None])
    model = jq.SpoiledGradientEcho(angles, tr, te)
    np.testing.assert_allclose(jq.simulate(model, tissue), expected, rtol=2e-6)
    one_by_one = [model(jax.tree.map(lambda leaf, i=i: leaf[i] if np.ndim(leaf) else leaf, tissue)) for i in range(6)]
    np.testing.assert_allclose(one_by_one, expected, rtol=2e-6)


@pytest.mark.parametrize("ratio", [1e-3, 1e-2, 5.0])
def test_single_precision_keeps_the_digits_of_signal_and_derivative(ratio):
    t1 = np.float32(TR / ratio)
    model = jq.SpoiledGradientEcho(ANGLES, TR)
    np.testing.assert_allclose(model(jq.Tissue(t1=t1)), formula(ANGLES, TR, float(t1)), rtol=2e-6)
    e1, cos = np.exp(-TR / float(t1)), np.cos(ANGLES)
    exact = -np.sin(ANGLES) * (1 - cos) / (1 - e1 * cos) ** 2 * e1 * TR / float(t1) ** 2
    slope = jax.jit(jax.jacfwd(lambda t: model(jq.Tissue(t1=t))))(jnp.asarray(t1))
    np.testing.assert_allclose(slope, exact, rtol=1e-5)


@pytest.mark.usefixtures("double_precision")
def test_derivatives_match_finite_differences():
    model = jq.SpoiledGradientEcho(*MULTI_ECHO)
    point = {"m0": 2.0, "t1": 0.9, "t2star": 0.02, "b1": 1.1}
    params = {name: jnp.asarray(value) for name, value in point.items()}

    @jax.jit
    def signal(values):
        return model(jq.Tissue(**values))

    columns = jax.jit(jax.jacfwd(signal))(params)
    gradient = jax.jit(jax.grad(lambda values: jnp.sum(signal(values) ** 2)))(params)
    for name, value in point.items():
        step = 1e-6 * value
        up, down = (signal(point | {name: value + s}) for s in (step, -step))
        expected = (up - down) / (2 * step)
        np.testing.assert_allclose(columns[name], expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(gradient[name], 2 * signal(params) @ expected, rtol=1e-7)


def test_what_can_be_fitted_follows_from_the_echo_times():
    none, constant, varying = (
        jq.SpoiledGradientEcho(MULTI_ECHO[0], 25e-3, te) for te in (0.0, np.full(8, 2e-3), ECHOES)
    )
    assert (none.ignored, none.assumed) == (("t2", "t2star"), ("b1",))
    assert (constant.ignored, constant.assumed) == (("t2",), ("b1", "t2star"))
    assert (varying.ignored, varying.assumed) == (("t2",), ("b1",))


@eqx.filter_jit
def guesses(model, signal, known):
    return jax.vmap(model.initial_guess)(signal, known)


def random_voxels(rng, n, noise, angles, tr, te):
    t1, b1 = np.exp(rng.uniform(np.log(0.1), np.log(5), n)), rng.uniform(0.6, 1.4, n)
    t2star = np.exp(rng.uniform(np.log(3e-3), np.log(0.1), n))
    signal = formula(angles, tr, t1[:, None], b1[:, None], te, t2star[:, None])
    signal = signal / signal.max(1, keepdims=True)
    signal = signal + noise * rng.standard_normal(signal.shape)
    return (signal / np.abs(signal).max(1, keepdims=True)).astype(np.float32), t1, t2star, b1


def cost_of(signal, shape):
    """With the best M0 that is not negative."""
    m0 = np.maximum(np.sum(shape * signal, axis=-1), 0) / np.sum(shape**2, axis=-1)
    return np.sum((m0[..., None] * shape - signal) ** 2, axis=-1)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_guess_is_the_lowest_of_an_exhaustive_search(rng, noise):
    signal, true_t1, _, b1 = random_voxels(rng, 500, noise, ANGLES, TR, 0.0)
    model = jq.SpoiledGradientEcho(ANGLES, TR)
    known = {"b1": jnp.asarray(b1, jnp.float32)}
    guess = guesses(model, jnp.asarray(signal), known)
    shape = formula(ANGLES, TR, np.asarray(guess.t1, float)[:, None], b1[:, None])
    cost = np.sum((np.asarray(guess.m0, float)[:, None] * shape - signal) ** 2, axis=1)
    low, high = model.limits().t1
    search = formula(ANGLES, TR, np.geomspace(low, high, 1500)[:, None], b1[:, None, None])
    assert np.max(cost - cost_of(signal[:, None], search).min(1)) < 2e-6
    if noise == 0:
        np.testing.assert_allclose(guess.t1, true_t1, rtol=5e-3)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_guess_with_several_echoes_lies_in_the_deepest_valley(rng, noise):
    """No pair of T1 and T2* fits better by more than a hundredth of the misfit."""
    signal, true_t1, true_t2star, b1 = random_voxels(rng, 60, noise, *MULTI_ECHO)
    model = jq.SpoiledGradientEcho(*MULTI_ECHO)
    known = {"b1": jnp.asarray(b1, jnp.float32)}
    guess = guesses(model, jnp.asarray(signal), known)
    if noise == 0:
        np.testing.assert_allclose(guess.t1, true_t1, rtol=5e-3)
        np.testing.assert_allclose(guess.t2star, true_t2star, rtol=5e-3)
        return
    low, high = (np.log([ends[side] for ends in (model.limits().t1, model.limits().t2star)]) for side in (0, 1))
    t1, t2star = (np.exp(np.linspace(low[i], high[i], 60)) for i in range(2))
    t1, t2star = (leaf.ravel()[:, None] for leaf in np.meshgrid(t1, t2star, indexing="ij"))
    for i in range(len(signal)):

        def residual(x, i=i):
            shape = formula(MULTI_ECHO[0], 25e-3, np.exp(x[0]), b1[i], ECHOES, np.exp(x[1]))
            return max(shape @ signal[i], 0) / (shape @ shape) * shape - signal[i]

        start = np.clip(np.log([guess.t1[i], guess.t2star[i]]), low + 1e-6, high - 1e-6)
        reached = 2 * optimize.least_squares(residual, start, bounds=(low, high)).cost
        best = cost_of(signal[i], formula(MULTI_ECHO[0], 25e-3, t1, b1[i], ECHOES, t2star)).min()
        assert reached <= best * (1 + 1e-6)


def test_guess_takes_complex_signals_and_what_is_known(rng):
    signal, true_t1, true_t2star, b1 = random_voxels(rng, 20, 0.0, *MULTI_ECHO)
    model = jq.SpoiledGradientEcho(*MULTI_ECHO)
    phase = np.exp(2j * np.pi * rng.random((20, 1)))
    known = {"b1": jnp.asarray(b1, jnp.float32), "t2star": jnp.asarray(true_t2star, jnp.float32)}
    guess = guesses(model, jnp.asarray(signal * phase, jnp.complex64), known)
    np.testing.assert_allclose(guess.t1, true_t1, rtol=5e-3)
    np.testing.assert_allclose(guess.m0 / np.abs(guess.m0), phase[:, 0], atol=1e-5)


def test_hopeless_signals_have_a_finite_guess():
    signal = np.array([np.ones(8), -np.ones(8), np.eye(8)[2], np.full(8, 1e-30)], np.float32)
    for te in (0.0, ECHOES):
        guess = guesses(jq.SpoiledGradientEcho(MULTI_ECHO[0], 25e-3, te), jnp.asarray(signal), {})
        assert all(np.all(np.isfinite(leaf)) for leaf in guess)


def test_guess_is_near_the_reference_of_real_voxels(shared_data):
    with (shared_data / "osipi_vfa" / "t1_brain_data.csv").open() as file:
        rows = list(csv.DictReader(file))
    signal = np.array([row["s"].split() for row in rows], np.float32)
    model = jq.SpoiledGradientEcho(np.deg2rad(np.array(rows[0]["FA"].split(), float)), TR)
    guess = guesses(model, jnp.asarray(signal / signal.max(1, keepdims=True)), {})
    np.testing.assert_allclose(1 / guess.t1, [float(row["R1"]) for row in rows], rtol=5e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1], TR), "at least 2 angles"),
        (([2.0, 5.0, 12.0], TR), "use jnp.deg2rad"),
        (([0.1, 0.0], TR), "positive"),
        (([0.1, np.nan], TR), "finite"),
        (([0.1, 0.2], 5.4), "divide milliseconds by 1000"),
        (([0.1, 0.2], 0.0), "tr must be positive"),
        (([0.1, 0.1], TR), "at least 2 different pairs"),
        (([0.1, 0.2], [TR] * 3), "tr has shape"),
        (([0.1, 0.2], TR, 2.3), "divide milliseconds by 1000"),
        (([0.1, 0.2], TR, 6e-3), "not longer than the te of 0.006 s"),
    ],
)
def test_impossible_protocols_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        jq.SpoiledGradientEcho(*(np.array(a) for a in arguments))
