"""The command `jaxqmri`: words in, exit codes out, no science. The words and what they start are in `commands`.

Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 a bug, 2 usage, 3 no usable input, 4 corrupt or
inconsistent input, 5 missing or implausible metadata, 6 output not writable, 7 partial (some subjects failed), 8 data
set unavailable, 9 no such device or out of memory, 130 interrupted. Nothing heavy is imported before it is known to be
needed.
"""

import argparse
import io
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import Remark, error_in_words, on_the_command_line, remarks_collected
from ..workflow.interrupts import stop_on_signals
from .commands import parser


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
        arguments = parser().parse_args(argv)
        with stop_on_signals(), _remarks_told(arguments):
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
        if arguments is not None and arguments.debug:
            traceback.print_exc()
        code, text = error_in_words(error)
        print(f"jaxqmri: error: {text}", file=sys.stderr)
        return code
    return 0


@contextmanager
def _remarks_told(arguments: argparse.Namespace) -> Iterator[None]:
    """Remarks are told as they are made, in one line each; other libraries' warnings only with -v."""

    def tell(new: Remark) -> None:
        from tqdm import tqdm  # not needed by commands that only print

        with tqdm.external_write_mode(file=sys.stderr):  # not behind a progress bar
            print(f"jaxqmri: warning: {new.told(on_the_command_line)}", file=sys.stderr)

    loud = arguments.verbose or arguments.debug
    with warnings.catch_warnings(), remarks_collected(None if arguments.quiet and not loud else tell):
        warnings.simplefilter("default" if loud else "ignore")
        yield
