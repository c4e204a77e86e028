"""The problem that a solver is given, for a batch of voxels: unknowns, predictions, and the equations of one step.

The signal is linear in its amplitude a. Under least squares a is eliminated: for each set of the other parameters it is
the one that fits best, a = <f, y> / <f, f>, with y the signal and f the model for an amplitude of 1. What is left is a
smaller problem whose derivatives are those of the model, projected to be at right angles to f. One unknown less needs
one derivative less, no first guess, and fewer steps.
Source: Kaufman, BIT 15:49 (1975); Golub, Pereyra, Inverse Problems 19:R1 (2003).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..models.base import SignalModel, sum_of_measurements
from ..models.guess import total
from . import linalg
from .noise import Noise, squared_magnitude

Values = tuple[Float[Array, " voxel"], ...]  # one vector per parameter
Signals = Inexact[Array, "n voxel"]


class Equations(NamedTuple):
    """What a step is computed from; the last three only where the amplitude is eliminated."""

    cost: Float[Array, " voxel"]  # misfit, sum of `Noise.terms`
    gradient: Values  # half its derivatives with respect to the coordinates
    curvature: linalg.LowerTriangle  # half its (expected) second derivatives
    amplitude: Inexact[Array, " voxel"] | None = None  # the best one at this point
    energy: Float[Array, " voxel"] | None = None  # <f, f>
    overlaps: tuple[Inexact[Array, " voxel"], ...] = ()  # <f, df/dx> for every coordinate x


class Problem(eqx.Module):
    """One batch of voxels, in units where the largest measurement of each voxel is 1.

    In scanner units a float32 tolerance is unreachable and voxels never converge.
    """

    model: SignalModel  # in the precision of the signal
    noise: Noise
    signal: Inexact[Array, "n voxel"]  # complex ones are compared as they are, real ones with magnitudes
    scale: Float[Array, " voxel"]  # largest magnitude [a.u.]
    known: dict[str, Inexact[Array, " voxel"]]
    start: tuple[Inexact[Array, " voxel"], ...]  # of the free parameters
    lower: Values
    upper: Values
    free: tuple[str, ...] = eqx.field(static=True)
    # Mean, and sigma over standard deviation: residuals beside those of the measurements are weight (x - mean).
    prior: dict[str, tuple[Float[Array, " voxel"], Float[Array, " voxel"]]] = eqx.field(default_factory=dict)
    bounded: tuple[str, ...] = eqx.field(default=(), static=True)  # parameters whose range is not all of the model's
    other_starts: tuple[Inexact[Array, "start voxel"], ...] = ()

    # --- unknowns -----------------------------------------------------------------------------------------------------

    @property
    def is_complex(self) -> bool:
        return jnp.iscomplexobj(self.signal)

    @property
    def units(self) -> dict[str, Float[Array, " voxel"] | float]:
        """Of every parameter of the model: what turns its value here into that of the user."""
        fields = self.model.parameters._fields  # pyright: ignore[reportAttributeAccessIssue]
        return {name: self.scale if name in self.model.signal_units else 1.0 for name in fields}

    @property
    def eliminates(self) -> bool:
        """Whether the amplitude is left to linear algebra, which knows neither bounds nor priors."""
        constrained = self.model.amplitude in (*self.bounded, *self.prior)
        least_squares = self.noise.least_squares and not constrained
        return self.model.amplitude in self.free and len(self.free) > 1 and least_squares

    @property
    def unknowns(self) -> tuple[str, ...]:
        """The real numbers to be found, by name of their parameter; a complex amplitude is two."""
        doubled = self.model.amplitude if self.is_complex else None
        return tuple(name for name in self.free for _ in range(2 if name == doubled else 1))

    def split(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Values:
        """Free parameters as real numbers, one per unknown."""
        parts = []
        for name, value in zip(self.free, values, strict=True):
            parts += [value.real, value.imag] if self._is_complex_amplitude(name) else [value]
        return tuple(parts)

    def join(self, parts: Values) -> tuple[Inexact[Array, " voxel"], ...]:
        """Inverse of `split`."""
        rest = list(parts)
        return tuple(
            jax.lax.complex(rest.pop(0), rest.pop(0)) if self._is_complex_amplitude(name) else rest.pop(0)
            for name in self.free
        )

    def coordinates(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Values:
        """Every unknown as the fit moves it, see `SignalModel.to_coordinate`."""
        parts = self.split(values)
        return tuple(self._to_coordinate(name, part) for name, part in zip(self.unknowns, parts, strict=True))

    def values(self, coordinates: Values) -> tuple[Inexact[Array, " voxel"], ...]:
        """Inverse of `coordinates`."""
        return self.join(tuple(self._from_coordinate(n, c) for n, c in zip(self.unknowns, coordinates, strict=True)))

    def slopes(self, coordinates: Values) -> Values:
        """d(unknown) / d(coordinate)."""
        return tuple(self._value_and_slope(n, c)[1] for n, c in zip(self.unknowns, coordinates, strict=True))

    def _value_and_slope(self, name: str, coordinate: Float[Array, " voxel"]) -> Values:
        return jax.jvp(lambda c: self._from_coordinate(name, c), (coordinate,), (jnp.ones_like(coordinate),))

    def _is_complex_amplitude(self, name: str) -> bool:
        return self.is_complex and name == self.model.amplitude

    def _to_coordinate(self, name: str, value: Float[Array, " voxel"]) -> Float[Array, " voxel"]:
        return value if self._is_complex_amplitude(name) else self.model.to_coordinate(name, value)

    def _from_coordinate(self, name: str, coordinate: Float[Array, " voxel"]) -> Float[Array, " voxel"]:
        return coordinate if self._is_complex_amplitude(name) else self.model.from_coordinate(name, coordinate)

    # --- what the solvers search --------------------------------------------------------------------------------------

    @property
    def searched(self) -> tuple[str, ...]:
        """The unknowns that are searched step by step: all, or all but an eliminated amplitude."""
        return tuple(n for n in self.unknowns if not (self.eliminates and n == self.model.amplitude))

    def place(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Values:
        """Coordinates of the unknowns that are searched."""
        every = zip(self.unknowns, self.coordinates(values), strict=True)
        return tuple(c for name, c in every if name in self.searched)

    def range(self) -> tuple[Values, Values]:
        """Lowest and highest coordinates of the unknowns that are searched."""
        of_name = dict(zip(self.free, zip(self.lower, self.upper, strict=True), strict=True))
        ends = [tuple(self._to_coordinate(name, end) for end in of_name[name]) for name in self.searched]
        return tuple(jnp.minimum(a, b) for a, b in ends), tuple(jnp.maximum(a, b) for a, b in ends)

    def within(self, point: Values, bounds: tuple[Values, Values]) -> Values:
        """The point that is searched, moved into the bounds; parameters that would be out of order meet half way."""
        moved = list(jax.tree.map(jnp.clip, point, *bounds))
        places = [self.searched.index(name) for name in self.model.ordered if name in self.searched]
        if len(places) == 2:
            low, high = places
            excess = jnp.maximum(moved[low] - moved[high], 0.0) / 2
            moved[low], moved[high] = moved[low] - excess, moved[high] + excess
        return tuple(moved)

    def complete(self, point: Values, equations: Equations) -> tuple[Inexact[Array, " voxel"], ...]:
        """The free parameters at a point that was searched."""
        return self.values(point) if equations.amplitude is None else self._with_amplitude(point, equations.amplitude)

    def _with_amplitude(self, point: Values, amplitude: Inexact[Array, " voxel"]) -> tuple[Array, ...]:
        parts = [self._from_coordinate(name, c) for name, c in zip(self.searched, point, strict=True)]
        place = self.free.index(self.model.amplitude)
        return (*parts[:place], amplitude, *parts[place:])

    def select(self, chosen: Int[Array, " chosen"]) -> "Problem":
        """The same problem for some of its voxels."""
        names = ("noise", "signal", "scale", "known", "start", "lower", "upper", "prior")
        some = jax.tree.map(lambda leaf: leaf[..., chosen], {name: getattr(self, name) for name in names})
        return dataclasses.replace(self, **some, other_starts=())

    def inside(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Bool[Array, " voxel"]:
        """Whether every free parameter is within its range, its ends included."""
        lower, upper = self._ends()
        inside = jnp.ones(self.scale.shape, bool)
        for v, low, high, ended in zip(self.split(values), lower, upper, self.at_end(values), strict=True):
            inside &= ((v > low) & (v < high)) | ended
        return inside

    def at_end(self, values: tuple[Inexact[Array, " voxel"], ...]) -> list[Bool[Array, " voxel"]]:
        """Which unknowns are at an end of their range, to rounding."""
        rounding = 8 * float(jnp.finfo(self.scale.dtype).eps)
        ends = zip(self.split(values), *self._ends(), strict=True)
        return [_is_close(v, low, rounding) | _is_close(v, high, rounding) for v, low, high in ends]

    def nearer_ends(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Values:
        """Coordinates of the end of its range that each unknown is nearer to; where there is none, those of a 1."""
        ends = []
        for name, v, low, high in zip(self.unknowns, self.split(values), *self._ends(), strict=True):
            low, high = (jnp.where(jnp.isfinite(end), end, 1.0) for end in (low, high))
            ends.append(self._to_coordinate(name, jnp.where(jnp.abs(v - low) < jnp.abs(v - high), low, high)))
        return tuple(ends)

    def _ends(self) -> tuple[Values, Values]:
        """Lowest and highest value of every unknown; the parts of a complex amplitude have no limit."""
        of_name = dict(zip(self.free, zip(self.lower, self.upper, strict=True), strict=True))
        none = jnp.full_like(self.scale, jnp.inf)
        ends = [(-none, none) if self._is_complex_amplitude(n) else of_name[n] for n in self.unknowns]
        return tuple(low for low, _ in ends), tuple(high for _, high in ends)

    @property
    def energy(self) -> Float[Array, " voxel"]:
        """Sum of squares of the signal, weighted."""
        squares = squared_magnitude(self.signal)
        return sum_of_measurements(squares if self.noise.weights is None else self.noise.weights * squares)

    def rescaled(self, factor: Float[Array, " voxel"]) -> "Problem":
        """The same problem in units 1 / factor as large."""
        units = self.model.signal_units
        known = {name: v * factor if name in units else v for name, v in self.known.items()}
        prior = {name: (m * factor, w) if name in units else (m, w * factor) for name, (m, w) in self.prior.items()}
        noise = self.noise
        if noise.sigma is not None:
            noise = eqx.tree_at(lambda noise: noise.sigma, noise, noise.sigma * factor)
        return dataclasses.replace(
            self, noise=noise, signal=self.signal * factor, scale=self.scale / factor, known=known, prior=prior
        )

    # --- predictions and equations ------------------------------------------------------------------------------------

    def predict(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Signals:
        """What the model measures for these free parameters."""
        params = self.model.parameters(**dict(zip(self.free, values, strict=True)), **self.known)
        predicted = self.model.batched(params)
        # A magnitude image shows no phase.
        return jnp.abs(predicted) if jnp.iscomplexobj(predicted) and not self.is_complex else predicted

    def best_amplitude(self, params: Mapping[str, Inexact[Array, " voxel"]]) -> Inexact[Array, " voxel"]:
        """The least-squares amplitude for these other free parameters, within its limits."""
        place = self.free.index(self.model.amplitude)
        one = {**params, self.model.amplitude: jnp.ones_like(self.scale)}
        f = self.predict(tuple(one[name] for name in self.free))
        best = _dot(f, self.signal) / jnp.maximum(_dot(f, f).real, jnp.finfo(self.scale.dtype).tiny)
        return best if self.is_complex else jnp.clip(best, self.lower[place], self.upper[place])

    def misfit(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Float[Array, " voxel"]:
        """What is to be minimised, for these free parameters."""
        of_signal = sum_of_measurements(self.noise.terms(self.predict(values), self.signal)[0])
        return of_signal + self.prior_misfit(values) if self.prior else of_signal

    def prior_misfit(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Float[Array, " voxel"]:
        """The part of the misfit that is due to the prior: each one is a measurement of its parameter."""
        of_name = dict(zip(self.free, values, strict=True))
        terms = [(weight * (of_name[name] - mean)) ** 2 for name, (mean, weight) in self.prior.items()]
        return total(terms) if terms else jnp.zeros_like(self.scale)

    def cost(self, coordinates: Values) -> Float[Array, " voxel"]:
        """Misfit for these coordinates of all unknowns."""
        return self.misfit(self.values(coordinates))

    def full_equations(self, coordinates: Values) -> Equations:
        """The equations in all unknowns, none eliminated."""
        predicted, columns = with_derivatives(self.model, lambda c: self.predict(self.values(c)), coordinates)
        cost, score, weight = self.noise.terms(predicted, self.signal)
        weighted = columns if weight is None else [weight * column for column in columns]
        gradient = tuple(_dot(column, score).real for column in columns)
        equations = Equations(sum_of_measurements(cost), gradient, _products(columns, weighted))
        return self._with_prior(equations, self.unknowns, coordinates)

    def equations(self, point: Values) -> Equations:
        """The equations in the unknowns that are searched."""
        if not self.eliminates:
            return self.full_equations(point)
        one = jnp.ones_like(self.scale)
        f, columns = with_derivatives(self.model, lambda x: self.predict(self._with_amplitude(x, one)), point)
        weights = self.noise.weights
        weigh = (lambda signals: signals) if weights is None else (lambda signals: weights * signals)
        weighted_f = weigh(f)
        energy = jnp.maximum(_dot(f, weighted_f).real, jnp.finfo(self.scale.dtype).tiny)
        amplitude = _dot(weighted_f, self.signal) / energy
        overlaps = tuple(_dot(weighted_f, column) for column in columns)
        residual = amplitude * f - self.signal
        weighted_residual = weigh(residual)
        projected = [amplitude * (g - f * (u / energy)) for g, u in zip(columns, overlaps, strict=True)]
        gradient = tuple(_dot(g, weighted_residual).real for g in projected)
        curvature = _products(projected, [weigh(g) for g in projected])
        cost = _dot(residual, weighted_residual).real
        equations = Equations(cost, gradient, curvature, amplitude, energy, overlaps)
        return self._with_prior(equations, self.searched, point)

    def _with_prior(self, equations: Equations, names: tuple[str, ...], coordinates: Values) -> Equations:
        """With a row more for every prior."""
        cost, gradient, curvature = equations.cost, list(equations.gradient), list(equations.curvature)
        for i, (name, coordinate) in enumerate(zip(names, coordinates, strict=True)):
            if name not in self.prior:
                continue
            mean, weight = self.prior[name]
            value, slope = self._value_and_slope(name, coordinate)
            residual, column = weight * (value - mean), weight * slope
            cost, gradient[i] = cost + residual**2, gradient[i] + residual * column
            curvature[i] = (*curvature[i][:-1], curvature[i][-1] + column**2)
        return equations._replace(cost=cost, gradient=tuple(gradient), curvature=tuple(curvature))

    def full_curvature(self, equations: Equations) -> linalg.LowerTriangle:
        """J'J in the coordinates of all unknowns, from the equations in those that are searched."""
        a, energy = equations.amplitude, equations.energy
        if a is None or energy is None:
            return equations.curvature
        # Every column of J is a multiple of f plus, for those that are searched, what is at right angles to it.
        logarithmic = not self.is_complex and self.model.amplitude not in self.model.signed
        of_amplitude = [(1.0, None), (1j, None)] if self.is_complex else [(a if logarithmic else 1.0, None)]
        of_searched = [(a * u / energy, place) for place, u in enumerate(equations.overlaps)]
        before = self.free.index(self.model.amplitude)
        columns = [*of_searched[:before], *of_amplitude, *of_searched[before:]]

        def product(i: int, j: int) -> Float[Array, " voxel"]:
            (p, place_p), (q, place_q) = columns[i], columns[j]
            along = energy * jnp.real(jnp.conj(p) * q)
            if place_p is None or place_q is None:
                return along
            return along + equations.curvature[place_p][place_q]

        return tuple(tuple(product(i, j) for j in range(i + 1)) for i in range(len(columns)))


def _is_close(values: Float[Array, " voxel"], end: Float[Array, " voxel"], relative: float) -> Bool[Array, " voxel"]:
    return jnp.isfinite(end) & (jnp.abs(values - end) <= relative * jnp.abs(end))


def _products(columns: list[Signals], weighted: list[Signals]) -> linalg.LowerTriangle:
    return tuple(tuple(_dot(columns[i], weighted[j]).real for j in range(i + 1)) for i in range(len(columns)))


def _dot(a: Signals, b: Signals) -> Inexact[Array, " voxel"]:
    return sum_of_measurements(a.conj() * b)


def with_derivatives(
    model: SignalModel, predict: Callable[[Values], Signals], values: Values
) -> tuple[Signals, list[Signals]]:
    """`predict(values)` and its derivative with respect to each of the values.

    Those of a recursion are carried forward with the signal, in one pass over the echoes that keeps nothing: 2.5
    times faster than to linearise it first, and half as long to compile. A formula is linearised, there 10 % faster.
    """
    units = linalg.unit_vectors(values)
    if model.sequential:
        directions = jax.tree.map(lambda *parts: jnp.stack(parts), *units)
        signal, stacked = jax.vmap(lambda d: jax.jvp(predict, (values,), (d,)), out_axes=(None, 0))(directions)
        columns = list(stacked)
    else:
        signal, push = jax.linearize(predict, values)
        columns = [push(unit) for unit in units]
    # Without the barrier every later use would evaluate the model again.
    return jax.lax.optimization_barrier((signal, columns))
