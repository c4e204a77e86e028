"""A dictionary laid out for the search: chunks of atoms that are alike, each with a ball around it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from ..models.context import on_cpu
from .vectors import Signals, length_of, matmul, rough_alignment

BLOCK = 16  # atoms; as many as fit a vector register
_CHUNK = 64  # blocks of which products exist at once on an accelerator
_CHUNK_ON_CPU = 4  # and on a CPU: passing over small chunks spares more than large products gain


class Atoms(eqx.Module):
    """A dictionary laid out for the search. Zero atoms and padding are copies of their usable neighbours.

    Attributes:
        kept, rest: unit-norm atoms as a sum, see `Signals`.
        blocks, rest_of_blocks: the same, neighbouring atoms last.
        index: place of each row in the dictionary.
        centres: an atom in the middle of each chunk.
        centre_rows: which rows these are.
        radii: distance of the farthest atom of a chunk from its centre, both turned to the same phase.
    """

    kept: Inexact[Array, "atom n"]
    rest: Inexact[Array, "atom n"] | None
    blocks: Inexact[Array, "block n 16"]
    rest_of_blocks: Inexact[Array, "block n 16"] | None
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
    per_chunk = min(_CHUNK_ON_CPU if on_cpu() else _CHUNK, -(-n_atoms // BLOCK)) * BLOCK
    rows = jnp.arange(-(-n_atoms // per_chunk) * per_chunk)
    order = jnp.arange(n_atoms) if order is None else order
    usable = norms[order] > 0
    before = jax.lax.cummax(jnp.where(usable, jnp.arange(n_atoms), -1))
    stand_in = jnp.where(before < 0, jnp.argmax(usable), before)
    index = order[stand_in[jnp.minimum(rows, n_atoms - 1)]]
    padded = kept[index]
    places, radii = jax.vmap(_ball)(padded.reshape(-1, per_chunk, n))
    centre_rows = jnp.arange(0, len(rows), per_chunk) + places
    rest = None if rest is None else rest[index]
    centres = Signals(padded[centre_rows], None if rest is None else rest[centre_rows])
    blocks, rest_of_blocks = jax.tree.map(lambda x: x.reshape(-1, BLOCK, n).swapaxes(1, 2), (padded, rest))
    return Atoms(padded, rest, blocks, rest_of_blocks, index, centres, centre_rows, radii)


def _ball(atoms: Inexact[Array, "atom n"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Which of some atoms is in their middle, and how far the farthest is from it."""
    towards_first = rough_alignment(atoms, atoms[:1])[0]
    place = jnp.argmax(jnp.abs(matmul(atoms.conj(), jnp.sum(atoms * towards_first[:, None], axis=0)[:, None])[:, 0]))
    centre = atoms[place]
    turned = atoms * rough_alignment(atoms, centre[None])[0][:, None]
    return place, jnp.max(length_of(turned - centre))


def atoms_of(atoms: Atoms, index: Int[Array, " voxel"]) -> Signals:
    rest = None if atoms.rest is None else atoms.rest.at[index].get(mode="promise_in_bounds")
    return Signals(atoms.kept.at[index].get(mode="promise_in_bounds"), rest)


def blocks_per_chunk(atoms: Atoms) -> int:
    return atoms.kept.shape[0] // atoms.radii.size // BLOCK
