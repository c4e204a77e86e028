"""From the best atom of a dictionary to the least-squares answer beside it: a few Gauss-Newton steps off the grid.

The amplitude a is eliminated: for each set of the other parameters it is the one that fits best, a = <f, y> / <f, f>
with y the signal and f the model for an amplitude of 1. The steps are those of the remaining problem, with derivatives
projected to be at right angles to f.
Source: Kaufman, BIT 15:49 (1975); Golub, Pereyra, Inverse Problems 19:R1 (2003).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..estimation import linalg
from ..estimation.derivatives import Signals, Values, with_derivatives
from ..models.base import Params, SignalModel, sum_of_measurements

_EVALUATIONS = 4  # of model and derivatives; the last only decides whether the third step was better


def refine(
    model: SignalModel,
    params: Params,
    signal: Inexact[Array, "voxel n"],
    free: tuple[str, ...],
    lower: Values,
    upper: Values,
) -> tuple[Params, Inexact[Array, " voxel"], Float[Array, " voxel"]]:
    """Parameters with a smaller misfit near those given, never with a larger one.

    Args:
        model: the signal model, in the precision of the signal.
        params: where to start: the model's NamedTuple with leaves (voxel,); the amplitude does not matter.
        signal: finite measurements, not all zero; if they are real and the model complex, magnitudes are compared.
        free: names of the parameters that may move.
        lower, upper: how far each of them may, per voxel.

    Returns:
        params, with the amplitude as it was given; the amplitude that fits best [units of the signal], complex if
        signal or model are; and |<f, y>| / (|f| |y|).
    """
    unit = jnp.max(jnp.abs(signal), axis=-1)
    y = (signal / unit[:, None]).T
    magnitudes = not jnp.iscomplexobj(y)
    # In units of how far it may move, a parameter of any kind has steps near 1.
    reach = tuple(jnp.where(high > low, high - low, 1.0) for low, high in zip(lower, upper, strict=True))
    start = tuple(jnp.broadcast_to(getattr(params, name), unit.shape) for name in free)
    one = {model.amplitude: jnp.ones_like(unit)}

    def predict(values: Values) -> Inexact[Array, "n voxel"]:
        predicted = model.batched(params._replace(**one, **dict(zip(free, values, strict=True))))
        return jnp.abs(predicted) if magnitudes and jnp.iscomplexobj(predicted) else predicted

    def iterate(_, state):
        values, best, step = state
        trial = tuple(
            jnp.clip(v + s * r, low, high) for v, s, r, low, high in zip(values, step, reach, lower, upper, strict=True)
        )
        found, next_step = _fit_and_step(model, predict, trial, reach, y)
        better = found.misfit < best.misfit
        keep = lambda new, old: jnp.where(better, new, old)  # noqa: E731
        shorter = tuple(s / 4 for s in step)
        return jax.tree.map(keep, (trial, found, next_step), (values, best, shorter))

    # Anything is better than nothing: the start needs no evaluation, and no program, of its own.
    nothing = _Fit(jnp.full_like(unit, jnp.inf), jnp.zeros_like(y[0]), jnp.zeros_like(unit))
    values, best, _ = jax.lax.fori_loop(0, _EVALUATIONS, iterate, (start, nothing, (jnp.zeros_like(unit),) * len(free)))
    return params._replace(**dict(zip(free, values, strict=True))), best.amplitude * unit, best.correlation


class _Fit(NamedTuple):
    """How well a set of parameters does."""

    misfit: Float[Array, " voxel"]  # |y - a f|^2
    amplitude: Inexact[Array, " voxel"]
    correlation: Float[Array, " voxel"]


def _fit_and_step(
    model: SignalModel,
    predict: Callable[[Values], Signals],
    values: Values,
    reach: Values,
    y: Inexact[Array, "n voxel"],
) -> tuple["_Fit", Values]:
    """The fit at these values and the Gauss-Newton step from there, in units of `reach`."""
    f, columns = with_derivatives(model, predict, values, reach)
    energy = jnp.maximum(_dot(f, f).real, jnp.finfo(y.real.dtype).tiny)
    amplitude = _dot(f, y) / energy
    residual = y - amplitude * f
    misfit, whole = _dot(residual, residual).real, _dot(y, y).real
    projected = [amplitude * (g - f * (_dot(f, g) / energy)) for g in columns]
    # A parameter that the signal does not react to, within its reach, stays where it is.
    eps = float(jnp.finfo(y.real.dtype).eps)
    floor = 1e-6 * misfit + (4 * eps) ** 2 * whole
    curvature = tuple(
        tuple(_dot(projected[i], projected[j]).real + (floor if i == j else 0.0) for j in range(i + 1))
        for i in range(len(projected))
    )
    gradient = tuple(_dot(g, residual).real for g in projected)
    step = linalg.solve(linalg.cholesky(curvature), gradient)
    correlation = jnp.minimum(jnp.abs(amplitude) * jnp.sqrt(energy / whole), 1.0)
    return _Fit(misfit, amplitude, correlation), tuple(jnp.where(jnp.isfinite(s), s, 0.0) for s in step)


def _dot(a: Inexact[Array, "n voxel"], b: Inexact[Array, "n voxel"]) -> Inexact[Array, " voxel"]:
    return sum_of_measurements(a.conj() * b)
