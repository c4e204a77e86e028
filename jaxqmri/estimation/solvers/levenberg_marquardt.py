"""Levenberg-Marquardt: damped Gauss-Newton steps, each proposed, accepted or not, and followed by a new damping."""

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...models.guess import inner_product
from .. import linalg
from ..problem import Equations, Problem, Values
from .base import Solution, Solver

PerVoxel = Float[Array, " voxel"]
Flags = Bool[Array, " voxel"]

LEAST_DAMPING, _MOST_DAMPING = 1e-7, 1e7  # relative to the diagonal of J'J; 1e-7 is one ulp of float32
_STEPS_TOGETHER = 4  # before those that go on are gathered; the first of all only evaluates the start
_ROUNDING = 16  # units of the last place by which models of long trains may be off
_LEAST_PIVOT = 0.1  # of the root of a pivot


class LevenbergMarquardt(Solver):
    """Damped Gauss-Newton steps to the least-squares solution, all voxels of a batch at once.

    Every voxel has its own damping (Marquardt's scaling by the diagonal of J'J), raised after a step that fails or
    falls short of what the linear model promised, lowered after one that keeps it. It stops when its step is below
    `tolerance`, a relative change of every positive parameter whatever its unit, or far below its error bar.
    Source: Marquardt, J. SIAM 11:431 (1963); More, LNM 630:105 (1978).

    Args:
        max_steps: steps before a voxel is given up as NOT_CONVERGED.
        tolerance: the step that ends the search; None: 1e-6 in float32, 1e-10 in float64.
    """

    max_steps: int = eqx.field(default=256, static=True)
    tolerance: float | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}.")

    def solve(self, problem: Problem) -> Solution:
        state = _start(problem)
        # Trains take seconds to compile, formulas none: these get a program of their own for all voxels together.
        if not problem.model.sequential:
            state = self._iterate(problem, state, _STEPS_TOGETHER)
        # Gathering costs less than a step of a train, and about as much as one of a formula.
        steps = 1 if problem.model.sequential else _STEPS_TOGETHER

        # Those that go on are gathered, so that the others are not paid for again.
        n_voxels = problem.scale.shape[0]
        n_together = max(n_voxels // 1024 * 32, min(n_voxels, 128))

        def finish_some(state: _State) -> _State:
            # Places left over point beyond the last voxel: they read that one, and what they write is dropped.
            chosen = jnp.nonzero(self._goes_on(state), size=n_together, fill_value=n_voxels)[0]
            some = jax.tree.map(lambda leaf: leaf[chosen], state)
            some = self._iterate(problem.select(chosen), some, steps)
            return jax.tree.map(lambda leaf, part: leaf.at[chosen].set(part, mode="drop"), state, some)

        state = jax.lax.while_loop(lambda state: jnp.any(self._goes_on(state)), finish_some, state)
        values = problem.complete(state.point, state.equations)
        return Solution(values, state.done, state.equations.cost, problem.full_curvature(state.equations))

    def _goes_on(self, state: "_State") -> Flags:
        # The first step only evaluates the start.
        return ~state.done & (state.count <= self.max_steps)

    def _iterate(self, problem: Problem, state: "_State", steps: int) -> "_State":
        """The state after so many steps of each voxel, fewer for those that are done or have had `max_steps`."""
        tolerance = max(8 * _eps(problem.scale), 1e-10) if self.tolerance is None else self.tolerance
        bounds, energy = problem.range(), problem.energy

        def step(carry: tuple[Int[Array, ""], _State]) -> tuple[Int[Array, ""], _State]:
            number, state = carry
            going_on, before = self._goes_on(state), state.equations
            # propose
            proposal = _propose(problem, state, bounds, energy)
            after = problem.equations(proposal.point)
            # accept
            gained, rounding = before.cost - after.cost, _cost_rounding(before.cost, energy)
            accepted = (gained >= -rounding) & going_on
            # damp
            damping = _damp(state.damping, accepted, gained, proposal.promised, rounding)
            damping = _damp_oscillation(damping, proposal.taken, before, after, jnp.abs(gained) <= rounding)
            # converged
            settled = _is_small(proposal.taken, state.point, tolerance)
            settled |= _promises_nothing(proposal, damping, before.cost, energy, problem.noise.least_squares)
            done = state.done | (settled & jnp.isfinite(before.cost) & going_on)
            correction = _sr1_correction(state.correction, proposal.taken, before, after)
            point, equations, correction = jax.tree.map(
                lambda new, old: jnp.where(accepted, new, old),
                (proposal.point, after, correction),
                (state.point, before, state.correction),
            )
            count = state.count + going_on.astype(state.count.dtype)
            return number + 1, _State(point, damping, done, count, equations, correction)

        return jax.lax.while_loop(
            lambda carry: (carry[0] < steps) & jnp.any(self._goes_on(carry[1])), step, (jnp.asarray(0), state)
        )[1]


class _State(NamedTuple):
    """Where each voxel is."""

    point: Values  # coordinates
    damping: PerVoxel
    done: Flags
    count: Int[Array, " voxel"]  # of steps so far
    equations: Equations  # at the point
    correction: linalg.LowerTriangle  # estimate of the second-order term that J'J leaves out, see `_sr1_correction`


class _Proposal(NamedTuple):
    """A step that may be accepted."""

    point: Values  # where it ends, within the bounds
    taken: Values  # from the point before
    promised: PerVoxel  # decrease of the cost by the linear model


def _start(problem: Problem) -> _State:
    """Before the first step nothing is known and any point is an improvement: one evaluation less to compile."""
    point = problem.within(problem.place(problem.start), problem.range())
    zero, one, size = jnp.zeros_like(problem.scale), jnp.ones_like(problem.scale), range(len(point))
    unit = tuple(tuple(one if i == j else zero for j in range(i + 1)) for i in size)
    equations = Equations(jnp.full_like(problem.scale, jnp.inf), (zero,) * len(point), unit)
    if problem.eliminates:
        nothing = jnp.zeros_like(problem.signal[0])
        equations = equations._replace(amplitude=nothing, energy=zero, overlaps=(nothing,) * len(point))
    return _State(
        point=point,
        damping=zero + 1e-2,
        # Like the voxels, not of their shape alone: `jax.shard_map` keeps apart what varies between devices.
        done=jnp.zeros_like(problem.scale, bool),
        count=jnp.zeros_like(problem.scale, jnp.int32),
        equations=equations,
        correction=tuple((zero,) * (i + 1) for i in size),
    )


def _eps(values: Array) -> float:
    return float(jnp.finfo(values.dtype).eps)


# --- propose ----------------------------------------------------------------------------------------------------------


def _propose(problem: Problem, state: _State, bounds: tuple[Values, Values], energy: PerVoxel) -> _Proposal:
    """The damped step, cut where it leaves the bounds."""
    held = _held(state.equations, state.point, *bounds)
    gradient = tuple(jnp.where(h, 0.0, g) for h, g in zip(held, state.equations.gradient, strict=True))
    curvature = _uncoupled(state.equations.curvature, held)
    # A parameter that the signal does not react to stays where it is.
    least = (4 * _eps(energy)) ** 2 * energy
    move = _newton_step(gradient, curvature, _uncoupled(state.correction, held), state.damping, least)
    # At most a factor of e at once: a longer step leaves the region where the linear model holds.
    shorten = 1 / jnp.maximum(jnp.max(jnp.abs(jnp.stack(move)), axis=0), 1.0)
    point = problem.within(jax.tree.map(lambda x, dx: x - shorten * dx, state.point, move), bounds)
    taken = jax.tree.map(jnp.subtract, point, state.point)
    return _Proposal(point, taken, _promised_decrease(taken, gradient, curvature))


def _held(equations: Equations, point: Values, lower: Values, upper: Values) -> list[Flags]:
    """Which unknowns are at a bound with the gradient pointing outwards; left in, they would mislead the others.

    Source: Bertsekas, SIAM J Control Optim 20:221 (1982).
    """
    return [
        ((x <= low) & (g > 0)) | ((x >= high) & (g < 0))
        for x, g, low, high in zip(point, equations.gradient, lower, upper, strict=True)
    ]


def _uncoupled(matrix: linalg.LowerTriangle, held: Sequence[Flags]) -> linalg.LowerTriangle:
    """The matrix with zeros off the diagonal in the rows and columns of what is held."""
    return tuple(
        tuple(e if i == j else jnp.where(held[i] | held[j], 0.0, e) for j, e in enumerate(row))
        for i, row in enumerate(matrix)
    )


def _newton_step(
    gradient: Values,
    curvature: linalg.LowerTriangle,
    correction: linalg.LowerTriangle,
    damping: PerVoxel,
    least: PerVoxel,
) -> Values:
    """The damped Newton step, or the Gauss-Newton one where the correction makes the curvature too small to trust."""
    damped = linalg.add_to_diagonal(curvature, [damping * row[-1] + least for row in curvature])
    newton = linalg.cholesky(jax.tree.map(jnp.add, damped, correction))
    gauss_newton = linalg.cholesky(damped)
    # NaN, where there is no factor, is not larger than anything.
    sound = [n[-1] > _LEAST_PIVOT * g[-1] for n, g in zip(newton, gauss_newton, strict=True)]
    sound = functools.reduce(operator.and_, sound)
    return linalg.solve(jax.tree.map(lambda n, g: jnp.where(sound, n, g), newton, gauss_newton), gradient)


def _promised_decrease(step: Values, gradient: Values, curvature: linalg.LowerTriangle) -> PerVoxel:
    """By how much the linear model says that |r|^2 falls: -2 step'J'r - step'J'J step."""
    total = jnp.zeros_like(step[0])
    for i, row in enumerate(curvature):
        off_diagonal = sum((row[j] * step[j] for j in range(i)), start=jnp.zeros_like(total))
        total = total - step[i] * (2 * gradient[i] + row[i] * step[i] + 2 * off_diagonal)
    return total


# --- accept -----------------------------------------------------------------------------------------------------------


def _cost_rounding(cost: PerVoxel, energy: PerVoxel) -> PerVoxel:
    """Rounding of the cost: a step that changes it by less is accepted.

    Near the minimum such steps still improve the parameters; a strict comparison would stop at sqrt(eps), 3e-4 in
    float32.
    """
    return 4 * _eps(cost) * (cost + jnp.sqrt(jnp.minimum(cost, energy) * energy))


# --- damp -------------------------------------------------------------------------------------------------------------


def _damp(damping: PerVoxel, accepted: Flags, gained: PerVoxel, promised: PerVoxel, rounding: PerVoxel) -> PerVoxel:
    """Less damping after a step that keeps 3/4 of its promise, more after one that keeps less than 1/4 or fails.

    The latter overshoot: with large residuals undamped ones oscillate for ever. Source: More, LNM 630:105 (1978).
    """
    factor = jnp.where(gained > 0.75 * promised - rounding, 0.1, jnp.where(gained < 0.25 * promised, 4.0, 1.0))
    return jnp.clip(damping * jnp.where(accepted, factor, 10.0), LEAST_DAMPING, _MOST_DAMPING)


def _damp_oscillation(
    damping: PerVoxel, taken: Values, before: Equations, after: Equations, within_rounding: Flags
) -> PerVoxel:
    """More damping where the cost cannot tell an overshoot but the slope along the step has changed its sign.

    Damped by the ratio of the slopes the step would have ended at the minimum; else such steps oscillate about it.
    """
    turned = -inner_product(taken, after.gradient) / inner_product(taken, before.gradient)
    overshoots = within_rounding & (turned > 0.75)
    return jnp.where(overshoots, jnp.maximum(damping, jnp.minimum(turned, 1.0)), damping)


# --- converged --------------------------------------------------------------------------------------------------------


def _is_small(taken: Values, point: Values, tolerance: float) -> Flags:
    """Whether the step is below the tolerance in every coordinate."""
    small = [jnp.abs(dx) <= jnp.maximum(tolerance, _eps(x) * jnp.abs(x)) for dx, x in zip(taken, point, strict=True)]
    return functools.reduce(operator.and_, small)


def _promises_nothing(
    proposal: _Proposal, damping: PerVoxel, cost: PerVoxel, energy: PerVoxel, least_squares: bool
) -> Flags:
    """Whether the step promises less than the rounding of the model, or is far below the error bar."""
    eps = _eps(cost)
    little = (10 * eps) ** 2 * cost + (_ROUNDING * eps) ** 2 * energy
    if not least_squares:
        # Likelihoods of faint signals are flat; a step that is small because it is damped ends no search there.
        little = jnp.maximum(little, jnp.where(damping <= 1, eps * cost, 0.0))
    # A step cut off at a bound may promise less than nothing, which is no sign of a minimum.
    return (proposal.promised >= 0) & (proposal.promised <= little)


# --- second-order term ------------------------------------------------------------------------------------------------


def _sr1_correction(
    correction: linalg.LowerTriangle, taken: Values, before: Equations, after: Equations
) -> linalg.LowerTriangle:
    """Symmetric rank-one update of the second-order term, from how the gradient changed along the step.

    Gauss-Newton steps converge by a constant factor, the slower the larger the residuals; with this term they speed up
    on the way, at no evaluation more.
    Source: Dennis, Gay, Welsch, ACM Trans Math Softw 7:348 (1981); Conn, Gould, Toint, Math Program 50:177 (1991).
    """
    size = range(len(taken))

    def times_step(matrix: linalg.LowerTriangle, i: int) -> PerVoxel:
        return inner_product([matrix[max(i, j)][min(i, j)] for j in size], taken)

    left_out = [
        after.gradient[i] - before.gradient[i] - times_step(after.curvature, i) - times_step(correction, i)
        for i in size
    ]
    along = inner_product(left_out, taken)
    lengths = [inner_product(vector, vector) for vector in (left_out, taken)]
    # Steps near the rounding, or at right angles to what was left out, carry no information.
    telling = (along**2 > 0.01 * lengths[0] * lengths[1]) & (lengths[1] > (64 * _eps(along)) ** 2)
    telling &= jnp.isfinite(along) & jnp.isfinite(before.cost)
    safe = jnp.where(telling, along, 1.0)
    return tuple(
        tuple(correction[i][j] + jnp.where(telling, left_out[i] * left_out[j] / safe, 0.0) for j in range(i + 1))
        for i in size
    )
