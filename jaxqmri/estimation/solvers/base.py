"""What all solvers share. `fit(solver=...)` takes any of them.

A batch is a structure of arrays: the signal is (measurement, voxel), every parameter a vector of voxels. No voxel
depends on another one: each has its own damping and stops by itself, so batch size and neighbours never change a
result.
"""

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
from jaxtyping import Array, Bool, Float, Inexact

from ...batching.batches import DEFAULT_BATCH_SIZE
from .. import linalg
from ..problem import Problem


class Solution(NamedTuple):
    """What a solver found."""

    values: tuple[Inexact[Array, " voxel"], ...]  # the free parameters
    converged: Bool[Array, " voxel"]  # whether the solver reached its own goal there
    cost: Float[Array, " voxel"]
    curvature: linalg.LowerTriangle  # half the second derivatives of the cost, in the coordinates of all unknowns
    # Of the second-lowest minimum, where several were looked for: inf where there is none.
    second_cost: Float[Array, " voxel"] | None = None
    second_point: Float[Array, "unknown voxel"] | None = None  # coordinates; those of the lowest where there is none


class Solver(eqx.Module):
    """A way to solve a `Problem`."""

    minimises: ClassVar[bool] = True  # the answer is where the cost is lowest, so it has the derivatives of a minimum
    most_on_a_cpu: ClassVar[int] = DEFAULT_BATCH_SIZE  # voxels that caches hold, if all are gone through very often

    @abc.abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """The free parameters of every voxel."""
