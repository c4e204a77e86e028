"""The problem that a solver is given, for a batch of voxels: unknowns, predictions, and the equations of one step.

The signal is linear in its amplitude a. Under least squares a is eliminated: for each set of the other parameters it is
the one that fits best, a = <f, y> / <f, f>, with y the signal and f the model for an amplitude of 1. What is left is a
smaller problem whose derivatives are those of the model, projected to be at right angles to f. One unknown less needs
one derivative less, no first guess, and fewer steps.
Source: Kaufman, BIT 15:49 (1975); Golub, Pereyra, Inverse Problems 19:R1 (2003).
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from ..models.base import SignalModel, sum_of_measurements
from . import linalg
from .derivatives import Signals, Values, with_derivatives
from .noise import Noise, squared_magnitude


class Equations(NamedTuple):
    """What a step is computed from.

    Attributes:
        cost: misfit of the voxel, sum of `Noise.terms`.
        gradient: half its derivatives with respect to the coordinates.
        curvature: half its (expected) second derivatives.
        amplitude: the best one at this point, if it is eliminated.
        energy: <f, f>.
        overlaps: <f, df/dx> for every coordinate x.
    """

    cost: Float[Array, " voxel"]
    gradient: Values
    curvature: linalg.LowerTriangle
    amplitude: Inexact[Array, " voxel"] | None = None
    energy: Float[Array, " voxel"] | None = None
    overlaps: tuple[Inexact[Array, " voxel"], ...] = ()


class Problem(eqx.Module):
    """One batch of voxels, in units where the largest measurement of each voxel is 1.

    In scanner units a float32 tolerance is unreachable and voxels never converge.

    Attributes:
        model: the signal model, in the precision of the signal.
        noise: what is known of the noise, for every voxel, in these units.
        signal: measurements, divided by `scale`; complex ones are compared as they are, real ones with magnitudes.
        scale: largest magnitude of each voxel [a.u.].
        known: parameters held fixed, by field name; an amplitude is divided by `scale` as well.
        start: first guess of the free parameters.
        lower, upper: the range in which the free parameters can be told apart.
        free: names of the free parameters.
    """

    model: SignalModel
    noise: Noise
    signal: Inexact[Array, "n voxel"]
    scale: Float[Array, " voxel"]
    known: dict[str, Inexact[Array, " voxel"]]
    start: tuple[Inexact[Array, " voxel"], ...]
    lower: Values
    upper: Values
    free: tuple[str, ...] = eqx.field(static=True)

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
        """Whether the amplitude is left to linear algebra."""
        return self.model.amplitude in self.free and len(self.free) > 1 and self.noise.least_squares

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
        return tuple(
            jax.jvp(lambda c, name=name: self._from_coordinate(name, c), (coordinate,), (jnp.ones_like(coordinate),))[1]
            for name, coordinate in zip(self.unknowns, coordinates, strict=True)
        )

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

    def complete(self, point: Values, equations: Equations) -> tuple[Inexact[Array, " voxel"], ...]:
        """The free parameters at a point that was searched."""
        if not self.eliminates:
            return self.values(point)
        parts = [self._from_coordinate(name, c) for name, c in zip(self.searched, point, strict=True)]
        place = self.free.index(self.model.amplitude)
        return (*parts[:place], equations.amplitude, *parts[place:])  # pyright: ignore[reportReturnType]

    def select(self, chosen: Int[Array, " chosen"]) -> "Problem":
        """The same problem for some of its voxels."""
        voxels = (self.noise, self.signal, self.scale, self.known, self.start, self.lower, self.upper)
        return Problem(self.model, *jax.tree.map(lambda leaf: leaf[..., chosen], voxels), free=self.free)

    def inside(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Bool[Array, " voxel"]:
        """Whether every free parameter is within its range."""
        inside = jnp.ones(self.scale.shape, bool)
        for name, v, low, high in zip(self.free, values, self.lower, self.upper, strict=True):
            if not self._is_complex_amplitude(name):
                inside &= (v > low) & (v < high)
        return inside

    @property
    def energy(self) -> Float[Array, " voxel"]:
        """Sum of squares of the signal, weighted."""
        squares = squared_magnitude(self.signal)
        return sum_of_measurements(squares if self.noise.weights is None else self.noise.weights * squares)

    def rescaled(self, factor: Float[Array, " voxel"]) -> "Problem":
        """The same problem in units 1 / factor as large."""
        known = {name: v * factor if name in self.model.signal_units else v for name, v in self.known.items()}
        noise = self.noise
        if noise.sigma is not None:
            noise = eqx.tree_at(lambda noise: noise.sigma, noise, noise.sigma * factor)
        return dataclasses.replace(
            self, noise=noise, signal=self.signal * factor, scale=self.scale / factor, known=known
        )

    # --- predictions and equations ------------------------------------------------------------------------------------

    def predict(self, values: tuple[Inexact[Array, " voxel"], ...]) -> Signals:
        """What the model measures for these free parameters."""
        params = self.model.parameters(**dict(zip(self.free, values, strict=True)), **self.known)
        return self._as_measured(self.model.batched(params))

    def best_amplitude(self, params: Mapping[str, Inexact[Array, " voxel"]]) -> Inexact[Array, " voxel"]:
        """The least-squares amplitude for these other free parameters, within its limits."""
        place = self.free.index(self.model.amplitude)
        one = {**params, self.model.amplitude: jnp.ones_like(self.scale)}
        f = self.predict(tuple(one[name] for name in self.free))
        best = _dot(f, self.signal) / jnp.maximum(_dot(f, f).real, jnp.finfo(self.scale.dtype).tiny)
        return best if self.is_complex else jnp.clip(best, self.lower[place], self.upper[place])

    def cost(self, coordinates: Values) -> Float[Array, " voxel"]:
        """Misfit for these coordinates of all unknowns."""
        return sum_of_measurements(self.noise.terms(self.predict(self.values(coordinates)), self.signal)[0])

    def full_equations(self, coordinates: Values) -> Equations:
        """The equations in all unknowns, none eliminated."""
        predicted, columns = with_derivatives(self.model, lambda c: self.predict(self.values(c)), coordinates)
        cost, score, weight = self.noise.terms(predicted, self.signal)
        weighted = columns if weight is None else [weight * column for column in columns]
        gradient = tuple(_dot(column, score).real for column in columns)
        return Equations(sum_of_measurements(cost), gradient, _products(columns, weighted))

    def equations(self, point: Values) -> Equations:
        """The equations in the unknowns that are searched."""
        if not self.eliminates:
            return self.full_equations(point)
        names = [name for name in self.free if name != self.model.amplitude]
        one = {self.model.amplitude: jnp.ones_like(self.scale)}

        def predict(coordinates: Values) -> Signals:
            values = {n: self._from_coordinate(n, c) for n, c in zip(names, coordinates, strict=True)}
            return self._as_measured(self.model.batched(self.model.parameters(**one, **values, **self.known)))

        f, columns = with_derivatives(self.model, predict, point)
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
        return Equations(_dot(residual, weighted_residual).real, gradient, curvature, amplitude, energy, overlaps)

    def full_curvature(self, equations: Equations) -> linalg.LowerTriangle:
        """J'J in the coordinates of all unknowns, from the equations in those that are searched."""
        if not self.eliminates:
            return equations.curvature
        a, energy = equations.amplitude, equations.energy
        assert a is not None
        assert energy is not None
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

    def _as_measured(self, predicted: Signals) -> Signals:
        """A magnitude image shows no phase."""
        return jnp.abs(predicted) if jnp.iscomplexobj(predicted) and not self.is_complex else predicted


def _products(columns: list[Signals], weighted: list[Signals]) -> linalg.LowerTriangle:
    return tuple(tuple(_dot(columns[i], weighted[j]).real for j in range(i + 1)) for i in range(len(columns)))


def _dot(a: Signals, b: Signals) -> Inexact[Array, " voxel"]:
    return sum_of_measurements(a.conj() * b)
