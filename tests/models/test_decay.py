"""Facts about exponential decay and the simulation of signals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqmri as jq

TE = np.linspace(2e-3, 40e-3, 11)


def test_signal_is_s0_at_te_zero_and_s0_over_e_at_te_t2():
    model = jq.MonoExponential(np.array([0.0, 0.03, 0.06]))
    signal = model(jq.Decay(jnp.asarray(7.0), jnp.asarray(0.03)))
    np.testing.assert_allclose(signal, [7.0, 7.0 / np.e, 7.0 / np.e**2], rtol=1e-6)


def test_batched_is_the_model_of_each_voxel(rng):
    model = jq.MonoExponential(TE)
    params = jq.Decay(*(jnp.asarray(rng.uniform(0.01, 1, 7), jnp.float32) for _ in range(2)))
    one_by_one = np.stack([model(jq.Decay(s0, t2)) for s0, t2 in zip(*params, strict=True)], axis=-1)
    np.testing.assert_allclose(model.batched(params), one_by_one, rtol=1e-6)


def test_batched_guess_is_the_guess_of_each_voxel(rng):
    model = jq.MonoExponential(TE)
    signal = rng.normal(size=(TE.size, 7)) + np.exp(-TE[:, None] / rng.uniform(0.01, 0.1, 7))
    signal = jnp.asarray(np.append(signal, -signal[:, :1], axis=1), jnp.float32)  # one that is negative
    guesses = jax.jit(lambda signal: model.batched_guess(signal))(signal)
    alone = jax.jit(lambda signal: model.initial_guess(signal))
    one_by_one = np.array([alone(s) for s in signal.T]).T
    np.testing.assert_allclose(np.stack(guesses), one_by_one, rtol=1e-5)


def test_guess_of_a_noise_free_decay_is_the_decay(rng):
    model = jq.MonoExponential(TE)
    truth = jq.Decay(*(jnp.asarray(rng.uniform(*r, 20), jnp.float32) for r in ((1.0, 1000.0), (0.003, 0.3))))
    guess = jax.jit(lambda truth: model.batched_guess(model.batched(truth)))(truth)
    np.testing.assert_allclose(np.stack(guess), np.stack(truth), rtol=1e-3)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("t2", [5e-3, 0.03, 0.3])
def test_log_linear_is_exact_without_noise(t2, weighted):
    model = jq.MonoExponential(TE)
    guess = model.log_linear(model(jq.Decay(jnp.asarray(900.0), jnp.asarray(t2))), weighted=weighted)
    np.testing.assert_allclose(guess, [900.0, t2], rtol=1e-4)


def test_log_linear_is_the_weighted_straight_line_of_polyfit(rng):
    signal = 100 * np.exp(-TE / 0.02) * rng.uniform(0.9, 1.1, TE.size)
    for weighted in (True, False):
        # polyfit weighs residuals, not their squares.
        slope, intercept = np.polyfit(TE, np.log(signal), 1, w=signal if weighted else None)
        line = jq.MonoExponential(TE).log_linear(jnp.asarray(signal), weighted=weighted)
        np.testing.assert_allclose(line, [np.exp(intercept), -1 / slope], rtol=1e-4)


def test_echoes_without_a_logarithm_are_left_out():
    signal = 100 * np.exp(-TE / 0.02)
    spoiled = np.where(np.arange(TE.size) == 7, -3.0, signal)
    line = jq.MonoExponential(TE).log_linear(jnp.asarray(spoiled))
    np.testing.assert_allclose(line, [100.0, 0.02], rtol=1e-4)


def test_order_of_echo_times_does_not_matter(rng):
    order = rng.permutation(TE.size)
    truth = jq.Decay(jnp.asarray(50.0), jnp.asarray(0.04))
    shuffled = jq.MonoExponential(TE[order])
    np.testing.assert_allclose(shuffled.initial_guess(shuffled(truth)), truth, rtol=1e-4)
    np.testing.assert_allclose(shuffled.limits().t2, jq.MonoExponential(TE).limits().t2, rtol=1e-6)


def test_derivative_is_that_of_the_formula():
    model = jq.MonoExponential(TE)
    s0, t2 = 3.0, 0.025
    jacobian = jax.jacfwd(model)(jq.Decay(jnp.asarray(s0), jnp.asarray(t2)))
    np.testing.assert_allclose(jacobian.s0, np.exp(-TE / t2), rtol=1e-5)
    np.testing.assert_allclose(jacobian.t2, s0 * TE / t2**2 * np.exp(-TE / t2), rtol=1e-5)


@pytest.mark.parametrize(
    ("te", "message"),
    [
        ([0.01], "at least 2 echo times"),
        ([[0.01, 0.02]], "at least 2 echo times"),
        ([5.0, 10.0, 15.0], "divide milliseconds by 1000"),
        ([2, 4, 6, 8, 10], "divide milliseconds by 1000"),
        ([0.01, 0.01, 0.01], "2 different echo times"),
        ([0.01, -0.02], "not negative"),
        ([0.01, np.nan], "finite"),
    ],
)
def test_impossible_echo_times_are_refused(te, message):
    with pytest.raises(ValueError, match=message):
        jq.MonoExponential(np.array(te))


def test_simulate_broadcasts_leaves_and_puts_measurements_last():
    model = jq.MonoExponential(TE)
    s0, t2 = np.array([[1.0], [2.0]]), np.array([0.01, 0.02, 0.03])
    signal = jq.simulate(model, jq.Decay(s0, t2))
    np.testing.assert_allclose(signal, s0[..., None] * np.exp(-TE / t2[:, None]), rtol=1e-5)
    np.testing.assert_array_equal(signal, jq.simulate(model, jq.Decay(s0, t2), batch_size=4))


@pytest.mark.usefixtures("double_precision")
def test_simulate_follows_the_precision_of_the_parameters():
    model = jq.MonoExponential(TE)
    double = jq.simulate(model, jq.Decay(np.array([1.0]), 0.02))
    assert double.dtype == jnp.float64
    np.testing.assert_allclose(double[0], np.exp(-TE / 0.02), rtol=1e-14)
    assert jq.simulate(model, jq.Decay(np.ones(2, np.float32), 0.02)).dtype == jnp.float32


def test_integers_are_simulated_as_numbers():
    signal = jq.simulate(jq.MonoExponential(TE), jq.Decay(np.array([100]), np.array([1])))
    np.testing.assert_allclose(signal[0], 100 * np.exp(-TE), rtol=1e-6)


def test_simulate_says_what_does_not_fit():
    model = jq.MonoExponential(TE)
    with pytest.raises(ValueError, match=r"s0 \(2,\), t2 \(3,\)"):
        jq.simulate(model, jq.Decay(np.ones(2), np.ones(3)))
    with pytest.raises(ValueError, match=r"takes a Decay\(s0, t2\)"):
        jq.simulate(model, (1.0, 0.02))
