"""The likelihood of magnitudes from one coil: Gaussian noise in both channels makes them follow Rice's distribution.

A magnitude y of a signal A with noise sigma has the density

    y / sigma^2 exp(-(y^2 + A^2) / 2 sigma^2) I0(A y / sigma^2).

What a fit needs of it is the modified Bessel function I0 and the ratio I1 / I0, scaled so that nothing overflows and
difference first, so that nothing cancels. Up to some argument they are sums of their power series (positive terms),
beyond it of their asymptotic ones: polynomials, which cost a fraction of `jax.scipy.special.i0e` and `i1e`.

Sources: Rice, Bell Syst Tech J 24:46 (1945); Gudbjartsson, Patz, Magn Reson Med 34:910 (1995); NIST Digital Library of
Mathematical Functions, 10.25.2 and 10.40.1.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


class _Series(NamedTuple):
    """Coefficients, lowest order first."""

    end: float  # of the power series, which are in (z / 2)^2; those beyond are in 1 / z
    i0: list[float]  # (I0 - 1) / (z / 2)^2
    i1: list[float]  # I1 / z
    i0_beyond: list[float]  # I0 exp(-z) sqrt(2 pi z)
    complement: list[float]  # (1 - I1 / I0) z
    slope: list[float]  # d(I1 / I0)/dz z^2


def _series(end: float, n_terms: int, n_terms_beyond: int) -> _Series:
    factorial = math.factorial
    i0 = [1 / factorial(k + 1) ** 2 for k in range(n_terms)]
    i1 = [0.5 / (factorial(k) * factorial(k + 1)) for k in range(n_terms)]
    i0_beyond = [1.0]
    for k in range(1, n_terms_beyond):
        i0_beyond.append(i0_beyond[-1] * (2 * k - 1) ** 2 / (8 * k))
    # Of r = I1 / I0 = sum r_k z^-k, term by term from the equation that it solves, dr/dz = 1 - r / z - r^2.
    r = [1.0, -0.5]
    for k in range(1, n_terms_beyond):
        r.append(((k - 1) * r[k] - sum(r[i] * r[k + 1 - i] for i in range(1, k + 1))) / 2)
    return _Series(end, i0, i1, i0_beyond, [-c for c in r[1:]], [-k * c for k, c in enumerate(r)][1:])


# The asymptotic series diverge: at `end` the best that they can do, exp(-2 end), is the rounding of the precision.
_FLOAT32, _FLOAT64 = _series(9.0, 16, 12), _series(20.0, 44, 28)


@jax.custom_jvp
def log_i0e(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(I0(z) exp(-z)) for 0 <= z <= 1e30, which falls from 0 like -z and then like -log(2 pi z) / 2.

    Right to a few roundings of the larger of the value and 1.
    """
    series, small, h, u = _arguments(z)
    # One logarithm serves both, since it costs as much as all the rest.
    square_beyond = u / (2 * math.pi) * jnp.square(_polynomial(series.i0_beyond, u))
    logarithm = jnp.log(jnp.where(small, 1 + h * _polynomial(series.i0, h), square_beyond))
    return jnp.where(small, logarithm - z, 0.5 * logarithm)


@jax.custom_jvp
def one_minus_ratio(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 - I1(z) / I0(z), which falls from 1 like 1 - z / 2 and then like 1 / 2z; minus the slope of `log_i0e`."""
    series, small, h, u = _arguments(z)
    return jnp.where(small, 1 - z * _ratio_over_z(series, h), u * _polynomial(series.complement, u))


def ratio_slope(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """d(I1 / I0)/dz = 1 - ratio / z - ratio^2, which falls from 1 / 2 and then like 1 / 2z^2."""
    series, small, h, u = _arguments(z)
    over_z = _ratio_over_z(series, h)
    return jnp.where(small, 1 - over_z - 4 * h * over_z**2, u * (u * _polynomial(series.slope, u)))


@log_i0e.defjvp
def _(primals, tangents):
    (z,), (dz,) = primals, tangents
    return log_i0e(z), -one_minus_ratio(z) * dz


@one_minus_ratio.defjvp
def _(primals, tangents):
    (z,), (dz,) = primals, tangents
    return one_minus_ratio(z), -ratio_slope(z) * dz


def terms(
    predicted: Float[Array, "..."], signal: Float[Array, "..."], sigma: Float[ArrayLike, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Cost (A - y)^2 - 2 sigma^2 log_i0e(A y / sigma^2) per measurement, and score, half its derivative by A.

    2 sigma^2 times the negative logarithm of the likelihood but for a constant: never negative, and at negligible noise
    that of least squares.
    """
    y = jnp.abs(signal)  # the likelihood is one of y^2
    # At sigma far below the signal the products overflow, and 0 * inf would be NaN.
    z = jnp.minimum((predicted / sigma) * (y / sigma), _LARGEST)
    difference = predicted - y
    cost = difference**2 - 2 * jnp.square(sigma) * log_i0e(z)
    return cost, difference + y * one_minus_ratio(z)


def information(predicted: Float[Array, "..."], sigma: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Expected slope of the score of `terms`, the Fisher information of a magnitude about A times sigma^2.

    From (A / sigma)^2 where there is nothing but noise it rises to 1 - sigma^2 / 2 A^2. The polynomial was fitted to
    numerical integrals and is within 0.2 % of them everywhere.
    """
    power = jnp.minimum(jnp.square(predicted / sigma), _LARGEST)
    w = 1 / (1 + power)
    return power * w * _polynomial(_INFORMATION, w)


_LARGEST = 1e30
_INFORMATION = [1.0, 0.598, -1.687, 1.581, -0.492]


def _arguments(
    z: Float[Array, "..."],
) -> tuple[_Series, Array, Float[Array, "..."], Float[Array, "..."]]:
    """The series for this precision, where the power series hold, their variable and that of the others.

    Each variable stays within its series' range, so that the branch not taken is finite.
    """
    series = _FLOAT64 if z.dtype == jnp.float64 else _FLOAT32
    small = z < series.end
    h = jnp.square(0.5 * jnp.where(small, z, series.end))
    return series, small, h, 1 / jnp.where(small, series.end, z)


def _ratio_over_z(series: _Series, h: Float[Array, "..."]) -> Float[Array, "..."]:
    return _polynomial(series.i1, h) / (1 + h * _polynomial(series.i0, h))


def _polynomial(coefficients: list[float], x: Float[Array, "..."]) -> Float[Array, "..."]:
    # In pairs (Estrin): term after term each product would wait for the one before.
    parts: list[Any] = coefficients
    while len(parts) > 1:
        pairs = [a + b * x for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts, x = pairs + parts[len(parts) // 2 * 2 :], x * x
    return parts[0]
