"""How far a fit may be off: covariance of the parameters, and how well the model describes the measurements."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..models.base import sum_of_measurements
from . import linalg
from .noise import squared_magnitude
from .polarity import covariance_over_polarities
from .problem import Problem
from .solvers.base import Solution


class ErrorBars(NamedTuple):
    """Uncertainty and quality of a batch of fits, in the units of the `Problem`."""

    covariance: tuple[linalg.Vector, ...]  # of the unknowns
    residual: Float[Array, " voxel"]  # (weighted) root mean square of the misfit
    reduced_chi2: Float[Array, " voxel"]  # NaN where sigma is not known or nothing is left over
    identified: Bool[Array, " voxel"]  # whether the measurements determine all unknowns
    curvature_variance: linalg.Vector  # of the unknowns, from the curvature alone


def error_bars(problem: Problem, solution: Solution) -> ErrorBars:
    """Error bars from the curvature at a solution."""
    weighed, left_over = _counts(problem)
    squares, expected = _squares(problem, solution)
    sigma = problem.noise.sigma
    variance = noise_variance(problem, solution)
    chi2 = jnp.full_like(solution.cost, jnp.nan) if sigma is None else expected / (sigma**2 * left_over)
    slopes = problem.slopes(problem.coordinates(solution.values))
    inverse = linalg.inverse(linalg.cholesky(solution.curvature))
    covariance = tuple(
        tuple(e * (slope * other) * variance for e, other in zip(row, slopes, strict=True))
        for row, slope in zip(inverse, slopes, strict=True)
    )
    alone = tuple(row[i] for i, row in enumerate(covariance))
    if solution.second_point is not None:
        away, weight = _second_minimum(problem, solution)
        size = range(len(away))
        covariance = tuple(tuple(covariance[i][j] + weight * away[i] * away[j] for j in size) for i in size)
    if problem.model.restores_polarity:
        covariance = covariance_over_polarities(problem, solution, covariance, variance, left_over)
    diagonal = [row[i] for i, row in enumerate(inverse)]
    identified = jnp.all(jnp.isfinite(jnp.stack(diagonal)), axis=0)
    if problem.noise.weights is not None and problem.model.spare:
        identified &= jnp.nan_to_num(left_over) >= problem.model.spare
    if not problem.noise.least_squares:
        # At vanishing signal the likelihood is flat: an error of 10 in a logarithm means that it is not determined.
        identified &= ~(functools.reduce(jnp.maximum, diagonal) * variance > 10.0**2)
    return ErrorBars(covariance, jnp.sqrt(squares / weighed), chi2, identified, alone)


def _second_minimum(problem: Problem, solution: Solution) -> tuple[tuple[Array, ...], Float[Array, " voxel"]]:
    """How far the second-lowest minimum is away, and how likely it is the right one."""
    point, cost = solution.second_point, solution.second_cost
    assert point is not None
    assert cost is not None
    variance = jax.lax.stop_gradient(noise_variance(problem, solution))
    weight = jax.nn.sigmoid(jax.lax.stop_gradient(solution.cost - cost) / (2 * variance))
    other = jax.lax.stop_gradient(problem.split(problem.values(tuple(point))))
    away = tuple(b - a for a, b in zip(problem.split(solution.values), other, strict=True))
    return away, jnp.where(variance > 0, weight, 0.0)


def noise_variance(problem: Problem, solution: Solution) -> Float[Array, " voxel"]:
    """Given, or from what the fit leaves over; NaN where it leaves nothing."""
    sigma = problem.noise.sigma
    return solution.cost / _counts(problem)[1] if sigma is None else sigma**2


def _counts(problem: Problem) -> tuple[Array, Array]:
    """Sum of the weights, and how many real numbers are known beyond the unknowns; NaN where none."""
    channels = 2 if problem.is_complex else 1
    weights, one = problem.noise.weights, jnp.ones_like(problem.scale)
    weighed = problem.signal.shape[0] * one if weights is None else sum_of_measurements(weights)
    n = problem.signal.shape[0] if weights is None else jnp.sum(weights > 0, axis=0)
    freedom = (channels * n + len(problem.prior) - len(problem.unknowns)) * one
    return weighed, jnp.where(freedom > 0, freedom, jnp.nan)


def _squares(problem: Problem, solution: Solution) -> tuple[Float[Array, " voxel"], Float[Array, " voxel"]]:
    """Weighted sums of squares: the misfits, and these with those of the prior, each over its expectation [sigma^2]."""
    of_prior = problem.prior_misfit(solution.values)
    if problem.noise.least_squares:
        return solution.cost - of_prior, solution.cost
    mean, variance = problem.noise.moments(problem.predict(solution.values))
    squares = squared_magnitude(mean - problem.signal)
    return sum_of_measurements(squares), sum_of_measurements(squares / variance) + of_prior
