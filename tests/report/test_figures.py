"""Pictures show the right voxel, on the right side, in the right colour and unit."""

import itertools
import zlib

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from nibabel.affines import apply_affine

from jaxqmri.report import figures
from jaxqmri.report.colours import colour_map, log_remap

LAS = np.diag([-2.0, 2.0, 5.0, 1.0])  # as dcm2niix writes an axial scan
NAMES = {0: "OK", 1: "NO_SIGNAL", 3: "NOT_CONVERGED", 6: "MASKED"}


def orientations():
    """All 48 ways in which voxel axes can lie along the patient's axes, slightly tilted."""
    tilt = np.deg2rad(7)
    rotation = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1, -1], repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = rotation @ np.diag(signs)[:, order] * [1.0, 2.0, 3.0]
            yield affine


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def bars(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def rendered_colour(axes, column, row):
    """RGB bytes on the canvas at the centre of a voxel of the picture."""
    canvas = axes.figure.canvas
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    x, y = axes.transData.transform((column, row))
    return tuple(int(c) for c in pixels[pixels.shape[0] - 1 - round(y), round(x), :3])


@pytest.fixture
def maps(rng):
    t2star = rng.uniform(0.01, 0.08, (6, 8, 3))
    return {
        "S0map": np.full((6, 8, 3), 1000.0),
        "T2starmap": t2star,
        "R2starmap": 1 / t2star,
        "residual": np.full((6, 8, 3), 0.02),
        "status": np.zeros((6, 8, 3), dtype=np.int16),
    }


@pytest.mark.parametrize("affine", list(orientations()))
def test_any_storage_order_is_shown_as_a_radiologist_holds_it(affine):
    shape = (4, 5, 3)
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))[:, :, 1]  # (x, y, RAS)
    view = figures.radiological_view(affine)
    right, anterior, superior = (view(world[..., i]) for i in range(3))
    across, up = view.letters[:2], view.letters[2:]
    leftward = {("R", "L"): right, ("A", "P"): anterior}[across]  # falls from the left edge to the right one
    upward = {("A", "P"): anterior, ("S", "I"): superior}[up]
    assert np.all(np.diff(leftward, axis=1) < 0)
    assert np.all(np.diff(upward, axis=0) < 0)


def test_dcm2niix_slice_is_transposed_with_its_last_row_on_top(rng):
    stored = rng.random((4, 5))
    np.testing.assert_array_equal(figures.radiological_view(LAS)(stored), stored.T[::-1])


def test_a_singular_affine_is_refused():
    with pytest.raises(ValueError, match="singular"):
        figures.radiological_view(np.diag([2.0, 0.0, 5.0, 1.0]))


def test_picture_has_the_proportions_of_the_patient(maps):
    affine = np.diag([-1.0, 3.0, 5.0, 1.0])  # 6 x 8 voxels of 1 x 3 mm: 6 mm wide, 24 mm high
    figure = figures.maps_figure(maps, affine, names=("T2starmap",))
    figure.canvas.draw()
    x0, y0, x1, y1 = figure.axes[0].images[0].get_window_extent().extents
    assert (y1 - y0) / (x1 - x0) == pytest.approx(24 / 6, rel=1e-6)


def test_missing_voxels_are_black_and_others_have_the_colour_of_their_value(maps):
    maps["T2starmap"][0, 0, 1], maps["T2starmap"][1, 0, 1], maps["T2starmap"][2, 0, 1] = np.nan, 0.0, 0.02
    maps["T2starmap"][3, 0, 1], maps["status"][3, 0, 1] = 0.02, 3
    figure = figures.maps_figure(maps, LAS, names=("T2starmap",), slice_index=1)
    seen = [rendered_colour(figure.axes[0], i, 7) for i in range(4)]  # y = 0 is the bottom row of eight
    expected = tuple(int(c) for c in colour_map("navia")(log_remap(20.0, 0.0, 100.0), bytes=True)[:3])
    assert seen == [(0, 0, 0), (0, 0, 0), expected, (0, 0, 0)]
    assert expected != (0, 0, 0)


def test_founding_example_shows_signal_t2star_and_relative_error_with_units(maps):
    figure = figures.maps_figure(maps, LAS)
    found = texts(figure)
    assert [t for t in found if "[" in t] == ["S0 [a.u.]", "T2* [ms]", "relative error [%]"]
    assert {"a.u.", "ms", "%"} <= set(found)
    assert [found.count(letter) for letter in "RLAP"] == [3, 3, 3, 3]


def test_colour_bar_ticks_stand_at_their_true_values(maps):
    figure = figures.maps_figure(maps, LAS, names=("T2starmap",))
    figure.canvas.draw()
    bar = figure.axes[1]
    bottom, tick, top = (bar.transData.transform((0, value))[1] for value in (0.0, 40.0, 100.0))
    assert (tick - bottom) / (top - bottom) == pytest.approx(log_remap(40.0, 0.0, 100.0), abs=1e-6)
    assert "40" in [label.get_text() for label in bar.get_yticklabels()]


def test_the_slice_with_most_values_is_shown_and_the_middle_one_of_equals():
    volume = np.full((4, 4, 5), np.nan)
    assert figures.fullest_slice(volume) == 2
    volume[:2, :, 4] = 1.0
    assert figures.fullest_slice(volume) == 4
    volume[:2, :, 1] = 1.0
    assert figures.fullest_slice(volume) == 1


def test_a_map_that_is_not_there_is_named(maps):
    with pytest.raises(ValueError, match="T1map"):
        figures.maps_figure(maps, LAS, names=("T1map",))


def test_mosaic_shows_every_slice_once_or_an_even_choice_with_both_ends(rng):
    volume = rng.uniform(0.01, 0.1, (5, 4, 41))
    labels = [t for t in texts(figures.mosaic_figure(volume, "T2starmap", LAS, max_slices=41)) if "slice" in t]
    assert labels == [f"slice {k}" for k in range(41)]
    labels = [t for t in texts(figures.mosaic_figure(volume, "T2starmap", LAS, max_slices=5)) if "slice" in t]
    assert labels == ["slice 0", "slice 10", "slice 20", "slice 30", "slice 40"]


def test_mosaic_tile_is_the_slice_in_the_colours_of_the_map(rng):
    volume = rng.uniform(0.01, 0.1, (5, 4, 2))
    volume[0, 0, 0] = np.nan
    sheet = np.asarray(figures.mosaic_figure(volume, "T2starmap", LAS).axes[0].images[0].get_array())
    expected = colour_map("navia")(log_remap(1e3 * volume[:, :, 0].astype(np.float32), 0.0, 100.0), bytes=True)
    np.testing.assert_array_equal(sheet[:4, :5], np.swapaxes(expected, 0, 1)[::-1])
    assert tuple(sheet[3, 0]) == (0, 0, 0, 255)


def test_echoes_carry_their_echo_times(rng):
    data = rng.random((6, 5, 2, 3))
    found = texts(figures.echo_figure(data, [2.0, 5.8, 9.6], LAS))
    assert [t for t in found if "TE" in t] == ["TE 2 ms", "TE 5.8 ms", "TE 9.6 ms"]
    with pytest.raises(ValueError, match="3 images"):
        figures.echo_figure(data, [2.0, 5.8], LAS)


def test_status_picture_tells_codes_apart_and_names_only_those_that_occur():
    status = np.zeros((4, 4, 1), dtype=np.int16)
    status[0, 0, 0], status[1, 0, 0], status[2, 0, 0] = 3, 6, 9  # 9 has no name
    figure = figures.status_figure(status, NAMES, LAS)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["OK", "NOT_CONVERGED", "MASKED", "code 9"]
    colours = [rendered_colour(figure.axes[0], i, 3) for i in (3, 0, 1, 2)]
    patches = [patch.get_facecolor() for patch in figure.legends[0].get_patches()]
    assert colours == [tuple(round(255 * c) for c in to_rgb(colour)) for colour in patches]
    assert len(set(colours)) == 4


def test_histogram_counts_every_valid_voxel_within_the_scale_and_tells_the_rest():
    values = np.array([0.02] * 30 + [0.06] * 45 + [0.3] * 25 + [np.nan] * 7 + [0.0] * 3)
    figure = figures.histogram_figure(values, "T2starmap")
    centres_and_heights = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars(figure)]
    heights = {round(centre): height for centre, height in centres_and_heights if height}
    assert heights == {20: 30, 60: 45}
    assert figure.axes[0].get_xlabel() == "T2* [ms]"
    assert "median 60 ms, 25 % of voxels above 100 ms" in texts(figure)


def test_values_below_a_scale_that_does_not_start_at_zero_are_said_and_pointed_at():
    b1 = np.array([0.45, 0.8, 0.9, 1.0]).reshape(2, 2, 1)
    assert "median 0.85, 25 % of voxels below 0.5" in texts(figures.histogram_figure(b1, "TB1map"))
    for values, extend in ((b1, "min"), (b1 + 0.1, "neither"), (b1 + 0.6, "max")):
        figure = figures.maps_figure({"TB1map": values}, LAS, names=("TB1map",))
        bars = [axes._colorbar for axes in figure.axes if hasattr(axes, "_colorbar")]
        assert [bar.extend for bar in bars] == [extend]


def test_histogram_of_nothing_is_empty():
    heights = [bar.get_height() for bar in bars(figures.histogram_figure(np.full(5, np.nan), "T2starmap"))]
    assert heights == [0] * len(heights) != []


def test_voxel_fit_draws_each_curve_and_its_points():
    te_ms, curve_te_ms = np.array([2.0, 10.0, 20.0]), np.linspace(0, 20, 9)
    signals, curves = np.array([[9.0, 5.0, 2.0], [7.0, 6.0, 5.0]]), np.stack([np.linspace(10, 2, 9)] * 2)
    figure = figures.voxel_fit_figure(te_ms, signals, curve_te_ms, curves, ["grey", "white"], "echo time [ms]")
    lines = figure.axes[0].lines
    np.testing.assert_array_equal(lines[1].get_xydata(), np.stack([te_ms, signals[0]], axis=1))
    np.testing.assert_array_equal(lines[2].get_xydata(), np.stack([curve_te_ms, curves[1]], axis=1))
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["grey", "white"]
    with pytest.raises(ValueError, match="one row per voxel"):
        figures.voxel_fit_figure(te_ms, signals, curve_te_ms, curves, ["grey"], "echo time [ms]")


def test_png_is_reproducible_and_carries_no_text(maps):
    first, second = (figures.png_bytes(figures.maps_figure(maps, LAS), dpi=50) for _ in range(2))
    assert first == second
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, position = [], 8
    while position < len(first):
        length, kind = int.from_bytes(first[position : position + 4], "big"), first[position + 4 : position + 8]
        chunk = first[position + 4 : position + 8 + length]
        assert zlib.crc32(chunk) == int.from_bytes(first[position + 8 + length : position + 12 + length], "big")
        kinds.append(kind)
        position += 12 + length
    assert set(kinds) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def test_shapes_from_one_voxel_to_a_list_of_voxels_can_be_drawn():
    for shape in [(1, 1, 1), (76, 1, 1), (1, 90, 2)]:
        volume = np.full(shape, 0.03)
        figure = figures.maps_figure({"T2starmap": volume}, LAS, names=("T2starmap",))
        assert rendered_colour(figure.axes[0], 0, 0) != (0, 0, 0)
        assert len(figures.png_bytes(figures.mosaic_figure(volume, "T2starmap", LAS), 40)) > 0
