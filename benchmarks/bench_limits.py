"""How near is each kernel to what the machine can do?

    python benchmarks/bench_limits.py [--repeats 5] [--small]

What the machine can do is measured first: products of large float32 matrices, the most operations per second there
are; arithmetic on vectors that stay in registers, the most that a formula without products of matrices can have; and
an addition to an array larger than any cache, the most bytes per second.

Operations and bytes are those of the algorithm, see counting.py. A match counts as the exhaustive search that its
answer is equal to. A fit counts as its evaluations of signal and derivatives, as many as it made (counted while it
ran); first guess, steps and error bars come on top.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bench_fit
import bench_matching
import bench_simulation
import bench_t2star
import jax
import jax.numpy as jnp
import numpy as np
from counting import FEW, evaluations, n_bytes, operations, with_derivatives_of
from timing import Timed, arguments, heading, interleaved, span, table

import jaxqmri as jq

_STEPS = 64  # of a chain of multiplications and additions, written out


def machine(repeats: int, small: bool) -> tuple[float, float, float]:
    """Operations per second of matrix products and of vectors, and bytes per second."""
    side, rounds, values = (512, 4, 2**20) if small else (2048, 64, 2**26)
    n = os.cpu_count() or 1
    a = np.random.default_rng(0).random((side, side), np.float32)
    few, many, there = jnp.linspace(0.0, 1.0, 2**16), np.ones(values, np.float32), np.zeros(values, np.float32)

    @jax.jit
    def in_registers(x):
        def block(x):
            # Four chains at once: one would wait for its own results.
            chains = [x + i for i in range(4)]
            for _ in range(_STEPS):
                chains = [c * 0.999 + 0.001 for c in chains]
            return sum(chains)

        return jax.lax.fori_loop(0, rounds, lambda _, x: block(x) * 0.25, x)

    timed = interleaved(
        {
            "products": lambda: a @ a,
            "vectors": lambda: _side_by_side(lambda _: jax.block_until_ready(in_registers(few)), range(n)),
            "bytes": lambda: _side_by_side(_add_one, np.array_split(many, n), np.array_split(there, n)),
        },
        repeats,
    )
    in_vectors = n * few.size * rounds * (4 * (2 * _STEPS + 1) + 4)
    return (
        2 * side**3 / timed["products"].warm,
        in_vectors / timed["vectors"].warm,
        2 * many.nbytes / timed["bytes"].warm,
    )


def _side_by_side(work: Callable[..., Any], *arguments: Iterable[Any]) -> None:
    """On all processors; neither numpy nor JAX holds the interpreter meanwhile."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, *arguments))


def _add_one(many: np.ndarray, there: np.ndarray) -> None:
    """Into memory that is there: what is new has to be asked for first."""
    np.add(many, 1.0, out=there)


def kernels(small: bool, repeats: int) -> list[tuple[str, Timed, float, int]]:
    """Name, seconds, operations and bytes of each."""
    n_voxels = 2048 if small else 65536
    tissue = bench_simulation.random_tissue(n_voxels)
    fewer = bench_simulation.random_tissue(n_voxels // 8)
    simulate = bench_simulation.our_signals(tissue)[bench_simulation.OURS]
    derivatives = bench_simulation.our_derivatives(fewer)[bench_simulation.OUR_DERIVATIVES]
    train, one_signal = bench_simulation.TRAIN, 4 * bench_simulation.N_ECHOES  # bytes
    thousand = jq.make_dictionary(bench_matching.TRAIN, jq.grid(jq.Tissue, t2=bench_matching.T2_GRID))
    decays = jnp.asarray(bench_matching.decays(n_voxels)[0])
    large = bench_matching.large_dictionary(100 if small else 1000, 10 if small else 100)
    trains = jnp.asarray(bench_matching.trains(n_voxels, 50.0))

    def exhaustive(dictionary: jq.Dictionary) -> float:
        return 2.0 * dictionary.atoms.size * n_voxels

    maps = (tissue.t1, tissue.t2, tissue.b1)
    one_train = operations(train, jax.tree.map(lambda leaf: leaf[0], tissue))
    candidates: dict[str, tuple[Callable[[], Any], float, int]] = {
        "FSE, 32 echoes, exact": (simulate, n_voxels * one_train, n_bytes(maps) + one_signal * n_voxels),
        "the same with derivatives by T2 and B1": (
            derivatives,
            n_voxels // 8 * with_derivatives_of(train, ("t2", "b1"), fewer),
            (n_bytes(maps) + 3 * one_signal * n_voxels) // 8,
        ),
        f"match, {len(thousand.norms)} atoms": (
            lambda: jq.match(thousand, decays),
            exhaustive(thousand),
            n_bytes(decays, thousand.atoms) + 20 * n_voxels,
        ),
        f"match, {len(large.norms)} T2 x B1, SNR 50": (
            lambda: jq.match(large, trains),
            exhaustive(large),
            n_bytes(trains, large.atoms) + 20 * n_voxels,
        ),
    }
    timed = interleaved({name: run for name, (run, _, _) in candidates.items()}, repeats)
    return [(name, timed[name], count, size) for name, (_, count, size) in candidates.items()]


def fits(small: bool, repeats: int) -> list[tuple[str, Timed, float, int]]:
    """Name, seconds, operations of the evaluations and bytes of each."""
    n_voxels = 1024 if small else 16384
    rng = np.random.default_rng(1)
    tissue = bench_simulation.random_tissue(n_voxels)._replace(t1=jnp.ones(n_voxels))
    within = tissue._replace(b1=jnp.asarray(rng.uniform(0.7, 0.98, n_voxels), jnp.float32))
    trains = bench_fit.noisy(bench_simulation.TRAIN, within, 100.0, rng)
    decays = jnp.asarray(bench_t2star.random_tissue(128)[0][:n_voxels])
    decay = jq.MonoExponential(bench_t2star.TE)
    of_decay = jq.Decay(jnp.ones(FEW), jnp.full(FEW, 0.03))
    candidates = {
        "fit of T2, B1, M0, 32 echoes, SNR 100": (bench_simulation.TRAIN, trains, ("t2", "b1"), within, 6),
        "fit of T2*, S0, 11 echoes": (decay, decays, ("t2",), of_decay, 4),
    }
    runs = {name: lambda m=model, s=signal: jq.fit(m, s) for name, (model, signal, *_) in candidates.items()}
    timed = interleaved(runs, repeats)
    rows = []
    for name, (model, signal, names, params, n_maps) in candidates.items():
        made = evaluations(model, signal)
        once = with_derivatives_of(model, names, params)
        size = n_bytes(signal) + 4 * (n_maps + 2) * len(signal)  # the residual and the status, too
        rows.append((f"{name}: {made / len(signal):.1f} evaluations a voxel", timed[name], made * once, size))
    return rows


def main() -> None:
    given = arguments(__doc__)
    print(heading() + "\n")
    products, vectors, moved = machine(given.repeats, given.small)
    print(f"Products of matrices {products / 1e9:.0f} Gflop/s, vectors {vectors / 1e9:.0f} Gflop/s, memory ", end="")
    print(f"{moved / 1e9:.1f} GB/s.\n")
    rows = []
    for name, timed, count, size in kernels(given.small, given.repeats) + fits(given.small, given.repeats):
        by_products, by_vectors, by_bytes = count / products, count / vectors, size / moved
        share = max(by_products if name.startswith("match") else by_vectors, by_bytes) / timed.warm
        limits = (span(by_products), span(by_vectors), span(by_bytes))
        rows.append((name, span(timed.warm), f"{count / 1e9:.3g}", *limits, f"{100 * share:.0f} %"))
    columns = ("warm", "10^9 operations", "as products", "as vectors", "bytes once", "limit / time")
    print(table(("kernel", *columns), rows))


if __name__ == "__main__":
    main()
