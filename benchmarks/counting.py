"""Operations and bytes of an algorithm, counted and not timed.

Operations are counted in the jaxpr: an addition, multiplication, comparison or elementary function of one number is
one, a product of matrices has two per term. Bytes are the arrays that go in and come out, once each: what a perfect
program would move.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

import jaxqmri as jq
from jaxqmri.estimation.problem import with_derivatives
from jaxqmri.models.angles import sine_cosine

_FREE = {
    "broadcast_in_dim", "reshape", "transpose", "squeeze", "slice", "dynamic_slice", "concatenate", "pad", "copy",
    "convert_element_type", "gather", "iota", "rev", "select_and_gather_add", "stop_gradient", "optimization_barrier",
    "dynamic_update_slice", "split", "copy_p", "real", "imag", "complex",
}  # fmt: skip

FEW = 8  # voxels whose operations are counted


def operations(f: Callable[..., Any], *args: Any) -> float:
    """Arithmetic operations of a function without loops of unknown length."""
    return _operations(jax.make_jaxpr(f)(*args).jaxpr)


def _operations(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "while":
            raise ValueError("how often a while loop runs is not known before.")
        if name in _FREE:
            continue
        inner = [params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params]
        inner = [getattr(jaxpr, "jaxpr", jaxpr) for jaxpr in inner]
        if inner and inner[0].debug_info.func_name == sine_cosine.__name__:
            # Elementary, though ours is a series.
            total += sum(variable.aval.size for variable in equation.outvars)
        elif inner:
            total += params.get("length", 1) * _operations(inner[0])
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * terms * equation.outvars[0].aval.size
        elif name.startswith("reduce_"):
            total += equation.invars[0].aval.size
        else:
            total += max(variable.aval.size for variable in equation.outvars)
    return total


def n_bytes(*arrays: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays) if hasattr(leaf, "nbytes"))


def with_derivatives_of(model: Any, names: tuple[str, ...], params: Any) -> float:
    """Operations of one voxel: the signal and its derivatives by these parameters."""
    few = jax.tree.map(lambda leaf: leaf[:FEW], params)

    def predict(values: tuple[Any, ...]) -> Any:
        return model.batched(few._replace(**dict(zip(names, values, strict=True))))

    values = tuple(getattr(few, name) for name in names)
    return operations(lambda *values: with_derivatives(model, predict, values), *values) / FEW


def evaluations(model: Any, signal: Any) -> int:
    """How often a fit evaluates the signal of a voxel with derivatives, summed over the voxels."""
    made: list[int] = []

    class Counted(type(model)):
        def batched(self, params: Any) -> Any:
            n = jax.tree.leaves(params)[0].shape[0]
            jax.debug.callback(lambda: made.append(n))
            return super().batched(params)

    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    jax.block_until_ready(jq.fit(Counted(**fields), signal))
    jax.effects_barrier()
    return sum(made)
