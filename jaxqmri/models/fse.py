"""Fast spin echo (multi-echo spin echo, RARE, TSE): stimulated echoes, imperfect refocusing, B1."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact

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
from .slice_profile import SliceProfile, half_angle, polynomial
from .tissue import Tissue
from .train import Decays, Excitation, Pulses, echoes, longitudinal_end
from .train_table import LONGEST, TrainTable, enough, tabulate

_VOXELS_AT_ONCE = 4096  # of whose orders a processor's cache holds all
_COARSE_T2, _COARSE_B1 = 32, 72  # trains that a first guess is chosen from
_FINE_T2 = 256  # to space them


def _profile(value: SliceProfile | ArrayLike | None) -> SliceProfile | Float[Array, " sample"] | None:
    return value if isinstance(value, SliceProfile) else optional_float_array(value)


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

    Error bars of t2 hold to 12 %. Those of b1 and m0 hold away from perfect refocusing, which no step in b1 changes to
    first order: pulses all alike put b1 up to it, and unequal ones or a slice profile hardly tell one side from the
    other. SD of (estimate - truth) / error bar at SNR 50, t2 80 ms, 10 ms from echo to echo:

        pulses, b1                             t2             b1             m0      no answer
        10 x 120, 0.7 ... 1.2         1.00 ... 1.01  0.99 ... 1.01  0.96 ... 1.01      0 ... 1 %
        16 x 150, 0.9; 32 x 180, 0.9  1.00 ... 1.01  0.93 ... 1.01  1.05 ... 1.07           0 %
        32 x 180, 1                            0.98           1.00           0.87           0 %
        16: 150, then 120; 0.7, 0.9            1.00           1.00  1.01 ... 1.05           0 %
        16: 165, then 150; 0.7                 1.01           0.99           1.03           0 %
        16: 165, then 150; 0.9, 1.1   0.88 ... 1.10  0.49 ... 1.29  0.59 ... 0.88   13 ... 20 %
        12 x 150 with a profile, 0.8           1.02           1.02           1.03           0 %
        12 x 180 with one, 0.9 ... 1.1  0.89 ... 1.04  0.68 ... 0.83  0.69 ... 1.64    4 ... 13 %

    Args:
        flip_angles: (echo,) nominal refocusing angles [rad].
        echo_spacing: time from echo to echo, twice that from excitation to the first pulse [s].
        phases: (echo,) phases of the refocusing pulses [rad]; None: 0, a quarter turn from the excitation (CPMG), and
            the signal is real. With phases it is complex, as seen by a receiver that follows the pulses' phases.
        tr: repetition time, from excitation to excitation, nothing transverse left by then [s]; inf: full recovery.
        n_states: orders 0 ... n_states - 1 are kept; None: as many as can reach an echo, which is exact. Ten, as is
            usual elsewhere, put a train of 96 pulses of 60 degrees wrong by a tenth of its first echo.
        slice_profile: what the pulses do across the slice, a `SliceProfile` such as `slice_profile` makes; the signal
            is the weighted sum over it. Or (sample,) true over nominal flip angles of all pulses alike. None: the same
            flip angle everywhere, with which b1 of a selective train is an effective one.
        slice_weights: (sample,) weights of an array's samples, their sum is 1; None: equal.
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
    slice_profile: SliceProfile | Float[Array, " sample"] | None = eqx.field(default=None, converter=_profile)
    slice_weights: Float[Array, " sample"] | None = eqx.field(default=None, converter=optional_float_array)
    echoes: tuple[int, ...] | None = eqx.field(default=None, static=True, converter=_indices_or_none)
    magnitude: bool = eqx.field(default=False, static=True)  # pyright: ignore[reportIncompatibleVariableOverride]
    b1_range: Float[Array, "2"] = eqx.field(default=(0.4, 1.4), converter=as_float_array)
    table: TrainTable | None = eqx.field(default=None, repr=False)  # of `prepared`

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
        if self.slice_weights is not None and self.slice_weights.shape != getattr(self.slice_profile, "shape", None):
            raise ValueError("slice_weights needs a slice_profile of its shape, an array.")
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
    def _n_odd(self) -> int:
        return (self.flip_angles.shape[0] + 1) // 2 if self.n_states is None else self.n_states // 2

    @property
    def echo_times(self) -> Float[Array, " n"]:
        """Times of the recorded echoes after the excitation [s]."""
        numbers = np.arange(self.flip_angles.shape[0]) if self.echoes is None else np.array(self.echoes)
        return self.echo_spacing * jnp.asarray(1 + numbers, self.echo_spacing.dtype)

    def __call__(self, params: Tissue) -> Inexact[Array, " n"]:
        m0, b1 = jnp.asarray(params.m0), jnp.asarray(params.b1)
        t1, t2 = jnp.asarray(params.t1), jnp.asarray(params.t2)
        train = self._across(b1, lambda *pulses: self._train(t1, t2, *pulses))
        signal = m0 * (train if self.echoes is None else train[np.array(self.echoes)])
        return jnp.abs(signal) if self.magnitude else signal

    def prepared(self, free: Sequence[str]) -> "FSE":
        """Where b1 is sought with a slice profile: the mean over the slice, of which every step needs that of a b1."""
        numbers = not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(self))
        ordinary = self.phases is None and self.tr is None and self.flip_angles.shape[0] <= LONGEST
        if self.slice_profile is None or "b1" not in free or not numbers or not ordinary:
            return self
        order = enough(self.flip_angles.size, float(jnp.max(jnp.abs(self.flip_angles))), float(jnp.ptp(self.b1_range)))
        return replace(self, table=_table(self, order))

    def _by_table(self, params: Tissue) -> Float[Array, "n voxel"]:
        train = self.table(params.b1, self.echo_spacing / params.t1, self.echo_spacing / params.t2)  # pyright: ignore[reportOptionalCall, reportArgumentType]
        signal = params.m0 * (train if self.echoes is None else train[np.array(self.echoes)])
        return jnp.abs(signal) if self.magnitude else signal

    def batched(self, params: Tissue) -> Inexact[Array, "n voxel"]:
        n_voxels = params.t2.shape[0]  # pyright: ignore[reportAttributeAccessIssue]
        of_block = jax.vmap(self, out_axes=-1) if self.table is None else self._by_table
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
        of_b1, of_t2 = (leaf.ravel() for leaf in jnp.meshgrid(b1, t2, indexing="ij"))
        ones = jnp.ones_like(of_t2)
        trains = self.batched(Tissue(ones, ones, of_t2, ones, of_b1)).T.reshape(b1.size, t2.size, -1)
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

    def _across(self, b1: Float[Array, ""], at_one: Callable[[Pulses, Excitation], Array]) -> Array:
        """The weighted mean over the slice of what pulses do at one position."""
        profile, turn = self.slice_profile, None if self.phases is None else jnp.exp(1j * self.phases)
        if isinstance(profile, SliceProfile):

            def at(transverse: Array, excitation: Array, refocusing: Array) -> Array:
                flip = half_angle(refocusing, b1 * self.flip_angles / (2 * jnp.pi))
                longitudinal = 1 - 2 * polynomial(excitation, b1 / 2) ** 2
                return at_one(Pulses(*flip, turn), Excitation(polynomial(transverse, b1 / 2), longitudinal))

            across = jax.vmap(at)(profile.transverse, profile.excitation, profile.refocusing)
            return jnp.tensordot(profile.weights, across, 1)

        def scaled(b1: Float[Array, ""]) -> Array:
            # Sines and cosines before the scan: inside, XLA would repeat them for every order.
            pulses, excitation = Pulses(*sine_cosine(b1 * self.flip_angles / 2), turn), b1 * (jnp.pi / 2)
            return at_one(pulses, Excitation(jnp.sin(excitation), jnp.cos(excitation)))

        if profile is None:
            return scaled(b1)
        across = jax.vmap(lambda scaling: scaled(b1 * scaling))(profile)
        return jnp.mean(across, 0) if self.slice_weights is None else jnp.tensordot(self.slice_weights, across, 1)

    def _train(
        self, t1: Float[Array, ""], t2: Float[Array, ""], pulses: Pulses, excitation: Excitation
    ) -> Inexact[Array, " echo"]:
        """The echoes for m0 = 1."""
        n = self.flip_angles.shape[0]
        decays = Decays(jnp.exp(-self.echo_spacing / t1), jnp.exp(-self.echo_spacing / t2))
        signal = echoes(pulses, decays, excitation.sine, self._n_odd)
        if self.tr is None:
            return signal
        # The longitudinal magnetisation at the end of the train is linear in that at its start; in the steady state
        # recovery until the next excitation brings it back.
        n_even = (n + 1) // 2 if self.n_states is None else (self.n_states + 1) // 2
        kept = longitudinal_end(pulses, decays, excitation.cosine, n_even, recovery=0.0)
        recovered = longitudinal_end(pulses, decays, jnp.zeros_like(excitation.cosine), n_even, recovery=1.0)
        rest = jnp.exp(-(self.tr - n * self.echo_spacing) / t1)
        return signal * (1 - rest + recovered * rest) / (1 - kept * rest)


@eqx.filter_jit
def _table(model: FSE, order: int) -> TrainTable:
    lowest, highest = model.b1_range

    def without_t2(b1: Array, e1: Array) -> Array:
        decays = Decays(e1, jnp.ones_like(e1))
        return model._across(b1, lambda pulses, excitation: echoes(pulses, decays, excitation.sine, model._n_odd))

    return tabulate(without_t2, model.flip_angles.shape[0], order, lowest, highest)
