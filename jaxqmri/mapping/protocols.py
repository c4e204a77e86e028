"""What the files say about the pulse sequence, and what has to be assumed, as signal models."""

import warnings

import numpy as np

from ..errors import InputWarning, MetadataError, UsageError
from ..io.series import EARLIEST_SPIN_ECHO, ImageSeries, echo_train
from ..io.storage.memory import middle_slab
from ..models.fse import FSE
from ..models.recovery import InversionRecovery
from ..models.spoiled import SpoiledGradientEcho

LONGEST_GRADIENT_ECHO_TR = 2.0  # s; spoiled gradient echoes of several flip angles are repeated in milliseconds
NEGATIVE_SHARE = 0.05  # of the values of an image: more are no ringing of an interpolated magnitude image


def spin_echo_train(series: ImageSeries, flip_angle: float | None) -> tuple[FSE, str]:
    """The train that made the images.

    Args:
        series: images of a multi-echo spin echo.
        flip_angle: nominal refocusing angle [rad]; None: the FlipAngle of the images if it is above 90 degrees (some
            scanners state the refocusing, most the excitation there), else 180 degrees.

    Returns:
        The signal model, and in words where its refocusing angle comes from.

    Raises:
        MetadataError: the echoes are not those of one train.
        UsageError: `flip_angle` cannot be meant.
    """
    train = echo_train(series.te, series.description or "the series")
    angle, source = _refocusing_angle(series, flip_angle)
    n = train.echoes[-1] + 1
    echoes = None if len(train.echoes) == n else train.echoes
    why = f"refocusing by {np.rad2deg(angle):.4g} degrees ({source})"
    if echoes is not None:
        why += f", {n - len(echoes)} of {n} echoes not recorded"
    return FSE(np.full(n, angle), train.spacing, echoes=echoes, magnitude=True), why


def _refocusing_angle(series: ImageSeries, flip_angle: float | None) -> tuple[float, str]:
    if flip_angle is not None:
        if not 0 < flip_angle < np.pi * (1 + 1e-6):
            raise UsageError(
                f"the refocusing angle must be above 0 and at most pi, 180 degrees, got {flip_angle:g} radians "
                f"({np.rad2deg(flip_angle):.4g} degrees); above 180 degrees an angle refocuses as 360 degrees less it."
            )
        return min(float(flip_angle), np.pi), "given"
    stated = series.acquisition.get("FlipAngle")
    if isinstance(stated, int | float) and 90 < stated <= 180:
        return float(np.deg2rad(stated)), "FlipAngle of the images"
    seen = f"the images state {stated:g}, that of the excitation" if isinstance(stated, int | float) else "none stated"
    return np.pi, f"assumed; {seen}"


def repetition(series: ImageSeries) -> str:
    """The repetition time in brackets, or nothing where it is not known."""
    tr = series.acquisition.get("RepetitionTime")
    return f" (TR {tr:g} s)" if isinstance(tr, int | float) else ""


def warn_if_gradient_echo(series: ImageSeries) -> None:
    """Says so where images from which T2 is to be mapped look like gradient echoes."""
    stated = _stated_echo(series)
    early = not stated and series.te[0] < EARLIEST_SPIN_ECHO
    if stated == "GR" or early:
        sign = f"the first echo comes at {1e3 * series.te[0]:g} ms" if early else "ScanningSequence is GR"
        warnings.warn(
            f"these look like gradient echoes ({sign}), whose decay is T2*, not T2; `jaxqmri t2star` maps that.",
            InputWarning,
            stacklevel=3,
        )


def warn_if_spin_echo(series: ImageSeries) -> None:
    """Says so where images from which T2* is to be mapped are stated to be spin echoes."""
    if _stated_echo(series) == "SE":
        warnings.warn(
            "these look like spin echoes (ScanningSequence is SE), whose decay is T2, not T2*; `jaxqmri t2` maps that.",
            InputWarning,
            stacklevel=3,
        )


def _stated_echo(series: ImageSeries) -> str:
    """Scanning Sequence (0018,0020) where it is one of "GR" and "SE"; "" where it is both, neither or not stated."""
    sequence = str(series.acquisition.get("ScanningSequence", "")).upper()
    named = [kind for kind in ("GR", "SE") if kind in sequence]
    return named[0] if len(named) == 1 else ""


def inversion_recovery(series: ImageSeries, tr: float | None) -> tuple[InversionRecovery, list[str]]:
    """The inversion recovery that made the images.

    Args:
        series: images of different inversion times, real or magnitude.
        tr: repetition time [s]; None: that of the images, or full recovery where they do not state it.

    Returns:
        The signal model, and in words what it takes for granted.

    Raises:
        MetadataError: the repetition time of the images is none from inversion to inversion.
        UsageError: `tr` cannot be meant.
    """
    assert series.ti is not None
    longest = float(series.ti.max())
    stated = _stated(series, "RepetitionTimePreparation", "RepetitionTime")
    if tr is not None:
        _check_given_tr(tr, longest)
    elif stated is not None and stated <= longest:
        raise MetadataError(
            f"RepetitionTime is {1e3 * stated:g} ms, not longer than the longest inversion time, {1e3 * longest:g} ms: "
            "that is not the time from inversion to inversion, on which the recovery depends; give it with --tr-ms "
            "(tr=), inf if it is long."
        )
    repeated = (np.inf if stated is None else stated) if tr is None else tr
    source = "not stated, so recovery between inversions is taken to be full" if stated is None else "of the images"
    signed, why = _is_signed(series)
    model = InversionRecovery(series.ti, tr=repeated, magnitude=not signed)
    return model, [f"TR {repeated:g} s ({source if tr is None else 'given'})", why, "readout by 90 degree pulses"]


def _is_signed(series: ImageSeries) -> tuple[bool, str]:
    if series.component == "real":
        return True, "real images: signed signal"
    first = series.data[..., 0]
    if np.mean(first < 0) <= NEGATIVE_SHARE:  # spares a sorted copy of all images
        return False, "magnitude images: polarity restored in each voxel"
    some = middle_slab(series.data)
    size = np.nanpercentile(np.abs(some), 98) if np.any(np.isfinite(some)) else 0.0
    if np.mean(first < -0.1 * size) > NEGATIVE_SHARE:
        return True, "signed signal, as many values are negative"
    return False, "magnitude images: polarity restored in each voxel"


def spoiled_gradient_echoes(series: ImageSeries, tr: float | None) -> tuple[SpoiledGradientEcho, list[str]]:
    """The spoiled gradient echoes that made the images.

    Args:
        series: images of different flip angles.
        tr: repetition time [s]; None: that of the images.

    Returns:
        The signal model, and in words what it takes for granted.

    Raises:
        MetadataError: no repetition time, or one that cannot be.
        UsageError: `tr` cannot be meant.
    """
    assert series.flip_angles is not None
    stated = _stated(series, "RepetitionTimeExcitation", "RepetitionTime")
    if tr is not None:
        repeated, source = tr, "given"
        _check_given_tr(tr, 0.0)
        if tr > LONGEST_GRADIENT_ECHO_TR:
            raise UsageError(
                f"the repetition time of {tr:g} s is too long for spoiled gradient echoes; milliseconds go with "
                "--tr-ms, seconds with tr=."
            )
    elif stated is None:
        raise MetadataError(
            "the images state no single RepetitionTime (0018,0080), without which flip angles tell nothing of T1; give "
            "it with --tr-ms (tr=)."
        )
    elif stated > LONGEST_GRADIENT_ECHO_TR:
        raise MetadataError(
            f"RepetitionTime is {stated:g} s, too long for spoiled gradient echoes (from milliseconds in a field of "
            "seconds, or of a whole volume); give that from pulse to pulse with --tr-ms (tr=)."
        )
    else:
        repeated, source = stated, "of the images"
    assumed = [f"TR {1e3 * repeated:g} ms ({source})", "ideal spoiling", "M0 carries the T2* decay of the echo time"]
    return SpoiledGradientEcho(series.flip_angles, repeated), assumed


def _stated(series: ImageSeries, *keys: str) -> float | None:
    """The first of these that the images state as a positive number."""
    values = [series.acquisition.get(key) for key in keys]
    return next((float(v) for v in values if isinstance(v, int | float) and 0 < v < np.inf), None)


def _check_given_tr(tr: float, above: float) -> None:
    if not tr > above:
        longest = "the longest inversion time, " if above else ""
        raise UsageError(
            f"the repetition time must be above {longest}{above:g} s, got {tr:g} s; give milliseconds with --tr-ms, "
            "seconds with tr=."
        )
    if 100 < tr < np.inf:
        raise UsageError(
            f"the repetition time of {tr:g} s is too long; milliseconds go with --tr-ms, seconds with tr=."
        )
