"""Derivatives through a fit, by the implicit function theorem instead of through the steps of the solver.

At the minimum x of the cost C(x; y), with y everything else (measurements, known parameters, protocol), the gradient is
zero whatever y is. So dx = -(d2C/dx2)^-1 (d2C/dx dy) dy: one small linear system per voxel, however many steps the
search took. The second derivatives are exact, not those of Gauss and Newton, which would leave out the residuals.
An unknown at an end of its range stays there: it moves as that end does, and the others as if it were known.
Source: Griewank, Walther, Evaluating Derivatives (2008), ch. 15; Blondel et al., NeurIPS (2022), arXiv:2105.15183.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..batching.context import mixed_ranks
from ..models.guess import total
from . import linalg
from .problem import Problem, Values
from .solvers.base import Solution, Solver


def solve(solver: Solver, problem: Problem) -> Solution:
    """`solver.solve(problem)`, differentiable in the measurements, the known parameters and the protocol."""
    return _minimum(problem, solver) if solver.minimises else solver.solve(problem)


@eqx.filter_custom_jvp
def _minimum(problem: Problem, solver: Solver) -> Solution:
    return solver.solve(problem)


@_minimum.def_jvp
def _(primals: tuple[Problem, Solver], tangents: tuple[Any, Any]) -> tuple[Solution, Solution]:
    with mixed_ranks():  # JAX may call this long after the fit
        return _with_derivative(*primals, tangents[0])


def _with_derivative(problem: Problem, solver: Solver, direction: Any) -> tuple[Solution, Solution]:
    """The minimum, and how it moves with the numbers of the problem."""
    solution = _minimum(problem, solver)  # not the solver: a second derivative would go through its steps
    numbers, others = eqx.partition(problem, eqx.is_inexact_array)
    directions = jax.tree.map(
        lambda number, tangent: jnp.zeros_like(number) if tangent is None else tangent, numbers, direction
    )
    # Voxels without a minimum have no derivative; zeros keep them out of sums over voxels.
    fine = solution.converged & problem.inside(solution.values)
    values = tuple(jnp.where(fine, v, s) for v, s in zip(solution.values, problem.start, strict=True))
    x = problem.coordinates(values)

    def at(numbers: Any, x: Values) -> tuple[Any, Any, Any]:
        here = eqx.combine(numbers, others)
        equations = here.full_equations(x)
        return here.values(x), equations.cost, equations.curvature

    # Held at an end, an unknown moves as that end does, whatever the cost.
    held, size = problem.at_end(values), range(len(x))
    ends_dot = jax.jvp(lambda n: eqx.combine(n, others).nearer_ends(values), (numbers,), (directions,))[1]
    moved = [jnp.where(h & fine, dot, 0.0) for h, dot in zip(held, ends_dot, strict=True)]
    hessian = _along_each(problem, lambda x: _gradient(problem, x), x)
    mixed = jax.jvp(lambda n: _gradient(eqx.combine(n, others), x), (numbers,), (directions,))[1]
    pulled = [mixed[i] + total(hessian[i][j] * moved[j] for j in size) for i in size]
    coupled = tuple(
        tuple(jnp.where(held[i] | held[j], float(i == j), hessian[i][j]) for j in range(i + 1)) for i in size
    )
    fine &= jnp.isfinite(linalg.cholesky(jax.lax.stop_gradient(coupled))[-1][-1])
    # Replaced before the roots are taken, whose second derivatives would be NaN.
    safe = tuple(tuple(jnp.where(fine, e, float(i == j)) for j, e in enumerate(row)) for i, row in enumerate(coupled))
    right = tuple(jnp.where(fine, jnp.where(held[i], moved[i], -pulled[i]), 0.0) for i in size)
    dx = linalg.solve(linalg.cholesky(safe), right)
    values_dot, cost_dot, curvature_dot = jax.jvp(at, (numbers, x), (directions, dx))[1]
    return solution, Solution(values_dot, None, cost_dot, curvature_dot)  # pyright: ignore[reportArgumentType]


def _gradient(problem: Problem, x: Values) -> Any:
    """dC/dx, forward: reverse mode would keep every step of a train of pulses."""
    return _along_each(problem, problem.cost, x)


def _along_each(problem: Problem, function: Callable[[Values], Any], x: Values) -> Any:
    """The derivatives along each unknown.

    Those of a recursion at once: one by one they take twice as long to compile. Those of a formula are 4 times faster
    one by one.
    """

    def along(unit: Values) -> Any:
        return jax.jvp(function, (x,), (unit,))[1]

    units = linalg.unit_vectors(x)
    if problem.model.sequential:
        return jax.vmap(along)(jax.tree.map(lambda *parts: jnp.stack(parts), *units))
    return [along(unit) for unit in units]
