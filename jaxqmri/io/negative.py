"""Magnitudes below zero: no scanner measures them, but interpolation, lost sign bits and full integers make them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..errors import Choose, remark
from ..quantities import FLIP_ANGLE, INVERSION_TIME, Axis, Status
from .course import ENOUGH_VOXELS, against_a_valley
from .storage.memory import middle_slab

Negative = Literal["keep", "abs"]
NEGATIVE_SHARE = 0.05  # of the values of an image: more are no ringing of an interpolated magnitude image


def settle_negative(
    data: np.ndarray, saturated: np.ndarray, n_negative: int, negative: Negative, axis: Axis, wraps: Sequence[float]
) -> None:
    """Remarks on negative values among magnitudes (x, y, z, n) and, with "abs", takes their absolute values in place.

    Kept, they are fitted as they are, as the real part of the signal. Unsigned integers that were saved as signed ones
    get back what that took off each image, `wraps` (n,) [a.u.], 0 where it cannot be, and `saturated` (x, y, z) is made
    anew.
    """
    if n_negative == 0:
        return
    found = f"{n_negative} of {data.size} magnitude values ({100 * n_negative / data.size:.3g} %) are negative"
    images = [data[..., k] for k in range(data.shape[-1])]  # one by one: large ones are mapped from a file
    if all(wraps) and _are_wrapped(middle_slab(data), np.array(wraps), axis):
        saturated[...] = False
        for image, wrap in zip(images, wraps, strict=True):
            image[image < 0] += np.float32(wrap)
            saturated |= image == np.float32(wrap) * np.float32(1 - 2**-16)
        remark(f"{found}: unsigned integers that were saved as signed ones, as the course of the signal shows; mended.")
    elif negative == "abs":
        for image in images:
            np.abs(image, out=image)
        remark(f"{found}; their absolute values are fitted, as asked for.")
    elif axis is INVERSION_TIME and has_signs(data):
        remark(
            f"{found}, many of them at the first inversion time, so these are taken for real images, whose sign is "
            "fitted. ", Choose("component", "real"), " to say so, or ", Choose("negative", "abs"),
            " if they are magnitudes.",
        )  # fmt: skip
    else:
        remark(
            f"{found} and are fitted as they are: where one is below zero by more than a tenth of the largest of its "
            f"voxel, its status is {Status.NEGATIVE_MAGNITUDE.name}: T2 of echo trains and T1 of inversion recoveries "
            "have no answer. ", Choose("negative", "abs"),
            " to fit absolute values or, if these are real or phase images, give the magnitudes.",
        )  # fmt: skip


def has_signs(data: np.ndarray) -> bool:
    """Whether (x, y, z, n) images at ascending inversion times are real ones: many values of the first are negative."""
    first = data[..., 0]
    if np.mean(first < 0) <= NEGATIVE_SHARE:  # spares most a sorted copy of all images
        return False
    some = middle_slab(data)
    size = np.nanpercentile(np.abs(some), 98) if np.any(np.isfinite(some)) else 0.0
    return bool(np.mean(first < -0.1 * size) > NEGATIVE_SHARE)


def _are_wrapped(some: np.ndarray, wraps: np.ndarray, axis: Axis) -> bool:
    """Whether signals (..., n) with negative values run as they should with `wraps` (n,) added, and not without.

    Decays fall; the magnitude of an inversion recovery falls and then rises, its real part rises; over the flip angle a
    signal takes the shorter way.
    """
    negative = np.any(some < 0, axis=-1)
    if np.mean(negative) < NEGATIVE_SHARE and -some.min() < 0.1 * some.max():  # ringing of an interpolated image
        return False
    signals = some[negative]
    signals = signals[:: max(len(signals) // ENOUGH_VOXELS, 1)].astype(np.float64)
    stored = signals * (2**16 / wraps)
    if np.any(np.abs(stored) > 2**15) or np.any(np.abs(stored - np.round(stored)) > 0.01):  # no integers of 16 bits
        return False
    whole = np.where(signals < 0, signals + wraps, signals)
    if axis is INVERSION_TIME:
        return 2 * np.sum(against_a_valley(whole)) < np.sum(np.maximum(-np.diff(signals, axis=-1), 0))
    shorter = bool(np.sum(np.abs(np.diff(whole, axis=-1))) < np.sum(np.abs(np.diff(signals, axis=-1))))
    if axis is FLIP_ANGLE:
        return shorter
    rise, other = (np.sum(np.maximum(np.diff(s, axis=-1), 0)) for s in (whole, np.abs(signals)))
    return bool(rise < other or (rise == other and shorter))
