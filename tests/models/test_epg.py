"""Extended phase graphs against what is known without them: rotations, isochromats, other people's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from jaxqmri import epg


def random_states(rng, n_states=6):
    f_plus, f_minus, z = rng.normal(size=(3, n_states)) + 1j * rng.normal(size=(3, n_states))
    f_minus[0], z[0] = f_plus[0].conj(), z[0].real
    return jnp.asarray(np.stack([f_plus, f_minus, z]), jnp.complex64)


@pytest.mark.parametrize(("phase", "transverse"), [(0.0, -1j), (np.pi / 2, 1.0), (np.pi, 1j)])
def test_ninety_degrees_turns_z_about_the_axis_of_the_pulse(phase, transverse):
    f_plus, f_minus, z = epg.rf(epg.equilibrium(2), np.pi / 2, phase)[:, 0]
    np.testing.assert_allclose([f_plus, f_minus, z], [transverse, np.conj(transverse), 0], atol=1e-6)


def test_a_pulse_and_its_opposite_leave_nothing_behind(rng):
    states = random_states(rng)
    np.testing.assert_allclose(epg.rf(epg.rf(states, 1.1, 0.4), -1.1, 0.4), states, atol=1e-5)


def test_pulses_conserve_magnetisation(rng):
    def size(states):  # Parseval over the configurations: orders above 0 stand for +k and -k
        f_plus, f_minus, z = np.abs(states) ** 2
        return f_plus[0] + np.sum(f_plus[1:] + f_minus[1:]) + z[0] + 2 * np.sum(z[1:])

    states = random_states(rng)
    np.testing.assert_allclose(size(epg.rf(states, 2.2, -0.7)), size(states), rtol=1e-5)


def test_relaxation_decays_and_recovers():
    states = epg.rf(epg.equilibrium(3), np.pi / 2, np.pi / 2)
    f_plus, _, z = epg.relax(states, 0.03, 0.9, 0.06)[:, 0]
    np.testing.assert_allclose([f_plus, z], [np.exp(-0.5), 1 - np.exp(-0.03 / 0.9)], rtol=1e-6)
    np.testing.assert_allclose(epg.relax(epg.equilibrium(3), 5.0, 0.9, 0.06), epg.equilibrium(3), atol=1e-6)


def test_shift_moves_configurations_up_and_conjugates_through_zero(rng):
    states = random_states(rng)
    f_plus, f_minus, z = epg.shift(states)
    np.testing.assert_array_equal(f_plus[1:], states[0, :-1])
    np.testing.assert_array_equal(f_minus[:-1], states[1, 1:])
    assert f_plus[0] == f_minus[0].conj()
    np.testing.assert_array_equal(z, states[2])


def test_spoiling_leaves_longitudinal_magnetisation_only(rng):
    states = random_states(rng)
    assert np.all(epg.spoil(states)[:2] == 0)
    np.testing.assert_array_equal(epg.spoil(states)[2], states[2])


def test_diffusion_of_a_spin_echo_is_stejskal_and_tanner():
    """90 - gradient - 180 - gradient: ln(S) = -q^2 D (2 delta / 3), two touching lobes of duration delta."""
    diffusivity, moment, delta = 2e-9, 8e4, 0.04  # m^2/s, rad/m, s
    states = epg.rf(epg.equilibrium(3), np.pi / 2, np.pi / 2)
    states = epg.shift(epg.diffuse(states, delta, diffusivity, moment))
    states = epg.rf(states, np.pi, 0.0)
    states = epg.shift(epg.diffuse(states, delta, diffusivity, moment))
    np.testing.assert_allclose(abs(states[0, 0]), np.exp(-(moment**2) * diffusivity * 2 * delta / 3), rtol=1e-4)


def test_diffusion_of_stored_magnetisation_goes_with_its_order():
    states = jnp.zeros((3, 4), jnp.complex64).at[2].set(1.0)
    z = epg.diffuse(states, 0.1, 1e-9, 5e4, shifted=False)[2]
    np.testing.assert_allclose(z, np.exp(-((np.arange(4) * 5e4) ** 2) * 0.1 * 1e-9), rtol=1e-5)


@pytest.mark.usefixtures("double_precision")
def test_spoiled_gradient_echoes_are_those_of_epg_x(shared_data):
    """|S| after 779 pulses of 10 degrees at 5 ms, T1 779 ms, T2 45 ms, at every RF-spoiling increment."""
    golden = np.abs(scipy.io.loadmat(shared_data / "epgx" / "SigAll.mat")["Sig"][:, 0])
    increments = np.deg2rad(np.arange(1, 180.25, 0.5))

    def last_signal(increment):
        pulse = jnp.arange(779)

        def repetition(states, phase):
            states = epg.rf(states, np.deg2rad(10.0), phase)
            return epg.shift(epg.relax(states, 5e-3, 0.779, 0.045)), states[0, 0]

        # T2 = 9 TR: nothing of order 200 is left.
        states = epg.equilibrium(200, jnp.complex128)
        return jnp.abs(jax.lax.scan(repetition, states, pulse * (pulse + 1) / 2 * increment)[1][-1])

    np.testing.assert_allclose(jax.jit(jax.vmap(last_signal))(increments), golden, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("double_precision")
def test_operators_can_be_differentiated():
    @jax.jit
    def echo(t2):
        states = epg.shift(epg.relax(epg.rf(epg.equilibrium(4, jnp.complex128), 1.5, np.pi / 2), 5e-3, 0.8, t2))
        states = epg.relax(epg.shift(epg.rf(states, 2.0, 0.0)), 5e-3, 0.8, t2)
        return jnp.real(states[0, 0])

    step = 1e-6
    difference = (echo(0.05 + step) - echo(0.05 - step)) / (2 * step)
    for derivative in (jax.grad(echo), jax.jacfwd(echo)):
        np.testing.assert_allclose(derivative(0.05), difference, rtol=1e-7)
