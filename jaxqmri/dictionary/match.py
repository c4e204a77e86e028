"""Dictionary matching: for every voxel the simulated signal that it is most similar to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact, Int, Num

from ..batching.batches import device_of, in_batches, stays_in_jax
from ..estimation.batch import FitResult, is_negative
from ..estimation.fit import check_complex, check_measurements, check_signal, fit
from ..models.base import Params, as_numbers, dtype_of, in_short, sum_of_measurements
from ..quantities import Status
from .dictionary import Dictionary
from .double_float import largest_of, norm_of, normalised, times_power_of_2
from .layout import Atoms, layout_of
from .search import best_atoms

_LAUNCH = 16384  # voxels; few are hardly similar, and search more of a large dictionary


class MatchResult(NamedTuple):
    """Maps of a match, each with the leading shape of the signal; NaN (index -1) where `status` is not OK.

    Attributes:
        params: the model's NamedTuple; its amplitude is `m0`.
        m0: amplitude that turns the atom into the signal [units of the signal]; complex if signal or atoms are.
        correlation: |<d, s>| / (|d| |s|), 1 for a perfect match.
        index: the atom.
        status: `Status` codes.
    """

    params: Params
    m0: Inexact[Array, "*voxel"]
    correlation: Float[Array, "*voxel"]
    index: Int[Array, "*voxel"]
    status: Int[Array, "*voxel"]


def match(
    dictionary: Dictionary,
    signal: Num[ArrayLike, "*voxel n"],
    *,
    refine: bool = False,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> MatchResult:
    """The atom most similar to each voxel, the one with the largest |<d, s>|; ties go to the lowest index.

    The index is that of a search in float64 (with noise to within the rounding of the residual, which no map shows, see
    `jaxqmri.dictionary.search`). Real signals are matched to the magnitudes of complex atoms; complex signals as they
    are, so that `m0` has the phase of the image.

    Args:
        dictionary: from `make_dictionary`; its precision is that of the match.
        signal: measurements on the LAST axis, in protocol order; any leading shape [a.u.].
        refine: leave the grid: the least-squares answer by `fit` of the model, started from the matched atom, for the
            parameters that vary between atoms. Without it the answer is the grid's.
        batch_size: voxels matched at once; None: up to 32768, so that every processor of a CPU has some. Changes memory
            and speed, never the result. Atoms are always taken in chunks.
        progress: called with the number of voxels done after each batch, of the fit where there is one.

    Returns:
        Maps with the leading shape of `signal`. A voxel that is not finite, all zero or a negative magnitude, or whose
        fit has no answer, is NaN in every map and says why in `status`; it never affects its neighbours.

    Raises:
        ValueError: not a dictionary, the last axis does not match its protocol, signals that are not of the kind that
            the model predicts (complex ones of magnitudes), real signals of a compressed complex dictionary,
            `batch_size` is below 1, or fewer measurements than parameters to be refined.
    """
    if not isinstance(dictionary, Dictionary):
        raise ValueError(f"dictionary is {in_short(dictionary)}, wanted one from jq.make_dictionary.")
    given = as_numbers(signal, "signal", "numbers with the measurements last")
    check_measurements(given.shape, dictionary.model)
    xp: Any = jnp if stays_in_jax(dictionary, given) else np
    measured: Any = xp.asarray(given, dtype_of(given, dictionary.norms.dtype))
    check_complex(dictionary.model, measured)
    check_signal(dictionary.model, measured)
    magnitudes = _compares_magnitudes(dictionary, measured)
    if magnitudes and dictionary.basis is not None:
        raise ValueError(
            "signal is real and the dictionary complex and compressed; match complex signals, or rank=None."
        )
    atoms = layout_of(dictionary.atoms, dictionary.rest, dictionary.norms, magnitudes)
    voxels = measured.reshape(-1, given.shape[-1])

    def lay_out(leaf: Any) -> Any:
        return leaf.reshape(given.shape[:-1])

    batches: dict[str, Any] = {"batch_size": batch_size, "launch": _LAUNCH, "device": device_of(given)}
    common = (dictionary, atoms)
    if not refine:
        return in_batches(_match_batch, common, voxels, progress=progress, lay_out=lay_out, **batches)
    matched = in_batches(_match_batch, common, voxels, **batches)
    start, upright = in_batches(_start_of_fit, (), (voxels, matched), **batches)
    model = dictionary.model
    free = {model.amplitude, *dictionary.varying} - set(model.ignored)
    known = {name: None if name in free else getattr(start, name) for name in start._fields}
    fitted = fit(model, upright, known=known, init=start, batch_size=batch_size, progress=progress)
    return in_batches(_with_fit, (model.amplitude,), (voxels, matched, fitted), lay_out=lay_out, **batches)


def _compares_magnitudes(dictionary: Dictionary, signal: ArrayLike) -> bool:
    return jnp.iscomplexobj(dictionary.atoms) and not jnp.iscomplexobj(signal)


@eqx.filter_jit
def _match_batch(dictionary: Dictionary, atoms: Atoms, signal: Inexact[Array, "voxel n"]) -> MatchResult:
    largest = largest_of(signal)
    finite, has_signal = jnp.isfinite(largest), largest > 0
    # No NaN reaches the search.
    signal, largest = _replaced(signal, largest, finite & has_signal)
    are_magnitudes = dictionary.model.magnitude or _compares_magnitudes(dictionary, signal)
    negative = is_negative(signal) if are_magnitudes else jnp.zeros_like(finite)
    compressed, matchable = signal, has_signal
    if dictionary.basis is not None:
        compressed = jnp.matmul(signal, dictionary.basis.conj(), precision=jax.lax.Precision.HIGHEST)
        largest = largest_of(compressed)
        matchable = largest > 0  # not a signal at right angles to the whole basis
        compressed, largest = _replaced(compressed, largest, matchable)
    signals, scale, norm, exponent = normalised(compressed, largest)
    index = best_atoms(atoms, signals)

    atom = dictionary.atoms[index]
    atom = jnp.abs(atom) if _compares_magnitudes(dictionary, signal) else atom
    product = sum_of_measurements((atom.conj() * signals.high).T) / scale
    whole = norm if dictionary.basis is None else norm_of(times_power_of_2(signal, -exponent[:, None]))
    m0 = times_power_of_2(product / dictionary.norms[index], exponent)
    correlation = jnp.minimum(jnp.abs(product) / whole, 1.0)
    status = jnp.select(
        [~finite, ~has_signal, negative, ~matchable | ~(correlation > 0)],
        [Status.NOT_FINITE, Status.NO_SIGNAL, Status.NEGATIVE_MAGNITUDE, Status.UNIDENTIFIABLE],
        Status.OK,
    )
    params = {
        name: leaf[index] if name in dictionary.varying else jnp.broadcast_to(leaf[0], index.shape)
        for name, leaf in dictionary.params._asdict().items()
    }
    params = dictionary.params._replace(**params | {dictionary.model.amplitude: m0})
    return _only_answers(MatchResult(params, m0, correlation, index, status.astype(jnp.int32)))


def _replaced(
    signal: Inexact[Array, "voxel n"], largest: Float[Array, " voxel"], usable: Array
) -> tuple[Inexact[Array, "voxel n"], Float[Array, " voxel"]]:
    """Signals and their largest measurements, with ones where they are not usable."""
    return jnp.where(usable[:, None], signal, 1.0), jnp.where(usable, largest, 1.0)


def _only_answers(result: MatchResult) -> MatchResult:
    """NaN, and index -1, where the status is not OK."""
    ok = result.status == Status.OK
    params, m0, correlation = jax.tree.map(lambda leaf: jnp.where(ok, leaf, jnp.nan), result[:3])
    return MatchResult(params, m0, correlation, jnp.where(ok, result.index, -1), result.status)


@eqx.filter_jit
def _start_of_fit(voxels: tuple[Array, MatchResult]) -> tuple[Params, Array]:
    """Where the fit begins, and the signals with the sign of a positive amplitude: atoms match either sign."""
    signal, matched = voxels
    start = jax.tree.map(lambda leaf: jnp.where(matched.status == Status.OK, leaf, 1.0), matched.params)
    return start, _sign_of(matched, signal)[:, None] * signal


def _sign_of(matched: MatchResult, signal: Inexact[Array, "voxel n"]) -> Inexact[Array, " voxel"]:
    negative = not jnp.iscomplexobj(matched.m0) and matched.m0 < 0
    return jnp.where(negative, -1, jnp.ones_like(signal[:, 0]))


@eqx.filter_jit
def _with_fit(amplitude: str, voxels: tuple[Array, MatchResult, FitResult]) -> MatchResult:
    """The least-squares answer from the matched atom on."""
    signal, matched, fitted = voxels
    m0 = _sign_of(matched, signal) * getattr(fitted.params, amplitude)
    # In units of the largest measurement, whose square does not overflow.
    largest = jnp.max(jnp.abs(signal), axis=-1)
    energy = jnp.mean(jnp.abs(signal / largest[:, None]) ** 2, axis=-1)
    correlation = jnp.sqrt(jnp.clip(1 - (fitted.residual / largest) ** 2 / energy, 0, 1))
    status = jnp.where(matched.status == Status.OK, fitted.status, matched.status)
    params = fitted.params._replace(**{amplitude: m0})
    return _only_answers(MatchResult(params, m0, correlation, matched.index, status))
