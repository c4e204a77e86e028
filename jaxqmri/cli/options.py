"""The words of the command line that several commands share, and the numbers they stand for."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..errors import UsageError


class Parser(argparse.ArgumentParser):
    """Complains in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As always, but words that no parser knows are laid to the command they were given to, not to all of it."""
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            words = " ".join(unknown)
            raise UsageError(f"unrecognized arguments: {words}; see {getattr(arguments, 'prog', self.prog)} --help")
        return arguments


def command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """A command with what all of them have; `run` is called with the arguments and the time the program began."""
    description = summary[0].upper() + summary[1:] + "."
    parser = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    parser.set_defaults(run=run, prog=parser.prog)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def map_command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """A command that makes maps of images; what is its own comes on top."""
    parser = command(commands, name, run, summary)
    add_input(parser)
    add_series(parser)
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--mask", metavar="FILE|auto|none", default="none",
        help="where to fit: a NIfTI mask, auto (leaves out air), or none (default: every voxel)",
    )  # fmt: skip
    add_negative(parser)
    add_noise(parser)
    parser.add_argument("--dicom", action="store_true", help="also write the maps as DICOM Parametric Map objects")
    parser.add_argument(
        "--dicom-identity", choices=("remove", "keep"), default="remove",
        help="keep: under the patient and study of the images, which must be DICOM; default: remove, anonymous",
    )  # fmt: skip
    add_job_options(parser)
    add_loudness(parser)
    return parser


def add_negative(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--negative", choices=("keep", "abs"), default="keep",
        help="magnitudes below zero: keep fits them as they are, as the real part of the signal (default), abs their "
        "absolute values",
    )  # fmt: skip


def add_noise(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--noise", choices=("gaussian", "rician"), default="gaussian",
        help="rician: magnitudes drowning in noise, which least squares (gaussian, default) fits with a bias",
    )  # fmt: skip
    parser.add_argument(
        "--sigma", metavar="X", type=float,
        help="standard deviation of the noise, in units of the images; default: from the residuals of each voxel, "
        "with rician from the air around the patient",
    )  # fmt: skip


def add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", metavar="INPUT", type=Path, nargs="+",
        help="folder or zip archive of DICOM or NIfTI files, or the files themselves",
    )  # fmt: skip


def add_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--series", metavar="N", nargs="+", action="extend", default=[],
        help="read only the series of this number or, in DICOM, of a UID that begins so; several where each is one "
        "echo, inversion time or flip angle",
    )  # fmt: skip


def add_echo_times(parser: Any) -> None:
    _add_values(parser, "--te-ms", "MS", "echo times in milliseconds")


def add_inversion_times(parser: Any) -> None:
    _add_values(parser, "--ti-ms", "MS", "inversion times in milliseconds")


def add_flip_angles(parser: Any) -> None:
    _add_values(parser, "--flip-deg", "DEG", "nominal flip angles in degrees")


def add_b1(parser: argparse.ArgumentParser, where: str, default: str) -> None:
    parser.add_argument(
        "--b1", metavar="FILE", type=Path,
        help=f"{where}NIfTI map on the grid of the images, true / nominal flip angle; default: {default}",
    )  # fmt: skip


def _add_values(parser: Any, option: str, metavar: str, what: str) -> None:
    parser.add_argument(
        option, metavar=metavar, type=_numbers_for(option), nargs="+", action="extend",
        help=f"{what}, instead of those in the files, in the order of acquisition",
    )  # fmt: skip


def add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", help="cpu, gpu, tpu or e.g. gpu:1; default: the fastest there is")
    parser.add_argument(
        "--chunk", metavar="N", type=int,
        help="voxels fitted at once, 32768 at most by default; fewer need less memory, no result changes",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument("--no-report", action="store_true", help="maps only, no picture and no report")
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the facts as JSON, numbers in SI units")


def add_loudness(parser: argparse.ArgumentParser) -> None:
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-v", "--verbose", action="store_true", help="say more: files passed over, other libraries' warnings"
    )
    loudness.add_argument("-q", "--quiet", action="store_true", help="errors only, and what --json prints")


def _numbers_for(option: str) -> Callable[[str], list[float]]:
    """'2 4', '2,4' and '2, 4' all mean two numbers."""
    unit = "degrees" if option.endswith("-deg") else "milliseconds"

    def numbers(text: str) -> list[float]:
        try:
            return [float(word) for word in text.split(",") if word.strip()]
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number of {unit} (folders and files go before {option})"
            ) from error

    return numbers


def values_given(arguments: argparse.Namespace, axis: str) -> list[float] | None:
    """--te-ms, --ti-ms or --flip-deg in SI units; nargs gives a list of lists."""
    from ..quantities import AXES

    option = AXES[axis].option
    groups = getattr(arguments, option.removeprefix("--").replace("-", "_"), None)
    return None if groups is None else [AXES[axis].from_shown(number) for group in groups for number in group]


def seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3
