"""Does a fit of two pools find the lowest cost? Against MINPACK in float64 from 20 places; nothing is timed.

    python benchmarks/study_two_pools.py [--voxels 2000]

32 echoes, 5 ... 160 ms; t_short 8 ... 30 ms, t_long 2 to 8 times as long, 10 to 90 % of the signal in the short pool. A
row per SNR of M0: the share of voxels with an answer, the share of those whose cost is more than 1e-6 above the lowest
that scipy found within the limits of the model, and the largest excess.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize

import jaxqmri as jq

TE = 5e-3 * np.arange(1, 33)  # s
SNR = (50, 200, 500)
N_STARTS = 20


def decay(m0, fraction, t_short, t_long) -> np.ndarray:
    """(..., echo) signals."""
    m0, f, short, long = (np.asarray(value, float)[..., None] for value in (m0, fraction, t_short, t_long))
    return m0 * (f * np.exp(-TE / short) + (1 - f) * np.exp(-TE / long))


@np.errstate(all="ignore")
def lowest(signal: np.ndarray, limits: Sequence[tuple[float, float]], rng: np.random.Generator) -> float:
    """The lowest sum of squares within the limits from all starts, the times kept in order."""

    def pools(x: np.ndarray) -> tuple[float, ...]:
        return np.exp(x[0]), x[1], np.exp(x[2]), np.exp(x[2]) + np.exp(x[3])

    def misfit(x: np.ndarray) -> np.ndarray:
        return np.nan_to_num(decay(*pools(x)) - signal, nan=1e6, posinf=1e6, neginf=-1e6)

    costs = [np.inf]
    for _ in range(N_STARTS):
        short, long = np.sort(np.exp(rng.uniform(np.log(3e-3), np.log(0.3), 2)))
        start = [np.log(signal[0]), rng.uniform(0.05, 0.95), np.log(short), np.log(long - short)]
        found = optimize.least_squares(misfit, start, method="lm", x_scale="jac", xtol=1e-10, ftol=1e-12, gtol=1e-12)
        ends = zip(pools(found.x), limits, strict=True)
        costs.append(2 * found.cost if all(low <= value <= high for value, (low, high) in ends) else np.inf)
    return min(costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=2000)
    n = parser.parse_args().voxels
    model, rng = jq.BiExponential(TE), np.random.default_rng(11)
    ends: Any = model.limits()
    limits = [(float(low), float(high)) for low, high in ends]
    t_short = np.exp(rng.uniform(np.log(0.008), np.log(0.03), n))
    truth = decay(np.ones(n), rng.uniform(0.1, 0.9, n), t_short, t_short * rng.uniform(2, 8, n))
    print("| SNR | answers % | cost above scipy's by 1e-6, % | largest excess |")
    print("|---|---|---|---|")
    for snr in SNR:
        signal = (truth + rng.standard_normal(truth.shape) / snr).astype(np.float32)
        result = jq.fit(model, signal)
        ok = np.flatnonzero(np.asarray(result.status) == jq.Status.OK)
        params = [np.asarray(leaf, float)[ok] for leaf in result.params]
        ours = np.sum((decay(*params) - signal[ok]) ** 2, axis=-1)
        excess = ours / [lowest(signal[voxel].astype(float), limits, rng) for voxel in ok] - 1
        higher = f"{100 * np.mean(excess > 1e-6):.2f} | {max(excess.max(), 0):.1e}"
        print(f"| {snr} | {100 * len(ok) / n:.1f} | {higher} |", flush=True)


if __name__ == "__main__":
    main()
