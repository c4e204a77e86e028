"""What the files say about the pulse sequence, and what has to be assumed, as signal models."""

import warnings

import numpy as np

from .io.errors import InputWarning, UsageError
from .io.series import ImageSeries, echo_train
from .models.fse import FSE

EARLIEST_SPIN_ECHO = 4e-3  # s; two pulses and a readout of a clinical scanner hardly fit into less


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
    sequence = str(series.acquisition.get("ScanningSequence", "")).upper()
    if "GR" in sequence and "SE" not in sequence:
        sign = "ScanningSequence is GR"
    elif series.te[0] < EARLIEST_SPIN_ECHO:
        sign = f"the first echo comes at {1e3 * series.te[0]:g} ms"
    else:
        return
    warnings.warn(
        f"these look like gradient echoes ({sign}), whose decay is T2*, not T2; `jaxqmri t2star` maps that.",
        InputWarning,
        stacklevel=3,
    )
