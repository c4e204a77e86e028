"""A train of refocusing pulses: its echoes, and what it leaves of longitudinal magnetisation.

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

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

Orders = tuple[Inexact[Array, ""], ...]  # one number per order: vmapped, one contiguous vector of voxels each


class Pulses(NamedTuple):
    """The refocusing pulses of one voxel."""

    sine: Float[Array, " echo"]  # of half the true flip angle
    cosine: Float[Array, " echo"]
    turn: Complex[Array, " echo"] | None  # exp(i phase); None: phase 0 throughout, real arithmetic


class Excitation(NamedTuple):
    """The excitation of one voxel."""

    sine: Float[Array, ""]  # of the true flip angle
    cosine: Float[Array, ""]


class Decays(NamedTuple):
    """What one echo spacing leaves of longitudinal and transverse magnetisation."""

    e1: Float[Array, ""]
    e2: Float[Array, ""]


def echoes(pulses: Pulses, decays: Decays, transverse: Float[Array, ""], n_orders: int) -> Inexact[Array, " echo"]:
    """Odd orders 1, 3, ...: the echoes of magnetisation that was transverse after the excitation."""
    start = transverse * jnp.ones_like(decays.e2)
    start = start if pulses.turn is None else start.astype(pulses.turn.dtype)
    zero = jnp.zeros_like(start)
    empty = (zero,) * n_orders

    def spacing(orders, pulse):
        f_plus, f_minus, w = _transition(pulse, *orders)
        # From a pulse to the next; both halves of the transverse decay are applied here, those of the first echo too.
        echo = (f_minus[0] if pulse.turn is None else f_minus[0].conj()) * decays.e2
        f_plus = (echo, *(f * decays.e2 for f in f_plus[:-1]))
        f_minus = (*(f * decays.e2 for f in f_minus[1:]), zero)
        seen = echo if pulse.turn is None else echo * pulse.turn.conj()
        return (f_plus, f_minus, tuple(z * decays.e1 for z in w)), seen

    return jax.lax.scan(spacing, ((start, *empty[1:]), empty, empty), pulses)[1]


def longitudinal_end(
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
