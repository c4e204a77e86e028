"""Seconds that can be compared, and the lines that say what they were taken on."""

import argparse
import datetime
import importlib.metadata
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

QUICK = 2.0  # s


class Timed(NamedTuple):
    """Seconds of the first call, the median of the later ones, and what the last one returned."""

    cold: float
    warm: float
    result: Any


def interleaved(candidates: dict[str, Callable[[], Any]], repeats: int, limit: float = math.inf) -> dict[str, Timed]:
    """Every repetition runs all candidates, as machines are faster at times.

    No further one begins once the warm ones have taken `limit` seconds.

    A quick one runs twice in a row, and the second time counts: for a tenth of a second the idle threads of the one
    before, or a processor that is asleep, would be measured instead.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    results: dict[str, Any] = {}
    for _ in range(repeats + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            results[name] = jax.block_until_ready(run())
            taken = time.perf_counter() - start
            if seconds[name] and taken < QUICK:
                start = time.perf_counter()
                results[name] = jax.block_until_ready(run())
                taken = time.perf_counter() - start
            seconds[name].append(taken)
        if sum(sum(taken[1:]) for taken in seconds.values()) > limit:
            break
    return {name: Timed(taken[0], statistics.median(taken[1:]), results[name]) for name, taken in seconds.items()}


def arguments(doc: str | None, repeats: int = 5, more: Callable[[argparse.ArgumentParser], Any] | None = None) -> Any:
    """The command line that all benchmarks have, `--small` and `--repeats`, and what `more` adds."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few voxels, one repetition: does everything run?")
    parser.add_argument("--repeats", type=int, help=f"warm runs whose median counts ({repeats})")
    if more is not None:
        more(parser)
    given = parser.parse_args()
    given.repeats = given.repeats or (1 if given.small else repeats)
    return given


def heading(peers: Iterable[str] = (), device: Any = None) -> str:
    """Date, machine and versions; peers that are not installed are left out."""
    device = device or jax.devices()[0]
    names = ("jax", "jaxqmri", "numpy", *peers)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names if _is_installed(name))
    return (
        f"{datetime.date.today()}. {device.platform} ({device.device_kind}), {processor()}, "
        f"{os.cpu_count()} processors, Python {platform.python_version()}, {versions}."
    )


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown, with an empty line behind it."""
    lines = [list(columns)]
    lines.append(["---"] * len(lines[0]))
    lines += [list(row) for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def span(seconds: float) -> str:
    """Three digits, in the unit that suits."""
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{factor * seconds:.3g} {unit}"
    return f"{seconds:.3g} s"


def processor() -> str:
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
