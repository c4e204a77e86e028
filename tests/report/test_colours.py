"""Colours of relaxometry maps against the published recommendation (doi:10.1002/mrm.30290)."""

import math
import subprocess
import sys

import cmcrameri.cm
import numpy as np
import pytest

from jaxqmri.quantities import map_kind
from jaxqmri.report.colours import (
    colour_bar,
    colour_map,
    colour_scale,
    colours_of,
    displayed,
    log_remap,
    log_remap_inverse,
    scale_limits,
)

BLACK = (0, 0, 0, 255)
RANGES = [(0.0, 100.0), (10.0, 200.0), (400.0, 3000.0), (80.0, 100.0)]  # the last lies all above 100 / e


def seen_colours(values, name, status=None):
    """(n, 4) bytes: what a reader sees of these SI values."""
    kind = map_kind(name)
    shown = displayed(np.asarray(values), kind, status)
    return colours_of(kind)(colour_scale(shown, kind)(shown), bytes=True)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_scale_is_the_integral_of_a_density_flat_below_high_over_e_and_1_over_x_above(low, high):
    x = np.linspace(low, high, 200_001)
    density = 1 / np.maximum(x, high / math.e)
    integral = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])
    np.testing.assert_allclose(log_remap(x, low, high), integral / integral[-1], atol=1e-9)


@pytest.mark.parametrize(("low", "high"), RANGES[:3])
def test_pieces_join_at_high_over_e_with_equal_value_and_slope(low, high):
    a, h = high / math.e, 1e-4 * high
    assert log_remap(a, low, high) == pytest.approx((a - low) / (2 * a - low), rel=1e-12)
    below = (log_remap(a, low, high) - log_remap(a - h, low, high)) / h
    above = (log_remap(a + h, low, high) - log_remap(a, low, high)) / h
    assert below == pytest.approx(1 / (2 * a - low), rel=1e-9)
    assert above == pytest.approx(below, rel=2e-4)  # the logarithm bends by h / 2a within the step


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_scale_rises_everywhere_and_its_inverse_returns_the_value(low, high):
    x = np.linspace(low, 1.2 * high, 1001)
    assert np.all(np.diff(log_remap(x, low, high)) > 0)
    np.testing.assert_allclose(log_remap_inverse(log_remap(x, low, high), low, high), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "table"), [("T1map", "lipari"), ("T2map", "navia"), ("T2starmap", "navia"), ("R1map", "lipari_r")]
)
def test_ends_of_the_scale_are_the_ends_of_the_recommended_table(name, table):
    tiny, huge = seen_colours([1e-9, 1e9], name)
    reference = cmcrameri.cm.cmaps[table]
    assert tuple(tiny) == tuple(reference(0, bytes=True))
    assert tuple(huge) == tuple(reference(255, bytes=True))


@pytest.mark.parametrize("name", ["R2map", "R2starmap"])
def test_rates_run_the_table_backwards(name):
    np.testing.assert_array_equal(
        colour_map("navia", reverse=True)(np.arange(256)), cmcrameri.cm.cmaps["navia"](np.arange(256)[::-1])
    )
    slow, fast = seen_colours([1.0, 1e4], name)
    assert slow[:3].sum() > fast[:3].sum()


def test_only_values_that_are_no_values_are_black():
    t2star = [0.02, np.nan, np.inf, 0.0, -0.01, 0.02, 1e-6, 5.0]
    status = [0, 0, 0, 0, 0, 3, 0, 0]
    seen = [tuple(c) == BLACK for c in seen_colours(t2star, "T2starmap", status)]
    assert seen == [False, True, True, True, True, True, False, False]


def test_a_perfect_fit_is_not_mistaken_for_a_missing_one():
    perfect, missing = seen_colours([0.0, np.nan], "residual")
    assert tuple(missing) == BLACK
    assert tuple(perfect) != BLACK


def test_seconds_become_milliseconds_and_fractions_per_cent():
    assert displayed(np.array([0.05]), map_kind("T2starmap"))[0] == pytest.approx(50.0)
    assert displayed(np.array([0.002]), map_kind("T2starmap_stderr"))[0] == pytest.approx(2.0)
    assert displayed(np.array([0.03]), map_kind("residual"))[0] == pytest.approx(3.0)
    assert displayed(np.array([40.0]), map_kind("R2starmap"))[0] == pytest.approx(40.0)
    titles = [map_kind(name).title for name in ("T2starmap", "R2starmap", "T1map_stderr", "residual", "S0map")]
    assert titles == ["T2* [ms]", "R2* [1/s]", "T1 standard error [ms]", "relative error [%]", "S0 [a.u.]"]


def test_b1_has_a_number_without_unit_and_its_neutral_colour_at_one():
    assert map_kind("TB1map").title == "B1"
    assert displayed(np.array([0.9]), map_kind("TB1map"))[0] == pytest.approx(0.9)
    low, right, high = seen_colours([0.5, 1.0, 1.5], "TB1map")[:, :3].astype(int)
    assert np.ptp(right) < 10, "grey where the flip angle is as wanted"
    assert low[2] - low[0] > 100, "blue below"
    assert high[0] - high[2] > 100, "red above"


def test_limits_of_relaxometry_maps_do_not_depend_on_the_data():
    kind = map_kind("T2starmap")
    first = colour_scale(np.array([20.0, 30.0]), kind)
    second = colour_scale(np.array([1.0, 900.0, np.nan]), kind)
    assert first(50.0) == second(50.0) == pytest.approx(log_remap(50.0, 0.0, 100.0))


def test_signal_scale_ignores_the_brightest_half_per_cent_and_survives_an_empty_map():
    signal = np.append(np.full(999, 100.0), 1e6)
    assert scale_limits(signal, map_kind("S0map")) == (0.0, pytest.approx(100.0))
    low, high = scale_limits(np.full(4, np.nan), map_kind("S0map"))
    assert low < high


def test_neither_pyplot_nor_jax_is_imported():
    code = "import sys, jaxqmri.report; print({'matplotlib.pyplot', 'jax', 'cmcrameri'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_colour_bar_has_true_values_at_its_ticks_and_tells_of_values_beyond_it():
    kind = map_kind("T2map")
    shown = np.array([20.0, 900.0, np.nan])
    bar = colour_bar(shown, kind, colour_scale(shown, kind))
    assert bar.ticks == [(pytest.approx(100 * float(log_remap(v, 0.0, 200.0))), v) for v in (0, 50, 100, 200)]
    assert (bar.below, bar.above) == (False, True)
    table = colour_map("navia")([0.0, 1.0], bytes=True)[:, :3]
    for end, colour in zip((bar.colours[0], bar.colours[-1]), table, strict=True):  # rounded here, cut off there
        assert np.abs(np.array([int(end[i : i + 2], 16) for i in (1, 3, 5)]) - colour).max() <= 1
