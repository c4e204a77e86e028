"""Cuts along three planes show the right voxels, on the right side, in the colours of the map."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxqmri.report.colours import colour_map, displayed, log_remap, map_style
from jaxqmri.report.planes import colour_stops, plane_sheets

T2 = map_style("T2map")
LAS = np.diag([-2.0, 2.0, 2.0, 1.0])  # as dcm2niix writes an axial scan


def pixels(sheet):
    return np.asarray(Image.open(io.BytesIO(sheet.png)).convert("RGB"))


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_right_is_left_and_anterior_or_superior_on_top_in_every_plane(plane, axis):
    # x runs to the left, y to the front, z upwards.
    sides = {"R": (0, 0), "L": (0, -1), "A": (1, -1), "P": (1, 0), "S": (2, -1), "I": (2, 0)}
    volume = np.full((8, 8, 8), 0.001)
    sheet = next(s for s in plane_sheets(volume, T2, LAS, max_cuts=1) if s.plane == plane)
    assert sheet.axis == "xyz"[axis]
    for letter, edge in zip(sheet.letters, (np.s_[:, 0], np.s_[:, -1], np.s_[0, :], np.s_[-1, :]), strict=True):
        marked = volume.copy()
        side, at = sides[letter]
        marked[(slice(None),) * side + (at,)] = 150.0
        seen = pixels(next(s for s in plane_sheets(marked, T2, LAS, max_cuts=1) if s.plane == plane))
        inner = pixels(sheet)[2, 2]
        assert np.all(np.any(seen[edge] != inner, axis=-1)), letter
        assert np.array_equal(seen[seen.shape[0] // 2, seen.shape[1] // 2], inner)


def test_voxels_without_a_value_are_black_and_others_have_the_colour_of_their_value():
    values = np.full((4, 4, 4), 0.05)
    values[0, 0, :] = np.nan
    values[3, 0, :] = 1.0  # beyond the scale
    sheet = plane_sheets(displayed(values, T2), T2, LAS, max_cuts=1)[0]
    seen = pixels(sheet)
    assert seen.shape == (4, 4, 3)
    assert seen[3, 0].tolist() == [0, 0, 0]
    table = colour_map("navia")(np.linspace(0, 1, 256), bytes=True)[:, :3].astype(int)
    for pixel, place in ((seen[0, 0], float(log_remap(50.0, 0.0, 200.0))), (seen[3, 3], 1.0)):
        assert np.abs(table[round(255 * place)] - pixel).max() <= 4  # neighbouring colours of 256 differ by 2


def test_only_the_part_with_values_is_shown_and_the_positions_are_those_of_the_voxels():
    values = np.full((40, 30, 20), np.nan)
    values[10:20, 5:25, 8:12] = 50.0
    axial, coronal, sagittal = plane_sheets(values, T2, LAS, max_cuts=3)
    assert [s.plane for s in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    assert axial.positions == (7, 10, 12)  # middles of three parts of 6 to 13: the values and two voxels more
    assert (coronal.axis, sagittal.axis) == ("y", "x")
    for sheet, part in ((axial, (14, 24)), (coronal, (14, 8)), (sagittal, (24, 8))):
        assert sheet.width % (part[0] + 3) == part[0], "pictures of the part, with gaps between them"
        assert sheet.height % (part[1] + 3) == part[1]


def test_pictures_have_the_proportions_of_the_patient():
    thick = np.diag([-1.0, 1.0, 6.0, 1.0])
    sheets = plane_sheets(np.full((20, 30, 5), 50.0), T2, thick, max_cuts=1)
    assert [(s.width, s.height) for s in sheets] == [(20, 30), (20, 30), (30, 30)]


def test_a_stripe_is_no_picture_and_one_slice_has_none_but_its_own_plane():
    assert [s.plane for s in plane_sheets(np.full((20, 30, 3), 50.0), T2, LAS)] == ["axial"]
    assert plane_sheets(np.full((20, 30, 1), 50.0), T2, LAS) == []


def test_a_volume_without_any_value_is_all_black():
    assert not any(pixels(sheet).any() for sheet in plane_sheets(np.full((6, 6, 6), np.nan), T2, LAS))


def test_colour_bar_runs_from_the_first_to_the_last_colour_of_the_table():
    ends = colour_stops(T2, 2)
    table = colour_map("navia")([0.0, 1.0], bytes=True)[:, :3]
    for end, colour in zip(ends, table, strict=True):  # rounded here, cut off there
        assert np.abs(np.array([int(end[i : i + 2], 16) for i in (1, 3, 5)]) - colour).max() <= 1
