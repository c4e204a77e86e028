"""One case of bad input: what the command is given, and what it must answer."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command import Outcome, run

Build = Callable[[Path], Sequence[object]]
NOTHING_IS_FITTED = (2, 3, 4, 5)  # exit codes of what must be found before anything is computed


@dataclass(frozen=True)
class Case:
    """A row of the table of bad inputs, or a variant of it.

    Attributes:
        row: its number there.
        what: what is wrong.
        build: makes the input in an empty folder; returns the words for the command, the input first.
        code: the exit code.
        words: a pattern in the error line or, with code 0, in a warning that is recorded too; "": there is no warning.
        command: the subcommand.
        skipped: files passed over, by reason, as `provenance.json` has them; None: not looked at.
        patch: what has to happen during the run.
        check: looks at a folder of results.
        leaves: whether the input or the output may look otherwise afterwards than before, in spite of an error.
    """

    row: int
    what: str
    build: Build
    code: int = 0
    words: str = ""
    command: str = "t2star"
    skipped: Mapping[str, int] | None = None
    patch: Callable[[pytest.MonkeyPatch, Path], None] | None = None
    check: Callable[[Path], None] | None = None
    leaves: bool = field(default=False)

    def __str__(self) -> str:
        return f"{self.row}-{self.what.replace(' ', '_')}"

    @property
    def wanted(self) -> str:
        return f"exit {self.code}" + (" + warning" if self.code == 0 and self.words else "")


def answer(case: Case, folder: Path, capsys: pytest.CaptureFixture) -> Outcome:
    """Builds the input in `folder` and runs the command; a refusal must leave everything as it was."""
    words = [str(word) for word in case.build(folder)]
    out = Path(words[words.index("-o") + 1]) if "-o" in words else folder / "out"
    before = content(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if case.patch:
            case.patch(monkeypatch, out)
        done = run(capsys, case.command, *words, "--no-report", *([] if "-o" in words else ["-o", out]))
    if case.code and not case.leaves:
        assert content(folder) == before, "a failed run changes nothing and leaves nothing, not even an empty folder"
    return done


def content(folder: Path) -> dict[str, bytes | int | None]:
    """Every path below a folder, hidden ones too, with the bytes of the files, or the size of those that are huge."""
    return {str(path.relative_to(folder)): _content_of(path) for path in folder.rglob("*")}


def _content_of(path: Path) -> bytes | int | None:
    if not path.is_file():
        return None
    size = path.stat().st_size
    return path.read_bytes() if size < 2**24 else size


def verify(case: Case, done: Outcome, folder: Path) -> None:
    """Holds an answer to what the table says."""
    assert done.code == case.code, done.err
    assert "Traceback" not in done.err
    if case.code == 130:
        assert re.search(case.words, done.err)
    elif case.code:
        assert re.search(case.words, done.error), done.error
    else:
        record = json.loads((folder / "out" / "provenance.json").read_text())
        assert done.err.splitlines() == [f"jaxqmri: warning: {text}" for text in record["warnings"]]
        assert re.search(case.words, done.err) if case.words else not done.err, done.err
        if case.skipped is not None:
            assert record["input"]["skipped"] == case.skipped
    if case.check:
        case.check(folder / "out")


def table(rows: Sequence[tuple[Case, str]]) -> str:
    """The cases with what was wanted and what was got, for people."""
    lines = [
        f"{case.row:>3}  {case.what:<58}  {case.wanted:<17}  {got}"
        for case, got in sorted(rows, key=lambda row: row[0].row)
    ]
    n_rows = len({case.row for case, _ in rows})
    return "\n".join([f"{'row':>3}  {'what':<58}  {'wanted':<17}  got", *lines, f"{len(rows)} cases of {n_rows} rows"])
