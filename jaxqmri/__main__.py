"""`python -m jaxqmri` and the program `jaxqmri`: the command in a process of its own."""

import os
import signal
import sys
from contextlib import suppress


def main() -> int:
    """As `cli.main`, and a signal is never answered by a traceback: before it listens, twice, or when it is done."""
    try:
        from .cli.main import main as command

        code = command()
    except KeyboardInterrupt:
        print("jaxqmri: interrupted", file=sys.stderr or sys.stdout)
        code = 130
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if code == 130:
        # Python would wait for what is still loaded or computed, for a minute say, and may crash in it.
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # None, full or closed
                stream.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
