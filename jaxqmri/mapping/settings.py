"""The settings of a job: each is stated once, as a field, and read by all who offer, take or record it.

    t1: float | None = setting(None, "T1 of all tissue", otherwise="1 s")

Unit and option come from the row of that name in `jaxqmri.quantities`.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from ..errors import Setting, UsageError, flag_of
from ..quantities import QUANTITIES, Axis, Quantity

Number = int | float


@dataclass(frozen=True, kw_only=True)
class SettingRow:
    """One setting of a job."""

    name: str = ""  # the field, and the argument in Python
    default: Any = None  # None: what `otherwise` says, or else the first of its choices
    help: str = ""
    otherwise: str = ""  # what happens where it is None
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)  # words -> their meaning, the default first
    or_object: str = ""  # what it can be besides its choices, for callers of functions
    object_type: str = ""  # the type of that, "package.module:Class", loaded only to check
    in_python: str = ""  # what it is for callers of functions, where that differs
    is_map: bool = False  # a number or a map on the grid of the images; on the command line a NIfTI file
    is_table: bool = False  # one of its choices, or the path of a file that is read by its job
    is_list: bool = False  # several words
    are_numbers: bool = False  # several words, of whole numbers and ranges of them: 1,3-8
    is_count: bool = False  # a whole number
    is_range: bool = False  # two numbers, the lower one first
    of_reading: bool = False  # it matters while images are read, not to those who have an `ImageSeries`
    always_stated: bool = False  # the words that run a job again name it also at its default

    @property
    def quantity(self) -> Quantity | None:
        """Its row in `QUANTITIES`, an `Axis` for values of what varies."""
        return QUANTITIES.get(self.name)

    @property
    def axis(self) -> Axis | None:
        """What varies, if these are the values of it."""
        return self.quantity if isinstance(self.quantity, Axis) else None

    @property
    def flag(self) -> str:
        """Its option: "--t1-ms"."""
        return flag_of(self.name)

    @property
    def key(self) -> str:
        """Its name in a record, with its SI unit: "t1_s"."""
        unit = self.quantity.unit if self.quantity else "1"
        return self.name if unit == "1" else f"{self.name}_{unit}"

    def recorded(self, value: Any) -> Any:
        """A value for JSON, in SI units; of a map only that there is one, as its path may name a person."""
        if value is None:
            return None if self.otherwise else next(iter(self.choices), None)
        if self.axis is not None or self.is_range:
            return [float(number) for number in value]
        if self.is_list:
            return ["UID" if "." in word else word for word in value]  # a UID leads to the patient
        if isinstance(value, str | Number):
            return value
        return "FILE" if self.is_map or isinstance(value, Path) else type(value).__name__

    def words(self, value: Any) -> str:
        """What states a value on the command line; "" for the default, unless it is always stated."""
        recorded = self.recorded(value)
        if recorded == self.recorded(self.default) and not self.always_stated:
            return ""
        if self.axis is not None:
            return f"{self.flag} {self.axis.listed(value, ' ')}"
        if self.is_range:
            return f"{self.flag} {' '.join(f'{number:.10g}' for number in recorded)}"
        if isinstance(recorded, Number):
            return f"{self.flag} {recorded * (self.quantity.shown_per_si if self.quantity else 1):.10g}"
        return f"{self.flag} {' '.join(recorded) if self.is_list else recorded}"

    def check(self, value: Any) -> None:
        """Raises UsageError where it is none of the choices, text in place of a map, or no numbers."""
        if self.are_numbers and value:
            whole_numbers(self.name, value, 1)
        if value is None or (isinstance(value, str) and value in self.choices):
            return
        if self.is_map and isinstance(value, str):
            words = "".join(f', or "{word}"' for word in self.choices)
            raise UsageError(
                Setting(self.name),
                f" {value!r} is text, not a map; give an array (x, y, z) or the pathlib.Path of a NIfTI file{words}.",
            )
        of_type = (
            bool(self.object_type) and not isinstance(value, str) and isinstance(value, resolve_name(self.object_type))
        )
        of_type |= self.is_table and isinstance(value, Path)
        if self.choices and not self.is_map and not of_type:
            other = f" or {self.or_object}" if self.or_object else ""
            raise UsageError(Setting(self.name), f" {value!r} is not one of {', '.join(self.choices)}{other}.")

    def documented(self) -> str:
        """What it is, for callers of functions."""
        if self.in_python:
            return self.in_python
        kind = "a number or a map (x, y, z)" if self.is_map else ""
        unit = f" [{self.quantity.unit}]" if self.quantity and self.quantity.unit != "1" else ""
        choices = "; ".join(f'"{word}": {meaning}' for word, meaning in self.choices.items())
        parts = filter(None, (self.help, kind, choices, self.or_object and f"or {self.or_object}"))
        return f"{', '.join(parts)}{unit}.{f' None: {self.otherwise}.' if self.otherwise else ''}"


def whole_numbers(name: str, words: Sequence[str], last: int) -> list[int]:
    """The numbers that words such as "1,3-8" or "3-" (to the `last`) mean; raises UsageError where they mean none."""
    found: list[int] = []
    for part in ",".join(words).split(","):
        matched = re.fullmatch(r"\s*([1-9]\d{0,5})(-(\d{0,6}))?\s*", part)
        first, end = (int(matched[1]), matched[3]) if matched else (1, "0")
        to = first if end is None else int(end or max(first, last))
        if to < first:
            text = " ".join(words)
            raise UsageError(Setting(name), f" {text!r}: give numbers from 1 and ranges of them, as 2-12 or 1,3-8.")
        found += range(first, to + 1)
    return found


def images_named(many: str) -> Any:
    """The setting that names some of the images of a series."""
    words = f"use only these {many}, counted from 1, as 2-12 or 1,3-8 or 2-"
    return setting((), words, is_list=True, are_numbers=True, of_reading=True)


def setting(default: Any, help: str = "", **facts: Any) -> Any:
    """A field of a job that is one of its settings; `facts` are attributes of its `SettingRow`."""
    return dataclasses.field(default=default, metadata={"row": SettingRow(default=default, help=help, **facts)})


def values_of(axis: Axis) -> Any:
    """The setting for the values of what varies between the images [s] or [rad]."""
    order = "ascending, or in the order of acquisition where the files tell none"
    return setting(None, f"{axis.terms} instead of those in the files, {order}", of_reading=True)


@cache
def settings_of(job: type) -> tuple[SettingRow, ...]:
    """The settings of a job: its own, then those that all jobs have."""
    rows = [replace(field.metadata["row"], name=field.name) for field in dataclasses.fields(job) if field.metadata]
    inherited = {row.name for row in settings_of(job.__base__)} if dataclasses.is_dataclass(job.__base__) else set()  # pyright: ignore[reportArgumentType]
    order = list(job.__annotations__)  # dataclasses put first what a base class has a default for
    own = sorted((row for row in rows if row.name not in inherited), key=lambda row: order.index(row.name))
    return (*own, *(row for row in rows if row.name in inherited))
