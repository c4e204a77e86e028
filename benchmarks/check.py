"""Has anything become slower? Ratios of times of one run, compared with the committed ones.

    python benchmarks/check.py            exit code 1, and a line each, where a ratio has dropped by more than a third
    python benchmarks/check.py --write    renews ratios.json

Takes two minutes. Seconds are never compared: machines differ, and are shared. A ratio that has dropped is measured
once more before it counts. Ratios with a program that is not installed are left out, saying so; `--write` keeps theirs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bench_fit
import bench_matching
import bench_simulation
import bench_t2star
import jax.numpy as jnp
import numpy as np
import peers
from fresh import Command, median_and_least, seconds
from timing import heading, interleaved, table

import jaxqmri as jq

COMMITTED = Path(__file__).with_name("ratios.json")
LOWEST = 2 / 3  # of the committed ratio
REPEATS = 7

Ratios = dict[str, float]


def simulation() -> Ratios:
    """Of a fast spin echo and its derivatives, to the same by the plain operators."""
    signals = bench_simulation.our_signals(bench_simulation.random_tissue(16384))
    ours = interleaved({name: signals[name] for name in (bench_simulation.PLAIN, bench_simulation.OURS)}, REPEATS)
    both = interleaved(bench_simulation.our_derivatives(bench_simulation.random_tissue(4096)), REPEATS)
    plain, fast = both.values()
    return {
        "plain operators / jq.simulate(FSE)": ours[bench_simulation.PLAIN].warm / ours[bench_simulation.OURS].warm,
        "jacfwd of plain operators / jvp of FSE": plain.warm / fast.warm,
    }


def matching() -> Ratios:
    """To 1000 atoms and to 100 000."""
    dictionary = jq.make_dictionary(bench_matching.TRAIN, jq.grid(jq.Tissue, t2=bench_matching.T2_GRID))
    signal, _ = bench_matching.decays(32768)
    timed = interleaved(bench_matching.searches(dictionary, signal), REPEATS)
    ours = timed["jq.match"].warm
    ratios = {"product and argmax / jq.match": timed[bench_matching.PRODUCTS].warm / ours}
    if bench_matching.LOOP in timed:
        ratios["numba loop / jq.match"] = timed[bench_matching.LOOP].warm / ours
    large, few = bench_matching.large_dictionary(1000, 100), bench_matching.trains(2048, 50.0)
    of_many = interleaved(
        {
            "numpy": peers.numpy_products(np.asarray(large.atoms), few),
            "ours": lambda: jq.match(large, few),
        },
        REPEATS,
    )
    ratios["product and argmax in numpy / jq.match, 100 000 atoms"] = of_many["numpy"].warm / of_many["ours"].warm
    return ratios


def t2star() -> Ratios:
    """Adam is the founding example's, with fewer steps."""
    signal, _ = bench_t2star.random_tissue(64)
    timed = interleaved(bench_t2star.solvers(signal, steps=1000), REPEATS)
    ours = timed[bench_t2star.LM].warm
    return {
        "1000 steps of Adam / LevenbergMarquardt, T2*": timed[bench_t2star.ADAM].warm / ours,
    }


def fast_spin_echo() -> Ratios:
    """Fits of T2, B1 and M0."""
    rng, n = np.random.default_rng(1), 512
    t2, b1 = (jnp.asarray(rng.uniform(low, high, n)) for low, high in ((0.02, 0.2), (0.7, 0.98)))
    train = bench_fit.TRAIN
    signal = bench_fit.noisy(train, jq.Tissue(m0=1000 * jnp.ones(n), t1=1.0, t2=t2, b1=b1), 100.0, rng)
    theirs = peers.those_installed({"optimistix": lambda: peers.optimistix_fit(train, signal)})
    plain = bench_simulation.our_signals(bench_simulation.random_tissue(n))[bench_simulation.PLAIN]
    timed = interleaved(theirs | {"plain": plain, "jq.fit": lambda: jq.fit(train, signal)}, REPEATS)
    # To simulate once, plainly, so that there is a ratio without peers too.
    ratios = {"plain operators / jq.fit, FSE": timed["plain"].warm / timed["jq.fit"].warm}
    if theirs:
        ratios["optimistix / jq.fit, FSE"] = timed["optimistix"].warm / timed["jq.fit"].warm
    return ratios


def start() -> Ratios:
    """Of new processes."""
    commands = {
        "jax": Command(["-c", "import jax"]),
        "jaxqmri": Command(["-c", "import jaxqmri"]),
        "help": Command(["-m", "jaxqmri", "--help"]),
    }
    with tempfile.TemporaryDirectory() as cache:
        taken = {name: median_and_least(runs)[0] for name, runs in seconds(commands, REPEATS, Path(cache)).items()}
    return {
        "import jax / import jaxqmri": taken["jax"] / taken["jaxqmri"],
        "import jax / jaxqmri --help": taken["jax"] / taken["help"],
    }


MEASUREMENTS: tuple[Callable[[], Ratios], ...] = (simulation, matching, t2star, fast_spin_echo, start)


def dropped(ratios: Ratios, committed: Ratios) -> list[str]:
    return [name for name, value in ratios.items() if name in committed and value < LOWEST * committed[name]]


def measured(committed: Ratios) -> Iterator[tuple[str, float]]:
    for measure in MEASUREMENTS:
        ratios = measure()
        if dropped(ratios, committed):
            again = measure()
            ratios = {name: max(value, again[name]) for name, value in ratios.items()}
        yield from ratios.items()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="the ratios of this run are the ones to keep")
    write = parser.parse_args().write
    committed: Ratios = json.loads(COMMITTED.read_text())["ratios"] if COMMITTED.exists() else {}
    ratios = dict(measured({} if write else committed))
    rows = [(name, f"{committed.get(name, float('nan')):.2f}", f"{value:.2f}") for name, value in ratios.items()]
    print(table(("ratio", "committed", "now"), rows))
    left_out = sorted(set(committed) - set(ratios))
    for name in left_out:
        print(f"not measured: {name}")
    if write:
        kept = {name: committed[name] for name in left_out}
        content = {
            "measured": heading(("numba", "optimistix")),
            "ratios": {name: round(value, 2) for name, value in (ratios | kept).items()},
        }
        COMMITTED.write_text(json.dumps(content, indent=2) + "\n")
        return
    slower = dropped(ratios, committed)
    for name in slower:
        print(f"slower: {name} is {ratios[name]:.2f}, was {committed[name]:.2f}", file=sys.stderr)
    if slower:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
