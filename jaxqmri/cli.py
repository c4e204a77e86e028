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
    from .jobs import JobResult

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

    t2star = _command(commands, "t2star", _t2star, "T2* maps from multi-echo gradient echoes")
    _add_input(t2star)
    t2star.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder for the results")
    t2star.add_argument(
        "--method", choices=("lm", "loglinear", "adam"), default="lm",
        help="lm: exact least squares (default); loglinear: weighted straight line through the logarithm; "
        "adam: 20 000 Adam steps, as in the ISMRM 2024 example, about 1000 times slower",
    )  # fmt: skip
    t2star.add_argument(
        "--mask", metavar="FILE|auto|none", default="none",
        help="where to fit: a NIfTI mask, auto (leaves out air), or none (default: every voxel)",
    )  # fmt: skip
    _add_job_options(t2star)
    _add_loudness(t2star)

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
    from .jobs import run_t2star

    if arguments.verbose:
        _name_files_passed_over(arguments)
    with _device(arguments.device):
        result = run_t2star(
            arguments.inputs,
            arguments.out,
            method=arguments.method,
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
        print("\n".join(_summary_lines(result)))


def _summary_lines(result: "JobResult") -> Iterator[str]:
    from .jobs import in_words

    summary = result.summary()
    te_ms = [1e3 * te for te in summary["echo_times_s"]]
    yield f"input           {len(te_ms)} echoes, TE {te_ms[0]:g} ... {te_ms[-1]:g} ms, {summary['n_voxels']} voxels"
    if maps := summary["maps"]:
        low, median, high = (1e3 * maps["T2starmap"][key] for key in ("q25", "median", "q75"))
        yield f"T2*             {median:.2f} ms median, quartiles {low:.2f} ... {high:.2f} ms"
        yield f"relative error  {100 * maps['residual']['median']:.2f} % median"
    shares = (f"{n} {name} ({100 * n / summary['n_voxels']:.1f} %)" for name, n in summary["status"].items())
    yield f"voxels          {', '.join(shares)}"
    if result.regions:
        yield from ("", *_table(in_words(result.regions)), "")
    seconds = (f"{step} {spent:.2f} s" for step, spent in summary["timings_s"].items())
    yield f"time            {', '.join(seconds)}"
    yield f"maps            {result.out}"
    if "report.html" in result.files:
        yield f"report          {result.out / 'report.html'}"


def _table(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """First column to the left, numbers to the right."""
    columns = list(rows[0])
    lines = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *numbers])


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
