"""Seconds that can be compared."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def interleaved(candidates: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """(cold, median warm) seconds of each; every repetition runs all of them, as machines are faster at times."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: (values[0], statistics.median(values[1:])) for name, values in seconds.items()}
