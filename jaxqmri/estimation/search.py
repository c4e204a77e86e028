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
   are held against each other difference first, and the two best meet once more with what float32 storage cut off.
4. If any other block comes within the rounding error of the best, every chunk that may hold a better atom is examined,
   all of it as in step 3. So no atom that could be the best is left out.

What is left is the rounding of step 3, n u |d - r| |s - r| at most: nothing where the signal is a simulated one. With
noise, atoms whose products are the same to nine digits may change places.

Source of the products as a matching criterion: Ma et al., Nature 495:187 (2013). Bounds by triangles of angles: Elkan,
Proc 20th ICML, 147 (2003).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..models.base import sum_of_measurements
from ..models.context import on_cpu
from .layout import BLOCK, Atoms, atoms_of, blocks_per_chunk
from .vectors import (
    Signals,
    alignment,
    difference,
    gain_from,
    length_of,
    products_of,
    rough_alignment,
)

_LEADERS = 2  # blocks in which the best atom is looked for first, the most that `_best_of_blocks` takes
_UNROLL = 4  # measurements
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
    order = _alike_together(atoms, signals.kept, n_groups)

    def grouped(leaf: Array) -> Array:
        return jnp.pad(leaf[order], [(0, missing), (0, 0)], mode="edge").reshape(n_groups, width, n)

    groups = jax.tree.map(grouped, signals)
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


def _alike_together(atoms: Atoms, signal: Inexact[Array, "voxel n"], n_groups: int) -> Int[Array, " voxel"]:
    """Order of the voxels by the centre they are nearest to, of twice as many centres as there are groups."""
    n_voxels = signal.shape[0]
    some = atoms.centres.kept[:: max(1, atoms.radii.size // (2 * n_groups))]
    values = jnp.abs(products_of(some, signal))
    (nearest,) = _with_rows(_nobody(1, signal), values).rows
    if some.shape[0] * n_voxels >= 2**31:
        return jnp.argsort(nearest)
    # Both in one number: to sort one array takes a fraction of the time.
    return jnp.sort(nearest * n_voxels + jnp.arange(n_voxels, dtype=jnp.int32)) % n_voxels


# --- seen from one atom -----------------------------------------------------------------------------------------------


class _View(NamedTuple):
    """Signals seen from an atom r near them.

    Attributes:
        origin: r, (1, n).
        turned: the signals times the number that makes <r, s> real and positive.
        away: turned - r, (voxel, n).
        distance: |turned - r|.
        overlap: <r, s>.
    """

    origin: Signals
    turned: Signals
    away: Inexact[Array, "voxel n"]
    distance: Float[Array, " voxel"]
    overlap: Float[Array, " voxel"]


def _view_of_middle(atoms: Atoms, signals: Signals) -> _View:
    """From the centre nearest to the signal in the middle of the list."""
    middle = signals.kept[signals.kept.shape[0] // 2]
    nearest = jnp.argmax(jnp.abs(products_of(atoms.centres.kept, middle[None]))[:, 0])
    return _view(atoms, signals, atoms.centre_rows[nearest])


def _view(atoms: Atoms, signals: Signals, row: Int[Array, ""]) -> _View:
    origin = atoms_of(atoms, row[None])
    phase, overlap = rough_alignment(signals.kept, origin.kept)
    turned = jax.tree.map(lambda part: part * phase[:, None], signals)
    origin, turned, away, overlap = _barrier((origin, turned, difference(turned, origin), overlap))
    return _barrier(_View(origin, turned, away, length_of(away), overlap))


def _steps(view: _View, some: Signals) -> tuple[Inexact[Array, "atom n"], Float[Array, " atom"]]:
    """d - r for some atoms, and |d - r|. They are not turned: to multiply by a phase would round them."""
    steps = _barrier(difference(some, view.origin))
    return steps, _barrier(length_of(steps))


def _gains(view: _View, some: Signals) -> tuple[Float[Array, "atom voxel"], Float[Array, " voxel"]]:
    """|<d, s>|^2 - <r, s>^2 of some atoms, and how wrong these may be."""
    steps, length = _steps(view, some)
    products = products_of(steps, view.away)
    x = products.real - (length**2 / 2)[:, None]
    y = products.imag + _across(view, steps)[:, None] if jnp.iscomplexobj(products) else 0.0
    return gain_from(x, y, view.overlap), _wrong(steps, view.away, jnp.max(length), view.distance)


def _gain_of_own(view: _View, some: Signals) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"]]:
    """The same for one atom per voxel."""
    steps, length = _steps(view, some)
    terms = steps.conj() * view.away
    x = jnp.sum(terms.real, axis=1) - length**2 / 2
    y = jnp.sum(terms.imag, axis=1) + _across(view, steps) if jnp.iscomplexobj(terms) else 0.0
    return gain_from(x, y, view.overlap), _wrong(steps, view.away, length, view.distance)


def _across(view: _View, steps: Inexact[Array, "atom n"]) -> Float[Array, " atom"]:
    """Im<d - r, r>."""
    return jnp.sum((steps.conj() * view.origin.kept).imag, axis=1)


def _wrong(
    steps: Inexact[Array, "_ n"],
    away: Inexact[Array, "_ n"],
    length: Float[Array, "..."],
    distance: Float[Array, "..."],
) -> Float[Array, "..."]:
    """Bound on the error of a gain: 2 (<r, s> + |x|) times that of x.

    A sum of n products is wrong by n u |d - r| |s - r| at most in whatever order it is added up, u = eps / 2; each
    factor and |d - r|^2 / 2 are wrong by a few u themselves. Each part of a complex product sums 2 n real ones.
    Twice that is taken. Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), sec. 3.1.

    Args:
        steps, away: d - r and s - r, for the number and kind of their measurements.
        length, distance: how long they are.
    """
    n_real = away.shape[1] * (2 if jnp.iscomplexobj(steps) or jnp.iscomplexobj(away) else 1)
    units = (4 * n_real + 32) * float(jnp.finfo(length.dtype).eps) / 2
    return units * (1 + length) * length * (distance + length)


def _least_gain(atoms: Atoms, view: _View, best: Int[Array, " voxel"]) -> Float[Array, " voxel"]:
    """What another atom's gain must reach, computed and with its error on top, if it may be better than `best`."""
    gain, wrong = _gain_of_own(view, atoms_of(atoms, best))
    return gain - wrong


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
    beside = length_of(view.turned.kept - overlap[:, None] * view.origin.kept) ** 2
    beside = _barrier(beside * (1 + 1e-5))  # |s|^2 - <r, s>^2
    # p = |<c, s>| and q = |s x c| from their differences to those of r
    tiny = float(jnp.finfo(overlap.dtype).tiny)  # a signal at right angles to everything
    p_ahead = above / jnp.maximum(overlap + jnp.sqrt(jnp.maximum(overlap**2 + above, 0)), tiny)
    q = jnp.sqrt(jnp.maximum(beside - gain + wrong, 0))
    chord = atoms.radii[:, None] * (1 + 1e-5) + 4 * float(jnp.finfo(overlap.dtype).eps)
    lost, sine = _barrier((chord**2 / 2, chord * jnp.sqrt(jnp.maximum(1 - chord**2 / 4, 0))))  # 1 - cos a, sin a
    ahead = p_ahead - (overlap + p_ahead) * lost + q * sine  # p cos a + q sin a - <r, s>
    inside = q <= sine * jnp.sqrt(beside + overlap**2)  # the signal is between atoms of the chunk
    most = jnp.where(inside, jnp.inf, ahead * (2 * overlap + ahead) * (1 + 1e-6) + wrong)
    wanted = ~jnp.all(most < least, axis=1)
    return jnp.nonzero(wanted, size=wanted.size, fill_value=0)[0].astype(jnp.int32), jnp.sum(wanted)


def _block_maxima(atoms: Atoms, view: _View, chunk: Int[Array, ""]) -> Float[Array, "block voxel"]:
    """No gain of an atom of a block of this chunk is above this."""
    size = blocks_per_chunk(atoms) * BLOCK
    stored = Signals(atoms.kept, atoms.rest)
    gain, wrong = _gains(view, jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, chunk * size, size), stored))
    by_block = gain.reshape(-1, BLOCK, gain.shape[1])
    # Unrolled: a reduction over a leading axis is slow on a CPU.
    return functools.reduce(_larger, [by_block[:, i] for i in range(BLOCK)]) + wrong


def _leading(atoms: Atoms, signals: Signals, view: _View) -> tuple[Int[Array, " voxel"], Bool[Array, " voxel"]]:
    """The best atom of the leading blocks, and whether another block may have a better one."""
    visits, n_visits = _worth_a_visit(atoms, view)

    def with_chunk(i: Int[Array, ""], leaders: _Leaders) -> _Leaders:
        return _with_rows(leaders, _block_maxima(atoms, view, visits[i]), visits[i] * blocks_per_chunk(atoms))

    leaders = jax.lax.fori_loop(0, n_visits, with_chunk, _nobody(_LEADERS, signals.kept))
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

    return jax.lax.fori_loop(0, values.shape[0], with_row, leaders)


def _larger(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Of numbers that are not NaN: `jnp.maximum` takes twice as long, as it would pass a NaN on."""
    return jnp.where(a > b, a, b)


# --- differences ------------------------------------------------------------------------------------------------------


def _best_of_blocks(
    atoms: Atoms, signals: Signals, blocks: tuple[Int[Array, " voxel"], ...]
) -> tuple[Int[Array, " voxel"], Bool[Array, " voxel"]]:
    """Row of the best atom in the given blocks of each voxel, and whether more than two are as good to within rounding.

    They are where the blocks are far from each other, or from the signal, for how alike their atoms are.
    """
    seen = _seen_from(atoms, signals, blocks[0] * BLOCK + BLOCK // 2)

    def gains_of(block: Int[Array, " voxel"]) -> Float[Array, "voxel 16"]:
        def at(leaf: Array, i: Int[Array, ""]) -> Inexact[Array, "voxel 16"]:
            return leaf.at[block, i].get(mode="promise_in_bounds")

        return _gains_over(seen, at, Signals(atoms.blocks, atoms.rest_of_blocks), BLOCK)

    # Of equal atoms the first is to win.
    ascending = jnp.stack([functools.reduce(jnp.minimum, blocks), functools.reduce(jnp.maximum, blocks)])
    gains = jax.lax.map(gains_of, ascending).swapaxes(1, 2).reshape(-1, seen.overlap.size)
    found = _with_rows(_nobody(2, signals.kept), gains)
    best, runner_up = (
        jnp.take_along_axis(ascending, place[None] // BLOCK, 0)[0] * BLOCK + place % BLOCK for place in found.rows
    )
    best = _better(atoms, signals, best, runner_up)
    step = atoms_of(atoms, best).kept - seen.near.kept
    wrong = _wrong(step, seen.away, length_of(step), length_of(seen.away))
    return best, found.others >= found.values[0] - 2 * wrong


class _Seen(NamedTuple):
    """Every signal seen from an atom of its own, see `_View`."""

    near: Signals
    turned: Inexact[Array, "voxel n"]
    away: Inexact[Array, "voxel n"]
    overlap: Float[Array, " voxel"]


def _seen_from(atoms: Atoms, signals: Signals, row: Int[Array, " voxel"]) -> _Seen:
    near = atoms_of(atoms, row)
    phase, overlap = alignment(signals.kept, near.kept)
    turned = jax.tree.map(lambda part: part * phase[:, None], signals)
    return _barrier(_Seen(near, turned.kept, difference(turned, near), overlap))


def _gains_over(
    seen: _Seen, at: Callable[[Array, Int[Array, ""]], Array], some: Signals, n_atoms: int
) -> Float[Array, "voxel atom"]:
    """Gains of some atoms over the one seen from; `at` gives measurement i of a leaf of them, (voxel or 1, atom)."""
    complex_valued = jnp.iscomplexobj(seen.near.kept) or jnp.iscomplexobj(seen.turned)

    # One measurement after the other: all measurements of 16 atoms for every voxel would not fit the cache.
    def add_measurement(i, sums):
        step = at(some.kept, i) - seen.near.kept[:, i, None]
        if some.rest is not None and seen.near.rest is not None:
            step += at(some.rest, i) - seen.near.rest[:, i, None]
        x = (step.conj() * (2 * seen.away[:, i, None] - step)).real
        y = (step.conj() * seen.turned[:, i, None]).imag if complex_valued else 0.0
        return sums[0] + x, sums[1] + y

    nothing = jnp.zeros((seen.overlap.size, n_atoms), seen.overlap.dtype)
    x, y = jax.lax.fori_loop(0, seen.away.shape[1], add_measurement, (nothing, nothing), unroll=_UNROLL)
    return gain_from(0.5 * x, y, seen.overlap[:, None])


def _better(atoms: Atoms, signals: Signals, a: Int[Array, " voxel"], b: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
    """The better of two rows, with all that is known of atoms and signals; of equals the lower."""

    of_a, of_b = atoms_of(atoms, a), atoms_of(atoms, b)
    phase, overlap = alignment(signals.kept, of_a.kept)
    turned = jax.tree.map(lambda part: part * phase[:, None], signals)
    step = difference(of_b, of_a)
    across = step.conj() * (difference(turned, of_a) + difference(turned, of_b))
    x = 0.5 * sum_of_measurements(across.real.T)
    y = sum_of_measurements((step.conj() * turned.kept).imag.T) if jnp.iscomplexobj(step) else 0.0
    gain = gain_from(x, y, overlap)
    return jnp.where((gain > 0) | ((gain == 0) & (b < a)), b, a)


# --- whoever else could be the best -----------------------------------------------------------------------------------


def _examine(atoms: Atoms, signals: Signals, best: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
    """The best atom of all chunks that may hold a better one than the best row so far."""
    view = _view(atoms, signals, best[best.shape[0] // 2])
    visits, n_visits = _worth_a_visit(atoms, view, _least_gain(atoms, view, best))
    size = blocks_per_chunk(atoms) * BLOCK
    stored = Signals(atoms.kept, atoms.rest)

    def examine_chunk(i: Int[Array, ""], best: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
        first_row = visits[i] * size
        chunk = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first_row, size), stored)
        middle = jnp.broadcast_to(atoms.centre_rows[visits[i]], best.shape)
        gains = _gains_over(_seen_from(atoms, signals, middle), lambda leaf, i: leaf[None, :, i], chunk, size)
        rows = first_row + jnp.stack(_with_rows(_nobody(2, signals.kept), gains.T).rows)
        return jax.lax.fori_loop(0, 2, lambda j, best: _better(atoms, signals, best, rows[j]), best)

    return jax.lax.fori_loop(0, n_visits, examine_chunk, best)


_barrier = jax.lax.optimization_barrier  # keeps XLA from computing a value again in each of its uses
