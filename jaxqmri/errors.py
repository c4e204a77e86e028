"""What can be wrong, what was mended or assumed, and what would help: as data, put into words at the boundary.

An error or a remark is a list of parts, texts and remedies. A remedy says what the caller can do (`Give("te")`), and
Python, the command line and the BIDS app each put it into their own words. Every message is one line that says what is
wrong, where (file, tag), why it matters and how to mend it. There is one exception per exit code of the command line.

    raise MetadataError("a.dcm: no EchoTime (0018,0081), so the decay cannot be timed; ", Give("te"), ".")
    remark("4 duplicate images (identical pixels) were dropped.")
"""

import errno
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .quantities import QUANTITIES

# --- remedies ---


@dataclass(frozen=True)
class Remedy:
    """What the caller can do about a setting; each kind has its words in Python and on the command line."""

    setting: str
    value: str = ""  # to be set; or what stands for "it" in the sentence
    in_files: str = ""  # what to do with the files instead, where nothing can be stated for one series alone
    python: ClassVar[str]
    command_line: ClassVar[str]


class Give(Remedy):
    """State a setting, in place of what the files say or lack."""

    python, command_line = "give {it} with {setting}={unit}", "give {it} with {flag}"


class Choose(Remedy):
    """Set a setting to a value."""

    python, command_line = "use {setting}={value!r}", "use {flag} {value}"


class LeaveOut(Remedy):
    """Do not set a setting."""

    python, command_line = "leave out {setting}=", "leave out {flag}"


class MapWith(Remedy):
    """Use another map (job): "t2star"."""

    python, command_line = "`{setting}_map` maps that", "`jaxqmri {setting}` maps that"


class SwitchOn(Remedy):
    """Set a setting that is on or off."""

    python, command_line = "{setting}=True", "{flag}"


class Setting(Remedy):
    """No remedy, but the name of a setting within a sentence."""

    python, command_line = "{setting}", "{flag}"


class About(str):
    """No remedy, but the series or file that a sentence is about: remarks on several of them are of one kind."""


Part = str | Remedy
# Controls, lone surrogates (bytes of names that are no UTF-8), ends of lines, and what turns the direction of text.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u2028-\u202e\u2066-\u2069]")
Wording = Callable[[Remedy], str]


def visible(text: str) -> str:
    r"""Text of names and headers as a terminal may show it: one line, an escape character as \x1b, a byte as \xff."""
    return text if text.isprintable() else _INVISIBLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0  # Python's stand-in for a byte
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def in_python(remedy: Remedy) -> str:
    """A remedy for those who call functions."""
    row = QUANTITIES.get(remedy.setting)
    return remedy.python.format(**vars(remedy), it=remedy.value or "it", unit=f" ({row.unit_words})" if row else "")


def flag_of(setting: str) -> str:
    """The option of the command line that is a setting: "--te-ms"."""
    row = QUANTITIES.get(setting)
    return f"--{row.flag if row and row.flag else setting.replace('_', '-')}"


def on_the_command_line(remedy: Remedy) -> str:
    """A remedy for those who type `jaxqmri`."""
    return remedy.command_line.format(**vars(remedy), it=remedy.value or "it", flag=flag_of(remedy.setting))


def in_words(parts: Iterable[object], wording: Wording = in_python) -> str:
    """One line of text. A remedy that begins a sentence begins with a capital letter."""
    text = ""
    for part in parts:
        if not isinstance(part, Remedy):
            text += str(part)
            continue
        words = wording(part)
        begins = not isinstance(part, Setting) and (not text or text.rstrip().endswith((".", "!", "?")))
        text += words[0].upper() + words[1:] if begins and words[0] not in "-`" else words
    return visible(" ".join(text.split()))


# --- errors ---


class _InWords(Exception):
    """An exception made of the parts of its message; `str` is in the words of Python."""

    exit_code: ClassVar[int]

    def __init_subclass__(cls, exit_code: int):
        cls.exit_code = exit_code

    def __init__(self, *parts: Part):
        self.parts = parts
        super().__init__(in_words(parts))


class UsageError(_InWords, ValueError, exit_code=2):
    """The request itself does not make sense: settings that contradict each other or the data."""


class NoInputError(_InWords, ValueError, exit_code=3):
    """Nothing there that could be read as an image."""


class CorruptInputError(_InWords, ValueError, exit_code=4):
    """Files that cannot be read, or that do not fit together."""


class MetadataError(_InWords, ValueError, exit_code=5):
    """The physics is missing or implausible: no echo time, an echo time in the wrong unit."""


class OutputError(_InWords, OSError, exit_code=6):
    """The results cannot be written where they were asked for."""


class PartialFailureError(_InWords, RuntimeError, exit_code=7):
    """Some of several things failed; the others have their results."""


class DatasetUnavailableError(_InWords, OSError, exit_code=8):
    """A public data set could not be fetched, or is not the one that was published."""


class DeviceError(_InWords, RuntimeError, exit_code=9):
    """The device asked for is not there, or its memory does not suffice."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def error_in_words(error: Exception, wording: Wording = on_the_command_line) -> tuple[int, str]:
    """The exit code and the one line that tell people of an error, also of those that are not from here."""
    if isinstance(error, _InWords):
        return error.exit_code, in_words(error.parts, wording)
    text = visible(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.filename is not None:
        if error.errno in _NO_ROOM:
            return OutputError.exit_code, visible(f"{error.filename}: cannot be written ({error.strerror}).")
        unreadable = f"{error.filename}: cannot be read ({error.strerror}); check its name and permissions."
        return NoInputError.exit_code, visible(unreadable)
    no_room = isinstance(error, ImportError) and "failed to map segment" in text  # of a library
    if isinstance(error, MemoryError) or no_room or "RESOURCE_EXHAUSTED" in text:
        remedy = Give("chunk", "fewer voxels at once"), ", fewer slices or another ", Setting("device")
        return DeviceError.exit_code, in_words(["out of memory; ", *remedy], wording)
    if "Unable to initialize backend" in text:
        remedy = "; choose another ", Setting("device"), ", see jaxqmri doctor"
        return DeviceError.exit_code, in_words([f"no device to compute on ({text})", *remedy], wording)
    bug = "This is a bug; please report it with the output of --debug"
    return 1, f"unexpected {type(error).__name__}: {text}. {bug}"


@contextmanager
def named_as(given: Mapping[Path, Path]) -> Iterator[None]:
    """Errors that leave the block name the path that the user gave, not the temporary one that stands in for it."""

    def renamed(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(map(renamed, value))
        if isinstance(value, str | Path):
            for temporary, path in given.items():
                value = str(value).replace(str(temporary), str(path))
                value = value.replace(visible(str(temporary)), visible(str(path)))
        return value

    try:
        yield
    except Exception as error:
        for name in ("args", "parts", "filename", "filename2"):
            if value := getattr(error, name, None):
                setattr(error, name, renamed(value))
        raise


# --- remarks ---


class InputWarning(UserWarning):
    """Something in the input was mended, assumed or passed over; a `Remark` on its way to a Python caller."""


@dataclass(frozen=True)
class Remark:
    """What was mended, assumed or passed over, as parts of a sentence."""

    parts: tuple[Part, ...]

    def told(self, wording: Wording = in_python) -> str:
        """In the words of a boundary."""
        return in_words(self.parts, wording)

    __str__ = told

    @property
    def kind(self) -> tuple[Part, ...]:
        """The same of all series and files that it could be about."""
        return tuple(part for part in self.parts if not isinstance(part, About))


Tell = Callable[[Remark], None]
_listener: ContextVar[Tell | None] = ContextVar("_listener", default=None)
_PACKAGE = str(Path(__file__).parent)


def remark(*parts: Part) -> None:
    """Says what was mended, assumed or passed over.

    It goes to the innermost `remarks_collected`; where there is none, to the Python caller as an `InputWarning`.
    """
    listener()(Remark(parts))


def listener() -> Tell:
    """What takes the remarks that are made now."""
    return _listener.get() or _warn


@contextmanager
def remarks_collected(tell: Tell | None = None) -> Iterator[list[Remark]]:
    """A list that takes the remarks made within the block by this thread, each once; new ones are told at once."""
    found: list[Remark] = []

    def take(new: Remark) -> None:
        if new not in found:
            found.append(new)
            if tell is not None:
                tell(new)

    token = _listener.set(take)
    try:
        yield found
    finally:
        _listener.reset(token)


@contextmanager
def remarks_kept() -> Iterator[list[Remark]]:
    """As `remarks_collected`, but the remarks also go where they would without it."""
    with remarks_collected(listener()) as found:
        yield found


def _warn(new: Remark) -> None:
    """As a warning of the line that called this package."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(str(new), InputWarning, stacklevel=depth)
