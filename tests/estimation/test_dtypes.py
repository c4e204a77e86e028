"""Numbers of one precision go in and only such come out: nothing is widened on the way, which would cost time twice."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_families import FAMILIES, Family

import jaxqmri as jq
from jaxqmri.models.base import as_float_array

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
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        signal, found = traced(family, jnp.float32)
    assert signal.dtype == jnp.float32
    for leaf in jax.tree.leaves((found.params, found.stderr, found.residual)):
        assert leaf.dtype == jnp.float32


def test_strictly_in_double_precision(family, double_precision):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        signal, found = traced(family, jnp.float64)
    assert signal.dtype == jnp.float64
    for leaf in jax.tree.leaves((found.params, found.stderr, found.residual)):
        assert leaf.dtype == jnp.float64


def test_strictly_in_a_dictionary():
    train = jq.MonoExponential(np.linspace(0.01, 0.1, 8))
    dictionary = jq.make_dictionary(train, jq.grid(jq.Decay, s0=1.0, t2=np.linspace(0.02, 0.2, 30)))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = jax.eval_shape(lambda s: jq.match(dictionary, s, refine=True), jnp.ones((3, 8)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((found.params, found.m0, found.correlation)))


fit, simulate, match = map(inspect.unwrap, (jq.fit, jq.simulate, jq.match))  # without the checks of the tests


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<i8", ">i8", "<u8", np.longdouble])
def test_numbers_in_types_that_jax_lacks_are_what_they_say(dtype):
    """In the other byte order, in more precision than float64, beyond 2^31."""
    te, t2 = np.array([0.005, 0.010, 0.020, 0.040]), 0.03
    model, s0 = jq.MonoExponential(te), np.full(2, 3e9).astype(dtype)
    signal = (3e9 * np.exp(-te / t2) * np.ones((2, 1))).astype(dtype)
    dictionary = jq.make_dictionary(model, jq.grid(jq.Decay, s0=1.0, t2=np.linspace(0.01, 0.1, 181)))
    np.testing.assert_allclose(simulate(model, jq.Decay(s0, t2)), signal.astype(float), rtol=1e-6)
    np.testing.assert_allclose(fit(model, signal).params.t2, t2, rtol=1e-5)
    np.testing.assert_allclose(fit(model, signal, known={"s0": s0}).params.t2, t2, rtol=1e-5)
    np.testing.assert_allclose(match(dictionary, signal).m0, 3e9, rtol=1e-5)
    np.testing.assert_array_equal(inspect.unwrap(as_float_array)(np.arange(3).astype(dtype)), [0, 1, 2])


@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
def test_what_is_masked_is_no_number(dtype):
    te, t2 = np.array([0.005, 0.010, 0.020, 0.040]), 0.03
    signal = np.ma.array((1000 * np.exp(-te / t2) * np.ones((2, 1))).astype(dtype), mask=np.zeros((2, 4)))
    signal[1, 3] = np.ma.masked
    model, status = jq.MonoExponential(te), [jq.Status.OK, jq.Status.NOT_FINITE]
    assert fit(model, signal).status.tolist() == status
    assert fit(model, signal.data, known={"s0": np.ma.array([1000, 1000], mask=[0, 1])}).status.tolist() == status
    inside = np.ma.array([True, True], mask=[0, 1])
    assert fit(model, signal.data, mask=inside).status.tolist() == [jq.Status.OK, jq.Status.MASKED]
    images = jq.ImageSeries.from_arrays(signal[:, None, None], te=te).data
    np.testing.assert_array_equal(np.isnan(images[:, 0, 0]), signal.mask)


def test_integers_of_python_have_no_end():
    model = jq.MonoExponential([0.0, 0.01])
    np.testing.assert_allclose(simulate(model, jq.Decay(2**40, 0.03))[0], 2.0**40)
    np.testing.assert_allclose(fit(model, [2**40, 2**39]).params.t2, 0.01 / np.log(2), rtol=1e-5)
