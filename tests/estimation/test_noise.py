"""What a fit makes of what it is told of the noise: Rician magnitudes, weights, covariance, reduced chi-squared."""

import chex
import numpy as np
import pytest
from scipy import optimize, stats

import jaxqmri as jq
from jaxqmri import phantoms

TE = np.linspace(4.6e-3, 55.3e-3, 12)  # of the Philips scan in the test data
MODEL = jq.MonoExponential(TE)
N = 10_000  # voxels; all fits of many have this number, so that one program serves them
TRUE_T2STAR = np.array([0.010, 0.020, 0.040])
SNR = np.array([20.0, 20.0, 18.0])  # of the first echo: the last one has 0.1, 1.6 and 5
CTE = 5e-3 + 6e-3 * np.arange(6)
COMPLEX_MODEL = jq.ComplexGradientEcho(CTE)
TRUE_M0, TRUE_T2S, TRUE_B0 = 60 + 80j, 0.025, 20.0


def decay(s0, t2, te=TE):
    """Independent of the library: (*voxel, echo) in float64."""
    return np.asarray(s0)[..., None] * np.exp(-te / np.asarray(t2)[..., None])


def magnitudes(signal, sigma, rng):
    """What one coil makes of a real signal: Gaussian noise in two channels."""
    return np.hypot(signal + rng.normal(scale=sigma, size=signal.shape), rng.normal(scale=sigma, size=signal.shape))


def decays_in_noise(snr, t2, n_voxels, rng):
    """Magnitudes with sigma 1, and `snr` at the first echo."""
    s0 = np.asarray(snr) * np.exp(TE[0] / np.asarray(t2))
    return magnitudes(decay(s0, t2)[..., None, :] * np.ones((n_voxels, 1)), 1.0, rng)


@pytest.fixture(scope="module")
def three_tissues():
    """Of each tissue its true T2*, and the Gaussian and the Rician fit of 10^4 voxels."""
    rng = np.random.default_rng(5)
    signals = [decays_in_noise(snr, t2, N, rng) for snr, t2 in zip(SNR, TRUE_T2STAR, strict=True)]
    return [
        (t2, jq.fit(MODEL, s, noise=jq.Gaussian(1.0)), jq.fit(MODEL, s, noise=jq.Rician(1.0)))
        for t2, s in zip(TRUE_T2STAR, signals, strict=True)
    ]


def values(result, name="t2"):
    return np.asarray(getattr(result.params, name), float)


# --- Rician noise -----------------------------------------------------------------------------------------------------


def test_the_noise_floor_makes_t2star_too_long_for_gaussian_noise_and_not_for_rician(three_tissues):
    gaussian_bias = []
    for t2, gaussian, rician in three_tissues:
        assert np.all(np.asarray(rician.status) == jq.Status.OK)
        gaussian_bias.append(np.median(values(gaussian)) / t2 - 1)
        assert abs(np.median(values(rician)) / t2 - 1) < 0.002
        assert abs(np.mean(values(rician)) / t2 - 1) < 0.01  # of second order in the noise, as with any curved model
    assert gaussian_bias[0] > 0.06
    assert gaussian_bias[1] > 0.02
    assert gaussian_bias[2] > 0.008


def test_rician_error_bars_are_calibrated_where_echoes_drown_in_noise(three_tissues):
    for t2, _, rician in three_tissues:
        z = (values(rician) - t2) / np.asarray(rician.stderr.t2)
        np.testing.assert_allclose(z.std(), 1.0, rtol=0.05)
        assert abs(np.mean(z)) < 0.15  # T2* is skewed, and its error bar grows with it


@pytest.mark.parametrize("n", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_rician_fit_is_the_maximum_of_scipys_likelihood(n, rng):
    sigma, t2 = 2.0, rng.uniform(0.010, 0.040, N)
    # SNR 10 at the first echo; at the last one 0.06 ... 3.
    signal = magnitudes(decay(10 * sigma * np.exp(TE[0] / t2), t2), sigma, rng).astype(np.float32)
    result = jq.fit(MODEL, signal, noise=jq.Rician(sigma))
    assert np.all(np.asarray(result.status) == jq.Status.OK)

    def most_likely(y):
        def misfit(p):
            return -np.sum(stats.rice.logpdf(y, np.exp(p[0] - TE * np.exp(-p[1])) / sigma, scale=sigma))

        starts = [optimize.brute(misfit, ((1.0, 6.0), (-6.0, -2.0)), Ns=20, finish=None), np.log([y.max(), 0.02])]
        tight = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 2000, "maxfev": 4000}
        fits = [optimize.minimize(misfit, start, method="Nelder-Mead", options=tight) for start in starts]
        return np.exp(min(fits, key=lambda fit: fit.fun).x)

    expected = np.array([most_likely(y) for y in signal[:n].astype(float)])
    np.testing.assert_allclose(values(result, "s0")[:n], expected[:, 0], rtol=1e-4)
    np.testing.assert_allclose(values(result)[:n], expected[:, 1], rtol=1e-4)


def test_far_above_the_noise_rician_is_gaussian(rng):
    t2 = rng.uniform(0.03, 0.06, N)
    signal = magnitudes(decay(2000 * np.ones(N), t2), 1.0, rng)  # SNR 300 ... 800 at the last echo
    gaussian, rician = jq.fit(MODEL, signal, noise=jq.Gaussian(1.0)), jq.fit(MODEL, signal, noise=jq.Rician(1.0))
    np.testing.assert_allclose(values(rician), values(gaussian), rtol=1e-4)
    np.testing.assert_allclose(values(rician, "s0"), values(gaussian, "s0"), rtol=1e-4)
    np.testing.assert_allclose(rician.stderr.t2, gaussian.stderr.t2, rtol=1e-3)
    np.testing.assert_allclose(rician.reduced_chi2, gaussian.reduced_chi2, rtol=0.01)


@pytest.fixture(scope="module")
def faint():
    """Signals of 0 ... 5 times the noise at the first echo."""
    rng = np.random.default_rng(8)
    signal = np.concatenate([decays_in_noise(snr, 0.02, N // 5, rng) for snr in (0.0, 1.0, 2.0, 3.0, 5.0)])
    return signal, jq.fit(MODEL, signal, noise=jq.Rician(1.0))


def test_faint_voxels_and_air_come_to_an_end_and_have_an_answer_or_a_reason(faint):
    _, result = faint
    status = np.asarray(result.status)
    ok = status == jq.Status.OK
    maps = np.stack([*result.params, *result.stderr, result.residual, result.reduced_chi2])
    assert np.all(np.isfinite(maps[:, ok]))
    assert np.all(np.isnan(maps[:, ~ok]))
    assert np.all(ok[-N // 5 :])  # SNR 5


def test_faint_voxels_converge_or_come_to_a_bound(faint):
    assert np.mean(np.asarray(faint[1].status) == jq.Status.NOT_CONVERGED) < 0.002


def test_no_answer_that_is_off_by_more_than_a_factor_passes_for_one(faint):
    """Where the likelihood wants no signal at all, T2* is arbitrary and its error bar without bound."""
    _, result = faint
    ok = np.asarray(result.status) == jq.Status.OK
    assert np.all(np.asarray(result.stderr.t2)[ok] < 1000 * values(result)[ok])


def test_sigma_may_be_a_map_and_scales_with_the_signal(faint):
    signal, one = faint
    gain = np.linspace(0.5, 300.0, N)
    many = jq.fit(MODEL, signal * gain[:, None], noise=jq.Rician(gain))
    safe = slice(-N // 5, None)  # SNR 5; fainter voxels may be at the edge of two answers
    np.testing.assert_array_equal(np.asarray(many.status)[safe], np.asarray(one.status)[safe])
    np.testing.assert_allclose(values(many)[safe], values(one)[safe], rtol=2e-3)
    np.testing.assert_allclose(values(many, "s0")[safe], (values(one, "s0") * gain)[safe], rtol=2e-3)


def test_sigma_of_the_images_serves_a_rician_fit():
    head = phantoms.head_slice(96, skull_stripped=False)
    images = phantoms.gradient_echo_images(head, TE, snr=12, gain=1000, rng=np.random.default_rng(6))
    tissue = np.argwhere(np.isfinite(head.t2star) & (head.t2star < 0.06))
    chosen = tuple(tissue[np.random.default_rng(7).integers(len(tissue), size=N)].T)
    sigma = jq.noise_level(images).sigma
    bias = {
        type(noise): np.nanmedian(values(jq.fit(MODEL, images[chosen], noise=noise)) / head.t2star[chosen]) - 1
        for noise in (jq.Gaussian(sigma), jq.Rician(sigma))
    }
    assert abs(bias[jq.Rician]) < 0.01
    assert abs(bias[jq.Rician]) < 0.3 * bias[jq.Gaussian]


def test_rician_noise_is_that_of_magnitudes():
    with pytest.raises(ValueError, match=r"Rician noise that of magnitudes; fit jnp.abs"):
        jq.fit(COMPLEX_MODEL, np.ones(6, complex), noise=jq.Rician(1.0))


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def noisy(rng):
    """200 voxels of a decay with the noise 1 and weights of their own."""
    signal = decay(100.0, rng.uniform(0.015, 0.04, 200)) + rng.normal(size=(200, TE.size))
    return signal.astype(np.float32), rng.uniform(0.2, 3.0, (200, TE.size))


def fit_with(weights, signal, sigma=1.0):
    return jq.fit(MODEL, signal, noise=jq.Gaussian(sigma, weights), covariance=True)


def weighted_least_squares(signal, weights):
    """S0 and T2, their covariance over sigma^2, and the weighted sum of squares, in float64."""

    def misfit(p):
        return np.sqrt(weights) * (p[0] * np.exp(-TE / p[1]) - signal)

    found = optimize.least_squares(misfit, [signal[0], 0.02], x_scale=[100, 0.02], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    s0, t2 = found.x
    jacobian = np.stack([np.exp(-TE / t2), s0 * TE / t2**2 * np.exp(-TE / t2)], axis=-1)
    return found.x, np.linalg.inv(jacobian.T @ (weights[:, None] * jacobian)), 2 * found.cost


@pytest.mark.parametrize("left_out", [0, 3])
def test_weighted_fits_are_weighted_least_squares_of_scipy(left_out, noisy, rng):
    """A weight of zero leaves a measurement out, whatever it is: it counts as no degree of freedom either."""
    signal, weights = noisy
    order = np.argsort(rng.uniform(size=weights.shape), axis=-1)
    weights = np.where(order < left_out, 0.0, weights)
    spoiled = np.where(weights > 0, signal, np.array([np.nan, np.inf])[np.arange(200) % 2, None])
    known_level, unknown_level = fit_with(weights, spoiled, sigma=1.3), fit_with(weights, spoiled, sigma=None)
    assert unknown_level.reduced_chi2 is None
    freedom = TE.size - left_out - 2
    for voxel in range(60):
        params, inverse, cost = weighted_least_squares(signal[voxel].astype(float), weights[voxel])
        np.testing.assert_allclose([p[voxel] for p in unknown_level.params], params, rtol=1e-4)
        np.testing.assert_allclose([p[voxel] for p in known_level.params], params, rtol=1e-4)
        np.testing.assert_allclose(known_level.covariance[voxel], inverse * 1.3**2, rtol=1e-3)
        np.testing.assert_allclose(unknown_level.covariance[voxel], inverse * cost / freedom, rtol=1e-3)
        np.testing.assert_allclose(known_level.reduced_chi2[voxel], cost / 1.3**2 / freedom, rtol=1e-3)
        np.testing.assert_allclose(unknown_level.residual[voxel], np.sqrt(cost / weights[voxel].sum()), rtol=1e-3)


def test_a_weight_of_four_is_half_the_noise(noisy):
    signal, _ = noisy
    by_weight = fit_with(np.full(TE.size, 4.0), signal)._replace(residual=None)
    by_sigma = fit_with(np.ones(TE.size), signal, sigma=0.5)._replace(residual=None)
    chex.assert_trees_all_close(by_weight, by_sigma, rtol=1e-5)


def test_one_weight_per_measurement_holds_for_every_voxel(noisy):
    signal, weights = noisy
    of_each = np.tile(weights[0], (200, 1))
    chex.assert_trees_all_equal(fit_with(weights[0], signal), fit_with(of_each, signal))


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, -1.0])
def test_an_impossible_weight_spoils_its_own_voxel(nonsense, noisy):
    signal, weights = noisy
    spoiled = weights.copy()
    spoiled[3, 5] = nonsense
    good, bad = fit_with(weights, signal), fit_with(spoiled, signal)
    assert int(bad.status[3]) == jq.Status.NOT_FINITE
    others = np.arange(200) != 3
    np.testing.assert_array_equal(np.asarray(bad.params.t2)[others], np.asarray(good.params.t2)[others])
    with pytest.raises(ValueError, match="weights must be finite, not negative"):
        jq.Gaussian(weights=spoiled[3])


def test_voxels_that_weights_leave_too_little_of_have_no_answer(noisy):
    signal, weights = noisy
    weights = weights.copy()
    weights[0], weights[1, 1:] = 0, 0
    result = fit_with(weights, signal)
    status = np.asarray(result.status)
    assert np.all(status[:2] != jq.Status.OK)
    assert np.all(np.isnan(values(result)[:2]))
    assert np.all(status[2:] == jq.Status.OK)


def test_polarity_is_not_sought_in_what_weights_leave_out(rng):
    ti, t1 = np.array([0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0]), rng.uniform(0.3, 2.0, 100)
    signal = np.abs(100 * (1 - 1.9 * np.exp(-ti / t1[:, None])) + rng.normal(size=(100, 7)))
    kept = np.delete(np.arange(7), 3)
    model = jq.InversionRecovery(ti, magnitude=True)
    result = jq.fit(model, signal, noise=jq.Gaussian(weights=np.isin(np.arange(7), kept).astype(float)))
    # The best of a fine grid of T1 over all polarities; signed, a recovery is a straight line in exp(-TI / T1).
    grid = np.geomspace(0.2, 4.0, 600)
    lines = np.stack([np.ones((600, 6)), np.exp(-ti[kept] / grid[:, None])], axis=-1)
    onto = np.eye(6) - lines @ np.linalg.pinv(lines)
    polarities = np.where(np.arange(6) < np.arange(7)[:, None], -1, 1)
    off = np.einsum("gij,vpj->gvpi", onto, polarities * signal[:, None, kept])
    best = grid[np.argmin(np.min(np.sum(off**2, axis=-1), axis=-1), axis=0)]
    np.testing.assert_allclose(result.params.t1, best, rtol=0.01)


# --- covariance -------------------------------------------------------------------------------------------------------


def inverse_of_normal_equations(jacobian, sigma):
    return np.linalg.inv(np.einsum("vnp,vnq->vpq", jacobian, jacobian)) * sigma**2


@pytest.mark.usefixtures("double_precision")
def test_covariance_is_the_inverse_of_the_normal_equations(rng):
    signal = decay(100.0, rng.uniform(0.015, 0.04, 5)) + rng.normal(size=(5, TE.size))
    result = jq.fit(jq.MonoExponential(TE), signal, noise=jq.Gaussian(1.0), covariance=True)
    s0, t2 = (np.asarray(p)[:, None] for p in result.params)
    jacobian = np.stack([np.exp(-TE / t2), s0 * TE / t2**2 * np.exp(-TE / t2)], axis=-1)
    np.testing.assert_allclose(result.covariance, inverse_of_normal_equations(jacobian, 1.0), rtol=1e-8)
    variances = np.stack(result.stderr, axis=-1) ** 2
    np.testing.assert_allclose(np.diagonal(result.covariance, axis1=1, axis2=2), variances, rtol=1e-12)


@pytest.fixture(scope="module")
def complex_fits():
    rng = np.random.default_rng(9)
    signal = TRUE_M0 * np.exp(-CTE / TRUE_T2S + 2j * np.pi * TRUE_B0 * CTE)
    noise = rng.normal(size=(2, N, CTE.size))
    return jq.fit(COMPLEX_MODEL, signal + noise[0] + 1j * noise[1], noise=jq.Gaussian(1.0), covariance=True)


def test_a_complex_amplitude_has_two_rows_first_its_real_part(complex_fits):
    params, stderr = complex_fits.params, complex_fits.stderr
    m0, t2star, b0 = (np.asarray(p)[:, None] for p in params)
    turn = np.exp(-CTE / t2star + 2j * np.pi * b0 * CTE)
    columns = [turn, 1j * turn, m0 * turn * CTE / t2star**2, m0 * turn * 2j * np.pi * CTE]
    jacobian = np.stack([np.concatenate([c.real, c.imag], axis=-1) for c in columns], axis=-1)
    expected = inverse_of_normal_equations(jacobian, 1.0)
    size = np.sqrt(np.einsum("vii,vjj->vij", expected, expected))
    np.testing.assert_allclose(complex_fits.covariance / size, expected / size, atol=1e-3)
    np.testing.assert_allclose(np.asarray(complex_fits.covariance)[:, 0, 0], np.asarray(stderr.m0).real ** 2, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(complex_fits.covariance)[:, 1, 1], np.asarray(stderr.m0).imag ** 2, rtol=1e-5)


def correlations(covariance):
    spread = np.sqrt(np.diagonal(covariance))
    return covariance / np.outer(spread, spread)


def test_estimates_scatter_as_the_covariance_says(complex_fits):
    m0, t2star, b0 = (np.asarray(p) for p in complex_fits.params)
    scatter = np.cov([m0.real, m0.imag, t2star, b0])
    expected = np.mean(np.asarray(complex_fits.covariance), axis=0)
    np.testing.assert_allclose(correlations(scatter), correlations(expected), atol=0.03)  # 3 / sqrt(N)
    np.testing.assert_allclose(np.diagonal(scatter), np.diagonal(expected), rtol=0.06)
    assert np.max(np.abs(np.tril(correlations(expected), -1))) > 0.5, "or there were nothing to see"


# --- reduced chi-squared ----------------------------------------------------------------------------------------------


def within_chance_of_one(reduced_chi2, freedom):
    return abs(np.mean(np.asarray(reduced_chi2, float)) - 1) < 4 * np.sqrt(2 / (freedom * len(reduced_chi2)))


def test_reduced_chi2_is_one_where_the_model_is_right(complex_fits, rng):
    signal = decay(100.0, np.full(N, 0.025)) + rng.normal(size=(N, TE.size))
    gaussian = jq.fit(MODEL, signal, noise=jq.Gaussian(1.0))
    assert within_chance_of_one(gaussian.reduced_chi2, TE.size - 2)
    assert within_chance_of_one(complex_fits.reduced_chi2, 2 * CTE.size - 4)


def test_reduced_chi2_of_rician_noise_is_one_however_faint_the_signal(three_tissues):
    for _, _, rician in three_tissues:
        np.testing.assert_allclose(np.mean(np.asarray(rician.reduced_chi2)), 1.0, rtol=0.015)
    gaussian = three_tissues[0][1]  # its echoes are the faintest
    assert abs(np.mean(np.asarray(gaussian.reduced_chi2)) - 1) > 0.05


@pytest.mark.parametrize("noise", [jq.Gaussian(1.0), jq.Rician(1.0)], ids=["gaussian", "rician"])
def test_reduced_chi2_of_a_wrong_model_is_above_one(noise, rng):
    two_pools = decay(60.0, np.full(N, 0.008)) + decay(60.0, np.full(N, 0.060))
    result = jq.fit(MODEL, magnitudes(two_pools, 1.0, rng), noise=noise)
    assert np.median(np.asarray(result.reduced_chi2)) > 3
