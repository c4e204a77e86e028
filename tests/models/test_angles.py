"""Our sine and cosine against numpy's, in the precision of the docstring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxqmri.models import angles
from jaxqmri.models.angles import sine_cosine

FLOAT32, FLOAT64 = 1e-7, 4e-16  # the promise; half a unit in the last place of 1 is 6e-8 and 1.1e-16


def spread(dtype):
    """Small, moderate and large angles [rad], and the ones where the series change places."""
    rng = np.random.default_rng(0)
    corners = np.arange(-255, 256) * np.pi / 4
    near = [corners, np.nextafter(corners, np.inf), np.nextafter(corners, -np.inf)]
    return np.concatenate([rng.uniform(-100, 100, 20000), rng.uniform(-1e-3, 1e-3, 100), *near]).astype(dtype)


def worst(values, expected):
    return np.max(np.abs(np.asarray(values, np.float64) - expected))


def check(angle, tolerance):
    sine, cosine = jax.jit(sine_cosine)(angle)
    assert sine.dtype == cosine.dtype == angle.dtype
    exact = np.asarray(angle, np.longdouble)  # of the angle as it is given, rounded
    assert worst(sine, np.sin(exact)) < tolerance
    assert worst(cosine, np.cos(exact)) < tolerance


def test_float32_to_its_last_digit():
    check(spread(np.float32), FLOAT32)


@pytest.mark.usefixtures("double_precision")
def test_float64_to_its_last_digits():
    check(spread(np.float64), FLOAT64)


def test_small_angles_lose_no_digit():
    angle = np.logspace(-30, -1, 200, dtype=np.float32)
    np.testing.assert_allclose(sine_cosine(angle)[0], np.sin(angle.astype(np.float64)), rtol=1.2e-7)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("times", range(4))
def test_derivatives_are_the_other_one_again_and_again(times):
    def nth(of):
        for _ in range(times):
            of = jax.grad(of)
        return of

    for angle in (0.0, 0.3, np.pi / 4, 2.0, -7.5):
        sine, cosine = nth(lambda x: sine_cosine(x)[0])(angle), nth(lambda x: sine_cosine(x)[1])(angle)
        assert float(sine) == pytest.approx(np.sin(angle + times * np.pi / 2), abs=1e-15)
        assert float(cosine) == pytest.approx(np.cos(angle + times * np.pi / 2), abs=1e-15)


@pytest.mark.parametrize("angle", [np.nan, np.inf, -np.inf])
def test_no_angle_has_no_sine(angle):
    assert np.isnan(sine_cosine(jnp.float32(angle))).all()


def test_other_processors_use_their_own(monkeypatch):
    angle = spread(np.float32)
    here = sine_cosine(angle)
    monkeypatch.setattr(angles, "on_cpu", lambda: False)
    anew = jax.jit(lambda angle: sine_cosine.__wrapped__(angle))  # JAX keeps what it has traced for this one
    program = str(jax.make_jaxpr(anew)(angle))
    assert " sin " in program
    assert " cos " in program
    np.testing.assert_allclose(anew(angle), here, atol=2 * FLOAT32)
