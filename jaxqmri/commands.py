"""The words of the command line and what they start. Heavy parts are imported when a command needs them."""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .io.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from .job import Job, JobResult

DEMO_FOLDER = "jaxqmri-demo"


class _Parser(argparse.ArgumentParser):
    """Complains in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The parser; what it returns has `run`, a function of the arguments and of the time at which the program began."""
    parser = _Parser(prog="jaxqmri", description="Maps of tissue properties from MR images.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"jaxqmri {__version__}")
    parser.set_defaults(run=lambda *_: parser.print_help(), verbose=False, quiet=False, debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    t2star = _map_command(commands, "t2star", _t2star, "T2* maps from multi-echo gradient echoes")
    _add_echo_times(t2star)
    t2star.add_argument(
        "--method", choices=("lm", "loglinear", "adam"), default="lm",
        help="lm: exact least squares (default); loglinear: weighted straight line through the logarithm; "
        "adam: 20 000 Adam steps, as in the ISMRM 2024 example, about 1000 times slower",
    )  # fmt: skip

    t2 = _map_command(commands, "t2", _t2, "T2 maps from multi-echo spin echoes")
    _add_echo_times(t2)
    t2.add_argument(
        "--method", choices=("lm", "dictionary", "mono"), default="lm",
        help="lm: extended phase graphs of the echo train, T2 and B1, by exact least squares (default); "
        "dictionary: the same model, matched in a dictionary and refined; "
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

    _add_t1(commands)

    demo = _command(commands, "demo", _demo, "make a head with known T2*, map it, and compare with the truth")
    demo.add_argument("-o", "--out", metavar="OUT", type=Path, default=Path(DEMO_FOLDER), help="default: %(default)s")
    _add_job_options(demo)
    _add_loudness(demo)

    inspect = _command(commands, "inspect", _inspect, "what is in a folder, and what would be fitted")
    _add_input(inspect)
    given = inspect.add_mutually_exclusive_group()
    for add in (_add_echo_times, _add_inversion_times, _add_flip_angles):
        add(given)
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


def _add_t1(commands: Any) -> None:
    t1 = _map_command(commands, "t1", _t1, "T1 maps from inversion recovery or variable flip angles")
    t1.add_argument(
        "--method", choices=("auto", "ir", "vfa"), default="auto",
        help="ir: inversion recovery; vfa: spoiled gradient echoes of variable flip angles; "
        "auto: what varies between the images (default)",
    )  # fmt: skip
    given = t1.add_mutually_exclusive_group()
    _add_inversion_times(given)
    _add_flip_angles(given)
    t1.add_argument(
        "--tr-ms", metavar="MS", type=float,
        help="repetition time, instead of that in the files; inf: full recovery between inversions",
    )  # fmt: skip
    t1.add_argument(
        "--b1", metavar="FILE", type=Path,
        help="vfa: NIfTI map on the grid of the images, true / nominal flip angle; default: 1 everywhere, "
        "which makes T1 wrong by about twice the error of the flip angle",
    )  # fmt: skip
    t1.add_argument(
        "--efficiency", metavar="F", type=float,
        help="ir: efficiency of the inversion, 1: perfect, 0: a saturation; default: estimated in each voxel",
    )  # fmt: skip
    t1.add_argument(
        "--component", choices=("magnitude", "real"),
        help="which images to fit; default: magnitude, or real where there are no others",
    )  # fmt: skip


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
    parser.add_argument(
        "--noise", choices=("gaussian", "rician"), default="gaussian",
        help="rician: magnitudes drowning in noise, which least squares (gaussian, default) fits with a bias",
    )  # fmt: skip
    parser.add_argument(
        "--sigma", metavar="X", type=float,
        help="standard deviation of the noise, in units of the images; default: from the residuals of each voxel, "
        "with rician from the air around the patient",
    )  # fmt: skip
    _add_job_options(parser)
    _add_loudness(parser)
    return parser


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", metavar="INPUT", type=Path, nargs="+", help="folder of DICOM or NIfTI files, or the files themselves"
    )


def _add_echo_times(parser: Any) -> None:
    _add_values(parser, "--te-ms", "MS", "echo times in milliseconds")


def _add_inversion_times(parser: Any) -> None:
    _add_values(parser, "--ti-ms", "MS", "inversion times in milliseconds")


def _add_flip_angles(parser: Any) -> None:
    _add_values(parser, "--flip-deg", "DEG", "nominal flip angles in degrees")


def _add_values(parser: Any, option: str, metavar: str, what: str) -> None:
    parser.add_argument(
        option, metavar=metavar, type=_numbers_for(option), nargs="+", action="extend",
        help=f"{what}, instead of those in the files, in the order of acquisition",
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


def _given(arguments: argparse.Namespace, axis: str) -> list[float] | None:
    """--te-ms, --ti-ms or --flip-deg in SI units; nargs gives a list of lists."""
    from .io.axis import AXES

    option = AXES[axis].option
    groups = getattr(arguments, option.removeprefix("--").replace("-", "_"), None)
    return None if groups is None else [AXES[axis].from_shown(number) for group in groups for number in group]


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3


# --- the commands -----------------------------------------------------------------------------------------------------


def _t2star(arguments: argparse.Namespace, started: float) -> None:
    from .jobs import NoiseChoice, t2star_job

    noise = NoiseChoice(arguments.noise, arguments.sigma)
    _run_job(t2star_job(arguments.method, te=_given(arguments, "te"), noise=noise), arguments, started)


def _t2(arguments: argparse.Namespace, started: float) -> None:
    from math import radians

    from .jobs import NoiseChoice, t2_job

    angle = arguments.refocusing_deg
    job = t2_job(
        arguments.method,
        b1=arguments.b1,
        t1=_seconds(arguments.t1_ms),
        flip_angle=None if angle is None else radians(angle),
        te=_given(arguments, "te"),
        noise=NoiseChoice(arguments.noise, arguments.sigma),
    )
    _run_job(job, arguments, started)


def _t1(arguments: argparse.Namespace, started: float) -> None:
    from .jobs import NoiseChoice, t1_job

    job = t1_job(
        arguments.method,
        tr=_seconds(arguments.tr_ms),
        efficiency=arguments.efficiency,
        b1=arguments.b1,
        component=arguments.component,
        ti=_given(arguments, "ti"),
        flip_angles=_given(arguments, "flip_angle"),
        noise=NoiseChoice(arguments.noise, arguments.sigma),
    )
    _run_job(job, arguments, started)


def _run_job(job: "Job", arguments: argparse.Namespace, started: float) -> None:
    from .job import run_job

    if arguments.verbose:
        _name_files_passed_over(arguments)
    with _device(arguments.device):
        result = run_job(
            job,
            arguments.inputs,
            arguments.out,
            mask=arguments.mask,
            overwrite=arguments.overwrite,
            report=not arguments.no_report,
            quiet=arguments.quiet,
            timings={"starting": time.perf_counter() - started},
        )
    _print_result(result, arguments)


def _name_files_passed_over(arguments: argparse.Namespace) -> None:
    from .io.images import scan_images

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when the images are read
        skipped = scan_images(arguments.inputs).skipped
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

    given = {axis: values for axis in ("te", "ti", "flip_angle") if (values := _given(arguments, axis)) is not None}
    found = inspect_images(arguments.inputs, given)
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
