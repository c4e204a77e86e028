"""Is everything right on this device, and how fast is it? On whatever JAX finds: CPU, GPU or TPU.

    python benchmarks/accelerator.py [--device cpu|gpu|tpu] [--json FILE] [--quick]

Takes at most three minutes, compilation included, and needs neither a network nor an installed jaxqmri. The exit code
is 1 where a check fails, or could not be made, or not in time.

Every row calls public functions and holds what the device returned against float64 on the CPU:

* the device itself: bytes per second of an array written to another one (read and written once each), and operations
  per second of a float32 matrix product at full precision, the limits of whatever runs on it;
* simulation: fast spin echo of 32 echoes, exact, B1 per voxel; and the signal with its derivatives by T2 and B1.
  Against the operators of `jaxqmri.epg` put together as the pulse diagram says, all 32 orders;
* fit: T2* and S0 of 11 echoes, one slice and many; T2, B1 and M0 of 32 echoes at SNR 100. Against MINPACK;
* match: 1000 atoms (T2) without noise and 100 000 (T2 x B1) at SNR 50. Against all products with float64 atoms.

"Compile" is the first call less the median of the later ones, "warm". Operations and bytes are those of the algorithm
(counting.py); a match counts as the exhaustive search, of which it leaves out most, so it may exceed the limit. What a
tolerance comes from stands beside it in the code. On a CPU there are fewer voxels.
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # wherever it is started from

import bench_fit
import bench_matching
import bench_simulation
import bench_t2star
import jax
import jax.numpy as jnp
import numpy as np
import peers
from counting import n_bytes, operations, with_derivatives_of
from timing import Timed, heading, interleaved, processor, span, table

import jaxqmri as jq

LIMIT = 175.0  # s, for everything
PER_ROW = 4.0  # s of warm runs, after which no other one begins
COPY, PRODUCT = "copy", "matrix product"
UNIT = float(np.finfo(np.float32).eps) / 2  # largest relative error of one rounding


class Sizes(NamedTuple):
    """How much is done: numbers of voxels, unless they say otherwise."""

    side: int  # of the square matrices
    copied: int  # numbers
    rounds: int  # products and copies between two looks at the clock
    simulated: int
    matched: int
    atoms: tuple[int, int]  # T2 and B1 of the large dictionary
    slice_side: int  # of the slice of gradient echoes
    many_side: int  # the same for many slices, as one square
    trains: int  # fitted
    repeats: int


SIZES = {
    "accelerator": Sizes(4096, 2**27, 10, 65536, 65536, (1000, 100), 128, 1448, 65536, 5),
    "cpu": Sizes(1024, 2**25, 1, 16384, 8192, (1000, 100), 128, 256, 2048, 3),
    "quick": Sizes(256, 2**18, 1, 512, 256, (200, 20), 16, 16, 64, 1),
}


class Case(NamedTuple):
    """One row: what is run, and what it is checked against.

    Attributes:
        n_voxels: None for the device's own limits.
        run: the same every time.
        error: of what `run` returned, against float64; NaN fails.
        tolerance: the largest error that passes.
        relative_to: what the error is a fraction of.
        operations: of one run; None: not known beforehand.
        n_bytes: of one run.
    """

    n_voxels: int | None
    run: Callable[[], Any]
    error: Callable[[Any], float]
    tolerance: float
    relative_to: str
    operations: float | None
    n_bytes: int


def on_cpu() -> Any:
    """New arrays go to the CPU: for reference answers, and for data that are to be the same for every device."""
    return jax.default_device(jax.devices("cpu")[0])


def copy(n_values: int, rounds: int) -> Case:
    values = np.random.default_rng(0).random(n_values, np.float32)
    source = jnp.asarray(values)
    there = [jnp.zeros_like(source)]
    # Into memory that is there: what is new has to be asked for first.
    write = jax.jit(lambda source, there: source + 1, donate_argnums=1, keep_unused=True)

    def run() -> jax.Array:
        for _ in range(rounds):
            there[0] = write(source, there[0])
        return there[0]

    def error(found: jax.Array) -> float:
        return float(np.max(np.abs(np.asarray(found) - (values + 1))))

    # One addition is rounded correctly everywhere.
    return Case(None, run, error, 0.0, "1", None, 2 * rounds * values.nbytes)


def product(side: int, rounds: int) -> Case:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(side, side)).astype(np.float32) for _ in range(2))
    left, right = jnp.asarray(a), jnp.asarray(b)
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))

    def error(found: jax.Array) -> float:
        few = a[:64].astype(np.float64) @ b.astype(np.float64)
        return float(np.max(np.abs(np.asarray(found[:64]) - few)) / np.sqrt(side))

    # The roundings of `side` additions, of random signs, add up to UNIT sqrt(side) of the standard deviation of an
    # element, sqrt(side); the worst of many elements has 5 times as much. TF32 is wrong by 1e-3, bfloat16 by 1e-2.
    return Case(
        None,
        lambda: [multiply(left, right) for _ in range(rounds)][-1],
        error,
        8 * UNIT * math.sqrt(side),
        "SD of an element",
        2.0 * side**3 * rounds,
        12 * side**2 * rounds,
    )


def simulation(n_voxels: int, device: Any) -> Case:
    tissue = _random_tissue(n_voxels, device)

    def error(found: jax.Array) -> float:
        with on_cpu():
            right = bench_simulation.in_float64(bench_simulation.plain_train, tissue)
        return float(np.max(np.abs(np.asarray(found)[: len(right)] - right)))

    # 32 pulses with about six roundings of a state each, all of the same sign.
    n = bench_simulation.N_ECHOES
    one = operations(bench_simulation.TRAIN, jax.tree.map(lambda leaf: leaf[0], tissue))
    run = bench_simulation.our_signals(tissue)[bench_simulation.OURS]
    size = n_bytes(tissue.t1, tissue.t2, tissue.b1) + 4 * n * n_voxels
    return Case(n_voxels, run, error, 6 * n * UNIT, "M0", one * n_voxels, size)


def derivatives(n_voxels: int, device: Any) -> Case:
    tissue = _random_tissue(n_voxels, device)

    def error(found: tuple[jax.Array, ...]) -> float:
        with on_cpu():
            right = bench_simulation.in_float64(bench_simulation.with_jacobian(bench_simulation.plain_train), tissue)
        errors = [
            np.max(np.abs(np.asarray(ours).T[: len(exact)] - exact)) / np.max(np.abs(exact))
            for ours, exact in zip(found, right, strict=True)
        ]
        return float(max(errors))

    # A derivative of an echo has the roundings of the states and those of their derivatives.
    n = bench_simulation.N_ECHOES
    one = with_derivatives_of(bench_simulation.TRAIN, ("t2", "b1"), tissue)
    run = bench_simulation.our_derivatives(tissue)[bench_simulation.OUR_DERIVATIVES]
    size = n_bytes(tissue.t1, tissue.t2, tissue.b1) + 3 * 4 * n * n_voxels
    return Case(n_voxels, run, error, 12 * n * UNIT, "the largest", one * n_voxels, size)


def _random_tissue(n_voxels: int, device: Any) -> jq.Tissue:
    with on_cpu():
        tissue = bench_simulation.random_tissue(n_voxels)
    return jax.device_put(tissue, device)


def match(dictionary: jq.Dictionary, signal: np.ndarray, n_checked: int) -> Case:
    on_device, n_voxels = jnp.asarray(signal), len(signal)

    def error(found: jq.MatchResult) -> float:
        """How much of the largest product the answer misses, in the worst voxel."""
        with on_cpu():
            products = bench_matching.in_float64(dictionary, signal[:n_checked])
        chosen = np.asarray(found.index)[:n_checked]
        return float(np.max(1 - products[np.arange(len(chosen)), chosen] / np.max(products, axis=1)))

    # The search promises the atom that float64 finds. Equal ones aside, a wrong neighbour misses 1e-8 or more.
    return Case(
        n_voxels,
        lambda: jq.match(dictionary, on_device),
        error,
        1e-12,
        "the largest product",
        2.0 * dictionary.atoms.size * n_voxels,
        n_bytes(on_device, dictionary.atoms) + 20 * n_voxels,
    )


def decay_fit(side: int) -> Case:
    signal, _ = bench_t2star.random_tissue(side)
    model, on_device = jq.MonoExponential(bench_t2star.TE), jnp.asarray(signal)
    few = slice(None, None, max(1, len(signal) // 256))

    def error(found: jq.FitResult) -> float:
        s0, t2 = (np.asarray(leaf, np.float64)[few] for leaf in found.params)
        if not np.all(np.asarray(found.status)[few] == jq.Status.OK):
            return math.nan
        exact = peers.scipy_decay(bench_t2star.TE, signal[few], s0, t2)()[1]
        return float(np.max(np.abs(t2 / exact - 1)))

    # The 11 roundings of residuals, 11 UNIT of the signal, divided by its slope in log T2: 0.1 where T2* is 80 ms.
    return Case(
        len(signal),
        lambda: jq.fit(model, on_device),
        error,
        11 * UNIT / 0.1,
        "T2*",
        None,
        n_bytes(signal) + 4 * 6 * len(signal),  # S0, T2*, their standard errors, residual and status
    )


def train_fit(n_voxels: int, device: Any) -> Case:
    # Row by row, so that the voxels that are checked are the same however many there are: near perfect refocusing
    # another minimum may be lower than the one that MINPACK finds from the truth.
    values = np.random.default_rng(1).uniform((500, 0.02, 0.7), (1500, 0.2, 0.98), (n_voxels, 3))
    train, snr, n_checked = bench_fit.TRAIN, bench_fit.SNR, bench_fit.N_CHECKED
    with on_cpu():
        m0, t2, b1 = jnp.asarray(values, jnp.float32).T
        tissue = jq.Tissue(m0=m0, t1=1.0, t2=t2, b1=b1)
        signal = np.asarray(bench_fit.noisy(train, tissue, snr, np.random.default_rng(2)))
    on_device = jax.device_put(signal, device)

    def error(found: jq.FitResult) -> float:
        if not np.all(np.asarray(found.status)[:n_checked] == jq.Status.OK):
            return math.nan
        with on_cpu():
            exact = bench_fit.exact_t2(signal[:n_checked], values[:n_checked])
            few = jax.tree.map(lambda leaf: leaf[:n_checked] if np.ndim(leaf) else leaf, tissue)
            bound = bench_fit.cramer_rao(few, "t2", values[:n_checked, 0] / snr)
        return float(np.max(np.abs(np.asarray(found.params.t2, np.float64)[:n_checked] - exact) / bound))

    # As uncertain as noise makes T2, times how much smaller rounding is: the tolerance of the simulation over 1 / SNR.
    return Case(
        n_voxels,
        lambda: jq.fit(train, on_device),
        error,
        6 * bench_simulation.N_ECHOES * UNIT * snr,
        "standard error",
        None,
        n_bytes(signal) + 4 * 8 * n_voxels,
    )


def cases(sizes: Sizes, device: Any) -> dict[str, Callable[[], Case]]:
    """The rows in order, what may take longest last; the data of one are made when its turn has come."""

    def thousand_atoms() -> Case:
        dictionary = jq.make_dictionary(bench_matching.TRAIN, jq.grid(jq.Tissue, t2=bench_matching.T2_GRID))
        return match(dictionary, bench_matching.decays(sizes.matched)[0], 1024)

    def many_atoms() -> Case:
        with on_cpu():
            signal = bench_matching.trains(sizes.matched, 50.0)
        return match(bench_matching.large_dictionary(*sizes.atoms), signal, 128)

    return {
        COPY: lambda: copy(sizes.copied, sizes.rounds),
        PRODUCT: lambda: product(sizes.side, sizes.rounds),
        "simulation": lambda: simulation(sizes.simulated, device),
        "simulation with derivatives": lambda: derivatives(sizes.simulated, device),
        "fit of T2*, one slice": lambda: decay_fit(sizes.slice_side),
        "fit of T2*, many slices": lambda: decay_fit(sizes.many_side),
        "fit of T2, B1, M0": lambda: train_fit(sizes.trains, device),
        "match, T2": thousand_atoms,
        "match, T2 x B1": many_atoms,
    }


def measured(name: str, case: Case, repeats: int) -> dict[str, Any]:
    """A row as JSON has it: SI units, None for what is not known."""
    timed: Timed = interleaved({name: case.run}, repeats, PER_ROW)[name]
    error = case.error(timed.result)
    return {
        "name": name,
        "voxels": case.n_voxels,
        "first_call": timed.cold,
        "compile": max(timed.cold - timed.warm, 0.0),
        "warm": timed.warm,
        "operations": case.operations,
        "bytes": case.n_bytes,
        "operations_per_second": case.operations and case.operations / timed.warm,
        "bytes_per_second": case.n_bytes / timed.warm,
        "error": error if math.isfinite(error) else None,
        "tolerance": case.tolerance,
        "relative_to": case.relative_to,
        "passed": error <= case.tolerance,
    }


def about(device: Any) -> dict[str, Any]:
    """What the figures were taken on."""
    memory = device.memory_stats() or {}  # None on a CPU
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "memory": memory.get("bytes_limit"),
        "runtime": device.client.platform_version,
        "driver": _nvidia_driver() if device.platform in ("gpu", "cuda") else None,
        "processor": processor(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {module.__name__: module.__version__ for module in (jax, np, jq)},
        "compiled_programs": jax.config.jax_compilation_cache_dir,  # pyright: ignore[reportAttributeAccessIssue]
    }


def _nvidia_driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout.strip() or None


def content(rows: list[dict[str, Any]], names: list[str], device: Any, seconds: float) -> dict[str, Any]:
    """What is written: the device, its two limits, the rows, and whether all checks were made and passed."""
    there = {row["name"]: row for row in rows}
    return {
        "device": about(device),
        "copy_bytes_per_second": there.get(COPY, {}).get("bytes_per_second"),
        "product_operations_per_second": there.get(PRODUCT, {}).get("operations_per_second"),
        "rows": rows,
        "missing": [name for name in names if name not in there],
        "seconds": seconds,
        "passed": all(name in there and there[name]["passed"] for name in names),
    }


def show(found: dict[str, Any], device: Any) -> None:
    most_operations = found["product_operations_per_second"] or math.nan
    most_bytes = found["copy_bytes_per_second"] or math.nan
    print(heading(device=device) + "\n")
    print(f"Copies {most_bytes / 1e9:.4g} GB/s, float32 matrix products {most_operations / 1e9:.4g} Gflop/s.\n")
    cells = []
    for row in found["rows"]:
        n, warm, rate = row["voxels"], row["warm"], row["operations_per_second"]
        times = (str(n or ""), span(row["compile"]), span(warm), span(warm / n) if n else "")
        of_products = f"{100 * rate / most_operations:.3g} %" if rate else ""
        of_copies = f"{100 * row['bytes_per_second'] / most_bytes:.3g} %"
        error = "no answer" if row["error"] is None else f"{row['error']:.1e}"
        check = (error, f"{row['tolerance']:.1e} of {row['relative_to']}", "pass" if row["passed"] else "FAIL")
        cells.append((row["name"], *times, of_products, of_copies, *check))
    columns = ("voxels", "compile", "warm", "per voxel", "of products' rate", "of copies' rate", "error", "at most")
    print(table((device.device_kind, *columns, "check"), cells))
    if found["device"]["compiled_programs"]:
        print(f"Programs compiled before were read from {found['device']['compiled_programs']}.")
    if found["missing"]:
        print(f"Not measured: {', '.join(found['missing'])}.")
    print(f"{'All checks passed' if found['passed'] else 'NOT all checks passed'}, {span(found['seconds'])} in all.")


def main() -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu", "tpu"), help="where to run (the first one JAX finds)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--quick", action="store_true", help="few voxels, one repetition: does everything run?")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="S", help=f"seconds for everything ({LIMIT:g})")
    given = parser.parse_args()
    try:
        device, _ = jax.devices(given.device)[0], jax.devices("cpu")
    except RuntimeError as error:
        parser.error(f"{error}. JAX_PLATFORMS must name both the device and the cpu, or nothing.")
    sizes = SIZES["quick" if given.quick else "cpu" if device.platform == "cpu" else "accelerator"]
    makers = cases(sizes, device)
    rows: list[dict[str, Any]] = []

    def finish() -> None:
        """Ends the process, which neither a compilation nor a computation under way would do by itself."""
        found = content(rows, list(makers), device, time.perf_counter() - began)
        show(found, device)
        if given.json is not None:
            given.json.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        sys.stdout.flush()
        os._exit(0 if found["passed"] else 1)

    guard = threading.Timer(given.limit, finish)
    guard.daemon = True
    guard.start()
    with jax.default_device(device):
        for name, make in makers.items():
            try:
                rows.append(measured(name, make(), sizes.repeats))
            except Exception:  # the other rows are worth having
                print(f"{name}:", file=sys.stderr)
                traceback.print_exc()
    guard.cancel()
    finish()


if __name__ == "__main__":
    main()
