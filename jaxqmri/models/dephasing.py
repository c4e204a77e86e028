"""Gradient echoes that lose signal because the field changes across the slice: T2* apart from that.

Such a field turns the parts of a slice apart, so that their sum falls faster than by T2*. With the off-resonance
b0 + b0_change z at z slice thicknesses from the middle, and weights w of n equally wide parts around z_k,

    S(TE) = M0 exp(-TE / T2*) |D|,   D = sinc(b0_change TE width / n) sum_k w_k exp(2 pi i b0_change z_k TE),

with the sum of the weights 1: the Fourier transform of the slice profile. Of a rectangular one, a single part, it is
sinc(b0_change TE). b0_change [Hz] is the gradient [Hz/mm] times the slice thickness [mm], not the slice spacing.
Source: Fernandez-Seara, Wehrli, Magn Reson Med 44:358 (2000); Hernando, Vigen, Shimakawa, Reeder, Magn Reson Med 68:830
(2012).
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact

from .base import NO_BOUNDS, NOTHING, Known, SignalModel, as_float_array, check_times
from .guess import fitting_amplitude, lowest, total, visible_times
from .tissue import Value


class DephasingDecay(NamedTuple):
    """Parameters of magnitudes that decay and dephase."""

    m0: Value  # a.u., signal at TE = 0
    t2star: Value  # s
    b0_change: Value = 0.0  # Hz, of the off-resonance from one side of the slice to the other


class DephasedGradientEcho(SignalModel):
    """S(TE) = M0 exp(-TE / T2*) |D(b0_change TE)|: magnitudes of gradient echoes that dephase through the slice.

    D is the Fourier transform of the slice profile, see `jaxqmri.models.dephasing`. Give what is known of the field,

        known={"b0_change": gradient_hz_per_mm * slice_thickness_mm}

    or it is fitted, without its sign. T2* of 12 echoes over 2 T2* at SNR 50 (M0 over the standard deviation of the
    noise) then has an error of

        b0_change x T2*    0.15    0.3    0.6    0.9    1.2
        known               3 %    4 %    7 %   10 %   14 %
        fitted              9 %   10 %   14 %   13 %   17 %

    Below 0.1, what is fitted is noise. Without the factor T2* comes out too short, by 9 % at 0.2, 28 % at 0.4, half at
    0.7.

    Args:
        te: (echo,) echo times, at least two, in any order [s].
        slice_weights: (part,) signal from equally wide parts of the slice, side by side; [1.0]: rectangular.
        slice_width: of all parts together, in slice thicknesses.

    Raises:
        ValueError: fewer than two different echo times, times that cannot be seconds, weights that have no sum, a width
            that is not positive.
    """

    te: Float[Array, " echo"] = eqx.field(converter=as_float_array)
    slice_weights: Float[Array, " part"] = eqx.field(default=(1.0,), converter=as_float_array)
    slice_width: Float[Array, ""] = eqx.field(default=1.0, converter=as_float_array)

    parameters: ClassVar[type] = DephasingDecay
    amplitude: ClassVar[str] = "m0"
    signed: ClassVar[tuple[str, ...]] = ("b0_change",)  # pyright: ignore[reportIncompatibleVariableOverride]
    broadcasts: ClassVar[bool] = True
    magnitude: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]

    def __check_init__(self):
        check_times("te", self.te, different=2)
        check_slice(self.slice_weights, self.slice_width)

    def __call__(self, params: DephasingDecay) -> Float[Array, "echo ..."]:
        left = jnp.abs(dephasing(self.te * params.b0_change, self.slice_weights, self.slice_width))
        return params.m0 * (jnp.exp(-self.te / jnp.asarray(params.t2star)) * left)

    def initial_guess(self, signal: Inexact[Array, " echo"], known: Known = NOTHING) -> DephasingDecay:
        if "b0_change" not in known:
            return jax.tree.map(lambda leaf: leaf[0], self.guesses(signal, known, NO_BOUNDS, 1))
        left = list(jnp.abs(dephasing(self.te * known["b0_change"], self.slice_weights, self.slice_width)))
        measured, times = list(signal), list(self.te)

        def best(t2star):
            shape = [size * jnp.exp(-te / t2star) for size, te in zip(left, times, strict=True)]
            m0 = known["m0"] if "m0" in known else fitting_amplitude(shape, measured)
            return DephasingDecay(m0, t2star, known["b0_change"]), shape

        return lowest(best, measured, visible_times(self.te), known.get("t2star"))[0]

    def limits(self) -> DephasingDecay:
        return DephasingDecay(m0=(0.0, jnp.inf), t2star=visible_times(self.te), b0_change=visible_changes(self.te))  # pyright: ignore[reportArgumentType]


def dephasing(
    turns: Float[Array, "..."], slice_weights: Float[Array, " part ..."], slice_width: Float[Array, "..."]
) -> Inexact[Array, "..."]:
    """What is left of the signal, and its phase, where the sides of the slice are `turns` whole turns apart."""
    weights, n = list(slice_weights), slice_weights.shape[0]
    within_part = jnp.sinc(turns * (slice_width / n))
    if n == 1:
        return within_part
    middles = [slice_width * ((k + 0.5) / n - 0.5) for k in range(n)]
    phases = [2 * jnp.pi * turns * z for z in middles]
    real = total(w * jnp.cos(phase) for w, phase in zip(weights, phases, strict=True))
    imaginary = total(w * jnp.sin(phase) for w, phase in zip(weights, phases, strict=True))
    return within_part * jax.lax.complex(real, imaginary) / total(weights)


def visible_changes(te: Float[Array, " echo"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Changes of b0 across the slice [Hz] that have no alias: half a turn from one echo to the next, at most."""
    most = 0.05 / visible_times(te)[0]  # which is a tenth of the step between echoes
    return -most, most


def check_slice(weights: Float[Array, "..."], width: Float[Array, "..."]) -> None:
    """Refuses weights of a slice profile, and its width, that are none."""
    if weights.ndim != 1 or not weights.shape[0] or width.ndim:
        raise ValueError(
            f"slice_weights and slice_width have shapes {weights.shape} and {width.shape}, wanted (part,) and a number."
        )
    if isinstance(weights, Tracer) or isinstance(width, Tracer):
        return
    size = np.abs(np.sum(np.asarray(weights)))
    if not size > 1e-3 * np.sum(np.abs(np.asarray(weights))):
        raise ValueError(f"slice_weights must be finite and have a sum other than 0, got {np.asarray(weights)}.")
    if not 0 < float(width) < np.inf:
        raise ValueError(f"slice_width must be positive [slice thicknesses], got {float(width):g}.")
