"""Derivatives of maps through the fit: those of the minimum, whatever way the solver took to it.

The references are central differences of whole fits in double precision.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqmri as jq

TE = np.array([3e-3, 8e-3, 16e-3, 28e-3, 45e-3])  # unevenly: the smallest spacing must not change hands
TI = np.array([0.05, 0.2, 0.7, 2.0, 4.5])
ANGLES = np.deg2rad([2.0, 5.0, 12.0, 22.0])
TRAIN = np.deg2rad(np.full(5, 150.0))
STEP = 2e-4  # relative, of the central differences of fourth order: their own error is some 1e-14


def rough(signal, seed, size=0.01):
    """With noise, so that the residuals and what they add to the second derivatives are not zero."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=signal.shape)
    if np.iscomplexobj(signal):
        noise = noise + 1j * rng.normal(size=signal.shape)
    return signal + size * np.abs(signal).max() * noise


def maps_of(result, with_error_bars):
    """What a fit returns and has derivatives, of its two voxels."""
    maps = dict(result.params._asdict())
    if with_error_bars:
        maps |= {f"{name} stderr": value for name, value in result.stderr._asdict().items()}
        maps |= {"residual": result.residual, "reduced_chi2": result.reduced_chi2}
    return jax.tree.map(lambda m: jnp.stack([m.real, m.imag]) if jnp.iscomplexobj(m) else m, maps)


def decaying(at):
    return jq.fit(jq.MonoExponential(at["te"]), at["signal"], noise=jq.Gaussian(at["sigma"], at["weights"]))


def decaying_in_rician_noise(at):
    return jq.fit(jq.MonoExponential(at["te"]), at["signal"], noise=jq.Rician(at["sigma"]))


def recovering(at):
    return jq.fit(jq.InversionRecovery(at["ti"], at["tr"]), at["signal"])


def spoiled(at):
    model = jq.SpoiledGradientEcho(at["flip_angles"], at["tr"])
    return jq.fit(model, at["signal"], known={"b1": at["b1"]})


def refocused(at):
    model = jq.FSE(at["flip_angles"], at["echo_spacing"])
    return jq.fit(model, at["signal"], known={"b1": at["b1"], "t1": at["t1"]})


def precessing(at):
    signal = at["real"] + 1j * at["imaginary"]
    return jq.fit(jq.ComplexGradientEcho(at["te"]), signal, noise=jq.Gaussian(at["sigma"]))


def decay_inputs():
    signal = rough(100 * np.exp(-TE / np.array([[0.012], [0.035]])), 1)
    weights = np.linspace(0.5, 2.0, 5)
    return {"signal": signal, "te": TE, "sigma": np.array([1.0, 1.5]), "weights": weights}


def rician_inputs():
    signal = np.abs(rough(100 * np.exp(-TE / np.array([[0.012], [0.035]])), 2, 0.06))
    return {"signal": signal, "te": TE, "sigma": np.array([5.0, 6.0])}


def recovery_inputs():
    signal = rough(100 * (1 - 1.9 * np.exp(-TI / np.array([[0.7], [1.4]]))), 3)
    return {"signal": signal, "ti": TI, "tr": np.array(8.0)}


def spoiled_inputs():
    b1, e1 = np.array([[0.9], [1.1]]), np.exp(-0.012 / np.array([[0.8], [1.6]]))
    signal = 1000 * np.sin(b1 * ANGLES) * (1 - e1) / (1 - e1 * np.cos(b1 * ANGLES))
    return {"signal": rough(signal, 4), "flip_angles": ANGLES, "tr": np.array(0.012), "b1": b1[:, 0]}


def train_inputs():
    tissue = jq.Tissue(m0=100.0, t1=1.0, t2=np.array([0.05, 0.09]), b1=np.array([0.85, 0.95]))
    signal = rough(np.asarray(jq.simulate(jq.FSE(TRAIN, 0.01), tissue), float), 5)
    given = {"b1": np.asarray(tissue.b1), "t1": np.array([0.9, 1.1])}
    return {"signal": signal, "flip_angles": TRAIN, "echo_spacing": np.array(0.01), **given}


def precessing_inputs():
    m0, b0 = np.array([[60 + 80j], [90 - 20j]]), np.array([[20.0], [-35.0]])
    signal = rough(m0 * np.exp(-TE / np.array([[0.02], [0.04]]) + 2j * np.pi * b0 * TE), 6)
    return {"real": signal.real, "imaginary": signal.imag, "te": TE, "sigma": np.array([1.0, 1.0])}


CASES = {  # the fit, its inputs, whether its error bars are looked at, whether it is looked at in reverse
    "decay": (decaying, decay_inputs, True, True),
    "Rician decay": (decaying_in_rician_noise, rician_inputs, False, False),
    "inversion recovery": (recovering, recovery_inputs, False, False),
    "spoiled gradient echoes": (spoiled, spoiled_inputs, False, False),
    "spin echoes": (refocused, train_inputs, False, True),
    "complex gradient echoes": (precessing, precessing_inputs, False, True),
}
# These programs run once: their compilation is what takes the time.
once = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def directions(inputs):
    """For each input a change of it alone, of about its own size; stacked."""
    rng = np.random.default_rng(11)
    changes = {name: np.asarray(v) * rng.uniform(0.3, 1.0, np.shape(v)) for name, v in inputs.items()}
    return {
        name: jnp.stack([jnp.asarray(change * (name == moved)) for moved in inputs]) for name, change in changes.items()
    }


def maps_and_derivatives(case):
    """Inputs, changes of each, and maps with their derivative along each change: by JAX and by differences of fits."""
    fit, make_inputs, with_error_bars, _ = CASES[case]
    inputs = {name: jnp.asarray(v) for name, v in make_inputs().items()}
    moves = directions(inputs)
    steps = jnp.array([-2, -1, 0, 1, 2]) * STEP

    @once  # one program for all: (input, step)
    def both(inputs, moves):
        def at(step, move):
            moved = {k: v + step * move[k] for k, v in inputs.items()}
            return jax.jvp(lambda at: maps_of(fit(at), with_error_bars), (moved,), (move,))

        return jax.vmap(lambda move: jax.vmap(lambda step: at(step, move))(steps))(moves)

    values, slopes = both(inputs, moves)
    by_jax = {name: slope[:, 2] for name, slope in slopes.items()}
    assert all(bool(jnp.all(jnp.isfinite(value))) for value in values.values())
    weights = np.array([1, -8, 0, 8, -1]) / (12 * STEP)
    by_differences = {name: np.tensordot(np.asarray(v), weights, (1, 0)) for name, v in values.items()}
    sizes = {name: float(jnp.max(jnp.abs(v))) for name, v in values.items()}
    return inputs, moves, by_jax, by_differences, sizes


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("case", [c if c == "decay" else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_derivatives_are_those_of_whole_fits_forward_and_reverse(case):
    """Of every map with respect to every input: signal, protocol, known maps, noise level, weights."""
    inputs, moves, by_jax, by_differences, sizes = maps_and_derivatives(case)
    for name, found in by_jax.items():
        for i, moved in enumerate(inputs):
            np.testing.assert_allclose(
                found[i], by_differences[name][i], rtol=1e-6, atol=1e-7 * sizes[name], err_msg=f"d {name} / d {moved}"
            )
    fit, _, with_error_bars, in_reverse = CASES[case]
    if not in_reverse:
        return
    # In reverse, of one sum of all maps with random weights.
    rng = np.random.default_rng(12)
    weights = {name: rng.normal(size=found[0].shape) for name, found in by_jax.items()}

    def total(at):
        return sum(jnp.sum(weights[name] * value) for name, value in maps_of(fit(at), with_error_bars).items())

    gradient = once(jax.grad(total))(inputs)
    along = np.array([sum(np.sum(gradient[k] * moves[k][i]) for k in inputs) for i in range(len(inputs))])
    forward = sum(np.sum(found * weights[k], axis=tuple(range(1, found.ndim))) for k, found in by_jax.items())
    np.testing.assert_allclose(along, forward, rtol=1e-9, atol=1e-9 * np.max(np.abs(forward)))


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("case", ["decay", "spoiled gradient echoes"])
def test_second_derivatives_are_those_of_the_gradients_of_whole_fits(case):
    """Forward over reverse, of the sum of all maps with random weights: signal, protocol, known maps, noise."""
    fit, inputs_of, with_error_bars, _ = CASES[case]
    inputs = jax.tree.map(jnp.asarray, inputs_of())
    rng = np.random.default_rng(13)
    move = jax.tree.map(lambda value: value * rng.uniform(-1, 1, value.shape), inputs)

    def total(at):
        maps = maps_of(fit(at), with_error_bars).values()
        return sum(jnp.sum(jnp.sin(1.0 + jnp.arange(value.size)) * value.ravel()) / value.size for value in maps)

    @once
    def both(inputs):
        steps = STEP * jnp.array([-2.0, -1.0, 1.0, 2.0])
        gradient = jax.grad(total)
        moved = jax.lax.map(lambda step: gradient(jax.tree.map(lambda v, m: v + step * m, inputs, move)), steps)
        return jax.jvp(gradient, (inputs,), (move,))[1], moved

    found, moved = both(inputs)
    weights = np.array([1, -8, 8, -1]) / (12 * STEP)
    for name, value in moved.items():
        expected = np.tensordot(weights, np.asarray(value), 1)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6 * np.max(np.abs(expected)), err_msg=name)


HOSTILE = np.array([np.zeros(5), np.full(5, np.nan), np.full(5, 7.0), np.arange(1.0, 6.0), -np.ones(5), np.eye(5)[0]])


@pytest.fixture(scope="module")
def good():
    return decay_inputs()["signal"].astype(np.float32)


def everything(signal, te):
    """The sum of all numbers that there are."""
    result = jq.fit(jq.MonoExponential(te), signal, noise=jq.Gaussian(1.0))
    return sum(jnp.nansum(leaf) for leaf in (*result.params, *result.stderr, result.residual, result.reduced_chi2))


def test_voxels_without_an_answer_have_derivatives_of_zero_and_spoil_no_sum(good):
    signal = np.concatenate([good, HOSTILE.astype(np.float32)])
    gradient = once(jax.grad(everything, argnums=(0, 1)))
    of_signal, of_te = gradient(jnp.asarray(signal), jnp.asarray(TE, jnp.float32))
    _, alone = gradient(jnp.asarray(np.tile(good, (4, 1))), jnp.asarray(TE, jnp.float32))
    np.testing.assert_array_equal(of_signal[2:], 0)
    assert np.all(np.any(np.asarray(of_signal[:2]) != 0, axis=-1))
    np.testing.assert_allclose(4 * of_te, alone, rtol=1e-4, atol=1e-4 * np.max(np.abs(alone)))


def t2_of_one(signal, te, **options):
    return jq.fit(jq.MonoExponential(te), signal, **options).params.t2


@pytest.mark.slow
def test_single_precision_jit_and_vmap_agree_with_double_precision(good):
    te = jnp.asarray(TE, jnp.float32)
    one_by_one = jax.jit(jax.vmap(jax.grad(t2_of_one, argnums=(0, 1)), in_axes=(0, None)))(jnp.asarray(good), te)
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        exact = jnp.asarray(good.astype(float)), jnp.asarray(TE)
        expected = once(jax.jacrev(t2_of_one, argnums=(0, 1)))(*exact)
    own = np.asarray(expected[0])[np.arange(2), np.arange(2)]
    for found, wanted in zip(one_by_one, (own, expected[1]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.max(np.abs(wanted)))
    crossed = np.asarray(expected[0])[[0, 1], [1, 0]]
    np.testing.assert_array_equal(crossed, 0)  # no voxel knows of another


@pytest.mark.usefixtures("double_precision")
def test_neither_the_number_of_steps_nor_the_start_enters():
    signal, te = jnp.asarray(decay_inputs()["signal"]), jnp.asarray(TE)

    def from_afar(te, start):
        solver = jq.LevenbergMarquardt(max_steps=50)
        return t2_of_one(signal, te, init=jq.Decay(s0=80.0, t2=start), solver=solver)

    start = jnp.asarray([0.2, 0.004])

    @once
    def both(te, start):
        usual = jax.jvp(lambda te: t2_of_one(signal, te), (te,), (te,))[1]
        # The derivative with respect to the start is added, and is zero.
        return usual, jax.jvp(from_afar, (te, start), (te, jnp.ones_like(start)))[1]

    usual, found = both(te, start)
    np.testing.assert_allclose(found, usual, rtol=1e-8)


@pytest.mark.usefixtures("double_precision")
def test_the_straight_line_is_differentiated_as_it_is():
    """It minimises no misfit of the signal, so the theorem does not hold for it."""
    signal, te = jnp.asarray(decay_inputs()["signal"]), jnp.asarray(TE)

    def t2(signal):
        return t2_of_one(signal, te, solver=jq.LogLinear())

    move = signal * jnp.linspace(0.5, 1.0, 5)

    @once
    def slopes(signal):
        differences = t2(jnp.concatenate([signal + STEP * move, signal - STEP * move]))
        of_minimum = jax.jvp(lambda s: t2_of_one(s, te), (signal,), (move,))[1]
        return jax.jvp(t2, (signal,), (move,))[1], (differences[:2] - differences[2:]) / (2 * STEP), of_minimum

    found, expected, of_minimum = slopes(signal)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.all(np.abs(found / of_minimum - 1) > 1e-4)


class Folded(NamedTuple):
    s0: jax.Array
    t2: jax.Array  # s
    b1: jax.Array


class FoldedDecay(jq.SignalModel):
    """Beyond b1 = 1 it repeats what was before, as a train of spin echoes does beyond 180 degrees."""

    te: jax.Array  # s
    parameters, amplitude, mirrored, broadcasts = Folded, "s0", ("b1",), True

    def limits(self):
        return Folded(s0=(0, jnp.inf), t2=(1e-3, 1.0), b1=(0.5, 1.0))

    def __call__(self, p):
        return p.s0 * (jnp.exp(-self.te / p.t2) + 5 * (1 - p.b1) * self.te * (1 + 20 * self.te))


FOLDED = FoldedDecay(jnp.asarray(TE, jnp.float32)), TE, [1.0, 0.99, 1.0, 0.97, 0.85]
REFOCUSED = jq.FSE(TRAIN * 1.2, 0.01), 0.01 * np.arange(1, 6), [1.0, 0.98, 1.0, 0.99, 1.0]


@pytest.mark.parametrize(("model", "te", "noise"), [FOLDED, pytest.param(*REFOCUSED, marks=pytest.mark.slow)])
def test_derivatives_of_a_parameter_at_the_end_of_its_range_are_those_of_holding_it_there(model, te, noise):
    """Noise would carry b1 beyond its end, where it stays whatever the signal."""
    end = float(model.limits().b1[1])
    signal = jnp.asarray(100 * np.exp(-te / 0.05) * noise, jnp.float32)

    def maps(signal, known=None):
        params = jq.fit(model, signal, known=known).params
        maps = jnp.stack([getattr(params, model.amplitude), params.t2, params.b1])
        return maps, maps

    slopes, free = once(jax.jacfwd(maps, has_aux=True))(signal)
    held, same = once(jax.jacfwd(lambda s: maps(s, {"b1": end}), has_aux=True))(signal)
    np.testing.assert_allclose(free, same, rtol=1e-5)
    assert free[2] == pytest.approx(end, rel=1e-6)
    np.testing.assert_allclose(slopes, held, rtol=1e-3, atol=1e-6)
