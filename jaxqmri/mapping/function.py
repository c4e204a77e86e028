"""The function of a job in Python, `t1_map`, ..., with its settings as keyword arguments."""

import inspect
from collections.abc import Callable, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from .job import Job
from .settings import SettingRow, settings_of

if TYPE_CHECKING:
    from ..io.maps import Maps


def map_function(job: type[Job]) -> "Callable[..., Maps]":
    """The function of a job for images that are read already: its settings as keyword arguments."""
    rows = [row for row in settings_of(job) if not row.of_reading]
    series = inspect.Parameter("series", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="ImageSeries")
    defaults = {row.name: row.default for row in rows} | {"progress": None}
    by_name = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name]) for name in defaults]
    signature = inspect.Signature([series, *by_name], return_annotation="Maps")

    def function(*arguments: Any, **settings: Any) -> "Maps":
        try:
            bound = signature.bind(*arguments, **settings).arguments
        except TypeError as error:
            raise TypeError(f"{function.__name__}{signature}: {error}.") from None
        series, progress = bound.pop("series"), bound.pop("progress", None)
        return job(**bound).estimate(series, progress).maps

    function.__name__ = function.__qualname__ = f"{job.name}_map"
    function.__module__ = __name__.rpartition(".")[0]
    function.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    function.__doc__ = _documentation(job, rows)
    return function


def _documentation(job: type[Job], rows: Sequence[SettingRow]) -> str:
    """The docstring of a job with its settings as arguments."""
    first, returns, rest = inspect.cleandoc(job.__doc__ or "").partition("Returns:")
    images = " or ".join(f"different {axis.terms}" for row in settings_of(job) if (axis := row.axis))
    arguments = [f"series: {' or '.join(job.components)} images of {images}."]
    arguments += [f"{row.name}: {row.documented()}" for row in rows]
    arguments += ["progress: called with the number of voxels done after each batch."]
    wrapped = [fill(text, 116, initial_indent=" " * 4, subsequent_indent=" " * 8) for text in arguments]
    return "\n".join([f"{first}Args:", *wrapped, "", f"{returns}{rest}"])
