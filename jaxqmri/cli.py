"""The command `jaxqmri`: words in, exit codes out, no science.

Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 a bug, 2 usage, 3 no usable input, 4 corrupt or
inconsistent input, 5 missing or implausible metadata, 6 output not writable, 8 data set unavailable, 9 no such device
or out of memory, 130 interrupted. Nothing heavy is imported before it is known to be needed.
"""

import argparse
import io
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .io.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from .jobs import Job, JobResult

DEMO_FOLDER = "jaxqmri-demo"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never raises."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path that the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    code = _run(argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at exit
    return code


def _run(argv: Sequence[str] | None) -> int:
    started = time.perf_counter()
    arguments = None
    try:
        arguments = _parser().parse_args(argv)
        with _stop_on_sigterm(), _warnings_in_one_line(arguments):
            arguments.run(arguments, started)
    except SystemExit as stop:  # argparse has printed --help or --version
        return int(stop.code or 0)
    except KeyboardInterrupt:
        new_line = "\n" if sys.stderr.isatty() else ""  # the terminal has put ^C where the cursor was
        print(f"{new_line}jaxqmri: interrupted; no half-written file was left", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        return 0
    except Exception as error:
        return _report_error(error, debug=arguments is not None and arguments.debug)
    return 0


def _report_error(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    code = getattr(error, "exit_code", None)
    text = " ".join(str(error).split())
    if code is None and (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text):
        code, text = 9, "out of memory; map fewer slices at once, or choose another --device"
    if code is None and "Unable to initialize backend" in text:
        code, text = 9, f"no device to compute on ({text}); choose another --device, see jaxqmri doctor"
    if code is None:
        code = 1
        text = f"unexpected {type(error).__name__}: {text}. This is a bug; please report it with the output of --debug"
    print(f"jaxqmri: error: {text}", file=sys.stderr)
    return code


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that temporary files are removed."""

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, where nobody sends signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _warnings_in_one_line(arguments: argparse.Namespace) -> Iterator[None]:
    """What was mended in the input is said in one line each; other libraries' warnings only with -v."""

    def show(message, category, *_args, **_kwargs):
        ours = category.__name__ == "InputWarning"
        if arguments.debug or arguments.verbose or (ours and not arguments.quiet):
            print(f"jaxqmri: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


# --- the words --------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Complains in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxqmri", description="Maps of tissue properties from MR images.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"jaxqmri {__version__}")
    parser.set_defaults(run=lambda *_: parser.print_help(), verbose=False, quiet=False, debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    t2star = _map_command(commands, "t2star", _t2star, "T2* maps from multi-echo gradient echoes")
    t2star.add_argument(
        "--method", choices=("lm", "loglinear", "adam"), default="lm",
        help="lm: exact least squares (default); loglinear: weighted straight line through the logarithm; "
        "adam: 20 000 Adam steps, as in the ISMRM 2024 example, about 1000 times slower",
    )  # fmt: skip

    t2 = _map_command(commands, "t2", _t2, "T2 maps from multi-echo spin echoes")
    t2.add_argument(
        "--method", choices=("dictionary", "mono"), default="dictionary",
        help="dictionary: extended phase graphs of the echo train, T2 and B1 (default); "
        "mono: mono-exponential decay, for comparison; stimulated echoes make its T2 too long",
    )  # fmt: skip
    t2.add_argument(
        "--b1", metavar="FILE", type=Path,
        help="NIfTI map on the grid of the images, true / nominal flip angle; default: B1 is estimated",
    )  # fmt: skip
    t2.add_argument(
        "--refocusing-deg", metavar="DEG", type=float,
        help="nominal refocusing angle; default: FlipAngle of the images if above 90, else 180",
    )  # fmt: skip
    t2.add_argument(
        "--t1-ms", metavar="MS", type=float,
        help="T1 of all tissue, which hardly matters; default: 1000",
    )  # fmt: skip

    demo = _command(commands, "demo", _demo, "make a head with known T2*, map it, and compare with the truth")
    demo.add_argument("-o", "--out", metavar="OUT", type=Path, default=Path(DEMO_FOLDER), help="default: %(default)s")
    _add_job_options(demo)
    _add_loudness(demo)

    inspect = _command(commands, "inspect", _inspect, "what is in a folder, and what would be fitted")
    _add_input(inspect)
    _add_json(inspect)
    _add_loudness(inspect)

    doctor = _command(commands, "doctor", _doctor, "versions, devices, extras and DICOM codecs of this installation")
    _add_json(doctor)

    data = commands.add_parser("data", help="public data sets", description="Public data sets.", allow_abbrev=False)
    actions = data.add_subparsers(title="actions", metavar="list|fetch", dest="list or fetch", required=True)
    listing = _command(actions, "list", _data_list, "what there is")
    _add_json(listing)
    fetch = _command(actions, "fetch", _data_fetch, "download, verify and unpack one")
    fetch.add_argument("name", metavar="NAME", help="e.g. ismrm2024-t2star")
    return parser


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    description = summary[0].upper() + summary[1:] + "."
    parser = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _map_command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """A command that makes maps of images; what is its own comes on top."""
    parser = _command(commands, name, run, summary)
    _add_input(parser)
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--mask", metavar="FILE|auto|none", default="none",
        help="where to fit: a NIfTI mask, auto (leaves out air), or none (default: every voxel)",
    )  # fmt: skip
    _add_job_options(parser)
    _add_loudness(parser)
    return parser


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", metavar="INPUT", type=Path, nargs="+", help="folder of DICOM or NIfTI files, or the files themselves"
    )
    parser.add_argument(
        "--te-ms", metavar="MS", type=_milliseconds, nargs="+", action="extend",
        help="echo times in milliseconds, instead of those in the files, in the order of acquisition",
    )  # fmt: skip


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", help="cpu, gpu, tpu or e.g. gpu:1; default: the fastest there is")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument("--no-report", action="store_true", help="maps only, no picture and no report")
    _add_json(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the facts as JSON, numbers in SI units")


def _add_loudness(parser: argparse.ArgumentParser) -> None:
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-v", "--verbose", action="store_true", help="say more: files passed over, other libraries' warnings"
    )
    loudness.add_argument("-q", "--quiet", action="store_true", help="errors only, and what --json prints")


def _milliseconds(text: str) -> list[float]:
    """'2 4', '2,4' and '2, 4' all mean two echo times."""
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of milliseconds (folders and files go before --te-ms)"
        ) from error


def _echo_times(arguments: argparse.Namespace) -> list[float] | None:
    """--te-ms in seconds; nargs gives a list of lists."""
    if arguments.te_ms is None:
        return None
    return [te_ms / 1e3 for group in arguments.te_ms for te_ms in group]


# --- the commands -----------------------------------------------------------------------------------------------------


def _t2star(arguments: argparse.Namespace, started: float) -> None:
    from .jobs import t2star_job

    _run_job(t2star_job(arguments.method), arguments, started)


def _t2(arguments: argparse.Namespace, started: float) -> None:
    from math import radians

    from .jobs import t2_job

    angle, t1_ms = arguments.refocusing_deg, arguments.t1_ms
    job = t2_job(
        arguments.method,
        b1=arguments.b1,
        t1=None if t1_ms is None else t1_ms / 1e3,
        flip_angle=None if angle is None else radians(angle),
    )
    _run_job(job, arguments, started)


def _run_job(job: "Job", arguments: argparse.Namespace, started: float) -> None:
    from .jobs import run_job

    if arguments.verbose:
        _name_files_passed_over(arguments)
    with _device(arguments.device):
        result = run_job(
            job,
            arguments.inputs,
            arguments.out,
            mask=arguments.mask,
            te=_echo_times(arguments),
            overwrite=arguments.overwrite,
            report=not arguments.no_report,
            quiet=arguments.quiet,
            timings={"starting": time.perf_counter() - started},
        )
    _print_result(result, arguments)


def _name_files_passed_over(arguments: argparse.Namespace) -> None:
    from .inspection import inspect_images

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when the images are read
        skipped = inspect_images(arguments.inputs, _echo_times(arguments)).skipped
    for reason, names in skipped.items():
        print(f"jaxqmri: passed over: {len(names)} {reason}: {', '.join(names)}", file=sys.stderr)


def _demo(arguments: argparse.Namespace, started: float) -> None:
    from .demo import IMAGES, run_demo

    with _device(arguments.device):
        result = run_demo(
            arguments.out,
            overwrite=arguments.overwrite,
            report=not arguments.no_report,
            quiet=arguments.quiet,
            timings={"starting": time.perf_counter() - started},
        )
    _print_result(result, arguments)
    if not (arguments.json or arguments.quiet):
        print(f"images          {arguments.out / IMAGES}")


def _inspect(arguments: argparse.Namespace, started: float) -> None:
    from .inspection import inspect_images

    found = inspect_images(arguments.inputs, _echo_times(arguments))
    if arguments.json:
        _print_json(found.facts())
    else:
        print(found.text(verbose=arguments.verbose))


def _doctor(arguments: argparse.Namespace, started: float) -> None:
    from .inspection import installation, installation_text

    facts = installation()
    if arguments.json:
        _print_json(facts)
    else:
        print(installation_text(facts))


def _data_list(arguments: argparse.Namespace, started: float) -> None:
    from .io.datasets import list_datasets

    listings = list_datasets()
    if arguments.json:
        facts = [
            {"name": d.name, "doi": d.doi, "folder": str(folder), "cached": cached} for d, folder, cached in listings
        ]
        _print_json({"datasets": facts})
        return
    for dataset, folder, cached in listings:
        print(f"{dataset.name}: {dataset.title}")
        print(f"  {dataset.description}; {dataset.size_kb:g} kB, doi:{dataset.doi}")
        print(f"  in {folder}" if cached else f"  not fetched; jaxqmri data fetch {dataset.name}")


def _data_fetch(arguments: argparse.Namespace, started: float) -> None:
    from .io.datasets import fetch

    print(fetch(arguments.name, progress=sys.stderr.isatty()))


@contextmanager
def _device(name: str | None) -> Iterator[None]:
    """Makes the device called `name` the one that everything runs on."""
    if name is None:
        yield
        return
    import jax

    kind, _, index = name.partition(":")
    try:
        if not kind or index.startswith("-"):  # JAX would take the default, Python the last one
            raise ValueError(name)
        device = jax.devices(kind.lower())[int(index or 0)]
    except (RuntimeError, ValueError, IndexError) as error:
        raise DeviceError(
            f"--device {name}: not on this machine, which has {_devices()}; see jaxqmri doctor"
        ) from error
    with jax.default_device(device):
        yield


def _devices() -> str:
    import jax

    try:
        return ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
    except RuntimeError as error:
        return f"none that works ({error})"


# --- the results ------------------------------------------------------------------------------------------------------


def _print_json(facts: Mapping[str, Any]) -> None:
    from .io.atomic import strict_json

    sys.stdout.write(strict_json(facts))


def _print_result(result: "JobResult", arguments: argparse.Namespace) -> None:
    if arguments.json:
        _print_json(result.summary())
    elif not arguments.quiet:
        from .terminal import summary_lines

        print("\n".join(summary_lines(result)))


if __name__ == "__main__":
    sys.exit(main())
