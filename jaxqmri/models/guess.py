"""Where a fit starts: the lowest point of a coarse search, with the amplitude eliminated.

`coarse_search` serves any model. `lowest` is for models whose misfit, all other parameters eliminated, depends on one
relaxation time: in its logarithm no valley of an exponential is narrower than about one, so a search sees every one.

Measurements are a list of numbers here, each of which becomes one contiguous vector of voxels; an array of them under
`jax.vmap` would have the voxels first, which is up to ten times slower on a CPU.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int
from numpy.typing import NDArray

Measurements = Sequence[Any]  # real or complex numbers of one voxel

_COARSE_STEPS = 32  # a factor of 1.5 from one to the next on usual protocols
_HALVINGS = 8  # of that step: to 0.2 % of the relaxation time
_POINTS_ON_LINE, _POINTS = 64, 512  # of a coarse search in one dimension, in several
_POINTS_OF_PART = 16  # of trains of pulses


def total(terms: Iterable[Any]) -> Any:
    """Sum, from the first to the last."""
    return functools.reduce(operator.add, terms)


def squares(values: Measurements) -> Any:
    """Sum of the squared magnitudes."""
    return total(v.real**2 + v.imag**2 if jnp.iscomplexobj(v) else v**2 for v in values)


def inner_product(a: Measurements, b: Measurements) -> Any:
    """Of lists of numbers, the first ones real."""
    return total(x * y for x, y in zip(a, b, strict=True))


def fitting_amplitude(shape: Measurements, signal: Measurements) -> Any:
    """The amplitude with which a real `shape` comes nearest to the signal: complex as that is, or else not negative."""
    common = inner_product(shape, signal)
    common = common if jnp.iscomplexobj(common) else jnp.maximum(common, 0)
    return common / jnp.maximum(squares(shape), jnp.finfo(common.dtype).tiny)


def visible_times(times: Float[Array, " n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The shortest and the longest time constant of an exponential that measurements at these times can tell apart.

    Beyond 100 times the last of them it is a straight line, in all less than 1 % steep. Below a tenth of the first one,
    or of the smallest step between two, less than exp(-10) is left of it by then.
    """
    times = jnp.sort(times)
    steps = jnp.diff(times)
    resolution = jnp.maximum(times[0], jnp.min(steps, initial=jnp.inf, where=steps > 0))
    return resolution / 10, 100 * times[-1]


def summit(values: Float[Array, " n"]) -> tuple[Float[Array, ""], Int[Array, ""], Float[Array, ""]]:
    """The top of the parabola through the largest of equally spaced values and its neighbours, if there is one.

    How high it is, the index of the largest value, and by how many steps the top is away from that.
    """
    largest, last = jnp.max(values), values.size - 1
    at = jnp.max(jnp.where(values == largest, jnp.arange(values.size), 0))  # argmax is slow on a CPU
    below, above = values[jnp.maximum(at - 1, 0)], values[jnp.minimum(at + 1, last)]
    bend = 2 * largest - below - above
    inner = (at > 0) & (at < last) & (bend > 0) & (bend < jnp.inf)
    offset = jnp.where(inner, (above - below) / jnp.where(inner, 2 * bend, 1.0), 0.0)
    return largest + jnp.where(inner, offset * (above - below) / 4, 0.0), at, offset


def lowest(
    best: Callable[[Any], tuple[Any, Measurements]],
    signal: Measurements,
    limits: tuple[Array, Array],
    known: Array | None = None,
) -> tuple[Any, Float[Array, ""]]:
    """The parameters whose misfit is lowest for a time within `limits`, or for the known one, and that misfit.

    `best(time)` gives the best other parameters, with the time, and the signal for an amplitude `m0` of 1.
    Looks at a coarse grid, equally spaced in the logarithm, and then to both sides of the best so far, at half the
    distance each time. One loop for both, so that the misfit is compiled once.
    """

    def misfit(time):
        params, shape = best(time)
        return squares([params.m0 * f - s for f, s in zip(shape, signal, strict=True)])

    if known is not None:
        return best(known)[0], misfit(known)
    low, high = (jnp.log(limit) + jnp.zeros_like(signal[0], limit.dtype) for limit in limits)  # vary as voxels do
    step = (high - low) / (_COARSE_STEPS - 1)
    halves = 0.5 ** np.repeat(np.arange(1, _HALVINGS + 1), 2)
    coarse = np.arange(_COARSE_STEPS + 2 * _HALVINGS) < _COARSE_STEPS
    distances = np.concatenate([np.arange(_COARSE_STEPS), halves * np.tile([-1, 1], _HALVINGS)])
    last_of_level = np.append(np.arange(_COARSE_STEPS) == _COARSE_STEPS - 1, np.tile([False, True], _HALVINGS))

    def compare(state, at):
        centre, lowest_place, least = state
        is_coarse, distance, is_last = at
        place = jnp.clip(jnp.where(is_coarse, low, centre) + distance * step, low, high)
        value = misfit(jnp.exp(place))
        better = value < least
        lowest_place, least = jnp.where(better, place, lowest_place), jnp.where(better, value, least)
        return (jnp.where(is_last, lowest_place, centre), lowest_place, least), None

    start = (low, low, jnp.full_like(low, jnp.inf))
    schedule = (coarse, jnp.asarray(distances, low.dtype), last_of_level)
    (_, place, least), _ = jax.lax.scan(compare, start, schedule)
    return best(jnp.exp(place))[0], least


def lattice(n_dimensions: int, n_points: int) -> NDArray[np.float64]:
    """(point, dimension) points that fill the unit cube evenly, the same ones every time: Roberts' R sequence.

    Multiples of the powers of 1/g modulo 1, where g^(d+1) = g + 1 generalises the golden ratio.
    """
    g = 2.0
    for _ in range(64):
        g = (1 + g) ** (1 / (n_dimensions + 1))
    steps = g ** -np.arange(1.0, n_dimensions + 1)
    return (0.5 + np.arange(n_points)[:, None] * steps) % 1


def coarse_search(
    model: Any,
    signal: Inexact[Array, " n"],
    known: Mapping[str, Array],
    bounds: Mapping[str, tuple[Array, Array]],
    n: int,
) -> Any:
    """The best points of `n` parts of the model's ranges within bounds, which are searched evenly in its coordinates.

    Parameters in units of the signal are eliminated at each point by linear least squares, which is exact where the
    signal is a sum of terms proportional to one of them each. `model` is a `SignalModel`.
    """
    limits = model.limits()
    linear = tuple(name for name in model.signal_units if name not in known)
    searched = tuple(name for name in limits._fields if name not in (*known, *linear))
    is_complex, dtype = jnp.iscomplexobj(signal), signal.real.dtype
    ends = {name: _coordinates_of_ends(model, name, bounds.get(name), dtype) for name in searched}

    def compare(best: tuple[Array, tuple[Array, ...]], point: tuple[Array, Array]) -> tuple[Any, None]:
        place, part = point
        at = {
            name: model.from_coordinate(name, low + (high - low) * p)
            for (name, (low, high)), p in zip(ends.items(), place, strict=True)
        }

        def predict(*amplitudes: Array) -> Inexact[Array, " n"]:
            predicted = model(model.parameters(**known, **at, **dict(zip(linear, amplitudes, strict=True))))
            return jnp.abs(predicted) if jnp.iscomplexobj(predicted) and not is_complex else predicted

        ones = (jnp.ones((), dtype),) * len(linear)
        bare, slope = jax.linearize(predict, *ones)
        columns = [slope(*unit) for unit in jnp.eye(len(linear), dtype=dtype)]
        rest = signal - (bare - sum(columns))  # of what is not proportional to them
        if is_complex and model.amplitude is None:  # real amplitudes
            columns, rest = [jnp.append(c.real, c.imag) for c in columns], jnp.append(rest.real, rest.imag)
        columns, rest = [list(column) for column in columns], list(rest)
        amplitudes = linear_least_squares(columns, rest)
        amplitudes = [
            a if jnp.iscomplexobj(a) or name in model.signed else jnp.maximum(a, 0)
            for name, a in zip(linear, amplitudes, strict=True)
        ]
        fitted = [total(a * f for a, f in zip(amplitudes, fs, strict=True)) for fs in zip(*columns, strict=True)]
        misfit = squares([r - f for r, f in zip(rest, fitted, strict=True)] if linear else rest)
        new = (misfit, (*amplitudes, *at.values()))
        better = (misfit < best[0]) & (part == np.arange(n))
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), new, best), None

    of_amplitude = signal.dtype if model.amplitude is not None else dtype

    def filled(value: float, dtype: Any) -> Array:
        return jnp.full(n, value, dtype) + jnp.zeros_like(signal[0], dtype)  # varies as voxels do

    none = (*(filled(0.0, of_amplitude) for _ in linear), *(filled(0.0, dtype) for _ in searched))
    start = (filled(jnp.inf, dtype), none)
    places, parts = _parts(len(searched), n, costly=model.sequential)
    (_, found), _ = jax.lax.scan(compare, start, (jnp.asarray(places, dtype), jnp.asarray(parts)))
    known = {name: jnp.broadcast_to(value, n) for name, value in known.items()}
    return model.parameters(**dict(zip((*linear, *searched), found, strict=True)), **known)


def _coordinates_of_ends(model: Any, name: str, bound: tuple[Array, Array] | None, dtype: Any) -> list[Array]:
    """Of the range of a parameter, as far as it is within a bound."""
    low, high = (jnp.asarray(end, dtype) for end in getattr(model.limits(), name))
    if bound is not None:
        low, high = jnp.maximum(low, bound[0]), jnp.minimum(high, bound[1])
    return [model.to_coordinate(name, end) for end in (low, high)]


def _parts(n_dimensions: int, n: int, costly: bool) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Points of the unit cube, (point, dimension), and which of `n` parts each is in: that of the nearest centre."""
    n_points = {0: 1, 1: _POINTS_ON_LINE}.get(n_dimensions, _POINTS)
    if costly:  # an evaluation is about as much as a step of the fit from there
        n_points = min(n_points, max(_POINTS_ON_LINE, _POINTS_OF_PART * n))
    places, centres = lattice(n_dimensions, n_points), lattice(n_dimensions, n)
    return places, np.argmin(np.sum((places[:, None] - centres) ** 2, axis=-1), axis=1)


def linear_least_squares(columns: Sequence[Measurements], signal: Measurements) -> list[Any]:
    """The amplitudes of some columns whose sum comes nearest to the signal, by Gram and Schmidt's orthogonalisation."""
    orthogonal: list[Measurements] = []
    shares: list[list[Any]] = []  # of the orthogonal columns before it in a column
    for column in columns:
        shares.append([_share(direction, column) for direction in orthogonal])
        for share, direction in zip(shares[-1], orthogonal, strict=True):
            column = [c - share * d for c, d in zip(column, direction, strict=True)]
        orthogonal.append(column)
    amplitudes = [_share(direction, signal) for direction in orthogonal]
    for k in reversed(range(len(columns))):
        for i in range(k):
            amplitudes[i] = amplitudes[i] - shares[k][i] * amplitudes[k]
    return amplitudes


def _share(direction: Measurements, values: Measurements) -> Any:
    energy = squares(direction)
    common = total(jnp.conj(d) * v for d, v in zip(direction, values, strict=True))
    return common / jnp.maximum(energy, jnp.finfo(energy.dtype).tiny)
