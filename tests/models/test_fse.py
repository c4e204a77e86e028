"""The fast spin echo against isochromats, the plain operators, and published or independent numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri import epg

ESP = 5e-3  # s
RECOVERY = 3.0  # s, from the last echo to the next excitation


def tissue(t1=1.0, t2=0.1, b1=1.0, m0=1.0):
    return jq.Tissue(m0=m0, t1=t1, t2=t2, b1=b1)


@jax.jit
def echoes_of(fse, tissue):
    """As one program, which is compiled faster than each operation alone."""
    return fse(tissue)


def rotation(angle, phase):
    """Right-handed rotation about (cos phase, sin phase, 0)."""
    c, s = np.cos(angle), np.sin(angle)
    x, y = np.cos(phase), np.sin(phase)
    return np.array(
        [
            [c + x * x * (1 - c), x * y * (1 - c), y * s],
            [x * y * (1 - c), c + y * y * (1 - c), -x * s],
            [-y * s, x * s, c],
        ]
    )


def isochromat_train(flip_angles, phases, t1, t2, b1):
    """Bloch: spins that the crushers spread evenly over the circle, all of them summed; the first train of a scan."""
    n = len(flip_angles)
    crush = np.exp(2j * np.pi * np.arange(4 * n + 4) / (4 * n + 4))  # phase of each spin per crusher
    e1, e2 = np.exp(-ESP / 2 / t1), np.exp(-ESP / 2 / t2)
    spins = np.tile(rotation(b1 * np.pi / 2, np.pi / 2) @ [0.0, 0.0, 1.0], (len(crush), 1))

    def half_spacing(spins):
        transverse = (spins[:, 0] + 1j * spins[:, 1]) * e2 * crush
        return np.stack([transverse.real, transverse.imag, 1 + (spins[:, 2] - 1) * e1], axis=1)

    echoes = []
    for flip_angle, phase in zip(flip_angles, phases, strict=True):
        spins = half_spacing(spins) @ rotation(b1 * flip_angle, phase).T
        spins = half_spacing(spins)
        echoes.append(np.mean(spins[:, 0] + 1j * spins[:, 1]) * np.exp(-1j * phase))
    return np.array(echoes)


@functools.partial(jax.jit, static_argnames="n_states")
def plain_train(flip_angles, phases, t1, t2, b1, n_states, longitudinal=1.0):
    """The pulse diagram in the operators of `epg`: echoes, and the longitudinal magnetisation at the last of them."""
    states = epg.equilibrium(n_states, jnp.complex128) * longitudinal
    states = epg.rf(states, b1 * jnp.pi / 2, jnp.pi / 2)

    def spacing(states, pulse):
        flip_angle, phase = pulse
        states = epg.shift(epg.relax(states, ESP / 2, t1, t2))
        states = epg.rf(states, b1 * flip_angle, phase)
        states = epg.relax(epg.shift(states), ESP / 2, t1, t2)
        return states, states[0, 0] * jnp.exp(-1j * phase)

    states, echoes = jax.lax.scan(spacing, states, (flip_angles, phases))
    return echoes, states[2, 0].real


@pytest.fixture(params=[0, 1, pytest.param(2, marks=pytest.mark.slow)])
def random_train(request):
    rng = np.random.default_rng(request.param)
    n = (1, 6, 11)[request.param]
    return {
        "flip_angles": rng.uniform(0.2, np.pi, n),
        "phases": rng.uniform(-np.pi, np.pi, n),
        "t1": rng.uniform(0.3, 3.0),
        "t2": rng.uniform(0.01, 0.3),
        "b1": rng.uniform(0.6, 1.3),
    }


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("cpmg", [True, False])
def test_echoes_are_those_of_isochromats_and_of_the_plain_operators(random_train, cpmg):
    flip_angles, phases, t1, t2, b1 = random_train.values()
    phases = 0 * phases if cpmg else phases
    fse = jq.FSE(flip_angles, ESP, None if cpmg else phases)
    signal = fse(tissue(t1, t2, b1))
    assert jnp.isrealobj(signal) == cpmg
    np.testing.assert_allclose(signal, isochromat_train(flip_angles, phases, t1, t2, b1), atol=1e-13)
    n = len(flip_angles)
    np.testing.assert_allclose(signal, plain_train(flip_angles, phases, t1, t2, b1, n + 2)[0], atol=1e-14)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("n_states", [2, 5, pytest.param(8, marks=pytest.mark.slow)])
def test_fewer_states_leave_out_what_the_plain_operators_leave_out(random_train, n_states):
    flip_angles, phases, t1, t2, b1 = random_train.values()
    signal = jq.FSE(flip_angles, ESP, phases, n_states=n_states)(tissue(t1, t2, b1))
    np.testing.assert_allclose(signal, plain_train(flip_angles, phases, t1, t2, b1, n_states)[0], atol=1e-14)


@pytest.mark.parametrize("t2", [0.02, 0.05, 0.2])
def test_perfect_refocusing_is_pure_t2_decay(t2):
    signal = echoes_of(jq.FSE(np.full(32, np.pi), ESP), tissue(t2=t2, m0=7.0))
    np.testing.assert_allclose(signal, 7 * np.exp(-ESP * np.arange(1, 33) / t2), rtol=1e-5)


@pytest.mark.parametrize(("double", "tolerance"), [(False, 1e-5), (True, 1e-6)])
def test_long_train_of_small_angles_gives_the_reference_numbers(double, tolerance, request):
    if double:
        request.getfixturevalue("double_precision")
    signal = echoes_of(jq.FSE(np.full(96, np.pi / 3), ESP), tissue())
    np.testing.assert_allclose(
        signal[np.array([0, 10, 30, 95])], [0.237807, 0.351311, 0.189950, 0.036869], atol=tolerance
    )


STEADY_STATE = {
    0.5: (0.274173, 0.058193),
    1.0: (0.540574, 0.114736),
    2.0: (0.800158, 0.169832),
    3.0: (0.895653, 0.190101),
}


@pytest.mark.parametrize("tr", STEADY_STATE)
def test_short_repetition_gives_the_reference_numbers(tr):
    signal = echoes_of(jq.FSE(np.full(32, np.pi), ESP, tr=tr), tissue())
    np.testing.assert_allclose(signal[np.array([0, 31])], STEADY_STATE[tr], atol=1e-5)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("cpmg", [True, False])
def test_steady_state_is_where_repetition_leads(random_train, cpmg):
    flip_angles, phases, t1, t2, b1 = random_train.values()
    phases = 0 * phases if cpmg else phases
    n = len(flip_angles)
    tr = n * ESP + RECOVERY
    longitudinal, signal = 1.0, None
    for _ in range(60):  # each repetition keeps less than half of the distance to the limit
        signal, at_end = plain_train(flip_angles, phases, t1, t2, b1, 2 * n + 3, longitudinal)
        longitudinal = 1 + (float(at_end) - 1) * np.exp(-RECOVERY / t1)
    fse = jq.FSE(flip_angles, ESP, None if cpmg else phases, tr=tr)
    np.testing.assert_allclose(fse(tissue(t1, t2, b1)), np.array(signal), atol=1e-12)


def test_infinite_repetition_time_is_full_recovery():
    angles = np.full(8, 2.0)
    endless, infinite, long = (echoes_of(jq.FSE(angles, ESP, tr=tr), tissue()) for tr in (None, jnp.inf, 90.0))
    np.testing.assert_array_equal(infinite, endless)
    np.testing.assert_allclose(long, endless, rtol=1e-5)


def test_slice_profile_is_a_weighted_mean_over_flip_angles():
    angles = np.full(16, 2.5)
    profile, weights = np.array([0.5, 0.9, 1.0]), np.array([0.2, 0.3, 0.5])
    averaged = echoes_of(jq.FSE(angles, ESP, slice_profile=profile, slice_weights=weights), tissue(b1=1.1))
    parts = [w * echoes_of(jq.FSE(angles, ESP), tissue(b1=1.1 * p)) for p, w in zip(profile, weights, strict=True)]
    np.testing.assert_allclose(averaged, sum(parts), rtol=1e-5)
    equal = echoes_of(jq.FSE(angles, ESP, slice_profile=profile), tissue())
    parts = [echoes_of(jq.FSE(angles, ESP), tissue(b1=p)) for p in profile]
    np.testing.assert_allclose(equal, np.mean(parts, axis=0), rtol=1e-5)


@pytest.mark.usefixtures("double_precision")
def test_derivatives_are_those_of_finite_differences(random_train):
    flip_angles, phases, t1, t2, b1 = random_train.values()
    point = jax.tree.map(jnp.asarray, tissue(t1, t2, b1, 3.0))
    fse = jq.FSE(flip_angles, ESP, phases, tr=2.0)
    signal = jax.jit(lambda p: fse(p))
    forward = jax.jit(jax.jacfwd(signal))(point)
    reverse = jax.jit(jax.grad(lambda p: jnp.sum(jnp.abs(fse(p)) ** 2)))(point)
    for name in ("t1", "t2", "b1", "m0"):
        value = getattr(point, name)
        step = 1e-6 * value
        above, below = (signal(point._replace(**{name: v})) for v in (value + step, value - step))
        difference = (above - below) / (2 * step)
        np.testing.assert_allclose(getattr(forward, name), difference, rtol=1e-6, atol=1e-9)
        of_energy = 2 * np.sum(np.real(signal(point).conj() * difference))
        np.testing.assert_allclose(getattr(reverse, name), of_energy, rtol=1e-6)


def test_every_voxel_has_its_own_tissue_and_batches_change_nothing(rng):
    fse = jq.FSE(np.full(4, 2.6), ESP)
    t2, b1 = rng.uniform(0.03, 0.2, (5, 4)).astype("f4"), rng.uniform(0.7, 1.2, (5, 4)).astype("f4")
    signals = jq.simulate(fse, jq.Tissue(t2=t2, b1=b1))
    assert signals.shape == (5, 4, 4)
    np.testing.assert_allclose(signals[2, 3], echoes_of(fse, tissue(t2=t2[2, 3], b1=b1[2, 3])), rtol=1e-5)
    np.testing.assert_allclose(jq.simulate(fse, jq.Tissue(t2=t2, b1=b1), batch_size=7), signals, rtol=1e-6)


def test_a_fit_with_known_b1_finds_t2_where_a_plain_exponential_does_not(rng):
    t2, b1 = rng.uniform(0.03, 0.2, 50).astype("f4"), rng.uniform(0.7, 0.95, 50).astype("f4")
    fse = jq.FSE(np.full(8, np.pi), 0.01)
    signal = jq.simulate(fse, jq.Tissue(m0=500.0, t2=t2, b1=b1))
    result = jq.fit(fse, signal, known={"t1": 1.0, "b1": b1})
    np.testing.assert_allclose(result.params.t2, t2, rtol=1e-3)
    np.testing.assert_allclose(result.params.m0, 500.0, rtol=1e-3)
    assert np.all(np.asarray(result.stderr.t2star) == 0), "not a parameter of this sequence"
    naive = jq.fit(jq.MonoExponential(0.01 * np.arange(1, 9)), signal)
    assert np.median(np.asarray(naive.params.t2) / t2) > 1.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip_angles": 3.0}, "one angle per echo"),
        ({"flip_angles": np.full(4, 180.0)}, "radians"),
        ({"echo_spacing": 10.0}, "divide milliseconds"),
        ({"echo_spacing": np.ones(4)}, "one number"),
        ({"phases": np.zeros(3)}, r"phases has shape \(3,\)"),
        ({"n_states": 1}, "at least 2"),
        ({"tr": 0.01}, "not longer than the train"),
        ({"tr": 3000.0}, "divide milliseconds"),
        ({"slice_weights": np.ones(3)}, "needs a slice_profile"),
    ],
)
def test_impossible_protocols_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        jq.FSE(**{"flip_angles": np.full(4, np.pi), "echo_spacing": ESP, **arguments})


def test_only_the_recorded_echoes_are_returned():
    angles, spacing = jnp.deg2rad(jnp.linspace(180, 120, 6)), 0.01
    tissue = jq.Tissue(t2=0.08, b1=0.9)
    every = echoes_of(jq.FSE(angles, spacing), tissue)
    some = jq.FSE(angles, spacing, echoes=(1, 3, 5))
    np.testing.assert_array_equal(echoes_of(some, tissue), every[jnp.array([1, 3, 5])])
    np.testing.assert_allclose(some.echo_times, [0.02, 0.04, 0.06], rtol=1e-6)
    signal = echoes_of(some, tissue._replace(b1=0.7))
    guess = jax.jit(lambda signal: some.initial_guess(signal))(signal)
    np.testing.assert_allclose([guess.t2, guess.b1], [0.08, 0.7], rtol=0.02)


@pytest.mark.parametrize("echoes", [(), (6,), (-1, 2)])
def test_echoes_beyond_the_train_are_refused(echoes):
    with pytest.raises(ValueError, match="train of 6"):
        jq.FSE(jnp.full(6, jnp.pi), 0.01, echoes=echoes)


def test_blocks_of_voxels_give_what_single_voxels_give(rng):
    fse = jq.FSE(jnp.deg2rad(jnp.full(4, 150.0)), 0.01)
    tissue = jq.Tissue(t2=rng.uniform(0.02, 0.2, 5000), b1=rng.uniform(0.7, 1.1, 5000))
    signals = jq.simulate(fse, tissue)
    assert signals.shape == (5000, 4)
    for i in (0, 4095, 4096, 4999):
        np.testing.assert_allclose(signals[i], echoes_of(fse, jq.Tissue(t2=tissue.t2[i], b1=tissue.b1[i])), rtol=2e-6)


def test_b1_is_looked_for_where_tissue_has_it(rng):
    """Noise has a second valley of T2 of 3 ms below 0.4, and pulls others up to perfect refocusing."""
    angles = np.full(16, np.deg2rad(120))
    signal = jq.simulate(jq.FSE(angles, 0.01), jq.Tissue(m0=1000.0, t2=0.04, b1=0.8))
    noisy = np.asarray(signal) + rng.normal(0, 60, (200, 16))
    found = {r: jq.fit(jq.FSE(angles, 0.01, b1_range=r), noisy) for r in ((0.4, 1.4), (0.1, 2.0))}
    usual, wide = (np.asarray(f.params.b1)[np.asarray(f.status) == 0] for f in found.values())
    assert wide.min() < 0.4
    assert wide.max() > 1.4
    assert usual.min() > 0.4
    assert usual.max() < 1.4, "an end that is no mirror is no answer"
    with pytest.raises(ValueError, match=r"b1_range is \(lowest, highest\)"):
        jq.FSE(angles, 0.01, b1_range=(0.0, 1.4))


def _train(first, others, n=16, **options):
    return jq.FSE(np.deg2rad([first, *[others] * (n - 1)]), 0.01, **options)


PROFILE = np.sin(np.linspace(0.05, np.pi / 2, 12))
TRAINS = {  # with b1; the first pulse of 90 + alpha / 2 makes a low and a high b1 look nearly alike
    "10 x 120, low b1": (_train(120, 120, 10, magnitude=True), 0.7),
    "first pulse 150": (_train(150, 120, magnitude=True), 0.9),
    "slice profile": (_train(150, 150, 12, slice_profile=PROFILE, magnitude=True), 0.8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINS)
def test_error_bars_are_calibrated_where_b1_has_several_valleys(name, rng):
    train, b1 = TRAINS[name]
    clean = np.asarray(jq.simulate(train, jq.Tissue(m0=1000.0, t2=np.repeat([0.04, 0.08, 0.2], 4096), b1=b1)))
    sigma = clean.max() / 50
    signal = np.abs(clean + rng.normal(scale=sigma, size=clean.shape))
    result = jq.fit(train, signal, noise=jq.Gaussian(sigma))
    assert np.mean(np.asarray(result.status) == jq.Status.OK) > 0.99
    for parameter, truth in (("t2", np.repeat([0.04, 0.08, 0.2], 4096)), ("b1", b1)):
        z = (np.asarray(getattr(result.params, parameter)) - truth) / np.asarray(getattr(result.stderr, parameter))
        assert 0.95 < np.nanstd(z) < 1.06
