"""Fast spin echo (multi-echo spin echo, RARE, TSE): stimulated echoes, imperfect refocusing, B1.

The fast form of the recursion, explained once. Between two pulses lie two shifts, so the orders present at the pulses
keep their parity. What the excitation made transverse is at order 1 at the first pulse and stays on odd orders; only
from there does it return to order 0 at an echo. What is longitudinal at the first pulse, or recovers later, stays on
even orders and never meets an echo (that is what the crushers are for); it decides how much there is to excite in the
next repetition. So the two parities are followed apart, in steps of a whole echo spacing:

    odd:   F+_k -> F+_{k+2},  F-_k -> F-_{k-2},  F-_1 -> echo = conj(F-_1) -> F+_1
    even:  F+_k -> F+_{k+2},  F-_k -> F-_{k-2},  F-_2 -> F-_0,  F+_0 = conj(F-_0)

Half as many orders as there are echoes are exact: higher ones cannot return before the train ends.

With W = -iZ the transition matrix of a pulse about x (phase 0) is real,

    F+' =  cos^2(a/2) F+ + sin^2(a/2) F- + sin(a) W
    F-' =  sin^2(a/2) F+ + cos^2(a/2) F- - sin(a) W
    W'  = -sin(a)/2 F+   + sin(a)/2 F-   + cos(a) W,

so that a CPMG train needs real numbers only: (F+, F-, W) are real on odd orders, i (F+, F-, W) = (iF+, iF-, Z) on even
ones. A pulse of another phase p turns F+ by exp(-ip) and F- by exp(ip) before, and back after.

Source: Weigel, J Magn Reson Imaging 41:266 (2015), eq. 15; Hennig, J Magn Reson 78:397 (1988).
"""

import operator
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, Inexact

from ..batching.context import on_cpu
from .angles import sine_cosine
from .base import (
    NO_BOUNDS,
    NOTHING,
    Bounds,
    Known,
    SignalModel,
    as_float_array,
    check_radians,
    check_repetition,
    check_times,
    finite_or_none,
    optional_float_array,
)
from .guess import summit
from .tissue import Tissue

Orders = tuple[Inexact[Array, ""], ...]  # one number per order: vmapped, one contiguous vector of voxels each

_VOXELS_AT_ONCE = 4096  # of whose orders a processor's cache holds all
_COARSE_T2, _COARSE_B1 = 32, 72  # trains that a first guess is chosen from
_FINE_T2 = 256  # to space them


class Pulses(NamedTuple):
    """The refocusing pulses of one voxel."""

    sine: Float[Array, " echo"]  # of half the true flip angle
    cosine: Float[Array, " echo"]
    turn: Complex[Array, " echo"] | None  # exp(i phase); None: phase 0 throughout, real arithmetic


class Decays(NamedTuple):
    """What one echo spacing leaves of longitudinal and transverse magnetisation."""

    e1: Float[Array, ""]
    e2: Float[Array, ""]


def _indices_or_none(value: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if value is None else tuple(operator.index(i) for i in value)


def _without_hill(heights: Float[Array, " n"], top: Array) -> Float[Array, " n"]:
    """Equally spaced heights without a hill: -inf from its top to where they rise again, on both sides."""
    at = jnp.arange(heights.size)
    rises = jnp.diff(heights) > 0  # from each to the next
    first = jnp.max(jnp.where((at[1:] <= top) & ~rises, at[1:], 0))
    last = jnp.min(jnp.where((at[:-1] >= top) & rises, at[:-1], heights.size - 1))
    return jnp.where((at >= first) & (at <= last), -jnp.inf, heights)


class FSE(SignalModel):
    """Fast spin echo: 90 degrees about y, then [tau - alpha_i - tau - echo_i], with crushers around every alpha_i.

    Echo n is at n * echo_spacing, in units where a perfect excitation of the equilibrium gives m0. The true angles are
    the nominal ones, excitation included, times `b1` of the tissue. Uses m0, t1, t2 and b1. Refocusing by 180 + x
    degrees acts as by 180 - x: if all pulses are alike, a fit gives the lower b1, with the m0 that belongs to its
    excitation.

    One train hardly depends on t1 where it refocuses by 150 degrees or more, so a fit holds it at 1 s unless told
    otherwise. Lower true angles store more along z, where it decays by t1. What the 1 s does to t2 (10 ms from echo to
    echo, no noise), and `known={"t1": ...}` undoes, at t1 / t2 of

        pulses, b1      0.3 / 0.08 s   1.5 / 0.1 s   4 / 0.5 s   4 / 2 s
        16 x 180, 0.9        -0.1 %        +0.0 %      +0.5 %     +1.9 %
        16 x 180, 0.7        -2.0 %        +0.4 %      +4.6 %    +21.0 %
        16 x 150, 0.9        -1.3 %        +0.2 %      +3.1 %    +13.5 %
        16 x 150, 0.7        -4.5 %        +0.8 %      +9.6 %    +51.8 %
        16 x 120, 0.9        -4.0 %        +0.8 %      +8.7 %    +45.6 %
        16 x 120, 0.7        -8.5 %        +1.6 %     +17.5 %   +131.6 %
        32 x 60,  0.9       -22.2 %        +4.8 %     +38.4 %   AT_BOUND

    Args:
        flip_angles: (echo,) nominal refocusing angles [rad].
        echo_spacing: time from echo to echo, twice that from excitation to the first pulse [s].
        phases: (echo,) phases of the refocusing pulses [rad]; None: 0, a quarter turn from the excitation (CPMG), and
            the signal is real. With phases it is complex, as seen by a receiver that follows the pulses' phases.
        tr: repetition time, from excitation to excitation, nothing transverse left by then [s]; inf: full recovery.
        n_states: orders 0 ... n_states - 1 are kept; None: as many as can reach an echo, which is exact. Ten, as is
            usual elsewhere, put a train of 96 pulses of 60 degrees wrong by a tenth of its first echo.
        slice_profile: (sample,) true over nominal flip angle across the slice; the signal is the weighted mean over it.
            None: the same flip angle everywhere.
        slice_weights: (sample,) weights of the samples, their sum is 1; None: equal.
        echoes: which echoes of the train are recorded, counted from 0; None: all. Many scanners drop the first one.
        magnitude: whether the signal is what a magnitude image shows. Echoes of a CPMG train may be negative where b1
            is off and t2 is short.
        b1_range: where a fit looks for b1, within 0.1 ... 2. Below 0.4 so little is refocused that noise is described
            as well by a short t2 and an enormous m0; above 1.4 trains of unequal pulses, and slice profiles, have a
            second valley, near where most pulses refocus by 180 degrees. In living tissue b1 is neither up to 3 T.

    Raises:
        ValueError: shapes that do not fit each other, angles that are no radians, times that are no seconds, echoes
            that the train does not have.
    """

    flip_angles: Float[Array, " echo"] = eqx.field(converter=as_float_array)
    echo_spacing: Float[Array, ""] = eqx.field(converter=as_float_array)
    phases: Float[Array, " echo"] | None = eqx.field(default=None, converter=optional_float_array)
    # None: even orders do not contribute
    tr: Float[Array, ""] | None = eqx.field(default=None, converter=finite_or_none)
    n_states: int | None = eqx.field(default=None, static=True)
    slice_profile: Float[Array, " sample"] | None = eqx.field(default=None, converter=optional_float_array)
    slice_weights: Float[Array, " sample"] | None = eqx.field(default=None, converter=optional_float_array)
    echoes: tuple[int, ...] | None = eqx.field(default=None, static=True, converter=_indices_or_none)
    magnitude: bool = eqx.field(default=False, static=True)  # pyright: ignore[reportIncompatibleVariableOverride]
    b1_range: Float[Array, "2"] = eqx.field(default=(0.4, 1.4), converter=as_float_array)

    parameters: ClassVar[type] = Tissue
    amplitude: ClassVar[str] = "m0"
    ignored: ClassVar[tuple[str, ...]] = ("t2star",)  # pyright: ignore[reportIncompatibleVariableOverride]
    assumed: ClassVar[tuple[str, ...]] = ("t1",)  # pyright: ignore[reportIncompatibleVariableOverride]
    mirrored: ClassVar[tuple[str, ...]] = ("b1",)
    sequential: ClassVar[bool] = True
    knows_valleys: ClassVar[bool] = True

    def __check_init__(self):
        if self.flip_angles.ndim != 1 or self.flip_angles.shape[0] < 1:
            raise ValueError(f"flip_angles needs one angle per echo, got shape {self.flip_angles.shape}.")
        if self.echo_spacing.ndim != 0:
            raise ValueError(f"echo_spacing is one number [s], got shape {self.echo_spacing.shape}.")
        if self.phases is not None and self.phases.shape != self.flip_angles.shape:
            raise ValueError(f"phases has shape {self.phases.shape}, flip_angles {self.flip_angles.shape}.")
        if self.n_states is not None and self.n_states < 2:
            raise ValueError(f"n_states must be at least 2, got {self.n_states}: no echo forms from order 0 alone.")
        if self.slice_weights is not None and (
            self.slice_profile is None or self.slice_weights.shape != self.slice_profile.shape
        ):
            raise ValueError("slice_weights needs a slice_profile of its shape.")
        n = self.flip_angles.shape[0]
        if self.echoes is not None and not (self.echoes and all(0 <= i < n for i in self.echoes)):
            raise ValueError(f"echoes counts the echoes of the train from 0, got {self.echoes} for a train of {n}.")
        if self.b1_range.shape != (2,):
            raise ValueError(f"b1_range is (lowest, highest), got shape {self.b1_range.shape}.")
        if not isinstance(self.b1_range, Tracer):
            low, high = np.asarray(self.b1_range, np.float64).round(6)  # from float32
            if not 0.1 <= low < high <= 2.0:
                raise ValueError(f"b1_range is (lowest, highest) b1 within 0.1 ... 2, got ({low:g}, {high:g}).")
        check_radians("flip_angles", self.flip_angles, largest=4 * np.pi)
        check_times("echo_spacing", self.echo_spacing)
        if self.tr is not None:
            check_times("tr", self.tr)
            check_repetition(self.tr, self.echo_spacing * n, "the train")

    @property
    def n_measurements(self) -> int:
        return self.flip_angles.shape[0] if self.echoes is None else len(self.echoes)

    @property
    def echo_times(self) -> Float[Array, " n"]:
        """Times of the recorded echoes after the excitation [s]."""
        numbers = np.arange(self.flip_angles.shape[0]) if self.echoes is None else np.array(self.echoes)
        return self.echo_spacing * jnp.asarray(1 + numbers, self.echo_spacing.dtype)

    def __call__(self, params: Tissue) -> Inexact[Array, " n"]:
        m0, b1 = jnp.asarray(params.m0), jnp.asarray(params.b1)
        t1, t2 = jnp.asarray(params.t1), jnp.asarray(params.t2)
        if self.slice_profile is None:
            train = self._train(t1, t2, b1)
        else:
            across = jax.vmap(lambda scaling: self._train(t1, t2, b1 * scaling))(self.slice_profile)
            weights = self.slice_weights
            train = jnp.mean(across, axis=0) if weights is None else jnp.tensordot(weights, across, 1)
        signal = m0 * (train if self.echoes is None else train[np.array(self.echoes)])
        return jnp.abs(signal) if self.magnitude else signal

    def batched(self, params: Tissue) -> Inexact[Array, "n voxel"]:
        n_voxels = params.t2.shape[0]  # pyright: ignore[reportAttributeAccessIssue]
        of_block = jax.vmap(self, out_axes=-1)
        if n_voxels <= _VOXELS_AT_ONCE or not on_cpu():
            return of_block(params)
        # The orders of all voxels at once would not fit a processor's cache, which takes twice as long.
        missing = -n_voxels % _VOXELS_AT_ONCE
        blocks = jax.tree.map(lambda leaf: jnp.pad(leaf, (0, missing), "edge").reshape(-1, _VOXELS_AT_ONCE), params)
        signals = jnp.moveaxis(jax.lax.map(of_block, blocks), 0, 1)
        return signals.reshape(self.n_measurements, -1)[:, :n_voxels]

    def to_coordinate(self, name: str, value: Float[Array, "..."]) -> Float[Array, "..."]:
        # The signal has no slope in b1 where refocusing is perfect. In cos^2 of half the angle it has one everywhere.
        return jnp.cos(self._widest_angle() / 2 * value) ** 2 if name == "b1" else jnp.log(value)

    def from_coordinate(self, name: str, coordinate: Float[Array, "..."]) -> Float[Array, "..."]:
        if name != "b1":
            return jnp.exp(coordinate)
        return 2 / self._widest_angle() * jnp.arccos(jnp.sqrt(coordinate))

    def usual_starts(self, free: Sequence[str]) -> int:
        """Two where b1 is sought and there is no mirror: a train and one of another b1 may look nearly alike."""
        if "b1" not in free:
            return 1
        if self.slice_profile is not None or isinstance(self.flip_angles, Tracer):
            return 2
        return 1 if self._alike() else 2

    def initial_guess(self, signal: Inexact[Array, " n"], known: Known = NOTHING) -> Tissue:
        return jax.tree.map(lambda leaf: leaf[0], self.guesses(signal, known, NO_BOUNDS, 1))

    def guesses(self, signal: Inexact[Array, " n"], known: Known, bounds: Bounds, n: int) -> Tissue:
        # The most similar of some trains, a b1 at a time, and the others that are the best of their surroundings.
        t2, b1 = self._coarse_grid()
        at_t2 = jax.vmap(lambda t2, b1: self(Tissue(m0=1.0, t1=1.0, t2=t2, b1=b1)), (0, None))
        trains = jax.vmap(at_t2, (None, 0))(t2, b1)
        # As `Problem` compares them: magnitudes where the model is complex and the signal is real.
        trains = jnp.abs(trains) if jnp.iscomplexobj(trains) and not jnp.iscomplexobj(signal) else trains
        norms = jnp.sqrt(jnp.sum(jnp.abs(trains) ** 2, axis=-1))
        unit = trains.conj() / norms[..., None]
        off = jnp.abs(b1 - known["b1"]) if "b1" in known else jnp.zeros_like(b1)
        allowed = off <= jnp.min(off)
        if "b1" in bounds:
            outside = jnp.maximum(jnp.maximum(bounds["b1"][0] - b1, b1 - bounds["b1"][1]), 0)
            allowed &= outside <= jnp.min(outside)

        def best_of_row(_: None, row: Array) -> tuple[None, tuple[Array, Array, Array]]:
            product = jnp.dot(unit[row], signal, precision=jax.lax.Precision.HIGHEST)
            # Valleys that differ by less than the steps in t2 do can be told apart by the tops of parabolas.
            return None, summit(jnp.abs(product) ** 2 if jnp.iscomplexobj(product) else product)

        _, (tops, columns, offsets) = jax.lax.scan(best_of_row, None, jnp.arange(b1.size))
        tops = jnp.where(allowed, tops, -jnp.inf)
        peaks, found = tops, []
        for _ in range(n):
            _, row, row_offset = summit(peaks)
            at, offset = columns[row], offsets[row]
            m0 = jnp.dot(unit[row, at], signal, precision=jax.lax.Precision.HIGHEST) / norms[row, at]
            place = at.astype(t2.dtype) + offset
            log_t2 = jnp.interp(place, jnp.arange(t2.size, dtype=t2.dtype), jnp.log(t2))
            here = b1[row] + row_offset * (b1[1] - b1[0])
            found.append(Tissue(m0=m0, t1=jnp.ones((), t2.dtype), t2=jnp.exp(log_t2), b1=here))
            peaks = _without_hill(peaks, row) if n > 1 else peaks
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    def limits(self) -> Tissue:
        n = self.flip_angles.shape[0]
        t2 = (self.echo_spacing / 10, 100 * n * self.echo_spacing)
        # At perfect refocusing itself no step in b1 changes the signal; this near, it has changed by 1e-6.
        lowest, highest = self.b1_range
        b1 = (lowest, jnp.minimum(highest, 0.9995 * jnp.pi / self._widest_angle()))
        return Tissue(m0=(0.0, jnp.inf), t1=(1e-3, 100.0), t2=t2, t2star=(0.0, jnp.inf), b1=b1)  # pyright: ignore[reportArgumentType]

    def ends_at_mirror(self, name: str) -> Bool[ArrayLike, ""]:
        alike = self._widest_angle() > jnp.pi / 2
        return alike & (0.9995 * jnp.pi / self._widest_angle() <= self.b1_range[1]) if name == "b1" else False

    def _widest_angle(self) -> Float[Array, ""]:
        """The nominal angle that must not come out above 180 degrees, where the mirror of smaller ones begins.

        That of all pulses if they are alike. Else there is no mirror, and b1 goes up to 2.
        """
        first, right = jnp.abs(self.flip_angles[0]), jnp.asarray(jnp.pi / 2, self.flip_angles.dtype)
        if self.slice_profile is not None:
            return right
        return jnp.where(self._alike(), jnp.maximum(first, right), right)

    def _alike(self) -> Bool[ArrayLike, ""]:
        # By numpy, if the angles are numbers, it is one also where the signal is being traced.
        xp = jnp if isinstance(self.flip_angles, Tracer) else np
        sizes = xp.abs(xp.asarray(self.flip_angles))
        return xp.max(xp.abs(sizes - sizes[0])) < 1e-4

    def _coarse_grid(self) -> tuple[Float[Array, " t2"], Float[Array, " b1"]]:
        """Such that the least-squares answer is downhill from the most similar train.

        Steps in t2 turn a plain decay by equal angles, as a vector of echoes; parabolas between them are as good.
        """
        times = self.echo_times
        log_t2 = jnp.linspace(jnp.log(times[0] / 4), jnp.log(20 * times[-1]), _FINE_T2, dtype=times.dtype)
        fine = jnp.exp(log_t2)[:, None]
        energy = jnp.exp(-2 * (times - times[0]) / fine)
        energy = energy / jnp.sum(energy, axis=1, keepdims=True)
        mean = jnp.sum(energy * times, axis=1, keepdims=True)
        turns = jnp.sqrt(jnp.sum(energy * (times - mean) ** 2, axis=1)) / fine[:, 0]  # d(angle) / d(log t2)
        angle = jnp.cumsum(turns)
        t2 = jnp.exp(jnp.interp(jnp.linspace(angle[0], angle[-1], _COARSE_T2, dtype=angle.dtype), angle, log_t2))
        lowest, highest = self.limits().b1  # pyright: ignore[reportGeneralTypeIssues]
        return t2, jnp.linspace(lowest, highest, _COARSE_B1, dtype=t2.dtype)

    def _train(self, t1: Float[Array, ""], t2: Float[Array, ""], b1: Float[Array, ""]) -> Inexact[Array, " echo"]:
        """The echoes for m0 = 1."""
        n = self.flip_angles.shape[0]
        # Sines and cosines before the scan: inside, XLA would repeat them for every order.
        angle = b1 * self.flip_angles
        turn = None if self.phases is None else jnp.exp(1j * self.phases)
        pulses = Pulses(*sine_cosine(angle / 2), turn)
        decays = Decays(jnp.exp(-self.echo_spacing / t1), jnp.exp(-self.echo_spacing / t2))
        excitation = b1 * (jnp.pi / 2)
        n_odd = (n + 1) // 2 if self.n_states is None else self.n_states // 2
        echoes = _echoes(pulses, decays, jnp.sin(excitation), n_odd)
        if self.tr is None:
            return echoes
        # The longitudinal magnetisation at the end of the train is linear in that at its start; in the steady state
        # recovery until the next excitation brings it back.
        n_even = (n + 1) // 2 if self.n_states is None else (self.n_states + 1) // 2
        kept = _longitudinal_end(pulses, decays, jnp.cos(excitation), n_even, recovery=0.0)
        recovered = _longitudinal_end(pulses, decays, jnp.zeros_like(excitation), n_even, recovery=1.0)
        rest = jnp.exp(-(self.tr - n * self.echo_spacing) / t1)
        return echoes * (1 - rest + recovered * rest) / (1 - kept * rest)


def _echoes(pulses: Pulses, decays: Decays, transverse: Float[Array, ""], n_orders: int) -> Inexact[Array, " echo"]:
    """Odd orders 1, 3, ...: the echoes of magnetisation that was transverse after the excitation."""
    start = transverse * jnp.ones_like(decays.e2)
    start = start if pulses.turn is None else start.astype(pulses.turn.dtype)
    zero = jnp.zeros_like(start)
    empty = (zero,) * n_orders

    def spacing(orders, pulse):
        f_plus, f_minus, w = _transition(pulse, *orders)
        # From a pulse to the next; both halves of the transverse decay are applied here, those of the first echo too.
        echo = f_minus[0].conj() * decays.e2
        f_plus = (echo, *(f * decays.e2 for f in f_plus[:-1]))
        f_minus = (*(f * decays.e2 for f in f_minus[1:]), zero)
        seen = echo if pulse.turn is None else echo * pulse.turn.conj()
        return (f_plus, f_minus, tuple(z * decays.e1 for z in w)), seen

    return jax.lax.scan(spacing, ((start, *empty[1:]), empty, empty), pulses)[1]


def _longitudinal_end(
    pulses: Pulses, decays: Decays, start: Float[Array, ""], n_orders: int, recovery: float
) -> Float[Array, ""]:
    """Even orders 0, 2, ...: Z_0 at the last echo from Z_0 after the excitation; `recovery` 0 turns T1 recovery off."""
    real = pulses.turn is None
    unit = 1.0 if real else -1j  # W of a longitudinal magnetisation of 1, see the top of the file
    half = jnp.sqrt(decays.e1)
    w_start = unit * (start * half + recovery * (1 - half))
    zero = jnp.zeros_like(w_start if pulses.turn is None else w_start.astype(pulses.turn.dtype))
    empty = (zero,) * n_orders

    def spacing(orders, pulse):
        f_plus, f_minus, w = _transition(pulse, *orders)
        f_minus_next = (*(f * decays.e2 for f in f_minus[1:]), zero)
        mirrored = -f_minus_next[0] if real else f_minus_next[0].conj()
        f_plus_next = (mirrored, *(f * decays.e2 for f in f_plus[:-1]))
        relaxed = w[0] * decays.e1 + unit * recovery * (1 - decays.e1)
        return (f_plus_next, f_minus_next, (relaxed, *(z * decays.e1 for z in w[1:]))), w[0]

    after_pulse = jax.lax.scan(spacing, (empty, empty, (w_start + zero, *empty[1:])), pulses)[1][-1]
    return (after_pulse / unit).real * half + recovery * (1 - half)


def _transition(pulse: Pulses, f_plus: Orders, f_minus: Orders, w: Orders) -> tuple[Orders, Orders, Orders]:
    """One pulse on all orders of one parity."""
    sine, cosine, turn = pulse
    cos2, sin2, sin, cos = cosine**2, sine**2, 2 * sine * cosine, cosine**2 - sine**2
    if turn is not None:
        f_plus, f_minus = tuple(f * turn.conj() for f in f_plus), tuple(f * turn for f in f_minus)
    orders = list(zip(f_plus, f_minus, w, strict=True))
    f_plus = tuple(cos2 * p + sin2 * m + sin * z for p, m, z in orders)
    f_minus = tuple(sin2 * p + cos2 * m - sin * z for p, m, z in orders)
    w = tuple((m - p) * (sin / 2) + cos * z for p, m, z in orders)
    if turn is not None:
        f_plus, f_minus = tuple(f * turn for f in f_plus), tuple(f * turn.conj() for f in f_minus)
    return f_plus, f_minus, w
