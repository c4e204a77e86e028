"""How maps were made, in the words of their sidecars."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .. import __version__
from ..estimation.noise import Noise
from ..estimation.solvers.base import Solver
from ..models.base import SignalModel
from ..quantities import Status


def settings(solver: Solver) -> dict[str, Any]:
    """The settings of a solver, ready for JSON."""
    return {name: value if isinstance(value, int | float) else str(value) for name, value in vars(solver).items()}


def how(
    model: SignalModel, equation: str, algorithm: str, settings: Mapping[str, Any], noise: Noise | None
) -> dict[str, Any]:
    """How the maps were made; `Assumptions` and the like come on top.

    Args:
        model: the signal model.
        equation: its formula in plain text.
        algorithm: the name of the solver.
        settings: its settings.
        noise: what was known of the noise.
    """
    if noise is None or noise.least_squares:
        known = noise is not None and noise.sigma is not None
        error_bars = f"sqrt(diag(inv(J'J)) s^2), {'s = sigma, given' if known else 's^2 = sum(r^2) / (n - p)'}"
    else:
        error_bars = "sqrt(diag(inv(I))) with the expected (Fisher) information I"
    return {
        "Model": type(model).__name__,
        "Equation": equation,
        "EstimationAlgorithm": algorithm,
        "EstimationSettings": dict(settings),
        "Noise": _noise_in_words(noise),
        "ErrorBars": error_bars,
        "Levels": {str(int(s)): s.name for s in Status},
        "GeneratedBy": [{"Name": "jaxqmri", "Version": __version__}],
        "EstimationSoftware": {"jax": jax.__version__, "equinox": eqx.__version__, "numpy": np.__version__},
    }


def _noise_in_words(noise: Noise | None) -> str:
    if noise is None or noise.sigma is None:
        return "Gaussian, its level from the residuals"
    sigma = f"sigma {float(noise.sigma):.6g}" if noise.sigma.ndim == 0 else "sigma from a map"
    return f"{type(noise).__name__}, {sigma}"
