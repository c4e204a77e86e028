"""Late echoes on the floor of magnitudes: Rician noise, an offset, or those echoes left out?

    python benchmarks/study_floor.py [--voxels 20000]

12 echoes, 10 ... 120 ms, magnitudes of one coil; sigma is 1 and known to the Rician fit and to the truncation alone.
Each row is one tissue and one SNR of the last echo: bias of the mean and spread (SD) of T2 relative to the truth, SD of
(estimate - truth) / stderr, and the share of voxels with an answer. Nothing is timed.
"""

import argparse

import numpy as np

import jaxqmri as jq
from jaxqmri.mapping.fitting.estimate import above

TE = 0.010 * np.arange(1, 13)  # s


def row(result: jq.FitResult, t2: float) -> str:
    found, stderr = np.asarray(result.params.t2, np.float64), np.asarray(result.stderr.t2, np.float64)
    ok = np.asarray(result.status) == jq.Status.OK
    z = ((found - t2) / stderr)[ok & np.isfinite(stderr)]
    bias, spread = np.mean(found[ok]) / t2 - 1, np.std(found[ok]) / t2
    return f"{100 * bias:+.1f} | {100 * spread:.1f} | {z.std():.2f} | {100 * ok.mean():.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=20_000)
    n, rng = parser.parse_args().voxels, np.random.default_rng(0)
    plain, with_offset = jq.MonoExponential(TE), jq.MonoExponential(TE, offset=True)
    print("| T2, SNR of first and last echo | fit | bias % | spread % | SD of z | answers % |")
    print("|---|---|---|---|---|---|")
    for last in (5, 2, 1):
        for t2 in (0.030, 0.050):
            clean = last * np.exp((TE[-1] - TE) / t2) * np.ones((n, 1))
            signal = np.hypot(clean + rng.normal(size=clean.shape), rng.normal(size=clean.shape)).astype(np.float32)
            fits = {
                "least squares": lambda s=signal: jq.fit(plain, s),
                "Rician": lambda s=signal: jq.fit(plain, s, noise=jq.Rician(1.0)),
                "offset": lambda s=signal: jq.fit(with_offset, s),
                "cut below 2 sigma": lambda s=signal: jq.fit(plain, s, noise=jq.Gaussian(None, 1.0 * above(s, 2.0))),
                "cut below 5 sigma": lambda s=signal: jq.fit(plain, s, noise=jq.Gaussian(None, 1.0 * above(s, 5.0))),
            }
            for name, fit in fits.items():
                print(f"| {1e3 * t2:g} ms, {clean[0, 0]:.0f} and {last} | {name} | {row(fit(), t2)} |")


if __name__ == "__main__":
    main()
