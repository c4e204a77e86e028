"""What does the noise floor do to T2*? Gaussian against Rician fits of magnitudes in which late echoes drown.

    python benchmarks/study_rician.py [--voxels 10000]

12 echoes, 4.6 ... 55.3 ms, those of the Philips scan in the test data; sigma is 1 and known. Each row is one tissue:
bias of the median and spread (half the distance of the 16th and the 84th percentile) relative to the true T2*, SD of
(estimate - truth) / stderr, which is 1 where error bars are honest, the mean of the reduced chi-squared, and the share
of voxels with an answer. Nothing is timed.
"""

import argparse

import numpy as np

import jaxqmri as jq

TE = np.linspace(4.6e-3, 55.3e-3, 12)  # s
T2STAR = (0.010, 0.020, 0.040)  # s
SNR = (3, 5, 10, 20, 50, 100)  # at the first echo


def magnitudes(snr: float, t2star: float, n_voxels: int) -> np.ndarray:
    """(voxel, echo) of one coil, with noise 1 in both channels."""
    rng = np.random.default_rng(7)
    signal = snr * np.exp(-(TE - TE[0]) / t2star) * np.ones((n_voxels, 1))
    return np.hypot(signal + rng.normal(size=signal.shape), rng.normal(size=signal.shape)).astype(np.float32)


def row(result: jq.FitResult, t2star: float) -> str:
    estimate, stderr = np.asarray(result.params.t2, np.float64), np.asarray(result.stderr.t2, np.float64)
    ok = np.asarray(result.status) == jq.Status.OK
    low, middle, high = np.percentile(estimate[ok], [16, 50, 84]) / t2star
    z = (estimate - t2star)[ok] / stderr[ok]
    chi2 = np.mean(np.asarray(result.reduced_chi2)[ok])
    return f"{100 * (middle - 1):+.1f} | {50 * (high - low):.1f} | {z.std():.2f} | {chi2:.2f} | {100 * ok.mean():.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=10_000)
    n_voxels = parser.parse_args().voxels
    model = jq.MonoExponential(TE)
    print("| T2* | SNR first, last echo | noise model | bias % | spread % | SD of z | chi2 | answers % |")
    print("|---|---|---|---|---|---|---|---|")
    for t2star in T2STAR:
        of_last = 5 * float(np.exp((TE[-1] - TE[0]) / t2star))  # SNR 5 at the last echo
        for snr in sorted({*SNR, round(of_last, 1)}):
            signal, last = magnitudes(snr, t2star, n_voxels), snr * np.exp(-(TE[-1] - TE[0]) / t2star)
            for noise in (jq.Gaussian(1.0), jq.Rician(1.0)):
                result = jq.fit(model, signal, noise=noise)
                about = f"{1e3 * t2star:g} ms | {snr:g}, {last:.2g} | {type(noise).__name__}"
                print(f"| {about} | {row(result, t2star)} |")


if __name__ == "__main__":
    main()
