"""Vectors of norm near 1 in more precision than they are stored in, and how they differ."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from ..models.base import sum_of_measurements

computed_once = jax.lax.optimization_barrier  # XLA would compute a value again in each of its uses


class Signals(NamedTuple):
    """Vectors of norm near 1, as a sum of what the precision holds and of what it cuts off (None: not known)."""

    kept: Inexact[Array, "voxel n"]
    rest: Inexact[Array, "voxel n"] | None


def norm_of(signal: Inexact[Array, "voxel n"]) -> Float[Array, " voxel"]:
    """Euclidean norm of signals whose squares do not overflow."""
    return jnp.sqrt(sum_of_measurements((signal.real**2 + signal.imag**2).T))


def square_of(vectors: Inexact[Array, "row n"]) -> Float[Array, " row"]:
    """Their squared length, which the square of a rounded length would miss."""
    return jnp.sum(vectors.real**2 + vectors.imag**2, axis=1)


def length_of(vectors: Inexact[Array, "row n"]) -> Float[Array, " row"]:
    return jnp.sqrt(square_of(vectors))


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


def _twelve_bits(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """The leading 12 bits of float32 numbers."""
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32) & jnp.uint32(0xFFFFF000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


class Normalised(NamedTuple):
    """Signals scaled for `best_atoms`: signal = signals / scale * 2**exponent.

    Attributes:
        signals: with norms near 1.
        scale: near 1 / norm.
        norm: of signal * 2**-exponent, as the square of the signal itself may overflow.
        exponent: of its largest measurement.
    """

    signals: Signals
    scale: Float[Array, " voxel"]
    norm: Float[Array, " voxel"]
    exponent: Int[Array, " voxel"]


def largest_of(signal: Inexact[Array, "voxel n"]) -> Float[Array, " voxel"]:
    """The largest size of a measurement, or of the parts of a complex one; NaN where there is one."""
    sizes = jnp.abs(signal.real)
    sizes = jnp.maximum(sizes, jnp.abs(signal.imag)) if jnp.iscomplexobj(signal) else sizes
    return jnp.max(sizes, axis=-1)


def normalised(signal: Inexact[Array, "voxel n"]) -> Normalised:
    """Signals scaled without turning them; they must be finite and not all zero."""
    exponent = jnp.frexp(largest_of(signal))[1]
    unit = times_power_of_2(signal, -exponent[:, None])
    norm = computed_once(norm_of(unit))
    if unit.dtype != jnp.float32:
        scale = 1 / norm
        return Normalised(Signals(unit * scale[:, None], None), scale, norm, exponent)
    # Products of numbers of 12 bits are exact in float32. The scale need not be exact, the direction must be.
    scale = computed_once(_twelve_bits(1 / norm))
    upper = _twelve_bits(unit)
    large, small = upper * scale[:, None], (unit - upper) * scale[:, None]
    kept = large + small
    return Normalised(Signals(kept, small - (kept - large)), scale, norm, exponent)


def turned_towards(signals: Signals, atom: Inexact[Array, "_ n"]) -> tuple[Signals, Float[Array, " voxel"]]:
    """The signals times a unit number each, so that <atom, signal> is real and not negative, and that product."""
    product = jnp.sum(atom.conj() * signals.kept, axis=1)
    size = jnp.abs(product)
    phase = jnp.where(size > 0, product.conj() / jnp.where(size > 0, size, 1), 1)
    return jax.tree.map(lambda part: part * phase[:, None], signals), size


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
