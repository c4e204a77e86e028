"""Trains tabulated over b1, so that a fit with a slice profile costs little more than one without.

Transverse magnetisation decays by e2 from echo to echo, longitudinal by e1, whatever the pulses do. So echo n is a
polynomial, sum over m of c_nm e1^m e2^(n - m), and its coefficients depend on the pulses alone: on b1, and on a slice
profile, over which they are averaged once instead of in every step of every voxel. They are read off with e1 at the
roots of unity, by a Fourier transform, and kept as Chebyshev series in b1, which converge faster than any power.

Source: Lukzen et al., J Magn Reson 196:164 (2009), polynomials by generating functions; Trefethen, Approximation Theory
and Approximation Practice (2013), ch. 3, 8.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

LONGEST = 64  # echoes; beyond, the coefficients are larger than what is left of them, and as many as their square


class TrainTable(eqx.Module):
    """Echoes of trains of one protocol within a range of b1."""

    series: Float[Array, "coefficient order"]  # of c_10; c_20, c_21; c_30 ... as Chebyshev series
    lowest: Float[Array, ""]  # b1
    highest: Float[Array, ""]

    def __call__(
        self, b1: Float[Array, " voxel"], rate1: Float[Array, " voxel"], rate2: Float[Array, " voxel"]
    ) -> Float[Array, "echo voxel"]:
        """The echoes; rates are echo spacing over t1 and t2."""
        x = (2 * b1 - self.lowest - self.highest) / (self.highest - self.lowest)
        # In a loop: unrolled, XLA would repeat the recursion for every order.
        step = lambda pair, _: ((pair[1], 2 * x * pair[1] - pair[0]), pair[0])  # noqa: E731
        _, basis = jax.lax.scan(step, (jnp.ones_like(x), x), length=self.series.shape[1])
        coefficients = jnp.dot(self.series, basis, precision=jax.lax.Precision.HIGHEST)
        n = round((np.sqrt(8 * self.series.shape[0] + 1) - 1) / 2)
        lengths = np.arange(1, n + 1)
        longitudinal = np.concatenate([np.arange(i) for i in lengths])[:, None]
        transverse = np.repeat(lengths, lengths)[:, None] - longitudinal
        decay = jnp.exp(-jnp.asarray(longitudinal, x.dtype) * rate1 - jnp.asarray(transverse, x.dtype) * rate2)
        terms, ends = coefficients * decay, np.cumsum(lengths)
        return jnp.stack([jnp.sum(terms[end - i : end], axis=0) for i, end in zip(lengths, ends, strict=True)])


def enough(n: int, largest_angle: float, b1_range: float) -> int:
    """How many Chebyshev polynomials hold n echoes, which are cosines of up to n times the flip angle [rad]."""
    return 14 + math.ceil(0.55 * n * largest_angle * b1_range)


def tabulate(
    echoes: Callable[[Float[Array, ""], Complex[Array, ""]], Complex[Array, " echo"]],
    n: int,
    order: int,
    lowest: Float[Array, ""],
    highest: Float[Array, ""],
) -> TrainTable:
    """The table of trains of n echoes; `echoes` of b1 and e1, for e2 = 1; `order` as `enough` has it."""
    nodes = np.cos(np.pi * (np.arange(order) + 0.5) / order)
    b1 = (lowest + highest) / 2 + (highest - lowest) / 2 * jnp.asarray(nodes, lowest.dtype)
    roots = jnp.asarray(np.exp(-2j * np.pi * np.arange(n // 2 + 1) / n), jnp.result_type(lowest, jnp.complex64))
    values = jax.vmap(lambda b1: jax.vmap(lambda e1: echoes(b1, e1))(roots))(b1)  # (node, root, echo)
    of_powers = jnp.fft.irfft(values, n, axis=1)  # c_nm, m the second axis; real, so half of the roots are enough
    places = [(m, i) for i in range(n) for m in range(i + 1)]
    at_nodes = of_powers[:, *np.array(places).T]
    to_series = np.cos(np.outer(np.arange(order), np.pi * (np.arange(order) + 0.5) / order)) * (2 / order)
    to_series[0] /= 2
    series = jnp.dot(jnp.asarray(to_series, lowest.dtype), at_nodes, precision=jax.lax.Precision.HIGHEST).T
    return TrainTable(series, lowest, highest)
