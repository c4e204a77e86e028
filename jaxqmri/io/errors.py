"""What can be wrong outside the program: one exception per exit code of the command line.

Every message is one line and says what is wrong, where (file, tag), why it matters and how to mend it. The Python API
raises these; the command line prints the message and leaves with `exit_code`.
"""

from typing import ClassVar


class UsageError(ValueError):
    """The request itself does not make sense: words that contradict each other or the data."""

    exit_code: ClassVar[int] = 2


class NoInputError(ValueError):
    """Nothing there that could be read as an image."""

    exit_code: ClassVar[int] = 3


class CorruptInputError(ValueError):
    """Files that cannot be read, or that do not fit together."""

    exit_code: ClassVar[int] = 4


class MetadataError(ValueError):
    """The physics is missing or implausible: no echo time, an echo time in the wrong unit."""

    exit_code: ClassVar[int] = 5


class OutputError(OSError):
    """The results cannot be written where they were asked for."""

    exit_code: ClassVar[int] = 6


class PartialFailureError(RuntimeError):
    """Some of several things failed; the others have their results."""

    exit_code: ClassVar[int] = 7


class DatasetUnavailableError(OSError):
    """A public data set could not be fetched, or is not the one that was published."""

    exit_code: ClassVar[int] = 8


class DeviceError(RuntimeError):
    """The device asked for is not there, or its memory does not suffice."""

    exit_code: ClassVar[int] = 9


class InputWarning(UserWarning):
    """Something in the input was mended or passed over; recorded in `provenance.json`."""
