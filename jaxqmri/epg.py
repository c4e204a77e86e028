"""Extended phase graphs: what RF pulses, gradients and relaxation do to the configuration states of the magnetisation.

A voxel under a regularly repeated gradient is a Fourier series of configurations: order k holds the magnetisation that
has been dephased by k units of the gradient. The states are a (3, k) array with the rows F+ (transverse, dephased by
+k), F- (the conjugate configuration, dephased by -k) and Z (longitudinal), in units of the equilibrium magnetisation.
An echo is F+ of order 0, and F-_0 = conj(F+_0) by definition.

Every function takes states and returns states, for one voxel, in any precision; write a sequence as its pulse diagram:

    states = rf(equilibrium(20), jnp.pi / 2, jnp.pi / 2)
    for flip_angle in train:
        states = shift(relax(states, half, t1, t2))
        states = rf(states, flip_angle, 0.0)
        states = relax(shift(states), half, t1, t2)
        echo = states[0, 0]

Source: Weigel, J Magn Reson Imaging 41:266 (2015); Hennig, Concepts Magn Reson 3:125 (1991).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, DTypeLike, Float

States = Complex[Array, "3 k"]
Scalar = Float[Array, ""] | Float[np.ndarray, ""] | np.floating | float


def equilibrium(n_states: int, dtype: DTypeLike = jnp.complex64) -> States:
    """All magnetisation longitudinal and not dephased, with orders 0 ... n_states - 1.

    A spin-echo train of n pulses, each between two shifts, is exact with n + 1 orders.
    """
    return jnp.zeros((3, n_states), dtype).at[2, 0].set(1)


def rf(states: States, flip_angle: Scalar, phase: Scalar = 0.0) -> States:
    """Instantaneous rotation by `flip_angle` [rad] about the axis in the transverse plane that is `phase` [rad] from x.

    Phase 0 turns Z towards -y, pi/2 turns Z towards x. Source: Weigel (2015), eq. 15, transition operator T.
    """
    f_plus, f_minus, z = states
    cos2, sin2 = jnp.cos(flip_angle / 2) ** 2, jnp.sin(flip_angle / 2) ** 2
    sin, cos = jnp.sin(flip_angle), jnp.cos(flip_angle)
    axis = jnp.exp(1j * jnp.asarray(phase, cos2.dtype)).astype(states.dtype)
    return jnp.stack(
        [
            cos2 * f_plus + axis**2 * sin2 * f_minus - 1j * axis * sin * z,
            axis.conj() ** 2 * sin2 * f_plus + cos2 * f_minus + 1j * axis.conj() * sin * z,
            -0.5j * axis.conj() * sin * f_plus + 0.5j * axis * sin * f_minus + cos * z,
        ]
    ).astype(states.dtype)


def relax(states: States, time: Scalar, t1: Scalar, t2: Scalar) -> States:
    """Transverse decay, longitudinal decay, and recovery of the order that is not dephased; all times in s.

    Source: Weigel (2015), eq. 23, relaxation operator E.
    """
    e1, e2 = jnp.exp(-time / jnp.asarray(t1)), jnp.exp(-time / jnp.asarray(t2))
    decayed = states * jnp.stack([e2, e2, e1])[:, None]
    return decayed.at[2, 0].add(1 - e1).astype(states.dtype)


def shift(states: States) -> States:
    """Dephase by one unit of gradient: F+ moves up one order, F- down, Z stays; orders above the last are dropped.

    Source: Weigel (2015), eq. 20, shift operator S.
    """
    f_plus, f_minus, z = states
    f_minus = jnp.append(f_minus[1:], 0).astype(states.dtype)
    f_plus = jnp.concatenate([f_minus[:1].conj(), f_plus[:-1]])  # F+_0 = conj(F-_0)
    return jnp.stack([f_plus, f_minus, z])


def spoil(states: States) -> States:
    """Ideal spoiling: no transverse magnetisation is left."""
    return states.at[:2].set(0)


def diffuse(states: States, time: Scalar, diffusivity: Scalar, gradient_moment: Scalar, shifted: bool = True) -> States:
    """Attenuation by free diffusion; apply it before the `shift` that belongs to the same interval.

    The interval takes `time` [s]; `diffusivity` is in m^2/s; `gradient_moment`, gamma times the integral of one unit of
    gradient, in rad/m; `shifted` says whether a gradient of one unit is on, constant through the interval.
    Source: Weigel, Schwenk, Kiselev, Scheffler, Hennig, J Magn Reson 205:276 (2010), eqs. 26 and 27.
    """
    order = jnp.arange(states.shape[1])
    steps = 1.0 if shifted else 0.0
    # Transverse: mean of (k + s)^2 while the order grows from k to k + steps.
    transverse = [((k + steps / 2) ** 2 + steps**2 / 12) * gradient_moment**2 * time for k in (order, -order)]
    b = jnp.stack([*transverse, order**2 * gradient_moment**2 * time])
    return (states * jnp.exp(-b * diffusivity)).astype(states.dtype)
