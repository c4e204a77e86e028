"""Complex multi-echo gradient echoes: T2* and the off-resonance that turns their phase."""

import functools
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from .angles import sine_cosine
from .base import NO_BOUNDS, NOTHING, Known, SignalModel, as_float_array, check_times, optional_float_array
from .dephasing import check_slice, dephasing, visible_changes
from .guess import Measurements, fitting_amplitude, inner_product, lowest, squares, total, visible_times
from .tissue import Value


class OffResonantDecay(NamedTuple):
    """Parameters of a decay that precesses."""

    m0: Inexact[Array, "..."] | complex  # a.u., signal at TE = 0; complex: with the phase it has there
    t2star: Value  # s
    b0: Value = 0.0  # Hz, off-resonance


class OffResonantDephasing(NamedTuple):
    """Parameters of a decay that precesses, at a frequency that changes through the slice."""

    m0: Inexact[Array, "..."] | complex  # as of `OffResonantDecay`
    t2star: Value
    b0: Value = 0.0
    b0_change: Value = 0.0  # Hz, of b0 from one side of the slice to the other


class ComplexGradientEcho(SignalModel):
    """S(TE) = M0 exp(-TE/T2* + 2 pi i b0 TE): gradient echoes with their phase.

    M0 is complex, with the phase of coil and receiver; b0 is the off-resonance in Hz, positive where the phase grows
    with TE. Some scanners store the conjugate, which turns the sign of b0. It leaves out fat and phase errors of
    alternating readouts. With `slice_weights` the signal also dephases through the slice, by the known or fitted
    b0_change, see `DephasedGradientEcho`, and its parameters are an `OffResonantDephasing`.

    Two echoes determine M0, T2* and b0. Phases repeat: echoes a spacing apart cannot tell b0 from b0 + 1 / spacing.
    The guess searches -1 / (2 spacing) ... 1 / (2 spacing) with the smallest spacing of the train; uneven spacings have
    a smallest one below their mean, and with it a wider range. Noise may carry a voxel from one end of that range to
    the other, where the signal is the same. Magnitude images do not know b0: fit them with `known={"b0": 0.0}`.

    Limits: T2* as `MonoExponential`; b0 twice the range of the guess, so that no answer near its end is cut off.
    Source: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences (2004), §14.1; for the search, the periodogram as
    maximum likelihood: Rife, Boorstyn, IEEE Trans Inf Theory 20:591 (1974).

    Args:
        te: (echo,) echo times, at least two, in any order [s].
        slice_weights: (part,) signal from equally wide parts of the slice, side by side; [1.0]: rectangular. None: the
            field is the same across the slice.
        slice_width: of all parts together, in slice thicknesses.

    Raises:
        ValueError: fewer than two different echo times, times that cannot be seconds, weights that have no sum, a width
            that is not positive.
    """

    te: Float[Array, " echo"] = eqx.field(converter=as_float_array)
    slice_weights: Float[Array, " part"] | None = eqx.field(default=None, converter=optional_float_array)
    slice_width: Float[Array, ""] = eqx.field(default=1.0, converter=as_float_array)

    parameters: ClassVar[Any] = property(lambda self: OffResonantDephasing if self._dephases else OffResonantDecay)
    amplitude: ClassVar[str] = "m0"
    broadcasts: ClassVar[bool] = True

    def __check_init__(self):
        check_times("te", self.te, different=2)
        if self.slice_weights is not None:
            check_slice(self.slice_weights, self.slice_width)

    @property
    def signed(self) -> tuple[str, ...]:
        return ("b0", "b0_change") if self._dephases else ("b0",)

    @property
    def _dephases(self) -> bool:
        return self.slice_weights is not None

    def __call__(self, params: Any) -> Complex[Array, "echo ..."]:
        decay = jnp.exp(-self.te / jnp.asarray(params.t2star))
        if self.slice_weights is not None:
            decay = decay * dephasing(self.te * params.b0_change, self.slice_weights, self.slice_width)
        return params.m0 * (decay * _turn(self.te * params.b0))

    def initial_guess(self, signal: Inexact[Array, " echo"], known: Known = NOTHING) -> Any:
        # The search has as many steps as the echo times ask for, through which JAX has no derivatives in reverse mode.
        fixed, signal, known = jax.lax.stop_gradient((self, signal, dict(known)))
        if not self._dephases:
            return fixed._guess(signal, known)
        if "b0_change" not in known:
            return jax.tree.map(lambda leaf: leaf[0], self.guesses(signal, known, NO_BOUNDS, 1))
        return OffResonantDephasing(*fixed._guess(signal, known), known["b0_change"])

    def _guess(self, signal: Inexact[Array, " echo"], known: dict[str, Array]) -> OffResonantDecay:
        measured, times = list(signal), list(self.te)
        left = None  # of the signal, where it dephases
        if self.slice_weights is not None:
            factors = dephasing(self.te * known["b0_change"], self.slice_weights, self.slice_width)
            left = list(jnp.abs(factors))
            if jnp.iscomplexobj(signal):  # its phase is not that of a b0
                measured = list(signal * jnp.exp(-1j * jnp.angle(factors)).astype(signal.dtype))
        if not jnp.iscomplexobj(signal):
            b0 = known.get("b0", jnp.zeros_like(signal[0]))
            return self._decay(measured, left, known)[0]._replace(b0=b0)
        if "b0" in known:
            turned = [s * _turn(-te * known["b0"]) for s, te in zip(measured, times, strict=True)]
            return self._decay(turned, left, known)[0]._replace(b0=known["b0"])
        if "m0" in known:
            known["m0"] = known["m0"].astype(signal.dtype)
        magnitude_known = {name: jnp.abs(value) for name, value in known.items()}
        decay = jnp.asarray(self._decay([jnp.abs(s) for s in measured], left, magnitude_known)[0].t2star)

        def search(apart_from, _):
            b0 = self._search_b0(measured, left, decay, known, apart_from)
            return b0, b0

        # Noise or nearly even echo times can put a second peak as high: both are followed to their top.
        _, peaks = jax.lax.scan(search, jnp.full_like(decay, jnp.inf), length=2)
        guesses, misfits = jax.lax.map(lambda b0: self._climb(measured, left, b0, decay, known), peaks)
        # The second peak may be an alias of the first one, with the same misfit but for its rounding.
        rounding = 64 * jnp.finfo(decay.dtype).eps * squares(measured)
        best = jnp.where(misfits[1] < misfits[0] - rounding, 1, 0)
        return OffResonantDecay(*(leaf[best] for leaf in guesses))

    def limits(self) -> Any:
        b0 = 1 / self._spacing()
        ends = (0.0, jnp.inf), visible_times(self.te), (-b0, b0)
        return OffResonantDephasing(*ends, visible_changes(self.te)) if self._dephases else OffResonantDecay(*ends)  # pyright: ignore[reportArgumentType]

    def unaliased(self, params: Any) -> Any:
        periods = self._periods(params.b0)  # pyright: ignore[reportArgumentType]
        return params._replace(b0=params.b0 - periods, m0=params.m0 * _turn(periods * self.te[0]))

    def to_coordinate(self, name: str, value: Float[Array, "..."]) -> Float[Array, "..."]:
        # b0 as radians from the first echo to the last.
        return value * (2 * jnp.pi * self._duration()) if name in self.signed else jnp.log(value)

    def from_coordinate(self, name: str, coordinate: Float[Array, "..."]) -> Float[Array, "..."]:
        return coordinate / (2 * jnp.pi * self._duration()) if name in self.signed else jnp.exp(coordinate)

    def _duration(self) -> Float[Array, ""]:
        return jnp.max(self.te) - jnp.min(self.te)

    def _spacing(self) -> Float[Array, ""]:
        """The smallest one; two echoes at nearly the same time must not make the search endless."""
        steps = jnp.diff(jnp.sort(self.te))
        return jnp.maximum(jnp.min(steps, initial=jnp.inf, where=steps > 0), self._duration() / _MOST_SPACINGS)

    def _periods(self, b0: Float[Array, "..."]) -> Float[Array, "..."]:
        """Whole periods of the signal by which b0 is out of range: 1 / spacing where all echoes are multiples of it."""
        spacing = self._spacing()
        multiples = (self.te - self.te[0]) / spacing
        repeats = jnp.max(jnp.abs(multiples - jnp.round(multiples))) < _UNEVENNESS
        return jnp.where(repeats, jnp.round(b0 * spacing) / spacing, 0.0)

    def _shape(self, t2star: Array, left: Measurements | None) -> list[Array]:
        """The magnitudes for an M0 of 1."""
        decays = [jnp.exp(-te / t2star) for te in list(self.te)]
        return decays if left is None else [size * decay for size, decay in zip(left, decays, strict=True)]

    def _decay(
        self, on_resonance: Measurements, left: Measurements | None, known: Known
    ) -> tuple[OffResonantDecay, Float[Array, ""]]:
        """The best M0 and T2* of a signal that does not precess, and the misfit."""

        def best(t2star):
            shape = self._shape(t2star, left)
            m0 = known["m0"] if "m0" in known else fitting_amplitude(shape, on_resonance)
            return OffResonantDecay(m0, t2star), shape

        return lowest(best, on_resonance, visible_times(self.te), known.get("t2star"))

    def _search_b0(
        self, signal: Measurements, left: Measurements | None, t2star: Array, known: Known, apart_from: Array
    ) -> Float[Array, ""]:
        """The best b0 of a fine grid with M0 eliminated, away from `apart_from` by a turn over the train or more."""
        duration, spacing, times = self._duration(), self._spacing(), list(self.te)
        # The T2* of the magnitudes, and shorter ones: noise makes the magnitudes of late echoes too high.
        filters = []
        for t2 in [t2star] if "t2star" in known else [t2star * shorter for shorter in _DECAYS]:
            shape = self._shape(t2, left)
            weighted = [f * s for f, s in zip(shape, signal, strict=True)]
            energy = jnp.maximum(squares(shape), jnp.finfo(t2star.dtype).tiny)
            filters.append(([v.real for v in weighted], [v.imag for v in weighted], energy))
        m0 = known.get("m0")
        # The number of steps depends on the echo times, which are not known when it is compiled.
        n_steps = jnp.ceil(_STEPS_PER_TURN * duration / spacing).astype(int)

        def compare(i, best):
            b0 = (i / n_steps - 0.5) / spacing
            phases = [2 * jnp.pi * b0 * te for te in times]
            sines, cosines = zip(*map(sine_cosine, phases), strict=True)
            gains = []
            for re, im, energy in filters:
                x = total(r * c + i * s for r, i, c, s in zip(re, im, cosines, sines, strict=True))
                y = total(i * c - r * s for r, i, c, s in zip(re, im, cosines, sines, strict=True))
                if m0 is None:
                    gains.append((x**2 + y**2) / energy)
                else:
                    gains.append(2 * (m0.real * x + m0.imag * y) - jnp.abs(m0) ** 2 * energy)
            gain = functools.reduce(jnp.maximum, gains)
            better = (gain > best[1]) & (jnp.abs(b0 - apart_from) * duration >= 1)
            return jnp.where(better, b0, best[0]), jnp.where(better, gain, best[1])

        return jax.lax.fori_loop(0, n_steps + 1, compare, (apart_from, jnp.full_like(apart_from, -jnp.inf)))[0]

    def _climb(
        self, signal: Measurements, left: Measurements | None, b0: Array, t2star: Array, known: Known
    ) -> tuple[OffResonantDecay, Float[Array, ""]]:
        """From near a peak to its top, and the misfit there.

        Gauss-Newton steps in b0 by turns with the best T2* and M0; the two directions are at right angles.
        """
        times = list(self.te)

        def turned_back(b0):
            return [s * _turn(-te * b0) for s, te in zip(signal, times, strict=True)]

        def step(_, state):
            b0, t2star = state
            turned, shape = turned_back(b0), self._shape(t2star, left)
            m0 = known["m0"] if "m0" in known else fitting_amplitude(shape, turned)
            energy = jnp.maximum(squares(shape), jnp.finfo(t2star.dtype).tiny)
            te_mean = 0.0 if "m0" in known else inner_product(times, [f**2 for f in shape]) / energy
            lever = [(te - te_mean) * f for te, f in zip(times, shape, strict=True)]
            slope = inner_product(lever, [(m0.conj() * s).imag for s in turned])
            curvature = jnp.abs(m0) ** 2 * squares(lever)
            radians_per_s = slope / jnp.maximum(curvature, jnp.finfo(t2star.dtype).tiny)
            farthest = 1 / (_STEPS_PER_TURN * self._duration())
            return b0 + jnp.clip(radians_per_s / (2 * jnp.pi), -farthest, farthest), t2star

        def turn(_, state):
            b0, t2star, _, _ = state
            b0, t2star = jax.lax.fori_loop(0, 3, step, (b0, t2star))
            b0 = b0 - self._periods(b0)
            guess, least = self._decay(turned_back(b0), left, known)
            return b0, guess.t2star, guess.m0, least

        start = (b0, t2star, signal[0], jnp.full_like(t2star, jnp.inf))
        b0, t2star, m0, least = jax.lax.fori_loop(0, _TURNS, turn, start)
        return OffResonantDecay(m0, t2star, b0), least


_STEPS_PER_TURN = 6  # over the whole train: the peak of b0 is about one turn wide
_DECAYS = (1.0, 0.3)  # relative to the T2* of the magnitudes
_MOST_SPACINGS = 200  # in the train
_UNEVENNESS = 1e-3  # of a spacing: a period away phases differ by less than 0.4 degrees
_TURNS = 3  # between b0 and T2*


def _turn(cycles: Float[Array, "..."]) -> Complex[Array, "..."]:
    """exp(2 pi i cycles)."""
    sine, cosine = sine_cosine(2 * jnp.pi * cycles)
    return jax.lax.complex(cosine, sine)
