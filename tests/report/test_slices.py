"""Cuts along three planes show the right voxels, on the right side, in the colours of the map."""

import io
import itertools

import numpy as np
import pytest
from nibabel.affines import apply_affine
from PIL import Image

from jaxqmri.quantities import MAP_KINDS
from jaxqmri.report.colours import colour_map, colour_scale, displayed, indexed, log_remap
from jaxqmri.report.slices import fullest_slice, plane_sheets, radiological_view, slice_sheet

T2 = MAP_KINDS["T2map"]
LAS = np.diag([-2.0, 2.0, 2.0, 1.0])  # as dcm2niix writes an axial scan


def orientations():
    """All 48 ways in which voxel axes can lie along the patient's axes, slightly tilted."""
    tilt = np.deg2rad(7)
    rotation = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1, -1], repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = rotation @ np.diag(signs)[:, order] * [1.0, 2.0, 3.0]
            yield affine


def cuts(values, affine=LAS, **options):
    """Sheets of a map of T2 [ms]."""
    return plane_sheets(*indexed(values, T2, colour_scale(values, T2)), affine, **options)


def pixels(sheet):
    return np.asarray(Image.open(io.BytesIO(sheet.png)).convert("RGB"))


@pytest.mark.parametrize("affine", list(orientations()))
def test_any_storage_order_is_shown_as_a_radiologist_holds_it(affine):
    shape = (4, 5, 3)
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))[:, :, 1]  # (x, y, RAS)
    view = radiological_view(affine)
    right, anterior, superior = (view(world[..., i]) for i in range(3))
    across, up = view.letters[:2], view.letters[2:]
    leftward = {("R", "L"): right, ("A", "P"): anterior}[across]  # falls from the left edge to the right one
    upward = {("A", "P"): anterior, ("S", "I"): superior}[up]
    assert np.all(np.diff(leftward, axis=1) < 0)
    assert np.all(np.diff(upward, axis=0) < 0)


def test_dcm2niix_slice_is_transposed_with_its_last_row_on_top(rng):
    stored = rng.random((4, 5))
    np.testing.assert_array_equal(radiological_view(LAS)(stored), stored.T[::-1])


def test_a_singular_affine_is_refused():
    with pytest.raises(ValueError, match="singular"):
        radiological_view(np.diag([2.0, 0.0, 5.0, 1.0]))


def test_the_slice_with_most_values_is_shown_and_the_middle_one_of_equals():
    volume = np.zeros((4, 4, 5))
    assert fullest_slice(volume) == 2
    volume[:2, :, 4] = 1.0
    assert fullest_slice(volume) == 4
    volume[:2, :, 1] = 1.0
    assert fullest_slice(volume) == 1


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_right_is_left_and_anterior_or_superior_on_top_in_every_plane(plane, axis):
    # x runs to the left, y to the front, z upwards.
    sides = {"R": (0, 0), "L": (0, -1), "A": (1, -1), "P": (1, 0), "S": (2, -1), "I": (2, 0)}
    volume = np.full((8, 8, 8), 0.001)
    sheet = next(s for s in cuts(volume, max_slices=1) if s.plane == plane)
    assert sheet.axis == "xyz"[axis]
    for letter, edge in zip(sheet.letters, (np.s_[:, 0], np.s_[:, -1], np.s_[0, :], np.s_[-1, :]), strict=True):
        marked = volume.copy()
        side, at = sides[letter]
        marked[(slice(None),) * side + (at,)] = 150.0
        seen = pixels(next(s for s in cuts(marked, max_slices=1) if s.plane == plane))
        inner = pixels(sheet)[2, 2]
        assert np.all(np.any(seen[edge] != inner, axis=-1)), letter
        assert np.array_equal(seen[seen.shape[0] // 2, seen.shape[1] // 2], inner)


def test_voxels_without_a_value_are_black_and_others_have_the_colour_of_their_value():
    values = np.full((4, 4, 4), 0.05)
    values[0, 0, :] = np.nan
    values[3, 0, :] = 1.0  # beyond the scale
    sheet = cuts(displayed(values, T2), max_slices=1)[0]
    seen = pixels(sheet)
    assert seen.shape == (4, 4, 3)
    assert seen[3, 0].tolist() == [0, 0, 0]
    table = colour_map("navia")(np.linspace(0, 1, 256), bytes=True)[:, :3].astype(int)
    for pixel, place in ((seen[0, 0], float(log_remap(50.0, 0.0, 200.0))), (seen[3, 3], 1.0)):
        assert np.abs(table[round(255 * place)] - pixel).max() <= 4  # neighbouring colours of 256 differ by 2


def test_only_the_part_with_values_is_shown_and_the_positions_are_those_of_the_voxels():
    values = np.full((40, 30, 20), np.nan)
    values[10:20, 5:25, 8:12] = 50.0
    axial, coronal, sagittal = cuts(values, max_slices=3)
    assert [s.plane for s in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    assert axial.positions == (7, 10, 12)  # middles of three parts of 6 to 13: the values and two voxels more
    assert (coronal.axis, sagittal.axis) == ("y", "x")
    for sheet, part in ((axial, (14, 24)), (coronal, (14, 8)), (sagittal, (24, 8))):
        assert sheet.width % (part[0] + 3) == part[0], "pictures of the part, with gaps between them"
        assert sheet.height % (part[1] + 3) == part[1]


def test_pictures_have_the_proportions_of_the_patient():
    thick = np.diag([-1.0, 1.0, 6.0, 1.0])
    sheets = cuts(np.full((20, 30, 5), 50.0), thick, max_slices=1)
    assert [(s.width, s.height) for s in sheets] == [(20, 30), (20, 30), (30, 30)]


def test_a_stripe_is_no_picture_and_one_slice_has_none_but_its_own_plane():
    assert [s.plane for s in cuts(np.full((20, 30, 3), 50.0))] == ["axial"]
    assert cuts(np.full((20, 30, 1), 50.0)) == []


def test_a_volume_without_any_value_is_all_black():
    assert not any(pixels(sheet).any() for sheet in cuts(np.full((6, 6, 6), np.nan)))


def test_a_sheet_is_the_slices_in_the_colours_of_the_map(rng):
    values = rng.uniform(10, 100, (5, 4, 2)).astype(np.float32)
    values[0, 0, 0] = np.nan
    sheet = slice_sheet(*indexed(values, T2, colour_scale(values, T2)), LAS)
    width, height = (round(sheet.tile[i] * size / 100) for i, size in enumerate((sheet.width, sheet.height)))
    assert (width, height, sheet.positions) == (5, 4, (0, 1))
    expected = colour_map("navia")(log_remap(values, 0.0, 200.0), bytes=True)[..., :3].astype(int)
    seen = pixels(sheet).astype(int)
    for k, (left, top) in enumerate(sheet.places):
        column, row = round(left * sheet.width / 100), round(top * sheet.height / 100)
        tile = seen[row : row + height, column : column + width]
        assert np.abs(tile - np.swapaxes(expected[:, :, k], 0, 1)[::-1]).max() <= 4
    assert seen[3, 0].tolist() == [0, 0, 0]


def test_a_sheet_of_many_slices_is_reduced_to_its_width(rng):
    sheet = slice_sheet(rng.integers(0, 9, (256, 192, 30), np.uint8), bytes(range(27)), LAS, widest=300)
    assert 290 <= sheet.width <= 300 + 3 * 30
    assert pixels(sheet).shape[:2] == (sheet.height, sheet.width)


@pytest.mark.parametrize("shape", [(1, 1, 1), (76, 1, 1), (1, 90, 2)])
def test_shapes_from_one_voxel_to_a_list_of_voxels_can_be_drawn(shape):
    sheet = slice_sheet(np.ones(shape, np.uint8), bytes([0, 0, 0, 9, 9, 9]), LAS)
    assert pixels(sheet)[0, 0].tolist() == [9, 9, 9]
