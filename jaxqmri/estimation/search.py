"""Which unit-norm atom d has the largest |<d, s>|: the answer of a search in float64, found in float32.

Neighbouring atoms of a fine grid differ by less than float32 can tell: 1 - cos is 1e-8 where the rounding of a product
is 1e-7, so the largest product is the wrong one every third time. Three steps mend that:

1. Products of all atoms with a group of voxels, a chunk of atoms at a time; atoms x voxels never exists. Of every block
   of 16 neighbouring atoms only the largest product matters: the three leading blocks are kept.
2. Their 48 atoms are held against a reference atom r near them, difference first. For atoms of norm 1

       Re<d, s> - Re<r, s> = 1/2 Re<d - r, 2s - r - d>     (s turned so that <r, s> is real and positive),

   where both factors are small and keep float32's relative precision. The two best of them meet once more with what
   float32 storage cut off the atoms and the signal.
3. The rounding error of a product is bounded (`_least_product`). If any other block comes within that bound of the
   best, every such block is examined as in step 2. So no block that could hold the best is left out.

What is left is the rounding of the atoms in step 2, about |s - d| u: nothing where the signal is a simulated one.
With noise, atoms whose products are the same to seven digits may change places, which concerns one voxel in 10 000 if
the steps of the dictionary are a hundredth of what the noise leaves uncertain, and one in ten if they are far smaller.

Source of the products as a matching criterion: Ma et al., Nature 495:187 (2013).
"""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from ..models.base import LONG_TRAIN, sum_of_measurements
from ..models.context import on_cpu

_BLOCK = 16  # atoms; as many as fit a vector register
_LEADERS = 3  # blocks in which the best atom is looked for first
_UNROLL = 8  # measurements
_CHUNK = 64  # blocks of which products exist at once
_TABLE_VALUES = 32768  # measurements of the voxels that are searched at once on a CPU, so that they stay in its cache


class Signals(NamedTuple):
    """Vectors of norm near 1, as a sum of what the precision holds and of what it cuts off (None: not known)."""

    kept: Inexact[Array, "voxel n"]
    rest: Inexact[Array, "voxel n"] | None


class Atoms(eqx.Module):
    """A dictionary laid out for the search. Zero atoms and padding are copies of their usable neighbours.

    Attributes:
        kept, rest: unit-norm atoms as a sum, see `Signals`.
        blocks: the same, neighbouring atoms last.
        index: place of each row in the dictionary.
    """

    kept: Inexact[Array, "atom n"]
    rest: Inexact[Array, "atom n"] | None
    blocks: Inexact[Array, "block n 16"]
    index: Int[Array, " atom"]


@jax.jit
def lay_out(
    kept: Inexact[Array, "atom n"], rest: Inexact[Array, "atom n"] | None, norms: Float[Array, " atom"]
) -> Atoms:
    """The layout for `best_atoms`; atoms of norm 0 can never be found.

    Args:
        kept, rest: unit-norm atoms as a sum; `rest` None: nothing is known of what was cut off.
        norms: only whether they are positive matters.
    """
    n_atoms, n = kept.shape
    per_chunk = min(_CHUNK, -(-n_atoms // _BLOCK)) * _BLOCK
    rows = jnp.arange(-(-n_atoms // per_chunk) * per_chunk)
    usable = norms > 0
    before = jax.lax.cummax(jnp.where(usable, jnp.arange(n_atoms), -1))
    stand_in = jnp.where(before < 0, jnp.argmax(usable), before)
    index = stand_in[jnp.minimum(rows, n_atoms - 1)]
    padded = kept[index]
    blocks = padded.reshape(-1, _BLOCK, n).swapaxes(1, 2)
    return Atoms(padded, None if rest is None else rest[index], blocks, index)


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


def norm_of(signal: Inexact[Array, "voxel n"]) -> Float[Array, " voxel"]:
    """Euclidean norm of signals whose squares do not overflow."""
    return jnp.sqrt(sum_of_measurements((signal.real**2 + signal.imag**2).T))


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


def best_atoms(atoms: Atoms, signals: Signals) -> Int[Array, " voxel"]:
    """Index of the atom with the largest |<atom, signal>| for every voxel; of equals the lowest.

    Args:
        atoms: from `lay_out`.
        signals: from `normalised`.
    """
    n_voxels, n = signals.kept.shape
    at_once = max(_TABLE_VALUES // n, 64) * (1 if on_cpu() else 16)
    n_groups = math.ceil(n_voxels / at_once)
    width = math.ceil(n_voxels / n_groups / 64) * 64
    missing = n_groups * width - n_voxels

    def grouped(leaf: Array) -> Array:
        return jnp.pad(leaf, [(0, missing), (0, 0)]).reshape(n_groups, width, n)

    groups = jax.tree.map(grouped, signals)
    row, bound, doubtful = (x.ravel()[:n_voxels] for x in jax.lax.map(lambda s: _leading(atoms, s), groups))

    def examine_some(carry):
        row, doubtful = carry
        # Places left over point beyond the last voxel: they read that one, and what they write is dropped.
        chosen = jnp.nonzero(doubtful, size=min(width, n_voxels), fill_value=n_voxels)[0]
        some = jax.tree.map(lambda leaf: leaf[chosen], signals)
        found = _examine(atoms, some, row[chosen], bound[chosen])
        return row.at[chosen].set(found, mode="drop"), doubtful.at[chosen].set(False, mode="drop")

    row, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[1]), examine_some, (row, doubtful))
    return atoms.index[row]


# --- products ---------------------------------------------------------------------------------------------------------


def _leading(atoms: Atoms, signals: Signals) -> tuple[Int[Array, " voxel"], Float[Array, " voxel"], Array]:
    """The best atom of the leading blocks, the least product another block must have, whether one has it."""
    chunks = _chunks(atoms)

    def with_chunk(chunk: Int[Array, ""], leaders: _Leaders) -> _Leaders:
        return _with_rows(leaders, _block_maxima(chunks[chunk], signals.kept), chunk * _CHUNK)

    nobody = _nobody(_LEADERS, signals)
    leaders = jax.lax.fori_loop(0, chunks.shape[0], with_chunk, nobody)
    best = _best_of_blocks(atoms, signals, leaders.rows[0] * _BLOCK + _BLOCK // 2, leaders.rows)
    bound = _least_product(atoms, signals, best)
    return best, bound, leaders.others >= bound


class _Leaders(NamedTuple):
    """The largest values and where they are, per voxel."""

    values: tuple[Float[Array, " voxel"], ...]  # descending
    rows: tuple[Int[Array, " voxel"], ...]
    others: Float[Array, " voxel"]  # the largest of all other values


def _nobody(n_leaders: int, signals: Signals) -> _Leaders:
    none = jnp.full(signals.kept.shape[0], -jnp.inf, signals.kept.real.dtype)
    nowhere = jnp.zeros(none.shape, jnp.int32)
    return _Leaders((none,) * n_leaders, (nowhere,) * n_leaders, none)


def _with_rows(leaders: _Leaders, values: Float[Array, "row voxel"], first_row: Int[Array, ""] | int = 0) -> _Leaders:
    """The leaders when more rows have come; of equals the earlier ones stay ahead.

    One row after the other: XLA's argmax on a CPU does not use vectors, and its top_k is slower still.
    """

    def with_row(i: Int[Array, ""], leaders: _Leaders) -> _Leaders:
        value, row = values[i], jnp.broadcast_to(first_row + i, values.shape[1:]).astype(jnp.int32)
        descending, rows = [], []
        for there, its_row in zip(leaders.values, leaders.rows, strict=True):
            ahead = value > there
            descending.append(jnp.where(ahead, value, there))
            rows.append(jnp.where(ahead, row, its_row))
            value, row = jnp.where(ahead, there, value), jnp.where(ahead, its_row, row)
        return _Leaders(tuple(descending), tuple(rows), _larger(leaders.others, value))

    return jax.lax.fori_loop(0, values.shape[0], with_row, leaders)


def _least_product(atoms: Atoms, signals: Signals, best: Int[Array, " voxel"]) -> Float[Array, " voxel"]:
    """What the product of a block must reach, as it was computed, if the block may hold an atom better than `best`.

    A sum of n products of vectors of norm 1 is wrong by n u at most in whatever order it is added up, u = eps / 2, and
    by (1 + log2 n) u if that is done pairwise. Each part of a complex product sums 2 n real ones, and both count; its
    magnitude is rounded once more. That the signal's norm is a little below 1 does no harm.
    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), secs. 3.1 and 4.2.
    """
    terms = atoms.kept.at[best].get(mode="promise_in_bounds").conj() * signals.kept
    n = terms.shape[1]
    n_real = 2 * n if jnp.iscomplexobj(terms) else n
    if n > LONG_TRAIN:
        product, units = jnp.sum(terms, axis=1), 2 * n_real
    else:
        product, units = _pairwise_sum(list(terms.T)), n_real + math.ceil(math.log2(n_real)) + 1
    of_parts = math.sqrt(2) if jnp.iscomplexobj(terms) else 1.0
    return jnp.abs(product) - (of_parts * units + 4) * float(jnp.finfo(terms.dtype).eps) / 2


def _pairwise_sum(terms: list[Inexact[Array, " voxel"]]) -> Inexact[Array, " voxel"]:
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(terms) // 2 * 2 :]
    return terms[0]


def _chunks(atoms: Atoms) -> Inexact[Array, "chunk atom n"]:
    n_atoms, n = atoms.kept.shape
    return atoms.kept.reshape(-1, min(_CHUNK * _BLOCK, n_atoms), n)


def _block_maxima(chunk: Inexact[Array, "atom n"], signal: Inexact[Array, "voxel n"]) -> Float[Array, "block voxel"]:
    """Largest |<atom, signal>| of each block."""
    if jnp.iscomplexobj(signal) and not jnp.iscomplexobj(chunk):
        products = jax.lax.complex(_matmul(chunk, signal.real.T), _matmul(chunk, signal.imag.T))
    else:
        products = _matmul(chunk.conj(), signal.T)
    by_block = products.reshape(-1, _BLOCK, signal.shape[0])
    # Unrolled: a reduction over a leading axis is slow on a CPU.
    return functools.reduce(_larger, [jnp.abs(by_block[:, i]) for i in range(_BLOCK)])


def _larger(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Of numbers that are not NaN: `jnp.maximum` takes twice as long, as it would pass a NaN on."""
    return jnp.where(a > b, a, b)


def _matmul(a: Inexact[Array, "i k"], b: Inexact[Array, "k j"]) -> Inexact[Array, "i j"]:
    """In full precision: neither TF32 nor bf16 can tell atoms apart."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=a.dtype)


# --- differences ------------------------------------------------------------------------------------------------------


def _best_of_blocks(
    atoms: Atoms, signals: Signals, reference: Int[Array, " voxel"], blocks: tuple[Int[Array, " voxel"], ...]
) -> Int[Array, " voxel"]:
    """Row of the best atom in the given blocks of each voxel."""
    near = atoms.kept.at[reference].get(mode="promise_in_bounds")
    phase, overlap = _phase(signals.kept, near)
    turned = signals.kept * phase[:, None]
    near, turned, twice = _barrier((near, turned, 2 * turned - near))
    complex_valued = jnp.iscomplexobj(near) or jnp.iscomplexobj(turned)
    gains, first_rows = [], []
    for block in _ascending(blocks):  # of equal atoms the first is to win
        # One measurement after the other: all measurements of 16 atoms for every voxel would not fit the cache.
        def add_measurement(i, sums, block=block):
            candidates = atoms.blocks.at[block, i].get(mode="promise_in_bounds")  # (voxel, 16)
            step = candidates - near[:, i, None]
            x = (step.conj() * (twice[:, i, None] - candidates)).real
            y = (step.conj() * turned[:, i, None]).imag if complex_valued else 0.0
            return sums[0] + x, sums[1] + y

        nothing = jnp.zeros((block.shape[0], _BLOCK), overlap.dtype)
        x, y = jax.lax.fori_loop(0, near.shape[1], add_measurement, (nothing, nothing), unroll=_UNROLL)
        gains.append(_gain(0.5 * x, y, overlap[:, None]))
        first_rows.append(block * _BLOCK)
    candidates = _with_rows(_nobody(2, signals), jnp.concatenate(gains, axis=1).T).rows
    first_rows = jnp.stack(first_rows)
    best, runner_up = (jnp.take_along_axis(first_rows, c[None] // _BLOCK, 0)[0] + c % _BLOCK for c in candidates)
    return _better(atoms, signals, best, runner_up)


def _ascending(values: tuple[Int[Array, " voxel"], ...]) -> list[Int[Array, " voxel"]]:
    ordered: list[Int[Array, " voxel"]] = []
    for value in values:
        for i, there in enumerate(ordered):
            ordered[i], value = jnp.minimum(there, value), jnp.maximum(there, value)
        ordered.append(value)
    return ordered


def _better(atoms: Atoms, signals: Signals, a: Int[Array, " voxel"], b: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
    """The better of two rows, with all that is known of atoms and signals; of equals the lower."""

    of_a, of_b = _rows(atoms, a), _rows(atoms, b)
    phase, overlap = _phase(signals.kept, of_a.kept)
    turned = jax.tree.map(lambda part: part * phase[:, None], signals)
    step = _minus(of_b, of_a)
    across = step.conj() * (_minus(turned, of_a) + _minus(turned, of_b))
    x = 0.5 * sum_of_measurements(across.real.T)
    y = sum_of_measurements((step.conj() * turned.kept).imag.T) if jnp.iscomplexobj(step) else 0.0
    gain = _gain(x, y, overlap)
    return jnp.where((gain > 0) | ((gain == 0) & (b < a)), b, a)


def _rows(atoms: Atoms, index: Int[Array, " voxel"]) -> Signals:
    rest = None if atoms.rest is None else atoms.rest.at[index].get(mode="promise_in_bounds")
    return Signals(atoms.kept.at[index].get(mode="promise_in_bounds"), rest)


def _minus(a: Signals, b: Signals) -> Inexact[Array, "voxel n"]:
    """Their difference, the leading parts first."""
    difference = a.kept - b.kept
    difference = difference if a.rest is None else difference + a.rest
    return difference if b.rest is None else difference - b.rest


def _gain(x: Float[Array, "..."], y: Float[Array, "..."] | float, overlap: Float[Array, "..."]) -> Float[Array, "..."]:
    """|<d, s>|^2 - <r, s>^2 from <d - r, s> = x + iy and the overlap <r, s>."""
    return x * (2 * overlap + x) + y * y


def _phase(
    signal: Inexact[Array, "voxel n"], atom: Inexact[Array, "voxel n"]
) -> tuple[Inexact[Array, " voxel"], Float[Array, " voxel"]]:
    """Unit number that turns the signal until <atom, signal> is real and positive, and that product."""
    product = sum_of_measurements((atom.conj() * signal).T)
    size = jnp.abs(product)
    return jnp.where(size > 0, product.conj() / jnp.where(size > 0, size, 1), 1), size


# --- whoever else could be the best -----------------------------------------------------------------------------------


def _examine(
    atoms: Atoms, signals: Signals, best: Int[Array, " voxel"], bound: Float[Array, " voxel"]
) -> Int[Array, " voxel"]:
    """The best atom of all blocks with a product of at least `bound`, starting from the best row so far."""

    chunks, nobody = _chunks(atoms), _nobody(1, signals)

    def examine_chunk(i: Int[Array, ""], best: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
        def examine_block(carry):
            best, eligible = carry
            (row,) = _with_rows(nobody, eligible).rows  # 0 where no eligible block is left, which does no harm
            challenger = _best_of_blocks(atoms, signals, best, (row + i * _CHUNK,))
            return _better(atoms, signals, best, challenger), jnp.where(numbers == row, -jnp.inf, eligible)

        maxima = _block_maxima(chunks[i], signals.kept)
        eligible = jnp.where(maxima >= bound, maxima, -jnp.inf)
        numbers = jnp.arange(eligible.shape[0], dtype=jnp.int32)[:, None]
        return jax.lax.while_loop(lambda carry: jnp.any(carry[1] > -jnp.inf), examine_block, (best, eligible))[0]

    return jax.lax.fori_loop(0, chunks.shape[0], examine_chunk, best)


_barrier = jax.lax.optimization_barrier  # keeps XLA from computing a value again in each of its uses
