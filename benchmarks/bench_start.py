"""How long until something happens? Imports, `--help` and a first fit, each in new processes.

    python benchmarks/bench_start.py [--repeats 11] [--small]      (peers: see peers.py)

Each number is the median from start to exit of a process; every repetition runs all of them. "Beyond Python" leaves out
what an empty program takes. The first fit compiles: T2* of 1024 voxels, a library call that keeps nothing on disk.
"""

import tempfile
from pathlib import Path

import peers
from fresh import Command, median_and_least, seconds
from timing import arguments, heading, span, table

NOTHING = "nothing: python -c pass"

FIRST_FIT = """
import numpy as np, jaxqmri as jq
te = np.linspace(2e-3, 40e-3, 11)
signal = 1000 * np.exp(-te / np.linspace(0.01, 0.08, 1024)[:, None]).astype(np.float32)
assert abs(float(jq.fit(jq.MonoExponential(te), signal).params.t2[-1]) - 0.08) < 1e-5
"""


def main() -> None:
    given = arguments(__doc__, repeats=11)
    commands = {
        NOTHING: Command(["-c", "pass"]),
        "import numpy": Command(["-c", "import numpy"]),
        "import jaxqmri": Command(["-c", "import jaxqmri"]),
        "jaxqmri --help": Command(["-m", "jaxqmri", "--help"]),
        "import jax": Command(["-c", "import jax"]),
        "import jaxqmri, first fit": Command(["-c", FIRST_FIT]),
    }
    for package in ("torch", "torchsim", "blochsim"):
        if peers.is_installed(package):
            commands[f"import {package}"] = Command(["-c", f"import {package}"])
    if peers.is_installed("mrpro"):
        here = str(Path(__file__).parent)
        code = f"import sys; sys.path.insert(0, {here!r}); import peers; peers.stand_in_for_torchvision(); import mrpro"
        commands["import mrpro"] = Command(["-c", code])
    with tempfile.TemporaryDirectory() as cache:
        taken = seconds(commands, given.repeats, Path(cache))
    empty = median_and_least(taken[NOTHING])[0]
    rows = []
    for name, runs in taken.items():
        median, least = median_and_least(runs)
        rows.append((name, span(median), span(least), span(max(median - empty, 0.0))))
    print(heading(("torch", "torchsim", "blochsim", "mrpro")) + "\n")
    print(table(("new process", f"median of {given.repeats}", "least", "beyond Python"), rows))


if __name__ == "__main__":
    main()
