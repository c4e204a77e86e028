"""Small positive-definite systems against LAPACK."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxqmri.estimation import linalg


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_solve_and_inverse_agree_with_lapack(size, rng):
    root = rng.normal(size=(5, size + 2, size))
    matrix, right = root.swapaxes(1, 2) @ root + 0.1 * np.eye(size), rng.normal(size=(5, size))
    triangle = tuple(tuple(jnp.asarray(matrix[:, i, j]) for j in range(i + 1)) for i in range(size))
    factor = linalg.cholesky(triangle)
    x = jnp.stack(linalg.solve(factor, tuple(jnp.asarray(right[:, i]) for i in range(size))), axis=-1)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, right[..., None])[..., 0], rtol=2e-3, atol=1e-4)
    diagonal = jnp.stack(linalg.inverse_diagonal(factor), axis=-1)
    np.testing.assert_allclose(diagonal, np.diagonal(np.linalg.inv(matrix), axis1=1, axis2=2), rtol=2e-3, atol=1e-4)


def test_matrix_that_is_not_positive_definite_gives_nan():
    one = jnp.ones(1)
    assert not np.isfinite(linalg.cholesky(((one,), (2 * one, one)))[1][1])
