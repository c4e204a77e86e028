"""Batches change memory and speed, never the result; where memory is short they become smaller."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_single_voxels_of_a_larger_program_are_not_padded():
    device = Device(10_000)
    squares = jax.vmap(lambda voxel: in_batches(device, (), voxel[None], None)[0])(VOXELS)
    np.testing.assert_array_equal(squares, VOXELS**2)
    assert device.widths == [1]
