"""What is known of the parameters of a fit before it: bounds, priors and known values, and whether they can be."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from ..models.base import SignalModel, as_float_array, in_short
from ..quantities import QUANTITIES
from .problem import Problem

Bounds = Mapping[str, tuple[ArrayLike | None, ArrayLike | None]]


class Normal(eqx.Module):
    """A parameter is normally distributed about `mean` with standard deviation `sd`: a prior of `fit`.

        jq.fit(train, signal, noise=jq.Gaussian(sigma), prior={"b1": jq.Normal(mean=b1_map, sd=0.05)})

    Args:
        mean: a number or a map with the shape of the voxels, in the SI unit of the parameter.
        sd: the same; the smaller, the more it holds against the measurements.

    Raises:
        ValueError: a single mean that is not finite, or sd that is not positive and finite. In a map, that spoils its
            own voxel only.
    """

    mean: Float[Array, "..."] = eqx.field(converter=as_float_array)
    sd: Float[Array, "..."] = eqx.field(converter=as_float_array)

    def __check_init__(self):
        for name, least in (("mean", -np.inf), ("sd", 0.0)):
            value = getattr(self, name)
            if not (value.ndim or isinstance(value, Tracer)) and not least < float(value) < np.inf:
                wanted = "positive and finite" if name == "sd" else "finite"
                raise ValueError(f"{name} of a Normal must be {wanted}, got {float(value):g}.")


def check_constraints(
    model: SignalModel,
    free: Sequence[str],
    bounds: Mapping[str, Any],
    prior: Mapping[str, Any],
    sigma: Any,
    *,
    is_complex: bool,
) -> None:
    """Refuses bounds and priors that cannot be, or of what is not fitted."""
    for what, given in (("bounds", bounds), ("prior", prior)):
        _check_names(what, given, model, free, is_complex)
    for name, pair in bounds.items():
        _check_bounds(name, pair, model)
    for name, of_name in prior.items():
        if not isinstance(of_name, Normal):
            raise ValueError(f"prior of {name} is {in_short(of_name)}, wanted jq.Normal(mean, sd).")
        check_range(name, of_name.mean)
    if prior and sigma is None:
        raise ValueError(
            "a prior is weighed against the noise, whose level is not known; give it, e.g. noise=jq.Gaussian(sigma), "
            "with sigma from jq.noise_level(images) or from the residual of a fit without prior."
        )


def _check_names(what: str, given: Mapping[str, Any], model: Any, free: Sequence[str], is_complex: bool) -> None:
    kind, fields = type(model).__name__, model.parameters._fields
    if unknown := sorted(set(given) - set(fields)):
        raise ValueError(f"{what} names {unknown}, but {kind} has the parameters {list(fields)}.")
    for name in given:
        if name in free and not (is_complex and name == model.amplitude):
            continue
        if name in free:
            raise ValueError(f"{what} names {name}, which is complex as the signal is; leave it out.")
        if name in model.ignored:
            raise ValueError(f"{what} names {name}, on which the signal of {kind} does not depend; leave it out.")
        free_it = f", or known={{{name!r}: None}} to fit it" if name in model.assumed else ""
        raise ValueError(f"{what} names {name}, which is known and not fitted; leave it out{free_it}.")


def _check_bounds(name: str, pair: Any, model: SignalModel) -> None:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"bounds of {name} is {in_short(pair)}, wanted (lowest, highest), None for none.")
    low, high = open_ends(pair)
    least, most = getattr(model.limits(), name)
    if any(isinstance(end, Tracer) for end in (low, high, least, most)):
        return
    given = f"bounds of {name} are {_in_print(low)} ... {_in_print(high)}"
    quantity, highest = QUANTITIES.get(name), np.max(np.where(np.isfinite(high), high, 0))
    if quantity is not None and highest > quantity.high:
        raise ValueError(f"{given}, but {name} is {quantity.out_of_range(highest)}.")
    if np.any(np.asarray(low) >= np.asarray(high)):
        raise ValueError(f"{given}; the first must be the lower one.")
    if np.all(np.asarray(high) <= least) or np.all(np.asarray(low) >= most):
        can_tell = f"{float(least):.4g} ... {float(most):.4g}"
        raise ValueError(f"{given}, but this protocol of {type(model).__name__} tells {can_tell} alone; widen them.")


def open_ends(pair: Sequence[ArrayLike | None]) -> tuple[ArrayLike, ArrayLike]:
    """Infinite where an end is None."""
    low, high = pair
    return -np.inf if low is None else low, np.inf if high is None else high


# --- the ranges of a fit ----------------------------------------------------------------------------------------------

# Of parameters in units of the signal, relative to the largest measurement. The lower end of positive ones is reached
# by signals that are negative throughout; the upper one would need a decay by exp(-14) before the first echo.
_LEAST_AMPLITUDE, _MOST_AMPLITUDE = 1e-6, 1e6


def range_of(problem: Problem, name: str, bounds: Mapping[str, tuple[Array, Array]]) -> tuple[Array, Array]:
    """Lowest and highest value of a free parameter in the units of the problem."""
    model = problem.model
    low, high = (jnp.full_like(problem.scale, end) / problem.units[name] for end in getattr(model.limits(), name))
    if name in model.signal_units and not (problem.is_complex and name == model.amplitude):
        least = -_MOST_AMPLITUDE if name in model.signed else _LEAST_AMPLITUDE
        low, high = jnp.clip(low, least, _MOST_AMPLITUDE), jnp.clip(high, least, _MOST_AMPLITUDE)
    if name == model.amplitude and problem.noise.least_amplitude is not None:
        low = jnp.maximum(low, problem.noise.least_amplitude)
    for lower, higher in zip(model.ordered[:-1], model.ordered[1:], strict=True):
        low = jnp.maximum(low, problem.known[lower]) if name == higher and lower in problem.known else low
        high = jnp.minimum(high, problem.known[higher]) if name == lower and higher in problem.known else high
    if name in bounds:
        least, most = bounds[name]
        low, high = jnp.maximum(low, least / problem.units[name]), jnp.minimum(high, most / problem.units[name])
    return low, high


def ends_at_bound(problem: Problem, values: tuple[Array, ...]) -> Array:
    """Within 5 % of a limit of the model, at a bound that was given, or beyond it."""
    at_bound = jnp.zeros(problem.scale.shape, bool)
    slack = 0.05  # the limits are orders of magnitude; near them the cost is flat
    for name, v, low, high in zip(problem.free, values, problem.lower, problem.upper, strict=True):
        if jnp.iscomplexobj(v):
            continue
        widths = [slack * jnp.maximum(jnp.abs(v), jnp.finfo(v.dtype).tiny)] * 2
        to_mirror = problem.model.ends_at_mirror(name)
        if name in problem.bounded:
            of_model = range_of(problem, name, {})
            given = [low > of_model[0], high < of_model[1]]
            widths = [jnp.where(g, 1e-5 * jnp.abs(v), width) for g, width in zip(given, widths, strict=True)]
            to_mirror = to_mirror & ~given[1]
        least = getattr(problem.model.limits(), name)[0]
        lowest = v <= low + widths[0]
        if name in problem.model.signed and isinstance(least, float) and least == 0:
            # None at all is an answer, as of an offset; the end of a range that is given is not.
            lowest &= low > 0
        at_bound |= lowest
        at_bound |= (v >= high - widths[1]) & jnp.logical_not(to_mirror)
    if set(problem.model.ordered) <= set(problem.free):
        of_name = dict(zip(problem.free, values, strict=True))
        for lower, higher in zip(problem.model.ordered[:-1], problem.model.ordered[1:], strict=True):
            at_bound |= of_name[lower] >= (1 - slack) * of_name[higher]
    return at_bound


# --- physical ranges --------------------------------------------------------------------------------------------------


def check_range(name: str, value: ArrayLike) -> None:
    """Refuses a number, or a map whose typical value, is outside what is physical: it is in another unit."""
    quantity = QUANTITIES.get(name.rpartition(".")[2])
    if quantity is not None and not isinstance(value, Tracer) and (wrong := quantity.out_of_range(np.asarray(value))):
        raise ValueError(f"{name} is {wrong}.")


def is_possible(name: str, values: Float[Array, " voxel"]) -> Bool[Array, " voxel"]:
    """Where known values are within what is physical."""
    quantity = QUANTITIES.get(name)
    if quantity is None:
        return jnp.ones(values.shape, bool)
    return (values >= quantity.low) & (values <= quantity.high)


def _in_print(value: Any) -> str:
    return f"{float(value):g}" if np.ndim(value) == 0 else f"a map of median {np.nanmedian(np.asarray(value)):g}"
