"""The reference object is what it says, also after a trip through DICOM files; images made of it follow the physics."""

from dataclasses import replace
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri import phantoms
from jaxqmri.io.dicom.write import write_dicom

TE = np.array([2e-3, 10e-3, 30e-3])
ECHO_SPACING = 10e-3  # s
FSE = jq.FSE(np.full(8, np.pi), ECHO_SPACING)
MAPS = ("m0", "t1", "t2", "t2star", "b1")


def test_true_maps_hold_the_values_of_the_regions():
    phantom = phantoms.head_slice(96)
    assert set(np.unique(phantom.labels)) == {phantoms.BACKGROUND, *phantoms.REGIONS}
    for label, region in phantoms.REGIONS.items():
        inside = phantom.labels == label
        for name in ("s0", "m0", "t1", "t2", "t2star"):
            assert np.all(getattr(phantom, name)[inside] == getattr(region, name)), name
    air = phantom.labels == phantoms.BACKGROUND
    assert np.all(phantom.m0[air] == 0)
    for name in ("t1", "t2", "t2star"):
        assert np.all(np.isnan(getattr(phantom, name)[air])), name


def test_the_slice_of_the_demo_stays_what_it_is():
    labels, counts = np.unique(phantoms.head_slice(128).labels, return_counts=True)
    # Counted in the first version, whose slice the demonstration and its documents show.
    assert dict(zip(labels.tolist(), counts.tolist(), strict=True)) == {
        0: 8636,
        1: 4588,
        2: 2234,
        3: 440,
        4: 390,
        5: 96,
    }


@pytest.mark.parametrize("region", phantoms.HEAD_REGIONS.values(), ids=lambda region: region.name)
def test_transverse_magnetisation_never_outlives_longitudinal(region):
    assert 0 < region.t2star < region.t2 < region.t1
    assert 0 < region.m0 <= 1


def test_the_slice_is_the_middle_of_the_volume():
    head, volume = phantoms.head_slice(48), phantoms.head_volume(48, 9)
    for name in ("labels", *MAPS):
        np.testing.assert_array_equal(getattr(volume, name)[:, :, 4:5], getattr(head, name))
    np.testing.assert_allclose(volume.affine @ [7, 11, 4, 1], head.affine @ [7, 11, 0, 1], atol=1e-12)
    thickness = np.linalg.norm(volume.affine[:3, 2])
    np.testing.assert_allclose(thickness * 9, 160.0)


def test_the_volume_ends_within_its_slices_and_has_a_cerebellum_below():
    volume = phantoms.head_volume(128, 64, skull_stripped=False)
    for axis in range(3):
        ends = np.take(volume.labels, [0, -1], axis=axis)
        assert np.all(ends == phantoms.BACKGROUND)
    fluid, cortex, white = phantoms.FLUID, phantoms.CORTEX, phantoms.WHITE
    upwards = [label for label, _ in groupby(volume.labels[64 + 12, 64 - 24].tolist())]
    cerebellum = [cortex, white, cortex, fluid]
    cerebrum = [white, cortex, fluid]
    shells = [phantoms.BACKGROUND, phantoms.SCALP, phantoms.BACKGROUND]
    assert upwards == [*shells, fluid, *cerebellum, *cerebrum, *shells[::-1]]
    assert volume.labels[64, 64, 45] == fluid, "between the hemispheres"


def test_a_whole_head_adds_layers_around_an_unchanged_brain():
    brain, head = phantoms.head_slice(128), phantoms.head_slice(128, skull_stripped=False)
    inside = brain.labels != phantoms.BACKGROUND
    for name in ("labels", *MAPS):
        np.testing.assert_array_equal(getattr(head, name)[inside], getattr(brain, name)[inside])
    np.testing.assert_array_equal(head.b1, brain.b1)
    outside_in = [label for label, _ in groupby(head.labels[:, 64, 0].tolist())]
    assert outside_in[:6] == [
        phantoms.BACKGROUND, phantoms.SCALP, phantoms.BACKGROUND, phantoms.FLUID, phantoms.CORTEX, phantoms.WHITE
    ]  # fmt: skip


def test_the_transmit_field_is_that_of_3_tesla_smooth_and_everywhere():
    head = phantoms.head_slice(128)
    inside = head.labels != phantoms.BACKGROUND
    assert head.b1[inside].max() == pytest.approx(1.15, abs=0.005)
    edge = inside & ~(np.roll(inside, 1, 0) & np.roll(inside, -1, 0) & np.roll(inside, 1, 1) & np.roll(inside, -1, 1))
    assert head.b1[edge].mean() == pytest.approx(0.75, abs=0.02)
    assert head.b1[inside].min() == pytest.approx(head.b1[edge].min(), abs=1e-12), "darkest at the edge"
    assert np.all(head.b1 > 0.3)
    for axis in (0, 1):
        assert np.abs(np.diff(head.b1, axis=axis)).max() < 0.02
        assert not np.allclose(head.b1, np.flip(head.b1, axis), rtol=0.01), "a flipped axis shows"
    np.testing.assert_allclose(phantoms.head_slice(128, b1_scale=0.8).b1, 0.8 * head.b1)


def test_variation_has_the_given_spread_and_correlation_and_keeps_air_and_b1(rng):
    head, width_mm = phantoms.head_slice(32), 14.0
    inside = head.labels != phantoms.BACKGROUND
    varied = [phantoms.with_variation(head, 0.05, rng=rng, width_mm=width_mm) for _ in range(200)]
    for name in ("m0", "t1", "t2"):
        logs = np.array([np.log(getattr(v, name)[inside] / getattr(head, name)[inside]) for v in varied])
        np.testing.assert_allclose(logs.mean(), 0, atol=0.002)
        np.testing.assert_allclose(logs.std(), 0.05, rtol=0.03)
    full = np.array([np.log(v.t2 / head.t2)[:, 16, 0] for v in varied])
    two_apart = np.nanmean(full[:, 2:] * full[:, :-2]) / np.nanmean(full**2)  # 14 mm
    np.testing.assert_allclose(two_apart, np.exp(-0.5), atol=0.06)
    for v in varied[:3]:
        np.testing.assert_array_equal(v.labels, head.labels)
        np.testing.assert_array_equal(v.b1, head.b1)
        assert np.all(v.m0[~inside] == 0)
        assert np.all(np.isnan(v.t1[~inside]))
        np.testing.assert_allclose(v.t2star / v.t2, head.t2star / head.t2)


def test_variation_is_a_function_of_place_and_seed():
    fine = phantoms.with_variation(phantoms.head_volume(32, 3), rng=np.random.default_rng(5))
    again = phantoms.with_variation(phantoms.head_slice(32), rng=np.random.default_rng(5))
    other = phantoms.with_variation(phantoms.head_slice(32), rng=np.random.default_rng(6))
    np.testing.assert_allclose(fine.t1[:, :, 1:2], again.t1, rtol=1e-9)
    assert np.nanmax(np.abs(other.t1 / again.t1 - 1)) > 0.02


def test_a_phantom_of_maps_of_two_grids_is_refused():
    head = phantoms.head_slice(16)
    with pytest.raises(ValueError, match=r"t1 has shape \(16, 16, 2\), labels \(16, 16, 1\)"):
        replace(head, t1=np.ones((16, 16, 2)))
    with pytest.raises(ValueError, match="width_mm must be positive"):
        phantoms.with_variation(head, rng=np.random.default_rng(0), width_mm=0.0)


def test_noise_is_rician_of_the_given_level(rng):
    phantom = phantoms.head_slice(128)
    images = phantoms.gradient_echo_images(phantom, TE, snr=50.0, gain=1000.0, rng=rng)
    air = images[phantom.labels == phantoms.BACKGROUND]
    sigma = 1000.0 / 50.0
    np.testing.assert_allclose(air.mean(), sigma * np.sqrt(np.pi / 2), rtol=0.02)  # Rayleigh
    fluid = images[phantom.labels == phantoms.FLUID][:, 0]
    np.testing.assert_allclose(fluid.std(), sigma, rtol=0.1)
    np.testing.assert_allclose(fluid.mean(), 1000 * np.exp(-TE[0] / 0.12), rtol=0.01)


@pytest.fixture(scope="module")
def head() -> phantoms.Phantom:
    return phantoms.head_slice(32, skull_stripped=False)


@pytest.fixture(scope="module")
def echoes(head) -> np.ndarray:
    """Without noise."""
    return phantoms.spin_echo_images(head, FSE, gain=500.0)


def test_tissue_is_finite_and_dark_in_air(head, echoes):
    air = head.labels == phantoms.BACKGROUND
    for leaf in head.tissue:
        assert np.all(np.isfinite(leaf))
        assert leaf.shape == head.labels.shape
    assert np.all(echoes[air] == 0)
    assert np.all(echoes[~air] > 0)
    assert echoes.dtype == np.float32


def test_spin_echoes_of_perfect_pulses_decay_with_t2(head):
    uniform = replace(head, b1=np.ones_like(head.b1))
    images = phantoms.spin_echo_images(uniform, FSE, gain=500.0)
    inside = head.labels != phantoms.BACKGROUND
    te = ECHO_SPACING * np.arange(1, 9)
    expected = 500.0 * head.m0[inside][:, None] * np.exp(-te / head.t2[inside][:, None])
    np.testing.assert_allclose(images[inside], expected, rtol=1e-5)


def test_the_first_spin_echo_knows_b1(head, echoes):
    inside = head.labels != phantoms.BACKGROUND
    half_angle = np.pi / 2 * head.b1[inside]
    # Hahn's echo of a 90 and a 180 degree pulse, both times b1.
    expected = head.m0[inside] * np.sin(half_angle) * np.sin(half_angle) ** 2 * np.exp(-ECHO_SPACING / head.t2[inside])
    np.testing.assert_allclose(echoes[inside][:, 0], 500.0 * expected, rtol=1e-5)


def test_batches_change_no_spin_echo_image(head, echoes):
    batched = phantoms.spin_echo_images(head, FSE, gain=500.0, batch_size=256)
    np.testing.assert_array_equal(batched, echoes)


def test_noise_of_spin_echoes_is_rician_of_the_given_level(head, echoes):
    sigma = 500.0 / 20.0
    noisy = phantoms.spin_echo_images(head, FSE, snr=20.0, gain=500.0, rng=np.random.default_rng(3))
    # E[m^2] = signal^2 + 2 sigma^2 at any signal; the two channels are independent of it and each other.
    excess = noisy.astype(np.float64) ** 2 - echoes.astype(np.float64) ** 2
    np.testing.assert_allclose(excess.mean() / (2 * sigma**2), 1, atol=0.1)
    air = noisy[head.labels == phantoms.BACKGROUND]
    np.testing.assert_allclose(air.mean(), sigma * np.sqrt(np.pi / 2), rtol=0.03)
    np.testing.assert_allclose(air.std(), sigma * np.sqrt(2 - np.pi / 2), rtol=0.03)
    again = phantoms.spin_echo_images(head, FSE, snr=20.0, gain=500.0, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(again, noisy)
    assert noisy.dtype == np.float32


def test_infinite_snr_is_no_noise_and_noise_needs_a_source(head, echoes):
    clean = phantoms.spin_echo_images(head, FSE, snr=np.inf, gain=500.0)
    np.testing.assert_array_equal(clean, echoes)
    with pytest.raises(ValueError, match="need an rng"):
        phantoms.spin_echo_images(head, FSE, snr=20.0)
    for snr in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="snr must be positive"):
            phantoms.spin_echo_images(head, FSE, snr=snr, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="takes a Decay"):
        phantoms.spin_echo_images(head, jq.MonoExponential(TE))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shape", [(), (7,), (4, 3, 2)])
def test_two_echoes_of_a_decay_give_its_t2(shape, rng):
    t2, m0 = rng.uniform(0.02, 0.5, shape), rng.uniform(1, 1e4, shape)
    pd, t2w = (m0 * np.exp(-te / t2) for te in (0.008, 0.100))
    found = phantoms.t2_from_dual_echo(pd, t2w, 0.092)
    assert found.shape == shape
    np.testing.assert_allclose(found, t2, rtol=1e-5)
    np.testing.assert_allclose(phantoms.t2_from_dual_echo(jnp.asarray(pd), jnp.asarray(t2w), 0.092), t2, rtol=1e-5)


def test_pairs_without_a_t2_are_nan_and_zero_as_in_the_founding_example():
    nan, inf = np.nan, np.inf
    pd = np.array([200, 100, 100, 0, 100, 0, -5, 100, nan, 100, inf, inf, 100])
    t2w = np.array([100, 100, 200, 0, 0, 100, -9, -1, 100, nan, 100, inf, inf])
    t2 = phantoms.t2_from_dual_echo(pd, t2w, 0.092)
    np.testing.assert_allclose(t2[0], 0.092 / np.log(2), rtol=1e-6)
    assert np.all(np.isnan(t2[1:]))
    as_int = phantoms.t2_from_dual_echo(np.array([200, 100], np.int16), np.array([100, 0], np.int16), 0.092)
    np.testing.assert_array_equal(as_int, t2[np.array([0, 4])])

    # The example's own recipe, ms, on noisy pairs, of which it turns what it cannot answer to 0.
    rng = np.random.default_rng(8)
    pd, t2w = rng.integers(0, 40, (2, 1000)).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        example = -92 / np.log(t2w / pd)
    example = np.where(np.isfinite(example) & (example > 0), example, 0)
    np.testing.assert_allclose(1e3 * jnp.nan_to_num(phantoms.t2_from_dual_echo(pd, t2w, 0.092)), example, rtol=1e-5)


def test_t2_of_two_echoes_can_be_differentiated_past_dark_voxels():
    def total(pd):
        return jnp.nansum(phantoms.t2_from_dual_echo(pd, jnp.array([100.0, 0.0, 50.0, 50.0, 50.0]), 0.092))

    slope = jax.jit(jax.grad(total))(jnp.array([200.0, 0.0, 50.0, 20.0, jnp.inf]))
    # d(-d / ln(b / a)) / da = -d / (a ln(b / a)^2)
    np.testing.assert_allclose(slope, [-0.092 / (200 * np.log(2) ** 2), 0, 0, 0, 0], rtol=1e-5)


def test_t2_of_two_spin_echoes_is_rough_where_pulses_are_weak(head, echoes):
    t2 = phantoms.t2_from_dual_echo(echoes[..., 0], echoes[..., 7], 7 * ECHO_SPACING)
    ratio = np.asarray(t2) / head.t2
    weak = (head.labels == phantoms.CORTEX) & (head.b1 < 0.8)
    right = (head.labels == phantoms.WHITE) & (np.abs(head.b1 - 1) < 0.02)
    np.testing.assert_allclose(ratio[right], 1, atol=0.02)
    assert np.median(ratio[weak]) > 1.1, "stimulated echoes live on T1"


@pytest.mark.parametrize("delta_te", [92.0, 0.0, -0.092, np.nan, np.inf])
def test_an_echo_time_difference_that_is_no_seconds_is_refused(delta_te):
    with pytest.raises(ValueError, match="delta_te must be between 0 and 2 s"):
        phantoms.t2_from_dual_echo(np.ones(3), np.ones(3), delta_te)


def test_pairs_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match=r"pd has shape \(3,\), t2w \(3, 1\)"):
        phantoms.t2_from_dual_echo(np.ones(3), np.ones((3, 1)), 0.092)
    with pytest.raises(ValueError, match="magnitudes"):
        phantoms.t2_from_dual_echo(np.ones(3) + 1j, np.ones(3), 0.092)


def test_dicom_files_give_back_images_echo_times_and_place(tmp_path, rng):
    phantom = phantoms.head_slice(32)
    images = np.round(phantoms.gradient_echo_images(phantom, TE, snr=50.0, gain=1000.0, rng=rng))
    images = np.concatenate([images, images[::-1], 2 * images], axis=2)
    files = write_dicom(tmp_path, images, TE, phantom.affine, "reference object")
    assert len(files) == 9
    series = jq.read_dicom(tmp_path)
    np.testing.assert_array_equal(series.data, images)
    np.testing.assert_allclose(series.te, TE, rtol=1e-9)
    np.testing.assert_allclose(series.affine, phantom.affine, atol=1e-5)
    assert (series.component, series.description) == ("magnitude", "reference object")


def test_images_that_do_not_fit_into_16_bit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"0 \.\.\. 65535"):
        write_dicom(tmp_path, np.full((4, 4, 1, 2), 70000.0), TE[:2], np.eye(4), "too bright")
    assert not list(tmp_path.iterdir())
