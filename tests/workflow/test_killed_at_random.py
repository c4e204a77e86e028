"""Whole runs of the command, from a zip archive into earlier results, killed at any moment."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import COMMAND, ENVIRONMENT
from small_scans import dicom_folder
from zip_files import zip_of

from jaxqmri.io.storage.result_folder import RECORD

ECHO_TIMES = (("3", "8", "15", "25"), ("6", "16", "30", "50"))  # ms; runs take turns, so that old and new maps differ


def maps(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*map*")}


def kill_at_random(folder: Path, n_kills: int, seed: int) -> list[str]:
    """What went wrong in so many kills; each is followed by a look at the results, the last by a whole run."""
    moment, temporary, out = random.Random(seed), folder / "temporary", folder / "out"
    temporary.mkdir()
    scan = dicom_folder(folder / "scan")
    archive = zip_of(folder / "scan.zip", *[(path.name, path.read_bytes()) for path in scan.iterdir()])
    environment = ENVIRONMENT | {"TMPDIR": str(temporary)}

    def start(which: int, into: Path) -> subprocess.Popen:
        words = ["t2star", archive, "-o", into, "--overwrite", "--no-report", "--te-ms", *ECHO_TIMES[which]]
        return subprocess.Popen([*COMMAND, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    wanted, seconds = [], 0.0
    for which in (0, 1, 0):  # the first compiles
        before = time.monotonic()
        start(which, out).communicate()
        seconds = time.monotonic() - before
        wanted.append(maps(out))
    problems = []
    for k in range(n_kills):
        process = start(1 - k % 2, out)
        time.sleep(moment.uniform(0.3, 1.05) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = maps(out)
        if not any(found.items() <= of_one.items() for of_one in wanted[:2]):
            problems.append(f"kill {k}: a mixture, or half a file")
        if (out / RECORD).exists() and found not in wanted:
            problems.append(f"kill {k}: a record of files that are not there")
    if error := start(0, out).communicate()[1]:
        problems += [line for line in error.decode().splitlines() if "leftovers of a run that was killed" not in line]
    left = [path for place in (out, temporary) for path in place.iterdir() if place is temporary or path.name[0] == "."]
    return [*problems, *[f"left: {path.name}" for path in left], *["no maps"] * (maps(out) != wanted[0])]


@pytest.mark.nightly
def test_no_kill_leaves_a_mixture_and_the_next_run_no_leftovers(tmp_path):
    assert kill_at_random(tmp_path, n_kills=10, seed=0) == []
