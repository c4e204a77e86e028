"""The atoms of a dictionary laid out for the search: chunks of similar atoms, each with a ball around it."""

import weakref
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, Int

from ..batching.context import computed_at_once, mixed_ranks, on_cpu
from .double_float import DoubleFloat, aligned_with, difference, imaginary_product, length_of, matmul, split, square_of

BLOCK = 16  # atoms; as many as fit a vector register
_CHUNK = 64  # blocks of which products exist at once on an accelerator
_CHUNK_ON_CPU = 4  # and on a CPU: pruning small chunks spares more than large products gain
_LEAF = 64  # atoms in one leaf of the tree
_FEW_BLOCKS = 64  # so few that on a CPU each may be a chunk of its own


class Blocks(eqx.Module):
    """Every 16 neighbouring atoms d as their differences from the one in their middle, c."""

    steps: Inexact[Array, "block n 16"]  # d - c
    half_squares: Float[Array, "block 16"]  # |d - c|^2 / 2
    imaginary: Float[Array, "block 16"] | None  # Im<d - c, c>, or None: atoms are real
    radii: Float[Array, " block"]  # largest |d - c|


class Atoms(eqx.Module):
    """A dictionary laid out for the search. Zero atoms and padding are copies of their usable neighbours."""

    vectors: DoubleFloat  # of norm 1
    blocks: Blocks  # the same in 16s
    index: Int[Array, " atom"]  # place of each row in the dictionary
    centres: DoubleFloat  # an atom in the middle of each chunk
    centre_rows: Int[Array, " chunk"]
    radii: Float[Array, " chunk"]  # distance of the farthest atom of a chunk from its centre, both with the same phase

    @property
    def blocks_per_chunk(self) -> int:
        return self.index.size // self.radii.size // BLOCK

    def rows(self, rows: Int[Array, " voxel"]) -> DoubleFloat:
        return jax.tree.map(lambda part: part.at[rows].get(mode="promise_in_bounds"), self.vectors)

    def middles(self, blocks: Int[Array, " voxel"]) -> DoubleFloat:
        return self.rows(blocks * BLOCK + BLOCK // 2)


_layouts: dict[tuple[int, ...], Atoms] = {}  # by the identity of the arrays that they were made from


def layout_of(
    atoms: Inexact[Array, "atom n"],
    rest: Inexact[Array, "atom n"] | None,
    norms: Float[Array, " atom"],
    magnitudes: bool = False,
) -> Atoms:
    """The layout of the atoms of a dictionary, or of their magnitudes: made once, and kept while its arrays exist.

    Within a program that has them for arguments, it is part of the program, and the atoms stay in their order.
    """
    arrays = [array for array in (atoms, rest, norms) if array is not None]
    if any(isinstance(array, Tracer) for array in arrays):
        with mixed_ranks():
            return lay_out(DoubleFloat(jnp.abs(atoms), None) if magnitudes else DoubleFloat(atoms, rest), norms)
    key = (*map(id, arrays), magnitudes)
    if key not in _layouts:
        with computed_at_once(), mixed_ranks():
            exact = np.asarray(atoms, np.result_type(atoms.dtype, np.float64))
            exact = exact if rest is None else exact + np.asarray(_low_part(atoms, rest))
            exact = np.abs(exact) if magnitudes else exact
            vectors = split(exact, norms.dtype) if magnitudes else DoubleFloat(atoms, rest)
            _layouts[key] = lay_out(vectors, norms, jnp.asarray(neighbours_together(exact), jnp.int32))
        for array in arrays:
            weakref.finalize(array, _layouts.pop, key, None)
    return _layouts[key]


def _low_part(high: Inexact[Array, "atom n"], low: Inexact[Array, "atom n"]) -> Inexact[Array, "atom n"]:
    """`low`, but 0 where it is more than the rounding of `high`: there `high` was replaced since."""
    return jnp.where(jnp.abs(low) <= float(jnp.finfo(high.dtype).eps) * jnp.abs(high), low, 0)


@jax.jit
def lay_out(vectors: DoubleFloat, norms: Float[Array, " atom"], order: Int[Array, " atom"] | None = None) -> Atoms:
    """The layout for `best_atoms` of vectors of norm 1; those that are 0 or had a norm of 0 can never be found.

    Only how many chunks can be pruned depends on their `order`, similar ones together; None: as they come.
    """
    high, low = vectors
    n_atoms, n = high.shape
    n_blocks = -(-n_atoms // BLOCK)
    on_a_cpu = 1 if n_blocks <= _FEW_BLOCKS else _CHUNK_ON_CPU
    per_chunk = BLOCK * (on_a_cpu if on_cpu() else min(_CHUNK, n_blocks))
    rows = jnp.arange(-(-n_atoms // per_chunk) * per_chunk)
    # Padded backwards from the end: if one atom were repeated, the second best would be itself.
    rows = jnp.where(rows < n_atoms, rows, jnp.maximum(2 * n_atoms - 1 - rows, 0))
    order = jnp.arange(n_atoms) if order is None else order
    usable = (norms[order] > 0) & jnp.any(high != 0, axis=1)[order]
    before = jax.lax.cummax(jnp.where(usable, jnp.arange(n_atoms), -1))
    substitute = jnp.where(before < 0, jnp.argmax(usable), before)
    index = order[substitute[rows]]
    atoms = DoubleFloat(high[index], None if low is None else _low_part(high, low)[index])
    places, radii = jax.vmap(_ball)(atoms.high.reshape(-1, per_chunk, n))
    centre_rows = jnp.arange(0, len(rows), per_chunk) + places
    centres = jax.tree.map(lambda part: part[centre_rows], atoms)
    return Atoms(atoms, _blocks(atoms), index, centres, centre_rows, radii)


def _ball(atoms: Inexact[Array, "atom n"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Which of some atoms is in their middle, and how far the farthest is from it."""
    vectors = DoubleFloat(atoms, None)
    aligned = aligned_with(vectors, atoms[:1])[0].high
    place = jnp.argmax(jnp.abs(matmul(atoms.conj(), jnp.sum(aligned, axis=0)[:, None])[:, 0]))
    centre = atoms[place]
    return place, jnp.max(length_of(aligned_with(vectors, centre[None])[0].high - centre))


def _blocks(atoms: DoubleFloat) -> Blocks:
    middle = jax.tree.map(lambda part: jnp.repeat(part[BLOCK // 2 :: BLOCK], BLOCK, axis=0), atoms)
    steps = difference(atoms, middle)
    by_block = (-1, BLOCK)
    imaginary = imaginary_product(steps, middle.high).reshape(by_block) if jnp.iscomplexobj(steps) else None
    half_squares = (square_of(steps) / 2).reshape(by_block)
    radii = jnp.sqrt(2 * jnp.max(half_squares, axis=1))
    return Blocks(steps.reshape(*by_block, steps.shape[1]).swapaxes(1, 2), half_squares, imaginary, radii)


def neighbours_together(atoms: Any) -> np.ndarray:
    """Order of the atoms in which each run of 64 is a small region of signals (a k-d tree).

    Source: Bentley, Commun ACM 18:509 (1975), split at the median across the widest of the principal axes.
    """
    real = np.concatenate([atoms.real, atoms.imag], axis=1) if np.iscomplexobj(atoms) else atoms
    centred = real - real.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    places = centred @ axes[:, -8:]
    order = np.arange(len(atoms))
    todo = [(0, len(atoms))]
    while todo:
        start, stop = todo.pop()
        n_leaves = -(-(stop - start) // _LEAF)
        if n_leaves < 2:
            continue
        some = order[start:stop]
        here = places[some]
        widest = np.argmax(np.var(here, axis=0))
        order[start:stop] = some[np.argsort(here[:, widest], kind="stable")]
        middle = start + n_leaves // 2 * _LEAF
        todo += [(start, middle), (middle, stop)]
    return order
