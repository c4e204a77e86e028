"""What a run says about itself: versions, device, seconds, and the record of how its results were made."""

import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    here = {"jaxqmri": __version__, "python": platform.python_version()}
    return here | {package: version_of(package) or "not installed" for package in PACKAGES}


def version_of(package: str) -> str | None:
    """The version of a package, or None where it is not installed."""
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def surroundings() -> dict[str, Any]:
    """When, on which device and with which software."""
    device = jax.numpy.zeros(()).devices().pop()  # where new arrays go
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": f"{device.platform}:{device.id} {device.device_kind}",
        "versions": versions(),
        "platform": platform.platform(),
    }


def input_facts(series: ImageSeries) -> dict[str, Any]:
    """What was read, without paths and file names: they often carry names of patients."""
    axis, (whole, used) = series.axis, series.whole
    left_out = [float(f"{value:.12g}") for value in whole.values[~used]]
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
        **({f"left_out_{axis.key}": left_out} if left_out else {}),
        f"sha256_of_images_and_{axis.key.removesuffix(f'_{axis.unit}')}": content.hexdigest(),
    }


class Clock:
    """Wall-clock seconds by step; the time that JAX compiles is taken out of a step and has a name of its own."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds

    @contextmanager
    def __call__(self, step: str, compiling: str | None = None) -> Iterator[None]:
        compiled_before, start = sum(_compilations()), time.perf_counter()
        yield
        elapsed, compiled = time.perf_counter() - start, sum(_compilations()) - compiled_before
        taken_out = min(compiled, elapsed) if compiling else 0.0
        if compiling:
            self.seconds[compiling] = self.seconds.get(compiling, 0.0) + taken_out
        self.seconds[step] = elapsed - taken_out


@cache
def _compilations() -> list[float]:
    """Seconds of each step of tracing, lowering and compiling in this process, from now on."""
    durations: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            durations.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return durations
