"""Voxels on several devices: what is computed there is what one device computes, and stays where the voxels are."""

import subprocess
import sys

from command import ENVIRONMENT

PROGRAM = """
import chex
chex.set_n_cpu_devices(2)  # before JAX looks for devices
import jax, numpy as np, jaxqmri as jq
from jax.sharding import Mesh, NamedSharding, PartitionSpec

model = jq.MonoExponential(np.linspace(4e-3, 40e-3, 6))
half_each = NamedSharding(Mesh(np.array(jax.devices()), ("voxel",)), PartitionSpec("voxel"))
t2 = np.linspace(0.01, 0.08, 128, dtype=np.float32)

simulated = jax.jit(lambda t2: jq.simulate(model, jq.Decay(s0=100.0, t2=t2)))
signal = simulated(jax.device_put(t2, half_each))
assert signal.sharding.is_equivalent_to(half_each, 2), signal.sharding
chex.assert_trees_all_equal(signal, simulated(t2))

fitted = jax.jit(lambda signal: jq.fit(model, signal, batch_size=128))
# Two programs may round differently: of residuals of 1 % that is 1e-5, of residuals without noise all there is.
noisy = np.asarray(signal) * np.random.default_rng(0).normal(1, 0.01, signal.shape).astype(np.float32)
result = fitted(jax.device_put(noisy, half_each))
assert result.params.t2.sharding.is_equivalent_to(half_each, 1), result.params.t2.sharding
alone = fitted(noisy)
chex.assert_trees_all_close(result.params, alone.params, rtol=1e-6)
chex.assert_trees_all_close(result, alone, rtol=1e-4)
np.testing.assert_allclose(fitted(signal).params.t2, t2, rtol=1e-4)

dictionary = jq.make_dictionary(model, jq.grid(jq.Decay, s0=1.0, t2=t2))
for of_half in (lambda signal: jq.fit(model, signal).params.t2, lambda signal: jq.match(dictionary, signal).params.t2):
    mapped = jax.jit(jax.shard_map(of_half, mesh=half_each.mesh, in_specs=half_each.spec, out_specs=half_each.spec))
    np.testing.assert_allclose(mapped(np.asarray(signal)), t2, rtol=1e-4)
"""


def test_voxels_stay_on_their_devices_and_get_the_same_answer():
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
