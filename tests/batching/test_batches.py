"""Batches change memory and speed, never the result; where memory is short they become smaller."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri.batching.batches import at_most, in_batches

VOXELS = jnp.arange(1000.0)


class Device:
    """Squares voxels, as many at once as its memory holds."""

    def __init__(self, memory: int, message: str = "RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."):
        self.memory, self.message, self.widths = memory, message, []

    def __call__(self, batch):
        self.widths.append(len(batch))
        if len(batch) > self.memory:
            raise jax.errors.JaxRuntimeError(self.message)
        return batch**2


@pytest.mark.parametrize(
    ("memory", "sizes"),
    [(1000, [600, 400]), (384, [300, 300, 300, 100]), (128, [75] * 13 + [25])],
)
def test_batches_are_halved_until_they_fit_and_nothing_is_lost(memory, sizes):
    done: list[int] = []
    squares = in_batches(Device(memory), (), VOXELS, 600, done.append)
    np.testing.assert_array_equal(squares, VOXELS**2)
    assert done == sizes, "progress is told once for every voxel"


def test_halving_ends():
    device = Device(10)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        in_batches(device, (), jnp.arange(32768.0), 32768)
    assert device.widths == [32768, 16384, 8192, 4096, 2048, 1024]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    device = Device(10, "INTERNAL: something else")
    with pytest.raises(RuntimeError, match="something else"):
        in_batches(device, (), VOXELS, None)
    assert len(device.widths) == 1


def test_nothing_larger_than_allowed_within_a_block():
    device = Device(10_000)
    with at_most(128):
        np.testing.assert_array_equal(in_batches(device, (), VOXELS, None), VOXELS**2)
    assert set(device.widths) == {128}
    device.widths.clear()
    in_batches(device, (), VOXELS, None)
    assert device.widths == [1024]
    with pytest.raises(ValueError, match="at least 1 voxel"), at_most(0):
        pass


def test_batches_of_a_larger_program_are_one_loop_compiled_once():
    device = Device(10_000)
    squares = jax.jit(lambda voxels: in_batches(device, (), voxels, 64))(VOXELS)
    np.testing.assert_array_equal(squares, VOXELS**2)
    assert set(device.widths) == {64}
    assert len(device.widths) < 5, "traced, whatever the number of batches"


@pytest.mark.parametrize("traced", [False, True])
def test_batches_are_filled_with_the_last_voxel(traced):
    """Of zeros the derivative of a signal is not finite, and a fit has no answer."""
    first_and_last = []

    def work(batch):
        first_and_last.append((batch[-50:], len(batch)))
        return batch

    if traced:  # d(sum of exp(-te / t2)) / d(te)
        t2 = jnp.linspace(0.02, 0.1, 100)
        found = jax.grad(lambda te: jnp.sum(in_batches(lambda te, t2: jnp.exp(-te / t2), (te,), t2, 64)))(0.03)
        np.testing.assert_allclose(found, np.sum(-np.exp(-0.03 / t2) / t2), rtol=1e-5)
        return
    in_batches(work, (), np.arange(1.0, 101.0), 64)
    assert all(np.all(part[28:] == 100) for part, n in first_and_last[1:] if n == 64)
    assert len(first_and_last) == 2


def test_single_voxels_of_a_larger_program_are_not_padded():
    device = Device(10_000)
    squares = jax.vmap(lambda voxel: in_batches(device, (), voxel[None], None)[0])(VOXELS)
    np.testing.assert_array_equal(squares, VOXELS**2)
    assert device.widths == [1]


TE = np.linspace(5e-3, 40e-3, 6)
MODEL = jq.MonoExponential(TE)
DICTIONARY = jq.make_dictionary(MODEL, jq.grid(jq.Decay, s0=1.0, t2=np.geomspace(5e-3, 0.2, 64)))


def decays(n):
    return (100 * np.exp(-TE / np.geomspace(8e-3, 0.1, n)[:, None])).astype(np.float32)


def as_image(n):
    return jq.ImageSeries.from_arrays(decays(n).reshape(1, n, 1, len(TE)), te=TE)


OF_ANY_SIZE = {
    "simulate": lambda n: jq.simulate(MODEL, jq.Decay(s0=np.ones(n), t2=np.full(n, 0.03))),
    "fit": lambda n: jq.fit(MODEL, decays(n), init=jq.Decay(100.0, np.full(n, 0.03)), noise=jq.Gaussian(np.ones(n))),
    "match": lambda n: jq.match(DICTIONARY, decays(n), refine=True),
    "map": lambda n: jq.t2star_map(as_image(n), mask=np.arange(n).reshape(1, n, 1) % 5 > 0),
}


@pytest.mark.parametrize("work", OF_ANY_SIZE)
def test_nothing_is_compiled_for_a_new_size_that_a_program_exists_for(work, caplog):
    """Each program takes seconds, and 25 MB for ever: a dataset of images of all sizes would fill the memory."""
    OF_ANY_SIZE[work](100)
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        for n in (90, 101, 115, 127):
            OF_ANY_SIZE[work](n)
    assert not [record.getMessage() for record in caplog.records if "ompiling" in record.getMessage()]
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        jax.jit(lambda x: x + 1)(np.zeros(41))
    assert any("ompiling" in record.getMessage() for record in caplog.records), "that is how it is seen"


def test_few_programs_serve_all_sizes():
    widths = set()
    for n in np.unique(np.geomspace(1, 300_000, 100).astype(int)):
        device, voxels = Device(10**6), np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(in_batches(device, (), voxels, None), voxels**2)
        assert sum(device.widths) <= max(2 * n, 64) + 1024
        widths |= set(device.widths)
    assert widths <= {2**k for k in range(6, 16)}
