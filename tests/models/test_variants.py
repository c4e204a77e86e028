"""Operators and models give the same numbers compiled or not, wherever the numbers come from."""

import chex
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized
from model_families import FAMILIES

from jaxqmri import epg


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_a_spin_echo_of_the_operators(self):
        @self.variant
        def echo(t2):
            states = epg.rf(epg.equilibrium(3), jnp.pi / 2, jnp.pi / 2)
            states = epg.rf(epg.shift(epg.relax(states, 5e-3, 0.8, t2)), jnp.pi, 0.0)
            return epg.relax(epg.shift(states), 5e-3, 0.8, t2)[0, 0]

        for t2 in (0.05, jnp.float32(0.05)):
            np.testing.assert_allclose(echo(t2), np.exp(-0.01 / 0.05), rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    @parameterized.named_parameters((name.replace(" ", "_"), name) for name in FAMILIES)
    def test_a_model(self, name):
        family = FAMILIES[name]
        tissue = {**family.typical, **dict.fromkeys(family.known, 0.85)}
        params = family.model.parameters(**{family.amplitude: 3.0, **tissue})
        signal = self.variant(lambda params: family.model(params))(params)
        chex.assert_shape(signal, (family.model.n_measurements,))
        np.testing.assert_allclose(signal, family.formula(3.0, tissue), rtol=1e-4, atol=1e-5)
