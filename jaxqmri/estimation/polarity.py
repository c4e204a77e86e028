"""Error bars of magnitudes whose sign is not certain.

Next to its null a magnitude may have been positive or negative. The misfit then has a minimum for every polarity that
the noise allows, and the curvature at the lowest one says nothing of the others: error bars come out up to 1.6 times
too small. The density of a magnitude is nearly that of a signed measurement plus that of its opposite, so the posterior
is a mixture of one normal distribution per polarity, weighted by how likely each one is. Its second moment about the
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

_STEPS = 2  # of Gauss and Newton from the solution to the minimum of another polarity
_LONGEST_STEP = 1.0  # of a coordinate


def covariance_over_polarities(
    problem: Problem,
    solution: Solution,
    covariance: tuple[linalg.Vector, ...],
    variance: Float[Array, " voxel"],
    freedom: Float[Array, " voxel"],
) -> tuple[linalg.Vector, ...]:
    """Mean squared distances from the solution, over its polarity and those with one more or one less above the null.

    `covariance` is that of the curvature alone, `variance` that of the noise, or of the residuals if it is not known,
    with so much `freedom`.

    Least squares takes magnitudes for signed numbers. Next to the null the mean square of one exceeds that of its
    signal by twice the variance of the noise, that of a signed number by once: it weighs signs with twice the variance.
    """
    weights, size = problem.noise.weights, range(len(problem.unknowns))
    rounding = 64 * float(jnp.finfo(problem.scale.dtype).eps)  # of a misfit of none
    model = dataclasses.replace(problem.model, magnitude=False)
    signed = dataclasses.replace(problem, model=model, noise=Gaussian(problem.noise.sigma, weights))
    start, estimate = problem.coordinates(solution.values), problem.split(solution.values)
    predicted = jax.lax.stop_gradient(signed.predict(solution.values))

    def of_polarity(is_negative: Array) -> tuple[Array, Array, Array, Array]:
        """The misfit of one, whether its minimum was found, its covariance for a variance of 1 and squared distance."""
        there = dataclasses.replace(signed, signal=jnp.where(is_negative, -problem.signal, problem.signal))
        x, sound = start, jnp.ones(problem.scale.shape, bool)
        for _ in range(_STEPS):
            equations = there.full_equations(x)
            factor = linalg.cholesky(equations.curvature)
            sound &= jnp.all(jnp.isfinite(jnp.stack([row[-1] for row in factor])), axis=0)
            factor = tuple(
                tuple(jnp.where(sound, e, float(i == j)) for j, e in enumerate(row)) for i, row in enumerate(factor)
            )
            step = linalg.solve(factor, equations.gradient)
            sound &= jnp.max(jnp.abs(jnp.stack(step)), axis=0) < _LONGEST_STEP
            x = tuple(jnp.where(sound, at - by, at) for at, by in zip(x, step, strict=True))
        decrease = sum(g * by for g, by in zip(equations.gradient, step, strict=True))
        inverse, slopes = linalg.inverse(factor), there.slopes(x)
        away = [to - of for to, of in zip(there.split(there.values(x)), estimate, strict=True)]
        of_one = [[inverse[i][j] * slopes[i] * slopes[j] for j in size] for i in size]
        return equations.cost - decrease, sound, _stacked(of_one), _stacked([[a * b for b in away] for a in away])

    polarities, exist = _polarities(predicted, weights)
    costs, sound, of_one, between = jax.lax.map(of_polarity, polarities)
    exist &= sound
    least = jnp.min(jnp.where(exist, costs, jnp.inf), axis=0)
    higher = jnp.where(exist, costs - least, 0.0)

    def share(variance: Float[Array, " voxel"]) -> Array:
        """How likely each polarity is."""
        of_signs = (2 * variance if problem.noise.least_squares else variance) + rounding**2 * problem.energy
        likely = jnp.where(exist, jnp.exp(-higher / (2 * of_signs)), 0.0)
        return likely / jnp.maximum(jnp.sum(likely, axis=0), 1.0)  # of the likeliest it is 1, if there is any

    if problem.noise.sigma is None:
        # Of all polarities the lowest misfit is too low by chance.
        variance = variance + jnp.sum(share(variance) * higher, axis=0) / freedom
    mean = jnp.sum(share(variance)[:, None, None] * (of_one * variance + between), axis=0)
    found = jnp.any(exist, axis=0)
    return tuple(tuple(jnp.where(found, mean[i, j], covariance[i][j]) for j in size) for i in size)


def _stacked(matrix: list[list[Array]]) -> Array:
    return jnp.stack([jnp.stack(row) for row in matrix])


def _polarities(predicted: Float[Array, "n voxel"], weights: Array | None) -> tuple[Array, Array]:
    """Which measurements are negative: as predicted, the lowest positive one too, or not the highest negative one.

    And whether there is such a measurement.
    """
    counts = True if weights is None else weights > 0
    above = jnp.min(jnp.where((predicted > 0) & counts, predicted, jnp.inf), axis=0)
    below = jnp.max(jnp.where((predicted <= 0) & counts, predicted, -jnp.inf), axis=0)
    exist = jnp.stack([jnp.ones(above.shape, bool), jnp.isfinite(above), jnp.isfinite(below)])
    return jnp.stack([predicted <= 0, predicted <= above, predicted < below]), exist
