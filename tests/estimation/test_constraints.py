"""Bounds, priors, a mask and several starts: what else is known of a fit, and what it says of its minima."""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import jaxqmri as jq

TE = np.linspace(2e-3, 40e-3, 11)
MODEL = jq.MonoExponential(TE)
RECOVERY = jq.InversionRecovery([0.1, 0.5, 1.0, 3.0])
VFA = jq.SpoiledGradientEcho(np.deg2rad([3.0, 16.0]), 0.015)
T2 = np.array([0.012, 0.03, 0.08])
SIGMA = 10.0
OK, AT_BOUND, MASKED, AMBIGUOUS = jq.Status.OK, jq.Status.AT_BOUND, jq.Status.MASKED, jq.Status.AMBIGUOUS


@pytest.fixture
def signal(rng):
    return (1000 * np.exp(-TE / T2[:, None]) + rng.normal(scale=SIGMA, size=(3, TE.size))).astype(np.float32)


def test_within_its_bounds_an_answer_is_that_without_and_at_one_it_is_none(signal):
    free, within = jq.fit(MODEL, signal), jq.fit(MODEL, signal, bounds={"t2": (0.02, np.array([0.05, 0.05, 0.2]))})
    assert within.status.tolist() == [AT_BOUND, OK, OK]
    np.testing.assert_allclose(within.params.t2[1:], free.params.t2[1:], rtol=1e-5)
    np.testing.assert_allclose(within.stderr.t2[1:], free.stderr.t2[1:], rtol=1e-4)
    assert np.isnan(within.params.t2[0])


def test_a_bound_of_the_amplitude_holds(signal):
    result = jq.fit(MODEL, signal, bounds={"s0": (None, 1.0)})
    assert result.status.tolist() == [AT_BOUND] * 3


def test_a_prior_is_one_measurement_more(signal):
    """The parameters that are then most likely, with the error bars of all that is known."""
    mean, sd = 0.03, 1e-3
    result = jq.fit(MODEL, signal, noise=jq.Gaussian(SIGMA), prior={"t2": jq.Normal(mean, sd)})

    def residuals(p, measured):
        return np.append((p[0] * np.exp(-TE / p[1]) - measured) / SIGMA, (p[1] - mean) / sd)

    for i, measured in enumerate(signal.astype(float)):
        best = optimize.least_squares(residuals, (1000, T2[i]), args=(measured,), x_scale=(1000, 0.03), xtol=1e-14)
        np.testing.assert_allclose([result.params.s0[i], result.params.t2[i]], best.x, rtol=1e-4)
        errors = np.sqrt(np.diag(np.linalg.inv(best.jac.T @ best.jac)))
        np.testing.assert_allclose([result.stderr.s0[i], result.stderr.t2[i]], errors, rtol=1e-3)
        np.testing.assert_allclose(result.reduced_chi2[i], 2 * best.cost / (TE.size + 1 - 2), rtol=1e-3)
        misfit = best.x[0] * np.exp(-TE / best.x[1]) - measured
        np.testing.assert_allclose(result.residual[i], np.sqrt(np.mean(misfit**2)), rtol=1e-3)


def test_a_prior_that_decides_moves_the_answer_with_its_mean_also_where_all_is_traced(signal):
    @jax.jit
    def t2(mean, mask):
        prior, noise = {"t2": jq.Normal(mean, 1e-7)}, jq.Gaussian(SIGMA)
        return jq.fit(MODEL, signal, prior=prior, noise=noise, bounds={"t2": (mean / 3, 3 * mean)}, mask=mask).params.t2

    mask = jnp.array([True, False, True])
    values, slopes = jax.jvp(lambda mean: t2(mean, mask), (jnp.float32(0.04),), (jnp.float32(1.0),))
    np.testing.assert_allclose(values[::2], 0.04, rtol=1e-4)
    np.testing.assert_allclose(slopes[::2], 1.0, rtol=1e-3)
    assert np.isnan(values[1])


def test_a_prior_frees_what_a_model_assumes():
    """Flip angles do not tell B1 from T1, so the error of B1 is all in T1: about twice as large."""
    signal, noise = jq.simulate(VFA, jq.Tissue(m0=1000.0, t1=1.0, b1=0.9)), jq.Gaussian(0.05)
    held = jq.fit(VFA, signal, noise=noise, known={"b1": 0.9})
    free = jq.fit(VFA, signal, noise=noise, prior={"b1": jq.Normal(0.9, 0.045)})
    np.testing.assert_allclose([free.params.t1, free.params.b1], [held.params.t1, 0.9], rtol=1e-3)
    assert free.stderr.t1 == pytest.approx(2 * 0.05, rel=0.1)
    assert held.stderr.t1 < 0.2 * free.stderr.t1


@pytest.mark.slow
def test_starts_and_bounds_of_a_train_of_pulses_are_those_of_its_own_parameters():
    """Its parameters are in no alphabetical order."""
    train = jq.FSE(np.full(8, np.deg2rad(150.0)), 0.01)
    b1 = np.array([0.7, 0.85, 1.0, 1.15])
    signal = jq.simulate(train, jq.Tissue(m0=1000.0, t1=1.0, t2=0.08, b1=b1))
    bounded = jq.fit(train, signal, bounds={"b1": (0.8, 1.3)})
    assert bounded.status.tolist() == [AT_BOUND, OK, OK, OK]
    several = jq.fit(train, signal, starts=3, noise=jq.Gaussian(5.0))
    assert several.status.tolist() == [OK] * 4
    for result in (bounded, several):
        np.testing.assert_allclose(result.params.t2[1:], 0.08, rtol=1e-3)
        np.testing.assert_allclose(result.params.b1[1:], b1[1:], rtol=1e-3)


def test_outside_the_mask_nothing_is_fitted(signal):
    every, some = jq.fit(MODEL, signal), jq.fit(MODEL, signal, mask=np.array([True, False, True]))
    assert some.status.tolist() == [OK, MASKED, OK]
    for whole, part in zip(jax.tree.leaves(every[:3]), jax.tree.leaves(some[:3]), strict=True):
        np.testing.assert_array_equal(part[::2], whole[::2])
        assert np.isnan(part[1])
    # Background is no value in the wrong unit.
    known = {"t2": np.array([0.012, 5000.0, 0.08], np.float32)}
    assert jq.fit(MODEL, signal, known=known, mask=np.array([True, False, True])).status.tolist() == [OK, MASKED, OK]


# --- several starts ---------------------------------------------------------------------------------------------------


class Twofold(NamedTuple):
    s0: jax.Array
    x: jax.Array


class TwofoldDecay(jq.SignalModel):
    """1 - d and 1 + d have the same signal, but for a tilt."""

    te: jax.Array  # s
    tilt: jax.Array
    parameters, amplitude = Twofold, "s0"

    def limits(self):
        return Twofold(s0=(0, jnp.inf), x=(0.05, 3.0))

    def __call__(self, p):
        return p.s0 * (jnp.exp(-self.te * (10 + 90 * (p.x - 1) ** 2)) + self.tilt * (p.x > 1) * jnp.cos(300 * self.te))


@pytest.mark.parametrize("sigma", [None, SIGMA])
def test_two_minima_that_are_equally_good_are_no_answer(sigma):
    model = TwofoldDecay(jnp.asarray(TE), jnp.asarray(0.0))
    signal = jq.simulate(model, Twofold(1000.0, jnp.array([0.5, 1.4, 2.4])))
    noise = jq.Gaussian(sigma)
    result = jq.fit(model, signal, noise=noise, starts=6)
    assert result.status.tolist() == [AMBIGUOUS, AMBIGUOUS, OK]  # the mirror image of 2.4 is out of range
    np.testing.assert_allclose(result.params.x[2], 2.4, rtol=1e-4)
    assert result.gap[2] > 100


def test_the_lowest_minimum_is_found_and_how_much_worse_the_next_one_is():
    model = TwofoldDecay(jnp.asarray(TE), jnp.asarray(0.05))
    truth = Twofold(1000.0, jnp.array([0.5, 0.6, 1.4, 1.5]))
    result = jq.fit(model, jq.simulate(model, truth), noise=jq.Gaussian(SIGMA), starts=6)
    assert np.all(result.status == OK)
    np.testing.assert_allclose(result.params.x, truth.x, rtol=1e-4)
    # The other valley is off by the tilt, less what its amplitude makes up for.
    assert np.all((result.gap > 50) & (result.gap < np.sum((50 * np.cos(300 * TE) / SIGMA) ** 2)))
    wrong = jq.fit(model, jq.simulate(model, truth), noise=jq.Gaussian(SIGMA), init=Twofold(1000.0, 2 - truth.x))
    np.testing.assert_allclose((wrong.reduced_chi2 - result.reduced_chi2) * (TE.size - 2), result.gap, rtol=1e-2)


def test_one_minimum_has_no_rival(signal):
    result = jq.fit(MODEL, signal, starts=4)
    assert result.status.tolist() == [OK] * 3
    assert np.all(np.isposinf(result.gap))
    np.testing.assert_allclose(result.params.t2, jq.fit(MODEL, signal).params.t2, rtol=1e-5)


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (MODEL, {"bounds": {"t2": (10.0, 200.0)}}, "bounds of t2 are 10 ... 200, .* divide milliseconds by 1000"),
        (MODEL, {"bounds": {"t2": (0.2, 0.1)}}, "the first must be the lower one"),
        (MODEL, {"bounds": {"t2": (5.0, 9.0)}}, "this protocol of MonoExponential tells 0.00038 ... 4 alone"),
        (MODEL, {"bounds": {"t1": (0.1, 1.0)}}, r"\['t1'\], but MonoExponential has the parameters"),
        (MODEL, {"bounds": {"t2": 0.1}}, r"wanted \(lowest, highest\)"),
        (
            MODEL,
            {"bounds": {"s0": (1.0, 2.0)}, "known": {"s0": 1.0}},
            "which is known and not fitted; leave it out",
        ),
        (MODEL, {"solver": jq.LogLinear(), "bounds": {"t2": (0.01, 0.1)}}, "LogLinear knows neither bounds nor priors"),
        (MODEL, {"prior": {"t2": (0.03, 0.01)}}, r"wanted jq.Normal\(mean, sd\)"),
        (MODEL, {"prior": {"t2": jq.Normal(30.0, 1.0)}}, "t2 is in seconds, got 30"),
        (MODEL, {"prior": {"t2": jq.Normal(0.03, 0.01)}}, r"whose level is not known; give it, .*jq.Gaussian\(sigma\)"),
        (MODEL, {"mask": np.ones(4, bool)}, r"mask is of shape \(4,\), wanted .* voxels of shape \(3,\)"),
        (MODEL, {"mask": True}, "mask is True, wanted"),
        (MODEL, {"starts": 0}, "starts is 0, wanted"),
        (MODEL, {"starts": 2, "solver": jq.LogLinear()}, "LogLinear searches no minimum"),
        (MODEL, {"init": jq.Decay(1000.0, 30.0)}, "init.t2 is in seconds, got 30; divide milliseconds by 1000"),
        (VFA, {"bounds": {"b1": (0.6, 1.3)}}, r"b1, which is known .* or known=\{'b1': None\} to fit it"),
        (
            VFA,
            {"prior": {"t2": jq.Normal(0.1, 0.01)}},
            "on which the signal of Spoiled.* does not depend",
        ),
        (VFA, {"known": {"b1": 95.0}}, "b1 is the true over the nominal .* got 95; divide per cent by 100 or degrees"),
        (VFA, {"known": {"b1": np.array([0.0, 880.0, 910.0])}}, "got 895; divide tenths of degrees by 10 times"),
        (VFA, {"known": {"t1": 1000.0}}, "t1 is in seconds, got 1000"),
        (RECOVERY, {"known": {"efficiency": 95.0}}, "1 for a perfect inversion, .* got 95; divide per cent by 100"),
        (RECOVERY, {"known": {"efficiency": 1.2}}, r"got 1.2, outside -1 \.\.\. 1"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(model, arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        inspect.unwrap(jq.fit)(model, np.ones((3, model.n_measurements)), **arguments)
    assert "\n" not in str(raised.value)


def test_a_few_impossible_values_of_a_map_spoil_their_own_voxels_and_so_do_traced_ones():
    b1 = np.array([0.9, 95.0, 1.0], np.float32)
    signal = jq.simulate(VFA, jq.Tissue(m0=1000.0, t1=1.0, b1=np.array([0.9, 1.0, 1.0])))
    expected = [OK, jq.Status.NOT_FINITE, OK]
    assert jq.fit(VFA, signal, known={"b1": b1}).status.tolist() == expected
    status = jax.jit(lambda b1: jq.fit(VFA, signal, known={"b1": b1}).status)
    assert status(b1).tolist() == expected
    assert status(100 * b1[::2].mean() * np.ones(3, np.float32)).tolist() == [jq.Status.NOT_FINITE] * 3
