"""Which unit-norm atom d has the largest |<d, s>|: the answer of a search in float64, found in float32.

Neighbouring atoms of a fine grid differ by less than float32 can tell: 1 - cos is 1e-8 where the rounding of a product
is 1e-7, so the largest product is the wrong one every third time; and most atoms are nowhere near the signal. So:

1. Voxels that look alike are searched together, and seen from an atom r near all of them (`_View`):

       |<d, s>|^2 - <r, s>^2 = x (2 <r, s> + x) + y^2,
       x + iy = <d - r, s> = <d - r, s - r> - |d - r|^2 / 2 + i Im<d - r, r>

   (s turned so that <r, s> is real and positive). Both factors are small and keep float32's relative
   precision, and it still is a product of matrices. Its rounding error is bounded, `_gains`.
2. Atoms lie in chunks of neighbours (`neighbours`). An angle in one is at most that of its centre c and its radius a
   apart: |<d, s>| <= |<c, s>| cos a + |s x c| sin a. Chunks that hold the best of no voxel are passed over, which of a
   large dictionary leaves a tenth.
3. Of every block of 16 neighbouring atoms only the largest value matters: the two leading blocks are kept, their atoms
   are seen from the middle of their block, and the two best meet once more with what float32 storage cut off. Of a
   small dictionary chunks are single blocks, which r is near enough to, and the two leading atoms meet at once.
4. If any other comes within the rounding error of the best, every chunk that may hold a better atom is examined, seen
   from its own centre: whoever comes within the rounding error meets the best so far.

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
from .layout import BLOCK, Atoms, Blocks, atoms_of, blocks_per_chunk, middle_of_block
from .vectors import Signals, computed_once, difference, gain_from, length_of, products_of, square_of, turned_towards

_LEADERS = 2  # blocks, or atoms, among which the best atom is looked for first
_UNROLL = 4  # measurements, or rows
_GROUP_VALUES = 32768  # measurements of the voxels that are searched at once on a CPU, so that they stay in its cache
_MANY_CHUNKS = 64  # from which on smaller groups pay, as they pass over more
_EXAMINED = 64  # voxels; doubtful ones are few


def best_atoms(atoms: Atoms, signals: Signals) -> Int[Array, " voxel"]:
    """Index of the atom with the largest |<atom, signal>| for every voxel; of equals the lowest.

    Args:
        atoms: from `lay_out`.
        signals: from `normalised`.
    """
    n_voxels, n = signals.kept.shape
    values = _GROUP_VALUES * (1 if on_cpu() else 16) // (4 if atoms.radii.size > _MANY_CHUNKS else 1)
    n_groups = math.ceil(n_voxels / max(values // n, 64))
    width = math.ceil(n_voxels / n_groups / 64) * 64
    missing = n_groups * width - n_voxels

    def grouped(leaf: Array) -> Array:
        return jnp.pad(leaf, [(0, missing), (0, 0)], mode="edge").reshape(n_groups, width, n)

    order = _alike_together(atoms, grouped(signals.kept), n_voxels)
    groups = jax.tree.map(lambda leaf: grouped(leaf[order]), signals)
    # One after the other: in one loop XLA would compute the views again in each of their uses.
    views = jax.lax.map(lambda group: _view_of_middle(atoms, group), groups)
    row, doubtful = jax.lax.map(lambda group: _leading(atoms, *group), (groups, views))

    def examine_some(carry):
        row, doubtful = carry
        group = jnp.argmax(jnp.any(doubtful, axis=1))
        # Places left over point beyond the group: they read the first voxel, and what they write is dropped.
        chosen = jnp.nonzero(doubtful[group], size=min(_EXAMINED, width), fill_value=width)[0]
        places = (group, jnp.where(chosen < width, chosen, chosen[0]))
        found = _examine(atoms, jax.tree.map(lambda leaf: leaf[places], groups), row[places])
        row = row.at[group, chosen].set(found, mode="drop")
        return row, doubtful.at[group, chosen].set(False, mode="drop")

    row, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[1]), examine_some, (row, doubtful))
    return atoms.index[jnp.zeros(n_voxels, row.dtype).at[order].set(row.ravel()[:n_voxels])]


def _alike_together(atoms: Atoms, signals: Inexact[Array, "group width n"], n_voxels: int) -> Int[Array, " voxel"]:
    """Order of the voxels by the centre they are nearest to, of twice as many centres as there are groups."""
    some = atoms.centres.kept[:: max(1, atoms.radii.size // (2 * signals.shape[0]))]

    def nearest_of(group: Inexact[Array, "width n"]) -> Int[Array, " width"]:
        return _with_rows(_nobody(1, group), jnp.abs(products_of(some, group))).rows[0]

    nearest = jax.lax.map(nearest_of, signals).ravel()[:n_voxels]
    if some.shape[0] * n_voxels >= 2**31:
        return jnp.argsort(nearest)
    # Both in one number: to sort one array takes a fraction of the time.
    return jnp.sort(nearest * n_voxels + jnp.arange(n_voxels, dtype=jnp.int32)) % n_voxels


# --- seen from one atom -----------------------------------------------------------------------------------------------


class _View(NamedTuple):
    """Signals seen from an atom r near them, the same for all or one for each.

    Attributes:
        origin: r, (1, n) or (voxel, n).
        away: s - r, (voxel, n), with s times the number that makes <r, s> real and positive.
        distance: |s - r|.
        overlap: <r, s>.
        beside: |s|^2 - <r, s>^2.
    """

    origin: Signals
    away: Inexact[Array, "voxel n"]
    distance: Float[Array, " voxel"]
    overlap: Float[Array, " voxel"]
    beside: Float[Array, " voxel"]


def _view_of_middle(atoms: Atoms, signals: Signals) -> _View:
    """From the centre nearest to the signal in the middle of the list."""
    middle = signals.kept[signals.kept.shape[0] // 2]
    nearest = jnp.argmax(jnp.abs(products_of(atoms.centres.kept, middle[None]))[:, 0])
    return _view(signals, atoms_of(atoms, atoms.centre_rows[nearest][None]))


def _view(signals: Signals, origin: Signals) -> _View:
    turned, overlap = turned_towards(signals, origin.kept)
    away = computed_once(difference(turned, origin))
    beside = square_of(turned.kept - overlap[:, None] * origin.kept)
    return computed_once(_View(origin, away, length_of(away), overlap, beside))


def _steps(view: _View, some: Signals) -> tuple[Inexact[Array, "atom n"], Float[Array, " atom"]]:
    """d - r for some atoms, and |d - r|^2. They are not turned: to multiply by a phase would round them."""
    steps = computed_once(difference(some, view.origin))
    return steps, computed_once(square_of(steps))


def _gains(view: _View, some: Signals) -> tuple[Float[Array, "atom voxel"], Float[Array, " voxel"]]:
    """|<d, s>|^2 - <r, s>^2 of some atoms, and how wrong these may be."""
    steps, square = _steps(view, some)
    products = products_of(steps, view.away)
    x = products.real - square[:, None] / 2
    y = products.imag + _across(view, steps)[:, None] if jnp.iscomplexobj(products) else 0.0
    return gain_from(x, y, view.overlap), _wrong(view, jnp.sqrt(jnp.max(square)))


def _products_of_own(
    view: _View, some: Signals
) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"] | float, Float[Array, " voxel"]]:
    """x, y and |d - r| for one atom per voxel."""
    steps, square = _steps(view, some)
    terms = steps.conj() * view.away
    x = jnp.sum(terms.real, axis=1) - square / 2
    y = jnp.sum(terms.imag, axis=1) + _across(view, steps) if jnp.iscomplexobj(terms) else 0.0
    return x, y, jnp.sqrt(square)


def _across(view: _View, steps: Inexact[Array, "atom n"]) -> Float[Array, " atom"]:
    """Im<d - r, r>."""
    return jnp.sum((steps.conj() * view.origin.kept).imag, axis=1)


def _wrong(view: _View, length: Float[Array, "..."]) -> Float[Array, " voxel"]:
    """Bound on the error of a gain, for atoms as far as `length` from r: 2 (<r, s> + |x|) times that of x.

    A sum of n products is wrong by n u |d - r| |s - r| at most in whatever order it is added up, u = eps / 2; each
    factor and |d - r|^2 / 2 are wrong by a few u themselves. Each part of a complex product sums 2 n real ones.
    Twice that is taken. Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), sec. 3.1.
    """
    n_real = view.away.shape[1] * (2 if jnp.iscomplexobj(view.origin.kept) or jnp.iscomplexobj(view.away) else 1)
    units = (4 * n_real + 32) * float(jnp.finfo(length.dtype).eps) / 2
    return units * (1 + length) * length * (view.distance + length)


def _least_gain(atoms: Atoms, view: _View, best: Int[Array, " voxel"]) -> Float[Array, " voxel"]:
    """What another atom's gain must reach, computed and with its error on top, if it may be better than `best`."""
    x, y, length = _products_of_own(view, atoms_of(atoms, best))
    return gain_from(x, y, view.overlap) - _wrong(view, length)


# --- chunks -----------------------------------------------------------------------------------------------------------


def _worth_a_visit(
    atoms: Atoms, view: _View, least: Float[Array, " voxel"] | None = None
) -> tuple[Int[Array, " chunk"], Int[Array, ""]]:
    """The chunks that may hold an atom whose gain for one of the voxels is `least`, or that of the best centre.

    Returns:
        their numbers, ascending, then zeros; and how many there are.
    """
    gain, wrong = _gains(view, atoms.centres)
    least = jnp.max(gain, axis=0) - wrong if least is None else least
    above = gain + wrong
    overlap = view.overlap
    beside = view.beside * (1 + 1e-5)
    # p = |<c, s>| and q = |s x c| from their differences to those of r
    tiny = float(jnp.finfo(overlap.dtype).tiny)  # a signal at right angles to everything
    p_ahead = above / jnp.maximum(overlap + jnp.sqrt(jnp.maximum(overlap**2 + above, 0)), tiny)
    q = jnp.sqrt(jnp.maximum(beside - gain + wrong, 0))
    chord = atoms.radii[:, None] * (1 + 1e-5) + 4 * float(jnp.finfo(overlap.dtype).eps)
    lost, sine = computed_once((chord**2 / 2, chord * jnp.sqrt(jnp.maximum(1 - chord**2 / 4, 0))))  # 1 - cos a, sin a
    ahead = p_ahead - (overlap + p_ahead) * lost + q * sine  # p cos a + q sin a - <r, s>
    inside = q <= sine * jnp.sqrt(beside + overlap**2)  # the signal is between atoms of the chunk
    most = jnp.where(inside, jnp.inf, ahead * (2 * overlap + ahead) * (1 + 1e-6) + wrong)
    wanted = ~jnp.all(most < least, axis=1)
    return jnp.nonzero(wanted, size=wanted.size, fill_value=0)[0].astype(jnp.int32), jnp.sum(wanted)


def _most_of(atoms: Atoms, view: _View, chunk: Int[Array, ""]) -> Float[Array, "row voxel"]:
    """No gain in this chunk is above this: of each atom where the chunk is one block, else of each block."""
    gain, wrong = _gains(view, _chunk(atoms, chunk))
    if blocks_per_chunk(atoms) == 1:
        return gain + wrong
    by_block = gain.reshape(-1, BLOCK, gain.shape[1])
    # Unrolled: a reduction over a leading axis is slow on a CPU.
    return functools.reduce(_larger, [by_block[:, i] for i in range(BLOCK)]) + wrong


def _chunk(atoms: Atoms, chunk: Int[Array, ""]) -> Signals:
    size = blocks_per_chunk(atoms) * BLOCK
    stored = Signals(atoms.kept, atoms.rest)
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, chunk * size, size), stored)


def _leading(atoms: Atoms, signals: Signals, view: _View) -> tuple[Int[Array, " voxel"], Bool[Array, " voxel"]]:
    """The better of the leading atoms, or the best of the leading blocks, and whether any other may be better."""
    visits, n_visits = _worth_a_visit(atoms, view)

    def with_chunk(i: Int[Array, ""], leaders: _Leaders) -> _Leaders:
        most = _most_of(atoms, view, visits[i])
        return _with_rows(leaders, most, visits[i] * most.shape[0])

    leaders = jax.lax.fori_loop(0, n_visits, with_chunk, _nobody(_LEADERS, signals.kept))
    if blocks_per_chunk(atoms) == 1:
        best, far = _better(atoms, signals, *leaders.rows), jnp.bool_(False)
    else:
        best, far = _best_of_blocks(atoms, signals, leaders.rows)
    return best, far | (leaders.others >= _least_gain(atoms, view, best))


# --- leaders ----------------------------------------------------------------------------------------------------------


class _Leaders(NamedTuple):
    """The largest values and where they are, per voxel."""

    values: tuple[Float[Array, " voxel"], ...]  # descending
    rows: tuple[Int[Array, " voxel"], ...]
    others: Float[Array, " voxel"]  # the largest of all other values


def _nobody(n_leaders: int, signal: Inexact[Array, "voxel n"]) -> _Leaders:
    none = jnp.full(signal.shape[0], -jnp.inf, signal.real.dtype)
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

    return jax.lax.fori_loop(0, values.shape[0], with_row, leaders, unroll=min(_UNROLL, values.shape[0]))


def _larger(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Of numbers that are not NaN: `jnp.maximum` takes twice as long, as it would pass a NaN on."""
    return jnp.where(a > b, a, b)


# --- differences ------------------------------------------------------------------------------------------------------


def _best_of_blocks(
    atoms: Atoms, signals: Signals, blocks: tuple[Int[Array, " voxel"], ...]
) -> tuple[Int[Array, " voxel"], Bool[Array, " voxel"]]:
    """Row of the best atom in two blocks of each voxel, and whether more than two are as good to within rounding.

    They are where the blocks are far from each other, or from the signal, for how alike their atoms are. The atoms of
    the second block are seen from the middle c of their own: <d - r, s> = <d - c, s> + <c - r, s>.
    """
    view = _view(signals, atoms_of(atoms, middle_of_block(blocks[0])))
    middle = atoms_of(atoms, middle_of_block(blocks[1]))
    x, y = _products_in_block(atoms.blocks, blocks[0], view.away)
    x_there, y_there = _products_in_block(atoms.blocks, blocks[1], view.away - difference(middle, view.origin))
    x_across, y_across, apart = computed_once(_products_of_own(view, middle))
    wrong = _wrong(view, atoms.blocks.radii[blocks[0]])
    wrong_there = _wrong(view, atoms.blocks.radii[blocks[1]] + apart)
    most = jnp.concatenate([
        gain_from(x, y, view.overlap) + wrong,
        gain_from(x_there + x_across, y_there + y_across, view.overlap) + wrong_there,
    ])  # fmt: skip
    found = _with_rows(_nobody(2, signals.kept), most)
    best, runner_up = (jnp.where(row < BLOCK, blocks[0] * BLOCK, (blocks[1] - 1) * BLOCK) + row for row in found.rows)
    least = found.values[0] - 2 * jnp.where(found.rows[0] < BLOCK, wrong, wrong_there)
    return _better(atoms, signals, best, runner_up), found.others >= least


def _products_in_block(
    blocks: Blocks, block: Int[Array, " voxel"], away: Inexact[Array, "voxel n"]
) -> tuple[Float[Array, "16 voxel"], Float[Array, "16 voxel"] | float]:
    """x + iy = <d - c, s> for the atoms of a block of each voxel's own, c in its middle; from s - c."""
    complex_valued = jnp.iscomplexobj(blocks.steps) or jnp.iscomplexobj(away)

    # One measurement after the other: all measurements of 16 atoms for every voxel would not fit the cache.
    def add_measurement(i, sums):
        terms = blocks.steps.at[block, i].get(mode="promise_in_bounds").conj() * away[:, i, None]
        return sums[0] + terms.real, sums[1] + terms.imag if complex_valued else sums[1]

    nothing = jnp.zeros((away.shape[0], BLOCK), away.real.dtype)
    start = (nothing, nothing if complex_valued else 0.0)
    x, y = jax.lax.fori_loop(0, away.shape[1], add_measurement, start, unroll=_UNROLL)
    x = x - blocks.half_squares[block]
    y = y if blocks.across is None else y + blocks.across[block]
    return x.T, y.T if complex_valued else 0.0


def _better(atoms: Atoms, signals: Signals, a: Int[Array, " voxel"], b: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
    """The better of two rows, with all that is known of atoms and signals; of equals the lower."""
    of_a, of_b = atoms_of(atoms, a), atoms_of(atoms, b)
    turned, overlap = turned_towards(signals, of_a.kept)
    step = difference(of_b, of_a)
    # As 2 Re<b - a, s - a> - |b - a|^2, without a small difference of large squares.
    along = step.conj() * (difference(turned, of_a) + difference(turned, of_b))
    x = 0.5 * sum_of_measurements(along.real.T)
    y = sum_of_measurements((step.conj() * turned.kept).imag.T) if jnp.iscomplexobj(step) else 0.0
    gain = gain_from(x, y, overlap)
    return jnp.where((gain > 0) | ((gain == 0) & (b < a)), b, a)


# --- whoever else could be the best -----------------------------------------------------------------------------------


def _examine(atoms: Atoms, signals: Signals, best: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
    """The best atom of all chunks that may hold a better one than the best row so far."""
    view = _view(signals, atoms_of(atoms, best[best.shape[0] // 2][None]))
    visits, n_visits = _worth_a_visit(atoms, view, _least_gain(atoms, view, best))
    size = blocks_per_chunk(atoms) * BLOCK

    def examine_chunk(i: Int[Array, ""], best: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
        seen = _view(signals, atoms_of(atoms, atoms.centre_rows[visits[i]][None]))
        gain, wrong = _gains(seen, _chunk(atoms, visits[i]))
        least = _least_gain(atoms, seen, best)

        def meet_next(carry):
            best, most = carry
            (row,) = _with_rows(_nobody(1, signals.kept), most).rows
            best = _better(atoms, signals, best, visits[i] * size + row)
            return best, jnp.where(jnp.arange(size)[:, None] == row, -jnp.inf, most)

        def someone_left(carry):
            return jnp.any((carry[1] >= least) & (carry[1] > -jnp.inf))

        return jax.lax.while_loop(someone_left, meet_next, (best, gain + wrong))[0]

    return jax.lax.fori_loop(0, n_visits, examine_chunk, best)
