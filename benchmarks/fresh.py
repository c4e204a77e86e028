"""Whole commands, each run a new process."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """What to run with this Python, and what has to be done before each run, not timed."""

    arguments: list[str]
    before: Callable[[], object] = lambda: None


def seconds(commands: Mapping[str, Command], repeats: int, cache: Path) -> dict[str, list[float]]:
    """Wall seconds from start to exit; every repetition runs all commands.

    Args:
        commands: by name.
        repeats: runs of each.
        cache: where they keep what they compiled; the user's own cache is left alone.
    """
    # The variables of JAX would take the choice of the folder from the command.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    environment = kept | {"XDG_CACHE_HOME": str(cache), "MPLCONFIGDIR": str(cache / "matplotlib")}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            command.before()
            start = time.perf_counter()
            run = subprocess.run([sys.executable, *command.arguments], capture_output=True, text=True, env=environment)
            taken[name].append(time.perf_counter() - start)
            if run.returncode:
                raise SystemExit(f"{name} failed with exit code {run.returncode}: {run.stderr.strip()[-2000:]}")
    return taken


def median_and_least(taken: list[float]) -> tuple[float, float]:
    return statistics.median(taken), min(taken)
