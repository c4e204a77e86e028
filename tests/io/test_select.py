"""Some images of a series: which are kept, and what is still known of the others."""

import numpy as np
import pytest

import jaxqmri as jq
from jaxqmri.errors import UsageError

TE = np.array([0.01, 0.02, 0.03, 0.04, 0.05])
DATA = np.arange(2 * 3 * 1 * 5, dtype=np.float32).reshape(2, 3, 1, 5)
SERIES = jq.ImageSeries.from_arrays(DATA, te=TE)


@pytest.mark.parametrize(
    ("which", "kept"),
    [
        (slice(1, None), [1, 2, 3, 4]),
        ([0, 2, 4], [0, 2, 4]),
        ([4, 0, 1, 0], [0, 1, 4]),
        (TE > 0.015, [1, 2, 3, 4]),
        ([-1, -2], [3, 4]),
    ],
    ids=["slice", "steps", "any order", "mask", "from the end"],
)
def test_images_are_selected_with_their_values(which, kept):
    found = SERIES.select(which)
    np.testing.assert_array_equal(found.data, DATA[..., kept])
    np.testing.assert_array_equal(found.te, TE[kept])
    assert found.whole.series is SERIES
    np.testing.assert_array_equal(np.flatnonzero(found.whole.used), kept)


def test_steps_are_a_view_and_a_selection_of_a_selection_remembers_all_images():
    some = SERIES.select(slice(1, None))
    assert np.shares_memory(some.data, SERIES.data)
    fewer = some.select([0, 1, 3])
    assert fewer.whole.series is SERIES
    np.testing.assert_array_equal(fewer.whole.used, [False, True, True, False, True])
    assert SERIES.select(slice(None)).selection is None


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ([], r"leaves 0 of the 5 echoes of 10, 20, 30, 40, 50 ms; at least 2"),
        (3, "leaves 1 of the 5 echoes"),
        ([1, 5], r"does not fit the 5 echoes of .* ms, counted from 0 to 4: .*5"),
        ([True, False], "does not fit the 5 echoes"),
        ([0.01, 0.02], r"indices from 0, a slice or a mask of the 5 echoes .*; got float64 \[0.01, 0.02\]"),
    ],
)
def test_what_cannot_be_selected_is_one_line_that_says_what_there_is(which, words):
    with pytest.raises(UsageError, match=words) as refused:
        SERIES.select(which)
    assert "\n" not in str(refused.value)


def test_a_voxel_that_was_clipped_in_an_image_left_out_is_clipped_no_more():
    images = np.ones((2, 3, 1, 5), np.float32)
    images[0, :, 0, 0] = 100  # of the first echo alone
    images[1, :, 0, :] = 100  # of all echoes
    series = jq.ImageSeries.from_arrays(images, te=TE, saturated=np.ones((2, 3, 1), bool))
    np.testing.assert_array_equal(series.select(slice(1, None)).clipped[..., 0], [[False] * 3, [True] * 3])
    assert series.clipped.all()
