"""A straight line through the logarithm of an exponential decay."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from ...models.decay import MonoExponential
from ..problem import Problem
from .base import Solution, Solver


class LogLinear(Solver):
    """Straight line through the logarithm of the signal: closed form, exact without noise, biased with much of it.

    For `MonoExponential` with all its parameters free. The weights of `Gaussian` are honoured; a measurement that is
    not positive has no logarithm and is left out.

    Args:
        weighted: weights S^2, which undo what the logarithm does to the noise; False gives every echo the same weight.
            The error bars are those of the least-squares fit, which the weighted line approaches and the unweighted
            one does not reach.

    Raises:
        ValueError: another model, a parameter that is known, bounds, a prior, or noise that is not Gaussian.
    """

    minimises: ClassVar[bool] = False
    weighted: bool = eqx.field(default=True, static=True)

    def solve(self, problem: Problem) -> Solution:
        model = problem.model
        if not isinstance(model, MonoExponential) or model.offset or problem.known:
            raise ValueError(
                f"LogLinear solves MonoExponential without offset, with all its parameters free, not "
                f"{type(model).__name__} with {sorted(problem.known)} known; use LevenbergMarquardt()."
            )
        if problem.prior or problem.bounded:
            raise ValueError("LogLinear knows neither bounds nor priors; use LevenbergMarquardt().")
        if not problem.noise.least_squares:
            raise ValueError(
                f"LogLinear is least squares and knows no {type(problem.noise).__name__} noise; use "
                "LevenbergMarquardt(), or noise=jq.Gaussian(sigma)."
            )
        params = model.log_linear(problem.signal, self.weighted, problem.noise.weights)
        values = tuple(getattr(params, name) for name in problem.free)
        equations = problem.full_equations(problem.coordinates(values))
        return Solution(values, jnp.ones(problem.scale.shape, bool), equations.cost, equations.curvature)
