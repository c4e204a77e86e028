"""Where a fit starts: the lowest point of a misfit that depends on one relaxation time.

All other parameters are eliminated first, the amplitude by `fitting_amplitude`, so one dimension is left, and there a
search sees every valley. In the logarithm of a relaxation time no valley of an exponential is narrower than about one.

Measurements are a list of numbers here, each of which becomes one contiguous vector of voxels; an array of them under
`jax.vmap` would have the voxels first, which is up to ten times slower on a CPU.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Measurements = Sequence[Any]  # real or complex numbers of one voxel

_COARSE_STEPS = 32  # a factor of 1.5 from one to the next on usual protocols
_HALVINGS = 8  # of that step: to 0.2 % of the relaxation time


def total(terms: Iterable[Any]) -> Any:
    """Sum, from the first to the last."""
    return functools.reduce(operator.add, terms)


def squares(values: Measurements) -> Any:
    """Sum of the squared magnitudes."""
    return total(v.real**2 + v.imag**2 if jnp.iscomplexobj(v) else v**2 for v in values)


def misfit_of(amplitude: Any, shape: Measurements, signal: Measurements) -> Any:
    """Sum of the squared differences."""
    return squares([amplitude * f - s for f, s in zip(shape, signal, strict=True)])


def overlap(shape: Measurements, signal: Measurements) -> Any:
    """Inner product of a real shape and a signal."""
    return total(f * s for f, s in zip(shape, signal, strict=True))


def fitting_amplitude(shape: Measurements, signal: Measurements) -> Any:
    """The amplitude with which a real `shape` comes nearest to the signal: complex as that is, or else not negative."""
    common = overlap(shape, signal)
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
    """The top of the parabola through the largest of equally spaced values and its neighbours.

    Returns:
        How high it is, the index of the largest value, and by how many steps the top is beside that. Where there is no
        such parabola, at the ends for instance, the largest value itself.
    """
    largest, last = jnp.max(values), values.size - 1
    at = jnp.max(jnp.where(values == largest, jnp.arange(values.size), 0))  # argmax is slow on a CPU
    below, above = values[jnp.maximum(at - 1, 0)], values[jnp.minimum(at + 1, last)]
    bend = 2 * largest - below - above
    inner = (at > 0) & (at < last) & (bend > 0) & (bend < jnp.inf)
    beside = jnp.where(inner, (above - below) / jnp.where(inner, 2 * bend, 1.0), 0.0)
    return largest + jnp.where(inner, beside * (above - below) / 4, 0.0), at, beside


def lowest(misfit: Callable[[Array], Array], limits: tuple[Array, Array]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The positive number within `limits` where `misfit` is lowest, and the misfit there.

    Looks at a coarse grid, equally spaced in the logarithm, and then to both sides of the best so far, at half the
    distance each time. One loop for both, so that the misfit is compiled once.

    Args:
        misfit: of one voxel.
        limits: lowest and highest value.
    """
    low, high = (jnp.log(limit) for limit in limits)
    step = (high - low) / (_COARSE_STEPS - 1)
    halves = 0.5 ** np.repeat(np.arange(1, _HALVINGS + 1), 2)
    coarse = np.arange(_COARSE_STEPS + 2 * _HALVINGS) < _COARSE_STEPS
    distances = np.concatenate([np.arange(_COARSE_STEPS), halves * np.tile([-1, 1], _HALVINGS)])
    last_of_level = np.append(np.arange(_COARSE_STEPS) == _COARSE_STEPS - 1, np.tile([False, True], _HALVINGS))

    def look(state, at):
        centre, best, least = state
        is_coarse, distance, is_last = at
        place = jnp.clip(jnp.where(is_coarse, low, centre) + distance * step, low, high)
        value = misfit(jnp.exp(place))
        better = value < least
        best, least = jnp.where(better, place, best), jnp.where(better, value, least)
        return (jnp.where(is_last, best, centre), best, least), None

    start = (low, low, jnp.full_like(low, jnp.inf))
    schedule = (coarse, jnp.asarray(distances, low.dtype), last_of_level)
    (_, best, least), _ = jax.lax.scan(look, start, schedule)
    return jnp.exp(best), least
