"""The words of the command line and what they start. Heavy parts are imported when a command needs them."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import DeviceError, UsageError, on_the_command_line, remarks_collected
from ..mapping import all_jobs
from ..mapping.job import Job
from ..mapping.settings import SettingRow, settings_of
from .options import (
    Parser,
    add_input,
    add_json,
    add_loudness,
    add_no_names,
    add_run_options,
    add_setting,
    command,
    settings_given,
)
from .terminal import show, tell, tell_traceback

if TYPE_CHECKING:
    from ..workflow.run import JobResult


def axis_settings() -> list[SettingRow]:
    """The settings of all jobs for what varies between images."""
    return list({row.name: row for job in all_jobs() for row in settings_of(job) if row.axis}.values())


def parser() -> argparse.ArgumentParser:
    """The parser; what it returns has `run`, a function of the arguments and of the time at which the program began."""
    parser = Parser(prog="jaxqmri", description="Maps of tissue properties from MR images.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"jaxqmri {__version__}")
    parser.set_defaults(run=lambda *_: parser.print_help(), verbose=False, quiet=False, debug=False, computes=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for job in all_jobs():
        command(commands, job.name, _map, job.summary, partial(_add_map, job=job))
    of_datasets = "T2*, T2 and T1 maps of every series of a BIDS dataset, as a derivative"
    command(commands, "bids", _bids, of_datasets, _add_bids)
    command(commands, "demo", _demo, "make a head with known T2*, map it, and compare with the truth", _add_demo)
    command(commands, "inspect", _inspect, "what is in a folder, and what would be fitted", _add_inspect)
    command(commands, "doctor", _doctor, "versions, devices, extras and DICOM codecs of this installation", _add_doctor)
    data = commands.add_parser("data", help="public data sets", description="Public data sets.", allow_abbrev=False)
    actions = data.add_subparsers(title="actions", metavar="list|fetch", dest="list or fetch", required=True)
    command(actions, "list", _data_list, "what there is", add_json)
    command(actions, "fetch", _data_fetch, "download, verify and unpack one", _add_data_fetch)
    return parser


# --- the commands: their options, and what they do ---


def _add_map(parser: argparse.ArgumentParser, job: type[Job]) -> None:
    parser.set_defaults(job=job)
    add_input(parser)
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder for the results")
    for row in settings_of(job):
        add_setting(parser, row)
    parser.add_argument("--dicom", action="store_true", help="also write the maps as DICOM Parametric Map objects")
    parser.add_argument(
        "--dicom-identity", choices=("remove", "keep"), default="remove",
        help="keep: under the patient and study of the images, which must be DICOM; default: remove, anonymous",
    )  # fmt: skip
    add_run_options(parser)


def _map(arguments: argparse.Namespace, started: float) -> None:
    from ..io.images import scan_images
    from ..workflow.run import run_job

    job = arguments.job(**settings_given(arguments, settings_of(arguments.job)))
    keep = arguments.dicom_identity == "keep"
    if keep and not arguments.dicom:
        raise UsageError("--dicom-identity keep is about the maps that --dicom writes; give --dicom too.")
    if arguments.verbose:
        with remarks_collected(), scan_images(arguments.inputs) as scan:  # they come again when the images are read
            skipped = scan.skipped
        for reason, names in skipped.items():
            tell(f"jaxqmri: passed over: {len(names)} {reason}: {', '.join(names)}")
    with _computing(arguments) as output:
        result = run_job(
            job, arguments.inputs, arguments.out, dicom="keep" if keep else "anonymous" if arguments.dicom else "no",
            timings={"starting": time.perf_counter() - started}, wording=on_the_command_line, **output,
        )  # fmt: skip
    _print_result(result, arguments)


def _add_bids(parser: argparse.ArgumentParser) -> None:
    from ..workflow.bids_jobs import dataset_settings

    parser.add_argument("root", metavar="BIDS_ROOT", type=Path, help="raw dataset: the folder that holds sub-*")
    parser.add_argument("out", metavar="OUT", type=Path, help="the derivative, e.g. BIDS_ROOT/derivatives/jaxqmri")
    parser.add_argument("level", choices=("participant",), help="each participant by itself; there is no group level")
    for option, prefix in (("participant", "sub-"), ("session", "ses-")):
        parser.add_argument(
            f"--{option}-label", f"--{option}_label", metavar="LABEL", nargs="+", action="extend",
            help=f"only these {option}s, with or without {prefix}; default: all",
        )  # fmt: skip
    for row in dataset_settings().values():
        add_setting(parser, row)
    add_run_options(parser)


def _bids(arguments: argparse.Namespace, started: float) -> None:
    from ..workflow.bids import run_bids
    from ..workflow.bids_jobs import dataset_settings

    def say(line: str) -> None:
        if not arguments.quiet:
            tell(line)

    with _computing(arguments) as output:
        result = run_bids(
            arguments.root, arguments.out, participants=arguments.participant_label, sessions=arguments.session_label,
            say=say, on_error=tell_traceback if arguments.debug else lambda _: None,
            **settings_given(arguments, dataset_settings().values()), **output,
        )  # fmt: skip
    if arguments.json or not arguments.quiet:
        _print(arguments, result.facts(), result.lines(on_the_command_line))
    result.raise_failures()


def _add_demo(parser: argparse.ArgumentParser) -> None:
    folder = Path("jaxqmri-demo")
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, default=folder, help="default: %(default)s")
    add_run_options(parser)


def _demo(arguments: argparse.Namespace, started: float) -> None:
    from ..workflow.demo import IMAGES, run_demo

    with _computing(arguments) as output:
        result = run_demo(arguments.out, timings={"starting": time.perf_counter() - started}, **output)
    _print_result(result, arguments)
    if not (arguments.json or arguments.quiet):
        show([f"images          {arguments.out / IMAGES}"])


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    add_input(parser)
    for row in settings_of(Job):
        if row.name in ("series", "time_point"):
            add_setting(parser, row)
    given = parser.add_mutually_exclusive_group()
    for row in axis_settings():
        add_setting(given, row)
    add_no_names(parser)
    add_json(parser)
    add_loudness(parser)


def _inspect(arguments: argparse.Namespace, started: float) -> None:
    from ..workflow.inspection import inspect_images

    given = settings_given(arguments, axis_settings())
    found = inspect_images(arguments.inputs, given, arguments.series or (), arguments.time_point)
    _print(arguments, found.facts(), found.lines(verbose=arguments.verbose, names=not arguments.no_names))


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(computes=True)
    add_json(parser)


def _doctor(arguments: argparse.Namespace, started: float) -> None:
    from ..workflow.installation import installation, installation_text

    facts = installation()
    _print(arguments, facts, installation_text(facts).split("\n"))


def _data_list(arguments: argparse.Namespace, started: float) -> None:
    from ..datasets import list_datasets

    datasets = list_datasets()
    facts = [{"name": d.name, "doi": d.doi, "folder": str(d.folder), "cached": d.cached} for d in datasets]
    lines = []
    for dataset in datasets:
        lines += [f"{dataset.name}: {dataset.title}"]
        lines += [f"  {dataset.description}; {dataset.size_kb:g} kB, doi:{dataset.doi}"]
        lines += [f"  in {dataset.folder}" if dataset.cached else f"  not fetched; jaxqmri data fetch {dataset.name}"]
    _print(arguments, {"datasets": facts}, lines)


def _add_data_fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="e.g. ismrm2024-t2star")


def _data_fetch(arguments: argparse.Namespace, started: float) -> None:
    from ..datasets import fetch

    show([str(fetch(arguments.name, progress=sys.stderr.isatty()))])


@contextmanager
def _computing(arguments: argparse.Namespace) -> Iterator[dict[str, bool]]:
    """On which device and in what pieces, as the command line says; yields what it says of the results.

    Compiled programs are kept for the next run.
    """
    import jax

    from ..batching.batches import at_most
    from ..batching.compiled import keep_compiled_programs

    keep_compiled_programs()
    with ExitStack() as chosen:
        if arguments.device is not None:
            chosen.enter_context(jax.default_device(_device(arguments.device)))
        if arguments.chunk is not None:
            if arguments.chunk < 1:
                raise UsageError(f"--chunk must be at least 1 voxel, got {arguments.chunk}.")
            chosen.enter_context(at_most(arguments.chunk))
        yield {
            "overwrite": arguments.overwrite,
            "report": not arguments.no_report,
            "names": not arguments.no_names,
            "quiet": arguments.quiet,
        }


def _device(name: str) -> Any:
    """The device of JAX called "gpu" or "gpu:1"."""
    import jax

    kind, _, index = name.partition(":")
    try:
        if not kind or index.startswith("-"):  # JAX would take the default, Python the last one
            raise ValueError(name)
        return jax.devices(kind.lower())[int(index or 0)]
    except (RuntimeError, ValueError, IndexError) as error:
        try:
            there = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        except RuntimeError as broken:
            there = f"none that works ({broken})"
        raise DeviceError(f"--device {name}: not on this machine, which has {there}; see jaxqmri doctor") from error


def _print(arguments: argparse.Namespace, facts: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Results: as JSON where that is asked for, else for people."""
    from ..io.storage.atomic import strict_json

    show(strict_json(facts, ascii_only=True).splitlines() if arguments.json else lines)


def _print_result(result: "JobResult", arguments: argparse.Namespace) -> None:
    from .summary import summary_lines

    if arguments.json or not arguments.quiet:
        _print(arguments, result.summary(), summary_lines(result))
