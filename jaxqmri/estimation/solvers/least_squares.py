"""Solvers: ways to the parameters of one batch of voxels. All share one interface; `fit(solver=...)` takes any of them.

A batch is a structure of arrays: the signal is (measurement, voxel), every parameter a vector of voxels. No voxel sees
another one: each has its own damping and stops by itself, so batch size and neighbours never change a result.
"""

import abc
import functools
import operator
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from ...batching.batches import DEFAULT_BATCH_SIZE
from .. import linalg
from ..derivatives import Values
from ..problem import Equations, Problem


class Solution(NamedTuple):
    """What a solver found.

    Attributes:
        values: the free parameters.
        converged: whether the solver reached its own goal there.
        cost: the misfit there.
        curvature: half its second derivatives, in the coordinates of all unknowns of the `Problem`.
    """

    values: tuple[Inexact[Array, " voxel"], ...]
    converged: Bool[Array, " voxel"]
    cost: Float[Array, " voxel"]
    curvature: linalg.LowerTriangle


class Solver(eqx.Module):
    """A way to solve a `Problem`.

    Class variables:
        minimises: whether its answer is where the cost is lowest, so that it has the derivatives of a minimum.
        most_on_a_cpu: voxels at once that a CPU's caches hold, if it goes through all of them very often.
    """

    minimises: ClassVar[bool] = True
    most_on_a_cpu: ClassVar[int] = DEFAULT_BATCH_SIZE

    @abc.abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """The free parameters of every voxel."""


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
        lower, upper = problem.range()
        start = jax.tree.map(jnp.clip, problem.place(problem.start), lower, upper)
        zero = jnp.zeros_like(problem.scale)
        # Before the first step nothing is known and anything is better: one evaluation less to compile.
        state = _LMState(
            point=start,
            damping=zero + 1e-2,
            done=jnp.zeros(problem.scale.shape, bool),
            count=jnp.zeros(problem.scale.shape, jnp.int32),
            equations=_nothing_known(problem, len(start)),
            bending=tuple((zero,) * (i + 1) for i in range(len(start))),
        )
        # Trains take seconds to compile, formulas none: these get a program of their own for all voxels together.
        if not problem.model.recursive:
            state = self._iterate(problem, state, _STEPS_TOGETHER)
        # Gathering costs less than a step of a train, and about as much as one of a formula.
        steps = 1 if problem.model.recursive else _STEPS_TOGETHER

        # Those that go on are gathered, so that the others are not paid for again.
        n_voxels = problem.scale.shape[0]
        n_together = max(n_voxels // 1024 * 32, min(n_voxels, 128))

        def finish_some(state: _LMState) -> _LMState:
            # Places left over point beyond the last voxel: they read that one, and what they write is dropped.
            chosen = jnp.nonzero(self._goes_on(state), size=n_together, fill_value=n_voxels)[0]
            some = jax.tree.map(lambda leaf: leaf[chosen], state)
            some = self._iterate(problem.select(chosen), some, steps)
            return jax.tree.map(lambda leaf, part: leaf.at[chosen].set(part, mode="drop"), state, some)

        state = jax.lax.while_loop(lambda state: jnp.any(self._goes_on(state)), finish_some, state)
        values = problem.complete(state.point, state.equations)
        return Solution(values, state.done, state.equations.cost, problem.full_curvature(state.equations))

    def _goes_on(self, state: "_LMState") -> Bool[Array, " voxel"]:
        # The first step only evaluates the start.
        return ~state.done & (state.count <= self.max_steps)

    def _iterate(self, problem: Problem, state: "_LMState", steps: int) -> "_LMState":
        """So many steps, fewer if all voxels are done; none where a voxel is, or has had as many as it may."""
        eps = float(jnp.finfo(problem.scale.dtype).eps)
        tolerance = max(8 * eps, 1e-10) if self.tolerance is None else self.tolerance
        lower, upper = problem.range()
        energy = problem.energy

        def step(carry: tuple[Int[Array, ""], _LMState]) -> tuple[Int[Array, ""], _LMState]:
            number, state = carry
            point, damping, equations, bending = state.point, state.damping, state.equations, state.bending
            going_on, cost = self._goes_on(state), equations.cost
            held = _held(equations, point, lower, upper)
            gradient = tuple(jnp.where(h, 0.0, g) for h, g in zip(held, equations.gradient, strict=True))
            curvature = _uncoupled(equations.curvature, held)
            # A parameter that the signal does not react to stays where it is.
            least = (4 * eps) ** 2 * energy
            move = _step(gradient, curvature, _uncoupled(bending, held), damping, least)
            # At most a factor of e at once: a longer step leaves the region where the linear model means anything.
            shorten = 1 / jnp.maximum(jnp.max(jnp.abs(jnp.stack(move)), axis=0), 1.0)
            trial = jax.tree.map(lambda x, dx: x - shorten * dx, point, move)
            trial = jax.tree.map(jnp.clip, trial, lower, upper)
            taken = jax.tree.map(jnp.subtract, trial, point)
            promised = _promised_decrease(taken, gradient, curvature)
            trial_equations = problem.equations(trial)
            gained = cost - trial_equations.cost
            # Near the minimum a step changes the cost by less than its rounding, yet still mends the parameters: a
            # strict comparison would stop at sqrt(eps), 3e-4 in float32.
            rounding = 4 * eps * (cost + jnp.sqrt(jnp.minimum(cost, energy) * energy))
            better = (gained >= -rounding) & going_on
            # Steps that keep a quarter of their promise overshoot: with large residuals undamped ones swing for ever.
            factor = jnp.where(gained > 0.75 * promised - rounding, 0.1, jnp.where(gained < 0.25 * promised, 4.0, 1.0))
            damping = jnp.clip(damping * jnp.where(better, factor, 10.0), LEAST_DAMPING, _MOST_DAMPING)
            # Too small to tell by the cost, but not by the slope, which has turned round: damped by so much, the step
            # would have ended at the bottom. Else such steps swing about it for ever.
            turned = -_inner(taken, trial_equations.gradient) / _inner(taken, equations.gradient)
            swings = (jnp.abs(gained) <= rounding) & (turned > 0.75)
            damping = jnp.where(swings, jnp.maximum(damping, jnp.minimum(turned, 1.0)), damping)
            still = [
                jnp.abs(dx) <= jnp.maximum(tolerance, eps * jnp.abs(x)) for dx, x in zip(taken, point, strict=True)
            ]
            # Below the rounding of the model, or far below the error bar, a step is none.
            little = (10 * eps) ** 2 * cost + (_ROUNDING * eps) ** 2 * energy
            if not problem.noise.least_squares:
                # Likelihoods of faint signals are flat; a step that is small because it is damped ends no search there.
                little = jnp.maximum(little, jnp.where(damping <= 1, eps * cost, 0.0))
            settled = functools.reduce(operator.and_, still)
            # A step cut off at a bound may promise nothing, which is no sign of a minimum.
            settled |= (promised >= 0) & (promised <= little)
            settled &= jnp.isfinite(cost)
            keep = lambda new, old: jnp.where(better, new, old)  # noqa: E731
            bending = jax.tree.map(keep, _bending(bending, taken, equations, trial_equations), bending)
            point, equations = jax.tree.map(keep, (trial, trial_equations), (point, equations))
            done = state.done | (settled & going_on)
            return number + 1, _LMState(point, damping, done, state.count + going_on, equations, bending)

        return jax.lax.while_loop(
            lambda carry: (carry[0] < steps) & jnp.any(self._goes_on(carry[1])), step, (jnp.asarray(0), state)
        )[1]


class _LMState(NamedTuple):
    """Where each voxel is."""

    point: Values  # coordinates
    damping: Float[Array, " voxel"]
    done: Bool[Array, " voxel"]
    count: Int[Array, " voxel"]  # of steps so far
    equations: Equations  # at the point
    bending: linalg.LowerTriangle  # what J'J leaves out of the second derivatives, see `_bending`


_ROUNDING = 16  # units of the last place by which models of long trains may be off
_STEPS_TOGETHER = 4  # before those that go on are gathered; the first of all only evaluates the start
LEAST_DAMPING, _MOST_DAMPING = 1e-7, 1e7  # relative to the diagonal of J'J; 1e-7 is one ulp of float32


def _held(equations: Equations, point: Values, lower: Values, upper: Values) -> list[Bool[Array, " voxel"]]:
    """Which unknowns a bound keeps from where they are drawn to; left in, they would mislead the others.

    Source: Bertsekas, SIAM J Control Optim 20:221 (1982).
    """
    return [
        ((x <= low) & (g > 0)) | ((x >= high) & (g < 0))
        for x, g, low, high in zip(point, equations.gradient, lower, upper, strict=True)
    ]


def _uncoupled(matrix: linalg.LowerTriangle, held: Sequence[Bool[Array, " voxel"]]) -> linalg.LowerTriangle:
    """The matrix with nothing off the diagonal in the rows and columns of what is held."""
    return tuple(
        tuple(e if i == j else jnp.where(held[i] | held[j], 0.0, e) for j, e in enumerate(row))
        for i, row in enumerate(matrix)
    )


def _step(
    gradient: Values,
    curvature: linalg.LowerTriangle,
    bending: linalg.LowerTriangle,
    damping: Float[Array, " voxel"],
    least: Float[Array, " voxel"],
) -> Values:
    """The damped Newton step, or the Gauss-Newton one where the bending makes the curvature too small to trust."""
    added = [damping * row[-1] + least for row in curvature]
    damped_gn = damped(curvature, added)
    newton = linalg.cholesky(jax.tree.map(jnp.add, damped_gn, bending))
    gauss_newton = linalg.cholesky(damped_gn)
    # NaN, where there is no factor, is not larger than anything.
    sound = [n[-1] > _LEAST_PIVOT * g[-1] for n, g in zip(newton, gauss_newton, strict=True)]
    sound = functools.reduce(operator.and_, sound)
    return linalg.solve(jax.tree.map(lambda n, g: jnp.where(sound, n, g), newton, gauss_newton), gradient)


_LEAST_PIVOT = 0.1  # of the root of a pivot


def _bending(bending: linalg.LowerTriangle, taken: Values, before: Equations, after: Equations) -> linalg.LowerTriangle:
    """What J'J leaves out of the second derivatives, learnt from how the gradient changed along the step taken.

    Gauss-Newton steps converge by a constant factor, the slower the larger the residuals. With this symmetric rank-one
    update they gain on the way, at no evaluation more.
    Source: Dennis, Gay, Welsch, ACM Trans Math Softw 7:348 (1981); Conn, Gould, Toint, Math Program 50:177 (1991).
    """
    eps = float(jnp.finfo(before.cost.dtype).eps)
    size = range(len(taken))

    def times_step(matrix: linalg.LowerTriangle, i: int) -> Float[Array, " voxel"]:
        return _inner([matrix[max(i, j)][min(i, j)] for j in size], taken)

    left_out = [
        after.gradient[i] - before.gradient[i] - times_step(after.curvature, i) - times_step(bending, i) for i in size
    ]
    along = _inner(left_out, taken)
    lengths = [_inner(vector, vector) for vector in (left_out, taken)]
    # Steps near the rounding, or at right angles to what was left out, teach nothing.
    telling = (along**2 > 0.01 * lengths[0] * lengths[1]) & (lengths[1] > (64 * eps) ** 2)
    telling &= jnp.isfinite(along) & jnp.isfinite(before.cost)
    safe = jnp.where(telling, along, 1.0)
    return tuple(
        tuple(bending[i][j] + jnp.where(telling, left_out[i] * left_out[j] / safe, 0.0) for j in range(i + 1))
        for i in size
    )


def _nothing_known(problem: Problem, n_unknowns: int) -> Equations:
    """Equations of a point that any other one is better than."""
    zero, one = jnp.zeros_like(problem.scale), jnp.ones_like(problem.scale)
    unit = tuple(tuple(one if i == j else zero for j in range(i + 1)) for i in range(n_unknowns))
    empty = Equations(jnp.full_like(problem.scale, jnp.inf), (zero,) * n_unknowns, unit)
    if not problem.eliminates:
        return empty
    complex_zero = jnp.zeros_like(problem.signal[0])
    return empty._replace(amplitude=complex_zero, energy=zero, overlaps=(complex_zero,) * n_unknowns)


class LogLinear(Solver):
    """Straight line through the logarithm of the signal: closed form, exact without noise, biased with much of it.

    Needs a model with a `log_linear` method (`MonoExponential`) and no parameter held fixed.

    Args:
        weighted: weights S^2, which undo what the logarithm does to the noise; False gives every echo the same weight.
            The error bars are those of the least-squares fit, which the weighted line approaches and the unweighted
            one does not reach.
    """

    minimises: ClassVar[bool] = False
    weighted: bool = eqx.field(default=True, static=True)

    def solve(self, problem: Problem) -> Solution:
        log_linear = getattr(problem.model, "log_linear", None)
        if log_linear is None or problem.known:
            raise ValueError(
                f"LogLinear solves MonoExponential with all its parameters free, not {type(problem.model).__name__} "
                f"with {sorted(problem.known)} known; use LevenbergMarquardt()."
            )
        params = log_linear(problem.signal, weighted=self.weighted)
        return solved_at(problem, tuple(getattr(params, name) for name in problem.free))


class Stay(Solver):
    """Takes the start for the solution: error bars and residual of an answer found by other means, a match say."""

    def solve(self, problem: Problem) -> Solution:
        return solved_at(problem, problem.start)


def solved_at(problem: Problem, values: tuple[Inexact[Array, " voxel"], ...]) -> Solution:
    """These values as a solution."""
    equations = problem.full_equations(problem.coordinates(values))
    return Solution(values, jnp.ones(problem.scale.shape, bool), equations.cost, equations.curvature)


def _inner(a: Sequence[Float[Array, " voxel"]], b: Sequence[Float[Array, " voxel"]]) -> Float[Array, " voxel"]:
    """Inner product of vectors with one entry per unknown."""
    return functools.reduce(operator.add, (x * y for x, y in zip(a, b, strict=True)))


def _promised_decrease(step: Values, gradient: Values, curvature: linalg.LowerTriangle) -> Float[Array, " voxel"]:
    """By how much the linear model says that |r|^2 falls: -2 step'J'r - step'J'J step."""
    total = jnp.zeros_like(step[0])
    for i, row in enumerate(curvature):
        off_diagonal = sum((row[j] * step[j] for j in range(i)), start=jnp.zeros_like(total))
        total = total - step[i] * (2 * gradient[i] + row[i] * step[i] + 2 * off_diagonal)
    return total


def damped(curvature: linalg.LowerTriangle, added: Sequence[Float[Array, " voxel"]]) -> linalg.LowerTriangle:
    """The matrix with a larger diagonal."""
    return tuple((*row[:-1], row[-1] + more) for row, more in zip(curvature, added, strict=True))
