"""Dictionaries: the signals of many tissues, simulated once.

A dictionary holds simulated signals (atoms) of norm 1. A measured signal s is matched to the atom d with the largest
|<d, s>|; the atom's parameters are the answer, and <d, s> over the norm that the atom had is the magnetisation.
Source: Ma et al., Nature 495:187 (2013); Ben-Eliezer et al., Magn Reson Med 73:809 (2015) for T2 from spin-echo trains.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact

from ..batching.context import computed_at_once, double_precision
from ..estimation.constraints import check_range
from ..models.base import Params, SignalModel, as_numbers, float_dtype, in_short, simulate
from .double_float import split


class Dictionary(eqx.Module):
    """Simulated signals with the parameters they were simulated for; see `make_dictionary`.

    Attributes:
        atoms: signals of norm 1, in the temporal basis where there is one; 0 where the model gave nothing to match.
        norms: their norms for an amplitude of 1 (in the basis); 0 where there is nothing to match.
        params: the model's NamedTuple, every leaf (atom,).
        basis: orthonormal temporal basis, or None: `atoms` are measurements.
        rest: what storage in this precision cut off `atoms`, or None: not known.
        model: what simulated them.
        varying: names of the parameters that are not the same for all atoms.
    """

    atoms: Inexact[Array, "atom k"]
    norms: Float[Array, " atom"]
    params: Params
    basis: Inexact[Array, "n k"] | None
    rest: Inexact[Array, "atom k"] | None
    model: SignalModel
    varying: tuple[str, ...] = eqx.field(static=True)


def make_dictionary(
    model: SignalModel, params: Params, *, rank: int | None = None, energy: float | None = None
) -> Dictionary:
    """Simulates the atoms of a dictionary, in float64 whatever precision they are stored in.

    In float32 neighbouring atoms differ by little more than the rounding of their norms, which would favour some of
    them; so atoms and norms are computed in float64, and what float32 storage cuts off is kept beside. Under `jax.jit`
    or `jax.grad` of the parameters they are computed in the precision of these.

    Args:
        model: the signal model; holds the protocol.
        params: the model's NamedTuple; leaves broadcast to (atom,), see `grid`. The amplitude does not matter.
        rank: compress the atoms to so many temporal singular vectors (McGivney et al., IEEE Trans Med Imaging 33:2311
            (2014)); None: not at all.
        energy: or to as many as hold this share of the atoms' energy, e.g. 0.9999.

    Returns:
        The dictionary, stored in the precision of `params` (float32 unless they are 64-bit JAX arrays).

    Raises:
        ValueError: `params` are not the model's, do not broadcast to one axis or hold times that cannot be seconds; no
            atom has a signal; rank or energy out of range, both given, or given for traced parameters.
    """
    if not isinstance(model, SignalModel):
        raise ValueError(f"model is {in_short(model)}, wanted a signal model such as jq.FSE(angles, spacing).")
    if not isinstance(params, model.parameters):
        raise ValueError(f"params is {in_short(params)}, wanted a {model.parameters.__name__}, e.g. from jq.grid.")
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, params)))
    _check_compression(model, rank, energy, traced)
    shape = np.broadcast_shapes(*(np.shape(leaf) for leaf in params))
    if len(shape) > 1 or 0 in shape:
        raise ValueError(f"params have shape {shape}; a dictionary is one list of atoms, ravel them.")
    if model.amplitude is None:
        raise ValueError(f"{type(model).__name__} has no amplitude; atoms match signals up to that factor alone.")
    params = params._replace(**{model.amplitude: 1.0})
    for name, values in params._asdict().items():
        check_range(name, values)
    dtype = float_dtype(*(as_numbers(leaf, name, "numbers") for name, leaf in params._asdict().items()))
    if traced:
        stored = type(params)(*(jnp.broadcast_to(jnp.asarray(leaf, dtype), shape or (1,)) for leaf in params))
        atoms, norms = _unit_norm(jnp, simulate(model, stored))
        varying = tuple(name for name in params._fields if np.ndim(getattr(params, name)))
        return Dictionary(atoms, norms, stored, None, None, model, varying)
    with computed_at_once():
        return _concrete(model, params, shape or (1,), dtype, rank, energy)


def _check_compression(model: SignalModel, rank: int | None, energy: float | None, traced: bool) -> None:
    n = model.n_measurements
    if rank is not None and energy is not None:
        raise ValueError("give rank or energy, not both.")
    if rank is not None and not 1 <= rank <= n:
        raise ValueError(f"rank must be 1 ... {n}, the number of measurements, got {rank}.")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy is a share between 0 and 1, got {energy}.")
    if traced and not (rank is None and energy is None):
        raise ValueError("atoms of traced parameters cannot be compressed; leave out rank and energy.")


def _concrete(
    model: SignalModel, params: Params, shape: tuple[int, ...], dtype: Any, rank: int | None, energy: float | None
) -> Dictionary:
    exact = type(params)(*(np.broadcast_to(np.asarray(leaf, np.float64), shape) for leaf in params))
    with double_precision():
        atoms, norms = _unit_norm(np, np.asarray(simulate(jax.tree.map(_as_written, model), exact)))
    if not norms.any():
        raise ValueError("no atom has a finite, nonzero signal; look at params, which are in SI units.")
    values = [np.broadcast_to(np.asarray(leaf), shape).astype(dtype) for leaf in params]
    varying = tuple(name for name, v in zip(params._fields, values, strict=True) if np.unique(v).size > 1)
    basis = _basis(atoms, rank, energy)
    if basis is not None:
        atoms, in_basis = _unit_norm(np, atoms @ basis.conj())
        norms = norms * in_basis
    atoms, rest = split(atoms, dtype)
    basis = None if basis is None else jnp.asarray(basis, atoms.dtype)
    stored = type(params)(*map(jnp.asarray, values))
    return Dictionary(atoms, jnp.asarray(norms, dtype), stored, basis, rest, model, varying)


def _as_written(leaf: Any) -> Any:
    """Protocol numbers in float64. An echo spacing of 0.005 is 0.004999999888 in float32: take what was written."""
    if not (eqx.is_array(leaf) and leaf.dtype == jnp.float32):
        return leaf
    return jnp.asarray(np.asarray(leaf).astype(str).astype(np.float64))


def _unit_norm(xp: Any, signals: Any) -> tuple[Any, Any]:
    """Signals over their norms, and the norms; both 0 where there is nothing, or nothing finite, to divide."""
    norms = xp.sqrt(xp.sum(xp.abs(signals) ** 2, axis=-1))
    usable = xp.isfinite(norms) & (norms > 0)
    safe = xp.where(usable, norms, 1.0)
    return xp.where(usable[:, None], signals / safe[:, None], 0.0), xp.where(usable, norms, 0.0)


def _basis(atoms: np.ndarray, rank: int | None, energy: float | None) -> np.ndarray | None:
    """Leading right singular vectors of the atoms, (n, rank)."""
    if rank is None and energy is None:
        return None
    # Of the n x n matrix of products, since atoms are many.
    values, vectors = np.linalg.eigh(atoms.T @ atoms.conj())
    if energy is not None:
        held = np.cumsum(values[::-1]) / np.sum(values)
        rank = min(1 + int(np.searchsorted(held, energy)), values.size)
    return vectors[:, ::-1][:, :rank]
