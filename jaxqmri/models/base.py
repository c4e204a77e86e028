"""The interface every estimator works on: a signal model holds the protocol and is called with the tissue.

A model is written for ONE voxel, as the physics is; `jax.vmap` makes it many. Estimators work on whole batches laid out
(measurement, voxel), voxels contiguous, and call `batched`.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact, Num
from numpy.typing import NDArray

from ..batching.batches import device_of, in_batches, stays_in_jax
from ..quantities import QUANTITIES
from .guess import coarse_search, total

LONG_TRAIN = 64  # measurements; loops over more of them are not unrolled
Known = Mapping[str, Inexact[Array, "..."]]  # what is known of the parameters, by field name
NOTHING: Known = MappingProxyType({})
Bounds = Mapping[str, tuple[Float[Array, "..."], Float[Array, "..."]]]  # lowest and highest, by field name
NO_BOUNDS: Bounds = MappingProxyType({})
Numbers = ArrayLike | Sequence[float]  # as callers write them
Params = Any  # a NamedTuple of the model's parameters; which one is the model's class variable `parameters`


class SignalModel(eqx.Module):
    """A pulse sequence with its protocol: tissue parameters in, measurements out.

    A new model has `parameters`, `amplitude`, a range per parameter and the signal of one voxel, and no more:

        class Stretched(NamedTuple):
            s0: jax.Array
            t: jax.Array  # s
            beta: jax.Array

        class StretchedDecay(jq.SignalModel):
            te: jax.Array  # s
            parameters, amplitude = Stretched, "s0"

            def limits(self):
                return Stretched(s0=(0, jnp.inf), t=(1e-3, 1.0), beta=(0.2, 2.0))

            def __call__(self, p):
                return p.s0 * jnp.exp(-((self.te / p.t) ** p.beta))

    What it says of itself is checked before its first fit, see `check_model`.

    Class variables:
        parameters: the NamedTuple of tissue parameters the model takes.
        amplitude: the parameter that the signal is proportional to (S0, M0). A fit finds it by linear algebra; it is
            complex if the signal is. None: there is no such parameter.
        mirrored: parameters with an upper limit beyond which the signal repeats itself: to be there is an answer, if
            `ends_at_mirror` says that this protocol has the mirror within its range.
        ordered: two positive parameters, the lower one first. A fit keeps them so; where they meet it is AT_BOUND.

    Speed, never the result:
        broadcasts: `__call__` is a formula that also takes a protocol in columns and (voxel,) parameters.
        sequential: each measurement is computed from the one before, as in a train of pulses.
        accepts_missing: `initial_guess` takes NaN for what is left out, else it gets the mean of the neighbours.
        knows_valleys: `guesses` are in valleys of their own, the deepest first.
        `initial_guess`, `guesses`, `batched_guess`, `batched`, `prepared` and the coordinates may be overridden.
    """

    parameters: eqx.AbstractClassVar[type]
    amplitude: ClassVar[Any] = None  # str or None
    mirrored: ClassVar[tuple[str, ...]] = ()
    ordered: ClassVar[tuple[str, ...]] = ()
    broadcasts: ClassVar[bool] = False
    sequential: ClassVar[bool] = False
    accepts_missing: ClassVar[bool] = False
    knows_valleys: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, params: Params) -> Inexact[Array, " n"]:
        """The measurements of one voxel."""

    @abc.abstractmethod
    def limits(self) -> Params:
        """Per parameter the (lowest, highest) value this protocol can tell apart from the values beyond it.

        A parameter that may be zero or negative has a negative lowest value; 0 is none, as positive parameters are
        searched by their logarithm, or, of one that `signed` names, an answer. The range of an amplitude is (0, inf).
        Without an `amplitude`, parameters in units of the signal are those whose highest value is `jnp.inf`, and the
        signal is proportional to all of them together: (0, inf) for S0, (-inf, inf) for an offset. An estimate within
        5 % of an end is AT_BOUND, so ranges should be wider than what is expected.
        """

    @property
    def magnitude(self) -> bool:
        """Whether the signal is what a magnitude image shows, never negative."""
        return False

    @property
    def ignored(self) -> tuple[str, ...]:
        """Parameters that the signal does not depend on."""
        return ()

    @property
    def assumed(self) -> tuple[str, ...]:
        """Parameters that these measurements do not determine; unless told, a fit holds them at their default."""
        return ()

    @property
    def signed(self) -> tuple[str, ...]:
        """Parameters that may be zero or negative; all others are positive.

        Those whose lowest value is a negative number. Where it is computed from the protocol, which `jax.jit` does not
        know, the model must name them.
        """
        return tuple(name for name, (low, _) in self.limits()._asdict().items() if _is_number(low) and low < 0)

    @property
    def signal_units(self) -> tuple[str, ...]:
        """Parameters in units of the signal, which is proportional to all of them together; see `limits`."""
        if self.amplitude is not None:
            return (self.amplitude,)
        return tuple(name for name, (_, high) in self.limits()._asdict().items() if _is_number(high) and high == np.inf)

    @property
    def n_measurements(self) -> int:
        """Length of the measurement axis."""
        leaves, structure = jax.tree.flatten(self)
        key = (structure, *map(jnp.shape, leaves))
        if key not in _lengths:
            number = jax.ShapeDtypeStruct((), next((p.dtype for p in leaves if eqx.is_inexact_array(p)), jnp.float32))
            shape = jax.eval_shape(self, self.parameters(*[number] * len(self.limits()))).shape
            if len(shape) != 1:
                raise ValueError(f"{type(self).__name__} returns an array of shape {shape}, wanted one axis: (n,).")
            _lengths[key] = shape[0]
        return _lengths[key]

    @property
    def spare(self) -> int:
        """How many measurements are needed beyond one per unknown, as where signs are lost."""
        return 0

    def check_determined(self, free: Sequence[str], n_priors: int) -> None:
        """Raises a `ValueError` for a protocol that cannot determine `free` parameters, with a remedy; optional."""

    def check_signal(self, signal: Inexact[ArrayLike, "*voxel n"]) -> None:
        """Raises a `ValueError` for measurements that cannot be of this kind, with a remedy; optional."""

    def initial_guess(self, signal: Inexact[Array, " n"], known: Known = NOTHING) -> Params:
        """A start from which a fit of one voxel's finite, not all-zero signal reaches its minimum; `known` by name."""
        return jax.tree.map(lambda leaf: leaf[0], self.guesses(signal, known, NO_BOUNDS, 1))

    def usual_starts(self, free: Sequence[str]) -> int:
        """From how many places a fit of these parameters begins unless it is told; more where valleys are alike."""
        return 1

    def guesses(self, signal: Inexact[Array, " n"], known: Known, bounds: Bounds, n: int) -> Params:
        """Starts of one voxel's fit within bounds, each from another part of the ranges: leaves (n,).

        Fits with bounds, a prior or several starts ask for them beside `initial_guess`, which knows none of these.

        Args:
            signal: measurements of one voxel.
            known: what is known of its parameters, by field name.
            bounds: lowest and highest value of some of the others.
            n: how many.
        """
        return coarse_search(self, signal, known, bounds, n)

    def prepared(self, free: Sequence[str]) -> "SignalModel":
        """The same model, for many fits of these parameters; optional."""
        return self

    def unaliased(self, params: Params) -> Params:
        """Of all parameters that have this very signal, those within the range in which a guess searches."""
        return params

    @property
    def restores_polarity(self) -> bool:
        """Whether its magnitudes had a sign that a fit finds: negative up to some measurement, positive beyond."""
        return False

    def to_coordinate(self, name: str, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """A parameter as the fit moves it, such that equal steps change the signal about equally."""
        return value / self._longest_step(name) if name in self.signed else jnp.log(value)

    def from_coordinate(self, name: str, coordinate: Float[Array, "..."]) -> Float[Array, "..."]:
        """Inverse of `to_coordinate`."""
        return coordinate * self._longest_step(name) if name in self.signed else jnp.exp(coordinate)

    def ends_at_mirror(self, name: str) -> Bool[ArrayLike, ""]:
        """Whether the upper limit of a `mirrored` parameter is where the signal begins to repeat itself; optional."""
        return name in self.mirrored

    def _longest_step(self, name: str) -> Any:
        """Of a fit, in a parameter that may be negative: a tenth of its range, or 1 in units of the signal."""
        low, high = getattr(self.limits(), name)
        return 1.0 if name in self.signal_units else (high - low) / 10

    def batched(self, params: Params) -> Inexact[Array, "n voxel"]:
        """The measurements of many voxels, from (voxel,) leaves; measurements FIRST, so that voxels are contiguous."""
        if not self.broadcasts:
            return jax.vmap(self, out_axes=-1)(params)
        # vmap would put the voxels first and transpose: 3 times slower on a CPU.
        return jax.tree.map(lambda leaf: leaf[:, None] if leaf.ndim else leaf, self)(params)

    def batched_guess(self, signal: Inexact[Array, "n voxel"], known: Known = NOTHING) -> Params:
        """`initial_guess` of many voxels, measurements first."""
        return jax.vmap(self.initial_guess, in_axes=-1)(signal, dict(known))


_FOR_EVER = 1e6  # s; nothing is left by then, in double precision either
_lengths: dict[Any, int] = {}  # of the signals of models of one structure; to trace one takes a millisecond


def _is_number(value: Any) -> bool:
    """Whether a value is the same in every protocol, so that a program may depend on it."""
    return isinstance(value, int | float | np.number)


def simulate(model: SignalModel, params: Params, batch_size: int | None = None) -> Inexact[Array, "*voxel n"]:
    """Signals of many voxels.

    Args:
        model: the signal model; holds the protocol.
        params: the model's NamedTuple; its leaves (numbers or maps) broadcast against each other to `*voxel`. The
            amplitude may be complex, as the signal is then.
        batch_size: voxels simulated at once; None: up to 32768. Changes memory and speed, never the result.

    Returns:
        Signals with the measurements on the last axis.

    Raises:
        ValueError: the leaves do not broadcast, one but the amplitude is complex, or an argument is of the wrong type.
    """
    if not isinstance(model, SignalModel):
        raise ValueError(f"model is {in_short(model)}, wanted a signal model such as jq.MonoExponential(te).")
    if not isinstance(params, model.parameters):
        raise ValueError(
            f"params is a {type(params).__name__}, but {type(model).__name__} takes a {model.parameters.__name__}"
            f"({', '.join(model.parameters._fields)})."  # pyright: ignore[reportAttributeAccessIssue]
        )
    leaves = [as_numbers(leaf, name, "a number or a map") for name, leaf in params._asdict().items()]
    dtype = jnp.finfo(float_dtype(*leaves)).dtype  # the real one
    for name, leaf in zip(params._fields, leaves, strict=True):
        if jnp.iscomplexobj(leaf) and name != model.amplitude:
            raise ValueError(
                f"{name} is complex; only an amplitude may be (of {type(model).__name__}: {model.amplitude})."
            )
    try:
        shape = np.broadcast_shapes(*(leaf.shape for leaf in leaves))
    except ValueError as error:
        shapes = ", ".join(f"{name} {leaf.shape}" for name, leaf in zip(params._fields, leaves, strict=True))
        raise ValueError(f"params do not broadcast against each other: {shapes}.") from error
    xp = jnp if stays_in_jax(model, leaves) else np
    in_precision = (xp.asarray(leaf, dtype_of(leaf, dtype)) for leaf in leaves)
    flat = type(params)(*(xp.broadcast_to(leaf, shape).ravel() for leaf in in_precision))
    model = with_dtype(protocol_as_arrays(model), dtype)
    return in_batches(
        _simulate, (model,), flat, batch_size, device=device_of(leaves),
        lay_out=lambda signals: signals.reshape((*shape, *signals.shape[1:])),
    )  # fmt: skip


@eqx.filter_jit
def _simulate(model: SignalModel, flat: Params) -> Inexact[Array, "voxel n"]:
    return model.batched(flat).T


# --- the numbers of a protocol ----------------------------------------------------------------------------------------


def float_dtype(*values: ArrayLike) -> Any:
    """What numbers of callers are computed in: their common type, if it is one of floating point, else float32."""
    with jax.numpy_dtype_promotion("standard"):  # callers may mix types even where the package itself may not
        return jnp.promote_types(jnp.result_type(*values), jnp.float32)


def dtype_of(values: Any, real: Any) -> Any:
    """That of numbers in the precision of `real`, complex if the values are."""
    return np.result_type(real, np.complex64) if jnp.iscomplexobj(values) else np.dtype(real)


def in_short(value: Any) -> str:
    """An argument that is not what was wanted, in a few words: arrays and images would fill pages."""
    if isinstance(value, str | int | float | complex | None):
        return repr(value)
    shape = f" of shape {value.shape}" if hasattr(value, "shape") else ""
    return f"of type {type(value).__name__}{shape}"


def as_numbers(value: Any, name: str, wanted: str) -> Num[Any, "..."]:
    """An array of numbers, numpy's if it was; raises ValueError for text, images, files or None."""
    try:
        if isinstance(value, np.ma.MaskedArray):  # what is masked is no number
            value = np.ma.filled(value.astype(np.result_type(value.dtype, np.float32)), np.nan)
        if not isinstance(value, jax.Array) and hasattr(value, "__array__"):
            value = _native(np.asarray(value))
            if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "biufc":
                return value
        return jnp.asarray(value)
    except OverflowError:  # Python's integers have no end
        return jnp.asarray(np.asarray(value, np.float32))
    except (TypeError, ValueError, SyntaxError):
        raise ValueError(f"{name} is {in_short(value)}, wanted {wanted}.") from None  # JAX quotes all of the value


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """In a type that JAX has: bytes in the order of the processor, 64-bit integers as numbers that do not wrap."""
    if values.dtype.kind in "iu" and values.dtype.itemsize > 4:
        return values.astype(np.float32)
    if values.dtype.kind in "fc" and values.dtype.itemsize > (8 if values.dtype.kind == "f" else 16):
        return values.astype(np.float64 if values.dtype.kind == "f" else np.complex128)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def as_float_array(value: Numbers) -> Inexact[Array, "..."]:
    """Protocol numbers: floating point even if they were written as integers."""
    numbers = as_numbers(value, "the protocol", "a number or a list of numbers, in SI units")
    numbers = numbers.astype(float_dtype(numbers))
    return jax.device_put(numbers) if isinstance(numbers, np.ndarray) else numbers  # `jnp.asarray` would compile


def optional_float_array(value: Numbers | None) -> Inexact[Array, "..."] | None:
    """The same for what may be left out."""
    return None if value is None else as_float_array(value)


def finite_or_none(value: ArrayLike | None) -> Float[Array, "..."] | None:
    """None for a time in which everything recovers, None or infinite: that is another program, not another number."""
    if value is None or (not isinstance(value, Tracer) and np.all(np.isinf(np.asarray(value)))):
        return None
    time = as_float_array(value)
    # Where it is not known yet whether it is infinite; infinity times a signal of 0 would be a derivative of NaN.
    return jnp.where(jnp.isinf(time), _FOR_EVER, time) if isinstance(time, Tracer) else time


def protocol_as_arrays(model: SignalModel) -> SignalModel:
    """The same model with the lists of numbers among its fields as arrays."""
    for field in dataclasses.fields(model):
        value = getattr(model, field.name, None)
        if isinstance(value, list | tuple) and value and not field.metadata.get("static", False):
            array = as_float_array(value)
            model = eqx.tree_at(lambda model, name=field.name: getattr(model, name), model, array)
    return model


def with_dtype(model: SignalModel, dtype: Any) -> SignalModel:
    """The same model with its floating-point protocol in `dtype`, so that arithmetic follows the signal."""
    if all(leaf.dtype == dtype for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)):
        return model
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, model)


def check_times(name: str, times: Float[Array, "..."], *, longest: float | None = None, different: int = 0) -> None:
    """Refuses times that cannot be seconds: longer than `longest` [s], or than their row of `QUANTITIES` allows.

    With `different`, they must be a list of at least so many different ones. Nothing is known under a transformation.
    """
    term = QUANTITIES[name].terms
    if different and (times.ndim != 1 or times.shape[0] < different):
        raise ValueError(f"{name} needs at least {different} {term} in one dimension, got shape {times.shape}.")
    if isinstance(times, Tracer):
        return
    values = np.asarray(times)
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise ValueError(f"{name} must be finite and not negative [s], got {values}.")
    if np.any(values > (QUANTITIES[name].high if longest is None else longest)):
        raise ValueError(f"{name} is in seconds, got up to {values.max():g} s; divide milliseconds by 1000.")
    if len(np.unique(values)) < different:
        raise ValueError(f"{name} needs at least {different} different {term}, got only {values.flat[0]:g} s.")


def check_radians(name: str, angles: Float[Array, "..."], largest: float) -> None:
    """Refuses angles beyond `largest` [rad], as degrees would be."""
    if not isinstance(angles, Tracer) and np.any(np.abs(np.asarray(angles)) > np.float32(largest)):
        raise ValueError(f"{name} are in radians, got up to {np.max(np.abs(angles)):g}; use jnp.deg2rad.")


def check_repetition(tr: Float[Array, "..."], duration: Float[Array, "..."], of: str) -> None:
    """Refuses a repetition time [s] that is not longer than what is repeated."""
    if not isinstance(tr, Tracer) and not isinstance(duration, Tracer) and np.any(np.asarray(tr) <= duration):
        raise ValueError(f"tr is {float(jnp.min(tr)):g} s, not longer than {of} of {float(jnp.max(duration)):g} s.")


def sum_of_measurements(terms: Inexact[Array, "n ..."]) -> Inexact[Array, "..."]:
    """Sum over the first axis, term by term.

    XLA turns some sums of products into matrix products, whose rounding depends on how many voxels there are, and its
    column sums are 4 times slower on a CPU. Long trains are added in a loop: unrolled, they take long to compile.
    """
    if terms.shape[0] > LONG_TRAIN:
        return jax.lax.fori_loop(1, terms.shape[0], lambda i, total: total + terms[i], terms[0])
    return total(list(terms))
