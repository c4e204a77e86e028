"""Dephasing through the slice: T2* against isochromats in float64, one of whose sums is what a voxel shows."""

import jax
import numpy as np
import pytest

import jaxqmri as jq

TE = 4.6e-3 * np.arange(1, 13)
N_TOGETHER = 512
OK = jq.Status.OK


def isochromats(m0, t2star, b0_change, profile=lambda z: np.abs(z) <= 0.5, b0=0.0):
    """(voxel, echo) sums of 20 000 spins across four slice thicknesses, weighted by a profile of them."""
    z = (np.arange(20_000) + 0.5) / 5000 - 2
    weights = profile(z) / np.sum(profile(z))
    frequency = np.broadcast_to(b0, np.shape(b0_change))[:, None] + np.multiply.outer(b0_change, z)
    dephased = [np.sum(weights * np.exp(2j * np.pi * frequency * te), axis=-1) for te in TE]
    return np.asarray(m0)[:, None] * np.stack(dephased, axis=-1) * np.exp(-TE / np.asarray(t2star)[:, None])


def tissue(rng, n, most):
    """M0, T2* and the change of b0 across the slice, in most of which something is left at the last echo."""
    return np.exp(rng.uniform(0, 8, n)), np.exp(rng.uniform(np.log(0.01), np.log(0.08), n)), rng.uniform(-most, most, n)


def fitted(model, signal, **known):
    """The fit of as many voxels as all tests share a program for."""
    rows = np.resize(np.arange(len(signal)), N_TOGETHER)
    dtype = np.complex64 if np.iscomplexobj(signal) else np.float32
    known = {name: np.asarray(value, np.float32)[rows] for name, value in known.items()}
    result = jq.fit(model, signal.astype(dtype)[rows], known=known)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(signal)], result)


def test_t2star_through_a_known_gradient_is_that_without(rng):
    m0, t2star, change = tissue(rng, 200, 25.0)
    result = fitted(jq.DephasedGradientEcho(TE), np.abs(isochromats(m0, t2star, change)), b0_change=change)
    assert np.all(result.status == OK)
    np.testing.assert_allclose(result.params.t2star, t2star, rtol=1e-3)
    np.testing.assert_allclose(result.params.m0, m0, rtol=1e-3)


def test_without_the_factor_t2star_is_too_short():
    """What the docstring says: by 9 % where the sides of the slice are 0.2 turns apart after T2*, by half at 0.7."""
    change = np.array([0.2, 0.4, 0.7]) / 0.03
    plain = jq.fit(jq.MonoExponential(TE), np.abs(isochromats(np.ones(3), np.full(3, 0.03), change)).astype(np.float32))
    np.testing.assert_allclose(plain.params.t2 / 0.03 - 1, [-0.09, -0.28, -0.51], atol=0.01)


@pytest.mark.slow
def test_complex_echoes_keep_their_off_resonance(rng):
    m0, t2star, change = tissue(rng, 200, 25.0)
    b0 = rng.uniform(-80, 80, 200)
    signal = isochromats(m0 * np.exp(2j * np.pi * rng.random(200)), t2star, change, b0=b0)
    result = fitted(jq.ComplexGradientEcho(TE, slice_weights=[1.0]), signal, b0_change=change)
    assert np.all(result.status == OK)
    np.testing.assert_allclose(result.params.t2star, t2star, rtol=1e-3)
    np.testing.assert_allclose(result.params.b0, b0, atol=0.02)


def test_any_profile_is_its_fourier_transform(rng):
    """A Gaussian one off the middle, which also turns the phase, in 16 parts of four slice thicknesses."""

    def profile(z):
        return np.exp(-4 * np.log(2) * (z - 0.1) ** 2)

    weights = profile((np.arange(64) + 0.5) / 16 - 2)
    m0, t2star, change = tissue(rng, 7, 20.0)
    signal = isochromats(m0, t2star, change, profile)
    for model, expected in (
        (jq.DephasedGradientEcho(TE, weights, 4.0), np.abs(signal)),
        (jq.ComplexGradientEcho(TE, weights, 4.0), signal),
    ):
        params = model.parameters(m0, t2star, b0_change=change)
        np.testing.assert_allclose(jq.simulate(model, params), expected, atol=2e-4 * m0.max())


@pytest.mark.slow
def test_a_gradient_that_is_not_known_is_fitted_with_honest_error_bars(rng):
    change = np.full(N_TOGETHER, 0.3 / 0.03)
    signal = isochromats(np.ones(1), np.array([0.03]), change[:1])
    noise = rng.standard_normal((2, N_TOGETHER, TE.size)) / 200
    result = fitted(jq.DephasedGradientEcho(TE), np.abs(signal + noise[0] + 1j * noise[1]))
    assert np.all(result.status == OK)
    z = (result.params.t2star - 0.03) / result.stderr.t2star
    assert 0.9 < z.std() / np.sqrt(9 / 7) < 1.1  # Student's t of 9 degrees of freedom
    np.testing.assert_allclose(np.median(np.abs(result.params.b0_change)), change[0], rtol=0.02)


@pytest.mark.parametrize(
    ("weights", "width", "message"),
    [([], 1.0, "wanted"), ([[1.0]], 1.0, "wanted"), ([1.0, -1.0], 1.0, "sum other than 0"), ([1.0], 0.0, "positive")],
)
def test_impossible_slices_are_refused(weights, width, message):
    for model in (jq.DephasedGradientEcho, jq.ComplexGradientEcho):
        with pytest.raises(ValueError, match=message):
            model(TE, np.array(weights), width)
