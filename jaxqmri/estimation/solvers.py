"""Solvers: ways to the parameters of one batch of voxels. All share one interface; `fit(solver=...)` takes any of them.

A batch is a structure of arrays: the signal is (measurement, voxel), every parameter a vector of voxels. No voxel sees
another one: each has its own damping and stops by itself, so batch size and neighbours never change a result.
"""

import abc
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..models.base import SignalModel, sum_of_measurements
from . import linalg
from .derivatives import Values, with_derivatives

if TYPE_CHECKING:
    import optax

NormalEquations = tuple[Float[Array, " voxel"], Values, linalg.LowerTriangle]  # |r|^2, J'r, J'J


class Problem(eqx.Module):
    """One batch of voxels to be fitted, in units where the largest measurement of each voxel is 1.

    In scanner units a float32 tolerance is unreachable and voxels never converge.

    Attributes:
        model: the signal model, in the precision of the signal.
        signal: measurements, divided by `scale`.
        scale: largest magnitude of each voxel [a.u.].
        known: parameters held fixed, by field name; an amplitude is divided by `scale` as well.
        start: first guess of the free parameters.
        lower, upper: the range in which the free parameters can be told apart.
        free: names of the free parameters.
    """

    model: SignalModel
    signal: Float[Array, "n voxel"]
    scale: Float[Array, " voxel"]
    known: dict[str, Float[Array, " voxel"]]
    start: Values
    lower: Values
    upper: Values
    free: tuple[str, ...] = eqx.field(static=True)

    def predict(self, values: Values) -> Float[Array, "n voxel"]:
        """What the model measures for these free parameters."""
        return self.model.batched(self.model.parameters(**dict(zip(self.free, values, strict=True)), **self.known))

    def coordinates(self, values: Values) -> Values:
        """Unbounded coordinates: the logarithm of whatever is positive."""
        return tuple(v if name in self.model.signed else jnp.log(v) for name, v in zip(self.free, values, strict=True))

    def values(self, coordinates: Values) -> Values:
        """Inverse of `coordinates`."""
        return tuple(
            c if name in self.model.signed else jnp.exp(c) for name, c in zip(self.free, coordinates, strict=True)
        )

    def select(self, chosen: Int[Array, " chosen"]) -> "Problem":
        """The same problem for some of its voxels."""
        voxels = (self.signal, self.scale, self.known, self.start, self.lower, self.upper)
        return Problem(self.model, *jax.tree.map(lambda leaf: leaf[..., chosen], voxels), free=self.free)

    def normal_equations(self, coordinates: Values) -> NormalEquations:
        """Sum of squares, J'r and J'J of the residual r = model - signal in `coordinates`."""
        predicted, columns = with_derivatives(self.model, lambda c: self.predict(self.values(c)), coordinates)
        residual = predicted - self.signal
        gradient = tuple(_dot(column, residual) for column in columns)
        curvature = tuple(tuple(_dot(columns[i], columns[j]) for j in range(i + 1)) for i in range(len(columns)))
        return _dot(residual, residual), gradient, curvature


class Solution(NamedTuple):
    """What a solver found.

    Attributes:
        values: the free parameters.
        converged: whether the solver reached its own goal there.
        equations: `Problem.normal_equations` at the values.
    """

    values: Values
    converged: Bool[Array, " voxel"]
    equations: NormalEquations


class Solver(eqx.Module):
    """A way to solve a `Problem`."""

    @abc.abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """The free parameters of every voxel."""


class LevenbergMarquardt(Solver):
    """Damped Gauss-Newton steps to the least-squares solution, all voxels of a batch at once.

    Every voxel has its own damping (Marquardt's scaling by the diagonal of J'J), raised after a step that fails or
    falls short of what the linear model promised, lowered after one that keeps it. It stops when its step is below
    `tolerance`, a relative change of every positive parameter whatever its unit, or far below its error bar.
    Source: Marquardt, J. SIAM 11:431 (1963); More, LNM 630:105 (1978).

    Args:
        max_steps: steps before a voxel is given up as NOT_CONVERGED.
        tolerance: the step that ends the search; None: 1e-6 in float32, 1e-10 in float64.
    """

    max_steps: int = eqx.field(default=256, static=True)
    tolerance: float | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}.")

    def solve(self, problem: Problem) -> Solution:
        lower, upper = problem.coordinates(problem.lower), problem.coordinates(problem.upper)
        start = jax.tree.map(jnp.clip, problem.coordinates(problem.start), lower, upper)
        # Before the first step nothing is known and anything is better: one evaluation less to compile.
        zero, one = jnp.zeros_like(problem.scale), jnp.ones_like(problem.scale)
        unknown = tuple(tuple(one if i == j else zero for j in range(i + 1)) for i in range(len(start)))
        state = _LMState(
            point=start,
            damping=jnp.full_like(problem.scale, 1e-2),
            done=jnp.zeros(problem.scale.shape, bool),
            equations=(jnp.full_like(problem.scale, jnp.inf), (zero,) * len(start), unknown),
        )
        first_steps = min(_STEPS_TOGETHER, self.max_steps + 1)
        state = self._iterate(problem, state, first_steps)

        # Few voxels need many steps; they are gathered, so that the others are not paid for again.
        n_voxels = problem.scale.shape[0]
        n_stragglers = max(n_voxels // 1024 * 64, min(n_voxels, 128))

        def finish_some(carry):
            state, waiting = carry
            # Places left over point beyond the last voxel: they read that one, and what they write is dropped.
            chosen = jnp.nonzero(waiting, size=n_stragglers, fill_value=n_voxels)[0]
            some = jax.tree.map(lambda leaf: leaf[chosen], state)
            some = self._iterate(problem.select(chosen), some, self.max_steps + 1 - first_steps)
            state = jax.tree.map(lambda leaf, part: leaf.at[chosen].set(part, mode="drop"), state, some)
            return state, waiting.at[chosen].set(False, mode="drop")

        state, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[1]), finish_some, (state, ~state.done))
        return Solution(problem.values(state.point), state.done, state.equations)

    def _iterate(self, problem: Problem, state: "_LMState", steps: int) -> "_LMState":
        """At most so many steps, none where a voxel is done."""
        eps = float(jnp.finfo(problem.signal.dtype).eps)
        tolerance = max(8 * eps, 1e-10) if self.tolerance is None else self.tolerance
        lower, upper = problem.coordinates(problem.lower), problem.coordinates(problem.upper)

        def step(carry: tuple[Int[Array, ""], _LMState]) -> tuple[Int[Array, ""], _LMState]:
            count, (point, damping, done, equations) = carry
            cost, gradient, curvature = equations
            move = linalg.solve(linalg.cholesky(_damped(curvature, damping)), gradient)
            # At most a factor of e at once: a longer step leaves the region where the linear model means anything.
            shorten = 1 / jnp.maximum(jnp.max(jnp.abs(jnp.stack(move)), axis=0), 1.0)
            trial = jax.tree.map(lambda x, dx: x - shorten * dx, point, move)
            trial = jax.tree.map(jnp.clip, trial, lower, upper)
            taken = jax.tree.map(jnp.subtract, trial, point)
            promised = _promised_decrease(taken, gradient, curvature)
            trial_equations = problem.normal_equations(trial)
            gained = cost - trial_equations[0]
            # Near the minimum a step changes the cost by less than its rounding, yet still mends the parameters: a
            # strict comparison would stop at sqrt(eps), 3e-4 in float32.
            rounding = 4 * eps * cost
            better = (gained >= -rounding) & ~done
            # Steps that keep a quarter of their promise overshoot: with large residuals undamped ones swing for ever.
            factor = jnp.where(gained > 0.75 * promised - rounding, 0.1, jnp.where(gained < 0.25 * promised, 4.0, 1.0))
            damping = jnp.clip(damping * jnp.where(better, factor, 10.0), _LEAST_DAMPING, _MOST_DAMPING)
            moved = jnp.max(jnp.abs(jnp.stack(taken)), axis=0)
            # A step cut off at a bound may promise nothing, which is no sign of a minimum.
            settled = (moved <= tolerance) | ((promised >= 0) & (promised <= (10 * eps) ** 2 * cost))
            settled &= jnp.isfinite(cost)
            point, equations = jax.tree.map(
                lambda new, old: jnp.where(better, new, old), (trial, trial_equations), (point, equations)
            )
            return count + 1, _LMState(point, damping, done | settled, equations)

        return jax.lax.while_loop(
            lambda carry: (carry[0] < steps) & ~jnp.all(carry[1].done), step, (jnp.asarray(0), state)
        )[1]


class _LMState(NamedTuple):
    """Where each voxel is."""

    point: Values  # coordinates
    damping: Float[Array, " voxel"]
    done: Bool[Array, " voxel"]
    equations: NormalEquations  # at the point


_STEPS_TOGETHER = 8  # the first of them only evaluates the start; most voxels are done by then
_LEAST_DAMPING, _MOST_DAMPING = 1e-7, 1e7  # relative to the diagonal of J'J; 1e-7 is one ulp of float32


class LogLinear(Solver):
    """Straight line through the logarithm of the signal: closed form, exact without noise, biased with much of it.

    Needs a model with a `log_linear` method (`MonoExponential`) and no parameter held fixed.

    Args:
        weighted: weights S^2, which undo what the logarithm does to the noise; False gives every echo the same weight.
            The error bars are those of the least-squares fit, which the weighted line approaches and the unweighted
            one does not reach.
    """

    weighted: bool = eqx.field(default=True, static=True)

    def solve(self, problem: Problem) -> Solution:
        log_linear = getattr(problem.model, "log_linear", None)
        if log_linear is None or problem.known:
            raise ValueError(
                f"LogLinear solves MonoExponential with all its parameters free, not {type(problem.model).__name__} "
                f"with {sorted(problem.known)} known; use LevenbergMarquardt()."
            )
        params = jax.vmap(lambda s: log_linear(s, weighted=self.weighted), in_axes=-1)(problem.signal)
        values = tuple(getattr(params, name) for name in problem.free)
        equations = problem.normal_equations(problem.coordinates(values))
        return Solution(values, jnp.ones(problem.scale.shape, bool), equations)


class Stay(Solver):
    """Takes the start for the solution: error bars and residual of an answer found by other means, a match say."""

    def solve(self, problem: Problem) -> Solution:
        equations = problem.normal_equations(problem.coordinates(problem.start))
        return Solution(problem.start, jnp.ones(problem.scale.shape, bool), equations)


class Adam(Solver):
    """A fixed number of Adam steps on the parameters themselves, as in the ISMRM 2024 T2* example.

    A voxel counts as converged where a Gauss-Newton step from its end would change no parameter by 10 % or more, so its
    distance from the least-squares answer may be near that; the error bars are those of the least-squares answer.

    The loss is the mean of the squared residuals of each voxel (the example averages over voxels too, which ties a
    voxel's steps to the size of the image through Adam's epsilon). A constant learning rate leaves each voxel bouncing
    around its minimum. Source: Kingma, Ba, ICLR (2015).

    Args:
        learning_rate: step size, in the units of each parameter (s, and multiples of `scale`).
        steps: number of steps.
        scale: the signal is divided by this before the fit [a.u.]; None: by the largest value of each voxel.
    """

    learning_rate: Float[Array, ""] | float = 1e-3
    steps: int = eqx.field(default=20000, static=True)
    scale: Float[Array, ""] | float | None = None

    def solve(self, problem: Problem) -> Solution:
        import optax  # the default solver does without it

        return _descend(optax.adam(self.learning_rate), self.steps, self.scale, problem)


class Optax(Solver):
    """A fixed number of steps of any optax transformation on the parameters themselves; converged as with `Adam`.

    Transformations that look at all parameters together (a global norm, L-BFGS) tie the voxels of a batch to each
    other.

    Args:
        optimizer: an `optax.GradientTransformation`.
        steps: number of steps.
        scale: the signal is divided by this before the fit [a.u.]; None: by the largest value of each voxel.
    """

    optimizer: "optax.GradientTransformation" = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    scale: Float[Array, ""] | float | None = None

    def solve(self, problem: Problem) -> Solution:
        return _descend(self.optimizer, self.steps, self.scale, problem)


def _descend(optimizer: "optax.GradientTransformation", steps: int, scale: Any, problem: Problem) -> Solution:
    """Descends for `steps` steps; converged where the Gauss-Newton step still left is below 10 % of each parameter."""
    import optax

    optimizer = optax.with_extra_args_support(optimizer)
    rescale = jnp.ones_like(problem.scale) if scale is None else problem.scale / scale
    signal = problem.signal * rescale
    amplitude = problem.model.amplitude
    known = {name: v * rescale if name == amplitude else v for name, v in problem.known.items()}
    scaled = eqx.tree_at(lambda p: (p.signal, p.known), problem, (signal, known))

    def rescaled(values: Values, factor) -> Values:
        return tuple(v * factor if name == amplitude else v for name, v in zip(problem.free, values, strict=True))

    def loss(values: Values) -> Float[Array, ""]:
        return jnp.sum(jnp.mean((scaled.predict(values) - signal) ** 2, axis=0))

    def step(state, _):
        values, memory = state
        value, gradient = jax.value_and_grad(loss)(values)
        updates, memory = optimizer.update(gradient, memory, values, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(values, updates), memory), None

    start = rescaled(problem.start, rescale)
    (values, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)
    values = rescaled(values, 1 / rescale)  # pyright: ignore[reportArgumentType]

    inside = jnp.ones(problem.scale.shape, bool)
    for v, low, high in zip(values, problem.lower, problem.upper, strict=True):
        inside &= (v > low) & (v < high)
    safe = tuple(jnp.where(inside, v, s) for v, s in zip(values, problem.start, strict=True))
    equations = problem.normal_equations(problem.coordinates(safe))
    _, gradient, curvature = equations
    left = linalg.solve(linalg.cholesky(_damped(curvature, jnp.full_like(problem.scale, _LEAST_DAMPING))), gradient)
    return Solution(values, inside & (jnp.max(jnp.abs(jnp.stack(left)), axis=0) < 0.1), equations)


def _promised_decrease(step: Values, gradient: Values, curvature: linalg.LowerTriangle) -> Float[Array, " voxel"]:
    """By how much the linear model says that |r|^2 falls: -2 step'J'r - step'J'J step."""
    total = jnp.zeros_like(step[0])
    for i, row in enumerate(curvature):
        off_diagonal = sum((row[j] * step[j] for j in range(i)), start=jnp.zeros_like(total))
        total = total - step[i] * (2 * gradient[i] + row[i] * step[i] + 2 * off_diagonal)
    return total


def _damped(curvature: linalg.LowerTriangle, damping: Float[Array, " voxel"]) -> linalg.LowerTriangle:
    return tuple((*row[:-1], row[-1] * (1 + damping)) for row in curvature)


def _dot(a: Float[Array, "n voxel"], b: Float[Array, "n voxel"]) -> Float[Array, " voxel"]:
    return sum_of_measurements(a * b)
