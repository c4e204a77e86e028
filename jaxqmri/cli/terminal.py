"""What goes to the terminal: results to stdout, all else to stderr, line by line and without control characters.

A stream may be closed, full or left by its reader. Messages are lost then; that results are lost is an error.
"""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from io import TextIOWrapper
from typing import Any

from ..errors import OutputError, visible


@contextmanager
def standard_streams() -> Iterator[None]:
    """Makes sure for the block that all three are there, and that no message can fail."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started this process; else its number goes to the next file
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - until the end
    if isinstance(sys.stdout, TextIOWrapper):  # a path that the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    with redirect_stderr(_Messages(sys.stderr)):
        yield
    try:
        sys.stderr.flush()
    except OSError:
        _forget(sys.stderr)


class _Messages:
    """A stream that loses what cannot be written; progress bars and other libraries write to it too."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: closed meanwhile
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self.stream.flush()


def _forget(stream: Any) -> None:
    """Lets what a stream still holds go nowhere, as Python would try to write it again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show(lines: Iterable[str]) -> None:
    """Results; none: what was printed by other means is flushed."""
    try:
        for line in lines:
            print(visible(line))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        _forget(sys.stdout)
    except OSError as error:
        _forget(sys.stdout)
        raise OutputError(
            f"standard output cannot be written ({error.strerror}), so the results are not shown; files that were "
            "written are complete. Free some space, or send it elsewhere."
        ) from error


def tell(line: str) -> None:
    """A message."""
    print(visible(line), file=sys.stderr, flush=True)


def tell_traceback(error: BaseException) -> None:
    """Where an error comes from, for --debug."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        tell(line)
