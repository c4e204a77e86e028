"""Fits a signal model to every voxel: first guess, solver, error bars, and a reason where there is no answer."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, Int

from ..batching.batches import DEFAULT_BATCH_SIZE, TRAINS_ON_A_CPU, in_batches
from ..batching.context import on_cpu
from ..models.base import Params, SignalModel, float_dtype, with_dtype
from ..quantities import Status
from . import implicit
from .error_bars import ErrorBars, error_bars
from .noise import Gaussian, Noise
from .problem import Problem
from .solvers.base import Solution, Solver
from .solvers.levenberg_marquardt import LevenbergMarquardt


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
    """

    params: Params
    stderr: Params
    residual: Float[Array, "*voxel"]
    status: Int[Array, "*voxel"]
    reduced_chi2: Float[Array, "*voxel"] | None = None
    covariance: Float[Array, "*voxel p p"] | None = None


def fit(
    model: SignalModel,
    signal: Inexact[ArrayLike, "*voxel n"],
    *,
    known: Mapping[str, ArrayLike | None] | None = None,
    init: Params | None = None,
    solver: Solver | None = None,
    noise: Noise | None = None,
    covariance: bool = False,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> FitResult:
    """Fits `model` to every voxel: least squares, or the most likely parameters under another noise model.

    Standard errors come from the curvature at the solution, sqrt(diag((J'WJ)^-1) s^2), with the noise variance s^2
    either given (`noise=Gaussian(sigma)`) or taken from the residuals, sum(w r^2) / (n - p). In the second case
    (estimate - truth) / stderr follows Student's t with n - p degrees of freedom.
    Source: Seber, Wild, Nonlinear Regression (1989), ch. 5.

    The maps can be differentiated with respect to signal, `known`, noise and the protocol of the model, forward and
    reverse, by the implicit function theorem (see `jaxqmri.estimation.implicit`); a voxel without an answer has
    derivatives of zero. For instance d(T2)/d(B1), an error budget for a B1 map that is off:
    `jax.jvp(lambda b1: fit(train, signal, known={"b1": b1, "t1": 1.0}).params.t2, (b1,), (jnp.ones_like(b1),))[1]`.

    Args:
        model: the signal model; holds the protocol.
        signal: measurements on the LAST axis, in protocol order; any leading shape [a.u.]. The precision of the fit
            follows it; integers are fitted in float32. Complex measurements are compared as they are and have a complex
            amplitude; real ones are compared with the magnitude of what a complex model predicts.
        known: parameters not to be fitted, by field name: a number or a map with the leading shape of `signal`, e.g.
            `{"b1": b1_map, "t1": 1.0}`. Those that the model calls `assumed` are held at their default unless named
            here; None sets them free. All others are fitted.
        init: start of the search, the model's NamedTuple of numbers or maps; None: the model's own guess. Least squares
            needs no start for the amplitude.
        solver: how to search; None: `LevenbergMarquardt()`.
        noise: what is known of the noise; None: `Gaussian()`, its level taken from the residuals.
        covariance: also return the covariance of the free parameters.
        batch_size: voxels solved at once; None: 32768, on a CPU 8192 trains of pulses, by `Adam` 2048. Changes memory
            and speed, never the result, save for the rounding that thousands of steps downhill carry on.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps with the leading shape of `signal`. A voxel without a trustworthy answer is NaN in every map and says why
        in `status`; it never raises and never affects its neighbours.

    Raises:
        ValueError: the last axis does not match the protocol, an argument is of the wrong type, `known` or `init` name
            no parameter or do not fit the voxels, there are fewer measurements than free parameters, the noise model is
            not one of complex signals, `batch_size` is below 1, or the solver does not know the model.
    """
    _check_types(model, init, solver, noise)
    signal = jnp.asarray(signal)
    signal = signal.astype(float_dtype(signal))
    noise, solver = noise or Gaussian(), solver or LevenbergMarquardt()
    if jnp.iscomplexobj(signal) and not noise.least_squares:
        raise ValueError(f"signal is complex, {type(noise).__name__} noise that of magnitudes; fit jnp.abs(signal).")
    known = _with_assumptions(model, known or {})
    free = _free_parameters(model, signal.shape, known)
    *voxel_shape, n = signal.shape
    real = signal.real.dtype

    def as_map(name: str, parameter: str, value: ArrayLike) -> Array:
        is_amplitude = parameter == model.amplitude
        return _voxel_map(name, value, voxel_shape, signal.dtype if is_amplitude else real)

    voxels = _Voxels(
        signal=signal.reshape(-1, n),
        known={name: as_map(name, name, value) for name, value in known.items()},
        init=None if init is None else tuple(as_map(f"init.{name}", name, getattr(init, name)) for name in free),
        sigma=None if noise.sigma is None else _voxel_map("noise.sigma", noise.sigma, voxel_shape, real),
        weights=_weights(noise, voxel_shape, n, real),
    )
    model = with_dtype(model, real)
    most = TRAINS_ON_A_CPU if model.sequential else DEFAULT_BATCH_SIZE
    usual_size = min(most, solver.most_on_a_cpu) if on_cpu() else DEFAULT_BATCH_SIZE
    common = (model, solver, type(noise), free, covariance)
    result = in_batches(_fit_batch, common, voxels, batch_size, progress, usual_size)
    return jax.tree.map(lambda leaf: leaf.reshape(*voxel_shape, *leaf.shape[1:]), result)


class _Voxels(eqx.Module):
    """Everything that differs from voxel to voxel, voxels first."""

    signal: Inexact[Array, "voxel n"]
    known: dict[str, Inexact[Array, " voxel"]]
    init: tuple[Inexact[Array, " voxel"], ...] | None
    sigma: Float[Array, " voxel"] | None
    weights: Float[Array, "voxel n"] | None


def _check_types(model: Any, init: Any, solver: Any, noise: Any) -> None:
    """Validate argument types."""
    if not isinstance(model, SignalModel):
        raise ValueError(f"model is {model!r}, wanted a signal model such as jq.MonoExponential(te).")
    if not (solver is None or isinstance(solver, Solver)):
        raise ValueError(f"solver is {solver!r}, wanted a solver such as jq.LevenbergMarquardt().")
    if not (noise is None or isinstance(noise, Noise)):
        raise ValueError(f"noise is {noise!r}, wanted a noise model such as jq.Gaussian(sigma).")
    if not (init is None or isinstance(init, model.parameters)):
        raise ValueError(f"init is {init!r}, wanted a {model.parameters.__name__} of numbers or maps.")


def _with_assumptions(model: SignalModel, known: Mapping[str, ArrayLike | None]) -> dict[str, ArrayLike]:
    defaults = model.parameters._field_defaults  # pyright: ignore[reportAttributeAccessIssue]
    held = {name: defaults[name] for name in (*model.ignored, *model.assumed)} | dict(known)
    return {name: value for name, value in held.items() if value is not None}


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


def _weights(noise: Noise, voxel_shape: list[int], n: int, dtype: Any) -> Float[Array, "voxel n"] | None:
    if noise.weights is None:
        return None
    try:
        return jnp.broadcast_to(noise.weights.astype(dtype), (*voxel_shape, n)).reshape(-1, n)
    except ValueError as error:
        raise ValueError(
            f"noise.weights has shape {noise.weights.shape}, but the signal has {n} measurements in voxels of shape "
            f"{tuple(voxel_shape)}; give one weight per measurement, ({n},), or one for every number of the signal."
        ) from error


@eqx.filter_jit
def _fit_batch(
    model: SignalModel,
    solver: Solver,
    kind_of_noise: type[Noise],
    free: tuple[str, ...],
    covariance: bool,
    voxels: _Voxels,
) -> FitResult:
    voxels, finite, has_signal = _mask_invalid_voxels(model, voxels)
    problem = _problem(model, kind_of_noise, free, voxels)
    solution = implicit.solve(solver, problem)
    at_bound = _at_bound(problem, solution)
    # In scanner units an amplitude may overflow.
    in_units = [v * problem.scale if n == model.amplitude else v for n, v in zip(free, solution.values, strict=True)]
    found = functools.reduce(operator.and_, map(jnp.isfinite, in_units))
    sound = finite & has_signal & ~at_bound & solution.converged & found
    bars = error_bars(problem, _finite_placeholders(problem, solution, sound))
    status = jnp.select(
        [~finite, ~has_signal, at_bound, ~(solution.converged & found), ~bars.identified],
        [Status.NOT_FINITE, Status.NO_SIGNAL, Status.AT_BOUND, Status.NOT_CONVERGED, Status.UNIDENTIFIABLE],
        Status.OK,
    )
    return _maps(problem, solution, bars, status, covariance)


def _finite_placeholders(problem: Problem, solution: Solution, sound: Array) -> Solution:
    """The solution with ordinary numbers where it is none: NaN times a derivative of zero would be NaN."""
    values = tuple(jnp.where(sound, v, s) for v, s in zip(solution.values, problem.start, strict=True))
    curvature = tuple(
        tuple(jnp.where(sound, e, float(i == j)) for j, e in enumerate(row)) for i, row in enumerate(solution.curvature)
    )
    return Solution(values, solution.converged, jnp.where(sound, solution.cost, 1.0), curvature)


def _mask_invalid_voxels(model: SignalModel, voxels: _Voxels) -> tuple[_Voxels, Array, Array]:
    """The voxels with harmless numbers where they cannot be fitted; which are finite, which have a signal."""
    signal, weights = voxels.signal, voxels.weights
    finite = jnp.ones(signal.shape[0], bool)
    if weights is not None:
        finite &= jnp.all(jnp.isfinite(weights) & (weights >= 0), axis=-1)
        weights = jnp.where(finite[:, None], weights, 1.0)
        signal = jnp.where(weights > 0, signal, 0.0)
    finite &= jnp.all(jnp.isfinite(signal), axis=-1)
    if getattr(model, "magnitude", False):
        # Interpolation makes magnitudes a little negative, nothing makes them more so.
        finite &= jnp.min(signal, axis=-1) >= -_LEAST_MAGNITUDE * jnp.max(jnp.abs(signal), axis=-1)
    for name, value in voxels.known.items():
        any_sign = name in model.signed or jnp.iscomplexobj(value)
        finite &= jnp.isfinite(value) & (True if any_sign else value > 0)
    if voxels.sigma is not None:
        finite &= jnp.isfinite(voxels.sigma) & (voxels.sigma > 0)
    has_signal = jnp.any(signal != 0, axis=-1)
    usable = finite & has_signal
    # No NaN reaches the solver: a falling line stands in for voxels that cannot be fitted.
    stand_in = jnp.linspace(1.0, 0.5, signal.shape[-1], dtype=signal.real.dtype)
    cleaned = _Voxels(
        signal=jnp.where(usable[:, None], signal, stand_in),
        known={name: jnp.where(usable, value, 1.0) for name, value in voxels.known.items()},
        init=voxels.init,
        sigma=None if voxels.sigma is None else jnp.where(usable, voxels.sigma, 1.0),
        weights=None if weights is None else jnp.where(usable[:, None], weights, 1.0),
    )
    return cleaned, finite, has_signal


def _problem(model: SignalModel, kind_of_noise: type[Noise], free: tuple[str, ...], voxels: _Voxels) -> Problem:
    """The batch in unit scale, measurements first, with its start and its bounds."""
    # Nothing depends on the unit, so no derivative flows through it.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(voxels.signal), axis=-1))
    unit = (voxels.signal / scale[:, None]).T
    known = {name: v / scale if name == model.amplitude else v for name, v in voxels.known.items()}
    given: dict[str, Any] = {} if voxels.sigma is None else {"sigma": voxels.sigma / scale}
    given |= {} if voxels.weights is None else {"weights": voxels.weights.T}
    limits = model.limits()
    ends = {
        name: _AMPLITUDE_RANGE if _is_positive_amplitude(model, name, unit) else getattr(limits, name) for name in free
    }
    lower, upper = (tuple(jnp.full_like(scale, ends[name][side]) for name in free) for side in (0, 1))
    noise = kind_of_noise(**given)
    if noise.least_amplitude is not None and model.amplitude in free:
        place = free.index(model.amplitude)
        lower = (*lower[:place], jnp.maximum(lower[place], noise.least_amplitude), *lower[place + 1 :])
    problem = Problem(model, noise, unit, scale, known, (), lower, upper, free)
    return dataclasses.replace(problem, start=_start(problem, voxels.init))


def _is_positive_amplitude(model: SignalModel, name: str, signal: Array) -> bool:
    return name == model.amplitude and name not in model.signed and not jnp.iscomplexobj(signal)


# Of a positive amplitude, relative to the largest measurement. The lower end is reached by signals that are negative
# throughout; the upper one would need a decay by exp(-14) before the first echo.
_AMPLITUDE_RANGE = (1e-6, 1e6)
_LEAST_MAGNITUDE = 0.1  # below zero, relative to the largest measurement


def _start(problem: Problem, init: tuple[Array, ...] | None) -> tuple[Array, ...]:
    """Where the search begins, within the limits."""
    model, amplitude = problem.model, problem.model.amplitude
    if init is None:
        guess = model.batched_guess(_seen(problem), problem.known)
        start = {name: getattr(guess, name) for name in problem.free}
    else:
        start = dict(zip(problem.free, init, strict=True))
        start |= {amplitude: start[amplitude] / problem.scale} if amplitude in start else {}
    for name, low, high in zip(problem.free, problem.lower, problem.upper, strict=True):
        s = start[name]
        if not jnp.iscomplexobj(s):
            start[name] = jnp.where(jnp.isfinite(s), jnp.clip(s, low, high), low)
    if init is None and amplitude in start and not problem.eliminates:
        start[amplitude] = problem.best_amplitude(start)
    return tuple(start.values())


def _seen(problem: Problem) -> Array:
    """The signal as the first guess takes it where weights of zero leave measurements out."""
    signal, weights = problem.signal, problem.noise.weights
    if weights is None:
        return signal
    if problem.model.accepts_missing:
        return jnp.where(weights > 0, signal, jnp.nan)

    def last_seen(carry: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        kept = jnp.where(at[1] > 0, at[0], carry)
        return kept, kept

    nothing = jnp.full_like(signal[0], jnp.nan)
    before = jax.lax.scan(last_seen, nothing, (signal, weights))[1]
    after = jax.lax.scan(last_seen, nothing, (signal, weights), reverse=True)[1]
    before, after = jnp.where(jnp.isnan(before), after, before), jnp.where(jnp.isnan(after), before, after)
    return jnp.where(weights > 0, signal, (before + after) / 2)


def _at_bound(problem: Problem, solution: Solution) -> Array:
    """Within 5 % of a limit, or beyond it."""
    at_bound = jnp.zeros(problem.scale.shape, bool)
    slack = 0.05  # the limits are orders of magnitude, and near them a search may end in the flat
    for name, v, low, high in zip(problem.free, solution.values, problem.lower, problem.upper, strict=True):
        if jnp.iscomplexobj(v):
            continue
        width = slack * jnp.maximum(jnp.abs(v), jnp.finfo(v.dtype).tiny)
        at_bound |= v <= low + width
        if name not in problem.model.mirrored:
            at_bound |= v >= high - width
    return at_bound


def _maps(problem: Problem, solution: Solution, bars: ErrorBars, status: Array, covariance: bool) -> FitResult:
    """Back to scanner units, with NaN wherever there is no answer."""
    model, ok = problem.model, status == Status.OK
    fields = model.parameters._fields  # pyright: ignore[reportAttributeAccessIssue]
    units = {name: problem.scale if name == model.amplitude else 1.0 for name in fields}
    variances = [row[i] for i, row in enumerate(bars.covariance)]
    # sqrt has no derivative at 0: where there is no answer it must not be asked for one.
    errors = problem.join(tuple(jnp.sqrt(jnp.where(ok, v, 1.0)) for v in variances))
    values = problem.known | dict(zip(problem.free, solution.values, strict=True))
    of_free = dict(zip(problem.free, errors, strict=True))

    def only_answers(value: Array) -> Array:
        return jnp.where(ok.reshape(-1, *[1] * (value.ndim - 1)), value, jnp.nan)

    matrix = None
    if covariance:
        factors = [units[name] for name in problem.unknowns]
        rows = [
            [c * f * g for c, g in zip(row, factors, strict=True)]
            for row, f in zip(bars.covariance, factors, strict=True)
        ]
        matrix = only_answers(jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2))
    return FitResult(
        params=model.parameters(**{name: only_answers(values[name] * units[name]) for name in fields}),
        stderr=model.parameters(
            **{name: only_answers(of_free.get(name, jnp.zeros_like(problem.scale)) * units[name]) for name in fields}
        ),
        residual=only_answers(bars.residual * problem.scale),
        status=status.astype(jnp.int32),
        reduced_chi2=None if problem.noise.sigma is None else only_answers(bars.reduced_chi2),
        covariance=matrix,
    )
