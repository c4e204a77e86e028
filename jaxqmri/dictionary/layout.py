"""A dictionary laid out for the search: chunks of atoms that are alike, each with a ball around it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from ..batching.context import on_cpu
from .vectors import Signals, difference, length_of, matmul, square_of, turned_towards

BLOCK = 16  # atoms; as many as fit a vector register
_CHUNK = 64  # blocks of which products exist at once on an accelerator
_CHUNK_ON_CPU = 4  # and on a CPU: passing over small chunks spares more than large products gain
_FEW_BLOCKS = 64  # so few that on a CPU each may be a chunk of its own


class Blocks(eqx.Module):
    """Every 16 neighbouring atoms d as their differences from the one in their middle, c.

    Attributes:
        steps: d - c, neighbouring atoms last.
        half_squares: |d - c|^2 / 2.
        across: Im<d - c, c>, or None: atoms are real.
        radii: largest |d - c|.
    """

    steps: Inexact[Array, "block n 16"]
    half_squares: Float[Array, "block 16"]
    across: Float[Array, "block 16"] | None
    radii: Float[Array, " block"]


class Atoms(eqx.Module):
    """A dictionary laid out for the search. Zero atoms and padding are copies of their usable neighbours.

    Attributes:
        kept, rest: unit-norm atoms as a sum, see `Signals`.
        blocks: the same in 16s.
        index: place of each row in the dictionary.
        centres: an atom in the middle of each chunk.
        centre_rows: which rows these are.
        radii: distance of the farthest atom of a chunk from its centre, both turned to the same phase.
    """

    kept: Inexact[Array, "atom n"]
    rest: Inexact[Array, "atom n"] | None
    blocks: Blocks
    index: Int[Array, " atom"]
    centres: Signals
    centre_rows: Int[Array, " chunk"]
    radii: Float[Array, " chunk"]


@jax.jit
def lay_out(
    kept: Inexact[Array, "atom n"],
    rest: Inexact[Array, "atom n"] | None,
    norms: Float[Array, " atom"],
    order: Int[Array, " atom"] | None = None,
) -> Atoms:
    """The layout for `best_atoms`; atoms of norm 0 can never be found.

    Args:
        kept, rest: unit-norm atoms as a sum; `rest` None: nothing is known of what was cut off.
        norms: only whether they are positive matters.
        order: in which the atoms are laid out, those that are alike together; None: as they come. Only how many chunks
            can be passed over depends on it.
    """
    n_atoms, n = kept.shape
    per_chunk = _blocks_at_once(-(-n_atoms // BLOCK)) * BLOCK
    rows = jnp.arange(-(-n_atoms // per_chunk) * per_chunk)
    # Backwards from the end: one atom many times over would have no runner-up.
    rows = jnp.where(rows < n_atoms, rows, jnp.maximum(2 * n_atoms - 1 - rows, 0))
    order = jnp.arange(n_atoms) if order is None else order
    usable = norms[order] > 0
    before = jax.lax.cummax(jnp.where(usable, jnp.arange(n_atoms), -1))
    stand_in = jnp.where(before < 0, jnp.argmax(usable), before)
    index = order[stand_in[rows]]
    atoms = Signals(kept[index], None if rest is None else rest[index])
    places, radii = jax.vmap(_ball)(atoms.kept.reshape(-1, per_chunk, n))
    centre_rows = jnp.arange(0, len(rows), per_chunk) + places
    centres = jax.tree.map(lambda part: part[centre_rows], atoms)
    return Atoms(atoms.kept, atoms.rest, _blocks(atoms), index, centres, centre_rows, radii)


def _blocks_at_once(n_blocks: int) -> int:
    if not on_cpu():
        return min(_CHUNK, n_blocks)
    return 1 if n_blocks <= _FEW_BLOCKS else _CHUNK_ON_CPU


def _ball(atoms: Inexact[Array, "atom n"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Which of some atoms is in their middle, and how far the farthest is from it."""
    alike = turned_towards(Signals(atoms, None), atoms[:1])[0].kept
    place = jnp.argmax(jnp.abs(matmul(atoms.conj(), jnp.sum(alike, axis=0)[:, None])[:, 0]))
    centre = atoms[place]
    turned = turned_towards(Signals(atoms, None), centre[None])[0].kept
    return place, jnp.max(length_of(turned - centre))


def _blocks(atoms: Signals) -> Blocks:
    middle = jax.tree.map(lambda part: jnp.repeat(part[BLOCK // 2 :: BLOCK], BLOCK, axis=0), atoms)
    steps = difference(atoms, middle)
    by_block = (-1, BLOCK)
    across = jnp.sum((steps.conj() * middle.kept).imag, axis=1).reshape(by_block) if jnp.iscomplexobj(steps) else None
    half_squares = (square_of(steps) / 2).reshape(by_block)
    radii = jnp.sqrt(2 * jnp.max(half_squares, axis=1))
    return Blocks(steps.reshape(*by_block, steps.shape[1]).swapaxes(1, 2), half_squares, across, radii)


def middle_of_block(block: Int[Array, " voxel"]) -> Int[Array, " voxel"]:
    """Its row."""
    return block * BLOCK + BLOCK // 2


def atoms_of(atoms: Atoms, index: Int[Array, " voxel"]) -> Signals:
    rest = None if atoms.rest is None else atoms.rest.at[index].get(mode="promise_in_bounds")
    return Signals(atoms.kept.at[index].get(mode="promise_in_bounds"), rest)


def blocks_per_chunk(atoms: Atoms) -> int:
    return atoms.kept.shape[0] // atoms.radii.size // BLOCK
