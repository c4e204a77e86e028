"""Double-float vectors: numbers as a sum of what the precision holds (high) and of what that cuts off (low)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int

from ..models.base import dtype_of, sum_of_measurements

computed_once = jax.lax.optimization_barrier  # XLA would compute a value again in each of its uses


class DoubleFloat(NamedTuple):
    """Vectors of norm near 1 as `high` + `low`; `low` None: not known."""

    high: Inexact[Array, "row n"]
    low: Inexact[Array, "row n"] | None


def split(exact: np.ndarray, dtype: Any) -> DoubleFloat:
    """Numbers in storage precision (the real type is `dtype`), and what that cuts off."""
    storage = dtype_of(exact, dtype)
    high = exact.astype(storage)
    low = None if storage == exact.dtype else jnp.asarray((exact - high).astype(storage))
    return DoubleFloat(jnp.asarray(high), low)


def norm_of(signal: Inexact[Array, "voxel n"]) -> Float[Array, " voxel"]:
    """Euclidean norm of signals whose squares do not overflow."""
    return jnp.sqrt(sum_of_measurements((signal.real**2 + signal.imag**2).T))


def square_of(vectors: Inexact[Array, "row n"]) -> Float[Array, " row"]:
    """Their squared length, which the square of a rounded length would miss."""
    return jnp.sum(vectors.real**2 + vectors.imag**2, axis=1)


def length_of(vectors: Inexact[Array, "row n"]) -> Float[Array, " row"]:
    return jnp.sqrt(square_of(vectors))


def imaginary_product(a: Inexact[Array, "row n"], b: Inexact[Array, "_ n"]) -> Float[Array, " row"]:
    """Im<a, b> of each row."""
    return jnp.sum((a.conj() * b).imag, axis=1)


def times_power_of_2(value: Inexact[Array, "..."], exponent: Int[Array, "..."]) -> Inexact[Array, "..."]:
    """value * 2**exponent without rounding, which `jnp.exp2` and `jnp.ldexp` do not promise."""
    real = value.real.dtype
    mantissa_bits, unsigned = (23, jnp.uint32) if real == jnp.float32 else (52, jnp.uint64)
    bias = jnp.finfo(real).maxexp - 1
    half = exponent // 2  # 2**exponent itself may overflow
    for part in (half, exponent - half):
        bits = (part + bias).astype(unsigned) << unsigned(mantissa_bits)
        value = value * computed_once(jax.lax.bitcast_convert_type(bits, real))
    return value


def _leading_12_bits(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Of float32 numbers; products of two such are exact."""
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32) & jnp.uint32(0xFFFFF000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


class Normalised(NamedTuple):
    """Signals scaled for `best_atoms`: signal = signals / scale * 2**exponent."""

    signals: DoubleFloat  # with norms near 1
    scale: Float[Array, " voxel"]  # near 1 / norm
    norm: Float[Array, " voxel"]  # of signal * 2**-exponent, as the square of the signal itself may overflow
    exponent: Int[Array, " voxel"]  # of its largest measurement


def largest_of(signal: Inexact[Array, "voxel n"]) -> Float[Array, " voxel"]:
    """The largest size of a measurement, or of the parts of a complex one; NaN where there is one."""
    sizes = jnp.abs(signal.real)
    sizes = jnp.maximum(sizes, jnp.abs(signal.imag)) if jnp.iscomplexobj(signal) else sizes
    return jnp.max(sizes, axis=-1)


def normalised(signal: Inexact[Array, "voxel n"], largest: Float[Array, " voxel"]) -> Normalised:
    """Signals, finite and not all zero, scaled without changing their direction; `largest` is their `largest_of`."""
    exponent = jnp.frexp(largest)[1]
    unit = times_power_of_2(signal, -exponent[:, None])
    norm = computed_once(norm_of(unit))
    if unit.dtype != jnp.float32:
        scale = 1 / norm
        return Normalised(DoubleFloat(unit * scale[:, None], None), scale, norm, exponent)
    # The scale need not be exact, the direction must be.
    scale = computed_once(_leading_12_bits(1 / norm))
    upper = _leading_12_bits(unit)
    large, small = upper * scale[:, None], (unit - upper) * scale[:, None]
    high = large + small
    return Normalised(DoubleFloat(high, small - (high - large)), scale, norm, exponent)


def aligned_with(vectors: DoubleFloat, atom: Inexact[Array, "_ n"]) -> tuple[DoubleFloat, Float[Array, " row"]]:
    """The vectors times a unit number each, so that <atom, vector> is real and not negative, and that product."""
    product = jnp.sum(atom.conj() * vectors.high, axis=1)
    size = jnp.abs(product)
    phase = jnp.where(size > 0, product.conj() / jnp.where(size > 0, size, 1), 1)
    return jax.tree.map(lambda part: part * phase[:, None], vectors), size


def difference(a: DoubleFloat, b: DoubleFloat) -> Inexact[Array, "row n"]:
    """Their difference, the high parts first."""
    high = a.high - b.high
    high = high if a.low is None else high + a.low
    return high if b.low is None else high - b.low


def gain_from(
    x: Float[Array, "..."], y: Float[Array, "..."] | float, overlap: Float[Array, "..."]
) -> Float[Array, "..."]:
    """|<d, s>|^2 - <r, s>^2 from <d - r, s> = x + iy and the overlap <r, s>."""
    return x * (2 * overlap + x) + y * y


def products_of(atoms: Inexact[Array, "atom n"], signal: Inexact[Array, "voxel n"]) -> Inexact[Array, "atom voxel"]:
    if jnp.iscomplexobj(signal) and not jnp.iscomplexobj(atoms):
        return jax.lax.complex(matmul(atoms, signal.real.T), matmul(atoms, signal.imag.T))
    return matmul(atoms.conj(), signal.T)


def matmul(a: Inexact[Array, "i k"], b: Inexact[Array, "k j"]) -> Inexact[Array, "i j"]:
    """In full precision: neither TF32 nor bf16 can tell atoms apart."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=a.dtype)
