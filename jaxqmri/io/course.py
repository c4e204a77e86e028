"""What the course of the signal over the images tells: images computed of the others, and values in another order."""

import numpy as np

from ..errors import Give, Part, UsageError, remark
from ..quantities import ECHO_TIME, FLIP_ANGLE, INVERSION_TIME, SPIN_LOCK_TIME, Axis
from .storage.memory import middle_slab

STRONG = 0.3  # of the largest signals: voxels of an object, well above noise
FEWEST_VOXELS, ENOUGH_VOXELS = 30, 10_000
OFF_CURVE = 0.01  # of the signal: by less, an image changes a T2 by less than 0.5 %
LEAST_STEPS = 100  # between 0 and the largest signals; images of fewer agree by chance
IMPOSSIBLE = 0.3  # of the range of a voxel that runs against its course; noise stays below
IMPOSSIBLE_WITH_FAT = 0.5  # the same over the echo time
VISIBLE = 0.2  # of its largest signal: the range of a voxel whose course can be seen


def strong_signals(data: np.ndarray) -> np.ndarray:
    """(voxel, n) float64, some of the voxels of (x, y, z, n) images whose signal is strong."""
    some = middle_slab(data)
    step = max(round((some[..., 0].size / (10 * ENOUGH_VOXELS)) ** (1 / 3)), 1)  # before anything is copied
    some = some[::step, ::step, ::step].reshape(-1, data.shape[-1])
    some = some[np.isfinite(some).all(axis=-1)].astype(np.float64)
    if not some.size:
        return some
    size = np.abs(some).max(axis=-1)
    some = some[(size > 0) & (size >= STRONG * np.percentile(size, 98))]
    return some[:: max(len(some) // ENOUGH_VOXELS, 1)]


def computed_of_the_others(signals: np.ndarray, values: np.ndarray) -> tuple[int, str] | None:
    """Which of the images (voxel, n) at `values` (n,) is a combination of all others, as MEDIC and MERGE store one
    beside the echoes, and which; None: none is.

    It is so to rounding, which the noise of an image of its own is not, and lies off the curve of its neighbours.
    """
    n = signals.shape[1]
    if n < 3 or len(signals) < FEWEST_VOXELS:
        return None
    size, step = float(np.percentile(np.abs(signals), 98)), _step(signals)
    if not 0 < LEAST_STEPS * step <= size:
        return None
    mean = (signals.sum(axis=-1, keepdims=True) - signals) / (n - 1)
    rms = np.sqrt(np.maximum(np.sum(signals**2, axis=-1, keepdims=True) - signals**2, 0) / (n - 1))
    for name, combined, total in (("mean", mean, "sum"), ("root mean square", rms, "root sum of squares")):
        factors = np.median(signals / np.maximum(combined, step), axis=0)
        of_total = float(n - 1) if combined is mean else np.sqrt(n - 1)
        off = [_off(signals[:, k], factors[k] * combined[:, k]) for k in range(n)]
        for k in range(n):
            known = {1.0: name, of_total: total}
            exact = [f for f in known if _off(signals[:, k], f * combined[:, k]) <= step * max(f / np.sqrt(n - 1), 1)]
            alone = off[k] <= step and np.median(np.delete(off, k)) > 5 * step  # scaled by some factor
            if (exact or alone) and _are_measured(signals, values, k, step) and _is_off_curve(signals, values, k, step):
                return k, known[exact[0]] if exact else f"scaled {name}"
    return None


def _step(signals: np.ndarray) -> float:
    """Between neighbouring stored values [a.u.]: the largest of any image."""
    steps = [float(np.diff(of_image).min()) for image in signals.T if len(of_image := np.unique(image)) > 1]
    whole = bool(np.all(signals == np.round(signals)))
    smallest = 1.0 if whole else float(np.finfo(np.float32).eps) * float(np.abs(signals).max())
    return max([smallest, *steps])


def _off(image: np.ndarray, other: np.ndarray, per_cent: float = 95) -> float:
    return float(np.percentile(np.abs(image - other), per_cent))


def _are_measured(signals: np.ndarray, values: np.ndarray, k: int, step: float) -> bool:
    """Whether the other images are such as no rule makes: with noise, or contrast, of their own; or all decay alike."""
    others = np.delete(signals, k, axis=1)
    first, last = others[:, 0], others[:, -1]
    if np.ptp(last) > 0 and _off(first, np.polyval(np.polyfit(last, first, 1), last), 75) > 5 * step:
        return True
    typical = np.log(np.maximum(np.median(others, axis=0), step))
    times = np.delete(values, k)
    return len(times) > 2 and _off(typical, np.polyval(np.polyfit(times, typical, 1), times)) < OFF_CURVE


def _is_off_curve(signals: np.ndarray, values: np.ndarray, k: int, step: float) -> bool:
    """Whether an image is not what exponentials through the two next to it give."""
    others = [i for i in np.argsort(np.abs(values - values[k])) if i != k]
    left, right = min(others[:2]), max(others[:2])
    if 0 < k < len(values) - 1:
        left, right = k - 1, k + 1
    share = (values[k] - values[left]) / (values[right] - values[left])
    there = np.maximum(signals[:, [left, right]], 1e-3 * signals.max())
    expected = there[:, 0] ** (1 - share) * there[:, 1] ** share
    off = np.abs(signals[:, k] - expected)
    return bool(np.median(off) > 3 * step and np.median(off / expected) > OFF_CURVE)


def check_given_order(signals: np.ndarray, axis: Axis, given: np.ndarray, signed: bool) -> None:
    """Refuses given values whose order no tissue could have; `signals` (voxel, n) are in ascending order of them.

    Gradient echoes of fat and water rise and fall, so of echo times it is a remark.
    """
    # Where they rise on the whole there is no T2 to be found, which is told.
    is_empty = axis is ECHO_TIME and np.median(signals[:, -1:] - signals[:, :1]) > 0
    most = IMPOSSIBLE_WITH_FAT if axis is ECHO_TIME else IMPOSSIBLE
    if is_empty or _against_its_course(signals, axis, signed) <= most:
        return
    order = f"the {axis.terms} in the order in which the images were measured or are listed"
    if axis in (ECHO_TIME, SPIN_LOCK_TIME):
        place = np.argsort(np.argsort(given))  # of each image among the values
        brighter = np.argsort(np.argsort(-np.mean(signals, axis=0)[place]))
        order += f" (by their brightness {axis.listed(np.sort(given)[brighter], ' ')} {axis.shown_unit})"
    parts: list[Part] = [
        f"the signal runs otherwise with the given {axis.terms}, {axis.listed(given)} {axis.shown_unit}, than that of "
        "any tissue, as if the images came in another order; ", Give(axis.name, order), ".",
    ]  # fmt: skip
    if axis is ECHO_TIME:
        remark(*parts)
    else:
        raise UsageError(*parts)


def _against_its_course(signals: np.ndarray, axis: Axis, signed: bool) -> float:
    """The share of its range by which the typical voxel runs against the course of any tissue.

    Decays fall; the recovery from an inversion rises, its magnitude after a fall; with the flip angle a signal falls
    after a rise.
    """
    step = np.diff(signals, axis=-1)
    rises, falls = np.maximum(step, 0), np.maximum(-step, 0)
    if axis is INVERSION_TIME and signed:
        against = np.minimum(rises.sum(axis=-1), falls.sum(axis=-1))  # of either sign
    elif axis in (INVERSION_TIME, FLIP_ANGLE):
        against = against_a_valley(signals if axis is INVERSION_TIME else -signals)
    elif axis in (ECHO_TIME, SPIN_LOCK_TIME):
        against = rises.sum(axis=-1)
    else:
        return 0.0
    extent = np.ptp(signals, axis=-1)
    visible = extent > VISIBLE * np.abs(signals).max(axis=-1)
    if np.mean(visible) < 0.5:  # an object whose signal hardly changes
        return 0.0
    return float(np.median(against[visible] / extent[visible]))


def against_a_valley(signals: np.ndarray) -> np.ndarray:
    """(...,) by how much signals (..., n) fail to fall first and then rise, from any image on."""
    step = np.diff(signals, axis=-1)
    rises, falls = np.maximum(step, 0), np.maximum(-step, 0)
    before = np.insert(np.cumsum(rises, axis=-1), 0, 0, axis=-1)
    behind = falls.sum(-1, keepdims=True) - np.insert(np.cumsum(falls, axis=-1), 0, 0, axis=-1)
    return (before + behind).min(axis=-1)
