"""T1 by inversion recovery or by variable flip angles."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from ..errors import CorruptInputError, InputWarning, UsageError
from ..estimation.fit import fit
from ..estimation.noise import Noise
from ..estimation.solvers.levenberg_marquardt import LevenbergMarquardt
from ..io.maps import Maps
from ..io.series import ImageSeries
from ..models.base import SignalModel
from ..quantities import ECHO_TIME, FLIP_ANGLE, INVERSION_TIME
from .metadata import how, settings
from .protocols import inversion_recovery, spoiled_gradient_echoes
from .slabs import Slab, Values, maps_by_slabs
from .voxels import check_magnitude, checked_b1, values_of, voxels_to_fit, warn_if_exactly_determined

T1_METHODS = ("auto", "ir", "vfa")


def t1_map(
    series: ImageSeries,
    *,
    method: str = "auto",
    tr: float | None = None,
    efficiency: float | None = None,
    b1: ArrayLike | None = None,
    mask: np.ndarray | str | None = None,
    noise: Noise | None = None,
    progress: Callable[[int], None] | None = None,
) -> Maps:
    """T1 and M0 of images of different inversion times, or of spoiled gradient echoes of different flip angles.

    Inversion recovery: S(TI) = M0 [1 - (1 + f) exp(-TI/T1) + f exp(-TR/T1)] by exact least squares; of magnitude images
    the polarity is restored. Where the efficiency f of the inversion is estimated, an unknown TR does not harm T1.
    Variable flip angles: S(a) = M0 sin(B1 a) (1 - E1) / (1 - cos(B1 a) E1), E1 = exp(-TR/T1), by exact least squares.
    An error of B1 makes about twice the error of T1.

    Args:
        series: images of different inversion times (`ti`), magnitude or real; or magnitude images of different
            `flip_angles`. All have the receiver gain of the first.
        method: "ir", inversion recovery; "vfa", variable flip angles; "auto": what the series varies.
        tr: repetition time [s], inf for full recovery; None: that of the images. Inversion recovery of images that do
            not state it is taken to recover fully.
        efficiency: f of the inversion, 1 where it is perfect, 0 for a saturation. None: estimated in each voxel, or 1
            where there are too few inversion times (fewer than 3, or 4 of magnitude images). Inversion recovery only.
        b1: true / nominal flip angle, a number or a map (x, y, z); voxels where it is not within 0.1 ... 2 are not
            fitted. None: 1 everywhere, with a warning. Variable flip angles only.
        mask: (x, y, z) bool, True where to fit; "auto" leaves out air (`auto_mask`); None: every voxel.
        noise: what is known of the noise; None: its level is taken from the residuals.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T1map` and `T1map_stderr` [s], `R1map` = 1 / T1
        [1/s], `M0map` [a.u.] (with the T2* decay of the echo time), `InversionEfficiency` where it was estimated,
        `residual`, the relative error sum|q - x| / sum|x|, and `status`, `Status` codes. How they were made, and what
        was assumed, is in their `metadata`.

    Raises:
        UsageError: the series does not vary what the method needs; an argument that the method does not know, or that
            cannot be.
        MetadataError: no usable repetition time; a B1 map in another unit.
        CorruptInputError: fewer images than parameters; an empty mask.
        ValueError: unknown method, a map of another shape, images of another component.

    Sources:
        Barral et al., Magn Reson Med 64:1057 (2010); Deoni, Rutt, Peters, Magn Reson Med 49:515 (2003).
    """
    if method not in T1_METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(T1_METHODS)}.")
    if method == "auto":
        if series.axis is ECHO_TIME:
            raise UsageError(
                "T1 is fitted to images of different inversion times or flip angles, in this series the echo times "
                "vary; read the images with axis='ti' or axis='flip_angle'."
            )
        method = "ir" if series.axis is INVERSION_TIME else "vfa"
    if method == "ir":
        if b1 is not None:
            raise UsageError(
                "inversion recovery needs no B1 map: what B1 does to the inversion is in its efficiency; leave out b1 "
                "(--b1)."
            )
        return _by_inversion_recovery(series, tr, efficiency, mask, noise, progress)
    if efficiency is not None:
        raise UsageError("variable flip angles have no inversion; leave out efficiency (--efficiency).")
    return _by_flip_angles(series, tr, b1, mask, noise, progress)


def _by_inversion_recovery(
    series: ImageSeries,
    tr: float | None,
    efficiency: float | None,
    mask: np.ndarray | str | None,
    noise: Noise | None,
    progress: Callable[[int], None] | None,
) -> Maps:
    if series.component not in ("magnitude", "real"):
        raise ValueError(f"T1 is fitted to magnitude or real images, this series is {series.component}.")
    fitted = voxels_to_fit("T1 by inversion recovery", series, INVERSION_TIME, mask)
    model, assumed = inversion_recovery(series, tr)
    if noise is not None and not noise.least_squares and not model.magnitude:
        raise UsageError(f"{type(noise).__name__} noise is that of magnitude images, these are signed; use Gaussian.")
    known, why = _efficiency(series, model.magnitude, efficiency)
    parameters = ["T1", "M0", *([] if known else ["InversionEfficiency"])]
    warn_if_exactly_determined(series, parameters, noise)
    equation = "S(TI) = M0 [1 - (1 + f) exp(-TI/T1) + f exp(-TR/T1)]" + (", magnitude" if model.magnitude else "")
    facts: dict[str, Any] = {"EstimatedParameters": parameters}
    if model.tr is not None:
        facts["RepetitionTime"] = float(f"{float(model.tr):.6g}")
    facts["Assumptions"] = [why, *assumed]
    estimated = {} if known else {"InversionEfficiency": "efficiency"}
    return _fitted(series, model, known, noise, fitted, progress, equation, facts, estimated)


def _efficiency(series: ImageSeries, magnitude: bool, given: float | None) -> tuple[dict[str, float], str]:
    """What is known of the inversion, and that in words."""
    assert series.ti is not None
    n = len(np.unique(series.ti))
    if given is not None:
        if not 0 <= given <= 1:
            raise UsageError(
                f"the inversion efficiency is from 0 (saturation) to 1 (perfect inversion), got {given:g}."
            )
        known, why = {"efficiency": float(given)}, f"inversion efficiency {given:g}, given"
    elif n >= 3 + magnitude:
        return {}, "inversion efficiency estimated in each voxel"
    else:
        known = {"efficiency": 1.0}
        why = f"perfect inversion, as {n} inversion times are too few to estimate its efficiency"
    if n < 2 + magnitude:  # by the polarities, magnitudes can be explained in several ways
        kind = "magnitude images" if magnitude else "real images"
        raise CorruptInputError(
            f"{n} inversion times of {kind} cannot determine 2 parameters (T1, M0); give at least {2 + magnitude}."
        )
    if given is None:
        warnings.warn(f"{why}; where it is not perfect, T1 comes out too short.", InputWarning, stacklevel=4)
    return known, why


def _by_flip_angles(
    series: ImageSeries,
    tr: float | None,
    b1: ArrayLike | None,
    mask: np.ndarray | str | None,
    noise: Noise | None,
    progress: Callable[[int], None] | None,
) -> Maps:
    check_magnitude("T1 by variable flip angles", series)
    fitted = voxels_to_fit("T1 by variable flip angles", series, FLIP_ANGLE, mask)
    model, assumed = spoiled_gradient_echoes(series, tr)
    if b1 is None:
        warnings.warn(
            "no B1 map is given, so the nominal flip angles are believed; where B1 is off by 10 %, T1 is off by about "
            "20 %. Measure one and give it with --b1 (b1=).",
            InputWarning,
            stacklevel=3,
        )
        why = "nominal flip angles: no B1 map; an error of B1 makes about twice the error of T1"
    else:
        why = "B1 from a map" if np.ndim(b1) else f"B1 = {np.asarray(b1):g} everywhere"
    warn_if_exactly_determined(series, ("T1", "M0"), noise)
    known = {"b1": np.float32(1.0) if b1 is None else checked_b1(b1, fitted, "T1")}
    equation = "S(a) = M0 sin(B1 a) (1 - E1) / (1 - cos(B1 a) E1), E1 = exp(-TR/T1)"
    facts = {
        "EstimatedParameters": ["T1", "M0"],
        "RepetitionTime": float(f"{float(model.tr):.6g}"),
        "Assumptions": [why, *assumed],
    }
    return _fitted(series, model, known, noise, fitted, progress, equation, facts)


def _fitted(
    series: ImageSeries,
    model: SignalModel,
    known: Mapping[str, ArrayLike],
    noise: Noise | None,
    fitted: np.ndarray,
    progress: Callable[[int], None] | None,
    equation: str,
    facts: Mapping[str, Any],
    beside: Mapping[str, str] | None = None,
) -> Maps:
    """The maps; `beside` T1 and M0 also those of other parameters, by name."""
    solver = LevenbergMarquardt()

    def estimate(slab: Slab) -> Values:
        of_slab = {name: slab.of(np.asarray(value)) for name, value in known.items()}
        result = fit(model, slab.signal, known=of_slab, solver=solver, noise=slab.noise(noise), progress=progress)
        values = values_of(result, model, slab.signal, time="T1", field="t1", amplitude="M0map")
        return values | {name: getattr(result.params, parameter) for name, parameter in (beside or {}).items()}

    metadata = how(model, equation, type(solver).__name__, settings(solver), noise) | dict(facts)
    return maps_by_slabs(series, fitted, estimate, metadata)
