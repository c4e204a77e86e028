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
    """What a solver found.

    Attributes:
        values: the free parameters.
        converged: whether the solver reached its own goal there.
        cost: the misfit there.
        curvature: half its second derivatives, in the coordinates of all unknowns of the `Problem`.
    """

    values: tuple[Inexact[Array, " voxel"], ...]
    converged: Bool[Array, " voxel"]
    cost: Float[Array, " voxel"]
    curvature: linalg.LowerTriangle


class Solver(eqx.Module):
    """A way to solve a `Problem`.

    Class variables:
        minimises: its answer is where the cost is lowest, so that it has the derivatives of a minimum.
        most_on_a_cpu: voxels at once that a CPU's caches hold, if it goes through all of them very often.
    """

    minimises: ClassVar[bool] = True
    most_on_a_cpu: ClassVar[int] = DEFAULT_BATCH_SIZE

    @abc.abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """The free parameters of every voxel."""
