"""First-order solvers: a fixed number of steps of gradient descent. For comparison: least squares is faster."""

from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import linalg
from ..problem import Problem, Values
from .base import Solution, Solver
from .levenberg_marquardt import LEAST_DAMPING

if TYPE_CHECKING:
    import optax


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

    most_on_a_cpu: ClassVar[int] = 2048  # three times faster; not for `Optax`, which may look at all voxels together
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
    scaled = problem.rescaled(rescale)
    n = problem.signal.shape[0]

    def rescaled(parts: Values, factor) -> Values:
        units = problem.model.signal_units
        return tuple(v * factor if name in units else v for name, v in zip(problem.unknowns, parts, strict=True))

    def loss(parts: Values) -> Float[Array, ""]:
        return jnp.sum(scaled.misfit(scaled.join(parts))) / n

    def step(state, _):
        values, memory = state
        value, gradient = jax.value_and_grad(loss)(values)
        updates, memory = optimizer.update(gradient, memory, values, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(values, updates), memory), None

    start = rescaled(problem.split(problem.start), rescale)
    (parts, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)
    values = problem.join(rescaled(parts, 1 / rescale))  # pyright: ignore[reportArgumentType]

    inside = problem.inside(values)
    safe = tuple(jnp.where(inside, v, s) for v, s in zip(values, problem.start, strict=True))
    equations = problem.full_equations(problem.coordinates(safe))
    barely = linalg.add_to_diagonal(equations.curvature, [LEAST_DAMPING * row[-1] for row in equations.curvature])
    left = linalg.solve(linalg.cholesky(barely), equations.gradient)
    converged = inside & (jnp.max(jnp.abs(jnp.stack(left)), axis=0) < 0.1)
    return Solution(values, converged, equations.cost, equations.curvature)
