"""Fits a signal model to every voxel: arguments are checked, voxels laid out in a row and fitted in batches."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Inexact, Num

from ..batching.batches import DEFAULT_BATCH_SIZE, TRAINS_ON_A_CPU, device_of, in_batches, stays_in_jax
from ..batching.context import on_cpu
from ..models.base import Params, SignalModel, as_numbers, float_dtype, in_short, protocol_as_arrays, with_dtype
from ..models.check import check_model
from .batch import FitResult, Voxels, fit_batch
from .constraints import Bounds, Normal, check_constraints, check_range, open_ends
from .noise import Gaussian, Noise
from .solvers.base import Solver
from .solvers.levenberg_marquardt import LevenbergMarquardt
from .voxel_row import VoxelRow


def fit(
    model: SignalModel,
    signal: Num[ArrayLike, "*voxel n"],
    *,
    known: Mapping[str, ArrayLike | None] | None = None,
    init: Params | None = None,
    bounds: Bounds | None = None,
    prior: Mapping[str, Normal] | None = None,
    mask: Bool[ArrayLike, "*voxel"] | None = None,
    starts: int | None = None,
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
    reverse, twice too, by the implicit function theorem (`jaxqmri.estimation.implicit`); a voxel without an answer has
    derivatives of zero. For instance d(T2)/d(B1), an error budget for a B1 map that is off:
    `jax.jvp(lambda b1: fit(train, signal, known={"b1": b1, "t1": 1.0}).params.t2, (b1,), (jnp.ones_like(b1),))[1]`.

    Args:
        model: the signal model; holds the protocol.
        signal: measurements on the LAST axis, in protocol order; any leading shape [a.u.]. The precision of the fit
            follows it; integers are fitted in float32. Complex measurements are compared as they are and have a complex
            amplitude; real ones are compared with the magnitude of what a complex model predicts.
        known: parameters not to be fitted, by field name: a number or a map with the leading shape of `signal`, e.g.
            `{"b1": b1_map, "t1": 1.0}`. Those that the model calls `assumed` are held at their default unless named
            here; None sets them free. All others are fitted. What no tissue has ends its voxel as NOT_FINITE, and is
            refused if it is a number or typical of the map.
        init: start of the search, the model's NamedTuple of numbers or maps; None: the model's own guess. Least squares
            needs no start for the amplitude.
        bounds: (lowest, highest) value of fitted parameters in SI units, by field name, e.g. `{"b1": (0.6, 1.3)}`:
            numbers or maps, None for none. The ranges of the model hold as well. A voxel that ends at a bound is
            AT_BOUND: its best answer lies beyond.
        prior: what else is known of fitted parameters, by field name, e.g. `{"b1": Normal(1.0, 0.05)}`. Each is one
            measurement more, which error bars and `reduced_chi2` include; it sets an `assumed` parameter free. Needs
            `sigma` of the noise.
        mask: where to fit, with the leading shape of `signal`; elsewhere all is NaN and the status MASKED.
        starts: from how many places the search begins, spread over the ranges within `bounds`; the lowest minimum is
            the answer, or one within the bounds that is as good but for the noise. None: 1, and 2 for an `FSE` of
            unequal pulses or with a slice profile whose b1 is fitted. Takes as many times longer; `FitResult.gap` says
            how much worse the next minimum is. A voxel where that is less than the variance of the noise is AMBIGUOUS,
            unless only amplitude and b1 differ; error bars cover the next minimum as far as it is likely.
        solver: how to search; None: `LevenbergMarquardt()`.
        noise: what is known of the noise; None: `Gaussian()`, its level taken from the residuals.
        covariance: also return the covariance of the free parameters.
        batch_size: voxels at once; None: up to 32768, on a CPU 8192 trains of pulses, by `Adam` 2048. Changes memory
            and speed, never the result, save for the rounding that thousands of steps downhill carry on.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps with the leading shape of `signal`. A voxel without a trustworthy answer is NaN in every map and says why
        in `status`; it never raises and never affects its neighbours.

    Raises:
        ValueError: the last axis does not match the protocol, an argument is of the wrong type, `known`, `init`,
            `bounds` or `prior` name no parameter that is meant, do not fit the voxels or cannot be (milliseconds, per
            cent), there are fewer measurements than free parameters, a prior without `sigma`, model or noise are not
            those of complex signals, the model contradicts itself (`check_model`), `batch_size` or `starts` is below 1,
            or the solver does not know the model.
    """
    _check_types(model, init, solver, noise, starts)
    model = protocol_as_arrays(model)
    given = as_numbers(signal, "signal", "numbers with the measurements last, such as the `data` of an ImageSeries")
    noise, solver = noise or Gaussian(), solver or LevenbergMarquardt()
    xp: Any = jnp if stays_in_jax(model, given, known, init, solver, noise, bounds, prior, mask) else np
    signal = cast(Array, xp.asarray(given, float_dtype(given)))
    if jnp.iscomplexobj(signal) and not noise.least_squares:
        raise ValueError(f"signal is complex, {type(noise).__name__} noise that of magnitudes; fit jnp.abs(signal).")
    check_complex(model, signal)
    check_model(model, complex_signal=jnp.iscomplexobj(signal))
    bounds, prior = bounds or {}, prior or {}
    known = _with_assumptions(model, known or {}, prior)
    free = _free_parameters(model, signal, known, len(prior))
    check_constraints(model, free, bounds, prior, noise.sigma, is_complex=jnp.iscomplexobj(signal))
    *voxel_shape, n = signal.shape
    real = jnp.finfo(signal.dtype).dtype
    row = VoxelRow(tuple(voxel_shape), mask)

    def as_map(name: str, value: ArrayLike) -> Any:
        dtype = signal.dtype if name.removeprefix("init.") == model.amplitude else real
        wanted = f"voxels of shape {row.shape}; give a number or a map of that shape"
        return row.of(_broadcast(xp, name, value, dtype, row.shape, wanted))

    def pair_of_maps(name: str, pair: tuple[ArrayLike, ArrayLike]) -> tuple[Any, Any]:
        return as_map(name, pair[0]), as_map(name, pair[1])

    weights = noise.weights
    if weights is not None:
        wanted = f"{n} measurements in voxels of shape {row.shape}; give one weight per measurement, ({n},), "
        wanted += "or one for every number of the signal"
        weights = row.of(_broadcast(xp, "noise.weights", weights, real, signal.shape, wanted))
    voxels = Voxels(
        signal=row.of(signal),
        known={name: as_map(name, value) for name, value in known.items()},
        init=None if init is None else tuple(as_map(f"init.{name}", getattr(init, name)) for name in free),
        sigma=None if noise.sigma is None else as_map("noise.sigma", noise.sigma),
        weights=weights,
        bounds={name: pair_of_maps(f"bounds.{name}", open_ends(pair)) for name, pair in bounds.items()},
        prior={name: pair_of_maps(f"prior.{name}", (normal.mean, normal.sd)) for name, normal in prior.items()},
        mask=row.traced_mask,
    )
    for name, value in known.items():
        check_range(name, voxels.known[name] if np.ndim(value) else value)
    for name in () if init is None else free:
        check_range(f"init.{name}", getattr(init, name))
    check_signal(model, voxels.signal)
    model = with_dtype(model, real).prepared(free)
    of_model = TRAINS_ON_A_CPU if model.sequential else DEFAULT_BATCH_SIZE
    usual_size = min(of_model, solver.most_on_a_cpu) if on_cpu() else DEFAULT_BATCH_SIZE
    if starts is None:
        starts = model.usual_starts(free) if init is None and solver.minimises else 1
    common = (model, solver, type(noise), free, covariance, starts)
    return in_batches(
        fit_batch,
        common,
        voxels,
        batch_size,
        progress,
        usual_size=usual_size,
        lay_out=row.back,
        device=device_of(given),
    )


def _check_types(model: Any, init: Any, solver: Any, noise: Any, starts: Any) -> None:
    """Validate argument types."""
    if not isinstance(model, SignalModel):
        raise ValueError(f"model is {in_short(model)}, wanted a signal model such as jq.MonoExponential(te).")
    if not (solver is None or isinstance(solver, Solver)):
        raise ValueError(f"solver is {in_short(solver)}, wanted a solver such as jq.LevenbergMarquardt().")
    if not (noise is None or isinstance(noise, Noise)):
        raise ValueError(f"noise is {in_short(noise)}, wanted a noise model such as jq.Gaussian(sigma).")
    if not (init is None or isinstance(init, model.parameters)):
        raise ValueError(f"init is {in_short(init)}, wanted a {model.parameters.__name__} of numbers or maps.")
    if starts is None:
        return
    if not isinstance(starts, int) or starts < 1:
        raise ValueError(f"starts is {in_short(starts)}, wanted how many there are, at least 1.")
    if starts > 1 and not (solver is None or solver.minimises):
        raise ValueError(f"{type(solver).__name__} searches no minimum, so more starts do nothing; leave them out.")


def _with_assumptions(
    model: SignalModel, known: Mapping[str, ArrayLike | None], prior: Mapping[str, Any]
) -> dict[str, ArrayLike]:
    """What is held fixed: what is given, and the defaults of what the model assumes, unless there is a prior for it."""
    defaults = model.parameters._field_defaults  # pyright: ignore[reportAttributeAccessIssue]
    held = {name: None for name in prior if name in model.assumed} | dict(known)
    for name in (*model.ignored, *model.assumed):
        if name not in held and name not in defaults:
            raise ValueError(
                f"{type(model).__name__} does not determine {name}, which has no default in "
                f"{model.parameters.__name__}; give it one, or known={{{name!r}: ...}} (None to fit it)."
            )
        held.setdefault(name, defaults.get(name))
    return {name: value for name, value in held.items() if value is not None}


def _free_parameters(model: SignalModel, signal: Any, known: Mapping[str, Any], n_priors: int) -> tuple[str, ...]:
    fields = model.parameters._fields  # pyright: ignore[reportAttributeAccessIssue]
    if unknown := sorted(set(known) - set(fields)):
        raise ValueError(f"known names {unknown}, but {type(model).__name__} has the parameters {list(fields)}.")
    check_measurements(signal.shape, model)
    free = tuple(name for name in fields if name not in known)
    if not free:
        raise ValueError(f"known fixes every parameter of {type(model).__name__}; nothing is left to fit.")
    numbers = 2 if jnp.iscomplexobj(signal) else 1  # of a measurement, and of the amplitude
    unknowns = len(free) + (numbers - 1) * (model.amplitude in free)
    if numbers * signal.shape[-1] + n_priors < unknowns:
        measured = f"{signal.shape[-1]} {'complex ' if numbers == 2 else ''}measurements"
        raise ValueError(f"{measured} cannot determine {len(free)} parameters {list(free)}; fix some.")
    model.check_determined(free, n_priors)
    return free


def check_measurements(shape: tuple[int, ...], model: SignalModel) -> None:
    """Refuses signals whose last axis is not that of the model's protocol."""
    if not shape or shape[-1] != model.n_measurements:
        raise ValueError(
            f"signal has {shape[-1] if shape else 0} measurements on its last axis (shape {shape}), but the model's "
            f"protocol has {model.n_measurements}. Move the measurement axis last, or check the protocol."
        )


def check_complex(model: SignalModel, signal: Inexact[Any, "..."]) -> None:
    """Refuses complex signals where magnitudes are predicted."""
    if jnp.iscomplexobj(signal) and model.magnitude:
        raise ValueError(f"signal is complex, but {type(model).__name__} predicts magnitudes; give jnp.abs(signal).")


def check_signal(model: SignalModel, signal: Inexact[Any, "*voxel n"]) -> None:
    """Refuses measurements that cannot be of this kind; traced, only their type is known."""
    model.check_signal(np.zeros(signal.shape[-1:], signal.dtype) if isinstance(signal, Tracer) else signal)


def _broadcast(xp: Any, name: str, value: Any, dtype: Any, shape: tuple[int, ...], wanted: str) -> Inexact[Any, "..."]:
    value = xp.asarray(as_numbers(value, name, "a number or a map"), dtype)
    try:
        return xp.broadcast_to(value, shape)
    except ValueError as error:
        raise ValueError(f"{name} has shape {value.shape}, but the signal has {wanted}.") from error
