"""Vectors of norm near 1 in more precision than they are stored in, and how they differ."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from ..models.base import sum_of_measurements


class Signals(NamedTuple):
    """Vectors of norm near 1, as a sum of what the precision holds and of what it cuts off (None: not known)."""

    kept: Inexact[Array, "voxel n"]
    rest: Inexact[Array, "voxel n"] | None


def norm_of(signal: Inexact[Array, "voxel n"]) -> Float[Array, " voxel"]:
    """Euclidean norm of signals whose squares do not overflow."""
    return jnp.sqrt(sum_of_measurements((signal.real**2 + signal.imag**2).T))


def length_of(vectors: Inexact[Array, "row n"]) -> Float[Array, " row"]:
    return jnp.sqrt(jnp.sum(vectors.real**2 + vectors.imag**2, axis=1))


def times_power_of_2(value: Inexact[Array, "..."], exponent: Int[Array, "..."]) -> Inexact[Array, "..."]:
    """value * 2**exponent without rounding, which `jnp.exp2` and `jnp.ldexp` do not promise."""
    real = value.real.dtype
    mantissa_bits, unsigned = (23, jnp.uint32) if real == jnp.float32 else (52, jnp.uint64)
    bias = jnp.finfo(real).maxexp - 1
    half = exponent // 2  # 2**exponent itself may overflow
    for part in (half, exponent - half):
        bits = (part + bias).astype(unsigned) << unsigned(mantissa_bits)
        value = value * _barrier(jax.lax.bitcast_convert_type(bits, real))
    return value


def _twelve_bits(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """The leading 12 bits of float32 numbers."""
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32) & jnp.uint32(0xFFFFF000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def normalised(signal: Inexact[Array, "voxel n"]) -> tuple[Signals, Float[Array, " voxel"], Int[Array, " voxel"]]:
    """Signals scaled for `best_atoms`.

    Args:
        signal: finite, not all zero.

    Returns:
        the scaled signals, and the norm of each signal in two parts, norm = mantissa * 2**exponent, since the signal's
        square may overflow.
    """
    largest = jnp.max(jnp.maximum(jnp.abs(signal.real), jnp.abs(signal.imag)), axis=-1)
    exponent = jnp.frexp(largest)[1]
    unit = times_power_of_2(signal, -exponent[:, None])
    norm = _barrier(norm_of(unit))
    if unit.dtype != jnp.float32:
        return Signals(unit / norm[:, None], None), norm, exponent
    # Products of numbers of 12 bits are exact in float32. The scale need not be exact, the direction must be.
    scale = _barrier(_twelve_bits(1 / norm))[:, None]
    upper = _twelve_bits(unit)
    large, small = upper * scale, (unit - upper) * scale
    kept = large + small
    return Signals(kept, small - (kept - large)), norm, exponent


def alignment(
    signal: Inexact[Array, "voxel n"], atom: Inexact[Array, "voxel n"]
) -> tuple[Inexact[Array, " voxel"], Float[Array, " voxel"]]:
    """Unit number that turns the signal until <atom, signal> is real and positive, and that product."""
    return _unit(sum_of_measurements((atom.conj() * signal).T))


def rough_alignment(
    vectors: Inexact[Array, "row n"], towards: Inexact[Array, "_ n"]
) -> tuple[Inexact[Array, " row"], Float[Array, " row"]]:
    """The same where neither the last bit of the product nor that of a phase decides anything."""
    return _unit(jnp.sum(towards.conj() * vectors, axis=1))


def _unit(product: Inexact[Array, " row"]) -> tuple[Inexact[Array, " row"], Float[Array, " row"]]:
    size = jnp.abs(product)
    return jnp.where(size > 0, product.conj() / jnp.where(size > 0, size, 1), 1), size


def difference(a: Signals, b: Signals) -> Inexact[Array, "voxel n"]:
    """Their difference, the leading parts first."""
    difference = a.kept - b.kept
    difference = difference if a.rest is None else difference + a.rest
    return difference if b.rest is None else difference - b.rest


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


_barrier = jax.lax.optimization_barrier  # keeps XLA from computing a value again in each of its uses
