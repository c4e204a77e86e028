"""Error bars of magnitudes whose sign is not certain.

Next to its null a magnitude may have been positive or negative. The likelihood then has a maximum for every polarity
that the noise allows, and the curvature at the highest one says nothing of the others: error bars come out up to 1.25
times too small. Rice's density is nearly that of a signed measurement plus that of its opposite, so the posterior is a
mixture of one normal distribution per polarity, weighted by how likely each one is. Its second moment about the
estimate is what error bars ought to be.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import linalg
from .noise import Gaussian
from .problem import Problem
from .solvers.base import Solution

_LONGEST_STEP = 1.0  # of a coordinate from a guess to its minimum; guesses are nearer, save at ends of ranges


def covariance_over_polarities(problem: Problem, solution: Solution) -> tuple[tuple[Array, ...], ...] | None:
    """Mean squared distances from the solution, over all polarities; None where the model has none to choose from."""
    guesses = jax.vmap(problem.model.polarities, in_axes=-1, out_axes=-1)(problem.signal, problem.known)
    sigma = problem.noise.sigma
    if guesses is None or sigma is None:
        return None
    signs, starts = jax.lax.stop_gradient(guesses)
    model = dataclasses.replace(problem.model, magnitude=False)
    size = range(len(problem.unknowns))

    def of_polarity(polarity: tuple[Array, Array]) -> tuple[Float[Array, " voxel"], Array]:
        """The misfit of one, and the second moments about the solution."""
        sign, start = polarity
        signed = dataclasses.replace(problem, model=model, noise=Gaussian(sigma), signal=sign * problem.signal)
        # The guess is near its minimum: one step of Gauss and Newton gets there.
        x = signed.coordinates(tuple(start))
        equations = signed.full_equations(x)
        factor = linalg.cholesky(equations.curvature)
        sound = jnp.all(jnp.isfinite(jnp.stack([row[-1] for row in factor])), axis=0)
        factor = tuple(
            tuple(jnp.where(sound, e, float(i == j)) for j, e in enumerate(row)) for i, row in enumerate(factor)
        )
        step = linalg.solve(factor, equations.gradient)
        sound &= jnp.max(jnp.abs(jnp.stack(step)), axis=0) < _LONGEST_STEP
        x = tuple(jnp.where(sound, at - by, at) for at, by in zip(x, step, strict=True))
        decrease = sum(g * by for g, by in zip(equations.gradient, step, strict=True))
        inverse, slopes = linalg.inverse(factor), signed.slopes(x)
        away = [to - of for to, of in zip(signed.split(signed.values(x)), problem.split(solution.values), strict=True)]
        moments = [[inverse[i][j] * slopes[i] * slopes[j] * sigma**2 + away[i] * away[j] for j in size] for i in size]
        cost = jnp.where(sound, equations.cost - decrease, jnp.inf)
        return cost, jnp.where(sound, jnp.stack([jnp.stack(row) for row in moments]), 0.0)

    free = jnp.stack([getattr(starts, name) for name in problem.free], axis=1)
    costs, moments = jax.lax.map(of_polarity, (signs, free))
    weights = jnp.exp(-(costs - jnp.min(costs, axis=0)) / (2 * sigma**2))
    mean = jnp.sum(weights[:, None, None] * moments, axis=0) / jnp.sum(weights, axis=0)
    return tuple(tuple(mean[i, j] for j in size) for i in size)
