"""Runs the command line in this process, or as a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import jaxqmri
from jaxqmri.cli.main import main

# The package need not be installed for a process of its own to find it.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(jaxqmri.__file__).parents[1])}
COMMAND = [sys.executable, "-m", "jaxqmri"]


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("jaxqmri: error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert not self.out
        return lines[0]


def run(capsys: pytest.CaptureFixture, *words: object) -> Outcome:
    """What `jaxqmri WORDS` does."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    return Outcome(code, *capsys.readouterr())


def run_process(*words: object, **options: Any) -> Outcome:
    """The same as a process of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
        **options,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)
