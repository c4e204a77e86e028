"""Pictures show the right voxel, on the right side, in the right colour and unit."""

import zlib

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from jaxqmri.report import figures
from jaxqmri.report.colours import colour_map, log_remap

LAS = np.diag([-2.0, 2.0, 5.0, 1.0])  # as dcm2niix writes an axial scan


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


def test_a_map_that_is_not_there_is_named(maps):
    with pytest.raises(ValueError, match="T1map"):
        figures.maps_figure(maps, LAS, names=("T1map",))


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


def test_voxel_fit_draws_its_curve_and_its_points_above_a_line_at_zero():
    te_ms, curve_te_ms = np.array([2.0, 10.0, 20.0]), np.linspace(0, 20, 9)
    signal, curve = np.array([9.0, 5.0, -2.0]), np.linspace(10, 2, 9)
    axes = figures.voxel_fit_figure(te_ms, signal, curve_te_ms, curve, "echo time [ms]").axes[0]
    fitted, measured, zero = axes.lines
    np.testing.assert_array_equal(fitted.get_xydata(), np.stack([curve_te_ms, curve], axis=1))
    np.testing.assert_array_equal(measured.get_xydata(), np.stack([te_ms, signal], axis=1))
    assert fitted.get_color() == measured.get_color()
    assert set(zero.get_ydata()) == {0.0}
    assert axes.get_xlabel() == "echo time [ms]"
    assert axes.get_ylim()[0] < -2


def test_points_that_a_fit_leaves_out_are_hollow():
    x, used = np.array([1.0, 2.0, 3.0]), np.array([False, True, True])
    (axes,) = figures.voxel_fit_figure(x, x, x, x, "echo time [ms]", used).axes
    _, filled, hollow = axes.lines
    assert (list(filled.get_xdata()), filled.get_markerfacecolor()) == ([2.0, 3.0], figures.BLUE)
    assert (list(hollow.get_xdata()), hollow.get_markerfacecolor()) == ([1.0], "white")


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
