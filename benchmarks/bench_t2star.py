"""How long does a T2* map take, and how good is it? Our Adam (the ISMRM 2024 example) against our least squares.

    python benchmarks/bench_t2star.py [--repeats 7] [--size 128] [--skip-command]

One process, the same 128 x 128 x 11 arrays for all, T2* 10 ... 80 ms, signal at TE = 0 over noise 25 ... 75. "Warm" is
the median of later runs (two of Adam), "cold" the first call with its compilation. The loss is the example's, the mean
squared error of the images / 1500, over the voxels that all have an answer for. The second table times the whole
command `jaxqmri t2star`, each run a new process, on 11 DICOM files of the reference object.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxqmri as jq
from jaxqmri.pipelines import EXAMPLE_SCALE, EXAMPLE_T2STAR

TE = np.linspace(2e-3, 40e-3, 11)  # s
SNR = 50.0  # on average


def random_tissue(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(voxel, echo) float32 magnitudes of random tissue, T2* 10 ... 80 ms, and the true T2* [s]."""
    rng = np.random.default_rng(7)
    t2star, s0 = rng.uniform(0.010, 0.080, size**2), rng.uniform(500, 1500, size**2)
    signal = s0[:, None] * np.exp(-TE / t2star[:, None])
    return np.abs(signal + rng.normal(scale=1000 / SNR, size=signal.shape)).astype(np.float32), t2star


def example_loss(result: jq.FitResult, signal: np.ndarray, ok: np.ndarray) -> float:
    """Mean squared error of the images / 1500, in float64, over the voxels that every solver has an answer for."""
    s0, t2 = (np.asarray(p, dtype=np.float64)[ok] for p in result.params)
    residual = s0[:, None] * np.exp(-TE / t2[:, None]) - signal[ok]
    return float(np.mean((residual / EXAMPLE_SCALE) ** 2))


def timed(run: Callable[[], jq.FitResult], repeats: int) -> tuple[jq.FitResult, float, float]:
    """The result, the seconds of the first call and the median of `repeats` later ones."""
    seconds = []
    result = None
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    assert result is not None
    return result, seconds[0], statistics.median(seconds[1:])


def compare_solvers(size: int, repeats: int) -> None:
    signal, t2star = random_tissue(size)
    on_device = jnp.asarray(signal)
    model = jq.MonoExponential(TE)
    start = jq.Decay(s0=on_device[:, 0], t2=jnp.asarray(EXAMPLE_T2STAR))
    rows = {
        "Adam, 20 000 steps": (lambda: jq.fit(model, on_device, init=start, solver=jq.Adam(scale=EXAMPLE_SCALE)), 2),
        "Levenberg-Marquardt": (lambda: jq.fit(model, on_device), repeats),
        "log-linear, weighted": (lambda: jq.fit(model, on_device, solver=jq.LogLinear()), repeats),
    }
    results = {name: timed(run, n) for name, (run, n) in rows.items()}
    slowest = results["Adam, 20 000 steps"][2]
    everywhere = np.all([np.asarray(result.status) == jq.Status.OK for result, _, _ in results.values()], axis=0)
    print(f"| {size} x {size} x {TE.size} | cold | warm | Adam / this | loss | median T2* error | worst | answers |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (result, cold, warm) in results.items():
        error = np.abs(np.asarray(result.params.t2) / t2star - 1)
        answers = np.mean(np.asarray(result.status) == jq.Status.OK)
        loss = example_loss(result, signal, everywhere)
        print(
            f"| {name} | {cold:.2f} s | {1e3 * warm:.1f} ms | {slowest / warm:.0f} | {loss:.6e} "
            f"| {100 * np.nanmedian(error):.2f} % | {100 * np.nanmax(error):.0f} % | {100 * answers:.2f} % |"
        )
    exact, adam = results["Levenberg-Marquardt"][0], results["Adam, 20 000 steps"][0]
    apart = np.abs(np.asarray(adam.params.t2 / exact.params.t2) - 1)
    print(f"\nAdam's T2* differs from the least-squares one by {100 * np.nanmedian(apart):.4f} % (median), "
          f"{100 * np.nanmax(apart):.2f} % (worst voxel).")  # fmt: skip


def time_command(size: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        demo = Path(scratch) / "demo"
        jaxqmri = [sys.executable, "-m", "jaxqmri"]
        subprocess.run([*jaxqmri, "demo", "-o", str(demo), "--no-report", "--quiet"], check=True)
        runs = []
        for number in range(repeats):
            command = [*jaxqmri, "t2star", str(demo / "dicom"), "-o", str(Path(scratch) / str(number)), "--json"]
            start = time.perf_counter()
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            whole = time.perf_counter() - start
            split = json.loads(output)["timings_s"]
            runs.append({**split, "rest": whole - sum(split.values()), "whole command": whole})
    print(f"\n| `jaxqmri t2star`, 11 DICOM files of {size} x {size}, new process | median of {repeats} | least |")
    print("|---|---|---|")
    for step in runs[0]:
        seconds = [run[step] for run in runs]
        print(f"| {step} | {statistics.median(seconds):.2f} s | {min(seconds):.2f} s |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--skip-command", action="store_true", help="only the solvers")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    print(f"{device.platform} ({device.device_kind}), {os.cpu_count()} processors, Python {platform.python_version()}, "
          f"jax {jax.__version__}, jaxqmri {jq.__version__}\n")  # fmt: skip
    compare_solvers(arguments.size, arguments.repeats)
    if not arguments.skip_command:
        time_command(arguments.size, arguments.repeats)


if __name__ == "__main__":
    main()
