"""Ctrl-C and SIGTERM end a run, also where their exception was lost or could not be raised.

Python raises KeyboardInterrupt wherever it happens to be. In a finaliser, or in a callback of compiled code, it is only
printed or dropped and the run would go on; in a library in C++ that is being loaded it crashes the process, and in the
import of a module it may leave the import lock held, for which another thread waits for ever. So the signal is
remembered, comes again a moment later, and long loops poll for it.
"""

import signal
import sys
import time
from _thread import interrupt_main, start_new_thread
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import Any

MOMENT = 0.05  # s
_received: list[int] = []


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that temporary files are removed."""
    unraisable = sys.unraisablehook

    def without_interrupts(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            unraisable(lost)
        elif _received:
            _send_again(_received[-1])

    def interrupt(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        is_telling = frame is not None and frame.f_code is without_interrupts.__code__
        if is_telling or _is_importing(frame):
            _send_again(number)
        else:
            raise KeyboardInterrupt

    before: dict[int, Any] = {}
    with suppress(ValueError):  # only the main thread receives signals
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller handles Ctrl-C
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
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
        _received.clear()  # it shall not come again while files are cleaned up
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Whether Python holds its import lock, which might never be released, or a library in C++ is being loaded."""
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        return True
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False


def _send_again(number: int) -> None:
    """By a thread whose start, unlike that of `threading`, takes no lock that the interrupted code may hold."""

    def after_a_moment() -> None:
        time.sleep(MOMENT)
        if _received:  # else the run has ended, or been told meanwhile
            interrupt_main(signal.Signals(number))

    start_new_thread(after_a_moment, ())
