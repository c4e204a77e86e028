"""A model of a user's own: ranges and one voxel's signal are enough, and what it claims is checked."""

import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_families import FAMILIES

import jaxqmri as jq
from jaxqmri.models import check

README = Path(__file__).resolve().parents[2] / "README.md"
TE = np.arange(1, 9) * 1e-2  # s
N, SIGMA = 4096, 7.0  # SNR 140; fits that are given the noise level share one program per model


def from_readme() -> dict[str, Any]:
    """What the README's block of a model defines."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "class StretchedDecay" in block)
    classes: dict[str, Any] = {"jax": jax, "jnp": jnp, "jq": jq, "NamedTuple": NamedTuple, "__name__": __name__}
    exec(block.split("result = ")[0], classes)
    return classes


OWN = from_readme()
Stretched, StretchedDecay = OWN["Stretched"], OWN["StretchedDecay"]


class Offset(NamedTuple):
    s0: jax.Array
    t2: jax.Array  # s
    offset: jax.Array


class OffsetDecay(jq.SignalModel):
    te: jax.Array  # s
    parameters = Offset  # no amplitude: the ranges that end at infinity are those in units of the signal

    def limits(self):
        return Offset(s0=(0, jnp.inf), t2=(1e-3, 1.0), offset=(-jnp.inf, jnp.inf))

    def __call__(self, p):
        return p.s0 * jnp.exp(-self.te / p.t2) + p.offset


def stretched(rng):
    return Stretched(rng.uniform(900, 1100, N), rng.uniform(0.02, 0.04, N), rng.uniform(0.7, 1.3, N))


def with_offset(rng):
    return Offset(rng.uniform(900, 1100, N), rng.uniform(0.012, 0.025, N), rng.uniform(-120, 120, N))


def formula(truth):
    """In float64 numpy."""
    if isinstance(truth, Stretched):
        return truth.s0[:, None] * np.exp(-((TE / truth.t[:, None]) ** truth.beta[:, None]))
    return truth.s0[:, None] * np.exp(-TE / truth.t2[:, None]) + truth.offset[:, None]


both = pytest.mark.parametrize(("model", "truths"), [(StretchedDecay, stretched), (OffsetDecay, with_offset)])


@both
def test_ten_lines_give_back_the_truth_and_honest_error_bars(model, truths, rng):
    truth = truths(rng)
    clean = formula(truth)
    exact = jq.fit(model(jnp.asarray(TE)), clean, noise=jq.Gaussian(SIGMA))
    noisy = jq.fit(model(jnp.asarray(TE)), clean + rng.normal(scale=SIGMA, size=clean.shape), noise=jq.Gaussian(SIGMA))
    for result in (exact, noisy):
        assert np.all(result.status == jq.Status.OK)
    for name, value in truth._asdict().items():
        scale = 1000 if name == "offset" else value
        assert np.max(np.abs(getattr(exact.params, name) - value) / scale) < 1e-3
        z = (getattr(noisy.params, name) - value) / getattr(noisy.stderr, name)
        assert 0.95 <= np.std(z) <= 1.05, name
        assert abs(np.mean(z)) < 0.1, name


@both
def test_the_scale_of_the_images_scales_the_answer(model, truths, rng):
    clean = formula(truths(rng))
    one, million = (jq.fit(model(jnp.asarray(TE)), s * clean, noise=jq.Gaussian(s * SIGMA)) for s in (1.0, 2.0**20))
    np.testing.assert_array_equal(one.status, million.status)
    for name, unit in one.params._asdict().items():
        factor = 2.0**20 if name in ("s0", "offset") else 1.0
        np.testing.assert_array_equal(getattr(million.params, name), factor * unit)
        np.testing.assert_array_equal(getattr(million.stderr, name), factor * getattr(one.stderr, name))


def test_without_parameters_in_units_of_the_signal_it_is_fitted_as_it_is(rng):
    class Finite(OffsetDecay):
        def limits(self):
            return Offset(s0=(1.0, 1e4), t2=(1e-3, 1.0), offset=(-1000.0, 1000.0))

    truth = with_offset(rng)
    result = jq.fit(Finite(jnp.asarray(TE)), formula(truth))
    assert np.all(result.status == jq.Status.OK)
    np.testing.assert_allclose(result.params.t2, truth.t2, rtol=1e-3)
    np.testing.assert_allclose(result.params.offset, truth.offset, atol=1)


@pytest.mark.slow
def test_what_is_known_is_left_out_of_the_search(rng):
    truth = with_offset(rng)
    for name in Offset._fields:
        result = jq.fit(OffsetDecay(jnp.asarray(TE)), formula(truth), known={name: getattr(truth, name)})
        assert np.all(result.status == jq.Status.OK)
        np.testing.assert_allclose(result.params.t2, truth.t2, rtol=1e-3)


def test_the_guess_is_that_of_each_voxel_alone(rng):
    signal = jnp.asarray(formula(stretched(rng))[:8], jnp.float32)
    model = StretchedDecay(jnp.asarray(TE, jnp.float32))
    together = model.batched_guess(signal.T)
    alone = [model.initial_guess(voxel) for voxel in signal]
    jax.tree.map(lambda all, *each: np.testing.assert_allclose(all, each, rtol=1e-5), together, *alone)


class Claims(NamedTuple):
    s0: jax.Array
    t2: jax.Array
    offset: jax.Array = 1.0  # pyright: ignore[reportAssignmentType]


RANGES = {"s0": (0, jnp.inf), "t2": (1e-3, 1.0), "offset": (-100.0, 100.0)}


def claiming(ranges: dict[str, Any] | None = None, **claims: Any) -> jq.SignalModel:
    """A decay with an offset that says this of itself."""

    class Model(jq.SignalModel):
        te: jax.Array
        parameters = Claims

        def limits(self):
            return Claims(**RANGES | (ranges or {}))

        def __call__(self, p):
            return p.s0 * jnp.exp(-self.te / p.t2) + p.offset

    kind = type("Model", (Model,), {"__module__": __name__, **claims})
    return kind(jnp.asarray(TE))


ENDLESS = (-jnp.inf, jnp.inf)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (claiming(amplitude="s0"), "not proportional to its amplitude s0; declare amplitude = None"),
        (claiming({"offset": ENDLESS}, amplitude="s0"), "offset .* is -inf ... inf; give it finite ends or, if it is"),
        (claiming(amplitude="nonsense"), r"'nonsense', which is none of its parameters \['s0', 't2', 'offset'\]; name"),
        (claiming(), "not proportional to s0 .*; give such a range to all parameters in units of the signal"),
        (claiming({"offset": ENDLESS, "t2": (0, jnp.inf)}), "not proportional to s0 and t2 and offset"),
        (claiming({"offset": ENDLESS, "t2": (1.0, 1e-3)}), "t2 .* is 1 ... 0.001; the first number must be the lower"),
        (claiming({"offset": ENDLESS, "t2": (0, 1.0)}), "t2 .* is 0 ... 1; give a smallest positive value"),
        (
            claiming({"offset": ENDLESS, "t2": 0.1}),
            r"limits\(\) of Model is .*, wanted a Claims of \(lowest, highest\)",
        ),
        (claiming({"offset": ENDLESS}, mirrored=("b1",)), r"mirrored of Model names \['b1'\], but its parameters are"),
        (claiming({"offset": ENDLESS}, assumed=("t1",)), r"assumed of Model names \['t1'\]"),
        (claiming({"offset": ENDLESS}, parameters=dict), "parameters of Model is .*dict.*, wanted a NamedTuple"),
        (
            claiming({"offset": (-jnp.ones(()), 1.0), "s0": (1.0, 2.0)}),
            "offset .* is -1 ... 1, computed from the protocol; name offset in the property `signed`",
        ),
        (
            claiming({"offset": ENDLESS}, assumed=("t2",)),
            r"does not determine t2, which has no default in Claims; give it one, or known=",
        ),
    ],
)
def test_a_model_that_contradicts_itself_is_refused_in_one_line(model, words):
    with pytest.raises(ValueError, match=words) as error:
        jq.fit(model, np.ones((2, TE.size)))
    assert "\n" not in str(error.value)


def test_complex_signals_need_a_model_that_is_complex_or_has_an_amplitude():
    signal = np.exp(-TE / 0.02)[None] * (1 + 1j)
    assert jq.fit(StretchedDecay(jnp.asarray(TE)), signal).status.tolist() == [jq.Status.OK]
    for model in (OffsetDecay(jnp.asarray(TE)), jq.InversionRecovery(TE, magnitude=True)):
        with pytest.raises(ValueError, match=r"signal is complex, but \w+ predicts .*; (fit|give) jnp.abs\(signal\)"):
            jq.fit(model, signal)


def test_a_model_is_checked_once_and_once_under_a_transformation(monkeypatch):
    looks = []
    monkeypatch.setattr(check, "_checked", set())
    monkeypatch.setattr(check, "_check_names", lambda model: looks.append(model))
    signal = jnp.ones((N, TE.size))
    for _ in range(2):
        jax.eval_shape(lambda te: jq.fit(StretchedDecay(te), signal).status, jnp.asarray(TE))
    assert len(looks) == 1
    for te in (TE, 1.5 * TE):
        jq.fit(StretchedDecay(jnp.asarray(te)), signal, noise=jq.Gaussian(SIGMA))
    assert len(looks) == 2


def test_a_wrong_amplitude_is_refused_also_where_the_protocol_is_traced():
    wrong = type(claiming(amplitude="s0"))
    with pytest.raises(ValueError, match="not proportional to its amplitude s0"):
        jax.eval_shape(lambda te: jq.fit(wrong(te), jnp.ones((N, TE.size))).status, jnp.asarray(TE))


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_protocol_may_be_a_list(kind):
    signal = np.asarray(jq.simulate(StretchedDecay(jnp.asarray(TE)), Stretched(1000.0, 0.03, 1.0)))
    model = StretchedDecay(kind(TE.tolist()))
    fit, simulate = map(inspect.unwrap, (jq.fit, jq.simulate))  # without the checks of the tests
    np.testing.assert_array_equal(simulate(model, Stretched(1000.0, 0.03, 1.0)), signal)
    np.testing.assert_allclose(fit(model, np.ones((N, 1)) * signal, noise=jq.Gaussian(10.0)).params.t, 0.03, rtol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_packages_models_keep_what_they_claim(name):
    """Without which they would have to be checked in every process that uses them."""
    model = FAMILIES[name].model
    check._check_names(model)
    check._check_ranges(model)
    check._check_signal(model, FAMILIES[name].complex)
