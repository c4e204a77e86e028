"""Whether a model is what it says of itself, found out before it is fitted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..batching.context import computed_at_once
from .base import SignalModel
from .guess import lattice

_N_POINTS = 5  # within the ranges, at which the signal is looked at
_STAND_IN = 0.1  # s or rad
_checked: set[Any] = set()  # kinds of models that have passed


def check_model(model: SignalModel, *, complex_signal: bool = False) -> None:
    """Refuses a model that contradicts itself: its names, its ranges, and what its signal is proportional to.

    Once per class, settings and number of measurements. Of a protocol that is being traced nothing is known but its
    shape, so its ranges are not looked at, and its signal is looked at for other numbers. The package's own models are
    checked by its tests, so that no command waits for it.
    """
    if type(model).__module__.partition(".")[0] == __name__.partition(".")[0]:
        return
    leaves, structure = jax.tree.flatten(model)
    is_traced = any(isinstance(leaf, Tracer) for leaf in leaves)
    key = (structure, complex_signal, is_traced, *map(jnp.shape, leaves))
    if key in _checked:
        return
    with computed_at_once():
        model = jax.tree.map(_stand_in, model)
        _check_names(model)
        if not is_traced:
            _check_ranges(model)
        _check_signal(model, complex_signal)
    _checked.add(key)


def _stand_in(leaf: Any) -> Any:
    """Numbers that may be any protocol, in place of traced ones."""
    if not isinstance(leaf, Tracer) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    return (_STAND_IN * jnp.linspace(0.1, 1, leaf.size)).reshape(leaf.shape).astype(leaf.dtype)


def _check_names(model: SignalModel) -> None:
    kind, fields = type(model).__name__, list(getattr(model.parameters, "_fields", ()))
    if not fields:
        raise ValueError(f"parameters of {kind} is {model.parameters!r}, wanted a NamedTuple class.")
    if model.amplitude is not None and model.amplitude not in fields:
        raise ValueError(
            f"amplitude of {kind} is {model.amplitude!r}, which is none of its parameters {fields}; name the one that "
            "the signal is proportional to, or declare amplitude = None."
        )
    limits = model.limits()
    if not isinstance(limits, model.parameters) or not all(np.shape(pair) == (2,) for pair in limits):  # pyright: ignore
        raise ValueError(
            f"limits() of {kind} is {limits!r}, wanted a {model.parameters.__name__} of (lowest, highest)."
        )
    for claim in ("ignored", "assumed", "signed", "mirrored"):
        if unknown := [name for name in getattr(model, claim) if name not in fields]:
            raise ValueError(f"{claim} of {kind} names {unknown}, but its parameters are {fields}.")


def _check_ranges(model: SignalModel) -> None:
    for name, pair in model.limits()._asdict().items():
        low, high = (float(end) for end in pair)
        found = f"the range of {name} of {type(model).__name__} is {low:g} ... {high:g}"
        if not low < high:
            raise ValueError(f"{found}; the first number must be the lower one.")
        if name in (*model.signal_units, *model.ignored, *model.assumed):
            continue
        if not np.isfinite([low, high]).all():
            raise ValueError(
                f"{found}; give it finite ends or, if it is in units of the signal as an offset is, declare "
                "amplitude = None: then every parameter whose range ends at infinity is one."
            )
        if low < 0 and name not in model.signed:
            raise ValueError(f"{found}, computed from the protocol; name {name} in the property `signed`.")
        if low == 0:
            raise ValueError(
                f"{found}; give a smallest positive value, such as {1e-3 * high:g}, or a negative one, such as "
                f"{-0.1 * high:g}, if {name} may be 0."
            )


def _check_signal(model: SignalModel, complex_signal: bool) -> None:
    """Raises if the signal is not proportional to what it should be."""
    kind, units = type(model).__name__, model.signal_units
    places = lattice(len(model.limits()), _N_POINTS).T

    def at(factor: float | complex) -> Any:
        values = {}
        for place, (name, (low, high)) in zip(places, model.limits()._asdict().items(), strict=True):
            if name in units:
                values[name] = jnp.asarray(factor * (0.5 + place))
            elif name in model.signed:
                values[name] = jnp.asarray(low + (high - low) * place)
            else:
                ends = np.log(np.clip([float(low), float(high)], 1e-3, 1e3) if np.isinf(high) else [low, high])
                values[name] = jnp.asarray(np.exp(ends[0] + (ends[1] - ends[0]) * place))
        return jax.jit(lambda params: model.batched(params))(model.parameters(**values))

    once = at(1.0)
    size = np.nanmax(np.abs(once), initial=0.0)

    def proportional(factor: float | complex) -> bool:
        difference = np.nanmax(np.abs(np.asarray(at(factor)) - factor * np.asarray(once)), initial=0.0)
        return bool(difference <= 100 * np.finfo(size.dtype).eps * size)

    if units and not proportional(2.0):
        if model.amplitude is None:
            raise ValueError(
                f"the signal of {kind} is not proportional to {' and '.join(units)} (ranges that end at infinity); "
                "give such a range to all parameters in units of the signal, and finite ends to all others."
            )
        raise ValueError(
            f"the signal of {kind} is not proportional to its amplitude {model.amplitude}; declare amplitude = None, "
            "and a range that ends at jnp.inf for every parameter in units of the signal."
        )
    if complex_signal and not (jnp.iscomplexobj(once) if model.amplitude is None else proportional(1j)):
        raise ValueError(f"signal is complex, but {kind} predicts real numbers; fit jnp.abs(signal).")
