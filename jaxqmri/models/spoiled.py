"""The steady state of spoiled gradient echoes (SPGR, FLASH, T1-FFE): variable flip angles, T1."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact

from .angles import sine_cosine
from .base import NOTHING, Known, Numbers, SignalModel, as_float_array, check_radians, check_repetition, check_times
from .guess import Measurements, fitting_amplitude, inner_product, lowest, total, visible_times
from .tissue import Tissue


def _single_if_constant(times: Numbers | None) -> Float[Array, "..."] | None:
    """None for 0, one number for a constant: what they leave to be fitted differs, so they are different programs."""
    if times is None or isinstance(times, Tracer):
        return times
    values = np.asarray(times)
    if not np.any(values):
        return None
    return as_float_array(values.flat[0] if values.ndim == 1 and np.ptp(values) == 0 else values)


class SpoiledGradientEcho(SignalModel):
    """S = M0 sin(a) (1 - E1) / (1 - E1 cos(a)) exp(-TE/T2*), with a = B1 flip_angle and E1 = exp(-TR/T1).

    The steady state with ideal spoiling: nothing transverse is left at the next pulse. The signal is largest at the
    Ernst angle, cos(a) = E1. It leaves out the slice profile, magnetisation transfer and what RF spoiling does not
    spoil, which bias T1 by several per cent. Uses m0, t1, b1 and, if `te` is not 0, t2star of `Tissue`.

    Measurements of different flip angle (or TR) determine M0 and T1. B1 cannot be told from T1, whose relative error is
    about twice that of B1: give a map, `known={"b1": b1_map}`, or b1 = 1 is assumed. T2* is fitted if TE varies; a
    constant TE cannot tell T2* from M0, and T2* is then taken as known (T1 does not depend on it).

    Limits: T1 at which at least one measurement is between saturated and not: (1 - cos flip_angle) / (exp(TR/T1) - 1)
    from 0.01 to 100. T2* as for a decay over TE.
    Source: Ernst, Anderson, Rev Sci Instrum 37:93 (1966); Deoni, Rutt, Peters, Magn Reson Med 49:515 (2003); Helms,
    Dathe, Dechent, Magn Reson Med 59:667 (2008), for the form that is computed.

    Args:
        flip_angles: (measurement,) nominal flip angles [rad].
        tr: repetition time, one or (measurement,), below 2 s so that milliseconds are noticed [s].
        te: echo time, one or (measurement,) [s]; 0: no decay.

    Raises:
        ValueError: shapes that do not fit each other, angles that are no radians between 0 and pi, times that are no
            seconds, fewer than two different pairs of flip angle and TR, `te` not below `tr`.
    """

    flip_angles: Float[Array, " measurement"] = eqx.field(converter=as_float_array)
    tr: Float[Array, "..."] = eqx.field(converter=as_float_array)
    te: Float[Array, "..."] | None = eqx.field(default=0.0, converter=_single_if_constant)

    parameters: ClassVar[type] = Tissue
    amplitude: ClassVar[str] = "m0"
    broadcasts: ClassVar[bool] = True

    def __check_init__(self):
        shape = self.flip_angles.shape
        if self.flip_angles.ndim != 1 or shape[0] < 2:
            raise ValueError(f"flip_angles needs at least 2 angles in one dimension, got shape {shape}.")
        for name, times in (("tr", self.tr), ("te", self.te)):
            if times is not None and times.shape not in ((), shape):
                raise ValueError(f"{name} has shape {times.shape}, wanted one number or {shape} as flip_angles.")
        check_radians("flip_angles", self.flip_angles, largest=np.pi)
        # No gradient echo is repeated that slowly; 5.4 ms must not be taken for seconds.
        check_times("tr", self.tr, longest=2.0)
        if self.te is not None:
            check_times("te", self.te)
            check_repetition(self.tr, self.te, "the te")
        _check_pairs(self.flip_angles, self.tr)

    @property
    def ignored(self) -> tuple[str, ...]:
        return ("t2", "t2star") if self.te is None else ("t2",)

    @property
    def assumed(self) -> tuple[str, ...]:
        return ("b1", "t2star") if self.te is not None and self.te.ndim == 0 else ("b1",)

    def __call__(self, params: Tissue) -> Inexact[Array, "measurement ..."]:
        signal = params.m0 * _steady_state(self.flip_angles, self.tr, params)
        return signal if self.te is None else signal * jnp.exp(-self.te / params.t2star)

    def initial_guess(self, signal: Inexact[Array, " measurement"], known: Known = NOTHING) -> Tissue:
        given, measured = Tissue()._replace(**known), list(signal)
        angles, n = list(given.b1 * self.flip_angles), len(measured)
        halves = [sine_cosine(a / 2) for a in angles]
        sines, tipped = [2 * s * c for s, c in halves], [2 * s**2 for s, _ in halves]
        repetitions = list(self.tr) if self.tr.ndim else [self.tr]
        times = [] if self.te is None else list(self.te) if self.te.ndim else [self.te] * n
        fits_t2star = len(times) > 0 and not ("t2star" in known or "t2star" in self.assumed)

        def best(t1):
            saturations = [_saturation(tr, t1) for tr in repetitions] * (n // len(repetitions))
            shape = [s / (1 + c * w) for s, c, w in zip(sines, tipped, saturations, strict=True)]
            t2star = self._log_linear(times, measured, shape, known.get("m0")) if fits_t2star else given.t2star
            shape = [f * jnp.exp(-te / t2star) for f, te in zip(shape, times, strict=True)] if times else shape
            m0 = known["m0"] if "m0" in known else fitting_amplitude(shape, measured)
            return given._replace(m0=m0, t1=t1, t2star=t2star), shape

        params, _ = lowest(best, measured, self.limits().t1, known.get("t1"))  # pyright: ignore[reportArgumentType]
        return Tissue(*map(jnp.asarray, params))

    def limits(self) -> Tissue:
        # How far the pulses saturate is 1 - cos(a) over exp(TR/T1) - 1. Below 0.01 the signal is sin(a) and above 100
        # it is proportional to TR/T1, which cannot be told from M0.
        tipped = 2 * jnp.sin(self.flip_angles / 2) ** 2
        t1 = (jnp.min(self.tr / jnp.log1p(100 * tipped)), jnp.max(self.tr / jnp.log1p(tipped / 100)))
        t2star = (0.0, jnp.inf) if self.te is None or self.te.ndim == 0 else visible_times(self.te)
        return Tissue(m0=(0.0, jnp.inf), t1=t1, t2=(0.0, jnp.inf), t2star=t2star, b1=(0.1, 2.0))  # pyright: ignore[reportArgumentType]

    def _log_linear(
        self, times: Measurements, signal: Measurements, bare: Measurements, m0: Array | None
    ) -> Float[Array, ""]:
        """T2* from a straight line through ln(S / S without decay), weighted as `MonoExponential.log_linear` is."""
        assert self.te is not None
        magnitude = [jnp.abs(s) if jnp.iscomplexobj(s) else s for s in signal]
        usable = [(s > 0) & (f > 0) for s, f in zip(magnitude, bare, strict=True)]
        logarithm = [
            jnp.log(jnp.where(u, s / jnp.where(u, f, 1.0), 1.0))
            for u, s, f in zip(usable, magnitude, bare, strict=True)
        ]
        weight = [jnp.where(u, s**2, 0.0) for u, s in zip(usable, magnitude, strict=True)]
        sum_of_weights = jnp.maximum(total(weight), jnp.finfo(weight[0].dtype).tiny)
        if m0 is None:
            te_mean = inner_product(weight, times) / sum_of_weights
            mean = inner_product(weight, logarithm) / sum_of_weights
        else:
            te_mean, mean = 0.0, jnp.log(jnp.abs(m0))
        offset = [te - te_mean for te in times]
        falls = -total(w * o * (v - mean) for w, o, v in zip(weight, offset, logarithm, strict=True))
        variance = inner_product(weight, [o**2 for o in offset])
        shortest, longest = visible_times(self.te)
        slope = jnp.where(variance > 0, falls / jnp.where(variance > 0, variance, 1.0), 0.0)
        return 1 / jnp.clip(slope, 1 / longest, 1 / shortest)


def _steady_state(flip_angles: Float[Array, "..."], tr: Float[Array, "..."], params: Tissue) -> Float[Array, "..."]:
    """sin(a) (1 - E1) / (1 - E1 cos(a)) as sin(a) / [1 + (1 - cos a) E1 / (1 - E1)].

    In float32 the first form loses the digits of T1 and of its derivative to 1 - E1 and 1 - cos(a); here they are sums
    of positive terms.
    """
    sine, cosine = sine_cosine(params.b1 * flip_angles / 2)  # sin(a) = 2 sin(a/2) cos(a/2), 1 - cos(a) = 2 sin^2(a/2)
    return 2 * sine * cosine / (1 + 2 * sine**2 * _saturation(tr, params.t1))


def _saturation(tr: Float[Array, "..."], t1: ArrayLike) -> Float[Array, "..."]:
    """E1 / (1 - E1)."""
    exponent = -tr / jnp.asarray(t1)
    return jnp.exp(exponent) / -jnp.expm1(exponent)


def _check_pairs(angles: Array, tr: Array) -> None:
    if isinstance(tr, Tracer) or isinstance(angles, Tracer):
        return
    pairs = np.stack(np.broadcast_arrays(np.asarray(angles), np.asarray(tr)), axis=1)
    if not np.all(np.isfinite(pairs)) or np.any(pairs <= 0):
        raise ValueError(f"flip_angles [rad] and tr must be positive [s] and finite, got {pairs.T}.")
    if len(np.unique(pairs, axis=0)) < 2:
        raise ValueError(
            f"every measurement has flip angle {pairs[0, 0]:g} rad and TR {pairs[0, 1]:g} s, which cannot tell T1 from "
            "M0; at least 2 different pairs are needed."
        )
