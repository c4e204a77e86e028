"""Which unit-norm atom d has the largest |<d, s>|: the answer of a search in float64, found in float32.

Neighbouring atoms of a fine grid differ by less than float32 can tell: 1 - cos is 1e-8 where the rounding of a product
is 1e-7, so the largest product is the wrong one every third time; and most atoms are nowhere near the signal. So:

1. Similar voxels are searched together, relative to an atom r near all of them (`_Relative`):

       |<d, s>|^2 - <r, s>^2 = x (2 <r, s> + x) + y^2,
       x + iy = <d - r, s> = <d - r, s - r> - |d - r|^2 / 2 + i Im<d - r, r>

   (s with the phase that makes <r, s> real and positive). Both factors are small and keep float32's relative
   precision, and it still is a product of matrices. Its rounding error is bounded, `_gains`.
2. Atoms lie in chunks of neighbours. An angle in one is at most that of its centre c and its radius a
   apart: |<d, s>| <= |<c, s>| cos a + |s x c| sin a. Chunks that hold the best of no voxel are pruned, which of a large
   dictionary leaves a tenth.
3. Of every block of 16 neighbouring atoms only the largest value matters: the top two blocks are kept, their atoms
   are compared relative to the middle of their block, and the best two once more with what float32 storage cut off. Of
   a small dictionary chunks are single blocks, which r is near enough to, and the top two atoms are compared at once.
4. If any other comes within the rounding error of the best, every chunk that may hold a better atom is searched again,
   relative to its own centre: each atom within the rounding error is compared with the best so far.

So no atom that could be the best is left out, and what decides is the difference of two atoms d and d' in full, to
within n u |d - d'| |2 s - d - d'|, u = 6e-8: nothing where the signal is a simulated one. With noise, atoms whose
products are the same to ten digits may change places.

Source of the products as a matching criterion: Ma et al., Nature 495:187 (2013). Bounds by triangles of angles: Elkan,
Proc 20th ICML, 147 (2003).
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..batching.context import on_cpu
from ..models.base import sum_of_measurements
from .double_float import (
    DoubleFloat,
    aligned_with,
    computed_once,
    difference,
    gain_from,
    imaginary_product,
    length_of,
    products_of,
    square_of,
)
from .layout import BLOCK, Atoms, Blocks

_TOP = 2  # blocks, or atoms, among which the best atom is looked for first
_UNROLL = 4  # measurements, or rows
_GROUP_VALUES = 32768  # measurements of the voxels that are searched at once on a CPU, so that they stay in its cache
_MANY_CHUNKS = 64  # from which on smaller groups pay, as they prune more
_AMBIGUOUS_AT_ONCE = 64  # voxels; there are few


def best_atoms(atoms: Atoms, signals: DoubleFloat) -> Int[Array, " voxel"]:
    """Index of the atom with the largest |<atom, signal>| for every voxel; ties go to the lowest index."""
    n_voxels, n = signals.high.shape
    values = _GROUP_VALUES * (1 if on_cpu() else 16) // (4 if atoms.radii.size > _MANY_CHUNKS else 1)
    n_groups = math.ceil(n_voxels / max(values // n, 64))
    width = math.ceil(n_voxels / n_groups / 64) * 64
    missing = n_groups * width - n_voxels

    def grouped(leaf: Array) -> Array:
        return jnp.pad(leaf, [(0, missing), (0, 0)], mode="edge").reshape(n_groups, width, n)

    order = _similar_together(atoms, grouped(signals.high), n_voxels)
    groups = jax.tree.map(lambda leaf: grouped(leaf[order]), signals)
    # One after the other: in one loop XLA would compute `relative` again in each of its uses.
    relative = jax.lax.map(lambda group: _relative_to_middle(atoms, group), groups)
    row, ambiguous = jax.lax.map(lambda group: _best_of_top(atoms, *group), (groups, relative))

    def resolve_some(carry):
        row, ambiguous = carry
        group = jnp.argmax(jnp.any(ambiguous, axis=1))
        # Places left over point beyond the group: they read the first voxel, and what they write is dropped.
        chosen = jnp.nonzero(ambiguous[group], size=min(_AMBIGUOUS_AT_ONCE, width), fill_value=width)[0]
        places = (group, jnp.where(chosen < width, chosen, chosen[0]))
        found = _best_of_candidates(atoms, jax.tree.map(lambda leaf: leaf[places], groups), row[places])
        row = row.at[group, chosen].set(found, mode="drop")
        return row, ambiguous.at[group, chosen].set(False, mode="drop")

    row, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[1]), resolve_some, (row, ambiguous))
    return atoms.index[jnp.zeros(n_voxels, row.dtype).at[order].set(row.ravel()[:n_voxels])]


def _similar_together(atoms: Atoms, signals: Inexact[Array, "group width n"], n_voxels: int) -> Int[Array, " voxel"]:
    """Order of the voxels by the centre they are nearest to, of twice as many centres as there are groups."""
    some = atoms.centres.high[:: max(1, atoms.radii.size // (2 * signals.shape[0]))]

    def nearest_of(group: Inexact[Array, "width n"]) -> Int[Array, " width"]:
        return _insert_rows(_empty_top_k(1, group), jnp.abs(products_of(some, group))).rows[0]

    nearest = jax.lax.map(nearest_of, signals).ravel()[:n_voxels]
    if some.shape[0] * n_voxels >= 2**31:
        return jnp.argsort(nearest)
    # Both in one number: to sort one array takes a fraction of the time.
    return jnp.sort(nearest * n_voxels + jnp.arange(n_voxels, dtype=jnp.int32)) % n_voxels


# --- relative to one atom ---------------------------------------------------------------------------------------------


class _Relative(NamedTuple):
    """Signals relative to an atom r near them, the same for all or one for each."""

    origin: DoubleFloat  # r, (1, n) or (voxel, n)
    offset: Inexact[Array, "voxel n"]  # s - r, with s times the unit number that makes <r, s> real and positive
    distance: Float[Array, " voxel"]  # |s - r|
    overlap: Float[Array, " voxel"]  # <r, s>
    perpendicular: Float[Array, " voxel"]  # |s|^2 - <r, s>^2


def _relative_to_middle(atoms: Atoms, signals: DoubleFloat) -> _Relative:
    """To the centre nearest to the signal in the middle of the list."""
    middle = signals.high[signals.high.shape[0] // 2]
    nearest = jnp.argmax(jnp.abs(products_of(atoms.centres.high, middle[None]))[:, 0])
    return _relative_to(atoms.rows(atoms.centre_rows[nearest][None]), signals)


def _relative_to(origin: DoubleFloat, signals: DoubleFloat) -> _Relative:
    aligned, overlap = aligned_with(signals, origin.high)
    offset = computed_once(difference(aligned, origin))
    perpendicular = square_of(aligned.high - overlap[:, None] * origin.high)
    return computed_once(_Relative(origin, offset, length_of(offset), overlap, perpendicular))


def _steps(relative: _Relative, some: DoubleFloat) -> tuple[Inexact[Array, "atom n"], Float[Array, " atom"]]:
    """d - r for some atoms, and |d - r|^2. Their phase stays: to multiply by one would round them."""
    steps = computed_once(difference(some, relative.origin))
    return steps, computed_once(square_of(steps))


def _gains(relative: _Relative, some: DoubleFloat) -> tuple[Float[Array, "atom voxel"], Float[Array, " voxel"]]:
    """|<d, s>|^2 - <r, s>^2 of some atoms, and a bound on the error of these."""
    steps, square = _steps(relative, some)
    products = products_of(steps, relative.offset)
    x = products.real - square[:, None] / 2
    y = 0.0
    if jnp.iscomplexobj(products):
        y = products.imag + imaginary_product(steps, relative.origin.high)[:, None]
    return gain_from(x, y, relative.overlap), _error_bound(relative, jnp.sqrt(jnp.max(square)))


def _products_of_own(
    relative: _Relative, some: DoubleFloat
) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"] | float, Float[Array, " voxel"]]:
    """x, y and |d - r| for one atom per voxel."""
    steps, square = _steps(relative, some)
    terms = steps.conj() * relative.offset
    x = jnp.sum(terms.real, axis=1) - square / 2
    y = 0.0
    if jnp.iscomplexobj(terms):
        y = jnp.sum(terms.imag, axis=1) + imaginary_product(steps, relative.origin.high)
    return x, y, jnp.sqrt(square)


def _error_bound(relative: _Relative, length: Float[Array, "..."]) -> Float[Array, " voxel"]:
    """Bound on the error of a gain, for atoms as far as `length` from r: 2 (<r, s> + |x|) times that of x.

    A sum of n products is wrong by n u |d - r| |s - r| at most in whatever order it is added up, u = eps / 2; each
    factor and |d - r|^2 / 2 are wrong by a few u themselves. Each part of a complex product sums 2 n real ones.
    Twice that is taken. Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), sec. 3.1.
    """
    is_complex = jnp.iscomplexobj(relative.origin.high) or jnp.iscomplexobj(relative.offset)
    n_real = relative.offset.shape[1] * (2 if is_complex else 1)
    units = (4 * n_real + 32) * float(jnp.finfo(length.dtype).eps) / 2
    return units * (1 + length) * length * (relative.distance + length)


def _gain_to_beat(atoms: Atoms, relative: _Relative, best: Int[Array, " voxel"]) -> Float[Array, " voxel"]:
    """What another atom's gain must reach, computed and with its error on top, if it may be better than `best`."""
    x, y, length = _products_of_own(relative, atoms.rows(best))
    return gain_from(x, y, relative.overlap) - _error_bound(relative, length)


# --- chunks -----------------------------------------------------------------------------------------------------------


def _unpruned_chunks(
    atoms: Atoms, relative: _Relative, least: Float[Array, " voxel"] | None = None
) -> tuple[Int[Array, " chunk"], Int[Array, ""]]:
    """The chunks that may hold an atom whose gain for one of the voxels is `least`, or that of the best centre.

    Their numbers, ascending, then zeros; and how many there are.
    """
    gain, error = _gains(relative, atoms.centres)
    least = jnp.max(gain, axis=0) - error if least is None else least
    above = gain + error
    overlap = relative.overlap
    perpendicular = relative.perpendicular * (1 + 1e-5)
    # p = |<c, s>| and q = |s x c| from their differences to those of r
    tiny = float(jnp.finfo(overlap.dtype).tiny)  # a signal at right angles to everything
    p_ahead = above / jnp.maximum(overlap + jnp.sqrt(jnp.maximum(overlap**2 + above, 0)), tiny)
    q = jnp.sqrt(jnp.maximum(perpendicular - gain + error, 0))
    chord = atoms.radii[:, None] * (1 + 1e-5) + 4 * float(jnp.finfo(overlap.dtype).eps)
    lost, sine = computed_once((chord**2 / 2, chord * jnp.sqrt(jnp.maximum(1 - chord**2 / 4, 0))))  # 1 - cos a, sin a
    ahead = p_ahead - (overlap + p_ahead) * lost + q * sine  # p cos a + q sin a - <r, s>
    inside = q <= sine * jnp.sqrt(perpendicular + overlap**2)  # the signal is between atoms of the chunk
    bound = jnp.where(inside, jnp.inf, ahead * (2 * overlap + ahead) * (1 + 1e-6) + error)
    unpruned = ~jnp.all(bound < least, axis=1)
    return jnp.nonzero(unpruned, size=unpruned.size, fill_value=0)[0].astype(jnp.int32), jnp.sum(unpruned)


def _upper_bounds(atoms: Atoms, relative: _Relative, chunk: Int[Array, ""]) -> Float[Array, "row voxel"]:
    """No gain in this chunk is above this: of each atom where the chunk is one block, else of each block."""
    gain, error = _gains(relative, _chunk(atoms, chunk))
    if atoms.blocks_per_chunk == 1:
        return gain + error
    by_block = gain.reshape(-1, BLOCK, gain.shape[1])
    # Unrolled: a reduction over a leading axis is slow on a CPU.
    return functools.reduce(_larger, [by_block[:, i] for i in range(BLOCK)]) + error


def _chunk(atoms: Atoms, chunk: Int[Array, ""]) -> DoubleFloat:
    size = atoms.blocks_per_chunk * BLOCK
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, chunk * size, size), atoms.vectors)


def _best_of_top(
    atoms: Atoms, signals: DoubleFloat, relative: _Relative
) -> tuple[Int[Array, " voxel"], Bool[Array, " voxel"]]:
    """The best of the top atoms, or of those in the top blocks, and whether any other may be better."""
    chunks, n_chunks = _unpruned_chunks(atoms, relative)

    def insert_chunk(i: Int[Array, ""], top: _TopK) -> _TopK:
        bounds = _upper_bounds(atoms, relative, chunks[i])
        return _insert_rows(top, bounds, chunks[i] * bounds.shape[0])

    top = jax.lax.fori_loop(0, n_chunks, insert_chunk, _empty_top_k(_TOP, signals.high))
    if atoms.blocks_per_chunk == 1:
        best, ambiguous = _better_row(atoms, signals, *top.rows), jnp.bool_(False)
    else:
        best, ambiguous = _best_of_blocks(atoms, signals, top.rows)
    return best, ambiguous | (top.next_value >= _gain_to_beat(atoms, relative, best))


# --- top k ------------------------------------------------------------------------------------------------------------


class _TopK(NamedTuple):
    """The k largest values and where they are, per voxel."""

    values: tuple[Float[Array, " voxel"], ...]  # descending
    rows: tuple[Int[Array, " voxel"], ...]
    next_value: Float[Array, " voxel"]  # the largest of all others


def _empty_top_k(k: int, signal: Inexact[Array, "voxel n"]) -> _TopK:
    value = jnp.full_like(signal[:, 0].real, -jnp.inf)
    row = jnp.zeros_like(value, jnp.int32)
    return _TopK((value,) * k, (row,) * k, value)


def _insert_rows(top: _TopK, values: Float[Array, "row voxel"], first_row: Int[Array, ""] | int = 0) -> _TopK:
    """The top k with more rows; of ties the earlier row stays ahead.

    One row after the other: XLA's argmax on a CPU does not use vectors, and its top_k is slower still.
    """

    def insert_row(i: Int[Array, ""], top: _TopK) -> _TopK:
        value, row = values[i], jnp.broadcast_to(first_row + i, values.shape[1:]).astype(jnp.int32)
        descending, rows = [], []
        for there, its_row in zip(top.values, top.rows, strict=True):
            ahead = value > there
            descending.append(jnp.where(ahead, value, there))
            rows.append(jnp.where(ahead, row, its_row))
            value, row = jnp.where(ahead, there, value), jnp.where(ahead, its_row, row)
        return _TopK(tuple(descending), tuple(rows), _larger(top.next_value, value))

    return jax.lax.fori_loop(0, values.shape[0], insert_row, top, unroll=min(_UNROLL, values.shape[0]))


def _larger(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Of numbers that are not NaN: `jnp.maximum` takes twice as long, as it would pass a NaN on."""
    return jnp.where(a > b, a, b)


# --- exact comparisons ------------------------------------------------------------------------------------------------


def _best_of_blocks(
    atoms: Atoms, signals: DoubleFloat, blocks: tuple[Int[Array, " voxel"], ...]
) -> tuple[Int[Array, " voxel"], Bool[Array, " voxel"]]:
    """Row of the best atom in two blocks of each voxel, and whether more than two are as good to within rounding.

    They are where the blocks are far from each other, or from the signal, for how similar their atoms are. The atoms of
    the second block are taken relative to the middle c of their own: <d - r, s> = <d - c, s> + <c - r, s>.
    """
    relative = _relative_to(atoms.middles(blocks[0]), signals)
    middle = atoms.middles(blocks[1])
    x, y = _products_in_block(atoms.blocks, blocks[0], relative.offset)
    x_there, y_there = _products_in_block(
        atoms.blocks, blocks[1], relative.offset - difference(middle, relative.origin)
    )
    x_middle, y_middle, apart = computed_once(_products_of_own(relative, middle))
    error = _error_bound(relative, atoms.blocks.radii[blocks[0]])
    error_there = _error_bound(relative, atoms.blocks.radii[blocks[1]] + apart)
    bounds = jnp.concatenate([
        gain_from(x, y, relative.overlap) + error,
        gain_from(x_there + x_middle, y_there + y_middle, relative.overlap) + error_there,
    ])  # fmt: skip
    top = _insert_rows(_empty_top_k(2, signals.high), bounds)
    best, second = (jnp.where(row < BLOCK, blocks[0] * BLOCK, (blocks[1] - 1) * BLOCK) + row for row in top.rows)
    least = top.values[0] - 2 * jnp.where(top.rows[0] < BLOCK, error, error_there)
    return _better_row(atoms, signals, best, second), top.next_value >= least


def _products_in_block(
    blocks: Blocks, block: Int[Array, " voxel"], offset: Inexact[Array, "voxel n"]
) -> tuple[Float[Array, "16 voxel"], Float[Array, "16 voxel"] | float]:
    """x + iy = <d - c, s> for the atoms of a block of each voxel's own, c in its middle; from s - c."""
    complex_valued = jnp.iscomplexobj(blocks.steps) or jnp.iscomplexobj(offset)

    # One measurement after the other: all measurements of 16 atoms for every voxel would not fit the cache.
    def add_measurement(i, sums):
        terms = blocks.steps.at[block, i].get(mode="promise_in_bounds").conj() * offset[:, i, None]
        return sums[0] + terms.real, sums[1] + terms.imag if complex_valued else sums[1]

    zero = jnp.repeat(jnp.zeros_like(offset[:, :1].real), BLOCK, axis=1)
    start = (zero, zero if complex_valued else 0.0)
    x, y = jax.lax.fori_loop(0, offset.shape[1], add_measurement, start, unroll=_UNROLL)
    x = x - blocks.half_squares[block]
    y = y if blocks.imaginary is None else y + blocks.imaginary[block]
    return x.T, y.T if complex_valued else 0.0


def _better_row(
    atoms: Atoms, signals: DoubleFloat, a: Int[Array, " voxel"], b: Int[Array, " voxel"]
) -> Int[Array, " voxel"]:
    """The better of two rows, with all that is known of atoms and signals; ties go to the lower row."""
    of_a, of_b = atoms.rows(a), atoms.rows(b)
    aligned, overlap = aligned_with(signals, of_a.high)
    step = difference(of_b, of_a)
    # As 2 Re<b - a, s - a> - |b - a|^2, without a small difference of large squares.
    along = step.conj() * (difference(aligned, of_a) + difference(aligned, of_b))
    x = 0.5 * sum_of_measurements(along.real.T)
    y = sum_of_measurements((step.conj() * aligned.high).imag.T) if jnp.iscomplexobj(step) else 0.0
    gain = gain_from(x, y, overlap)
    return jnp.where((gain > 0) | ((gain == 0) & (b < a)), b, a)


# --- remaining candidates ---------------------------------------------------------------------------------------------


def _best_of_candidates(atoms: Atoms, signals: DoubleFloat, best: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
    """The best atom of all chunks that may hold a better one than the best row so far."""
    relative = _relative_to(atoms.rows(best[best.shape[0] // 2][None]), signals)
    chunks, n_chunks = _unpruned_chunks(atoms, relative, _gain_to_beat(atoms, relative, best))
    size = atoms.blocks_per_chunk * BLOCK

    def search_chunk(i: Int[Array, ""], best: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
        relative = _relative_to(atoms.rows(atoms.centre_rows[chunks[i]][None]), signals)
        gain, error = _gains(relative, _chunk(atoms, chunks[i]))
        least = _gain_to_beat(atoms, relative, best)

        def test_next_candidate(carry):
            best, bounds = carry
            (row,) = _insert_rows(_empty_top_k(1, signals.high), bounds).rows
            best = _better_row(atoms, signals, best, chunks[i] * size + row)
            return best, jnp.where(jnp.arange(size)[:, None] == row, -jnp.inf, bounds)

        def candidates_left(carry):
            return jnp.any((carry[1] >= least) & (carry[1] > -jnp.inf))

        return jax.lax.while_loop(candidates_left, test_next_candidate, (best, gain + error))[0]

    return jax.lax.fori_loop(0, n_chunks, search_chunk, best)
