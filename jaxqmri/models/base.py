"""The interface every estimator works on: a signal model holds the protocol and is called with the tissue.

A model is written for ONE voxel, as the physics is; `jax.vmap` makes it many. Estimators work on whole batches laid out
(measurement, voxel), voxels contiguous, and call `batched`; a model whose formula broadcasts overrides it.
"""

import abc
import functools
import math
import operator
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact

from ..batching.batches import in_batches

LONG_TRAIN = 64  # measurements; loops over more of them are not unrolled
NOTHING: Mapping[str, Any] = MappingProxyType({})
Params = Any  # a NamedTuple of the model's parameters; which one is the model's class variable `parameters`


class SignalModel(eqx.Module):
    """A pulse sequence with its protocol: tissue parameters in, measurements out.

    Class variables:
        parameters: the NamedTuple of tissue parameters the model takes.
        amplitude: the field the signal is proportional to (S0, M0).
        signed: the fields that may be zero or negative; all others are positive.
        mirrored: the fields with an upper limit beyond which the signal repeats itself: to be there is an answer.
        accepts_missing: whether `initial_guess` takes NaN for measurements that are left out; if not, the mean of
            their neighbours stands in for them.
        sequential: whether each measurement is computed from the one before, as in a train of pulses.
    """

    parameters: eqx.AbstractClassVar[type]
    amplitude: eqx.AbstractClassVar[str]
    signed: ClassVar[tuple[str, ...]] = ()
    mirrored: ClassVar[tuple[str, ...]] = ()
    accepts_missing: ClassVar[bool] = False
    sequential: ClassVar[bool] = False

    @property
    def ignored(self) -> tuple[str, ...]:
        """The fields the signal does not depend on."""
        return ()

    @property
    def assumed(self) -> tuple[str, ...]:
        """The fields that these measurements do not determine beside the others.

        A fit holds them at the default of `parameters` unless it is told what they are.
        """
        return ()

    @property
    @abc.abstractmethod
    def n_measurements(self) -> int:
        """Length of the measurement axis."""

    @abc.abstractmethod
    def __call__(self, params: Params) -> Inexact[Array, " n"]:
        """The measurements of one voxel."""

    @abc.abstractmethod
    def initial_guess(self, signal: Inexact[Array, " n"], known: Mapping[str, Float[Array, ""]] = NOTHING) -> Params:
        """A start from which a fit of one voxel's finite, not all-zero signal reaches its minimum.

        Args:
            signal: measurements of one voxel.
            known: what is known of its parameters, by field name.
        """

    @abc.abstractmethod
    def limits(self) -> Params:
        """Per parameter the (lowest, highest) value this protocol can tell apart from the values beyond it."""

    def to_coordinate(self, name: str, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """A parameter as the fit moves it, such that equal steps change the signal about equally."""
        return value if name in self.signed else jnp.log(value)

    def from_coordinate(self, name: str, coordinate: Float[Array, "..."]) -> Float[Array, "..."]:
        """Inverse of `to_coordinate`."""
        return coordinate if name in self.signed else jnp.exp(coordinate)

    def batched(self, params: Params) -> Inexact[Array, "n voxel"]:
        """The measurements of many voxels, from (voxel,) leaves; measurements FIRST, so that voxels are contiguous."""
        return jax.vmap(self, out_axes=-1)(params)

    def batched_guess(
        self, signal: Inexact[Array, "n voxel"], known: Mapping[str, Inexact[Array, " voxel"]] = NOTHING
    ) -> Params:
        """`initial_guess` of many voxels, measurements first."""
        return jax.vmap(self.initial_guess, in_axes=-1)(signal, known)


def simulate(model: SignalModel, params: Params, batch_size: int | None = None) -> Inexact[Array, "*voxel n"]:
    """Signals of many voxels.

    Args:
        model: the signal model; holds the protocol.
        params: the model's NamedTuple; its leaves (numbers or maps) broadcast against each other to `*voxel`. The
            amplitude may be complex, as the signal is then.
        batch_size: voxels simulated at once; None: 32768, or all within `jax.jit`. Changes memory and speed, never the
            result.

    Returns:
        Signals with the measurements on the last axis.

    Raises:
        ValueError: the leaves do not broadcast, one but the amplitude is complex, or `params` is not the model's type.
    """
    if not isinstance(params, model.parameters):
        raise ValueError(
            f"params is a {type(params).__name__}, but {type(model).__name__} takes a {model.parameters.__name__}"
            f"({', '.join(model.parameters._fields)})."  # pyright: ignore[reportAttributeAccessIssue]
        )
    leaves = [jnp.asarray(leaf) for leaf in params]
    dtype = float_dtype(*(jnp.real(leaf) for leaf in leaves))
    for name, leaf in zip(params._fields, leaves, strict=True):
        if jnp.iscomplexobj(leaf) and name != model.amplitude:
            raise ValueError(f"{name} is complex; only the amplitude {model.amplitude} may be.")
    try:
        shape = jnp.broadcast_shapes(*(leaf.shape for leaf in leaves))
    except ValueError as error:
        shapes = ", ".join(f"{name} {leaf.shape}" for name, leaf in zip(params._fields, leaves, strict=True))
        raise ValueError(f"params do not broadcast against each other: {shapes}.") from error
    model = with_dtype(model, dtype)
    flat = type(params)(*(jnp.broadcast_to(_in_precision(leaf, dtype), shape).ravel() for leaf in leaves))
    if batch_size is None and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, flat))):
        batch_size = max(math.prod(shape), 1)  # within a larger program: one piece of it
    return in_batches(_simulate, (model,), flat, batch_size).reshape(*shape, model.n_measurements)


def _in_precision(leaf: Array, dtype: Any) -> Array:
    return leaf.astype(np.result_type(dtype, np.complex64) if jnp.iscomplexobj(leaf) else dtype)


@eqx.filter_jit
def _simulate(model: SignalModel, flat: Params) -> Inexact[Array, "voxel n"]:
    return model.batched(flat).T


def float_dtype(*values: ArrayLike) -> Any:
    """What numbers of callers are computed in: their common type, if it is one of floating point, else float32."""
    with jax.numpy_dtype_promotion("standard"):  # callers may mix types even where the package itself may not
        return jnp.promote_types(jnp.result_type(*values), jnp.float32)


def as_float_array(value: ArrayLike) -> Float[Array, "..."]:
    """Protocol numbers: floating point even if they were written as integers."""
    value = jnp.asarray(value)
    return value.astype(float_dtype(value))


def optional_float_array(value: ArrayLike | None) -> Float[Array, "..."] | None:
    """The same for what may be left out."""
    return None if value is None else as_float_array(value)


def finite_or_none(value: ArrayLike | None) -> Float[Array, "..."] | None:
    """A time in which everything recovers, None or infinite, is another program and not another number."""
    if value is None or (not isinstance(value, Tracer) and np.all(np.isinf(np.asarray(value)))):
        return None
    return as_float_array(value)


def with_dtype(model: SignalModel, dtype: Any) -> SignalModel:
    """The same model with its floating-point protocol in `dtype`, so that arithmetic follows the signal."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, model)


def check_seconds(name: str, times: Float[Array, "..."], longest: float = 10.0) -> None:
    """Refuses times that cannot be seconds.

    Raises:
        ValueError: negative, not finite, or longer than `longest`, as milliseconds would be.
    """
    if isinstance(times, Tracer):
        return  # under a transformation the values are not known
    values = np.asarray(times)
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise ValueError(f"{name} must be finite and not negative [s], got {values}.")
    if np.any(values > longest):
        raise ValueError(f"{name} is in seconds, got up to {values.max():g} s; divide milliseconds by 1000.")


def sum_of_measurements(terms: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """Sum over the first axis, term by term.

    XLA turns some sums of products into matrix products, whose rounding depends on how many voxels there are, and its
    column sums are 4 times slower on a CPU. Long trains are added in a loop: unrolled, they take long to compile.
    """
    if terms.shape[0] > LONG_TRAIN:
        return jax.lax.fori_loop(1, terms.shape[0], lambda i, total: total + terms[i], terms[0])
    return functools.reduce(operator.add, list(terms))
