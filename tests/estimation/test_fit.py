"""What a fit promises: the least-squares answer, honest error bars, and voxels that do not know of each other."""

import inspect

import chex
import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import optax
import pytest
from scipy import optimize, stats

import jaxqmri as jq
from jaxqmri.estimation.problem import Problem
from jaxqmri.models.base import as_float_array, with_dtype

TE = np.linspace(2e-3, 40e-3, 11)  # the founding example's train
MODEL = jq.MonoExponential(TE)
NAN = np.nan
# Most fits share the programs of two widths, for compiling is what takes the time: few voxels at once, or many.
FEW, MANY = 64, 1000


def decay(s0, t2, te=TE):
    """Independent of the library: (*voxel, echo) in float64."""
    return np.asarray(s0)[..., None] * np.exp(-te / np.asarray(t2)[..., None])


def cramer_rao(s0, t2, sigma):
    """Smallest standard deviation any unbiased estimate of T2 can have."""
    jacobian = np.stack([np.exp(-TE / t2), s0 * TE / t2**2 * np.exp(-TE / t2)], axis=-1)
    return sigma * np.sqrt(np.linalg.inv(jacobian.T @ jacobian)[1, 1])


def scipy_fit(signal, te=TE):
    """Least squares in float64 from two starts; the parameters are ln S0 and ln T2."""
    scale = signal.max()

    def misfit(p):
        return np.exp(p[0] - te * np.exp(-p[1])) - signal / scale

    starts = ([0.0, np.log(te.mean())], [0.5, np.log(te[0])])
    best = min(
        (optimize.least_squares(misfit, x0, xtol=1e-15, ftol=1e-15, gtol=1e-15) for x0 in starts),
        key=lambda result: result.cost,
    )
    return scale * np.exp(best.x[0]), np.exp(best.x[1])


def test_noise_free_signals_give_back_the_truth(rng):
    t2, s0 = rng.uniform(2e-3, 0.5, (30, 40)), rng.uniform(1, 4000, (30, 40))
    result = jq.fit(MODEL, decay(s0, t2), batch_size=MANY)
    assert np.all(np.asarray(result.status) == jq.Status.OK)
    np.testing.assert_allclose(result.params.t2, t2, rtol=1e-4)
    np.testing.assert_allclose(result.params.s0, s0, rtol=1e-4)
    assert np.max(np.asarray(result.residual) / s0) < 1e-5


def test_noisy_signals_give_the_answer_of_scipy(rng):
    t2 = rng.uniform(4e-3, 0.1, 200)
    signal = np.abs(decay(1000.0, t2) + rng.normal(scale=50, size=(200, TE.size)))
    result = jq.fit(MODEL, signal, batch_size=FEW)
    ok = np.asarray(result.status) == jq.Status.OK
    assert ok.mean() > 0.98
    expected = np.array([scipy_fit(s) for s in signal[ok].astype(np.float32).astype(float)])
    np.testing.assert_allclose(result.params.s0[ok], expected[:, 0], rtol=1e-4)
    np.testing.assert_allclose(result.params.t2[ok], expected[:, 1], rtol=1e-4)


@pytest.mark.usefixtures("double_precision")
def test_double_precision_is_double_precision(rng):
    signal = decay(1000.0, rng.uniform(4e-3, 0.1, 20)) + rng.normal(scale=20, size=(20, TE.size))
    result = jq.fit(jq.MonoExponential(TE), signal)
    assert result.params.t2.dtype == np.float64
    expected = np.array([scipy_fit(s) for s in signal])
    np.testing.assert_allclose(result.params.t2, expected[:, 1], rtol=1e-8)


@pytest.mark.parametrize(
    "t2", [0.005, pytest.param(0.03, marks=pytest.mark.slow), pytest.param(0.08, marks=pytest.mark.slow)]
)
def test_at_snr_50_there_is_no_bias_and_no_estimate_can_be_tighter(t2, rng):
    n_voxels, s0, snr = 20000, 1000.0, 50.0
    signal = decay(s0, np.full(n_voxels, t2)) + rng.normal(scale=s0 / snr, size=(n_voxels, TE.size))
    estimate = np.asarray(jq.fit(MODEL, signal, batch_size=MANY).params.t2)
    assert np.all(np.isfinite(estimate))
    assert abs(estimate.mean() / t2 - 1) <= 0.005
    np.testing.assert_allclose(estimate.std(), cramer_rao(s0, t2, s0 / snr), rtol=0.10)


@pytest.mark.parametrize("snr", [50.0, pytest.param(200.0, marks=pytest.mark.slow)])
def test_error_bars_are_calibrated(snr, rng):
    n_voxels, s0, t2 = 20000, 1000.0, 0.025
    signal = decay(s0, np.full(n_voxels, t2)) + rng.normal(scale=s0 / snr, size=(n_voxels, TE.size))
    freedom = TE.size - 2
    from_residuals = jq.fit(MODEL, signal, batch_size=MANY)
    z = (np.asarray(from_residuals.params.t2) - t2) / np.asarray(from_residuals.stderr.t2)
    np.testing.assert_allclose(z.std(), stats.t(freedom).std(), rtol=0.05)
    with_sigma = jq.fit(MODEL, signal, noise=jq.Gaussian(s0 / snr), batch_size=FEW)
    for name, truth in (("s0", s0), ("t2", t2)):
        z = (np.asarray(getattr(with_sigma.params, name)) - truth) / np.asarray(getattr(with_sigma.stderr, name))
        np.testing.assert_allclose(z.std(), 1.0, rtol=0.05)


def test_a_map_of_sigma_scales_each_error_bar(rng):
    signal = decay(100.0, np.full(3, 0.02)) + rng.normal(size=(3, TE.size))
    sigma = np.array([1.0, 2.0, 5.0])
    many = jq.fit(MODEL, signal, noise=jq.Gaussian(sigma))
    for voxel, one_sigma in enumerate(sigma):
        one = jq.fit(MODEL, signal[voxel], noise=jq.Gaussian(one_sigma))
        np.testing.assert_allclose(many.stderr.t2[voxel], one.stderr.t2, rtol=1e-5)


HOSTILE = {
    "zeros": (np.zeros(11), jq.Status.NO_SIGNAL),
    "one NaN": (np.where(np.arange(11) == 4, NAN, 1.0), jq.Status.NOT_FINITE),
    "one infinity": (np.where(np.arange(11) == 4, np.inf, 1.0), jq.Status.NOT_FINITE),
    "constant": (np.full(11, 5.0), jq.Status.AT_BOUND),
    "rising": (np.arange(1.0, 12.0), jq.Status.AT_BOUND),
    "negative": (np.full(11, -3.0), jq.Status.AT_BOUND),
    "last echo only": (np.where(np.arange(11) == 10, 1.0, 0.0), jq.Status.AT_BOUND),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_voxel_without_an_answer_is_nan_everywhere_and_says_why(name):
    signal, status = HOSTILE[name]
    result = jq.fit(MODEL, signal)
    assert jq.Status(int(result.status)) == status
    for leaf in (*result.params, *result.stderr, result.residual):
        assert np.isnan(leaf)


def test_first_echo_only_never_passes_for_an_answer():
    result = jq.fit(MODEL, np.where(np.arange(11) == 0, 1.0, 0.0))
    assert int(result.status) != jq.Status.OK
    assert np.isnan(result.params.t2)


@pytest.mark.parametrize("gain", [1e-30, 1e-3, 1e5, 1e30])
def test_gain_of_the_receiver_scales_s0_and_nothing_else(gain, rng):
    signal = decay(1.0, np.array([0.01, 0.05])) + rng.normal(scale=0.01, size=(2, TE.size))
    reference, scaled = jq.fit(MODEL, signal), jq.fit(MODEL, signal * gain)
    np.testing.assert_allclose(scaled.params.t2, reference.params.t2, rtol=1e-5)
    np.testing.assert_allclose(scaled.stderr.t2, reference.stderr.t2, rtol=1e-4)
    np.testing.assert_allclose(scaled.params.s0, reference.params.s0 * gain, rtol=1e-5)
    np.testing.assert_allclose(scaled.residual, reference.residual * gain, rtol=1e-4)


@pytest.fixture
def mixed_signal(rng):
    """Easy voxels, pure noise, and everything hostile, MANY in all."""
    easy = decay(1000.0, rng.uniform(3e-3, 0.2, 700)) + rng.normal(scale=30, size=(700, TE.size))
    noise = np.abs(rng.normal(size=(MANY - 700 - len(HOSTILE), TE.size)))
    signal = np.concatenate([easy, noise, [row for row, _ in HOSTILE.values()]]).astype(np.float32)
    return signal[rng.permutation(len(signal))]


@pytest.mark.parametrize(
    "batch_size", [pytest.param(1, marks=pytest.mark.slow), 7, FEW, pytest.param(300, marks=pytest.mark.slow)]
)
def test_batch_size_never_changes_a_voxel(mixed_signal, batch_size):
    signal = mixed_signal[:40] if batch_size < FEW else mixed_signal
    chex.assert_trees_all_equal(jq.fit(MODEL, signal, batch_size=batch_size), jq.fit(MODEL, signal))


@pytest.mark.parametrize("max_steps", [pytest.param(4, marks=pytest.mark.slow), 256])
def test_order_of_voxels_never_changes_a_voxel(mixed_signal, rng, max_steps):
    solver = jq.LevenbergMarquardt(max_steps=max_steps)
    result = jq.fit(MODEL, mixed_signal, solver=solver)
    order = rng.permutation(len(mixed_signal))
    if max_steps == 4:  # a voxel that is not done, in front, where the search fills up its batches
        unfinished = np.flatnonzero(np.asarray(result.status) == jq.Status.NOT_CONVERGED)
        assert len(unfinished) > 10
        order = np.concatenate([unfinished[:1], np.delete(np.arange(len(mixed_signal)), unfinished[0])])
    shuffled = jq.fit(MODEL, mixed_signal[order], solver=solver)
    chex.assert_trees_all_equal(shuffled, jax.tree.map(lambda leaf: leaf[order], result))


def test_bad_neighbour_never_changes_a_voxel(mixed_signal):
    spoiled = mixed_signal.copy()
    spoiled[::3] = NAN
    kept = np.arange(len(spoiled)) % 3 != 0
    select = lambda result: jax.tree.map(lambda leaf: leaf[kept], result)  # noqa: E731
    chex.assert_trees_all_equal(select(jq.fit(MODEL, spoiled)), select(jq.fit(MODEL, mixed_signal)))


def test_new_echo_times_of_equal_number_do_not_compile_again(caplog):
    signal = decay(10.0, np.array([0.02, 0.03]))
    jq.fit(MODEL, signal)
    compilations = lambda: [r for r in caplog.records if r.getMessage().startswith("Compiling")]  # noqa: E731
    with jax.log_compiles():
        later = jq.fit(jq.MonoExponential(TE * 1.5), decay(10.0, np.array([0.02, 0.03]), TE * 1.5))
        assert not compilations()
        jax.jit(lambda x: x + 1)(1.0)
        assert compilations(), "compilations are logged, or the assertion above could not fail"
    np.testing.assert_allclose(later.params.t2, [0.02, 0.03], rtol=1e-4)


def test_known_parameters_are_held_and_have_no_error(rng):
    s0, t2 = rng.uniform(500, 1000, 50), rng.uniform(0.01, 0.05, 50)
    signal = decay(s0, t2) + rng.normal(scale=10, size=(50, TE.size))
    with_s0 = jq.fit(MODEL, signal, known={"s0": s0})
    np.testing.assert_allclose(with_s0.params.s0, s0, rtol=1e-6)
    assert np.all(np.asarray(with_s0.stderr.s0) == 0)
    assert np.all(np.asarray(with_s0.stderr.t2) < np.asarray(jq.fit(MODEL, signal).stderr.t2))
    # With T2 known the model is linear and S0 is a projection.
    with_t2 = jq.fit(MODEL, signal, known={"t2": 0.02})
    shape = np.exp(-TE / 0.02)
    np.testing.assert_allclose(with_t2.params.s0, signal @ shape / (shape @ shape), rtol=1e-5)


def test_known_nan_spoils_its_own_voxel_only():
    signal = decay(10.0, np.array([0.02, 0.03]))
    result = jq.fit(MODEL, signal, known={"s0": np.array([NAN, 10.0])})
    assert result.status.tolist() == [jq.Status.NOT_FINITE, jq.Status.OK]


@pytest.mark.parametrize("t2", [30.0, np.array([20.0, NAN, 0.0, 40.0])])
def test_known_times_in_milliseconds_are_refused(t2):
    with pytest.raises(ValueError, match="t2 is in seconds, got 30; divide milliseconds by 1000"):
        jq.fit(MODEL, np.ones((4, TE.size)), known={"t2": t2})


def test_a_few_impossible_times_in_a_map_do_not_refuse_it():
    signal = decay(10.0, np.full(3, 0.02))
    result = jq.fit(MODEL, signal, known={"t2": np.array([0.02, 1e9, 0.02])})
    assert result.status.tolist()[::2] == [jq.Status.OK, jq.Status.OK]


@pytest.mark.parametrize("nonsense", [0.0, -0.01, NAN])
def test_impossible_known_values_and_noise_levels_give_no_answer(nonsense):
    signal = decay(10.0, np.array([0.02, 0.03]))
    expected = [jq.Status.NOT_FINITE, jq.Status.OK]
    assert jq.fit(MODEL, signal, known={"t2": np.array([nonsense, 0.03])}).status.tolist() == expected
    assert jq.fit(MODEL, signal, noise=jq.Gaussian(np.array([nonsense, 0.1]))).status.tolist() == expected
    with pytest.raises(ValueError, match="positive and finite"):
        jq.Gaussian(nonsense)


def test_the_start_does_not_decide_the_answer(rng):
    signal = decay(1000.0, rng.uniform(5e-3, 0.08, 100)) + rng.normal(scale=20, size=(100, TE.size))
    usual = jq.fit(MODEL, signal, batch_size=FEW)
    from_afar = jq.fit(MODEL, signal, init=jq.Decay(s0=5000.0, t2=np.full(100, 0.5)), batch_size=FEW)
    np.testing.assert_allclose(from_afar.params.t2, usual.params.t2, rtol=1e-4)


def test_two_echoes_determine_the_decay_but_not_its_error():
    result = jq.fit(jq.MonoExponential(TE[:2]), decay(10.0, 0.02, TE[:2]))
    np.testing.assert_allclose(result.params.t2, 0.02, rtol=1e-4)
    assert np.isnan(result.stderr.t2)
    assert jq.fit(jq.MonoExponential(TE[:2]), decay(10.0, 0.02, TE[:2]), noise=jq.Gaussian(0.1)).stderr.t2 > 0


def test_fit_can_be_jitted_and_vmapped(rng):
    """Under `jit` the echo times are traced as well."""
    signal = (decay(10.0, rng.uniform(0.01, 0.05, (3, 64))) + rng.normal(scale=0.1, size=(3, 64, TE.size))).astype("f4")
    plain = jq.fit(MODEL, signal, batch_size=FEW).params.t2

    def t2(signal, te=TE):
        return jq.fit(jq.MonoExponential(te), signal).params.t2

    np.testing.assert_allclose(jax.jit(t2)(signal[0], TE), plain[0], rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(t2)(signal), plain, rtol=1e-5)


def test_integers_are_fitted_as_float32():
    result = jq.fit(MODEL, np.round(decay(10000.0, 0.02)).astype(np.int16))
    assert result.params.t2.dtype == np.float32
    np.testing.assert_allclose(result.params.t2, 0.02, rtol=1e-3)


def test_no_voxels_give_no_maps():
    assert jq.fit(MODEL, np.zeros((0, 11))).params.t2.shape == (0,)


def test_progress_counts_every_voxel_once():
    done = []
    jq.fit(MODEL, np.ones((10, 11)), batch_size=4, progress=done.append)
    assert done == [4, 4, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signal": np.ones((4, 10))}, r"10 measurements on its last axis \(shape \(4, 10\)\).*has 11"),
        ({"signal": np.float32(1)}, "0 measurements"),
        ({"signal": np.ones((4, 11), complex)}, r"fit jnp.abs\(signal\), .*by ComplexGradientEcho\(te\)"),
        ({"signal": "5 10"}, "signal is '5 10', wanted numbers with the measurements last"),
        ({"signal": None}, "signal is None, wanted numbers"),
        ({"signal": nib.Nifti1Image(np.ones((2, 2, 2, 11)), np.eye(4))}, r"type Nifti1Image of shape \(2, 2, 2, 11\)"),
        ({"known": {"t1": 1.0}}, r"\['t1'\].*\['s0', 't2'\]"),
        ({"known": {"s0": 1.0, "t2": 0.1}}, "nothing is left"),
        ({"known": {"s0": np.ones(3)}}, r"shape \(3,\).*\(4,\)"),
        ({"init": jq.Decay(np.ones(3), 0.1)}, r"init.s0.*shape \(3,\)"),
        ({"noise": jq.Gaussian(np.ones(3))}, r"noise.sigma"),
        ({"batch_size": 0}, "batch_size"),
        ({"solver": "lm"}, r"wanted a solver such as jq.LevenbergMarquardt\(\)"),
        ({"noise": 12.0}, r"wanted a noise model such as jq.Gaussian\(sigma\)"),
        ({"init": (100.0, 0.02)}, "wanted a Decay"),
        ({"solver": jq.LogLinear(), "known": {"s0": 1.0}}, "LogLinear solves MonoExponential"),
    ],
)
def test_mistakes_are_named_with_a_remedy(arguments, message):
    arguments = {"signal": np.ones((4, 11)), **arguments}
    fit = inspect.unwrap(jq.fit)  # its own checks of types, without those of the tests
    with pytest.raises(ValueError, match=message) as raised:
        fit(MODEL, arguments.pop("signal"), **arguments)
    assert "\n" not in str(raised.value)


def test_complex_signals_of_a_decay_are_refused_also_where_they_are_traced():
    with pytest.raises(ValueError, match=r"fit jnp.abs\(signal\), .*by ComplexGradientEcho\(te\)"):
        jax.eval_shape(lambda signal: jq.fit(MODEL, signal).status, jnp.ones((4, 11), complex))


def test_swapped_and_unreadable_arguments_are_named_in_one_line():
    fit, simulate = map(inspect.unwrap, (jq.fit, jq.simulate))  # without the checks of the tests
    many = np.ones((40, 11))
    with pytest.raises(ValueError, match=r"^model is of type ndarray of shape \(40, 11\), wanted a signal model.*\.$"):
        fit(many, MODEL)
    with pytest.raises(ValueError, match=r"^model is of type Decay, wanted a signal model.*\.$"):
        simulate(jq.Decay(many, many), MODEL)
    with pytest.raises(ValueError, match=r"^the protocol is '5 10', wanted a number or a list of numbers"):
        inspect.unwrap(as_float_array)("5 10")


# --- the other solvers ------------------------------------------------------------------------------------------------


def test_log_linear_honours_the_weights_of_the_noise(rng):
    signal = np.abs(decay(1000.0, np.array([0.02, 0.05])) + rng.normal(scale=30, size=(2, TE.size)))
    weights = rng.uniform(0.5, 2.0, TE.size) * (np.arange(TE.size) != 3)
    for weighted in (True, False):
        result = jq.fit(MODEL, signal, solver=jq.LogLinear(weighted), noise=jq.Gaussian(weights=weights))
        for voxel, t2 in zip(signal, result.params.t2, strict=True):
            root = np.sqrt(weights) * (voxel if weighted else 1)
            np.testing.assert_allclose(t2, -1 / np.polyfit(TE, np.log(voxel), 1, w=root)[0], rtol=1e-4)


def test_log_linear_refuses_a_likelihood_it_does_not_maximise():
    with pytest.raises(ValueError, match="LogLinear is least squares and knows no Rician noise; use"):
        jq.fit(MODEL, decay(10.0, np.array([0.02])), solver=jq.LogLinear(), noise=jq.Rician(0.1))


def test_log_linear_solver_is_the_straight_line(rng):
    signal = decay(100.0, rng.uniform(0.01, 0.05, 30)) * rng.uniform(0.95, 1.05, (30, TE.size))
    slopes = np.polyfit(TE, np.log(signal).T, 1)[0]
    result = jq.fit(MODEL, signal, solver=jq.LogLinear(weighted=False))
    np.testing.assert_allclose(result.params.t2, -1 / slopes, rtol=1e-4)


def example_adam(signal, steps, learning_rate=1e-3):
    """The ISMRM 2024 example for one voxel, in float64 numpy.

    Adam on the mean squared error of the signal / 1500, from S0 = shortest echo and T2* = 20 ms.
    """
    signal = signal / 1500
    p, m, v = np.array([signal[0], 0.020]), np.zeros(2), np.zeros(2)
    for step in range(1, steps + 1):
        e = np.exp(-TE / p[1])
        residual = p[0] * e - signal
        g = np.array([np.mean(2 * residual * e), np.mean(2 * residual * p[0] * e * TE / p[1] ** 2)])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - learning_rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return 1500 * p[0], p[1]


@pytest.mark.parametrize("steps", [1, 30, 300])
def test_adam_follows_the_example_step_by_step(steps, rng):
    signal = (decay(1200.0, 0.030) + rng.normal(scale=10, size=TE.size)).astype(np.float32)
    one = jnp.ones(1)
    problem = Problem(
        model=with_dtype(MODEL, np.float32),
        noise=jq.Gaussian(),
        signal=jnp.asarray(signal[:, None] / signal.max()),
        scale=signal.max() * one,
        known={},
        start=(signal[0] / signal.max() * one, 0.020 * one),
        lower=(1e-6 * one, 1e-4 * one),
        upper=(1e6 * one, 10 * one),
        free=("s0", "t2"),
    )
    (s0,), (t2,) = jq.Adam(learning_rate=1e-3, steps=steps, scale=1500.0).solve(problem).values
    np.testing.assert_allclose([s0 * signal.max(), t2], example_adam(signal.astype(float), steps), rtol=1e-4)


def test_adam_that_is_far_from_the_minimum_says_so(rng):
    signal = decay(1200.0, 0.030) + rng.normal(scale=10, size=TE.size)
    result = jq.fit(MODEL, signal, init=jq.Decay(signal[0], 0.020), solver=jq.Adam(steps=3, scale=1500.0))
    assert int(result.status) == jq.Status.NOT_CONVERGED


def test_adam_bounces_around_the_least_squares_answer(rng):
    signal = decay(1200.0, rng.uniform(0.015, 0.06, 64)) + rng.normal(scale=12, size=(64, TE.size))
    adam = jq.fit(MODEL, signal, init=jq.Decay(signal[:, 0], 0.020), solver=jq.Adam(scale=1500.0))
    exact = jq.fit(MODEL, signal)
    ratio = np.asarray(adam.params.t2 / exact.params.t2)
    assert np.all(np.asarray(adam.status) == jq.Status.OK)
    assert np.median(np.abs(ratio - 1)) < 1e-3
    assert np.max(np.abs(ratio - 1)) < 0.02
    assert np.all(np.asarray(adam.residual) >= np.asarray(exact.residual) * (1 - 1e-5))


def test_adam_of_optax_is_adam(rng):
    signal = decay(10.0, rng.uniform(0.02, 0.04, 5)) + rng.normal(scale=0.1, size=(5, TE.size))
    same_as_adam = jq.fit(MODEL, signal, solver=jq.Optax(optax.adam(1e-3), steps=500))
    chex.assert_trees_all_equal(same_as_adam, jq.fit(MODEL, signal, solver=jq.Adam(learning_rate=1e-3, steps=500)))


@pytest.mark.slow
def test_any_optax_transformation_can_solve(rng):
    signal = decay(10.0, rng.uniform(0.02, 0.04, 5)) + rng.normal(scale=0.1, size=(5, TE.size))
    decaying = optax.adam(optax.cosine_decay_schedule(3e-3, 4000))
    np.testing.assert_allclose(
        jq.fit(MODEL, signal, solver=jq.Optax(decaying, steps=4000)).params.t2,
        jq.fit(MODEL, signal).params.t2,
        rtol=1e-3,
    )


def test_solver_that_ran_out_of_steps_says_so(rng):
    signal = decay(10.0, 0.03)
    stuck = jq.fit(MODEL, signal, init=jq.Decay(10.0, 0.3), solver=jq.LevenbergMarquardt(max_steps=1))
    assert int(stuck.status) == jq.Status.NOT_CONVERGED
    assert np.isnan(stuck.params.t2)
    with pytest.raises(ValueError, match="max_steps"):
        jq.LevenbergMarquardt(max_steps=0)


@pytest.mark.slow
def test_no_noisy_train_swings_about_its_minimum_for_ever():
    # Steps too small to tell by the cost, each as long as the one before and back again: one voxel of 10 000.
    rng, n_voxels = np.random.default_rng(2), 16384
    train = jq.FSE(flip_angles=np.full(6, np.pi), echo_spacing=10e-3)
    tissue = jq.Tissue(t1=1.0, t2=rng.uniform(0.02, 0.3, n_voxels), b1=rng.uniform(0.7, 0.98, n_voxels))
    signal = np.asarray(jq.simulate(train, tissue))
    signal = (signal + rng.normal(0, 0.04, signal.shape)).astype(np.float32)
    assert not np.any(jq.fit(train, signal).status == jq.Status.NOT_CONVERGED)
