"""Complex gradient echoes: precession, its aliases, finite differences and an exhaustive search."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqmri as jq

EVEN = 4.6e-3 * np.arange(1, 9)
UNEVEN = 1e-3 * np.array([12.0, 2.0, 4.5, 40.0, 25.0, 31.0, 7.0, 17.0])


def formula(te, m0, t2star, b0):
    return m0[:, None] * np.exp(-te / t2star[:, None] + 2j * np.pi * b0[:, None] * te)


def params(m0=1.0, t2star=0.03, b0=0.0):
    return jq.OffResonantDecay(*(jnp.asarray(v) for v in (m0, t2star, b0)))


def test_magnitude_decays_and_phase_grows_by_one_turn_per_period():
    te = np.array([0.0, 5e-3, 10e-3, 20e-3])
    signal = jq.ComplexGradientEcho(te)(params(2j, 0.02, 50.0))
    np.testing.assert_allclose(signal, 2j * np.exp(-te / 0.02) * [1, 1j, -1, 1], atol=2e-6)


def test_batched_and_simulate_are_the_formula_of_each_voxel(rng):
    model = jq.ComplexGradientEcho(EVEN)
    m0 = (rng.standard_normal(7) + 1j * rng.standard_normal(7)).astype(np.complex64)
    t2star, b0 = rng.uniform(0.01, 0.05, 7).astype(np.float32), rng.uniform(-90, 90, 7).astype(np.float32)
    expected = formula(EVEN, m0, t2star, b0)
    signal = jq.simulate(model, jq.OffResonantDecay(m0, t2star, b0))
    assert signal.dtype == jnp.complex64
    np.testing.assert_allclose(signal, expected, atol=2e-5)
    one_by_one = [model(params(*p)) for p in zip(m0, t2star, b0, strict=True)]
    np.testing.assert_allclose(one_by_one, expected, atol=2e-5)


def test_even_echoes_cannot_tell_frequencies_a_period_apart():
    model, period = jq.ComplexGradientEcho(EVEN), 1 / 4.6e-3
    one, other = model(params(b0=30.0)), model(params(b0=30.0 - period))
    np.testing.assert_allclose(np.asarray(one) / one[0], np.asarray(other) / other[0], atol=2e-5)
    np.testing.assert_allclose(model.limits().b0, (-period, period), rtol=1e-5)


def test_b0_is_moved_in_radians_over_the_train():
    model = jq.ComplexGradientEcho(np.array([5e-3, 25e-3]))
    assert float(model.to_coordinate("b0", jnp.asarray(50.0))) == pytest.approx(2 * np.pi, rel=1e-6)
    for name, value in (("b0", -73.0), ("t2star", 0.02)):
        coordinate = model.to_coordinate(name, jnp.asarray(value))
        assert float(model.from_coordinate(name, coordinate)) == pytest.approx(value, rel=1e-6)


@pytest.mark.usefixtures("double_precision")
def test_derivatives_match_finite_differences():
    model, point = jq.ComplexGradientEcho(EVEN), (0.7, -0.4, 0.02, 35.0)

    @jax.jit
    def signal(re, im, t2star, b0):
        values = model(jq.OffResonantDecay(jax.lax.complex(re, im), t2star, b0))
        return jnp.concatenate([values.real, values.imag])

    here = tuple(jnp.asarray(v) for v in point)
    columns = jax.jit(jax.jacfwd(signal, argnums=(0, 1, 2, 3)))(*here)
    gradient = jax.jit(jax.grad(lambda *p: jnp.sum(jnp.cos(signal(*p))), argnums=(0, 1, 2, 3)))(*here)
    for i, value in enumerate(point):
        step = 1e-6 * abs(value)
        up, down = (signal(*here[:i], here[i] + s, *here[i + 1 :]) for s in (step, -step))
        expected = (up - down) / (2 * step)
        np.testing.assert_allclose(columns[i], expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(gradient[i], -jnp.sin(signal(*here)) @ expected, rtol=1e-7)


@eqx.filter_jit
def guesses(model, signal, known):
    return jax.vmap(model.initial_guess)(signal, known)


def random_voxels(rng, n, noise, te):
    half = 0.5 / np.diff(np.sort(te)).min()
    b0, t2star = rng.uniform(-half, half, n), np.exp(rng.uniform(np.log(6e-3), np.log(0.1), n))
    signal = formula(te, np.exp(2j * np.pi * rng.random(n)), t2star, b0)
    signal /= np.abs(signal).max(1, keepdims=True)
    signal += noise * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    return (signal / np.abs(signal).max(1, keepdims=True)).astype(np.complex64), t2star, b0, half


@pytest.mark.parametrize("te", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_guess_is_the_lowest_of_an_exhaustive_search(rng, te, noise):
    signal, true_t2star, true_b0, half = random_voxels(rng, 1000, noise, te)
    model = jq.ComplexGradientEcho(te)
    guess = guesses(model, jnp.asarray(signal), {})
    m0, t2star, b0 = (np.asarray(leaf, complex) for leaf in guess)
    cost = np.sum(np.abs(formula(te, m0, t2star, b0) - signal) ** 2, axis=1)

    frequencies = np.exp(-2j * np.pi * te[:, None] * np.linspace(-half, half, 601)).astype(np.complex64)
    best = np.zeros(len(signal))
    for candidate in np.geomspace(*(float(end) for end in model.limits().t2star), 60):
        decay = np.exp(-te / candidate)
        overlap = np.abs((signal * decay.astype(np.float32)) @ frequencies).max(1)
        best = np.maximum(best, overlap.astype(float) ** 2 / np.sum(decay**2))
    assert np.max(cost - (np.sum(np.abs(signal.astype(complex)) ** 2, axis=1) - best)) < 2e-6
    if te is EVEN:
        assert np.max(np.abs(b0)) <= half * (1 + 1e-6)
    if noise == 0:
        np.testing.assert_allclose(t2star.real, true_t2star, rtol=0.02)
        # At the very end of the range the other end is the same signal.
        inside = np.abs(true_b0) < half - 0.02 / np.ptp(te)
        assert np.max(np.abs(b0.real - true_b0)[inside]) < 0.02 / np.ptp(te)


@pytest.mark.parametrize("starts", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_two_echoes_determine_all_there_is_up_to_the_end_of_the_range(starts):
    """Four numbers, four unknowns: no error bars. A period away the signal is the same, which is no second minimum."""
    te, half = np.array([3e-3, 7e-3]), 125.0
    b0, t2star, m0 = half * np.array([-0.99, -0.4, 0.0, 0.7, 0.99]), np.full(5, 0.03), np.exp(1j * np.arange(5))
    result = jq.fit(jq.ComplexGradientEcho(te), formula(te, m0, t2star, b0), starts=starts)
    assert np.all(result.status == jq.Status.OK)
    np.testing.assert_allclose(result.params.b0, b0, atol=1e-3 * half)
    np.testing.assert_allclose(result.params.t2star, t2star, rtol=1e-3)
    np.testing.assert_allclose(result.params.m0, m0, atol=1e-3)
    assert np.all(np.isnan(result.stderr.t2star))


def test_magnitudes_do_not_know_b0(rng):
    signal, true_t2star, _, _ = random_voxels(rng, 50, 0.0, EVEN)
    held = {"b0": jnp.full(50, 12.0)}
    guess = guesses(jq.ComplexGradientEcho(EVEN), jnp.abs(jnp.asarray(signal)), held)
    np.testing.assert_allclose(guess.t2star, true_t2star, rtol=0.01)
    np.testing.assert_array_equal(guess.b0, held["b0"])
    assert not jnp.iscomplexobj(guess.m0)


def test_the_real_part_of_a_signal_is_no_magnitude():
    real = formula(EVEN, *np.array([[100.0], [0.03], [60.0]])).real
    result = jq.fit(jq.ComplexGradientEcho(EVEN), real, known={"b0": 60.0})
    assert result.status.tolist() == [jq.Status.NEGATIVE_MAGNITUDE]


@pytest.mark.parametrize("names", [("b0",), ("m0",)])
def test_what_is_known_is_kept_and_used(rng, names):
    te = UNEVEN[:4]
    t2star, b0 = rng.uniform(0.01, 0.05, 20), rng.uniform(-150, 150, 20)
    m0 = np.exp(2j * np.pi * rng.random(20))
    truth = {"m0": jnp.asarray(m0, jnp.complex64)}
    truth |= {"t2star": jnp.asarray(t2star, jnp.float32), "b0": jnp.asarray(b0, jnp.float32)}
    held = {name: truth[name] for name in names}
    signal = jnp.asarray(formula(te, m0, t2star, b0), jnp.complex64)
    guess = guesses(jq.ComplexGradientEcho(te), signal, held)
    for name in names:
        np.testing.assert_array_equal(getattr(guess, name), held[name])
    np.testing.assert_allclose(guess.t2star, t2star, rtol=0.01)
    np.testing.assert_allclose(guess.b0, b0, atol=0.02 / np.ptp(te))


def test_a_guess_stops_derivatives():
    model = jq.ComplexGradientEcho(EVEN[:2])
    slope = jax.jit(jax.grad(lambda b0: model.initial_guess(model(params(b0=b0))).b0))(10.0)
    assert float(slope) == 0


def test_hopeless_signals_have_a_finite_guess():
    signal = np.array([np.ones(8), np.eye(8)[2], 1j * np.eye(8)[7], np.full(8, 1e-25)], np.complex64)
    many = np.tile(signal, (250, 1))  # as many voxels as above share a program
    guess = guesses(jq.ComplexGradientEcho(EVEN), jnp.asarray(many), {})
    assert all(np.all(np.isfinite(leaf)) for leaf in guess)


@pytest.mark.parametrize(
    ("te", "message"),
    [
        ([0.01], "at least 2 echo times"),
        ([2.3, 4.6], "divide milliseconds by 1000"),
        ([0.01, 0.01], "2 different echo times"),
        ([0.01, -0.02], "not negative"),
    ],
)
def test_impossible_echo_times_are_refused(te, message):
    with pytest.raises(ValueError, match=message):
        jq.ComplexGradientEcho(np.array(te))
