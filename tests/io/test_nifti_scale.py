"""Values of Philips NIfTI files become comparable between images, or are refused.

Expected are FP = DV / (RS SS) of Chenevert et al., Transl Oncol 7:65 (2014), for stored values SV and DV = SV RS + RI.
"""

import warnings

import numpy as np
import pytest
from nifti_files import SHAPE, edit, patch_header, save

from jaxqmri.errors import CorruptInputError, InputWarning
from jaxqmri.io.nifti.reader import read_nifti

STORED = np.array([2000, 1500, 700, 300])
RS, RI, SS = np.array([1.1, 0.9, 1.6, 1.1]), np.array([0.0, 5.0, -10.0, 0.0]), np.array([0.4, 0.9, 0.65, 0.4])
DISPLAYED = STORED * RS + RI
COMPARABLE = DISPLAYED / (RS * SS)
SLOPES = {  # of the header, intercept
    "displayed": (RS, RI),
    "comparable": (1 / SS, RI / (RS * SS)),
    "real world": (3 * RS, 0 * RS),
    "stored": (0 * RS + 1, 0 * RS),
    "zero": (0 * RS, 0 * RS),
    "not a number": (np.nan * RS, 0 * RS),
}


def scan(folder, kinds, te=(0.005, 0.010, 0.020, 0.040), dtype=np.int16, rs=RS, ri=RI, ss=SS, **more):
    folder.mkdir(exist_ok=True)
    for k, kind in enumerate(kinds):
        keys = {"PhilipsRescaleSlope": rs[k], "PhilipsRescaleIntercept": ri[k], "PhilipsScaleSlope": ss[k]}
        keys |= {"PhilipsRWVSlope": 3 * rs[k], "PhilipsRWVIntercept": 0, "UsePhilipsFloatNotDisplayScaling": 1}
        sidecar = {"EchoTime": te[k], "SeriesNumber": 1, **keys, **more}
        path = save(folder / f"e{k}.nii", np.full(SHAPE, STORED[k], dtype), sidecar=sidecar)
        slope, intercept = SLOPES[kind]
        patch_header(path, 112, np.array([slope[k], intercept[k]], "<f4").tobytes())
    return folder


def read(folder):
    return read_nifti(folder).data[0, 0, 0]


@pytest.mark.parametrize(
    "kinds",
    [
        ["displayed"] * 4,
        ["real world"] * 4,
        ["stored"] * 4,
        ["displayed", "comparable", "stored", "real world"],
        ["displayed", "not a number", "displayed", "zero"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("flag", [0, 1])
def test_by_their_slopes_they_become_comparable_whatever_the_flag_says(tmp_path, kinds, flag):
    with pytest.warns(InputWarning, match="made comparable by the PhilipsScaleSlope"):
        found = read(scan(tmp_path, kinds, UsePhilipsFloatNotDisplayScaling=flag))
    np.testing.assert_allclose(found, COMPARABLE, rtol=1e-6)


def test_what_is_comparable_stays_as_it_is_without_a_word(tmp_path, recwarn):
    np.testing.assert_allclose(read(scan(tmp_path / "a", ["comparable"] * 4)), COMPARABLE, rtol=1e-6)
    alike = {"rs": RS[[0] * 4], "ri": RI[[0] * 4], "ss": SS[[0] * 4]}
    factor = scan(tmp_path / "b", ["stored"] * 4, **alike)
    np.testing.assert_array_equal(read(factor), STORED)
    saved_again = scan(tmp_path / "c", ["stored"] * 4, dtype=np.float32, **alike)
    np.testing.assert_array_equal(read(saved_again), STORED)
    assert not [w for w in recwarn if issubclass(w.category, InputWarning)]


def test_values_saved_again_under_an_old_sidecar_are_refused(tmp_path):
    scan(tmp_path, ["stored"] * 4, dtype=np.float32)
    with pytest.raises(CorruptInputError, match=r"slope 1 is not in .*take the keys that begin with Philips"):
        read(tmp_path)
    for path in tmp_path.glob("*.json"):
        keys = ("PhilipsRescaleSlope", "PhilipsRescaleIntercept", "PhilipsScaleSlope", "PhilipsRWVSlope")
        edit(tmp_path, path.stem, **dict.fromkeys(keys, ...))
    np.testing.assert_array_equal(read(tmp_path), STORED)


def test_displayed_values_without_a_scale_slope_are_refused_where_their_scales_differ(tmp_path):
    scan(tmp_path, ["displayed"] * 4, PhilipsScaleSlope=None)
    with pytest.raises(CorruptInputError, match=r"e0\.nii: .*PhilipsScaleSlope is missing"):
        read(tmp_path)
    bare = {"PhilipsRescaleSlope": None, "PhilipsScaleSlope": None, "PhilipsRWVSlope": None}
    scan(tmp_path, ["displayed"] * 4, **bare, Manufacturer="Philips")
    with pytest.warns(InputWarning, match="Philips images of different slopes whose sidecars lack PhilipsScaleSlope"):
        np.testing.assert_allclose(read(tmp_path), DISPLAYED, rtol=1e-6)
    for k in range(4):  # as DICOM files of several series are
        edit(tmp_path, f"e{k}", SeriesNumber=k)
    words = r"several series with different slopes .*convert them again"
    with pytest.warns(InputWarning, match="joined"), pytest.raises(CorruptInputError, match=words):
        read(tmp_path)


def test_scales_of_each_volume_are_refused(tmp_path):
    sidecar = {"EchoTime": [0.005, 0.010], "PhilipsRescaleSlope": [1.1, 0.9], "PhilipsScaleSlope": [0.4, 0.9]}
    path = save(tmp_path / "a.nii", np.ones((*SHAPE, 2), np.int16), sidecar=sidecar)
    with pytest.raises(CorruptInputError, match="Philips scales for each of its volumes"):
        read_nifti(path)


@pytest.mark.parametrize("kind", ["zero", "not a number"])
def test_an_image_without_a_slope_among_scaled_ones_is_refused(tmp_path, kind):
    bare = {"PhilipsRescaleSlope": None, "PhilipsScaleSlope": None, "PhilipsRWVSlope": None}
    scan(tmp_path, ["displayed", kind, "displayed", "displayed"], **bare)
    with pytest.raises(CorruptInputError, match=r"e1\.nii and e0\.nii: scl_slope in the header is 0 or no number"):
        read(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read(scan(tmp_path, ["stored", kind, "stored", kind], **bare)), STORED)
