"""A run that is told to stop stops, also where the exception that a signal raised was lost on its way.

Python raises it wherever it happens to be. Within a finaliser or some callbacks of compiled code it can only be printed
or dropped, and the run would go on. So it is remembered, and whoever works for long asks now and then.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

_asked: list[int] = []


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that temporary files are removed: by a KeyboardInterrupt."""

    def interrupt(number: int, _: Any) -> NoReturn:
        _asked.append(number)
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    with suppress(ValueError):  # not in the main thread, where nobody sends signals
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody wants something else
            before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()  # whoever runs after this has not been asked


def stop_if_asked() -> None:
    """Raises KeyboardInterrupt if a signal has come since the run began; not for use while cleaning up."""
    if _asked:
        raise KeyboardInterrupt
