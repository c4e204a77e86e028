"""Exponential decay: gradient echoes (T2*) and ideal spin echoes (T2)."""

import functools
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact

from .base import NOTHING, Known, SignalModel, as_float_array, check_times, sum_of_measurements
from .guess import fitting_amplitude, inner_product, squares, visible_times


class Decay(NamedTuple):
    """Parameters of an exponential decay."""

    s0: Float[Array, ""]  # a.u., signal at TE = 0
    t2: Float[Array, ""]  # s; T2* for gradient echoes, T2 for spin echoes


class DecayWithOffset(NamedTuple):
    """Parameters of an exponential decay to a constant."""

    s0: Float[Array, ""]  # a.u., what decays, at TE = 0
    t2: Float[Array, ""]  # s
    offset: Float[Array, ""]  # a.u., what is left at late echoes; not negative


class MonoExponential(SignalModel):
    """S(TE) = S0 exp(-TE / T2) [+ C]: the magnitude of gradient echoes (then T2 is T2*) or of ideal spin echoes.

    Without an offset C it leaves out the noise floor, and in any case through-slice dephasing and stimulated echoes,
    each of which bends the curve. With one its parameters are a `DecayWithOffset`, and T2 is told far worse: the echoes
    should go on for three T2 or more. C = 0 is an answer, error bars are those as if it could be negative.
    Source: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences (2004), §14.1; Milford et al., PLoS One 10:e0145255
    (2015) compare an offset with truncation.

        jq.fit(jq.MonoExponential(te, offset=True), signal, known={"offset": floor})  # or estimated: without known

    Args:
        te: (echo,) echo times, at least two, with an offset three, in any order [s].
        offset: whether the decay ends on a constant, not negative, that a fit estimates unless it is known.

    Raises:
        ValueError: too few different echo times, or times that cannot be seconds.
    """

    te: Float[Array, " echo"] = eqx.field(converter=as_float_array)
    offset: bool = eqx.field(default=False, static=True)

    parameters: ClassVar[Any] = property(lambda self: DecayWithOffset if self.offset else Decay)
    amplitude: ClassVar[Any] = property(lambda self: None if self.offset else "s0")
    broadcasts: ClassVar[bool] = True

    @property
    def signed(self) -> tuple[str, ...]:
        return ("offset",) if self.offset else ()

    def __check_init__(self):
        check_times("te", self.te, different=3 if self.offset else 2)

    def check_signal(self, signal: Inexact[ArrayLike, "*voxel n"]) -> None:
        if jnp.iscomplexobj(signal):
            raise ValueError(
                "signal is complex, but MonoExponential predicts magnitudes; fit jnp.abs(signal), or complex gradient "
                "echoes by ComplexGradientEcho(te)."
            )

    def __call__(self, params: Any) -> Float[Array, "echo ..."]:
        decay = params.s0 * jnp.exp(-self.te * (1 / params.t2))
        return decay + params.offset if self.offset else decay

    def initial_guess(self, signal: Inexact[Array, "echo ..."], known: Known = NOTHING) -> Any:
        if not self.offset:
            return self._decay(signal)
        if "offset" in known:
            s0, t2 = self._decay(signal - known["offset"])
            return DecayWithOffset(s0, t2, known["offset"])
        best, (s0, t2) = self._decay_to_constant(signal), self._decay(signal)
        above = best.offset > 0  # where the best constant is negative, the best one that is not is 0
        return DecayWithOffset(
            jnp.where(above, best.s0, s0), jnp.where(above, best.t2, t2), jnp.maximum(best.offset, 0)
        )

    def _decay_to_constant(self, signal: Inexact[Array, "echo ..."]) -> DecayWithOffset:
        """The best of a coarse search over T2, with S0 and the constant, of any sign, eliminated."""
        shapes = jnp.exp(-self.te / self._search()[:, None])
        from_mean = shapes - jnp.mean(shapes, axis=1, keepdims=True)
        sizes = jnp.linalg.norm(from_mean, axis=1)
        seen = jnp.tensordot(from_mean / sizes[:, None], signal, 1, precision=jax.lax.Precision.HIGHEST)
        at = jnp.argmax(seen, axis=0)
        s0 = jnp.max(seen, axis=0) / sizes[at]
        return DecayWithOffset(s0, self._search()[at], jnp.mean(signal, axis=0) - s0 * jnp.mean(shapes, axis=1)[at])

    def _search(self) -> Float[Array, " t2"]:
        shortest, longest = self.limits().t2
        return jnp.exp(jnp.linspace(jnp.log(shortest), jnp.log(longest), _COARSE_STEPS))

    def _decay(self, signal: Inexact[Array, "echo ..."]) -> Decay:
        # In noise the sum of squares can have two minima, and the straight line may point to the higher one: a coarse
        # search over T2, with S0 eliminated, sees both.
        search = self._search()
        shapes = jnp.exp(-self.te / search[:, None])
        unit_shapes = shapes / jnp.linalg.norm(shapes, axis=1, keepdims=True)

        echoes = list(signal)  # a product of arrays would be stored for every T2, which takes five times as long

        def compare(best: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            unit_shape, t2 = at
            seen = inner_product(list(unit_shape), echoes)
            better = seen > best[0]
            return (jnp.where(better, seen, best[0]), jnp.where(better, t2, best[1])), None

        # The larger the overlap with a decay of unit norm, the smaller the misfit.
        line = jax.lax.optimization_barrier(self.log_linear(signal).t2)  # XLA would compute it again for every echo
        te = _as_column(self.te, signal)
        along_line = list(jnp.exp(-te / line))
        start = inner_product(along_line, echoes) / jnp.sqrt(squares(along_line))
        (_, t2), _ = jax.lax.scan(compare, (start, line), (unit_shapes, search), unroll=4)
        return Decay(fitting_amplitude(list(jnp.exp(-te / t2)), echoes), t2)

    def batched_guess(self, signal: Inexact[Array, "echo voxel"], known: Known = NOTHING) -> Any:
        return self.initial_guess(signal, known)  # which broadcasts

    def limits(self) -> Any:
        ends: dict[str, Any] = {"s0": (0.0, jnp.inf), "t2": visible_times(self.te)}
        return DecayWithOffset(**ends, offset=(0.0, jnp.inf)) if self.offset else Decay(**ends)  # pyright: ignore

    def log_linear(
        self, signal: Inexact[Array, "echo ..."], weighted: bool = True, weights: Float[Array, "echo ..."] | None = None
    ) -> Decay:
        """Straight line through ln S(TE) by linear least squares.

        The logarithm inflates the noise of an echo by 1/S, which weights of S^2 undo (Veraart et al., NeuroImage 81:335
        (2013)). Echoes that are not positive have no logarithm and no weight.

        Args:
            signal: measurements of one voxel, or of many with the echoes first [a.u.].
            weighted: False gives every echo the same weight, as many programs do; late echoes then dominate the error.
            weights: relative weights of the measurements; 0 leaves one out. None: all equal.

        Returns:
            S0 [a.u.] and T2 [s], within `limits()`; a signal that does not fall has the longest T2.
        """
        te, positive = _as_column(self.te, signal), signal > 0
        largest = functools.reduce(jnp.maximum, list(jnp.abs(signal)))
        unit = jnp.where(positive, signal / largest, 1.0)  # S^2 must not overflow
        weight = jnp.where(positive, unit**2 if weighted else 1.0, 0.0)
        weight = weight if weights is None else weight * weights
        weight = weight / jnp.maximum(sum_of_measurements(weight), jnp.finfo(weight.dtype).tiny)
        log_signal = jnp.log(jnp.where(positive, signal, 1.0))
        te_mean = sum_of_measurements(weight * te)
        log_mean = sum_of_measurements(weight * log_signal)
        te_offset = te - te_mean
        variance = sum_of_measurements(weight * te_offset**2)
        covariance = sum_of_measurements(weight * te_offset * (log_signal - log_mean))
        shortest, longest = self.limits().t2
        safe_variance = jnp.where(variance > 0, variance, 1.0)
        rate = jnp.clip(jnp.where(variance > 0, -covariance / safe_variance, 0.0), 1 / longest, 1 / shortest)
        return Decay(s0=jnp.exp(log_mean + rate * te_mean), t2=1 / rate)


_COARSE_STEPS = 24  # a factor of 1.5 from one to the next on usual trains


def _as_column(values: Float[Array, " echo"], signal: Inexact[Array, "echo ..."]) -> Float[Array, "echo ..."]:
    return values.reshape(-1, *(1,) * (signal.ndim - 1))
