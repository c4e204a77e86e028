"""The maps there are, one module each; what all of them share is in `job`, `settings` and the folder `fitting`."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import lazy_loader

from .job import Job

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"fitting.voxels": ["auto_mask"]})


@cache
def all_jobs() -> tuple[type[Job], ...]:
    """Every job, by name: a module of this folder that defines one is all it takes."""
    modules = [import_module(f".{found.name}", __name__) for found in iter_modules(__path__) if not found.ispkg]
    defined = [thing for module in modules for thing in vars(module).values() if isinstance(thing, type)]
    jobs = {thing for thing in defined if issubclass(thing, Job) and thing is not Job}
    return tuple(sorted(jobs, key=lambda job: job.name))
