"""Fits a signal model to every voxel: first guess, solver, error bars, and a reason where there is no answer."""

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from ..models.base import Params, SignalModel, with_dtype
from ..models.batches import in_batches
from . import linalg
from .noise import Gaussian
from .solvers import LevenbergMarquardt, Problem, Solver


class Status(enum.IntEnum):
    """Why a voxel has an answer, or has none."""

    OK = 0  # fitted
    NO_SIGNAL = 1  # every measurement is zero
    NOT_FINITE = 2  # a measurement, or what is given for the voxel (known, sigma), is NaN, infinite or impossible
    NOT_CONVERGED = 3  # the solver did not reach a minimum (Adam and Optax: is 10 % or more away from one)
    AT_BOUND = 4  # a parameter ran to the end of what the protocol can tell apart (a constant or rising signal)
    UNIDENTIFIABLE = 5  # the measurements do not determine all the parameters
    MASKED = 6  # outside the mask, not fitted


class FitResult(NamedTuple):
    """Maps of a fit, each with the leading shape of the signal.

    Attributes:
        params: the model's NamedTuple; NaN where `status` is not OK.
        stderr: standard errors in the units of the parameters, 0 for known ones; NaN where there are as many
            measurements as parameters and no `sigma` was given.
        residual: root mean square of the misfit [units of the signal].
        status: `Status` codes.
    """

    params: Params
    stderr: Params
    residual: Float[Array, "*voxel"]
    status: Int[Array, "*voxel"]


def fit(
    model: SignalModel,
    signal: Float[ArrayLike, "*voxel n"],
    *,
    known: Mapping[str, ArrayLike] | None = None,
    init: Params | None = None,
    solver: Solver | None = None,
    noise: Gaussian | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> FitResult:
    """Fits `model` to every voxel by nonlinear least squares.

    Standard errors come from the curvature at the solution, sqrt(diag((J'J)^-1) s^2), with the noise variance s^2
    either given (`noise=Gaussian(sigma)`) or taken from the residuals, sum(r^2) / (n - p). In the second case
    (estimate - truth) / stderr follows Student's t with n - p degrees of freedom.
    Source: Seber, Wild, Nonlinear Regression (1989), ch. 5.

    Args:
        model: the signal model; holds the protocol.
        signal: real measurements on the LAST axis, in protocol order; any leading shape [a.u.]. The precision of the
            fit follows it; integers are fitted in float32.
        known: parameters not to be fitted, by field name: a number or a map with the leading shape of `signal`, e.g.
            `{"b1": b1_map, "t1": 1.0}`. All others are fitted.
        init: start of the search, the model's NamedTuple of numbers or maps; None: the model's own guess.
        solver: how to search; None: `LevenbergMarquardt()`.
        noise: what is known of the noise; None: `Gaussian()`, its level taken from the residuals.
        batch_size: voxels solved at once; None: 32768. Changes memory and speed, never the result.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps with the leading shape of `signal`. A voxel without a trustworthy answer is NaN in every map and says why
        in `status`; it never raises and never affects its neighbours.

    Raises:
        ValueError: the last axis does not match the protocol, the signal is complex, an argument is of the wrong type,
            `known` or `init` name no parameter or do not fit the voxels, there are fewer measurements than free
            parameters, `batch_size` is below 1, or the solver does not know the model.
    """
    _check_types(model, init, solver, noise)
    signal = jnp.asarray(signal)
    if jnp.iscomplexobj(signal):
        raise ValueError("signal is complex, the model is of magnitudes; fit jnp.abs(signal).")
    signal = signal.astype(jnp.promote_types(signal.dtype, jnp.float32))
    known, noise, solver = dict(known or {}), noise or Gaussian(), solver or LevenbergMarquardt()
    known = {name: model.parameters()._asdict()[name] for name in model.ignored} | known
    free = _free_parameters(model, signal.shape, known)
    *voxel_shape, n = signal.shape
    voxels = _Voxels(
        signal=signal.reshape(-1, n),
        known={name: _voxel_map(name, value, voxel_shape, signal.dtype) for name, value in known.items()},
        init=None
        if init is None
        else tuple(_voxel_map(f"init.{name}", getattr(init, name), voxel_shape, signal.dtype) for name in free),
        sigma=None if noise.sigma is None else _voxel_map("noise.sigma", noise.sigma, voxel_shape, signal.dtype),
    )
    model = with_dtype(model, signal.dtype)
    result = in_batches(_fit_batch, (model, solver, free), voxels, batch_size, progress)
    return jax.tree.map(lambda leaf: leaf.reshape(voxel_shape), result)


class _Voxels(eqx.Module):
    """Everything that differs from voxel to voxel, voxels first."""

    signal: Float[Array, "voxel n"]
    known: dict[str, Float[Array, " voxel"]]
    init: tuple[Float[Array, " voxel"], ...] | None
    sigma: Float[Array, " voxel"] | None


def _check_types(model: Any, init: Any, solver: Any, noise: Any) -> None:
    """The mistakes that people make, said in words."""
    if not isinstance(model, SignalModel):
        raise ValueError(f"model is {model!r}, wanted a signal model such as jq.MonoExponential(te).")
    if not (solver is None or isinstance(solver, Solver)):
        raise ValueError(f"solver is {solver!r}, wanted a solver such as jq.LevenbergMarquardt().")
    if not (noise is None or isinstance(noise, Gaussian)):
        raise ValueError(f"noise is {noise!r}, wanted a noise model such as jq.Gaussian(sigma).")
    if not (init is None or isinstance(init, model.parameters)):
        raise ValueError(f"init is {init!r}, wanted a {model.parameters.__name__} of numbers or maps.")


def _free_parameters(model: SignalModel, shape: tuple[int, ...], known: Mapping[str, Any]) -> tuple[str, ...]:
    fields = model.parameters._fields  # pyright: ignore[reportAttributeAccessIssue]
    if unknown := sorted(set(known) - set(fields)):
        raise ValueError(f"known names {unknown}, but {type(model).__name__} has the parameters {list(fields)}.")
    if not shape or shape[-1] != model.n_measurements:
        raise ValueError(
            f"signal has {shape[-1] if shape else 0} measurements on its last axis (shape {shape}), but the model's "
            f"protocol has {model.n_measurements}. Move the measurement axis last, or check the protocol."
        )
    free = tuple(name for name in fields if name not in known)
    if not free:
        raise ValueError(f"known fixes every parameter of {type(model).__name__}; nothing is left to fit.")
    if shape[-1] < len(free):
        raise ValueError(f"{shape[-1]} measurements cannot determine {len(free)} parameters {list(free)}; fix some.")
    return free


def _voxel_map(name: str, value: ArrayLike, voxel_shape: list[int], dtype: Any) -> Float[Array, " voxel"]:
    value = jnp.asarray(value, dtype)
    try:
        return jnp.broadcast_to(value, voxel_shape).ravel()
    except ValueError as error:
        raise ValueError(
            f"{name} has shape {value.shape}, but the signal has voxels of shape {tuple(voxel_shape)}; "
            "give a number or a map of that shape."
        ) from error


@eqx.filter_jit
def _fit_batch(model: SignalModel, solver: Solver, free: tuple[str, ...], voxels: _Voxels) -> FitResult:
    finite = jnp.all(jnp.isfinite(voxels.signal), axis=-1)
    for name, value in voxels.known.items():
        finite &= jnp.isfinite(value) & ((value > 0) | (name in model.signed))
    if voxels.sigma is not None:
        finite &= jnp.isfinite(voxels.sigma) & (voxels.sigma > 0)
    has_signal = jnp.any(voxels.signal != 0, axis=-1)
    usable = finite & has_signal
    # No NaN reaches the solver: a falling line stands in for voxels that cannot be fitted.
    stand_in = jnp.linspace(1.0, 0.5, voxels.signal.shape[-1], dtype=voxels.signal.dtype)
    signal = jnp.where(usable[:, None], voxels.signal, stand_in)
    known = {name: jnp.where(usable, value, 1.0) for name, value in voxels.known.items()}
    problem = _problem(model, free, signal, known, voxels.init)

    values, converged, equations = solver.solve(problem)
    status = jnp.select(
        [~finite, ~has_signal, _at_bound(problem, values), ~converged],
        [Status.NOT_FINITE, Status.NO_SIGNAL, Status.AT_BOUND, Status.NOT_CONVERGED],
        Status.OK,
    )
    sigma = None if voxels.sigma is None else voxels.sigma / problem.scale
    stderr, residual, identified = _error_bars(problem, values, equations, sigma)
    status = jnp.where((status == Status.OK) & ~identified, Status.UNIDENTIFIABLE, status)
    return _maps(problem, known, values, stderr, residual, status)


def _problem(model, free, signal, known, init) -> Problem:
    """The batch in unit scale, measurements first, with its start and its bounds."""
    scale = jnp.max(jnp.abs(signal), axis=-1)
    unit = (signal / scale[:, None]).T
    if model.amplitude in known:
        known = known | {model.amplitude: known[model.amplitude] / scale}
    if init is None:
        guess = jax.vmap(model.initial_guess, in_axes=-1)(unit)
        start = tuple(getattr(guess, name) for name in free)
    else:
        start = tuple(v / scale if name == model.amplitude else v for name, v in zip(free, init, strict=True))
    limits = model.limits()
    lower, upper = [], []
    for name in free:
        low, high = getattr(limits, name)
        if name == model.amplitude and name not in model.signed:
            low, high = _AMPLITUDE_RANGE
        lower.append(jnp.full_like(scale, low))
        upper.append(jnp.full_like(scale, high))
    start = tuple(
        jnp.where(jnp.isfinite(s), jnp.clip(s, low, high), low)
        for s, low, high in zip(start, lower, upper, strict=True)
    )
    return Problem(model, unit, scale, known, start, tuple(lower), tuple(upper), free)


# Of a positive amplitude, relative to the largest measurement. The lower end is reached by signals that are negative
# throughout; the upper one would need a decay by exp(-14) before the first echo.
_AMPLITUDE_RANGE = (1e-6, 1e6)


def _at_bound(problem: Problem, values) -> Array:
    """Within 5 % of a limit, or beyond it."""
    at_bound = jnp.zeros(problem.scale.shape, bool)
    slack = 0.05  # the limits are orders of magnitude, and near them a search may end in the flat
    for v, low, high in zip(values, problem.lower, problem.upper, strict=True):
        width = slack * jnp.maximum(jnp.abs(v), jnp.finfo(v.dtype).tiny)
        at_bound |= (v <= low + width) | (v >= high - width)
    return at_bound


def _error_bars(problem: Problem, values, equations, sigma) -> tuple[tuple[Array, ...], Array, Array]:
    """Standard errors (unit scale), rms misfit (unit scale), and whether J'J can be inverted."""
    cost, _, curvature = equations
    n, p = problem.signal.shape[0], len(values)
    variance = (jnp.full_like(cost, jnp.nan) if n == p else cost / (n - p)) if sigma is None else sigma**2
    inverse = linalg.inverse_diagonal(linalg.cholesky(curvature))
    identified = jnp.all(jnp.isfinite(jnp.stack(inverse)), axis=0)
    stderr = tuple(
        jnp.sqrt(d * variance) * (1.0 if name in problem.model.signed else v)  # d(value) = value d(log value)
        for name, v, d in zip(problem.free, values, inverse, strict=True)
    )
    return stderr, jnp.sqrt(cost / n), identified


def _maps(problem: Problem, known, values, stderr, residual, status) -> FitResult:
    """Back to scanner units, with NaN wherever there is no answer."""
    model = problem.model
    ok = status == Status.OK
    fitted = dict(zip(problem.free, zip(values, stderr, strict=True), strict=True))

    def in_scanner_units(name: str, value: Array) -> Array:
        return jnp.where(ok, value * problem.scale if name == model.amplitude else value, jnp.nan)

    fields = model.parameters._fields  # pyright: ignore[reportAttributeAccessIssue]
    params = {n: in_scanner_units(n, fitted[n][0]) if n in fitted else jnp.where(ok, known[n], jnp.nan) for n in fields}
    errors = {n: in_scanner_units(n, fitted[n][1]) if n in fitted else jnp.where(ok, 0.0, jnp.nan) for n in fields}
    return FitResult(
        params=model.parameters(**params),
        stderr=model.parameters(**errors),
        residual=jnp.where(ok, residual * problem.scale, jnp.nan),
        status=status.astype(jnp.int32),
    )
