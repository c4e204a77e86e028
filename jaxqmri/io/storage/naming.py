"""Errors name the path that the user gave, not the temporary folder that stands in for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def named_as(given: Mapping[Path, Path]) -> Iterator[None]:
    """Replaces temporary paths in an error that leaves the block: temporary -> given."""

    def renamed(value: object) -> object:
        if not isinstance(value, str | Path):
            return value
        text = str(value)
        for temporary, path in given.items():
            text = text.replace(str(temporary), str(path))
        return text

    try:
        yield
    except Exception as error:
        for name in ("args", "parts"):
            if values := getattr(error, name, None):
                setattr(error, name, tuple(map(renamed, values)))
        for name in ("filename", "filename2"):
            if value := getattr(error, name, None):
                setattr(error, name, renamed(value))
        raise
