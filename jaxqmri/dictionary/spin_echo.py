"""T2 and B1 of a multi-echo spin echo: matched in a dictionary of its trains, then refined off the grid."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from ..batching.batches import in_batches
from ..estimation.fit import FitResult, fit
from ..estimation.noise import Gaussian
from ..estimation.solvers.base import Stay
from ..models.base import SignalModel, with_dtype
from ..models.fse import FSE
from ..models.tissue import Tissue
from ..quantities import Status
from .dictionary import MatchResult, grid, make_dictionary, match
from .refinement import refine

# Numbers of atoms, whatever the protocol, so that one program searches them all: steps of 2.4 to 3.3 % in T2 for trains
# of 6 to 32 echoes, of 0.02 to 0.035 in B1.
N_T2, N_B1 = 256, 32
LOWEST_B1 = 0.4  # below it so little is refocused that hardly any signal is left
HIGHEST_B1 = 1.5
B1_RANGE = (0.1, 2.0)  # of a B1 that is given: what `FSE.limits` allows
REACH, ROUNDS = 3, 3  # atoms that one round of refinement may go, and rounds
GROUP = 0.01  # voxels whose given B1 is the same when rounded to this are matched together
GROUP_BATCH = 2048  # voxels; groups of any size are padded to a multiple of it, so that one program serves them all


def match_spin_echo(
    model: FSE,
    signal: Float[Array, "voxel n"],
    *,
    t1: ArrayLike = 1.0,
    b1: ArrayLike | None = None,
    of_dictionary: float | None = None,
    noise: Gaussian | None = None,
    progress: Callable[[int], None] | None = None,
) -> FitResult:
    """T2, M0 and, unless it is given, B1 of every voxel by least squares: a dictionary match, refined off its grid.

    T2 runs in equal ratios, of 2 to 3 %, from a quarter of the first echo time to 20 times the last; at either end the
    voxel is AT_BOUND. B1 runs in equal steps, of 0.02 to 0.035, from 0.4 (AT_BOUND) to where refocusing is perfect, 180
    degrees, at most 1.5. A pulse of 180 + x degrees refocuses as one of 180 - x does, so that of two such B1 no train
    tells which it was; the lower one is given, with the same T2, and with the M0 that belongs to its excitation. B1 at
    its upper end, perfect refocusing, is an answer like any other. A voxel whose answer lies many atoms away from its
    match, as may be with two or three echoes and B1 far off, is NOT_CONVERGED.

    Args:
        model: the train; its refocusing angles are all the same.
        signal: magnitudes [a.u.].
        t1: a number or (voxel,) [s].
        b1: true / nominal flip angle, a number or (voxel,); voxels outside 0.1 ... 2 are NOT_FINITE. None: estimated.
        of_dictionary: the one T1 of all trains of the dictionary [s]; None: that of these voxels by `typical_t1`.
        noise: what is known of the noise; None: its level is taken from the residuals.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps (voxel,) as those of `fit`.
    """
    t1 = jnp.asarray(t1, signal.dtype)
    t1 = jnp.where(t1 > 0, t1, jnp.nan)
    of_dictionary = typical_t1(t1) if of_dictionary is None else of_dictionary
    if b1 is None:
        found = _match_with_b1(model, signal, of_dictionary, progress)
        known, free = {"t1": t1}, ("t2", "b1")
    else:
        b1 = jnp.broadcast_to(jnp.asarray(b1, signal.dtype), signal.shape[:1])
        b1 = within_range(b1)
        found = _match_by_groups(model, signal, of_dictionary, b1, progress)
        known, free = {"t1": t1, "b1": b1}, ("t2",)
    before = params = found.params._replace(**known)
    for _ in range(ROUNDS):
        before, params = params, _refined(model, params, signal, free)
    moving = _moved_as_far_as_allowed(model, before, params)
    return _with_error_bars(model, signal, params, found.status, moving, known, noise)


def typical_t1(t1: ArrayLike) -> float:
    """The median of those above 0 [s], or 1 s where there is none."""
    t1 = jnp.asarray(t1)
    return float(jnp.nan_to_num(jnp.nanmedian(jnp.where(t1 > 0, t1, jnp.nan)), nan=1.0))


def within_range(b1: ArrayLike) -> Array:
    """A given B1, with NaN where it cannot be one."""
    b1 = jnp.asarray(b1)
    return jnp.where((b1 >= B1_RANGE[0]) & (b1 <= B1_RANGE[1]), b1, jnp.nan)


def _t2_grid(model: FSE) -> np.ndarray:
    te = np.asarray(model.echo_times, np.float64)
    return np.geomspace(te[0] / 4, 20 * te[-1], N_T2)


def _b1_grid(model: FSE) -> tuple[np.ndarray, bool]:
    """B1, and whether refocusing is perfect at its upper end."""
    perfect = np.pi / float(np.max(model.flip_angles))
    return np.linspace(LOWEST_B1, min(perfect, HIGHEST_B1), N_B1), perfect < HIGHEST_B1 * (1 + 1e-4)


def _match_with_b1(model: FSE, signal: Array, t1: float, progress: Callable[[int], None] | None) -> MatchResult:
    """The best atom of each voxel over T2 and B1."""
    atoms = grid(Tissue, t1=t1, t2=_t2_grid(model), b1=_b1_grid(model)[0])
    return match(make_dictionary(model, atoms), signal, progress=progress)


def _match_by_groups(
    model: FSE, signal: Array, t1: float, b1: Array, progress: Callable[[int], None] | None
) -> MatchResult:
    """The best atom of each voxel among those of its own B1, rounded."""
    t2 = _t2_grid(model)
    rounded = np.round(np.nan_to_num(np.asarray(b1), nan=1.0) / GROUP).astype(int)
    groups = [np.flatnonzero(rounded == value) for value in np.unique(rounded)]
    parts = []
    for members in groups:
        atoms = grid(Tissue, t1=t1, t2=t2, b1=GROUP * rounded[members[:1]])
        padded = np.pad(members, (0, -members.size % GROUP_BATCH), mode="edge")
        part = match(make_dictionary(model, atoms), signal[padded], batch_size=GROUP_BATCH)
        parts.append(jax.tree.map(lambda leaf, end=members.size: leaf[:end], part))
        if progress is not None:
            progress(members.size)
    back = np.argsort(np.concatenate(groups))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *parts)


def _refined(model: FSE, params: Tissue, signal: Array, free: tuple[str, ...]) -> Tissue:
    """Moves `free` towards the least-squares answer, as far as it is within a few atoms.

    T2 and B1 make up for each other, so that the best atom need not be a neighbour of the answer.
    """
    t2, (b1, perfect) = _t2_grid(model), _b1_grid(model)
    factor, step = (t2[1] / t2[0]) ** REACH, REACH * (b1[1] - b1[0])
    params = Tissue(*(jnp.broadcast_to(leaf, signal.shape[:1]) for leaf in params))
    if "b1" in free and perfect:
        # At 180 degrees the signal has no slope in B1, and nothing would move.
        params = params._replace(b1=jnp.minimum(params.b1, (b1[-1] + b1[-2]) / 2))
    lower = {"t2": params.t2 / factor, "b1": jnp.maximum(params.b1 - step, b1[0])}
    upper = {"t2": params.t2 * factor, "b1": jnp.minimum(params.b1 + step, b1[-1])}
    limits = tuple((lower[name], upper[name]) for name in free)
    in_precision = with_dtype(model, signal.dtype)
    return in_batches(_refine_batch, (in_precision, free), (params, limits, signal), None)


@eqx.filter_jit
def _refine_batch(model: SignalModel, free: tuple[str, ...], voxels: tuple[Tissue, Any, Array]) -> Tissue:
    # Voxels without an answer must not meet the solver; what stands in for them is thrown away.
    params, limits, signal = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 1.0), voxels)
    signal = jnp.where(jnp.any(signal != 0, axis=-1, keepdims=True), signal, 1.0)
    lower, upper = zip(*limits, strict=True)
    params, m0, _ = refine(model, params, signal, free, lower, upper)
    return params._replace(m0=m0)


def _moved_as_far_as_allowed(model: FSE, before: Tissue, after: Tissue) -> Bool[Array, " voxel"]:
    """Whether the last round of refinement ended where it had to end, for want of reach."""
    t2, (b1, _) = _t2_grid(model), _b1_grid(model)
    in_t2 = jnp.abs(jnp.log(after.t2 / before.t2)) > 0.99 * REACH * np.log(t2[1] / t2[0])
    in_b1 = jnp.abs(jnp.asarray(after.b1) - before.b1) > 0.99 * REACH * (b1[1] - b1[0])
    return in_t2 | in_b1


def _at_end(model: FSE, params: Tissue, b1_is_free: bool) -> Bool[Array, " voxel"]:
    """Whether T2, or B1 unless it is given, lies where the grid ends."""
    t2, (b1, perfect) = _t2_grid(model), _b1_grid(model)
    at_end = (params.t2 < t2[1]) | (params.t2 > t2[-2])
    if b1_is_free:
        at_end |= params.b1 < b1[0] + 1e-3
        at_end |= (params.b1 > b1[-1] - 1e-3) & (not perfect)
    return at_end


def _with_error_bars(
    model: FSE,
    signal: Array,
    params: Tissue,
    matched: Array,
    moving: Bool[Array, " voxel"],
    known: Mapping[str, Array],
    noise: Gaussian | None,
) -> FitResult:
    """The answer with standard errors, and NaN where there is none."""
    start = params
    b1, perfect = _b1_grid(model)
    if "b1" not in known and perfect:
        # At 180 degrees the signal has no slope in B1, only a curvature; the error bars come from just below, where
        # the slope has the same shape.
        start = params._replace(b1=jnp.minimum(params.b1, b1[-1] - 0.005))
    result = fit(model, signal, init=start, known=known, solver=Stay(), noise=noise)
    at_end = _at_end(model, params, b1_is_free="b1" not in known)
    why = jnp.where(at_end, Status.AT_BOUND, jnp.where(moving, Status.NOT_CONVERGED, Status.OK))
    status = jnp.where(result.status == Status.OK, why, result.status)
    status = jnp.where(matched != Status.OK, matched, status)
    ok = status == Status.OK
    params, stderr, residual = jax.tree.map(
        lambda leaf: jnp.where(ok, leaf, jnp.nan), (params, result.stderr, result.residual)
    )
    return FitResult(params, stderr, residual, status)
