"""Grids of tissue parameters: every combination of some values of each."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..estimation.constraints import check_range
from ..models.base import Numbers, Params, in_short


def grid(parameters: type, **values: Numbers) -> Params:
    """All combinations of parameter values, for `make_dictionary`; the last one named varies fastest.

    Args:
        parameters: a NamedTuple of tissue parameters such as `Tissue`.
        values: a number or (value,) numbers for each field [SI]; fields not named keep their default.

    Returns:
        `parameters` with leaves (atom,), one entry per combination.

    Raises:
        ValueError: a name that is no field, a field without value or default, values that are not a list of numbers,
            times that cannot be seconds.
    """
    fields: tuple[str, ...] = getattr(parameters, "_fields", ())
    defaults: dict[str, float] = getattr(parameters, "_field_defaults", {})
    if not fields:
        raise ValueError(f"parameters is {in_short(parameters)}, wanted a NamedTuple such as jq.Tissue.")
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"{parameters.__name__} has no {unknown}; its parameters are {list(fields)}.")
    if missing := [name for name in fields if name not in values and name not in defaults]:
        raise ValueError(f"{parameters.__name__} needs values for {missing}, e.g. {missing[0]}=1.0.")
    # NumPy keeps float64 where JAX would not.
    of_jax = any(isinstance(value, jax.Array) for value in values.values())
    axes = {name: jnp.asarray(v) if of_jax else np.asarray(v) for name, v in values.items()}
    for name, axis in axes.items():
        if axis.ndim > 1 or axis.size == 0:
            raise ValueError(f"{name} needs a number or a list of numbers, got shape {axis.shape}.")
        check_range(name, axis)
    xp: Any = jnp if of_jax else np
    combined = xp.meshgrid(*(xp.atleast_1d(axis) for axis in axes.values()), indexing="ij") if axes else []
    leaves = {name: leaf.ravel() for name, leaf in zip(axes, combined, strict=True)}
    n_atoms = math.prod(axis.size for axis in axes.values())
    return parameters(**{name: leaves[name] if name in leaves else xp.full(n_atoms, defaults[name]) for name in fields})
