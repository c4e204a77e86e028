"""Fits a signal model to every voxel: arguments are checked, voxels laid out in a row and fitted in batches."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Inexact, Num

from ..batching.batches import DEFAULT_BATCH_SIZE, TRAINS_ON_A_CPU, in_batches
from ..batching.context import on_cpu
from ..models.base import Params, SignalModel, as_numbers, float_dtype, in_short, with_dtype
from ..models.check import check_model
from ..quantities import QUANTITIES
from .batch import FitResult, Voxels, fit_batch
from .noise import Gaussian, Noise
from .solvers.base import Solver
from .solvers.levenberg_marquardt import LevenbergMarquardt


def fit(
    model: SignalModel,
    signal: Num[ArrayLike, "*voxel n"],
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
            no parameter, do not fit the voxels or are no seconds, there are fewer measurements than free parameters,
            model or noise are not those of complex signals, the model contradicts itself (`check_model`), `batch_size`
            is below 1, or the solver does not know the model.
    """
    _check_types(model, init, solver, noise)
    signal = as_numbers(signal, "signal", "numbers with the measurements last, such as the `data` of an ImageSeries")
    signal = signal.astype(float_dtype(signal))
    noise, solver = noise or Gaussian(), solver or LevenbergMarquardt()
    if jnp.iscomplexobj(signal) and not noise.least_squares:
        raise ValueError(f"signal is complex, {type(noise).__name__} noise that of magnitudes; fit jnp.abs(signal).")
    if jnp.iscomplexobj(signal) and model.magnitude:
        raise ValueError(f"signal is complex, but {type(model).__name__} predicts magnitudes; fit jnp.abs(signal).")
    check_model(model, complex_signal=jnp.iscomplexobj(signal))
    known = _with_assumptions(model, known or {})
    free = _free_parameters(model, signal.shape, known)
    if not isinstance(signal, Tracer):
        model.check_signal(signal)
    *voxel_shape, n = signal.shape
    real = signal.real.dtype

    def as_map(name: str, value: ArrayLike) -> Array:
        dtype = signal.dtype if name.removeprefix("init.") == model.amplitude else real
        wanted = f"voxels of shape {tuple(voxel_shape)}; give a number or a map of that shape"
        return _broadcast(name, value, dtype, (*voxel_shape,), wanted).ravel()

    weights = noise.weights
    if weights is not None:
        wanted = f"{n} measurements in voxels of shape {tuple(voxel_shape)}; give one weight per measurement, ({n},), "
        wanted += "or one for every number of the signal"
        weights = _broadcast("noise.weights", weights, real, signal.shape, wanted).reshape(-1, n)
    voxels = Voxels(
        signal=signal.reshape(-1, n),
        known={name: as_map(name, value) for name, value in known.items()},
        init=None if init is None else tuple(as_map(f"init.{name}", getattr(init, name)) for name in free),
        sigma=None if noise.sigma is None else as_map("noise.sigma", noise.sigma),
        weights=weights,
    )
    model = with_dtype(model, real)
    of_model = TRAINS_ON_A_CPU if model.sequential else DEFAULT_BATCH_SIZE
    usual_size = min(of_model, solver.most_on_a_cpu) if on_cpu() else DEFAULT_BATCH_SIZE
    common = (model, solver, type(noise), free, covariance)
    result = in_batches(fit_batch, common, voxels, batch_size, progress, usual_size)
    return jax.tree.map(lambda leaf: leaf.reshape(*voxel_shape, *leaf.shape[1:]), result)


def _check_types(model: Any, init: Any, solver: Any, noise: Any) -> None:
    """Validate argument types."""
    if not isinstance(model, SignalModel):
        raise ValueError(f"model is {in_short(model)}, wanted a signal model such as jq.MonoExponential(te).")
    if not (solver is None or isinstance(solver, Solver)):
        raise ValueError(f"solver is {in_short(solver)}, wanted a solver such as jq.LevenbergMarquardt().")
    if not (noise is None or isinstance(noise, Noise)):
        raise ValueError(f"noise is {in_short(noise)}, wanted a noise model such as jq.Gaussian(sigma).")
    if not (init is None or isinstance(init, model.parameters)):
        raise ValueError(f"init is {in_short(init)}, wanted a {model.parameters.__name__} of numbers or maps.")


def _with_assumptions(model: SignalModel, known: Mapping[str, ArrayLike | None]) -> dict[str, ArrayLike]:
    """What is held fixed: what is given, and the defaults of what the model assumes."""
    defaults = model.parameters._field_defaults  # pyright: ignore[reportAttributeAccessIssue]
    held = dict(known)
    for name in (*model.ignored, *model.assumed):
        if name not in held and name not in defaults:
            raise ValueError(
                f"{type(model).__name__} does not determine {name}, which has no default in "
                f"{model.parameters.__name__}; give it one, or known={{{name!r}: ...}} (None to fit it)."
            )
        held.setdefault(name, defaults.get(name))
    return {name: value for name, value in held.items() if value is not None}


def _free_parameters(model: SignalModel, shape: tuple[int, ...], known: Mapping[str, Any]) -> tuple[str, ...]:
    fields = model.parameters._fields  # pyright: ignore[reportAttributeAccessIssue]
    if unknown := sorted(set(known) - set(fields)):
        raise ValueError(f"known names {unknown}, but {type(model).__name__} has the parameters {list(fields)}.")
    check_measurements(shape, model)
    for name, value in known.items():
        check_seconds(name, value)
    free = tuple(name for name in fields if name not in known)
    if not free:
        raise ValueError(f"known fixes every parameter of {type(model).__name__}; nothing is left to fit.")
    if shape[-1] < len(free):
        raise ValueError(f"{shape[-1]} measurements cannot determine {len(free)} parameters {list(free)}; fix some.")
    return free


def check_measurements(shape: tuple[int, ...], model: SignalModel) -> None:
    """Refuses signals whose last axis is not that of the model's protocol."""
    if not shape or shape[-1] != model.n_measurements:
        raise ValueError(
            f"signal has {shape[-1] if shape else 0} measurements on its last axis (shape {shape}), but the model's "
            f"protocol has {model.n_measurements}. Move the measurement axis last, or check the protocol."
        )


def check_seconds(name: str, value: ArrayLike) -> None:
    """Refuses times of tissue, by their median, that must be in milliseconds."""
    quantity = QUANTITIES.get(name)
    if quantity is None or quantity.unit != "s" or isinstance(value, Tracer):
        return
    times = np.asarray(value)
    times = times[np.isfinite(times) & (times > 0)]
    if times.size and np.median(times) > quantity.high:
        raise ValueError(f"{name} is in seconds, got {np.median(times):g}; divide milliseconds by 1000.")


def _broadcast(name: str, value: ArrayLike, dtype: Any, shape: tuple[int, ...], wanted: str) -> Inexact[Array, "..."]:
    value = jnp.asarray(value, dtype)
    try:
        return jnp.broadcast_to(value, shape)
    except ValueError as error:
        raise ValueError(f"{name} has shape {value.shape}, but the signal has {wanted}.") from error
