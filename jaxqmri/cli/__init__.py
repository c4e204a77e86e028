"""The command line: words in, exit codes out; no science."""

from .main import main

__all__ = ["main"]
