"""How many processors this process may use."""

import functools
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def n_processors() -> int:
    """Those of its affinity, and no more than the CPU quota of its container allows."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on Windows and macOS; there, from Python 3.13 on:
    mine = len(affinity(0)) if affinity else getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return max(1, math.ceil(min(_quota(), mine)))


@functools.cache  # reading takes as long as fitting 2000 voxels
def _quota() -> float:
    return min(_quotas(), default=math.inf)


def _quotas(membership: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS) -> Iterator[float]:
    """Processors allowed by each control group that this process is in, version 2 (`cpu.max`) or 1 (`cpu.cfs_*`)."""
    with suppress(OSError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = root / controllers if controllers else root
            inner = top / path.lstrip("/")
            for group in (inner, *inner.parents):
                if group.is_relative_to(top):
                    yield from _quota_of(group)


def _quota_of(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((group / f"cpu.cfs_{n}_us").read_text(encoding="ascii") for n in ("quota", "period"))
        if float(quota) > 0:  # "max" is no number, -1 no limit
            yield float(quota) / float(period)
