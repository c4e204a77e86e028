"""What a run says about itself: versions, device, seconds, and the record of how its results were made."""

import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from .. import __version__
from ..io.series import ImageSeries
from ..io.storage.memory import in_c_order

PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "pydicom", "highdicom", "nibabel", "matplotlib")


def versions() -> dict[str, str]:
    """Versions of everything that decides a number or a file."""
    found = {"jaxqmri": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_in_use() -> str:
    """The device that new arrays go to, in words."""
    device = jax.numpy.zeros(()).devices().pop()
    return f"{device.platform}:{device.id} {device.device_kind}"


def surroundings() -> dict[str, Any]:
    """When, on what and with what."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_in_use(),
        "versions": versions(),
        "platform": platform.platform(),
    }


def input_facts(series: ImageSeries) -> dict[str, Any]:
    """What was read. Neither paths nor file names of the input: they often carry names of patients."""
    axis = series.axis
    content = hashlib.sha256()
    for piece in (*in_c_order(series.data), np.ascontiguousarray(series.values)):
        content.update(piece.data)
    return {
        "format": series.source_format,
        "n_files": series.n_files,
        "skipped": dict(series.skipped),
        "component": series.component,
        "shape": list(series.data.shape),
        axis.key: [float(f"{value:.12g}") for value in series.values],
        f"sha256_of_images_and_{axis.key.removesuffix(f'_{axis.unit}')}": content.hexdigest(),
    }


class Clock:
    """Wall-clock seconds by step; JAX's own compilation time is taken out of a step and put under its own name."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds

    @contextmanager
    def __call__(self, step: str, compiling: str | None = None) -> Iterator[None]:
        compiled_before, start = sum(_compilations()), time.perf_counter()
        yield
        elapsed, compiled = time.perf_counter() - start, sum(_compilations()) - compiled_before
        if compiling is not None:
            compiled = min(compiled, elapsed)
            self.seconds[compiling] = self.seconds.get(compiling, 0.0) + compiled
            elapsed -= compiled
        self.seconds[step] = elapsed


@cache
def _compilations() -> list[float]:
    """Seconds of each step of tracing, lowering and compiling in this process, from now on."""
    durations: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            durations.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return durations
