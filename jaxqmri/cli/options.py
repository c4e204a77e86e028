"""Options: those of a job's settings, those that several commands share, and the values they stand for."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from ..errors import UsageError
from ..mapping.settings import SettingRow
from ..quantities import Axis


class Parser(argparse.ArgumentParser):
    """Complains in one line, as everything else here does; a command gets its options once it is asked for."""

    add_options: Callable[[argparse.ArgumentParser], None] | None = None

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As always, but words that no parser knows are laid to the command they were given to, not to all of it."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            words = " ".join(unknown)
            raise UsageError(f"unrecognized arguments: {words}; see {getattr(arguments, 'prog', self.prog)} --help")
        return arguments

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        add_options, self.add_options = self.add_options, None
        if add_options is not None:
            add_options(self)
        return super().parse_known_args(args, namespace)


def command(
    commands: Any, name: str, run: Any, summary: str, add_options: Callable[[argparse.ArgumentParser], None]
) -> None:
    """A command with what all of them have; `run` is called with the arguments and the time the program began."""
    description = summary[0].upper() + summary[1:] + "."
    parser = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    parser.set_defaults(run=run, prog=parser.prog)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_options = add_options


def add_setting(parser: Any, row: SettingRow) -> None:
    """The option that is a setting; see `settings_given`."""
    choices = [f"{word}: {meaning}" for word, meaning in row.choices.items() if meaning]
    if choices and not row.otherwise:
        choices[0] += " (default)"
    default = f"default: {row.otherwise}" if row.otherwise else ""
    kind: dict[str, Any]
    if row.is_map:
        kind = {"metavar": "|".join(["FILE", *row.choices]), "type": str}
        choices = ["a NIfTI file on the grid of the images", *choices]
    elif row.is_table:
        kind = {"metavar": "|".join([*row.choices, "FILE"]), "type": str}
    elif row.choices:
        kind = {"choices": tuple(row.choices)}
    elif row.axis is not None:
        unit = row.axis.shown_unit.upper()
        kind = {"metavar": unit, "nargs": "+", "action": "extend", "type": _numbers_for(row.axis)}
    elif row.is_list:
        kind = {"metavar": "N", "nargs": "+", "action": "extend"}
    elif row.is_range:
        kind = {"metavar": ("LOWEST", "HIGHEST"), "nargs": 2, "type": float}
    elif row.is_count:
        kind = {"metavar": "N", "type": int}
    else:
        unit = row.quantity.shown_unit if row.quantity else ""
        kind = {"metavar": unit.upper() or "X", "type": float}
    parser.add_argument(
        row.flag, dest=row.name, help="; ".join(filter(None, [row.help, *choices, default])).replace("%", "%%"), **kind
    )


def settings_given(arguments: argparse.Namespace, rows: Iterable[SettingRow]) -> dict[str, Any]:
    """What was typed for some settings, by name and in SI units."""
    typed = [(row, getattr(arguments, row.name)) for row in rows]
    return {row.name: _in_si(row, value) for row, value in typed if value is not None}


def _in_si(row: SettingRow, typed: Any) -> Any:
    if row.is_map or row.is_table:
        return typed if typed in row.choices else Path(typed)
    if row.axis is not None:
        return [row.axis.from_shown(number) for group in typed for number in group]  # nargs: a list of lists
    return row.quantity.from_shown(typed) if row.quantity is not None and not row.choices else typed


def add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", metavar="INPUT", type=Path, nargs="+",
        help="folder or archive (zip, tar, tar.gz) of DICOM or NIfTI files, or the files themselves",
    )  # fmt: skip


def add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(computes=True)
    parser.add_argument("--device", metavar="NAME", help="cpu, gpu, tpu or e.g. gpu:1; default: the fastest there is")
    parser.add_argument(
        "--chunk", metavar="N", type=int,
        help="voxels fitted at once, 32768 at most by default; fewer need less memory, no result changes",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument("--no-report", action="store_true", help="maps only, no picture and no report")
    add_no_names(parser)
    add_json(parser)
    add_loudness(parser)


def add_no_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-names", action="store_true",
        help="do not show the series' own names (SeriesDescription), free text that may name a person",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the facts as JSON, numbers in SI units")


def add_loudness(parser: argparse.ArgumentParser) -> None:
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-v", "--verbose", action="store_true", help="say more: files passed over, other libraries' warnings"
    )
    loudness.add_argument("-q", "--quiet", action="store_true", help="errors only, and what --json prints")


def _numbers_for(axis: Axis) -> Callable[[str], list[float]]:
    """'2 4', '2,4' and '2, 4' all mean two numbers."""

    def numbers(text: str) -> list[float]:
        try:
            return [float(word) for word in text.split(",") if word.strip()]
        except ValueError as error:
            wanted = f"a number of {axis.shown_unit_words} (folders and files go before --{axis.flag})"
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from error

    return numbers
