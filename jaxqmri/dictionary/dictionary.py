"""Dictionary matching: simulate many tissues once, then find for every voxel the one it looks like.

A dictionary holds simulated signals (atoms) of norm 1. A measured signal s is matched to the atom d with the largest
|<d, s>|; the atom's parameters are the answer, and <d, s> over the norm that the atom had is the magnetisation.
Source: Ma et al., Nature 495:187 (2013); Ben-Eliezer et al., Magn Reson Med 73:809 (2015) for T2 from spin-echo trains.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact, Int, Num

from ..batching.batches import for_every_processor, in_batches
from ..batching.context import computed_at_once, double_precision
from ..estimation.fit import fit
from ..models.base import Numbers, Params, SignalModel, float_dtype, simulate, sum_of_measurements
from ..quantities import Status
from .layout import Atoms, lay_out
from .neighbours import neighbours_together
from .search import best_atoms
from .vectors import largest_of, norm_of, normalised, times_power_of_2

_LEAST_BATCH = 4096  # voxels; fewer are hardly alike, and search more of a large dictionary


class Dictionary(eqx.Module):
    """Simulated signals with the parameters they were simulated for; see `make_dictionary`.

    Attributes:
        atoms: signals of norm 1, in the temporal basis where there is one; 0 where the model gave nothing to match.
        norms: their norms for an amplitude of 1 (in the basis); 0 where there is nothing to match.
        params: the model's NamedTuple, every leaf (atom,).
        basis: orthonormal temporal basis, or None: `atoms` are measurements.
        rest: what storage in this precision cut off `atoms`, or None: not known.
        layout: the same atoms as the search wants them, or None: laid out anew at each match.
        model: what simulated them.
        varying: names of the parameters that are not the same for all atoms.
    """

    atoms: Inexact[Array, "atom k"]
    norms: Float[Array, " atom"]
    params: Params
    basis: Inexact[Array, "n k"] | None
    rest: Inexact[Array, "atom k"] | None
    layout: Atoms | None
    model: SignalModel
    varying: tuple[str, ...] = eqx.field(static=True)


class MatchResult(NamedTuple):
    """Maps of a match, each with the leading shape of the signal; NaN (index -1) where `status` is not OK.

    Attributes:
        params: the model's NamedTuple; its amplitude is `m0`.
        m0: amplitude that turns the atom into the signal [units of the signal]; complex if signal or atoms are.
        correlation: |<d, s>| / (|d| |s|), 1 for a perfect match.
        index: the atom.
        status: `Status` codes.
    """

    params: Params
    m0: Inexact[Array, "*voxel"]
    correlation: Float[Array, "*voxel"]
    index: Int[Array, "*voxel"]
    status: Int[Array, "*voxel"]


def grid(parameters: type, **values: Numbers) -> Params:
    """All combinations of parameter values, for `make_dictionary`; the last one named varies fastest.

    Args:
        parameters: a NamedTuple of tissue parameters such as `Tissue`.
        values: a number or (value,) numbers for each field [SI]; fields not named keep their default.

    Returns:
        `parameters` with leaves (atom,), one entry per combination.

    Raises:
        ValueError: a name that is no field, a field without value or default, values that are not a list of numbers.
    """
    fields: tuple[str, ...] = getattr(parameters, "_fields", ())
    defaults: dict[str, float] = getattr(parameters, "_field_defaults", {})
    if not fields:
        raise ValueError(f"parameters is {parameters!r}, wanted a NamedTuple such as jq.Tissue.")
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"{parameters.__name__} has no {unknown}; its parameters are {list(fields)}.")
    if missing := [name for name in fields if name not in values and name not in defaults]:
        raise ValueError(f"{parameters.__name__} needs values for {missing}, e.g. {missing[0]}=1.0.")
    # NumPy keeps float64 where JAX would not.
    of_jax = any(isinstance(value, jax.Array) for value in values.values())
    axes = {name: jnp.asarray(v) if of_jax else np.asarray(v) for name, v in values.items()}
    for name, axis in axes.items():
        if axis.ndim > 1 or axis.size == 0:
            raise ValueError(f"{name} needs a number or a list of numbers, got shape {axis.shape}.")
    xp: Any = jnp if of_jax else np
    combined = xp.meshgrid(*(xp.atleast_1d(axis) for axis in axes.values()), indexing="ij") if axes else []
    leaves = {name: leaf.ravel() for name, leaf in zip(axes, combined, strict=True)}
    n_atoms = math.prod(axis.size for axis in axes.values())
    return parameters(**{name: leaves[name] if name in leaves else xp.full(n_atoms, defaults[name]) for name in fields})


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
        ValueError: `params` are not the model's or do not broadcast to one axis, no atom has a signal, rank or energy
            out of range or both given.
    """
    if not isinstance(model, SignalModel):
        raise ValueError(f"model is {model!r}, wanted a signal model such as jq.FSE(flip_angles, echo_spacing).")
    if not isinstance(params, model.parameters):
        raise ValueError(f"params is {params!r}, wanted a {model.parameters.__name__}, e.g. from jq.grid.")
    _check_compression(model, rank, energy)
    shape = np.broadcast_shapes(*(np.shape(leaf) for leaf in params))
    if len(shape) > 1 or 0 in shape:
        raise ValueError(f"params have shape {shape}; a dictionary is one list of atoms, ravel them.")
    if model.amplitude is None:
        raise ValueError(f"{type(model).__name__} has no amplitude; atoms match signals up to that factor alone.")
    params = params._replace(**{model.amplitude: 1.0})
    dtype = float_dtype(*(jnp.asarray(leaf) for leaf in params))
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, params))):
        if rank is not None or energy is not None:
            raise ValueError("a dictionary of traced parameters cannot be compressed; leave out rank and energy.")
        stored = type(params)(*(jnp.broadcast_to(jnp.asarray(leaf, dtype), shape or (1,)) for leaf in params))
        atoms, norms = _unit_norm(jnp, simulate(model, stored))
        varying = tuple(name for name in params._fields if np.ndim(getattr(params, name)))
        return Dictionary(atoms, norms, stored, None, None, None, model, varying)
    with computed_at_once():
        return _concrete_dictionary(model, params, shape or (1,), dtype, rank, energy)


def match(
    dictionary: Dictionary,
    signal: Num[ArrayLike, "*voxel n"],
    *,
    refine: bool = False,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> MatchResult:
    """Finds the atom that each voxel looks most like: the one with the largest |<d, s>|, of equals the first.

    The index is that of a search in float64 (with noise to within the rounding of the residual, which no map shows, see
    `jaxqmri.estimation.search`). Real signals are matched to the magnitudes of complex atoms; complex signals as they
    are, so that `m0` has the phase of the image.

    Args:
        dictionary: from `make_dictionary`; its precision is that of the match.
        signal: measurements on the LAST axis, in protocol order; any leading shape [a.u.].
        refine: leave the grid: the least-squares answer by `fit` of the model, started from the matched atom, for the
            parameters that vary between atoms. Without it the answer is the grid's.
        batch_size: voxels matched at once; None: 32768, on a CPU down to 4096 so that every processor has some. Changes
            memory and speed, never the result. Atoms are always taken in chunks.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps with the leading shape of `signal`. A voxel that is not finite or all zero, or whose refinement has no
        answer, is NaN in every map and says why in `status`; it never affects its neighbours.

    Raises:
        ValueError: not a dictionary, the last axis does not match its protocol, `batch_size` is below 1, or fewer
            measurements than parameters to be refined.
    """
    if not isinstance(dictionary, Dictionary):
        raise ValueError(f"dictionary is {dictionary!r}, wanted one from jq.make_dictionary.")
    signal, n = jnp.asarray(signal), dictionary.model.n_measurements
    if signal.ndim < 1 or signal.shape[-1] != n:
        raise ValueError(
            f"signal has {signal.shape[-1] if signal.ndim else 0} measurements on its last axis (shape "
            f"{signal.shape}), but the dictionary's protocol has {n}. Move the measurement axis last, or check it."
        )
    real = dictionary.norms.dtype
    signal = signal.astype(np.result_type(real, np.complex64) if jnp.iscomplexobj(signal) else real)
    if not jnp.iscomplexobj(signal):
        dictionary = _of_magnitudes(dictionary)
    atoms = dictionary.layout
    if atoms is None:
        atoms = lay_out(dictionary.atoms, dictionary.rest, dictionary.norms)
    voxel_shape = signal.shape[:-1]
    signal = signal.reshape(-1, n)
    usual_size = for_every_processor(len(signal), _LEAST_BATCH)
    of_match, of_fit = (None, progress) if refine else (progress, None)
    result = in_batches(_match_batch, (dictionary, atoms), signal, batch_size, of_match, usual_size)
    if refine:
        result = _refined(dictionary, signal, result, batch_size, of_fit)
    return jax.tree.map(lambda leaf: leaf.reshape(voxel_shape), result)


# --- making -----------------------------------------------------------------------------------------------------------


def _check_compression(model: SignalModel, rank: int | None, energy: float | None) -> None:
    n = model.n_measurements
    if rank is not None and energy is not None:
        raise ValueError("give rank or energy, not both.")
    if rank is not None and not 1 <= rank <= n:
        raise ValueError(f"rank must be 1 ... {n}, the number of measurements, got {rank}.")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy is a share between 0 and 1, got {energy}.")


def _concrete_dictionary(
    model: SignalModel, params: Params, shape: tuple[int, ...], dtype: Any, rank: int | None, energy: float | None
) -> Dictionary:
    atoms, norms = _unit_norm(np, _simulated_in_double_precision(model, params, shape))
    if not norms.any():
        raise ValueError("no atom has a finite, nonzero signal; look at params, which are in SI units.")
    values = [np.broadcast_to(np.asarray(leaf), shape).astype(dtype) for leaf in params]
    varying = tuple(name for name, v in zip(params._fields, values, strict=True) if np.unique(v).size > 1)
    basis = _basis(atoms, rank, energy)
    if basis is not None:
        atoms, in_basis = _unit_norm(np, atoms @ basis.conj())
        norms = norms * in_basis
    norms = jnp.asarray(norms, dtype)
    atoms, rest, layout = _laid_out(atoms, norms)
    basis = None if basis is None else jnp.asarray(basis, atoms.dtype)
    return Dictionary(atoms, norms, type(params)(*map(jnp.asarray, values)), basis, rest, layout, model, varying)


def _simulated_in_double_precision(model: SignalModel, params: Params, shape: tuple[int, ...]) -> np.ndarray:
    params = type(params)(*(np.broadcast_to(np.asarray(leaf, np.float64), shape) for leaf in params))
    with double_precision():
        return np.asarray(simulate(jax.tree.map(_as_written, model), params))


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


def _laid_out(exact: np.ndarray, norms: Array) -> tuple[Array, Array | None, Atoms]:
    """Atoms in the precision of their norms, what that cuts off, and both as the search wants them."""
    order = jnp.asarray(neighbours_together(exact), jnp.int32)
    atoms, rest = _stored(exact, norms.dtype)
    return atoms, rest, lay_out(atoms, rest, norms, order)


def _stored(atoms: np.ndarray, dtype: Any) -> tuple[Array, Array | None]:
    """Atoms in storage precision, and what that cuts off."""
    storage = np.result_type(dtype, np.complex64) if np.iscomplexobj(atoms) else np.dtype(dtype)
    kept = atoms.astype(storage)
    if storage == atoms.dtype:
        return jnp.asarray(kept), None
    return jnp.asarray(kept), jnp.asarray((atoms - kept).astype(storage))


# --- matching ---------------------------------------------------------------------------------------------------------


def _of_magnitudes(dictionary: Dictionary) -> Dictionary:
    """What a magnitude image shows of complex atoms."""
    if not jnp.iscomplexobj(dictionary.atoms):
        return dictionary
    if dictionary.basis is not None:
        raise ValueError(
            "signal is real and the dictionary complex and compressed; match complex signals, or rank=None."
        )
    if isinstance(dictionary.atoms, Tracer) or dictionary.rest is None:
        return dataclasses.replace(dictionary, atoms=jnp.abs(dictionary.atoms), layout=None)
    exact = np.abs(np.asarray(dictionary.atoms, np.complex128) + np.asarray(dictionary.rest))
    atoms, rest, layout = _laid_out(exact, dictionary.norms)
    return dataclasses.replace(dictionary, atoms=atoms, rest=rest, layout=layout)


@eqx.filter_jit
def _match_batch(
    dictionary: Dictionary,
    atoms: Atoms,
    signal: Inexact[Array, "voxel n"],
) -> MatchResult:
    largest = largest_of(signal)
    finite, has_signal = jnp.isfinite(largest), largest > 0
    signal = jnp.where((finite & has_signal)[:, None], signal, 1.0)  # no NaN reaches the search
    compressed, matchable = signal, has_signal
    if dictionary.basis is not None:
        compressed = _in_basis(dictionary.basis, signal)
        # A signal at right angles to the whole basis has nothing to be matched by.
        matchable = largest_of(compressed) > 0
        compressed = jnp.where(matchable[:, None], compressed, 1.0)
    signals, scale, norm, exponent = normalised(compressed)
    index = best_atoms(atoms, signals)

    product = sum_of_measurements((dictionary.atoms[index].conj() * signals.kept).T) / scale
    whole = norm if dictionary.basis is None else norm_of(times_power_of_2(signal, -exponent[:, None]))
    m0 = times_power_of_2(product / dictionary.norms[index], exponent)
    correlation = jnp.minimum(jnp.abs(product) / whole, 1.0)
    params = _of_atom(dictionary, index)
    status = jnp.select(
        [~finite, ~has_signal, ~matchable | ~(correlation > 0)],
        [Status.NOT_FINITE, Status.NO_SIGNAL, Status.UNIDENTIFIABLE],
        Status.OK,
    )
    params = params._replace(**{dictionary.model.amplitude: m0})
    return _only_answers(MatchResult(params, m0, correlation, index, status.astype(jnp.int32)))


def _only_answers(result: MatchResult) -> MatchResult:
    """NaN, and index -1, where the status is not OK."""
    ok = result.status == Status.OK
    params, m0, correlation = jax.tree.map(lambda leaf: jnp.where(ok, leaf, jnp.nan), result[:3])
    return MatchResult(params, m0, correlation, jnp.where(ok, result.index, -1), result.status)


def _of_atom(dictionary: Dictionary, index: Int[Array, " voxel"]) -> Params:
    params = dictionary.params
    of_atom = {
        name: leaf[index] if name in dictionary.varying else jnp.broadcast_to(leaf[0], index.shape)
        for name, leaf in params._asdict().items()
    }
    return params._replace(**of_atom)


def _in_basis(basis: Inexact[Array, "n k"], signal: Inexact[Array, "voxel n"]) -> Inexact[Array, "voxel k"]:
    return jnp.matmul(signal, basis.conj(), precision=jax.lax.Precision.HIGHEST)


def _refined(
    dictionary: Dictionary,
    signal: Inexact[Array, "voxel n"],
    matched: MatchResult,
    batch_size: int | None,
    progress: Callable[[int], None] | None,
) -> MatchResult:
    """The least-squares answer from the matched atom on."""
    model = dictionary.model
    start = jax.tree.map(lambda leaf: jnp.where(matched.status == Status.OK, leaf, 1.0), matched.params)
    free = {model.amplitude, *dictionary.varying} - set(model.ignored)
    known = {name: None if name in free else getattr(start, name) for name in start._fields}
    # Atoms match real signals of either sign; the amplitude of their fit is positive.
    turned = not jnp.iscomplexobj(matched.m0) and matched.m0 < 0
    sign = jnp.where(turned, -1, 1).astype(signal.dtype)
    fitted = fit(model, sign[..., None] * signal, known=known, init=start, batch_size=batch_size, progress=progress)
    m0 = sign * getattr(fitted.params, model.amplitude)
    # In units of the largest measurement, whose square does not overflow.
    largest = jnp.max(jnp.abs(signal), axis=-1)
    energy = jnp.mean(jnp.abs(signal / largest[:, None]) ** 2, axis=-1)
    correlation = jnp.sqrt(jnp.clip(1 - (fitted.residual / largest) ** 2 / energy, 0, 1))
    status = jnp.where(matched.status == Status.OK, fitted.status, matched.status)
    params = fitted.params._replace(**{model.amplitude: m0})
    return _only_answers(MatchResult(params, m0, correlation, matched.index, status))
