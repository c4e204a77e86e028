"""Inversion and saturation recovery against the physics, finite differences and an exhaustive search."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqmri as jq

TI = np.array([0.05, 0.1, 0.2, 0.5, 2.0, 4.0])  # s


def recovery(m0=1.0, t1=1.0, efficiency=1.0):
    return jq.Recovery(*(jnp.asarray(v) for v in (m0, t1, efficiency)))


def test_signal_is_what_repeated_pulses_lead_to():
    t1, efficiency, tr = 0.9, 0.85, 2.5
    ti = np.array([0.1, 0.6, 1.7])
    expected = []
    for time in ti:
        mz = 1.0
        for _ in range(30):
            mz *= -efficiency
            seen = 1 + (mz - 1) * np.exp(-time / t1)
            mz = 1 + (0 - 1) * np.exp(-(tr - time) / t1)  # the readout takes all of it
        expected.append(7 * seen)
    signal = jq.InversionRecovery(ti, tr)(recovery(7.0, t1, efficiency))
    np.testing.assert_allclose(signal, expected, rtol=1e-5)


def test_null_point_is_t1_ln_2():
    t1 = 0.8
    model = jq.InversionRecovery(np.array([t1 * np.log(2), 2.0]))
    assert abs(float(model(recovery(t1=t1))[0])) < 2e-7


def test_efficiency_of_zero_is_saturation_recovery_and_of_minus_one_no_pulse():
    model = jq.InversionRecovery(TI)
    np.testing.assert_allclose(model(recovery(t1=0.7, efficiency=0.0)), 1 - np.exp(-TI / 0.7), rtol=1e-6)
    np.testing.assert_allclose(model(recovery(t1=0.7, efficiency=-1.0)), np.ones(TI.size), rtol=1e-6)


def test_an_infinite_tr_that_is_being_traced_is_full_recovery_with_its_derivatives():
    def last(tr, t1):
        return jq.InversionRecovery(TI, tr)(recovery(t1=t1))[-1]

    signal, slopes = jax.jit(jax.value_and_grad(last, (0, 1)))(jnp.inf, 1.5)
    np.testing.assert_allclose(signal, 1 - 2 * np.exp(-TI[-1] / 1.5), rtol=1e-6)
    np.testing.assert_allclose(slopes, [0, -2 * TI[-1] / 1.5**2 * np.exp(-TI[-1] / 1.5)], rtol=1e-5)


def test_a_long_tr_is_full_recovery():
    full, long = jq.InversionRecovery(TI), jq.InversionRecovery(TI, 60.0)
    assert full.tr is None
    np.testing.assert_allclose(long(recovery(t1=2.0)), full(recovery(t1=2.0)), rtol=1e-6)


def test_magnitude_is_the_magnitude_and_batched_is_each_voxel(rng):
    params = jq.Recovery(*(jnp.asarray(rng.uniform(0.2, 1, 5), jnp.float32) for _ in range(3)))
    signed, magnitude = (jq.InversionRecovery(TI, 5.0, magnitude) for magnitude in (False, True))
    one_by_one = np.stack([signed(jq.Recovery(*p)) for p in zip(*params, strict=True)], axis=-1)
    assert one_by_one.min() < 0
    np.testing.assert_allclose(signed.batched(params), one_by_one, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(magnitude.batched(params), np.abs(one_by_one), rtol=1e-5, atol=1e-7)


def test_slow_recovery_keeps_its_digits_in_single_precision():
    ti, t1 = np.array([1e-3, 2e-3]), 2.0
    model = jq.InversionRecovery(ti)
    saturated = recovery(t1=np.float32(t1), efficiency=0.0)
    np.testing.assert_allclose(model(saturated), -np.expm1(-ti / t1), rtol=1e-6)
    slope = jax.jacfwd(model)(saturated).t1
    np.testing.assert_allclose(slope, -ti / t1**2 * np.exp(-ti / t1), rtol=1e-6)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("magnitude", [False, True])
def test_derivatives_match_finite_differences(magnitude):
    model = jq.InversionRecovery(TI, 6.0, magnitude)
    point = np.array([3.0, 0.9, 0.9])
    step = 1e-6
    signal = jax.jit(lambda params: model(params))
    expected = np.stack(
        [(signal(recovery(*(point + d))) - signal(recovery(*(point - d)))) / (2 * step) for d in step * np.eye(3)],
        axis=-1,
    )
    params = recovery(*point)
    np.testing.assert_allclose(np.stack(jax.jacfwd(signal)(params), axis=-1), expected, rtol=1e-7, atol=1e-9)
    gradient = jax.grad(lambda p: jnp.sum(signal(p) ** 2))(params)
    np.testing.assert_allclose(gradient, 2 * np.asarray(signal(params)) @ expected, rtol=1e-7)


def random_voxels(rng, n, noise, t1_range=(0.05, 5.0)):
    t1 = np.exp(rng.uniform(*np.log(t1_range), n))[:, None]
    efficiency = rng.uniform(0.5, 1.0, n)[:, None]
    signal = 1 - (1 + efficiency) * np.exp(-TI / t1) + efficiency * np.exp(-15.0 / t1)
    signal += noise * rng.standard_normal(signal.shape)
    return (signal / np.abs(signal).max(1, keepdims=True)).astype(np.float32), t1[:, 0], efficiency[:, 0]


@eqx.filter_jit
def guesses_jitted(model, signal, known):
    return jax.vmap(model.initial_guess)(signal, known)


def guesses(model, signal, known=None):
    """Of 1000 voxels at a time, so that the tests share programs."""
    n, known = len(signal), known or {}
    rows = np.resize(np.arange(n), 1000)
    guess = guesses_jitted(model, jnp.asarray(signal[rows]), {name: jnp.asarray(v[rows]) for name, v in known.items()})
    return jq.Recovery(*(np.asarray(leaf[:n], complex if jnp.iscomplexobj(leaf) else float) for leaf in guess))


def signal_of(guess, ti=TI, tr=15.0):
    m0, t1, efficiency = (leaf[..., None] for leaf in guess)
    return m0 * (1 - (1 + efficiency) * np.exp(-ti / t1) + efficiency * np.exp(-tr / t1))


@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_guess_is_the_lowest_of_an_exhaustive_search(rng, magnitude, noise):
    """Of 300 x 150 pairs of T1 and efficiency, with the best M0 for each, none fits better."""
    signal, true_t1, true_efficiency = random_voxels(rng, 1000, noise)
    signal = np.abs(signal) if magnitude else signal
    guess = guesses(jq.InversionRecovery(TI, 15.0, magnitude), signal)
    predicted = signal_of(guess)
    cost = np.sum(((np.abs(predicted) if magnitude else predicted) - signal) ** 2, axis=1)

    t1, efficiency = np.meshgrid(np.geomspace(0.01, 100, 300), np.linspace(-0.95, 10, 150), indexing="ij")
    shapes = signal_of(jq.Recovery(np.ones(t1.size), t1.ravel(), efficiency.ravel()))
    shapes = np.abs(shapes) if magnitude else shapes
    unit = (shapes / np.linalg.norm(shapes, axis=1, keepdims=True)).astype(np.float32)
    overlap = np.concatenate([(part @ unit.T).max(1) for part in np.array_split(signal, 10)])
    best = np.sum(signal.astype(float) ** 2, axis=1) - np.maximum(overlap, 0).astype(float) ** 2
    assert np.max(cost - best) < 2e-6
    if noise == 0:
        # With few TIs, another T1 and polarity can come within rounding of the same magnitudes.
        near = np.abs(np.log(guess.t1 / true_t1)) < 0.02
        assert np.mean(near) >= (0.99 if magnitude else 1.0)
        np.testing.assert_allclose(guess.efficiency[near], true_efficiency[near], atol=0.1)


def test_what_is_known_is_kept_and_used(rng):
    signal, true_t1, efficiency = random_voxels(rng, 64, 0.0)
    largest = np.abs(signal_of(jq.Recovery(np.ones(64), true_t1, efficiency))).max(1)
    truth = {"efficiency": efficiency, "m0": 1 / largest, "t1": true_t1}
    for name, value in truth.items():
        known = {name: value.astype(np.float32)}
        model = jq.InversionRecovery(TI[::-1], 15.0)
        guess = guesses(model, signal[:, ::-1], known)
        np.testing.assert_array_equal(getattr(guess, name), known[name])
        np.testing.assert_allclose(guess.t1, true_t1, rtol=0.01)
        np.testing.assert_allclose(guess.efficiency, efficiency, atol=0.02)


def test_guess_of_complex_images_finds_phase_and_polarity(rng):
    signal, true_t1, _ = random_voxels(rng, 200, 0.0)
    phase = np.exp(2j * np.pi * rng.random((200, 1)))
    guess = guesses(jq.InversionRecovery(TI, 15.0), (signal * phase).astype(np.complex64))
    np.testing.assert_allclose(guess.t1, true_t1, rtol=0.02)
    np.testing.assert_allclose(guess.m0 / np.abs(guess.m0), phase[:, 0], atol=1e-5)


def test_hopeless_signals_have_a_finite_guess():
    signal = np.array([np.ones(6), -np.ones(6), np.linspace(1, 0, 6), np.eye(6)[2], np.full(6, 1e-30)], np.float32)
    for magnitude in (False, True):
        for leaf in guesses(jq.InversionRecovery(TI, 15.0, magnitude), signal):
            assert np.all(np.isfinite(leaf))


def test_real_inversion_recovery_is_fitted_closely_by_the_guess(shared_data):
    images = np.load(shared_data / "brain_ir6_se6" / "t1dataset.npy").reshape(-1, 6)
    bright = images[np.abs(images).max(1) > 0.3 * np.abs(images).max()][::40].astype(np.float32)
    bright = bright / np.abs(bright).max(1, keepdims=True)
    assert len(bright) > 50
    signed = guesses(jq.InversionRecovery(TI, 15.0), bright)
    magnitude = guesses(jq.InversionRecovery(TI, 15.0, magnitude=True), np.abs(bright))
    assert np.median(np.sqrt(np.mean((signal_of(signed) - bright) ** 2, axis=1))) < 0.03
    cost_of_signed, cost = (
        np.sum((np.abs(signal_of(guess)) - np.abs(bright)) ** 2, axis=1) for guess in (signed, magnitude)
    )
    assert np.all(cost <= cost_of_signed + 1e-6)
    # Where it is another T1, a measurement near the null fits better with the other polarity than with its own.
    other = np.abs(np.log(magnitude.t1 / signed.t1)) > 0.01
    assert np.mean(other) < 0.03
    assert np.all(cost[other] < cost_of_signed[other])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5],), "at least 2 inversion times"),
        (([0.5, 0.5],), "2 different inversion times"),
        (([50.0, 500.0],), "divide milliseconds by 1000"),
        (([0.5, np.nan],), "finite"),
        (([0.5, 1.0], 5000.0), "divide milliseconds by 1000"),
        (([0.5, 4.0], 3.0), "not longer than the longest ti of 4 s"),
        (([0.5, 4.0], [5.0, 6.0]), "tr is one number"),
    ],
)
def test_impossible_protocols_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        jq.InversionRecovery(*(np.array(a) for a in arguments))


def test_magnitudes_given_for_signed_numbers_are_refused(rng):
    t1 = rng.uniform(0.3, 1.5, 50)
    signed = 1000 * (1 - 2 * np.exp(-TI / t1[:, None])) + rng.normal(scale=5, size=(50, len(TI)))
    with pytest.raises(
        ValueError, match=r"falls with ti in \d+ % of the voxels, as magnitudes do; use .*magnitude=True"
    ):
        jq.fit(jq.InversionRecovery(TI), np.abs(signed))
    saturated = 1000 * (1 - np.exp(-TI / t1[:, None])) + rng.normal(scale=5, size=(50, len(TI)))
    for possible in (signed, np.abs(saturated)):
        jq.InversionRecovery(TI).check_signal(possible)


@pytest.mark.parametrize(
    ("ti", "options", "known", "message"),
    [
        (
            [0.1, 0.7, 2.5],
            {"magnitude": True},
            {},
            "3 different .* of magnitudes determine 3 .* in several ways",
        ),
        ([0.4, 1.5], {"magnitude": True}, {"efficiency": 1.0}, "2 different .* of magnitudes determine 2 parameters"),
        ([0.1, 0.7, 2.5, 2.5], {"magnitude": True}, {}, "3 different inversion times of magnitudes"),
        ([0.1, 0.7, 0.7], {}, {}, "2 different inversion times cannot determine 3 parameters"),
    ],
)
def test_times_that_leave_the_polarity_open_are_refused(ti, options, known, message):
    with pytest.raises(ValueError, match=message):
        jq.fit(jq.InversionRecovery(ti, **options), np.ones((1, len(ti))), known=known)


@pytest.mark.slow
def test_a_magnitude_that_weights_leave_out_leaves_the_polarity_open(rng):
    signal = np.abs(1 - 2 * np.exp(-TI / rng.uniform(0.3, 1.5, 64)[:, None])) + 0.01
    weights = np.ones_like(signal)
    weights[::2, 3:] = 0
    result = jq.fit(jq.InversionRecovery(TI, magnitude=True), signal, noise=jq.Gaussian(0.01, weights=weights))
    assert np.all(np.asarray(result.status)[::2] == jq.Status.UNIDENTIFIABLE)
    assert np.all(np.asarray(result.status)[1::2] == jq.Status.OK)


NULLS = [(0.3, 20), (0.3, 200), (0.9, 20), (0.9, 50)]  # T1 [s] and SNR where one TI lies within 1 sigma of the null


@pytest.mark.slow
@pytest.mark.parametrize("known", [None, {"efficiency": 0.96}], ids=["efficiency free", "known"])
@pytest.mark.parametrize(("t1", "snr"), [*NULLS, (0.9, 200), (0.7, 50)])
def test_error_bars_of_magnitudes_cover_both_signs_next_to_the_null(t1, snr, known, rng):
    ti, truth = np.array([0.05, 0.2, 0.5, 1.0, 1.8]), {"m0": 1000.0, "t1": t1, "efficiency": 0.96}
    signal = 1000 * (1 - 1.96 * np.exp(-ti / t1) + 0.96 * np.exp(-2.0 / t1))
    real, imaginary = rng.normal(scale=1000 / snr, size=(2, 4096, 5))
    model = jq.InversionRecovery(ti, tr=2.0, magnitude=True)
    result = jq.fit(model, np.hypot(signal + real, imaginary), noise=jq.Rician(1000 / snr), known=known)
    assert np.mean(np.asarray(result.status) == jq.Status.OK) > 0.99
    for name in set(truth) - set(known or {}):
        z = (np.asarray(getattr(result.params, name)) - truth[name]) / np.asarray(getattr(result.stderr, name))
        assert 0.95 < np.nanstd(z) < 1.06


@pytest.mark.slow
@pytest.mark.parametrize(("t1", "snr"), NULLS)
def test_error_bars_of_least_squares_cover_both_signs_next_to_the_null(t1, snr, rng):
    """Alone, the curvature at one of them has 14 to 22 % of the estimates beyond two error bars."""
    ti = np.array([0.05, 0.2, 0.5, 1.0, 1.8])
    signal = 1000 * (1 - 1.96 * np.exp(-ti / t1) + 0.96 * np.exp(-2.0 / t1))
    real, imaginary = rng.normal(scale=1000 / snr, size=(2, 4096, 5))
    model = jq.InversionRecovery(ti, tr=2.0, magnitude=True)
    for noise, quantile in ((jq.Gaussian(1000 / snr), 1.96), (None, 3.18)):  # of Student's t with 3 degrees of freedom
        result = jq.fit(model, np.hypot(signal + real, imaginary), noise=noise, known={"efficiency": 0.96})
        z = (np.asarray(result.params.t1) - t1) / np.asarray(result.stderr.t1)
        assert np.mean(np.abs(z) > quantile) < 0.1
        assert noise is None or 0.9 < np.std(z) < 1.12
