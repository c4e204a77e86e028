"""Numbers of one precision go in and only such come out: nothing is widened on the way, which would cost time twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_families import FAMILIES, Family

import jaxqmri as jq

REAL = {name: family for name, family in FAMILIES.items() if not family.complex}


@pytest.fixture(params=REAL)
def family(request) -> Family:
    return REAL[request.param]


def traced(family: Family, dtype) -> tuple[jax.ShapeDtypeStruct, jq.FitResult]:
    """Shapes and types of simulated signals and of a fit to them; nothing is compiled or computed."""
    n_voxels = 3
    model = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), family.model)
    tissue = {name: jnp.ones(n_voxels, dtype) for name in model.parameters._fields}
    signal = jax.eval_shape(lambda t: jq.simulate(model, model.parameters(**t)), tissue)
    known = {name: jnp.ones(n_voxels, dtype) for name in family.known}
    return signal, jax.eval_shape(lambda s, k: jq.fit(model, s, known=k, covariance=True), signal, known)


def test_strictly_in_single_precision(family):
    with jax.numpy_dtype_promotion("strict"):
        signal, found = traced(family, jnp.float32)
    assert signal.dtype == jnp.float32
    for leaf in jax.tree.leaves((found.params, found.stderr, found.residual)):
        assert leaf.dtype == jnp.float32


def test_strictly_in_double_precision(family, double_precision):
    with jax.numpy_dtype_promotion("strict"):
        signal, found = traced(family, jnp.float64)
    assert signal.dtype == jnp.float64
    for leaf in jax.tree.leaves((found.params, found.stderr, found.residual)):
        assert leaf.dtype == jnp.float64


def test_strictly_in_a_dictionary():
    train = jq.MonoExponential(np.linspace(0.01, 0.1, 8))
    dictionary = jq.make_dictionary(train, jq.grid(jq.Decay, s0=1.0, t2=np.linspace(0.02, 0.2, 30)))
    with jax.numpy_dtype_promotion("strict"):
        found = jax.eval_shape(lambda s: jq.match(dictionary, s, refine=True), jnp.ones((3, 8)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((found.params, found.m0, found.correlation)))
