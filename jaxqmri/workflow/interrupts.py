"""Ctrl-C and SIGTERM end a run, also where their exception was lost.

Python raises KeyboardInterrupt wherever it happens to be. In a finaliser, or in a callback of compiled code, it is only
printed or dropped and the run would go on. So the signal is remembered, and long loops poll for it.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

_received: list[int] = []


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that temporary files are removed."""

    def interrupt(number: int, _: Any) -> NoReturn:
        _received.append(number)
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    with suppress(ValueError):  # only the main thread receives signals
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller handles Ctrl-C
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    unraisable = sys.unraisablehook

    def without_interrupts(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):  # which is remembered
            unraisable(lost)

    sys.unraisablehook = without_interrupts
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()  # the next run in this process goes on


def stop_if_asked() -> None:
    """Raises KeyboardInterrupt if a signal has come since the run began; not for use while cleaning up."""
    if _received:
        raise KeyboardInterrupt
