"""Errors name the path that the user gave, not the temporary folder that stands in for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def named_as(given: Mapping[Path, Path]) -> Iterator[None]:
    """Replaces temporary paths in an error that leaves the block: temporary -> given."""

    def renamed(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(map(renamed, value))
        if isinstance(value, str | Path):
            for temporary, path in given.items():
                value = str(value).replace(str(temporary), str(path))
        return value

    try:
        yield
    except Exception as error:
        for name in ("args", "parts", "filename", "filename2"):
            if value := getattr(error, name, None):
                setattr(error, name, renamed(value))
        raise
