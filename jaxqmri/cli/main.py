"""The command `jaxqmri`: words in, exit codes out, no science. The words and what they start are in `commands`.

Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 a bug, 2 usage, 3 no usable input, 4 corrupt or
inconsistent input, 5 missing or implausible metadata, 6 output not writable, 7 partial (some subjects failed), 8 data
set unavailable, 9 no such device or out of memory, 130 interrupted. Nothing heavy is imported before it is known to be
needed.
"""

import argparse
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import DeviceError, OutputError, Remark, error_in_words, on_the_command_line, remarks_collected
from ..workflow.interrupts import stop_on_signals
from .commands import parser
from .terminal import show, standard_streams, tell, tell_traceback

LEAST_ADDRESS_SPACE = 2_000_000_000  # bytes; measured on two processors


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never raises."""
    with standard_streams():
        code = _run(argv)
        try:
            show(())  # what argparse has printed
        except OutputError as error:
            tell(f"jaxqmri: error: {error}")
            code = code or error.exit_code
    return code


def _run(argv: Sequence[str] | None) -> int:
    started = time.perf_counter()
    arguments, threads = None, set(threading.enumerate())
    try:
        arguments = parser().parse_args(argv)
        if arguments.computes:
            _check_address_space()
        with stop_on_signals(), _remarks_told(arguments):
            arguments.run(arguments, started)
    except SystemExit as stop:  # argparse has printed --help or --version
        return int(stop.code or 0)
    except KeyboardInterrupt:
        for thread in set(threading.enumerate()) - threads:
            if isinstance(thread, threading.Timer):  # as JAX starts for a minute; Python would wait for it to end
                thread.cancel()
        if sys.stderr.isatty():  # the terminal has put ^C where the cursor was
            tell("")
        tell("jaxqmri: interrupted; no half-written file was left")
        return 130
    except Exception as error:
        if arguments is not None and arguments.debug:
            tell_traceback(error)
        code, text = error_in_words(error)
        tell(f"jaxqmri: error: {text}")
        return code
    return 0


def _check_address_space() -> None:
    """Refuses a limit in which JAX cannot start: its libraries crash where they are given no more."""
    if sys.platform == "win32":  # which has none
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= limit < LEAST_ADDRESS_SPACE:
        raise DeviceError(
            f"the address space is limited to {limit / 1e9:.2g} GB (ulimit -v), but JAX needs at least "
            f"{LEAST_ADDRESS_SPACE / 1e9:g} GB to start; raise that limit or run where there is none."
        )


@contextmanager
def _remarks_told(arguments: argparse.Namespace) -> Iterator[None]:
    """Remarks are told as they are made, in one line each; other libraries' warnings only with -v."""

    def tell_remark(new: Remark) -> None:
        from tqdm import tqdm  # not needed by commands that only print

        with tqdm.external_write_mode(file=sys.stderr):  # not behind a progress bar
            tell(f"jaxqmri: warning: {new.told(on_the_command_line)}")

    def tell_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        tell(f"{filename}:{lineno}: {category.__name__}: {message}")

    loud = arguments.verbose or arguments.debug
    with warnings.catch_warnings(), remarks_collected(None if arguments.quiet and not loud else tell_remark):
        warnings.simplefilter("default" if loud else "ignore")
        warnings.showwarning = tell_warning
        yield
