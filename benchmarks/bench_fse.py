"""Fast spin echo: how long do simulation and dictionary matching take, and how right is the match?

    python benchmarks/bench_fse.py [--repeats 9] [--skip-scaling]      (numba: pip install ".[bench]")

One process, the same arrays for all; every repetition runs all candidates one after the other, and the table has the
medians: compare rows of one table, not tables. "Cold" is the first call with its compilation.

* Simulation: 65 536 voxels of random T1, T2 and B1, 32 echoes of 180 degrees, all orders that can reach an echo, by
  `FSE` and by the operators of `jaxqmri.epg` put together as the pulse diagram says.
* Matching: 65 536 noise-free voxels, T2 5 ... 349 ms, to 1000 atoms, T2 1 ... 350 ms; against the loop of the founding
  example (numba, parallel over voxels, first of equals wins) and a plain product with argmax. Right is the index of a
  search in float64 over atoms from the formula exp(-TE / T2).
* The whole example: maps of T2 and M0 -> 32 echoes -> dictionary -> maps, 256 x 256.
* Scaling: each row a new process; memory is the peak beyond what the process held before it matched.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved

import jaxqmri as jq
from jaxqmri import epg

N_ECHOES, SPACING = 32, 5e-3
N_VOXELS = 65536
T2_GRID = np.linspace(1e-3, 350e-3, 1000)
TRAIN = jq.FSE(jnp.full(N_ECHOES, jnp.pi), SPACING)
EXAMPLE_SECONDS = 2.6  # the founding example, as its authors' gallery states


def plain_train(tissue: jq.Tissue) -> jax.Array:
    """The train of one voxel by its pulse diagram; orders 0 ... 31 are all that can return within 32 echoes."""

    def echo(states, flip_angle):
        states = epg.shift(epg.relax(states, SPACING / 2, tissue.t1, tissue.t2))
        states = epg.rf(states, tissue.b1 * flip_angle, 0.0)
        states = epg.relax(epg.shift(states), SPACING / 2, tissue.t1, tissue.t2)
        return states, states[0, 0]

    excited = epg.rf(epg.equilibrium(N_ECHOES), tissue.b1 * jnp.pi / 2, jnp.pi / 2)
    return tissue.m0 * jax.lax.scan(echo, excited, TRAIN.flip_angles)[1]


def simulation(repeats: int) -> None:
    rng = np.random.default_rng(1)
    tissue = jq.Tissue(
        *(jnp.asarray(rng.uniform(low, high, N_VOXELS), jnp.float32)
          for low, high in ((0.5, 1.5), (0.3, 2.0), (0.02, 0.3), (0.05, 0.05), (0.6, 1.2)))
    )  # fmt: skip
    plain, batched = jax.jit(jax.vmap(plain_train)), jax.jit(lambda tissue: TRAIN.batched(tissue))
    candidates = {
        "plain operators under vmap": lambda: plain(tissue),
        "jq.simulate(FSE), echoes last": lambda: jq.simulate(TRAIN, tissue),
        "FSE.batched, voxels last": lambda: batched(tissue),
    }
    difference = np.max(np.abs(np.asarray(plain(tissue)) - np.asarray(batched(tissue)).T))
    jax.clear_caches()
    seconds = interleaved(candidates, repeats)
    slowest = seconds["plain operators under vmap"][1]
    print(f"| {N_VOXELS} x {N_ECHOES}, exact, B1 per voxel | cold | warm | plain / this |\n|---|---|---|---|")
    for name, (cold, warm) in seconds.items():
        print(f"| {name} | {cold:.2f} s | {1e3 * warm:.0f} ms | {slowest / warm:.1f} |")
    print(f"\nLargest difference between them: {difference:.1e} of M0 near 1.\n")


def matching(repeats: int) -> None:
    rng = np.random.default_rng(2)
    te = SPACING * np.arange(1, N_ECHOES + 1)
    t2, m0 = rng.uniform(5e-3, 349e-3, N_VOXELS), rng.uniform(0.2, 3000, N_VOXELS)
    signal = (m0[:, None] * np.exp(-te / t2[:, None])).astype(np.float32)
    exact = np.exp(-te / T2_GRID[:, None])
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    right = np.concatenate([np.argmax(signal[i : i + 4096] @ exact.T, axis=1) for i in range(0, N_VOXELS, 4096)])
    dictionary = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=T2_GRID))
    on_device = jnp.asarray(signal)
    largest_product = jax.jit(lambda atoms, s: jnp.argmax(jnp.abs(jnp.matmul(s, atoms.T, precision="highest")), axis=1))
    example = numba_loop(np.asarray(dictionary.atoms))
    candidates = {
        "the example's loop (numba)": lambda: example(signal),
        "product and argmax, float32": lambda: largest_product(dictionary.atoms, on_device),
        "jq.match": lambda: jq.match(dictionary, on_device),
        "jq.match, refine=True": lambda: jq.match(dictionary, on_device, refine=True),
    }
    seconds = interleaved(candidates, repeats)
    slowest = seconds["the example's loop (numba)"][1]
    print(f"| {N_VOXELS} voxels, {T2_GRID.size} atoms | cold | warm | loop / this | indices right | RMS error of T2 |")
    print("|---|---|---|---|---|---|")
    for name, run in candidates.items():
        found = run()
        index = np.asarray(getattr(found, "index", found))
        values = np.asarray(found.params.t2, np.float64) if isinstance(found, jq.MatchResult) else T2_GRID[index]
        rms = 1e3 * np.sqrt(np.mean((values - t2) ** 2))
        cold, warm = seconds[name]
        print(f"| {name} | {cold:.2f} s | {1e3 * warm:.0f} ms | {slowest / warm:.1f} "
              f"| {100 * np.mean(index == right):.3f} % | {rms:.4f} ms |")  # fmt: skip


def numba_loop(atoms: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Exhaustive search as in the founding example: one voxel after the other per thread, first of equals wins."""
    import numba  # pyright: ignore[reportMissingImports]

    @numba.njit(fastmath=True)
    def product(a, b):
        total = 0.0
        for i in range(a.shape[0]):
            total += a[i] * b[i]
        return total

    @numba.njit(fastmath=True, parallel=True)
    def search(signals, atoms, largest, index):
        for voxel in numba.prange(signals.shape[0]):
            for atom in range(atoms.shape[0]):
                value = product(signals[voxel], atoms[atom])
                if np.abs(value) > np.abs(largest[voxel]):
                    largest[voxel] = value
                    index[voxel] = atom

    def run(signals: np.ndarray) -> np.ndarray:
        largest, index = np.zeros(len(signals), np.complex64), np.zeros(len(signals), np.int64)
        search(signals, atoms, largest, index)
        return index

    return run


def whole_example(repeats: int) -> None:
    rng = np.random.default_rng(3)
    t2 = jnp.asarray(rng.uniform(5e-3, 349e-3, (256, 256)), jnp.float32)
    m0 = jnp.asarray(rng.uniform(100, 1000, (256, 256)), jnp.float32)

    def example() -> jq.MatchResult:
        series = jnp.abs(jq.simulate(TRAIN, jq.Tissue(m0=m0, t1=1.0, t2=t2)))
        dictionary = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t1=1.0, t2=T2_GRID))
        return jq.match(dictionary, series)

    jax.clear_caches()
    ((cold, warm),) = interleaved({"example": example}, repeats).values()
    print(
        f"\n| whole example, 256 x 256, arrays to maps | cold | warm | {EXAMPLE_SECONDS} s / warm |\n|---|---|---|---|"
    )
    print(f"| simulate, make_dictionary, match | {cold:.2f} s | {1e3 * warm:.0f} ms | {EXAMPLE_SECONDS / warm:.1f} |")


def scaling() -> None:
    print("\n| voxels | atoms | warm | per voxel and atom | memory while matching |\n|---|---|---|---|---|")
    sizes = [(n, 1000) for n in (10**4, 10**5, 10**6, 10**7)] + [(8192, n) for n in (10**3, 10**4, 10**5, 10**6)]
    for n_voxels, n_atoms in sizes:
        command = [sys.executable, __file__, "--row", str(n_voxels), str(n_atoms)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        per_product = 1e9 * row["seconds"] / (n_voxels * n_atoms)
        cells = (n_voxels, n_atoms, f"{row['seconds']:.2f} s", f"{per_product:.2f} ns", f"{row['mebibytes']:.0f} MiB")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def scaling_row(n_voxels: int, n_atoms: int) -> None:
    te = (SPACING * np.arange(1, N_ECHOES + 1)).astype(np.float32)
    t2 = np.linspace(5e-3, 349e-3, n_voxels, dtype=np.float32)
    signal = np.empty((n_voxels, N_ECHOES), np.float32)
    for i in range(0, n_voxels, 65536):
        signal[i : i + 65536] = np.exp(-te / t2[i : i + 65536, None])
    on_device = jax.block_until_ready(jnp.asarray(signal))
    dictionary = jq.make_dictionary(TRAIN, jq.grid(jq.Tissue, t2=np.linspace(1e-3, 350e-3, n_atoms)))
    jax.block_until_ready(jq.match(dictionary, on_device[:32768]))  # compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    jax.block_until_ready(jq.match(dictionary, on_device))
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "mebibytes": (after - before) / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--skip-scaling", action="store_true")
    parser.add_argument("--row", type=int, nargs=2, metavar=("VOXELS", "ATOMS"), help="one row of the scaling table")
    arguments = parser.parse_args()
    if arguments.row:
        scaling_row(*arguments.row)
        return
    device = jax.devices()[0]
    print(f"{device.platform} ({device.device_kind}), {os.cpu_count()} processors, Python {platform.python_version()}, "
          f"jax {jax.__version__}, jaxqmri {jq.__version__}\n")  # fmt: skip
    simulation(arguments.repeats)
    matching(arguments.repeats)
    whole_example(arguments.repeats)
    if not arguments.skip_scaling:
        scaling()


if __name__ == "__main__":
    main()
