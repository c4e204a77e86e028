"""What a job fits, and that in the words of sidecars."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import ArrayLike, Float

from ... import __version__
from ...estimation.noise import Noise
from ...estimation.solvers.base import Solver
from ...estimation.solvers.levenberg_marquardt import LevenbergMarquardt
from ...models.base import Params, SignalModel
from ...quantities import Status


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is fitted to the voxels of a series."""

    model: SignalModel  # with the protocol of the images
    equation: str  # its formula in plain text
    plain: SignalModel | None = None  # the same without its last parameter: `DeltaAICc` says whether that is worth it
    maps: Mapping[str, str]  # name of a map -> the parameter it shows: the main map, the amplitude, others
    estimated: Sequence[str]  # in print
    known: Mapping[str, ArrayLike] = field(default_factory=dict)  # parameters, by field: a number or (x, y, z)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of parameters, see `fit`
    solver: Solver = field(default_factory=LevenbergMarquardt)
    # The signal and what is known of its voxels -> where to start; None: the model's own guess.
    start: Callable[[Float[ArrayLike, "voxel n"], Mapping[str, ArrayLike]], Params | None] = lambda *_: None
    batch_size: int | None = None  # voxels fitted at once; None: as `fit` chooses
    algorithm: str = ""  # how the search is called in sidecars; "": by the name of the solver
    algorithm_settings: Mapping[str, Any] = field(default_factory=dict)  # beside those of the solver
    assumed: Sequence[str] = ()  # what is taken for granted, in words
    facts: Mapping[str, Any] = field(default_factory=dict)  # what else sidecars say


def sidecar_facts(plan: Plan, noise: Noise | None, noise_level: str | None) -> dict[str, Any]:
    """How the maps were made; `noise_level` says where that comes from, None: from the user or the residuals."""
    if noise is None or noise.least_squares:
        known = noise is not None and noise.sigma is not None
        error_bars = f"sqrt(diag(inv(J'J)) s^2), {'s = sigma, given' if known else 's^2 = sum(r^2) / (n - p)'}"
    else:
        error_bars = "sqrt(diag(inv(I))) with the expected (Fisher) information I"
    solver = vars(plan.solver).items()
    solver = {name: value if isinstance(value, int | float | None) else str(value) for name, value in solver}
    return {
        "Model": type(plan.model).__name__,
        "Equation": plan.equation,
        "EstimationAlgorithm": plan.algorithm or type(plan.solver).__name__,
        "EstimationSettings": {**plan.algorithm_settings, **solver},
        "Noise": noise_level or _in_words(noise),
        "ErrorBars": error_bars,
        "Levels": {str(int(s)): s.name for s in Status},
        "GeneratedBy": [{"Name": "jaxqmri", "Version": __version__}],
        "EstimationSoftware": {"jax": jax.__version__, "equinox": eqx.__version__, "numpy": np.__version__},
        "EstimatedParameters": list(plan.estimated),
        **plan.facts,
        **({"Assumptions": list(plan.assumed)} if plan.assumed else {}),
    }


def _in_words(noise: Noise | None) -> str:
    if noise is None or noise.sigma is None:
        return "Gaussian, its level from the residuals"
    sigma = f"sigma {float(noise.sigma):.6g}" if noise.sigma.ndim == 0 else "sigma from a map"
    return f"{type(noise).__name__}, {sigma}"
