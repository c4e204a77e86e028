"""The lowest of the minima that a solver reaches from several starts, and how much higher the second-lowest is."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...models.guess import inner_product
from ..constraints import ends_at_bound
from ..error_bars import noise_variance
from ..problem import Problem, Values
from .base import Solution, Solver

_BOUND_IS_WORSE = 4.0  # units of the variance of the noise: two standard deviations
_APART = 0.01  # of a coordinate, 1 % of a positive parameter: what is nearer is one minimum


class SeveralStarts(Solver):
    """Another solver, from `Problem.start` and from each of `Problem.other_starts`."""

    solver: Solver

    def solve(self, problem: Problem) -> Solution:
        starts = jax.tree.map(
            lambda first, others: jnp.concatenate([first[None], others]), problem.start, problem.other_starts
        )
        found = jax.lax.map(lambda start: self.solver.solve(dataclasses.replace(problem, start=start)), starts)
        cost = jnp.where(found.converged & jnp.isfinite(found.cost), found.cost, jnp.inf)
        # Of minima that are the same to rounding it is the first one, and one within the ranges rather than one at a
        # bound, beyond which the answer would lie, as long as the noise may have decided between them.
        variance = jnp.nan_to_num(noise_variance(problem, found._replace(cost=jnp.min(cost, axis=0))))
        at_bound = jax.vmap(lambda values: ends_at_bound(problem, values))(found.values)
        judged = cost + jnp.where(at_bound, _BOUND_IS_WORSE * variance, 0.0)
        best = jnp.argmax(judged <= jnp.min(judged, axis=0) + cost_rounding(problem), axis=0)
        lowest = jax.tree.map(lambda leaf: jnp.take_along_axis(leaf, best[None], axis=0)[0], found)
        x, every = _place(problem, lowest.values), jax.vmap(lambda values: _place(problem, values))(found.values)
        steps = [to - of for to, of in zip(every, x, strict=True)]
        size, matrix = range(len(steps)), lowest.curvature
        length = inner_product(
            steps, [inner_product([matrix[max(i, j)][min(i, j)] for j in size], steps) for i in size]
        )
        error = jnp.nan_to_num(noise_variance(problem, lowest)) + cost_rounding(problem)
        # Within an error bar it is the same minimum: its valley may be so flat that the search ends anywhere in it.
        apart = (length > error) & (jnp.max(jnp.abs(jnp.stack(steps)), axis=0) > _APART)
        others = jnp.where(apart, cost, jnp.inf)
        second, cost_of_second = jnp.argmin(others, axis=0), jnp.min(others, axis=0)
        there = jnp.stack([jnp.take_along_axis(of, second[None], axis=0)[0] for of in every])
        return lowest._replace(
            second_cost=cost_of_second, second_point=jnp.where(jnp.isfinite(cost_of_second), there, jnp.stack(x))
        )


def _place(problem: Problem, values: tuple[Array, ...]) -> Values:
    """Coordinates of a minimum, the same for all its aliases."""
    params = problem.model.parameters(**problem.known, **dict(zip(problem.free, values, strict=True)))
    params = problem.model.unaliased(params)
    return problem.coordinates(tuple(getattr(params, name) for name in problem.free))


def cost_rounding(problem: Problem) -> Float[Array, " voxel"]:
    """By how much the costs of two equally good minima may differ."""
    rounding = max(64 * float(jnp.finfo(problem.scale.dtype).eps), 1e-9)
    return rounding**2 * problem.energy
