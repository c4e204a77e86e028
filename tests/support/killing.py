"""Runs that are killed at every step in turn, as a process of its own: `python killing.py FOLDER`. It never loads JAX.

FOLDER gets `old`, the results of an earlier run; a copy of it per step, `000`, `001` ..., as a run into it that was
killed at this step has left it; and `both`, into which two processes write again and again.
"""

import itertools
import json
import os
import shutil
import signal
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from jaxqmri.io.maps import write_maps
from jaxqmri.io.series import ImageSeries
from jaxqmri.io.storage.atomic import strict_json, write_bytes
from jaxqmri.io.storage.result_folder import RECORD, result_folder

SERIES = ImageSeries.from_arrays(np.ones((3, 2, 2, 2)), te=[0.01, 0.02])
OLD, NEW = ("S0map", "T2starmap", "R2starmap"), ("S0map", "T2starmap", "residual")
STEPS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")


def write(out: Path, names: tuple[str, ...], value: float) -> None:
    """A run whose maps have one value."""
    with result_folder(out, overwrite=True) as staged:
        write_maps(staged, {name: np.full((3, 2, 2), value) for name in names}, SERIES)
        outputs = [*(f"{name}{suffix}" for name in names for suffix in (".json", ".nii.gz")), RECORD]
        record = {"versions": {"jaxqmri": "0"}, "outputs": outputs, "value": value}
        write_bytes(staged / RECORD, strict_json(record).encode())


def kill_at(step: int) -> None:
    """From now on this process kills itself before its `step`-th call that changes the disk for good."""
    count = itertools.count()

    def deadly(name: str) -> Any:
        call = getattr(os, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(count) == step:
                if name == "fsync" and stat.S_ISREG(os.fstat(args[0]).st_mode):  # what was not synced may be lost
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    for name in STEPS:
        setattr(os, name, deadly(name))


def killed(out: Path, step: int) -> bool:
    """Whether a run into `out`, over an older one, has met its end at this step."""
    child = os.fork()
    if child == 0:
        kill_at(step)
        write(out, NEW, 2.0)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    write(folder / "old", OLD, 1.0)
    for step in itertools.count():
        out = Path(shutil.copytree(folder / "old", folder / f"{step:03d}"))
        if not killed(out, step):
            break
    children = []
    for value in (1.0, 2.0):
        children.append(os.fork())
        if children[-1] == 0:
            for _ in range(10):
                write(folder / "both", OLD if value == 1 else NEW, value)
            os._exit(0)
    print(json.dumps({"steps": step, "codes": [os.waitpid(child, 0)[1] for child in children]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
