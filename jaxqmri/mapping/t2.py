"""T2, and B1 where it is not given, of multi-echo spin echoes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..dictionary.dictionary import grid, make_dictionary, match
from ..errors import CorruptInputError, MetadataError, UsageError
from ..estimation.fit import fit
from ..estimation.noise import Gaussian, Noise
from ..estimation.solvers.levenberg_marquardt import LevenbergMarquardt
from ..io.maps import Maps
from ..io.series import ImageSeries
from ..models.decay import MonoExponential
from ..models.fse import FSE
from ..models.tissue import Tissue
from ..quantities import ECHO_TIME
from .metadata import how, settings
from .protocols import repetition, spin_echo_train, warn_if_gradient_echo
from .slabs import Slab, Values, maps_by_slabs
from .voxels import check_magnitude, checked_b1, number_or_voxels, values_of, voxels_to_fit, warn_if_exactly_determined

T2_METHODS = ("lm", "dictionary", "mono")
DEFAULT_T1 = 1.0  # s; between muscle and grey matter at 1.5 and 3 T
T1_RANGE = (0.01, 20.0)  # s

# Trains of the dictionary, as many for any protocol so that one program searches them all: steps of 2.4 to 3.3 % in T2
# for 6 to 32 echoes, of 0.02 to 0.035 in B1.
N_T2, N_B1 = 256, 32
DICTIONARY_B1 = (0.4, 1.5)  # below, hardly any signal is refocused; the fit goes on from there
B1_STEP = 0.01  # voxels whose given B1 is the same when rounded to this are matched together
GROUP = 2048  # voxels; groups are padded to a multiple of it, so that one program serves them all


def t2_map(
    series: ImageSeries,
    *,
    method: str = "lm",
    b1: ArrayLike | None = None,
    t1: ArrayLike | None = None,
    flip_angle: float | None = None,
    mask: np.ndarray | str | None = None,
    noise: Noise | None = None,
    progress: Callable[[int], None] | None = None,
) -> Maps:
    """T2, M0 and, where it is not given, B1 of a multi-echo spin-echo series.

    One train hardly depends on T1, so T1 is taken as known. Full recovery between trains is assumed: where TR is short,
    M0 carries the saturation.

    Args:
        series: magnitude images of evenly spaced echoes of one train; the first ones may be missing.
        method: "lm", extended phase graphs of the whole train with its stimulated echoes (`FSE`), by exact least
            squares or the most likely answer under `noise`; "dictionary", the same least squares started from the most
            similar of 8192 trains (of 256 where B1 is given); or "mono", S(TE) = M0 exp(-TE / T2) by exact least
            squares, for comparison: stimulated echoes, which come with every refocusing that is not perfect, make its
            T2 too long.
        b1: true / nominal flip angle, a number or a map (x, y, z); voxels where it is not within 0.1 ... 2 are not
            fitted. None: it is estimated in each voxel.
        t1: T1, a number or a map (x, y, z) [s]; None: 1 s.
        flip_angle: nominal refocusing angle [rad]; None: the FlipAngle of the images if it is above 90 degrees, else
            180 degrees, since many scanners state the angle of the excitation there.
        mask: (x, y, z) bool, True where to fit; "auto" leaves out air (`auto_mask`); None: every voxel.
        noise: what is known of the noise; None: its level is taken from the residuals.
        progress: called with the number of voxels done after each batch.

    Returns:
        Maps of the shape (x, y, z), NaN where there is no answer: `T2map` and `T2map_stderr` [s], `R2map` = 1 / T2
        [1/s], `M0map` [a.u.], `TB1map` where B1 was estimated, `residual`, the relative error sum|q - x| / sum|x|, and
        `status`, `Status` codes. How they were made, and what was assumed, is in their `metadata`.

    Raises:
        MetadataError: the echoes are not those of one train; a B1 or T1 map in another unit.
        UsageError: B1, T1 or a flip angle for a method that knows none, or one that cannot be; no echo times vary.
        CorruptInputError: fewer echoes than parameters.
        ValueError: unknown method, a map of another shape, images that are not magnitudes.
    """
    if method not in T2_METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(T2_METHODS)}.")
    if method == "mono" and any(value is not None for value in (b1, t1, flip_angle)):
        raise UsageError("the mono-exponential model knows neither B1 nor T1 nor flip angles; leave them out.")
    if method == "dictionary" and not (noise is None or isinstance(noise, Gaussian)):
        raise UsageError(f"a dictionary knows no {type(noise).__name__} noise; use method lm.")
    check_magnitude("T2", series)
    fitted = voxels_to_fit("T2", series, ECHO_TIME, mask)
    warn_if_gradient_echo(series)
    assumed = [f"full recovery between repetitions{repetition(series)}: M0 carries the saturation"]
    if method == "mono":
        warn_if_exactly_determined(series, ("T2", "M0"), noise)
        model, solver = MonoExponential(series.te), LevenbergMarquardt()

        def decays(slab: Slab) -> Values:
            result = fit(model, slab.signal, solver=solver, noise=slab.noise(noise), progress=progress)
            return values_of(result, model, slab.signal, time="T2", field="t2", amplitude="M0map")

        metadata = how(model, "S(TE) = M0 exp(-TE / T2)", type(solver).__name__, settings(solver), noise)
        metadata["Assumptions"] = ["perfect refocusing: no stimulated echoes", *assumed]
        return maps_by_slabs(series, fitted, decays, metadata)

    parameters = ["T2", "M0", *(["B1"] if b1 is None else [])]
    _check_number_of_echoes(series, parameters)
    warn_if_exactly_determined(series, parameters, noise)
    model, why = spin_echo_train(series, flip_angle)
    t1 = _checked_t1(DEFAULT_T1 if t1 is None else t1, fitted)
    b1 = None if b1 is None else checked_b1(b1, fitted, "T2")
    equation = "S(n) = M0 EPG_n(T2, T1, B1 x flip angles)"
    solver = LevenbergMarquardt()
    t1_of_trains = float(np.median(t1[t1 > 0]))
    algorithm, size = type(solver).__name__, {}
    if method == "dictionary":
        algorithm = f"dictionary match, then {algorithm}"
        size = {"atoms_T2": N_T2, "atoms_B1": N_B1 if b1 is None else 1}
    metadata = how(model, equation, algorithm, size | settings(solver), noise)
    t1_words = f"T1 = {t1:g} s everywhere" if t1.ndim == 0 else "T1 from a map"
    metadata["EstimatedParameters"] = parameters
    metadata["EchoSpacing"] = float(f"{model.echo_spacing:.6g}")  # s
    metadata["RefocusingFlipAngle"] = float(f"{np.rad2deg(model.flip_angles[0]):.6g}")  # degrees, as BIDS has FlipAngle
    metadata["Assumptions"] = [why, f"{t1_words}: one echo train hardly depends on it", *assumed]
    if b1 is None:
        metadata["Assumptions"].append(
            "B1 not above that of perfect refocusing, from which on it acts as its mirror image (only M0 would change)"
        )

    def trains(slab: Slab) -> Values:
        known = {"t1": slab.of(t1)} | ({} if b1 is None else {"b1": slab.of(b1)})
        init = most_similar_train(model, slab.signal, t1_of_trains, known.get("b1")) if method == "dictionary" else None
        result = fit(
            model, slab.signal, known=known, init=init, solver=solver, noise=slab.noise(noise), progress=progress
        )
        values = values_of(result, model, slab.signal, time="T2", field="t2", amplitude="M0map")
        return values | ({"TB1map": result.params.b1} if b1 is None else {})

    return maps_by_slabs(series, fitted, trains, metadata)


def most_similar_train(
    model: FSE, signal: Float[Array, "voxel n"], t1: float, b1: Float[ArrayLike, " voxel"] | None = None
) -> Tissue:
    """The tissue, (voxel,), whose simulated train is most similar to the signal; 1 throughout where there is no signal.

    T2 runs in equal ratios from a quarter of the first echo time to 20 times the last, B1 in equal steps to where
    refocusing is perfect: from there on it acts as its mirror image.

    Args:
        model: the train; its refocusing angles are all the same.
        signal: magnitudes [a.u.].
        t1: of all trains [s].
        b1: true / nominal flip angle, if it is given.
    """
    te = np.asarray(model.echo_times, np.float64)
    t2 = np.geomspace(te[0] / 4, 20 * te[-1], N_T2)
    if b1 is None:
        lowest, highest = DICTIONARY_B1
        perfect = np.pi / float(np.max(model.flip_angles))
        trains = grid(Tissue, t1=t1, t2=t2, b1=np.linspace(lowest, min(perfect, highest), N_B1))
        found = match(make_dictionary(model, trains), signal).params
    else:
        steps = np.round(np.nan_to_num(np.asarray(b1), nan=1.0) / B1_STEP).astype(int)
        groups = [np.flatnonzero(steps == step) for step in np.unique(steps)]
        parts = []
        for voxels in groups:
            trains = grid(Tissue, t1=t1, t2=t2, b1=B1_STEP * steps[voxels[:1]])
            padded = np.pad(voxels, (0, -voxels.size % GROUP), mode="edge")
            part = match(make_dictionary(model, trains), signal[padded], batch_size=GROUP).params
            parts.append(jax.tree.map(lambda leaf, n=voxels.size: leaf[:n], part))
        back = np.argsort(np.concatenate(groups))
        found = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *parts)
    return jax.tree.map(lambda leaf: jnp.nan_to_num(leaf, nan=1.0), found)


def _check_number_of_echoes(series: ImageSeries, parameters: list[str]) -> None:
    n = len(series.te)
    if n < len(parameters):
        enough = "give a B1 map with --b1, or use --method mono" if n > 1 else "give images of more echoes"
        raise CorruptInputError(
            f"{n} echo{'es' if n > 1 else ''} cannot determine {len(parameters)} parameters ({', '.join(parameters)}); "
            f"{enough}."
        )


def _checked_t1(t1: ArrayLike, fitted: np.ndarray) -> np.ndarray:
    """A number, or (voxel,)."""
    t1 = number_or_voxels("t1", t1, fitted)
    positive = t1[t1 > 0]
    if not positive.size or not T1_RANGE[0] <= np.median(positive) <= T1_RANGE[1]:
        found = f"the median {np.median(positive):g} s" if positive.size else "no value above 0"
        wrong = MetadataError if t1.ndim else UsageError
        raise wrong(
            f"T1 has {found}, outside {T1_RANGE[0]:g} ... {T1_RANGE[1]:g} s; give seconds (--t1-ms: milliseconds)."
        )
    return t1
