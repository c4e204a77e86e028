"""What can be wrong outside the program: one exception per exit code of the command line.

Every message is one line and says what is wrong, where (file, tag), why it matters and how to mend it. The Python API
raises these; the command line prints the message and leaves with `exit_code`.
"""

import warnings
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


def error_in_words(error: Exception) -> tuple[int, str]:
    """The exit code and the one line that tell people of an error, also of those that are not from here."""
    code = getattr(error, "exit_code", None)
    text = " ".join(str(error).split())
    if code is not None:
        return code, text
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        remedy = "fit fewer voxels at once with --chunk, give fewer slices or another --device"
        return DeviceError.exit_code, f"out of memory; {remedy}"
    if "Unable to initialize backend" in text:
        remedy = "choose another --device, see jaxqmri doctor"
        return DeviceError.exit_code, f"no device to compute on ({text}); {remedy}"
    bug = "This is a bug; please report it with the output of --debug"
    return 1, f"unexpected {type(error).__name__}: {text}. {bug}"


def warn(message: str) -> None:
    """Says in one line what was mended or passed over, as an `InputWarning` of the caller."""
    warnings.warn(message, InputWarning, stacklevel=2)
