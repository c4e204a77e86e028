"""Dictionary matching against a search in float64 with atoms from the formula."""

import gc
import inspect

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_families import FAMILIES

import jaxqmri as jq
from jaxqmri import Status
from jaxqmri.dictionary import layout as layout_module
from jaxqmri.dictionary.double_float import largest_of, normalised, split
from jaxqmri.dictionary.layout import lay_out, neighbours_together
from jaxqmri.dictionary.search import best_atoms

N, SPACING = 32, 5e-3
TE = SPACING * np.arange(1, N + 1)
T2_GRID = np.linspace(1e-3, 350e-3, 1000)
TRAIN = jq.FSE(jnp.full(N, jnp.pi), SPACING)
FEW = 8  # echoes where the train is fitted as well: its orders are compiled one by one


def decays(t2: np.ndarray) -> np.ndarray:
    """What a train of 180 degrees measures, in float64: exp(-TE / T2)."""
    return np.exp(-TE / np.asarray(t2, np.float64)[..., None])


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def float64_search(atoms: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """First index of the largest |<d, s>| for float64 unit atoms."""
    wide = signal.astype(np.result_type(signal, np.float64))
    pieces = [np.abs(wide[i : i + 4096] @ atoms.conj().T) for i in range(0, len(wide), 4096)]
    return np.concatenate([np.argmax(piece, axis=1) for piece in pieces])


@pytest.fixture(scope="module")
def dictionary() -> jq.Dictionary:
    return jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=T2_GRID))


@pytest.fixture(scope="module")
def voxels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(signal, T2, M0) of 65 536 voxels without noise."""
    rng = np.random.default_rng(7)
    t2, m0 = rng.uniform(5e-3, 349e-3, 65536), rng.uniform(0.2, 3000, 65536)
    return (m0[:, None] * decays(t2)).astype(np.float32), t2, m0


@pytest.fixture(scope="module")
def short_dictionary() -> jq.Dictionary:
    return jq.make_dictionary(jq.FSE(jnp.full(FEW, jnp.pi), SPACING), jq.grid(jq.Tissue, t2=T2_GRID))


@pytest.fixture(scope="module")
def short_voxels(voxels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return voxels[0][:, :FEW], voxels[1], voxels[2]


@pytest.fixture(scope="module")
def matched(dictionary, voxels) -> jq.MatchResult:
    return jq.match(dictionary, voxels[0])


# --- the search -------------------------------------------------------------------------------------------------------


def test_every_index_is_that_of_the_float64_search(voxels, matched):
    (signal, t2, m0), found = voxels, matched
    np.testing.assert_array_equal(found.index, float64_search(unit(decays(T2_GRID)), signal))
    rms = np.sqrt(np.mean((np.asarray(found.params.t2, np.float64) - t2) ** 2))
    assert rms < 0.102e-3  # half the grid's step over sqrt(3) is 0.1009 ms
    well_sampled = t2 > 50e-3
    np.testing.assert_allclose(np.asarray(found.m0)[well_sampled], m0[well_sampled], rtol=0.004)
    assert np.all(np.asarray(found.correlation) <= 1)


def test_noise_does_not_change_that(dictionary, voxels, rng):
    signal = decays(voxels[1])
    signal = (signal + 0.01 * rng.normal(size=signal.shape)).astype(np.float32)
    atoms = unit(decays(T2_GRID))
    np.testing.assert_array_equal(jq.match(dictionary, signal).index, float64_search(atoms, signal))

    # At SNR 5 atoms may be as good as each other to 12 digits; either is right then.
    signal = (signal + 0.2 * rng.normal(size=signal.shape)).astype(np.float32)
    found, best = np.asarray(jq.match(dictionary, signal).index), float64_search(atoms, signal)
    differ = np.flatnonzero(found != best)
    assert len(differ) <= 3
    products = [np.abs(np.sum(signal[differ].astype(float) * atoms[i[differ]], axis=1)) for i in (found, best)]
    np.testing.assert_allclose(*products, rtol=1e-12)


def test_refined_values_leave_the_grid(short_dictionary, short_voxels):
    signal, t2, m0 = (a[:4096] for a in short_voxels)
    found = jq.match(short_dictionary, signal, refine=True, batch_size=64)  # all tests that refine share this program
    rms = np.sqrt(np.mean((np.asarray(found.params.t2, np.float64) - t2) ** 2))
    assert rms < 0.01e-3
    np.testing.assert_allclose(found.m0, m0, rtol=1e-5)
    np.testing.assert_array_equal(found.params.m0, found.m0)


def test_a_refined_answer_is_never_worse_than_the_grid_and_says_where_there_is_none(
    short_dictionary, short_voxels, rng
):
    signal, _, m0 = (a[:128] for a in short_voxels)
    signal = (signal + 0.02 * m0[:, None] * rng.normal(size=(128, FEW))).astype(np.float32)
    signal[5] = signal[5, 0]  # no decay: T2 runs to the end of what the protocol can tell apart
    matched, refined = (jq.match(short_dictionary, signal, refine=r, batch_size=64) for r in (False, True))
    fitted = np.asarray(refined.status) == Status.OK
    np.testing.assert_array_equal(refined.index[fitted], matched.index[fitted])
    assert np.all(np.asarray(refined.correlation - matched.correlation)[fitted] > -1e-6)
    assert (refined.status[5], refined.index[5]) == (Status.AT_BOUND, -1)
    assert np.isnan(refined.params.t2[5])
    assert np.isnan(refined.m0[5])
    assert np.count_nonzero(fitted) > 110


@pytest.mark.slow
def test_many_chunks_of_two_parameters(rng):
    """A dense dictionary over T2 and B1, whose neighbours differ by less than float32 can tell."""
    train = jq.FSE(jnp.deg2rad(jnp.full(12, 170.0)), 0.01)
    params = jq.grid(jq.Tissue, t2=np.geomspace(0.02, 0.4, 150), b1=np.linspace(0.6, 1.0, 40))
    dictionary = jq.make_dictionary(train, params)
    exact = np.asarray(dictionary.atoms, np.float64) + np.asarray(dictionary.rest)
    truth = jq.Tissue(t2=rng.uniform(0.03, 0.3, 2000), b1=rng.uniform(0.65, 0.98, 2000))
    signal = np.asarray(jq.simulate(train, truth))
    noisy = signal + 0.01 * rng.normal(size=signal.shape)
    signal = np.concatenate([signal, noisy]).astype(np.float32)
    found = jq.match(dictionary, signal)
    np.testing.assert_array_equal(found.index, float64_search(exact, signal))


@pytest.mark.slow
def test_atoms_alike_and_in_no_order_are_told_apart(dictionary, rng):
    """No two neighbours in the list are alike, so that the leading blocks do not hold all good atoms."""
    order = rng.permutation(4000)
    t2 = np.linspace(0.2, 0.3, 4000)[order]
    shuffled = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=t2))
    signal = (decays(rng.uniform(0.21, 0.29, 300)) + 1e-3 * rng.normal(size=(300, N))).astype(np.float32)
    np.testing.assert_array_equal(jq.match(shuffled, signal).index, float64_search(unit(decays(t2)), signal))


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.complex64, marks=pytest.mark.slow)])
def test_nothing_that_could_be_best_is_passed_over(rng, dtype):
    """Atoms all over the sphere, alone and in tight clusters, and signals near to one or like none."""
    n = 12  # as in the other tests of complex signals
    centres = rng.normal(size=(60, 1, n)) + (1j * rng.normal(size=(60, 1, n)) if dtype == np.complex64 else 0)
    spread = np.geomspace(1e-4, 1, 60)[:, None, None]
    atoms = unit((centres + spread * rng.normal(size=(60, 50, n))).reshape(-1, n))[rng.permutation(3000)]
    order = jnp.asarray(neighbours_together(atoms), jnp.int32)
    layout = lay_out(split(atoms, jnp.float32), jnp.ones(3000), order)
    near = atoms[rng.integers(0, 3000, 1000)] + np.geomspace(1e-7, 0.3, 1000)[:, None] * rng.normal(size=(1000, n))
    signal = np.concatenate([near, rng.normal(size=(1000, n))]).astype(dtype)
    signals = normalised(jnp.asarray(signal), largest_of(jnp.asarray(signal))).signals
    found = np.asarray(jax.jit(best_atoms)(layout, signals))
    products = np.abs(signal.astype(np.complex128) @ atoms.conj().T)
    lost = products.max(axis=1) - products[np.arange(2000), found]
    assert np.max(lost / np.linalg.norm(signal, axis=1)) < 1e-8  # of two atoms equally good to the last bit either
    assert np.mean(found == products.argmax(axis=1)) > 0.999


def test_a_voxel_like_no_atom_at_all_does_not_touch_its_neighbours():
    """Its product with every atom is 0 to the last bit, so that no angle to one says anything."""
    model = jq.MonoExponential(te=np.array([0.5e-3, 1e-3, 2e-3, 4e-3, 0.4]))
    dictionary = jq.make_dictionary(model, jq.grid(jq.Decay, s0=1.0, t2=np.linspace(0.8e-3, 1.2e-3, 50)))
    signal = np.asarray(dictionary.atoms)[np.arange(200) % 50]
    signal[7] = [0, 0, 0, 0, 50]
    found = np.asarray(jq.match(dictionary, signal).index)
    np.testing.assert_array_equal(np.delete(found, 7), np.delete(np.arange(200) % 50, 7))


@pytest.mark.slow
def test_complex_signals_and_atoms(rng):
    phases = jnp.asarray(rng.uniform(-0.6, 0.6, 12))
    train = jq.FSE(jnp.deg2rad(jnp.full(12, 150.0)), 0.01, phases=phases)
    dictionary = jq.make_dictionary(train, jq.grid(jq.Tissue, t2=np.geomspace(0.02, 0.4, 500)))
    exact = np.asarray(dictionary.atoms, np.complex128) + np.asarray(dictionary.rest)
    t2, m0 = rng.uniform(0.03, 0.3, 1500), 100 * np.exp(1j * rng.uniform(-np.pi, np.pi, 1500))
    signal = np.asarray(jq.simulate(train, jq.Tissue(t2=t2))) * m0[:, None]
    noise = rng.normal(size=(2, *signal.shape))
    signal = (signal + noise[0] + 1j * noise[1]).astype(np.complex64)
    found = jq.match(dictionary, signal, refine=True)
    np.testing.assert_array_equal(found.index, float64_search(exact, signal))
    error = np.asarray(found.m0) / m0
    assert np.median(np.abs(np.angle(error))) < 0.01
    assert np.median(np.abs(error)) == pytest.approx(1, abs=0.01)


def test_magnitudes_of_complex_atoms_keep_their_precision(rng):
    """Of a magnitude image only the magnitudes of the atoms can be compared."""
    train = jq.FSE(jnp.deg2rad(jnp.full(N, 170.0)), SPACING, phases=jnp.asarray(rng.uniform(-0.3, 0.3, N)))
    dictionary = jq.make_dictionary(train, jq.grid(jq.Tissue, t2=T2_GRID))
    exact = unit(np.abs(np.asarray(dictionary.atoms, np.complex128) + np.asarray(dictionary.rest)))
    signal = np.abs(np.asarray(jq.simulate(train, jq.Tissue(t2=rng.uniform(5e-3, 349e-3, 2000)))))
    signal = (signal + 0.01 * rng.normal(size=signal.shape)).astype(np.float32)
    np.testing.assert_array_equal(jq.match(dictionary, signal, batch_size=64).index, float64_search(exact, signal))


def test_real_atoms_give_the_phase_of_a_complex_image(short_dictionary):
    decay = decays(np.full(3, 0.08))[:, :FEW]
    signal = (decay * np.array([[1], [-2], [3j]])).astype(np.complex64)
    found = jq.match(short_dictionary, signal, refine=True)
    np.testing.assert_allclose(found.m0, [1, -2, 3j], rtol=1e-5)
    np.testing.assert_allclose(found.params.t2, 0.08, rtol=1e-5)
    upside_down = jq.match(short_dictionary, -decay[:1], refine=True)
    np.testing.assert_allclose(upside_down.m0, -1, rtol=1e-5)


# --- promises ---------------------------------------------------------------------------------------------------------


def test_neither_batch_size_nor_neighbours_change_a_voxel(dictionary, voxels, matched, short_dictionary, short_voxels):
    few_at_once = jq.match(dictionary, voxels[0][:2000], batch_size=64)
    for name in ("index", "m0", "correlation"):
        np.testing.assert_array_equal(getattr(few_at_once, name), getattr(matched, name)[:2000])

    signal = short_voxels[0][:200]
    bad, reports = signal.copy(), []
    bad[7], bad[8] = np.nan, 0
    whole = jq.match(short_dictionary, signal, refine=True, batch_size=64)
    for other in (
        jq.match(short_dictionary, signal, refine=True, batch_size=60, progress=reports.append),
        jax.tree.map(lambda leaf: leaf[::-1], jq.match(short_dictionary, signal[::-1], refine=True, batch_size=64)),
        jq.match(short_dictionary, bad, refine=True, batch_size=64),
    ):
        for got, wanted in zip(jax.tree.leaves(other), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(np.delete(got, [7, 8]), np.delete(wanted, [7, 8]))
    assert reports == [60, 60, 60, 20]


def test_voxels_that_cannot_be_matched_are_nan_and_say_why(dictionary):
    signal = np.stack([decays(np.array(0.1))] * 5).astype(np.float32)
    signal[1], signal[2, 3], signal[3, 3] = 0, np.nan, np.inf
    found = jq.match(dictionary, signal)
    assert found.status.tolist() == [Status.OK, Status.NO_SIGNAL, Status.NOT_FINITE, Status.NOT_FINITE, Status.OK]
    assert found.index.tolist()[1:4] == [-1, -1, -1]
    for leaf in (*found.params, found.m0, found.correlation):
        np.testing.assert_array_equal(np.isnan(leaf), [False, True, True, True, False])


def test_what_is_no_magnitude_is_not_matched_to_magnitudes():
    """Signed or complex recoveries are like other atoms: they would have the T1 of these."""
    ti = np.array([0.05, 0.2, 0.5, 1.0, 2.0, 4.0])
    recoveries = jq.InversionRecovery(ti, magnitude=True)
    dictionary = jq.make_dictionary(recoveries, jq.grid(jq.Recovery, m0=1.0, t1=np.linspace(0.5, 1.5, 11)))
    signed = 1 - 2 * np.exp(-ti / 1.0)
    found = jq.match(dictionary, np.stack([signed, np.abs(signed)]))
    assert found.status.tolist() == [Status.NEGATIVE_MAGNITUDE, Status.OK]
    np.testing.assert_allclose(found.params.t1, [np.nan, 1.0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"InversionRecovery predicts magnitudes; give jnp\.abs"):
        jq.match(dictionary, signed * np.exp(1j * ti))
    decays = jq.make_dictionary(jq.MonoExponential(ti / 100), jq.grid(jq.Decay, s0=1.0, t2=[0.01, 0.02, 0.03]))
    with pytest.raises(ValueError, match="MonoExponential predicts magnitudes"):
        jq.match(decays, np.exp((20j - 1) * ti))


def test_any_image_shape_and_any_scale(dictionary, voxels):
    signal = voxels[0][:24]
    flat = jq.match(dictionary, signal)
    image = jq.match(dictionary, signal.reshape(2, 3, 4, N))
    assert image.m0.shape == image.params.t2.shape == image.status.shape == (2, 3, 4)
    np.testing.assert_array_equal(image.index.ravel(), flat.index)
    assert jq.match(dictionary, signal[0]).index.shape == ()
    for scale in (2.0**-90, 2.0**-30, 2.0**80, 2.0**115):  # the last one ends near the largest number of float32
        scaled = jq.match(dictionary, signal * np.float32(scale))
        np.testing.assert_array_equal(scaled.index, flat.index)
        np.testing.assert_allclose(scaled.m0, np.asarray(flat.m0) * scale, rtol=1e-6)
    assert jq.match(dictionary, np.zeros((0, N))).index.shape == (0,)


def test_atoms_without_signal_never_win(dictionary):
    """T2 of 0.1 ms leaves exactly nothing after 5 ms in any precision; NaN is no tissue."""
    params = jq.grid(jq.Tissue, t2=[np.nan, 1e-6, 0.05, 1e-6, 0.1, np.nan] * 20)  # as many atoms as below
    found = jq.match(jq.make_dictionary(TRAIN, params), decays(np.array([0.01, 0.05, 0.1, 0.3])))
    assert found.index.tolist() == [2, 2, 4, 4]
    with pytest.raises(ValueError, match="no atom"):
        jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=[np.nan, 1e-6]))


def test_ties_go_to_the_lowest_index():
    t2 = np.concatenate([np.linspace(0.02, 0.2, 40)] * 3)
    copies = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=t2))
    assert jq.match(copies, decays(t2), batch_size=64).index.tolist() == list(range(40)) * 3


def test_atoms_and_norms_are_those_of_float64(dictionary):
    exact = decays(T2_GRID)
    kept_and_rest = np.asarray(dictionary.atoms, np.float64) + np.asarray(dictionary.rest)
    np.testing.assert_allclose(kept_and_rest, unit(exact), atol=1e-14)
    np.testing.assert_allclose(dictionary.norms, np.linalg.norm(exact, axis=-1), rtol=1e-7)
    assert dictionary.atoms.dtype == dictionary.norms.dtype == jnp.float32
    assert not jax.config.jax_enable_x64


@pytest.mark.slow
def test_everything_in_float64_where_asked(double_precision):
    train = jq.FSE(jnp.full(N, jnp.pi), SPACING)
    dictionary = jq.make_dictionary(train, jq.grid(jq.Tissue, t2=jnp.asarray(T2_GRID[:100])))
    found = jq.match(dictionary, decays(T2_GRID[:99] + 1e-7), refine=True)
    assert found.m0.dtype == jnp.float64
    np.testing.assert_allclose(found.params.t2, T2_GRID[:99] + 1e-7, rtol=1e-9)


def test_within_jit_and_without_retracing(dictionary, voxels):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def t2(signal):
        return jq.match(dictionary, signal).params.t2

    signal = voxels[0]
    for part in (signal[:50], signal[50:100]):
        np.testing.assert_array_equal(t2(part), jq.match(dictionary, part).params.t2)


def test_a_dictionary_can_be_made_within_jit(dictionary, voxels):
    signal = voxels[0][:50]
    inside = jax.jit(lambda s: jq.match(jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=T2_GRID)), s).index)
    np.testing.assert_array_equal(inside(signal), jq.match(dictionary, signal).index)


def test_a_dictionary_may_be_an_argument_of_a_program(dictionary, voxels):
    signal = voxels[0][:50]
    np.testing.assert_array_equal(
        eqx.filter_jit(jq.match)(dictionary, signal).index, jq.match(dictionary, signal).index
    )


def test_atoms_are_laid_out_once(monkeypatch, rng):
    """Also complex ones of which real signals see the magnitudes; not longer than they exist."""
    calls = []
    laid_out = layout_module.lay_out
    monkeypatch.setattr(layout_module, "lay_out", lambda *args: calls.append(args) or laid_out(*args))
    before = len(layout_module._layouts)
    train = jq.FSE(jnp.full(FEW, jnp.pi), SPACING, phases=jnp.full(FEW, 0.1))
    dictionary = jq.make_dictionary(train, jq.grid(jq.Tissue, t2=T2_GRID[:50]))
    for dtype in (np.float32, np.complex64):
        for _ in range(2):
            jq.match(dictionary, decays(np.array([0.01]))[:, :FEW].astype(dtype))
    assert len(calls) == 2
    del dictionary, calls[:]
    gc.collect()
    assert len(layout_module._layouts) <= before


def test_atoms_that_were_replaced_are_not_matched(dictionary, voxels):
    """`eqx.tree_at` makes another dictionary of which only some leaves are new."""
    signal = voxels[0][:64]  # as in other tests
    of_before = jq.match(dictionary, signal)
    removed = eqx.tree_at(lambda d: d.atoms, dictionary, dictionary.atoms.at[:500].set(0.0))
    np.testing.assert_array_equal(jq.match(removed, signal).index, np.maximum(of_before.index, 500))
    without_norms = eqx.tree_at(lambda d: d.norms, dictionary, dictionary.norms.at[:500].set(0.0))
    np.testing.assert_array_equal(jq.match(without_norms, signal).index, np.maximum(of_before.index, 500))
    reversed_atoms = eqx.tree_at(lambda d: d.atoms, dictionary, dictionary.atoms[::-1])
    assert np.max(np.abs(np.asarray(jq.match(reversed_atoms, signal).index) - (999 - np.asarray(of_before.index)))) <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_the_atoms_of_any_model_are_computed_at_once_also_within_jit(name):
    """Loops included, with any version of JAX."""
    family = FAMILIES[name]
    axes = {parameter: np.linspace(*ends, 4) for parameter, ends in (*family.ranges.items(), *family.known.items())}
    params = jq.grid(family.model.parameters, **{family.amplitude: 1.0}, **axes)
    made = []
    jax.jit(lambda x: made.append(jq.make_dictionary(family.model, params)) or x)(1.0)  # concrete even there
    (inside,), outside = made, jq.make_dictionary(family.model, params)
    np.testing.assert_array_equal(inside.atoms, outside.atoms)
    exact = unit(family.formula(1.0, {parameter: getattr(params, parameter) for parameter in axes}))
    np.testing.assert_allclose(outside.atoms, exact, atol=4e-8)  # two roundings of a number below 1


@pytest.mark.slow
def test_long_trains_do_not_depend_on_the_batch_either(rng):
    model = jq.MonoExponential(np.linspace(1e-3, 0.2, 80))
    dictionary = jq.make_dictionary(model, jq.grid(jq.Decay, s0=1.0, t2=np.linspace(0.01, 0.2, 100)))
    signal = np.asarray(jq.simulate(model, jq.Decay(s0=1.0, t2=rng.uniform(0.02, 0.19, 150))))
    signal = (signal + 0.01 * rng.normal(size=signal.shape)).astype(np.float32)
    whole, parts = (jq.match(dictionary, signal, refine=True, batch_size=size) for size in (None, 64))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_dictionary_can_be_differentiated():
    def norm(t2):
        return jq.make_dictionary(TRAIN, jq.Tissue(t2=t2[None])).norms[0]

    slope = jax.grad(norm)(jnp.asarray(0.08))
    atom, rate = decays(0.08), TE / 0.08**2
    np.testing.assert_allclose(slope, np.sum(atom**2 * rate) / np.linalg.norm(atom), rtol=1e-5)


# --- compression ------------------------------------------------------------------------------------------------------


def test_compression_keeps_what_matters(dictionary, voxels):
    signal, t2, _ = (a[:2000] for a in voxels)
    full = jq.match(dictionary, signal, batch_size=64)
    compressed = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=T2_GRID), rank=8)
    assert compressed.atoms.shape == (1000, 8)
    np.testing.assert_allclose(np.linalg.norm(compressed.atoms, axis=-1), 1, rtol=1e-6)
    found = jq.match(compressed, signal)
    assert np.mean(np.abs(np.asarray(found.index) - np.asarray(full.index)) <= 1) > 0.99
    np.testing.assert_allclose(found.correlation, full.correlation, atol=1e-3)
    long = t2 > 0.02
    np.testing.assert_allclose(np.asarray(found.m0)[long], np.asarray(full.m0)[long], rtol=0.01)


def test_rank_by_energy_is_the_smallest_that_holds_it():
    atoms = unit(decays(T2_GRID))
    held = np.cumsum(np.linalg.svd(atoms, compute_uv=False) ** 2) / len(atoms)
    for energy in (0.99, 0.9999):
        by_energy = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=T2_GRID), energy=energy)
        assert by_energy.atoms.shape[1] == 1 + np.argmax(held >= energy)


# --- the grid and mistakes --------------------------------------------------------------------------------------------


def test_grid_is_the_outer_product_with_the_last_name_fastest():
    tissue = jq.grid(jq.Tissue, t2=[0.1, 0.2], b1=[0.8, 0.9, 1.0], t1=1.5)
    np.testing.assert_array_equal(tissue.t2, [0.1, 0.1, 0.1, 0.2, 0.2, 0.2])
    np.testing.assert_array_equal(tissue.b1, [0.8, 0.9, 1.0] * 2)
    np.testing.assert_array_equal(tissue.t1, [1.5] * 6)
    np.testing.assert_array_equal(tissue.t2star, [jq.Tissue().t2star] * 6)
    assert isinstance(jq.grid(jq.Tissue, t2=jnp.array([0.1])).m0, jax.Array)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"t3": 1.0}, "no .'t3'."), ({"t2": np.ones((2, 2))}, "list of numbers"), ({"t2": []}, "list of numbers")],
)
def test_grid_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        jq.grid(jq.Tissue, **values)
    with pytest.raises(ValueError, match="needs values"):
        jq.grid(jq.Decay, t2=[0.1])
    with pytest.raises(ValueError, match="NamedTuple"):
        jq.grid(dict, t2=[0.1])
    with pytest.raises(ValueError, match="t2 is in seconds, got 155; divide milliseconds by 1000"):
        jq.grid(jq.Tissue, t2=np.linspace(10, 300, 30))


def test_mistakes_are_named(dictionary):
    make_dictionary, match = map(inspect.unwrap, (jq.make_dictionary, jq.match))  # without the checks of the tests
    some = jq.grid(jq.Tissue, t2=[0.1, 0.2])
    for arguments, message in (
        ({"rank": 33}, "1 ... 32"),
        ({"rank": 0}, "1 ... 32"),
        ({"energy": 1.5}, "between 0 and 1"),
        ({"rank": 2, "energy": 0.9}, "not both"),
    ):
        with pytest.raises(ValueError, match=message):
            make_dictionary(TRAIN, some, **arguments)
    with pytest.raises(ValueError, match="Tissue"):
        make_dictionary(TRAIN, jq.Decay(1.0, 0.1))
    with pytest.raises(ValueError, match="ravel"):
        make_dictionary(TRAIN, jq.Tissue(t2=np.ones((2, 2))))
    with pytest.raises(ValueError, match="t1 is in seconds, got 900"):
        make_dictionary(TRAIN, jq.Tissue(t1=900.0, t2=np.ones(3)))
    with pytest.raises(ValueError, match="traced parameters"):
        jax.jit(lambda t2: make_dictionary(TRAIN, jq.Tissue(t2=t2), rank=2).norms)(np.ones(3))
    with pytest.raises(ValueError, match="signal model"):
        make_dictionary("fse", some)
    with pytest.raises(ValueError, match=r"^model is of type Tissue, wanted a signal model.*\.$"):
        make_dictionary(jq.grid(jq.Tissue, t2=np.linspace(0.01, 0.3, 100)), TRAIN)  # swapped
    with pytest.raises(ValueError, match=r"^dictionary is of type ndarray of shape \(50, 32\), wanted one from.*\.$"):
        match(np.ones((50, 32)), dictionary)
    with pytest.raises(ValueError, match="last axis"):
        match(dictionary, np.ones((N, 4)))
    with pytest.raises(ValueError, match="make_dictionary"):
        match(T2_GRID, np.ones(N))
    with pytest.raises(ValueError, match="batch_size"):
        match(dictionary, np.ones((4, N)), batch_size=0)
