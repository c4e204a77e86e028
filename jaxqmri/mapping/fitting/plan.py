"""What a job fits, and that in the words of sidecars."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ... import __version__
from ...estimation.noise import Noise
from ...estimation.solvers.base import Solver
from ...estimation.solvers.levenberg_marquardt import LevenbergMarquardt
from ...models.base import Params, SignalModel
from ...quantities import Status


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is fitted to the voxels of a series.

    Attributes:
        model: the signal model, with the protocol of the images.
        equation: its formula in plain text.
        maps: name of a map -> the parameter it shows: the main map, the amplitude, others.
        estimated: what is estimated, in print.
        known: parameters that are known, by field: a number or (x, y, z).
        solver: how to search.
        start: signal (voxel, n) and what is known of its voxels -> where to start; None: the model's own guess.
        batch_size: voxels fitted at once; None: as `fit` chooses.
        algorithm: how the search is called in sidecars; "": by the name of the solver.
        algorithm_settings: what sidecars say of it beside the settings of the solver.
        assumed: what is taken for granted, in words.
        facts: what else sidecars say.
    """

    model: SignalModel
    equation: str
    maps: Mapping[str, str]
    estimated: Sequence[str]
    known: Mapping[str, ArrayLike] = field(default_factory=dict)
    solver: Solver = field(default_factory=LevenbergMarquardt)
    start: Callable[[Float[Array, "voxel n"], Mapping[str, ArrayLike]], Params | None] = lambda *_: None
    batch_size: int | None = None
    algorithm: str = ""
    algorithm_settings: Mapping[str, Any] = field(default_factory=dict)
    assumed: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def sidecar_facts(plan: Plan, noise: Noise | None, noise_level: str | None) -> dict[str, Any]:
    """How the maps were made.

    Args:
        plan: what was fitted.
        noise: what was known of the noise.
        noise_level: where its level comes from, in words; None: from the user or the residuals.
    """
    if noise is None or noise.least_squares:
        known = noise is not None and noise.sigma is not None
        error_bars = f"sqrt(diag(inv(J'J)) s^2), {'s = sigma, given' if known else 's^2 = sum(r^2) / (n - p)'}"
    else:
        error_bars = "sqrt(diag(inv(I))) with the expected (Fisher) information I"
    solver = vars(plan.solver).items()
    solver = {name: value if isinstance(value, int | float) else str(value) for name, value in solver}
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
