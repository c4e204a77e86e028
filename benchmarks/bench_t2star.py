"""How long does a T2* map take, and how good is it? Our solvers against MRpro's Adam and scipy.

    python benchmarks/bench_t2star.py [--repeats 5] [--small]      (peers: see peers.py)

One process, the same 128 x 128 x 11 arrays for all, T2* 10 ... 80 ms, signal at TE = 0 over noise 25 ... 75; every
repetition runs all candidates, "warm" is the median, "cold" the first call with its compilation. Both Adams are the
ISMRM 2024 example: the signal / 1500, T2* from 20 ms, 20 000 steps of 1e-3. scipy (MINPACK, float64, one voxel after
the other, from the log-linear answer) fits every 64th voxel, and its seconds are scaled up.

The loss is the example's, the mean squared error of the images / 1500 in float64, over the voxels that all have an
answer for. "Deviation" is that of T2* from scipy's, the exact least-squares answer, in the voxels that scipy fitted.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import peers
from timing import arguments, heading, interleaved, span, table

import jaxqmri as jq
from jaxqmri.mapping.t2star import EXAMPLE_SCALE, EXAMPLE_T2STAR

TE = np.linspace(2e-3, 40e-3, 11)  # s
SNR = 50.0  # on average
EVERY = 64  # voxels, of which scipy fits one
MRPRO, ADAM, LM = "MRpro's Adam", "our Adam", "Levenberg-Marquardt"


def random_tissue(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(voxel, echo) float32 magnitudes of random tissue, T2* 10 ... 80 ms, and the true T2* [s]."""
    rng = np.random.default_rng(7)
    t2star, s0 = rng.uniform(0.010, 0.080, size**2), rng.uniform(500, 1500, size**2)
    signal = s0[:, None] * np.exp(-TE / t2star[:, None])
    return np.abs(signal + rng.normal(scale=1000 / SNR, size=signal.shape)).astype(np.float32), t2star


def example_loss(s0: np.ndarray, t2: np.ndarray, signal: np.ndarray) -> float:
    """Mean squared error of the images / 1500, in float64."""
    residual = s0[:, None] * np.exp(-TE / t2[:, None]) - signal
    return float(np.mean((residual / EXAMPLE_SCALE) ** 2))


def solvers(signal: np.ndarray, steps: int) -> dict[str, Callable[[], jq.FitResult]]:
    model, on_device = jq.MonoExponential(TE), jnp.asarray(signal)
    start = jq.Decay(s0=on_device[:, 0], t2=jnp.asarray(EXAMPLE_T2STAR))
    adam = jq.Adam(steps=steps, scale=EXAMPLE_SCALE)
    return {
        ADAM: lambda: jq.fit(model, on_device, init=start, solver=adam),
        LM: lambda: jq.fit(model, on_device),
        "log-linear, weighted": lambda: jq.fit(model, on_device, solver=jq.LogLinear()),
    }


def s0_and_t2(found: Any) -> np.ndarray:
    """(2, voxel) float64, NaN where there is no answer."""
    return np.stack([np.asarray(p, np.float64) for p in (found.params if isinstance(found, jq.FitResult) else found)])


def compare(size: int, steps: int, repeats: int) -> None:
    signal, t2star = random_tissue(size)
    few = slice(None, None, EVERY)
    guess = jq.fit(jq.MonoExponential(TE), signal[few], solver=jq.LogLinear()).params
    scipy = peers.scipy_decay(TE, signal[few], np.asarray(guess.s0), np.asarray(guess.t2))
    candidates = peers.those_installed(
        {MRPRO: lambda: peers.mrpro_adam(TE, signal, steps, EXAMPLE_SCALE, EXAMPLE_T2STAR)}
    )
    timed = interleaved(candidates | solvers(signal, steps) | {"scipy": scipy}, repeats)
    exact = s0_and_t2(timed["scipy"].result)[1]
    found = {name: s0_and_t2(t.result) for name, t in timed.items() if name != "scipy"}
    everywhere = np.all([np.isfinite(values).all(axis=0) & (values[1] > 0) for values in found.values()], axis=0)
    slowest, ours = (timed[name].warm if name in timed else math.nan for name in (MRPRO, ADAM))
    rows = []
    for name, values in found.items():
        cold, warm, _ = timed[name]
        deviation = np.abs(values[1, few] / exact - 1)
        error = np.abs(values[1] / t2star - 1)
        loss = example_loss(values[0, everywhere], values[1, everywhere], signal[everywhere])
        ratios = (f"{slowest / warm:.1f}", f"{ours / warm:.1f}")
        quality = (
            f"{loss:.6e}",
            f"{np.nanmedian(deviation):.1e}",
            f"{np.nanmax(deviation):.1e}",
            f"{100 * np.nanmedian(error):.2f} %",
        )
        answers = f"{100 * np.mean(np.isfinite(values[1])):.2f} %"
        rows.append((name, span(cold), span(warm), *ratios, *quality, answers))
    scaled = timed["scipy"].warm * size**2 / len(exact)
    rows.append(("scipy, scaled up", "", span(scaled), f"{slowest / scaled:.1f}", f"{ours / scaled:.1f}", *[""] * 5))
    ratios, quality = (
        ("MRpro / this", "our Adam / this"),
        ("loss", "deviation, median", "worst", "median error", "answers"),
    )
    print(table((f"T2*, {size} x {size} x {TE.size}, {steps} Adam steps", "cold", "warm", *ratios, *quality), rows))
    print(f"Voxels in the loss: {100 * np.mean(everywhere):.2f} %.\n")


def main() -> None:
    given = arguments(__doc__, more=lambda parser: parser.add_argument("--size", type=int, default=128))
    print(heading(("torch", "mrpro", "scipy")) + "\n")
    compare(32 if given.small else given.size, 1000 if given.small else 20000, given.repeats)


if __name__ == "__main__":
    main()
