"""Magnitudes below zero: no scanner measures them, but interpolation and lost sign bits make them."""

from typing import Literal

import numpy as np

from ..errors import Choose, remark
from ..quantities import Status

Negative = Literal["keep", "abs"]


def settle_negative(data: np.ndarray, n_negative: int, component: str, negative: Negative) -> None:
    """Remarks on negative values among magnitudes (x, y, z, n) and, with "abs", takes their absolute values in place.

    Kept, they are fitted as they are, as the real part of the signal.
    """
    if n_negative == 0 or component != "magnitude":
        return
    found = f"{n_negative} of {data.size} magnitude values ({100 * n_negative / data.size:.3g} %) are negative"
    if negative == "keep":
        remark(
            f"{found} and are fitted as they are: where one is below zero by more than a tenth of the largest of its "
            f"voxel, its status is {Status.NEGATIVE_MAGNITUDE.name}: T2 of echo trains and T1 of inversion recoveries "
            "have no answer. ", Choose("negative", "abs"),
            " to fit absolute values or, if these are real or phase images, give the magnitudes.",
        )  # fmt: skip
        return
    for k in range(data.shape[-1]):  # one by one: images as large as the memory are mapped from a file
        np.abs(data[..., k], out=data[..., k])
    remark(f"{found}; their absolute values are fitted, as asked for.")
