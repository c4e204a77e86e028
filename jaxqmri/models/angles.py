"""Sine and cosine of many angles at once."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..batching.context import on_cpu

# pi/2 = _COARSE + _FINE. The first has so few digits that whole multiples of it, and what they leave, are exact; the
# second has more digits than math.pi.
_COARSE, _FINE = 1.5703125, 4.8382679489661923e-4


@jax.custom_jvp
def sine_cosine(angle: Float[ArrayLike, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """sin(angle) and cos(angle), within 1e-7 (float32) and 4e-16 (float64) for angles up to 100 rad.

    On a CPU, XLA calls the C library for every single sine, which took a third of the time of a fast spin echo. Taylor
    series over an eighth of a turn run in vectors, eight numbers at once; other processors have instructions for it.
    """
    angle = jnp.asarray(angle)
    if not on_cpu():
        return jnp.sin(angle), jnp.cos(angle)
    quarters = jnp.round(angle * (2 / math.pi))
    rest = (angle - quarters * _COARSE) - quarters * _FINE  # -pi/4 ... pi/4
    # What is left out of the series is below a tenth of the rounding.
    n_terms = 9 if angle.dtype == jnp.float64 else 6
    sine, cosine = rest * _series(rest**2, 1, n_terms), _series(rest**2, 0, n_terms)
    turns = quarters / 4
    quarter = 4 * (turns - jnp.floor(turns))  # 0, 1, 2 or 3 of them
    odd = (quarter == 1) | (quarter == 3)
    sine, cosine = jnp.where(odd, cosine, sine), jnp.where(odd, sine, cosine)
    return jnp.where(quarter >= 2, -sine, sine), jnp.where((quarter == 1) | (quarter == 2), -cosine, cosine)


@sine_cosine.defjvp
def _derivatives(primals, tangents):
    (sine, cosine), (change,) = sine_cosine(*primals), tangents
    return (sine, cosine), (cosine * change, -sine * change)


def _series(square: Float[Array, "..."], first: int, n_terms: int) -> Float[Array, "..."]:
    """sin(x) / x (`first` 1) or cos(x) (`first` 0) from x^2, summed from the smallest term on."""
    total = jnp.zeros_like(square)
    for i in reversed(range(n_terms)):
        total = total * square + (-1) ** i / math.factorial(2 * i + first)
    return total
