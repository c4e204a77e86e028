"""Dictionary matching: how long does it take, and how right is the match?

    python benchmarks/bench_matching.py [--repeats 5] [--small] [--skip-scaling]      (peers: see peers.py)

One process, the same arrays for all; every repetition runs all candidates one after the other, and the tables have the
medians: compare rows of one table, not tables. "Cold" is the first call with its compilation.

* 1000 atoms: 65 536 noise-free voxels, T2 5 ... 349 ms, to T2 1 ... 350 ms; against the loop of the founding example
  (numba, parallel over voxels, first of equals wins), TorchSim's matcher and a product with argmax in numpy and in JAX.
  Right is the index of a search in float64 over atoms from the formula exp(-TE / T2).
* 100 000 atoms: 1000 T2 x 100 B1, 65 536 voxels between the values of the grid, with no noise and at SNR 50; against
  the exact inner-product search of faiss. Right is a search in float64 over the atoms in float64, for the first 1024
  voxels; loss is how much of the best product the worst voxel misses.
* The founding example: maps of T2 and M0 -> 32 echoes -> dictionary -> maps, 256 x 256.
* Scaling: each row a new process; memory is the peak beyond what the process held before it matched.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers
from timing import arguments, heading, interleaved, span, table

import jaxqmri as jq
from jaxqmri.batching.context import double_precision

N_ECHOES, SPACING = 32, 5e-3
T2_GRID = np.linspace(1e-3, 350e-3, 1000)
TRAIN = jq.FSE(np.full(N_ECHOES, np.pi), SPACING)
EXAMPLE_SECONDS = 2.6  # the founding example, as its authors' gallery states
N_CHECKED = 1024  # voxels that are searched in float64 where that takes long
LOOP, PRODUCTS = "the example's loop (numba)", "product and argmax, JAX float32"


def decays(n_voxels: int) -> tuple[np.ndarray, np.ndarray]:
    """(voxel, echo) noise-free signals and their T2 [s]."""
    rng = np.random.default_rng(2)
    te = SPACING * np.arange(1, N_ECHOES + 1)
    t2, m0 = rng.uniform(5e-3, 349e-3, n_voxels), rng.uniform(0.2, 3000, n_voxels)
    return (m0[:, None] * np.exp(-te / t2[:, None])).astype(np.float32), t2


def searches(dictionary: jq.Dictionary, signal: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Each returns indices or a `MatchResult`; the loop only where numba is installed."""
    atoms, on_device = np.asarray(dictionary.atoms), jnp.asarray(signal)
    largest_product = jax.jit(lambda atoms, s: jnp.argmax(jnp.abs(jnp.matmul(s, atoms.T, precision="highest")), axis=1))
    loop = peers.those_installed({LOOP: lambda: peers.numba_loop(atoms, signal)})
    return loop | {
        PRODUCTS: lambda: largest_product(dictionary.atoms, on_device),
        "jq.match": lambda: jq.match(dictionary, on_device),
    }


def indices(found: Any) -> np.ndarray:
    return np.asarray(found.index if isinstance(found, jq.MatchResult) else found)


def thousand_atoms(n_voxels: int, repeats: int) -> None:
    signal, t2 = decays(n_voxels)
    exact = np.exp(-SPACING * np.arange(1, N_ECHOES + 1) / T2_GRID[:, None])
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    right = np.concatenate([np.argmax(signal[i : i + 4096] @ exact.T, axis=1) for i in range(0, n_voxels, 4096)])
    dictionary = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=T2_GRID))
    atoms = np.asarray(dictionary.atoms)
    candidates = searches(dictionary, signal) | peers.those_installed(
        {
            "torchsim's matcher": lambda: peers.torchsim_matcher(atoms, signal),
            "product and argmax, numpy float32": lambda: peers.numpy_products(atoms, signal),
            "faiss, IndexFlatIP": lambda: peers.faiss_search(atoms, signal),
            "jq.match, refine=True": lambda: lambda: jq.match(dictionary, signal, refine=True),
        }
    )
    timed = interleaved(candidates, repeats)
    rows = []
    for name, (cold, warm, found) in timed.items():
        index = indices(found)
        values = np.asarray(found.params.t2, np.float64) if isinstance(found, jq.MatchResult) else T2_GRID[index]
        rms = 1e3 * np.sqrt(np.mean((values - t2) ** 2))
        share = f"{100 * np.mean(index == right):.3f} %"
        rows.append((name, span(cold), span(warm), *_ratios(timed, warm), share, f"{rms:.4f} ms"))
    columns = ("cold", "warm", "loop / this", "torchsim / this", "indices right", "RMS error of T2")
    print(table((f"{n_voxels} voxels, {T2_GRID.size} atoms", *columns), rows))


def _ratios(timed: dict[str, Any], warm: float) -> list[str]:
    return [f"{timed[name].warm / warm:.2f}" if name in timed else "" for name in (LOOP, "torchsim's matcher")]


def large_dictionary(n_t2: int, n_b1: int) -> jq.Dictionary:
    t2 = np.geomspace(0.01, 0.35, n_t2)
    return jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=t2, b1=np.linspace(0.6, 1.0, n_b1)))


def trains(n_voxels: int, snr: float) -> np.ndarray:
    """(voxel, echo) signals of random T2 and B1."""
    rng = np.random.default_rng(4)
    t2, b1 = np.exp(rng.uniform(np.log(0.011), np.log(0.34), n_voxels)), rng.uniform(0.61, 0.99, n_voxels)
    clean = np.asarray(jq.simulate(TRAIN, jq.Tissue(t2=jnp.asarray(t2), b1=jnp.asarray(b1))))
    return (1000 * (clean + rng.normal(size=clean.shape) / snr)).astype(np.float32)


def many_atoms(n_voxels: int, n_t2: int, snr: float, repeats: int) -> None:
    dictionary = large_dictionary(n_t2, n_t2 // 10)
    signal, atoms = trains(n_voxels, snr), np.asarray(dictionary.atoms)
    on_device = jnp.asarray(signal)
    candidates = peers.those_installed(
        {
            "faiss, IndexFlatIP": lambda: peers.faiss_search(atoms, signal),
            "torchsim's matcher, groups of 500": lambda: peers.torchsim_matcher(atoms, signal, len(atoms) // 500),
            "jq.match": lambda: lambda: jq.match(dictionary, on_device),
        }
    )
    timed = interleaved(candidates, repeats)
    products = in_float64(dictionary, signal[:N_CHECKED])
    best = np.max(products, axis=1)
    slowest = timed["faiss, IndexFlatIP"].warm if "faiss, IndexFlatIP" in timed else float("nan")
    rows = []
    for name, (cold, warm, found) in timed.items():
        index = indices(found)[: len(products)]
        share = 100 * np.mean(index == np.argmax(products, axis=1))
        loss = np.max(1 - products[np.arange(len(index)), index] / best)
        rows.append((name, span(cold), span(warm), f"{slowest / warm:.2f}", f"{share:.2f} %", f"{loss:.1e}"))
    of = f"{n_voxels} voxels, {len(atoms)} atoms, " + (f"SNR {snr:g}" if np.isfinite(snr) else "no noise")
    print(table((of, "cold", "warm", "faiss / this", "indices right", "loss"), rows))


def in_float64(dictionary: jq.Dictionary, signal: np.ndarray) -> np.ndarray:
    """|<atom, signal>| with atoms simulated and normalised in float64."""
    with double_precision():
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), dictionary.params)
        atoms = np.asarray(jq.simulate(jq.FSE(np.full(N_ECHOES, np.pi), SPACING), params))
    atoms = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    return np.abs(signal.astype(np.float64) @ atoms.T)


def whole_example(size: int, repeats: int) -> None:
    rng = np.random.default_rng(3)
    t2 = jnp.asarray(rng.uniform(5e-3, 349e-3, (size, size)), jnp.float32)
    m0 = jnp.asarray(rng.uniform(100, 1000, (size, size)), jnp.float32)

    def example() -> jq.MatchResult:
        series = jnp.abs(jq.simulate(TRAIN, jq.Tissue(m0=m0, t1=1.0, t2=t2)))
        dictionary = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t1=1.0, t2=T2_GRID))
        return jq.match(dictionary, series)

    jax.clear_caches()  # "cold" is that of a process that has done nothing before
    (timed,) = interleaved({"example": example}, repeats).values()
    worst = float(jnp.max(jnp.abs(timed.result.params.t2 - t2))) / (T2_GRID[1] - T2_GRID[0])
    cells = (
        span(timed.cold),
        span(timed.warm),
        f"{EXAMPLE_SECONDS / timed.warm:.1f}",
        f"{worst:.2f} steps of the grid",
    )
    columns = ("cold", "warm", f"{EXAMPLE_SECONDS} s / warm", "largest error of T2")
    print(
        table(
            (f"whole example, {size} x {size}, arrays to maps", *columns),
            [("simulate, make_dictionary, match", *cells)],
        )
    )


def scaling(small: bool) -> None:
    by_voxels, by_atoms = (3,) if small else (4, 5, 6, 7), () if small else (3, 4, 5, 6)
    rows = []
    for n_voxels, n_atoms in [(10**n, 1000) for n in by_voxels] + [(8192, 10**n) for n in by_atoms]:
        command = [sys.executable, __file__, "--row", str(n_voxels), str(n_atoms)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        each = span(row["seconds"] / (n_voxels * n_atoms))
        rows.append((str(n_voxels), str(n_atoms), span(row["seconds"]), each, f"{row['mebibytes']:.0f} MiB"))
    print(table(("voxels", "atoms", "warm", "per voxel and atom", "memory while matching"), rows))


def scaling_row(n_voxels: int, n_atoms: int) -> None:
    te = (SPACING * np.arange(1, N_ECHOES + 1)).astype(np.float32)
    t2 = np.linspace(5e-3, 349e-3, n_voxels, dtype=np.float32)
    signal = np.empty((n_voxels, N_ECHOES), np.float32)
    for i in range(0, n_voxels, 65536):
        signal[i : i + 65536] = np.exp(-te / t2[i : i + 65536, None])
    on_device = jax.block_until_ready(jnp.asarray(signal))
    dictionary = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=np.linspace(1e-3, 350e-3, n_atoms)))
    jax.block_until_ready(jq.match(dictionary, on_device[: 2**17]))  # compiled for batches of the same size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    jax.block_until_ready(jq.match(dictionary, on_device))
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "mebibytes": (after - before) / 1024}))


def main() -> None:
    def more(parser):
        parser.add_argument("--skip-scaling", action="store_true")
        parser.add_argument("--row", type=int, nargs=2, metavar=("VOXELS", "ATOMS"), help="one row of the last table")

    given = arguments(__doc__, more=more)
    if given.row:
        scaling_row(*given.row)
        return
    print(heading(("numba", "torch", "torchsim", "faiss-cpu")) + "\n")
    thousand_atoms(4096 if given.small else 65536, given.repeats)
    for snr in (50.0,) if given.small else (np.inf, 50.0):
        many_atoms(1024 if given.small else 65536, 300 if given.small else 1000, snr, given.repeats)
    whole_example(64 if given.small else 256, given.repeats)
    if not given.skip_scaling:
        scaling(given.small)


if __name__ == "__main__":
    main()
