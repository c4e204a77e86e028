"""Where the search of a batch begins: the model's guess, the caller's start, and others of different valleys."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .problem import Problem

Start = tuple[Array, ...]  # of the free parameters


def with_starts(
    problem: Problem, init: Start | None, bounds: Mapping[str, tuple[Array, Array]], n_starts: int
) -> Problem:
    """The problem with its start within the limits, and with as many others as make `n_starts`.

    A guess knows neither bounds nor priors. With them the search begins at the lower of the guess and the best of some
    points within the bounds.
    """
    model = problem.model
    all_guessed = model.knows_valleys and init is None and (n_starts > 1 or bool(bounds))
    if n_starts == 1 and not all_guessed and (init is not None or not (bounds or problem.prior)):
        return dataclasses.replace(problem, start=_first(problem, init))
    within = {name: (low / problem.units[name], high / problem.units[name]) for name, (low, high) in bounds.items()}
    n_guesses = n_starts if all_guessed else max(n_starts - 1, 1)
    guesses = jax.vmap(lambda signal, known, within: model.guesses(signal, known, within, n_guesses), in_axes=-1)(
        _without_gaps(problem), problem.known, within
    )
    guesses = {name: jax.lax.stop_gradient(getattr(guesses, name)) for name in problem.free}
    others = jax.vmap(lambda guess: _completed(problem, guess), in_axes=-1)(guesses)
    if all_guessed:
        first, others = (tuple(leaf[part] for leaf in others) for part in (0, slice(1, None)))
        return dataclasses.replace(problem, start=first, **({"other_starts": others} if n_starts > 1 else {}))
    first = _first(problem, init)
    if n_starts > 1:
        return dataclasses.replace(problem, start=first, other_starts=others)
    other = tuple(leaf[0] for leaf in others)
    better = _misfit(problem, other) < _misfit(problem, first)
    start = tuple(jnp.where(better, b, a) for a, b in zip(first, other, strict=True))
    return dataclasses.replace(problem, start=start)


def _misfit(problem: Problem, start: Start) -> Array:
    """That of a start with the amplitude that fits best, as the solver has it from its first step on."""
    values = dict(zip(problem.free, start, strict=True))
    if problem.model.amplitude in values:
        values[problem.model.amplitude] = problem.best_amplitude(values)
    return problem.misfit(tuple(values.values()))


def _first(problem: Problem, init: Start | None) -> Start:
    model = problem.model
    if init is None:
        guess = model.batched_guess(_without_gaps(problem), problem.known)
        return _completed(problem, {name: getattr(guess, name) for name in problem.free})
    start = {name: value / problem.units[name] for name, value in zip(problem.free, init, strict=True)}
    return tuple(_clipped(problem, start).values())


def _completed(problem: Problem, guess: Mapping[str, Array]) -> Start:
    """A guess of the model within the limits; where it is searched, with the amplitude that fits best."""
    start = _clipped(problem, guess)
    if problem.model.amplitude in start and not problem.eliminates:
        start[problem.model.amplitude] = problem.best_amplitude(start)
    return tuple(start.values())


def _clipped(problem: Problem, guess: Mapping[str, Array]) -> dict[str, Array]:
    """In the order of the free parameters, which that of a mapping need not be within `jax.vmap`."""
    start: dict[str, Array] = {}
    for name, low, high in zip(problem.free, problem.lower, problem.upper, strict=True):
        s = guess[name]
        start[name] = s if jnp.iscomplexobj(s) else jnp.where(jnp.isfinite(s), jnp.clip(s, low, high), low)
    return start


def _without_gaps(problem: Problem) -> Array:
    """The signal as the first guess takes it where weights of zero leave measurements out."""
    signal, weights = problem.signal, problem.noise.weights
    if weights is None:
        return signal
    if problem.model.accepts_missing:
        return jnp.where(weights > 0, signal, jnp.nan)

    row, n = jnp.arange(signal.shape[0])[:, None], signal.shape[0]
    before = jax.lax.cummax(jnp.where(weights > 0, row, -1))
    after = jax.lax.cummin(jnp.where(weights > 0, row, n), reverse=True)
    before, after = jnp.where(before < 0, after, before), jnp.where(after == n, before, after)
    neighbours = [jnp.take_along_axis(signal, at, axis=0) for at in (before, after)]
    return jnp.where(weights > 0, signal, (neighbours[0] + neighbours[1]) / 2)
