"""Facts about a decay of two pools, and what a fit of it promises, also where there is but one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import jaxqmri as jq

TE = 5e-3 * np.arange(1, 33)
N_TOGETHER = 1024
OK = jq.Status.OK


def formula(m0, fraction, t_short, t_long):
    m0, f, short, long = (np.asarray(value, float)[..., None] for value in (m0, fraction, t_short, t_long))
    return m0 * (f * np.exp(-TE / short) + (1 - f) * np.exp(-TE / long))


def random_pools(rng, n):
    """Which 32 echoes of SNR 200 tell apart."""
    t_short = np.exp(rng.uniform(np.log(0.01), np.log(0.03), n))
    return jq.TwoPools(
        np.exp(rng.uniform(0, 8, n)), rng.uniform(0.2, 0.8, n), t_short, t_short * rng.uniform(3.5, 8.0, n)
    )


def fitted(signal, **settings):
    """The fit of as many voxels as all tests share a program for."""
    rows = np.resize(np.arange(len(signal)), -(-len(signal) // N_TOGETHER) * N_TOGETHER)
    result = jq.fit(jq.BiExponential(TE), signal.astype(np.float32)[rows], batch_size=N_TOGETHER, **settings)
    return jax.tree.map(lambda leaf: np.asarray(leaf, float)[: len(signal)], result)


def test_signal_is_the_formula(rng):
    pools = random_pools(rng, 7)
    np.testing.assert_allclose(jq.simulate(jq.BiExponential(TE), pools), formula(*pools), rtol=1e-5)


def test_without_noise_the_truth_comes_back(rng):
    pools = random_pools(rng, 1000)
    result = fitted(formula(*pools))
    assert np.all(result.status == OK)
    for found, true in zip(result.params, pools, strict=True):
        np.testing.assert_allclose(found, true, rtol=1e-3)


def test_error_bars_are_calibrated_where_two_pools_can_be_told_apart(rng):
    pools, n = jq.TwoPools(1000.0, 0.4, 0.015, 0.075), 2 * N_TOGETHER
    result = fitted(formula(*pools) + 1000 / 300 * rng.standard_normal((n, TE.size)))
    assert np.all(result.status == OK)
    for found, error, true in zip(result.params, result.stderr, pools, strict=True):
        z = (found - true) / error
        assert 0.95 < z.std() / np.sqrt(28 / 26) < 1.05  # Student's t of 28 degrees of freedom
        assert abs(z.mean()) < 0.15


@pytest.mark.parametrize("snr", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_a_single_pool_is_not_taken_for_two(rng, snr):
    """Voxels end without an answer, or with an error bar that holds a fraction of 0 or 1."""
    result = fitted(np.exp(-TE / 0.04) + rng.standard_normal((N_TOGETHER, TE.size)) / snr)
    fraction, error = result.params.fraction, result.stderr.fraction
    ok = result.status == OK
    assert np.all(result.params.t_short[ok] < result.params.t_long[ok])
    assert ok.mean() < 0.5
    claimed = ok & (fraction > 2 * error) & (1 - fraction > 2 * error)
    assert claimed.mean() < 0.015


def test_impossible_protocols_and_complex_signals_are_refused():
    with pytest.raises(ValueError, match="at least 4 echo times"):
        jq.BiExponential(TE[:3])
    with pytest.raises(ValueError, match="divide milliseconds by 1000"):
        jq.BiExponential(1e3 * TE)
    with pytest.raises(ValueError, match=r"fit jnp\.abs"):
        jq.fit(jq.BiExponential(TE), np.ones((2, TE.size), np.complex64))
    with pytest.raises(ValueError, match="divide per cent by 100"):
        jq.fit(jq.BiExponential(TE), np.ones((2, TE.size)), known={"fraction": 30.0})


@pytest.mark.slow
def test_a_known_time_keeps_the_order(rng):
    """The free time stays on its side of the known one: a voxel whose other pool is on the other side is AT_BOUND."""
    pools = random_pools(rng, 200)
    signal = formula(*pools)
    result = fitted(signal, known={"t_long": np.resize(pools.t_long, N_TOGETHER)})
    assert np.all(result.status == OK)
    np.testing.assert_allclose(result.params.t_short, pools.t_short, rtol=1e-3)
    other = fitted(signal, known={"t_long": np.resize(pools.t_short, N_TOGETHER)})
    assert np.all(other.status == jq.Status.AT_BOUND)


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
def test_derivatives_are_those_of_finite_differences():
    model, signal = jq.BiExponential(TE), formula(1.0, 0.3, 0.02, 0.08) + 1e-3 * np.cos(np.arange(TE.size))
    direction = np.sin(np.arange(TE.size))

    def pools(step):
        return jnp.stack(jq.fit(model, signal + step[:, None] * direction).params)

    steps = jnp.array([-1e-5, 0.0, 1e-5])
    found, slope = jax.jit(lambda: jax.jvp(pools, (steps,), (jnp.ones(3),)))()
    np.testing.assert_allclose(slope[:, 1], (found[:, 2] - found[:, 0]) / 2e-5, rtol=1e-5)


@pytest.mark.slow
def test_no_cost_is_higher_than_that_of_scipy_from_twenty_starts(rng):
    pools, n = random_pools(rng, 100), 100
    signal = formula(*pools._replace(m0=np.ones(n))) + rng.standard_normal((n, TE.size)) / 200
    signal = signal.astype(np.float32).astype(float)
    result = fitted(signal)
    ok = result.status == OK
    assert ok.mean() > 0.99
    limits = [np.asarray(pair, float) for pair in jq.BiExponential(TE).limits()]
    for voxel in np.flatnonzero(ok):
        ours = np.sum((formula(*(leaf[voxel] for leaf in result.params)) - signal[voxel]) ** 2)
        assert ours <= lowest_by_scipy(signal[voxel], limits, rng) * (1 + 1e-6)


@np.errstate(all="ignore")
def lowest_by_scipy(signal, limits, rng):
    """The lowest cost within the limits that MINPACK reaches in float64 from 20 places of the ranges."""

    def pools(x):
        return np.exp(x[0]), x[1], np.exp(x[2]), np.exp(x[2]) + np.exp(x[3])  # in order

    def misfit(x):
        return np.nan_to_num(formula(*pools(x)) - signal, nan=1e6, posinf=1e6, neginf=-1e6)

    costs = [np.inf]
    for _ in range(20):
        short, long = np.sort(np.exp(rng.uniform(np.log(3e-3), np.log(0.3), 2)))
        start = [np.log(signal[0]), rng.uniform(0.05, 0.95), np.log(short), np.log(long - short)]
        found = optimize.least_squares(misfit, start, method="lm", x_scale="jac", xtol=1e-10, ftol=1e-12, gtol=1e-12)
        inside = all(low <= value <= high for value, (low, high) in zip(pools(found.x), limits, strict=True))
        costs.append(2 * found.cost if inside else np.inf)
    return min(costs)
