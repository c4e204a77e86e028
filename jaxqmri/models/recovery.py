"""Recovery of the longitudinal magnetisation: inversion and saturation recovery (T1)."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact

from .base import NOTHING, Known, SignalModel, as_float_array, check_repetition, check_times, finite_or_none
from .guess import Measurements, fitting_amplitude, inner_product, lowest, squares, total, visible_times
from .tissue import Value


class Recovery(NamedTuple):
    """Parameters of an inversion or saturation recovery."""

    m0: Value  # a.u., equilibrium magnetisation times receiver gain
    t1: Value  # s
    efficiency: Value = 1.0  # -Mz after / Mz before the pulse: 1 inverts perfectly, 0 saturates


class InversionRecovery(SignalModel):
    """S(TI) = M0 [1 - (1 + f) exp(-TI/T1) + f exp(-TR/T1)]: a pulse, recovery for TI, and a 90 degree readout.

    f is the efficiency, -Mz after / Mz before the pulse: 1 for a perfect inversion, 0 for a saturation, -cos(angle) in
    general. The pulse is repeated every TR, and the readout leaves neither longitudinal nor transverse magnetisation.
    The signal is that of a phase-corrected real image, negative before the null; complex images have a complex M0; with
    `magnitude` it is |S|, and the guess finds which of the measurements were negative.

    M0, T1 and f can be told apart from 3 different TI, at least one near or beyond T1; with 2, or to gain precision,
    hold `known={"efficiency": 1.0}`. Magnitude images need one TI more, as else several polarities fit exactly; a fit
    refuses fewer. Near its null a magnitude does not tell its sign; a fit picks one, and error bars cover the other as
    far as it is likely. SD of (T1 - truth) / error bar with a TI at the null, 5 ... 8 TI, SNR 20 ... 200: 0.97 ... 1.06
    by `noise=Rician(sigma)`, 0.86 ... 1.14 by `Gaussian(sigma)`, the same by `Gaussian()` against Student's t. Left out
    are relaxation during the pulse and readouts other than 90 degrees, whose effect f takes up in part.

    Limits: T1 from a tenth of the shortest TI (or the smallest step between TIs, if that is longer) to 100 times the
    longest; f from -0.95 to 10, wider than the physical [-1, 1], because noise carries estimates beyond it. Where f is
    above 1 by more than its error bar, the images are of another kind: Look-Locker gives T1* and f = T1 / T1*.
    Source: Barral et al., Magn Reson Med 64:1057 (2010); Bernstein, King, Zhou, Handbook of MRI Pulse Sequences (2004),
    §14.2.

    Args:
        ti: (inversion,) times from the pulse to the readout, at least two different ones, in any order [s].
        tr: repetition time, from pulse to pulse [s]; inf: full recovery.
        magnitude: whether the signal is what a magnitude image shows.

    Raises:
        ValueError: fewer than two different inversion times, times that cannot be seconds, `tr` not beyond every `ti`.
    """

    ti: Float[Array, " inversion"] = eqx.field(converter=as_float_array)
    tr: Float[Array, ""] | None = eqx.field(default=jnp.inf, converter=finite_or_none)
    magnitude: bool = eqx.field(default=False, static=True)  # pyright: ignore[reportIncompatibleVariableOverride]

    parameters: ClassVar[type] = Recovery
    amplitude: ClassVar[str] = "m0"
    broadcasts: ClassVar[bool] = True
    accepts_missing: ClassVar[bool] = True  # next to the null, neighbours are no substitute for a measurement

    def __check_init__(self):
        check_times("ti", self.ti, different=2)
        if self.tr is not None:
            if self.tr.ndim != 0:
                raise ValueError(f"tr is one number [s], got shape {self.tr.shape}.")
            check_times("tr", self.tr)
            check_repetition(self.tr, jnp.max(self.ti), "the longest ti")

    def __call__(self, params: Recovery) -> Inexact[Array, "inversion ..."]:
        rate = 1 / jnp.asarray(params.t1)
        # The same formula in what has recovered, 1 - exp(): exact to rounding however slow the recovery is.
        recovered, efficiency = -jnp.expm1(-self.ti * rate), params.efficiency
        shape = (1 + efficiency) * recovered - efficiency * self._full(rate)
        return params.m0 * (jnp.abs(shape) if self.magnitude else shape)

    def initial_guess(self, signal: Inexact[Array, " inversion"], known: Known = NOTHING) -> Recovery:
        measured = list(signal)
        if self.magnitude:
            # Interpolated images may be a little negative next to the null.
            return self._magnitude_guess([jnp.maximum(s, 0) for s in measured], known)
        if not jnp.iscomplexobj(signal):
            return self._signed_guess(measured, known)[0]
        # The signal lies on a line through 0; the direction in which it is positive is that of the better fit.
        m0 = known.get("m0")
        seen = [jnp.where(jnp.isnan(s), 0, s) for s in measured]
        along = jnp.exp(0.5j * jnp.angle(total(s**2 for s in seen) if m0 is None else m0**2))
        known = dict(known) if m0 is None else dict(known) | {"m0": jnp.abs(m0)}
        turned = [(s * along.conj()).real for s in measured]
        sign, guess = self._best_of(jnp.array([1, -1]), lambda sign: [sign * s for s in turned], known)
        return guess._replace(m0=guess.m0 * sign * along if m0 is None else m0)

    @property
    def spare(self) -> int:
        return 1 if self.magnitude else 0

    def check_determined(self, free: Sequence[str], n_priors: int) -> None:
        n = self.ti.shape[0] if isinstance(self.ti, Tracer) else len(np.unique(np.asarray(self.ti)))
        if n + n_priors >= len(free) + self.spare:
            return
        given, them = f"{n} different inversion times", f"{len(free)} parameters {list(free)}"
        remedy = "hold one that is known, such as known={'efficiency': 1.0}, or measure more"
        if n + n_priors == len(free):
            raise ValueError(
                f"{given} of magnitudes determine {them} in several ways, one for every polarity; {remedy}, or fit "
                "signed (real) images, magnitude=False."
            )
        raise ValueError(f"{given} cannot determine {them}; {remedy}.")

    def check_signal(self, signal: Inexact[ArrayLike, "*voxel n"]) -> None:
        """Refuses magnitudes where signed numbers are expected: these rise with TI, those first fall to their null."""
        if self.magnitude or jnp.iscomplexobj(signal) or isinstance(self.ti, Tracer):
            return
        in_time = np.asarray(signal)[..., np.argsort(np.asarray(self.ti))].reshape(-1, self.ti.shape[0])
        in_time = in_time[np.isfinite(in_time).all(axis=-1) & (in_time != 0).any(axis=-1)]
        if not in_time.size or in_time.min() < 0:
            return
        falls = np.mean(in_time[:, 0] - in_time.min(axis=-1) > _FALL * in_time.max(axis=-1))
        if falls > 0.5:
            raise ValueError(
                f"signal is never negative and falls with ti in {100 * falls:.0f} % of the voxels, as magnitudes do; "
                "use InversionRecovery(ti, tr, magnitude=True)."
            )

    def limits(self) -> Recovery:
        t1 = visible_times(self.ti)
        return Recovery(m0=(0.0, jnp.inf), t1=t1, efficiency=_EFFICIENCIES)  # pyright: ignore[reportArgumentType]

    def _longest_step(self, name: str) -> float:
        return 1.0

    def _full(self, rate: Float[Array, "..."]) -> Float[Array, "..."] | float:
        """What recovers within TR."""
        return 1.0 if self.tr is None else -jnp.expm1(-self.tr * rate)

    @property
    def restores_polarity(self) -> bool:
        return self.magnitude

    def _signs(self) -> Float[Array, "polarity inversion"]:
        """The recovery rises, so it is the first measurements in time that are negative: none, one, ..., all."""
        n, rank = self.ti.shape[0], jnp.argsort(jnp.argsort(self.ti))
        return jnp.where(rank < jnp.arange(n + 1)[:, None], -1.0, 1.0).astype(self.ti.dtype)

    def _magnitude_guess(self, signal: Measurements, known: Known) -> Recovery:
        """The best over all polarities.

        For given parameters the misfit of magnitudes is that of the signed signal with the polarity of the model, so
        the best signed fit over all polarities is the best magnitude fit.
        """
        return self._best_of(self._signs(), lambda signs: _with_signs(signs, signal), known)[1]

    def _best_of(
        self, choices: Array, signal_for: Callable[[Array], Measurements], known: Known
    ) -> tuple[Array, Recovery]:
        """Which choice of signal is fitted best, and its guess."""
        guesses, misfits = jax.lax.map(lambda choice: self._signed_guess(signal_for(choice), known), choices)
        best = jnp.argmin(misfits)
        return choices[best], Recovery(*(leaf[best] for leaf in guesses))

    def _signed_guess(self, signal: Measurements, known: Known) -> tuple[Recovery, Float[Array, ""]]:
        """The least-squares fit, nearly, and its misfit."""
        times = list(self.ti)
        kept = [jnp.where(jnp.isnan(s), 0.0, 1.0) for s in signal]
        signal = [jnp.where(jnp.isnan(s), 0, s) for s in signal]

        def best(t1):
            # For a guess 1 - exp() will do; expm1 takes several times as long, and to compile.
            recovered = [k * (1 - jnp.exp(-ti / t1)) for k, ti in zip(kept, times, strict=True)]
            recovered_in_tr = self._full(1 / t1)
            full = [k * recovered_in_tr for k in kept]
            m0, efficiency = _linear_fit(recovered, full, kept, signal, known)
            return Recovery(m0, t1, efficiency), _shape(efficiency, recovered, full)

        return lowest(best, signal, visible_times(self.ti), known.get("t1"))


def _with_signs(signs: Float[Array, " inversion"], signal: Measurements) -> list[Any]:
    return [sign * s for sign, s in zip(signs, signal, strict=True)]


def _shape(efficiency: Any, recovered: Measurements, full: Measurements) -> list[Any]:
    """The signal for M0 = 1."""
    return [(1 + efficiency) * x - efficiency * y for x, y in zip(recovered, full, strict=True)]


def _linear_fit(
    recovered: Measurements, full: Measurements, kept: Measurements, signal: Measurements, known: Known
) -> tuple[Array, Array]:
    """M0 and efficiency by linear least squares, within their limits.

    `recovered` is 1 - exp(-TI/T1), `full` 1 - exp(-TR/T1), `kept` 1, the signal signed; all 0 where one is left out.
    """
    tiny = jnp.finfo(recovered[0].dtype).tiny
    lowest_f, highest_f = _EFFICIENCIES

    def shape(f):
        return _shape(f, recovered, full)

    if "efficiency" in known:
        efficiency = known["efficiency"]
        return known["m0"] if "m0" in known else fitting_amplitude(shape(efficiency), signal), efficiency
    if "m0" in known:
        # S - M0 (1 - E_TI) = f M0 (E_TR - E_TI)
        m0 = known["m0"]
        rest = [s - m0 * x for x, s in zip(recovered, signal, strict=True)]
        slope = [m0 * (x - y) for x, y in zip(recovered, full, strict=True)]
        efficiency = inner_product(slope, rest) / jnp.maximum(squares(slope), tiny)
        return m0, jnp.clip(efficiency, lowest_f, highest_f)
    # A straight line S = a + b (1 - E_TI), with a = -f M0 (1 - E_TR) and b = (1 + f) M0.
    n = total(kept)
    mean, signal_mean = total(recovered) / n, total(signal) / n
    offset = [k * (x - mean) for k, x in zip(kept, recovered, strict=True)]
    b = inner_product(offset, [s - signal_mean for s in signal]) / jnp.maximum(squares(offset), tiny)
    at_zero = (signal_mean - b * mean) / (total(full) / n)
    m0 = b + at_zero
    possible = (m0 > 0) & (-at_zero >= lowest_f * m0) & (-at_zero <= highest_f * m0)
    # If the best one is not possible, one of the limits is the best of those that are.
    low_m0, high_m0 = (fitting_amplitude(shape(f), signal) for f in _EFFICIENCIES)
    low_energy, high_energy = (squares(shape(f)) for f in _EFFICIENCIES)
    low_is_better = low_m0**2 * low_energy > high_m0**2 * high_energy
    efficiency = jnp.where(possible, -at_zero / jnp.where(possible, m0, 1.0), jnp.where(low_is_better, *_EFFICIENCIES))
    return jnp.where(possible, m0, jnp.where(low_is_better, low_m0, high_m0)), efficiency


# Below -0.95 the pulse does next to nothing and T1 cannot be seen; above 10 less than a tenth of the whole change is
# above 0, and M0 cannot be seen.
_EFFICIENCIES = (-0.95, 10.0)
_FALL = 0.2  # of the largest measurement, from the first one on: noise of a usable scan is smaller
