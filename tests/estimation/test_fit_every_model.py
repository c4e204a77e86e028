"""What a fit promises, of every model: the least-squares answer, honest error bars, and nothing lost or invented.

Every fit has 1024 voxels, or batches of as many, so that a model is compiled once for all tests.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_families import FAMILIES, SIGNED, TE_COMPLEX, Family
from scipy import optimize, stats

import jaxqmri as jq

N_TOGETHER = 1024
OK = jq.Status.OK
# Double precision and sigma are other programs, of which some do for all; exponential decays have theirs in test_fit.
NAMES = ("spoiled gradient echo", "complex gradient echo")
every_model = pytest.mark.parametrize("name", FAMILIES)


def fitted(
    family: Family, signal: np.ndarray, known: dict[str, Any] | None = None, dtype: Any = np.float32, **settings: Any
) -> jq.FitResult:
    """The fit in batches of one size, in numpy."""
    n = len(signal)
    rows = np.resize(np.arange(n), -(-n // N_TOGETHER) * N_TOGETHER)

    def padded(values: Any) -> Any:
        return np.asarray(values)[rows] if np.ndim(values) else values

    known = {name: padded(value) for name, value in (known or {}).items()}
    if "init" in settings:
        settings["init"] = type(settings["init"])(*map(padded, settings["init"]))
    measured = signal.astype(np.result_type(dtype, np.complex64) if family.complex else dtype)[rows]
    result = jq.fit(family.model, measured, known=known, batch_size=N_TOGETHER, **settings)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:n], result)


def random_voxels(family: Family, rng: np.random.Generator, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Amplitudes and the other parameters, known ones included."""
    params = {}
    for name, (low, high) in {**family.ranges, **family.known}.items():
        logarithmic = name not in (*SIGNED, "b1")
        params[name] = np.exp(rng.uniform(np.log(low), np.log(high), n)) if logarithmic else rng.uniform(low, high, n)
    phase = np.exp(2j * np.pi * rng.uniform(size=n)) if family.complex else 1.0
    return np.exp(rng.uniform(np.log(1), np.log(4000), n)) * phase, params


def noise(family: Family, rng: np.random.Generator, signal: np.ndarray, snr: Any) -> np.ndarray:
    """Of the largest measurement over `snr` in every channel."""
    sigma = np.max(np.abs(signal), axis=-1, keepdims=True) / np.broadcast_to(snr, signal.shape[:-1])[..., None]
    real, imaginary = rng.standard_normal((2, *signal.shape))
    return sigma * (real + 1j * imaginary if family.complex else real)


def noisy(family: Family, rng: np.random.Generator, signal: np.ndarray, snr: Any) -> np.ndarray:
    measured = signal + noise(family, rng, signal, snr)
    return np.abs(measured) if family.model.magnitude else measured


def only(names: Any, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: params[name] for name in names}


def as_reals(values: Any) -> np.ndarray:
    return np.concatenate([values.real, values.imag], axis=-1) if np.iscomplexobj(values) else values


def cost_of(family: Family, signal: np.ndarray, amplitude: Any, params: dict[str, Any]) -> np.ndarray:
    return np.sum(as_reals(family.formula(amplitude, params) - signal) ** 2, axis=-1)


def found(family: Family, result: jq.FitResult) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Amplitude and the other free parameters in double precision."""
    wide = complex if family.complex else float
    rest = {name: getattr(result.params, name).astype(float) for name in family.ranges}
    return getattr(result.params, family.amplitude).astype(wide), rest


def scipy_fit(family: Family, signal: np.ndarray, known: dict[str, Any], starts: Any) -> tuple[Any, dict[str, Any]]:
    """The best least-squares answer of MINPACK in float64 from these starts; positive parameters as logarithms."""
    names, scale = list(family.ranges), np.max(np.abs(signal))

    def values(x: np.ndarray) -> tuple[Any, dict[str, Any]]:
        rest = x[..., 2:] if family.complex else x[..., 1:]
        amplitude = x[..., 0] + 1j * x[..., 1] if family.complex else np.exp(x[..., 0])
        return scale * amplitude, {
            n: rest[..., i] if n in SIGNED else np.exp(rest[..., i]) for i, n in enumerate(names)
        }

    def misfit(x: np.ndarray) -> np.ndarray:
        amplitude, rest = values(x)
        return as_reals(family.formula(amplitude / scale, {**rest, **known}) - signal / scale)

    def jacobian(x: np.ndarray) -> np.ndarray:
        step = 1e-6 * np.eye(x.size)
        up, down = np.split(misfit(np.concatenate([x + step, x - step])), 2)
        return (up - down).T / 2e-6

    def start(amplitude: Any, params: dict[str, Any]) -> np.ndarray:
        first = [(amplitude / scale).real, (amplitude / scale).imag] if family.complex else [np.log(amplitude / scale)]
        return np.array(first + [params[n] if n in SIGNED else np.log(params[n]) for n in names])

    settings: dict[str, Any] = {
        "jac": jacobian,
        "method": "lm",
        "x_scale": "jac",
        "xtol": 1e-10,
        "ftol": 1e-10,
        "gtol": 1e-10,
    }
    answers = [optimize.least_squares(misfit, start(*s), **settings) for s in starts]
    return values(min(answers, key=lambda answer: answer.cost).x)


@every_model
@pytest.mark.parametrize("n", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_noisy_voxels_get_the_answer_of_scipy(name, n, rng):
    family = FAMILIES[name]
    amplitude, params = random_voxels(family, rng, n)
    clean = family.formula(amplitude, params)
    signal = noisy(family, rng, clean, np.exp(rng.uniform(np.log(20), np.log(200), n))).astype(
        np.complex64 if family.complex else np.float32
    )
    known = {name: value.astype(np.float32) for name, value in only(family.known, params).items()}
    result = fitted(family, signal, known)
    ok = np.asarray(result.status == OK)
    assert ok.mean() >= 0.99
    deviations = {family.amplitude: [], **{name: [] for name in family.ranges}}
    excess = []
    ours_amplitude, ours = found(family, result)
    for voxel in np.flatnonzero(ok):
        of_voxel = {name: float(value[voxel]) for name, value in known.items()}
        answer = ours_amplitude[voxel], {name: value[voxel] for name, value in ours.items()}
        truth = amplitude[voxel], {name: params[name][voxel] for name in family.ranges}
        measured = signal[voxel].astype(complex if family.complex else float)
        best = scipy_fit(family, measured, of_voxel, (answer, truth))
        costs = [cost_of(family, measured, a, {**p, **of_voxel}) for a, p in (answer, best)]
        excess.append(costs[0] / costs[1] - 1)
        if any(answer[1][m] > 0.999 * getattr(family.model.limits(), m)[1] for m in family.model.mirrored):
            continue  # b1 ends a little before perfect refocusing, where its mirror image begins
        deviations[family.amplitude].append(abs(answer[0] / best[0] - 1))
        for parameter in family.ranges:
            # b0 in units in which its phase turns by one radian over the train.
            unit = 1 / (2 * np.pi * np.ptp(TE_COMPLEX)) if parameter == "b0" else best[1][parameter]
            deviations[parameter].append(abs((answer[1][parameter] - best[1][parameter]) / unit))
    assert np.max(excess) <= 1e-4  # 0.1 % of 500 voxels is none
    assert len(deviations[family.amplitude]) >= 0.95 * n
    for parameter, deviation in deviations.items():
        assert np.max(deviation) <= 1e-4, parameter


@every_model
def test_without_noise_the_truth_comes_back(name, rng):
    family = FAMILIES[name]
    amplitude, params = random_voxels(family, rng, 1000)
    result = fitted(family, family.formula(amplitude, params), only(family.known, params))
    assert np.all(result.status == OK)
    found_amplitude, rest = found(family, result)
    np.testing.assert_allclose(found_amplitude, amplitude, rtol=1e-4)
    for parameter, value in rest.items():
        np.testing.assert_allclose(value, params[parameter], rtol=1e-4, atol=1e-3 if parameter == "b0" else 0)


@every_model
@pytest.mark.parametrize("snr", [30.0, pytest.param(200.0, marks=pytest.mark.slow)])
def test_error_bars_are_calibrated_and_estimates_unbiased(name, snr, rng):
    """Of 10^4 voxels of one tissue: (estimate - truth) / stderr follows Student's t."""
    family, n = FAMILIES[name], 10_000
    clean = np.broadcast_to(1000.0 * typical_signal(family), (n, family.model.n_measurements))
    result = fitted(family, noisy(family, rng, clean, snr), dict.fromkeys(family.known, 0.85))
    ok = np.asarray(result.status == OK)
    assert ok.mean() >= 0.999
    expected = stats.t(family.n_numbers - family.n_unknowns).std()
    for parameter, z in scores(family, result, ok).items():
        np.testing.assert_allclose(z.std(), expected, rtol=0.05, err_msg=parameter)
        assert abs(z.mean()) < 0.1, parameter


@pytest.mark.usefixtures("double_precision")
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_double_precision_with_a_known_noise_level(name, rng):
    """Without noise the truth to 1e-7, and with it (estimate - truth) / stderr follows the normal distribution."""
    family, n = FAMILIES[name], 10_000
    sigma = 1000.0 * np.max(np.abs(typical_signal(family))) / 50
    amplitude, params = random_voxels(family, rng, 20)
    noise_level = jq.Gaussian(sigma)
    exact = fitted(family, family.formula(amplitude, params), only(family.known, params), np.float64, noise=noise_level)
    assert np.all(exact.status == OK)
    found_amplitude, rest = found(family, exact)
    np.testing.assert_allclose(found_amplitude, amplitude, rtol=1e-7)
    for parameter, value in rest.items():
        np.testing.assert_allclose(value, params[parameter], rtol=1e-7)
    clean = np.broadcast_to(1000.0 * typical_signal(family), (n, family.model.n_measurements))
    result = fitted(
        family, noisy(family, rng, clean, 50.0), dict.fromkeys(family.known, 0.85), np.float64, noise=noise_level
    )
    ok = np.asarray(result.status == OK)
    assert ok.mean() >= 0.999
    assert result.reduced_chi2 is not None
    np.testing.assert_allclose(result.reduced_chi2[ok].mean(), 1.0, rtol=0.02)
    for parameter, z in scores(family, result, ok).items():
        np.testing.assert_allclose(z.std(), 1.0, rtol=0.05, err_msg=parameter)


def typical_signal(family: Family) -> np.ndarray:
    return family.formula(1.0, {**family.typical, **dict.fromkeys(family.known, 0.85)})


def scores(family: Family, result: jq.FitResult, ok: np.ndarray) -> dict[str, np.ndarray]:
    """(estimate - truth) / stderr where the tissue is typical, amplitude 1000; real and imaginary parts apart."""
    z = {}
    for parameter, truth in {family.amplitude: 1000.0, **family.typical}.items():
        estimate, error = (getattr(leaf, parameter)[ok] for leaf in (result.params, result.stderr))
        z[parameter] = (estimate.real - truth) / error.real
        if np.iscomplexobj(estimate):
            z[f"imaginary part of {parameter}"] = estimate.imag / error.imag
    return z


def hostile_voxels(family: Family, rng: np.random.Generator) -> np.ndarray:
    """(200, n) signals that no tissue has, or that no arithmetic likes."""
    n = family.model.n_measurements
    good = typical_signal(family)
    good = good / np.max(np.abs(good))
    places = np.eye(n)
    curves = [
        np.ones(n),
        np.arange(1.0, n + 1),
        np.arange(n, 0.0, -1),
        np.linspace(-1, 1, n),
        np.resize([1.0, -1.0], n),
        np.resize([1.0, 0.0], n),
        np.geomspace(1, 1e-30, n),
        np.geomspace(1e-30, 1, n),
        np.resize([1e30, 1e-30], n),
        np.resize([1e-30, 1.0], n),
    ]
    spikes = [*places, *(1 - places), *(good + 10 * places), *(good * (1 - 2 * places))]
    pure_noise = rng.standard_normal((20, n)) * rng.choice([1, 1j] if family.complex else [1], (20, n))
    scales = (1e-42, 1e-30, 1e-20, 1e19, 1e30, 1e35)  # 1e-42 is a denormal number, the square of 1e30 no number
    scaled = [scale * signal for signal in (good, -good, *curves[:6], pure_noise[0], spikes[2]) for scale in scales]
    broken = [np.full(n, bad) for bad in (0.0, np.nan, np.inf, -np.inf)]
    broken += [np.where(place > 0, bad, good) for bad in (np.nan, np.inf, -np.inf) for place in places[::3]]
    negative = [-good, *(-curve for curve in curves)]
    signals = np.array([*broken, *curves, *negative, *scaled, *spikes, *pure_noise, *np.abs(pure_noise)])
    return np.resize(signals.astype(np.complex64 if family.complex else np.float32), (200, n))


def least_cost_of_grid(family: Family, signal: np.ndarray, known: dict[str, float]) -> np.ndarray:
    """Lowest sum of squares of an exhaustive search, with the best amplitude that the model allows."""
    mesh = np.meshgrid(*family.grid.values(), indexing="ij")
    shapes = family.formula(1.0, dict(zip(family.grid, (m.ravel() for m in mesh), strict=True)) | known)
    overlap = signal @ shapes.conj().T
    overlap = np.abs(overlap) if family.complex else np.maximum(overlap, 0)
    gain = np.max(overlap**2 / np.sum(np.abs(shapes) ** 2, axis=-1), axis=-1)
    return np.sum(np.abs(signal) ** 2, axis=-1) - gain


@every_model
@pytest.mark.filterwarnings("error")
def test_hostile_voxels_are_nan_with_a_reason_or_right(name, rng):
    family = FAMILIES[name]
    signal = hostile_voxels(family, rng)
    known = dict.fromkeys(family.known, 0.85)
    result = fitted(family, signal, known)
    ok = np.asarray(result.status == OK)
    for leaf in (*result.params, *result.stderr, result.residual):
        np.testing.assert_array_equal(np.isfinite(leaf), ok)
        assert np.all(np.isnan(leaf[~ok]))
    unusable = ~np.all(np.isfinite(signal), axis=-1)
    not_magnitudes = np.zeros_like(unusable)
    if family.model.magnitude:
        normal = np.where(np.abs(signal) < np.finfo(np.float32).tiny, 0, signal)  # denormal numbers count as zero
        not_magnitudes = np.min(normal, axis=-1) < -0.1 * np.max(np.abs(normal), axis=-1)
    np.testing.assert_array_equal(result.status == jq.Status.NOT_FINITE, unusable)
    np.testing.assert_array_equal(result.status == jq.Status.NEGATIVE_MAGNITUDE, not_magnitudes & ~unusable)
    assert np.all(result.status[np.all(signal == 0, axis=-1)] == jq.Status.NO_SIGNAL)
    # In units of the largest measurement, so that squares neither overflow nor vanish.
    signal = signal[ok].astype(complex if family.complex else float)
    scale = np.max(np.abs(signal), axis=-1)
    unit = signal / scale[:, None]
    amplitude, rest = found(family, result)
    costs = cost_of(family, unit, amplitude[ok] / scale, {p: v[ok] for p, v in rest.items()} | known)
    excess = (costs - least_cost_of_grid(family, unit, known)) / np.sum(np.abs(unit) ** 2, axis=-1)
    assert np.max(excess) <= 1e-3


@every_model
def test_hostile_neighbours_change_nothing(name, rng):
    family, n_good = FAMILIES[name], 300
    amplitude, params = random_voxels(family, rng, n_good)
    clean = family.formula(amplitude, params)
    good, known = noisy(family, rng, clean, 50.0), only(family.known, params)
    alone = fitted(family, good, known)
    hostile = hostile_voxels(family, rng)
    mixed = np.concatenate([hostile, good])
    places = rng.permutation(len(mixed))
    of_mixed = {p: np.concatenate([np.ones(len(hostile)), v])[places] for p, v in known.items()}
    beside = fitted(family, mixed[places], of_mixed)
    beside = jax.tree.map(lambda leaf: leaf[np.argsort(places)][len(hostile) :], beside)
    chex.assert_trees_all_equal(beside, alone)


@pytest.mark.parametrize("name", ["fast spin echo", "spoiled gradient echo"])
def test_what_is_known_may_be_a_number_a_map_or_a_default(name, rng):
    family, held = FAMILIES[name], {"fast spin echo": ("t1", 1.0), "spoiled gradient echo": ("b1", 1.0)}[name]
    amplitude, params = random_voxels(family, rng, 100)
    signal = noisy(family, rng, family.formula(amplitude, params), 100.0)
    assumed = fitted(family, signal)
    for value in (held[1], np.full(100, held[1])):
        chex.assert_trees_all_equal(fitted(family, signal, {held[0]: value}), assumed)
    ok = assumed.status == OK
    assert ok.mean() > 0.9
    np.testing.assert_array_equal(getattr(assumed.params, held[0])[ok], np.float32(held[1]))
    assert np.all(getattr(assumed.stderr, held[0])[ok] == 0)
    other = fitted(family, signal, {held[0]: 0.8 * held[1]})
    assert not np.any(other.params.m0 == assumed.params.m0)


def test_none_frees_what_is_assumed(rng):
    """Flip angles on both sides of 90 degrees tell B1 from T1."""
    family, angles = FAMILIES["spoiled gradient echo"], np.deg2rad([5.0, 12.0, 25.0, 50.0, 80.0, 110.0, 140.0, 170.0])
    t1, b1 = rng.uniform(0.3, 2.0, 100), rng.uniform(0.7, 1.1, 100)
    e1, angle = np.exp(-0.1 / t1)[:, None], b1[:, None] * angles
    signal = 1000 * np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle))
    wide = family._replace(model=jq.SpoiledGradientEcho(angles, 0.1))
    freed = fitted(wide, signal, {"b1": None})
    assert np.all(freed.status == OK)
    np.testing.assert_allclose(freed.params.b1, b1, rtol=1e-4)
    np.testing.assert_allclose(freed.params.t1, t1, rtol=1e-4)
    assert np.all(freed.stderr.b1 > 0)
    given = fitted(wide, signal, {"b1": b1})
    np.testing.assert_allclose(freed.params.t1, given.params.t1, rtol=1e-4)
    np.testing.assert_allclose(freed.params.m0, given.params.m0, rtol=1e-4)


@pytest.mark.slow
def test_the_most_similar_of_a_few_atoms_is_as_good_a_start_as_the_guess(rng):
    family, n = FAMILIES["spoiled gradient echo"], 300
    amplitude, params = random_voxels(family, rng, n)
    params["b1"] = np.full(n, 1.0)
    signal = noisy(family, rng, family.formula(amplitude, params), 100.0)
    t1 = np.geomspace(0.1, 5.0, 12)
    atoms = family.formula(np.ones(12), {"t1": t1, "b1": np.ones(12)})
    start = t1[np.argmax(signal @ (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).T, axis=1)]
    from_guess = fitted(family, signal, {"b1": 1.0})
    from_atom = fitted(family, signal, {"b1": 1.0}, init=jq.Tissue(m0=1.0, t1=jnp.asarray(start)))
    assert np.max(np.abs(start / from_guess.params.t1 - 1)) > 0.1
    np.testing.assert_array_equal(from_atom.status, from_guess.status)
    np.testing.assert_allclose(from_atom.params.t1, from_guess.params.t1, rtol=1e-5)
    np.testing.assert_allclose(from_atom.stderr.t1, from_guess.stderr.t1, rtol=1e-4)
