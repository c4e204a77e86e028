"""The maps there are, one module each; what all of them share is in `job`, `settings` and the folder `fitting`."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from .job import Job

if TYPE_CHECKING:
    from ..io.maps import Maps
    from .fitting.voxels import auto_mask as auto_mask


@cache
def all_jobs() -> tuple[type[Job], ...]:
    """Every job, by name: a module of this folder that defines one is all it takes."""
    modules = [import_module(f".{found.name}", __name__) for found in iter_modules(__path__) if not found.ispkg]
    defined = [thing for module in modules for thing in vars(module).values() if isinstance(thing, type)]
    jobs = {thing for thing in defined if issubclass(thing, Job) and thing is not Job}
    return tuple(sorted(jobs, key=lambda job: job.name))


def __getattr__(name: str) -> "Callable[..., Maps]":
    """What the command line does without: `t1_map`, ..., the functions of the jobs, and `auto_mask`."""
    made: Any = None
    if name == "auto_mask":
        made = import_module(".fitting.voxels", __name__).auto_mask
    elif name.endswith("_map"):
        from .function import map_function

        made = next((map_function(job) for job in all_jobs() if name == f"{job.name}_map"), None)
    if made is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made
    return made
