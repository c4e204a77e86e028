"""The mathematics of Rice's distribution against scipy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from jaxqmri.estimation import rician

MODERATE = np.concatenate([np.linspace(0.0, 60.0, 2401), np.logspace(-6, 0, 100)])


def reference(z):
    """log(I0 exp(-z)), 1 - I1 / I0 and its slope; scipy's digits cancel in the last one as z^2 grows."""
    i0, i1, i2 = (special.ive(order, z) for order in range(3))
    return np.log(i0), (i0 - i1) / i0, 0.5 * (1 + i2 / i0) - (i1 / i0) ** 2


def asymptotic(z):
    """The same for z far above 100: DLMF 10.40.1 to the third term."""
    logarithm = -0.5 * np.log(2 * np.pi * z) + 1 / (8 * z) + 1 / (16 * z**2)
    return logarithm, 1 / (2 * z) + 1 / (8 * z**2) + 1 / (8 * z**3), 1 / (2 * z**2) + 1 / (4 * z**3) + 3 / (8 * z**4)


# One program each: operation by operation they take long to compile.
TERMS = jax.jit(rician.terms)
FUNCTIONS = tuple(map(jax.jit, (rician.log_i0e, rician.one_minus_ratio, rician.ratio_slope)))


@pytest.mark.parametrize(("dtype", "eps"), [(np.float32, 1.2e-7), (np.float64, 2.2e-16)])
def test_bessel_functions_are_right_to_their_rounding(dtype, eps, double_precision):
    z = MODERATE.astype(dtype)
    for function, expected in zip(FUNCTIONS, reference(z.astype(float)), strict=True):
        found = np.asarray(function(jnp.asarray(z)))
        assert found.dtype == dtype
        np.testing.assert_array_less(np.abs(found - expected), 8 * eps * np.maximum(np.abs(expected), 1))
    ratio = special.ive(1, z) / special.ive(0, z)
    np.testing.assert_allclose(1 - rician.one_minus_ratio(jnp.asarray(z)), ratio, atol=8 * eps)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-6), (np.float64, 1e-12)])
def test_large_arguments_keep_their_relative_precision(dtype, rtol, double_precision):
    z = np.logspace(5, 8, 50).astype(dtype)
    for function, expected in zip(FUNCTIONS, asymptotic(z.astype(float)), strict=True):
        np.testing.assert_allclose(function(jnp.asarray(z)), expected, rtol=rtol)


def test_pieces_meet_without_a_step():
    """Where the series change places; 1 - ratio is known there to 1e-7 of 1."""
    z = jnp.linspace(8.9, 9.1, 201)
    assert np.all(np.diff(rician.one_minus_ratio(z)) < 1e-7)
    assert np.all(np.diff(rician.log_i0e(z)) < 1e-6)


def test_derivatives_are_each_other(double_precision):
    z = jnp.asarray([0.0, 1e-3, 0.5, 3.0, 19.9, 20.1, 1e3, 1e8])
    one = jnp.ones_like(z)
    _, ratio_complement, slope = FUNCTIONS

    def first(z):
        return jax.jvp(rician.log_i0e, (z,), (one,))[1]

    by_jvp, second = jax.jit(lambda z: jax.jvp(first, (z,), (one,)))(z)
    np.testing.assert_allclose(by_jvp, -reference(np.asarray(z))[1], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(second, slope(z), rtol=1e-12)
    step = 1e-5
    finite_difference = (ratio_complement(z - step) - ratio_complement(z + step)) / (2 * step)
    np.testing.assert_allclose(slope(z)[1:6], finite_difference[1:6], rtol=1e-7)
    third = jax.jit(jax.vmap(jax.grad(rician.ratio_slope)))
    assert np.all(np.isfinite(third(z)))


def test_cost_is_the_likelihood_of_scipy(double_precision):
    sigma = 3.0
    a, y = (grid.ravel() for grid in np.meshgrid([0.1, 1.0, 5.0, 20.0, 60.0], [0.2, 2.0, 6.0, 21.0, 50.0]))
    cost, _ = TERMS(jnp.asarray(a), jnp.asarray(y), sigma)
    constant = np.log(y / sigma**2)  # of the prediction
    np.testing.assert_allclose(
        cost / (2 * sigma**2), constant - stats.rice.logpdf(y, a / sigma, scale=sigma), rtol=1e-12, atol=1e-12
    )


def test_score_is_half_the_derivative_of_the_cost(double_precision):
    sigma = jnp.asarray([0.5, 2.0, 10.0])
    a, y = jnp.asarray([[0.0, 1.0, 30.0], [4.0, 3.0, 7.0]]), jnp.asarray([[0.3, 5.0, 0.0], [3.0, 3.0, 9.0]])
    _, score = TERMS(a, y, sigma)
    along = (jnp.ones_like(a),)
    of_cost, _ = jax.jvp(lambda a: TERMS(a, y, sigma), (a,), along)[1]
    np.testing.assert_allclose(score, of_cost / 2, rtol=1e-12, atol=1e-12)


def test_without_noise_it_is_least_squares():
    """Also where sigma is nothing beside the signal and its powers leave the range of float32."""
    a, y = jnp.asarray([1.0, 0.0, 0.5, 1.0]), jnp.asarray([0.9, 0.0, 0.5, 0.0])
    for sigma in (1e-4, 1e-12, 1e-30):
        cost, score = TERMS(a, y, sigma)
        np.testing.assert_allclose(cost, (a - y) ** 2, atol=1e-6)
        np.testing.assert_allclose(score, a - y, atol=1e-6)
        np.testing.assert_allclose(rician.information(a[::3], sigma), 1, atol=1e-6)


def test_nothing_but_noise_gives_numbers():
    zero, y = jnp.zeros(3), jnp.asarray([0.0, 1.0, 100.0])
    cost, score = TERMS(zero, y, 1.0)
    np.testing.assert_allclose(cost, y**2)
    np.testing.assert_array_equal(score, 0)  # A = 0 is always stationary, the density being even in A
    slope = jax.jvp(lambda a: TERMS(a, y, 1.0)[1], (zero,), (jnp.ones(3),))[1]
    np.testing.assert_allclose(slope, 1 - y**2 / 2)
    assert np.all(np.isfinite(jax.jvp(lambda a: TERMS(a, y, 1.0), (zero,), (jnp.ones(3),))[1]))


def test_costs_are_never_negative_and_nothing_overflows(rng):
    a, y = (jnp.asarray(10 ** rng.uniform(-6, 4, 20000), jnp.float32) for _ in range(2))
    for part in TERMS(a, y, 1.0):
        assert np.all(np.isfinite(part))
    assert np.min(TERMS(a, y, 1.0)[0]) >= 0
    assert np.min(TERMS(a, a, 1.0)[0]) >= 0


def test_a_negative_magnitude_counts_as_positive():
    a, y = jnp.asarray([0.0, 1.0, 5.0]), jnp.asarray([2.0, 3.0, 0.5])
    for of_negative, of_positive in zip(TERMS(a, -y, 1.0), TERMS(a, y, 1.0), strict=True):
        np.testing.assert_array_equal(of_negative, of_positive)


def test_information_is_the_expected_curvature():
    amplitudes = [0.01, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0]

    def expected(a):
        def integrand(y):
            ratio = special.ive(1, a * y) / special.ive(0, a * y)
            return stats.rice.pdf(y, a) * (a - y * ratio) ** 2  # E[score^2], which is E[curvature]

        return integrate.quad(integrand, max(a - 10, 0), a + 10, epsabs=1e-12, limit=200)[0]

    sigma = 7.0
    found = rician.information(jnp.asarray(amplitudes) * sigma, sigma)
    np.testing.assert_allclose(found, [expected(a) for a in amplitudes], rtol=3e-3)


def test_information_has_its_limits_and_rises_between():
    a = jnp.logspace(-10, 10, 500)
    found = np.asarray(rician.information(a, 1.0), float)
    assert np.all((found > 0) & (found <= 1))
    assert np.all(np.diff(found) > -1e-6)
    np.testing.assert_allclose(found[a < 1e-2], np.asarray(a[a < 1e-2]) ** 2, rtol=1e-3)
    large = np.asarray(a[(a > 10) & (a < 100)])
    np.testing.assert_allclose(1 - found[(a > 10) & (a < 100)], 1 / (2 * large**2), rtol=0.3, atol=1e-6)
    assert rician.information(jnp.asarray(0.0), 1.0) == 0
