"""One batch of voxels from its measurements to its maps: invalid voxels, first guess, solver, error bars, status."""

import dataclasses
import functools
import operator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..models.base import Params, SignalModel
from ..quantities import Status
from . import implicit
from .constraints import ends_at_bound, is_possible, range_of
from .error_bars import ErrorBars, error_bars, noise_variance
from .noise import Noise
from .problem import Problem
from .solvers.base import Solution, Solver
from .solvers.several_starts import SeveralStarts, cost_rounding
from .starts import with_starts


class FitResult(NamedTuple):
    """Maps of a fit, each with the leading shape of the signal.

    Attributes:
        params: the model's NamedTuple; NaN where `status` is not OK.
        stderr: standard errors in the units of the parameters, 0 for known ones; NaN where there are as many
            measurements as parameters and no `sigma` was given. That of a complex amplitude is complex: the errors of
            its real and its imaginary part.
        residual: root mean square of the misfit [units of the signal].
        status: `Status` codes.
        reduced_chi2: sum(w r^2) / (sigma^2 (n - p)), near 1 where the model describes the signal; None without sigma.
        covariance: (*voxel, p, p) of the free parameters in the order of the model's fields (a complex amplitude is two
            of them, its real and its imaginary part); None unless asked for.
        gap: by how much the second-lowest minimum that was found is worse, in units of the variance of the noise: twice
            the logarithm of how many times less likely it is. inf where there is no other, NaN where the noise is not
            known; negative, down to -4, where that is at a bound and so no answer. None unless there were several
            starts.
    """

    params: Params
    stderr: Params
    residual: Float[Array, "*voxel"]
    status: Int[Array, "*voxel"]
    reduced_chi2: Float[Array, "*voxel"] | None = None
    covariance: Float[Array, "*voxel p p"] | None = None
    gap: Float[Array, "*voxel"] | None = None


class Voxels(eqx.Module):
    """Everything that differs from voxel to voxel, voxels first; arrays of JAX or of numpy."""

    signal: Inexact[Any, "voxel n"]
    known: dict[str, Inexact[Any, " voxel"]]
    init: tuple[Inexact[Any, " voxel"], ...] | None
    sigma: Float[Any, " voxel"] | None
    weights: Float[Any, "voxel n"] | None
    bounds: dict[str, tuple[Float[Any, " voxel"], Float[Any, " voxel"]]] = eqx.field(default_factory=dict)
    prior: dict[str, tuple[Float[Any, " voxel"], Float[Any, " voxel"]]] = eqx.field(default_factory=dict)
    mask: Bool[Any, " voxel"] | None = None


@eqx.filter_jit
def fit_batch(
    model: SignalModel,
    solver: Solver,
    kind_of_noise: type[Noise],
    free: tuple[str, ...],
    covariance: bool,
    starts: int,
    voxels: Voxels,
) -> FitResult:
    voxels, invalid = _mask_invalid_voxels(model, voxels)
    problem = _problem(model, kind_of_noise, free, voxels)
    problem = with_starts(problem, voxels.init, voxels.bounds, starts)
    # Where the search begins does not affect the result, so it has no derivative.
    begin = jax.lax.stop_gradient((problem.start, problem.other_starts))
    problem = dataclasses.replace(problem, start=begin[0], other_starts=begin[1])
    solution = implicit.solve(SeveralStarts(solver) if starts > 1 else solver, problem)
    at_bound = ends_at_bound(problem, solution.values)
    # In scanner units an amplitude may overflow.
    in_units = [v * problem.units[name] for name, v in zip(free, solution.values, strict=True)]
    found = functools.reduce(operator.and_, map(jnp.isfinite, in_units))
    sound = (invalid == Status.OK) & ~at_bound & solution.converged & found
    bars = error_bars(problem, _finite_placeholders(problem, solution, sound))
    ends: list[tuple[Array, Any]] = [
        (invalid != Status.OK, invalid),
        (at_bound, int(Status.AT_BOUND)),
        (~(solution.converged & found), int(Status.NOT_CONVERGED)),
        (~bars.identified, int(Status.UNIDENTIFIABLE)),
    ]
    gap = None
    if solution.second_cost is not None:
        higher, variance = solution.second_cost - solution.cost, noise_variance(problem, solution)
        # The noise may have decided between the two.
        as_good = higher < _EQUALLY_GOOD * jnp.nan_to_num(variance) + cost_rounding(problem)
        ends.append((as_good & _is_another_answer(problem, solution, bars), int(Status.AMBIGUOUS)))
        gap = jnp.where(variance > 0, higher / jnp.where(variance > 0, variance, 1.0), jnp.nan)
    conditions, codes = zip(*ends, strict=True)
    status = jnp.select(conditions, codes, int(Status.OK))
    return _maps(problem, solution, bars, status, covariance, gap)


def _is_another_answer(problem: Problem, solution: Solution, bars: ErrorBars) -> Array:
    """Whether the second minimum differs in more than the amplitude and what is nearly mirrored, beyond error bars."""
    if solution.second_point is None:
        return jnp.zeros(problem.scale.shape, bool)
    other = problem.split(problem.values(tuple(solution.second_point)))
    differs = jnp.zeros(problem.scale.shape, bool)
    for i, (name, a, b) in enumerate(zip(problem.unknowns, problem.split(solution.values), other, strict=True)):
        if name not in (problem.model.amplitude, *problem.model.mirrored):
            differs |= ~((b - a) ** 2 <= bars.curvature_variance[i])
    return differs


def _finite_placeholders(problem: Problem, solution: Solution, sound: Array) -> Solution:
    """The solution with finite placeholders where it is none: NaN times a derivative of zero would be NaN."""
    values = tuple(jnp.where(sound, v, s) for v, s in zip(solution.values, problem.start, strict=True))
    curvature = tuple(
        tuple(jnp.where(sound, e, float(i == j)) for j, e in enumerate(row)) for i, row in enumerate(solution.curvature)
    )
    return solution._replace(values=values, cost=jnp.where(sound, solution.cost, 1.0), curvature=curvature)


def _mask_invalid_voxels(model: SignalModel, voxels: Voxels) -> tuple[Voxels, Int[Array, " voxel"]]:
    """The voxels with finite placeholders where they cannot be fitted, and the status of these; OK elsewhere."""
    signal, weights = voxels.signal, voxels.weights
    finite = jnp.ones(signal.shape[0], bool)
    if weights is not None:
        finite &= jnp.all(jnp.isfinite(weights) & (weights >= 0), axis=-1)
        weights = jnp.where(finite[:, None], weights, 1.0)
        signal = jnp.where(weights > 0, signal, 0.0)
    finite &= jnp.all(jnp.isfinite(signal), axis=-1)
    for name, value in voxels.known.items():
        any_sign = name in model.signed or jnp.iscomplexobj(value)
        finite &= jnp.isfinite(value) & (True if any_sign else value > 0) & is_possible(name, value)
    for name, (low, high) in voxels.bounds.items():
        least, most = (0.0, jnp.inf) if name in model.signal_units else getattr(model.limits(), name)
        least = -jnp.inf if name in model.signed else least
        finite &= (low < high) & (low < most) & (high > least)
    for mean, sd in voxels.prior.values():
        finite &= jnp.isfinite(mean) & jnp.isfinite(sd) & (sd > 0)
    if voxels.sigma is not None:
        finite &= jnp.isfinite(voxels.sigma) & (voxels.sigma > 0)
    negative = is_negative(signal) if _compares_magnitudes(model, signal) else jnp.zeros_like(finite)
    invalid = jnp.select(
        [~finite, negative, jnp.all(signal == 0, axis=-1)],
        [int(Status.NOT_FINITE), int(Status.NEGATIVE_MAGNITUDE), int(Status.NO_SIGNAL)],
        int(Status.OK),
    )
    if voxels.mask is not None:
        invalid = jnp.where(voxels.mask, invalid, int(Status.MASKED))
    usable = invalid == Status.OK
    # No NaN reaches the solver: the placeholder is a falling line.
    placeholder = jnp.linspace(1.0, 0.5, signal.shape[-1], dtype=signal.real.dtype)
    cleaned = Voxels(
        signal=jnp.where(usable[:, None], signal, placeholder),
        known={name: jnp.where(usable, value, 1.0) for name, value in voxels.known.items()},
        init=voxels.init,
        sigma=None if voxels.sigma is None else jnp.where(usable, voxels.sigma, 1.0),
        weights=None if weights is None else jnp.where(usable[:, None], weights, 1.0),
        bounds={name: _where(usable, pair, (-jnp.inf, jnp.inf)) for name, pair in voxels.bounds.items()},
        prior={name: _where(usable, pair, (1.0, 1.0)) for name, pair in voxels.prior.items()},
    )
    return cleaned, invalid


def _compares_magnitudes(model: SignalModel, signal: Inexact[Array, "voxel n"]) -> bool:
    """Whether the measurements are real and the model predicts magnitudes, or numbers whose magnitude is compared."""
    if model.magnitude or jnp.iscomplexobj(signal):
        return model.magnitude
    number = jax.ShapeDtypeStruct((), signal.dtype)
    return jnp.iscomplexobj(jax.eval_shape(model, model.parameters(*[number] * len(model.limits()))))


def is_negative(signal: Float[Array, "voxel n"]) -> Bool[Array, " voxel"]:
    """Where a measurement is below zero by more than the interpolation of magnitudes explains."""
    return jnp.min(signal, axis=-1) < -_LEAST_MAGNITUDE * jnp.max(jnp.abs(signal), axis=-1)


def _where(usable: Array, pair: tuple[Array, Array], otherwise: tuple[float, float]) -> tuple[Array, Array]:
    return jnp.where(usable, pair[0], otherwise[0]), jnp.where(usable, pair[1], otherwise[1])


_EQUALLY_GOOD = 1.0  # of two minima, the most that their misfits differ by, in units of the variance of the noise
_LEAST_MAGNITUDE = 0.1  # interpolation makes magnitudes so much negative, relative to the largest measurement


def _problem(model: SignalModel, kind_of_noise: type[Noise], free: tuple[str, ...], voxels: Voxels) -> Problem:
    """The batch in units of its largest measurement, measurements first, with its start and its bounds."""
    # The unit does not affect the result, so it has no derivative.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(voxels.signal), axis=-1))
    scale = scale if model.signal_units else jnp.ones_like(scale)  # no parameter would make up for it
    given: dict[str, Any] = {} if voxels.sigma is None else {"sigma": voxels.sigma / scale}
    given |= {} if voxels.weights is None else {"weights": voxels.weights.T}
    noise = kind_of_noise(**given)
    problem = Problem(model, noise, (voxels.signal / scale[:, None]).T, scale, {}, (), (), (), free)
    units = problem.units
    known = {name: v / units[name] for name, v in voxels.known.items()}
    sigmas = {name: given["sigma"] * units[name] for name in voxels.prior}
    prior = {name: (mean / units[name], sigmas[name] / sd) for name, (mean, sd) in voxels.prior.items()}
    problem = dataclasses.replace(problem, known=known, prior=prior)
    lower, upper = zip(*(range_of(problem, name, voxels.bounds) for name in free), strict=True)
    return dataclasses.replace(problem, lower=lower, upper=upper, bounded=tuple(sorted(voxels.bounds)))


def _maps(
    problem: Problem, solution: Solution, bars: ErrorBars, status: Array, covariance: bool, gap: Array | None
) -> FitResult:
    """Back to scanner units, with NaN wherever there is no answer."""
    model, ok, units = problem.model, status == Status.OK, problem.units
    variances = [row[i] for i, row in enumerate(bars.covariance)]
    # sqrt has no derivative at 0, which voxels without an answer may have.
    errors = problem.join(tuple(jnp.sqrt(jnp.where(ok, v, 1.0)) for v in variances))
    values = problem.known | dict(zip(problem.free, solution.values, strict=True))
    of_free = dict(zip(problem.free, errors, strict=True))

    def only_answers(value: Array) -> Array:
        return jnp.where(ok.reshape(-1, *[1] * (value.ndim - 1)), value, jnp.nan)

    matrix = None
    if covariance:
        factors = jnp.stack([units[name] * jnp.ones_like(problem.scale) for name in problem.unknowns], axis=-1)
        rows = jnp.stack([jnp.stack(row, axis=-1) for row in bars.covariance], axis=-2)
        matrix = only_answers(rows * factors[:, :, None] * factors[:, None, :])
    return FitResult(
        params=model.parameters(**{name: only_answers(values[name] * unit) for name, unit in units.items()}),
        stderr=model.parameters(
            **{n: only_answers(of_free.get(n, jnp.zeros_like(problem.scale)) * unit) for n, unit in units.items()}
        ),
        residual=only_answers(bars.residual * problem.scale),
        status=status.astype(jnp.int32),
        reduced_chi2=None if problem.noise.sigma is None else only_answers(bars.reduced_chi2),
        covariance=matrix,
        gap=None if gap is None else only_answers(gap),
    )
