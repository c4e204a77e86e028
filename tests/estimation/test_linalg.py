"""Small positive-definite systems against LAPACK."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxqmri.estimation import linalg


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_solve_and_inverse_agree_with_lapack(size, rng):
    root = rng.normal(size=(5, size + 2, size))
    matrix, right = root.swapaxes(1, 2) @ root + 0.1 * np.eye(size), rng.normal(size=(5, size))
    triangle = tuple(tuple(jnp.asarray(matrix[:, i, j]) for j in range(i + 1)) for i in range(size))
    factor = linalg.cholesky(triangle)
    x = jnp.stack(linalg.solve(factor, tuple(jnp.asarray(right[:, i]) for i in range(size))), axis=-1)
    inverse = np.stack([np.stack(row, axis=-1) for row in linalg.inverse(factor)], axis=-2)
    # Cholesky is backward stable: relative to the largest entry, an error of a few roundings times the condition.
    for found, wanted in (
        (x, np.linalg.solve(matrix, right[..., None])[..., 0]),
        (inverse, np.linalg.inv(matrix)),
    ):
        for voxel in range(5):
            error = np.max(np.abs(found[voxel] - wanted[voxel])) / np.max(np.abs(wanted[voxel]))
            assert error <= 10 * np.finfo(float).eps * np.linalg.cond(matrix[voxel])


def test_matrix_that_is_not_positive_definite_gives_nan():
    one = jnp.ones(1)
    assert not np.isfinite(linalg.cholesky(((one,), (2 * one, one)))[1][1])
