"""One fit for every model: how fast is it, how right, and what does eliminating the amplitude bring?

    python benchmarks/bench_fit.py [--repeats 5]      (optimistix: pip install ".[bench]")

One process, the same arrays for all; every repetition runs all candidates one after the other, and the table has the
medians: compare rows of one table, not tables. "Cold" is the first call with its compilation.

* FSE: T2, B1 and M0 of 32 echoes of 180 degrees at SNR 100, T2 20 ... 200 ms, B1 0.70 ... 0.98, against the
  Levenberg-Marquardt of optimistix under vmap: the same model, the same start, logarithms of the same parameters. SD is
  that of (estimate - truth) over the Cramer-Rao bound of each voxel, in float64.
* Elimination: the same fits with the amplitude searched like any other parameter.
* Every model: voxels of its usual protocol at SNR 50.
"""

import argparse
import platform
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved

import jaxqmri as jq

N_VOXELS, N_FEW, N_ECHOES, SPACING, SNR = 65536, 1024, 32, 5e-3, 100.0
TRAIN = jq.FSE(jnp.full(N_ECHOES, jnp.pi), SPACING)


class NotEliminated(jq.Gaussian):
    """Least squares with the amplitude searched step by step."""

    least_squares: ClassVar[bool] = False


def noisy(model: jq.SignalModel, params: Any, snr: float, rng: np.random.Generator) -> jax.Array:
    """Signals with Gaussian noise, its standard deviation the amplitude over `snr`."""
    clean = np.asarray(jq.simulate(model, params))
    noise = rng.normal(size=clean.shape)
    if np.iscomplexobj(clean):
        noise = noise + 1j * rng.normal(size=clean.shape)
    amplitude = np.abs(np.asarray(getattr(params, model.amplitude)))
    return jnp.asarray((clean + noise * amplitude[:, None] / snr).astype(clean.dtype))


def optimistix_fit(model: jq.FSE) -> Callable[[jax.Array], jax.Array]:
    """(voxel, 3): M0 over the largest measurement, T2, B1."""
    import optimistix as optx  # pyright: ignore[reportMissingImports]

    solver = optx.LevenbergMarquardt(rtol=1e-5, atol=1e-6)

    def of(x: jax.Array) -> jq.Tissue:
        m0, t2, b1 = jnp.exp(x)
        return jq.Tissue(m0=m0, t1=1.0, t2=t2, b1=b1)

    def one(signal: jax.Array) -> jax.Array:
        unit = signal / jnp.max(jnp.abs(signal))
        guess = model.initial_guess(unit)
        start = jnp.log(jnp.stack([guess.m0, guess.t2, guess.b1]))
        found = optx.least_squares(lambda x, y: model(of(x)) - y, solver, start, unit, max_steps=256, throw=False)
        return jnp.exp(found.value)

    return jax.jit(jax.vmap(one))


def cramer_rao(tissue: jq.Tissue, name: str, sigma: np.ndarray) -> np.ndarray:
    """Smallest standard deviation of an unbiased estimate beside the other two parameters."""

    def of(m0, t2, b1):
        return TRAIN(jq.Tissue(m0=m0, t1=1.0, t2=t2, b1=b1))

    values = (jnp.asarray(getattr(tissue, n)) for n in ("m0", "t2", "b1"))
    columns = jax.jit(jax.vmap(jax.jacfwd(of, (0, 1, 2))))(*values)
    jacobian = np.stack([np.asarray(c, np.float64) for c in columns], axis=-1)
    inverse = np.linalg.inv(np.swapaxes(jacobian, 1, 2) @ jacobian)
    place = ("m0", "t2", "b1").index(name)
    return sigma * np.sqrt(inverse[:, place, place])


def fast_spin_echo(repeats: int) -> None:
    rng = np.random.default_rng(1)
    t2, b1 = rng.uniform(0.02, 0.2, N_VOXELS), rng.uniform(0.7, 0.98, N_VOXELS)
    m0 = rng.uniform(500, 1500, N_VOXELS)
    tissue = jq.Tissue(m0=jnp.asarray(m0), t1=1.0, t2=jnp.asarray(t2), b1=jnp.asarray(b1))
    signal = noisy(TRAIN, tissue, SNR, rng)
    few, known_b1 = signal[:N_FEW], jnp.asarray(b1)
    peer = optimistix_fit(TRAIN)
    candidates = {
        f"optimistix, {N_FEW} voxels": lambda: peer(few),
        f"jq.fit, {N_FEW} voxels": lambda: jq.fit(TRAIN, few),
        f"jq.fit, {N_VOXELS} voxels": lambda: jq.fit(TRAIN, signal),
        f"jq.fit, {N_VOXELS} voxels, B1 known": lambda: jq.fit(TRAIN, signal, known={"b1": known_b1}),
        f"not eliminated, {N_VOXELS} voxels": lambda: jq.fit(TRAIN, signal, noise=NotEliminated()),
    }
    seconds = interleaved(candidates, repeats)
    per_voxel = {name: seconds[name][1] / int(name.split(", ")[1].split()[0]) for name in candidates}
    slowest = per_voxel[f"optimistix, {N_FEW} voxels"]
    print("| T2, B1, M0 of 32 echoes, SNR 100 | cold | warm | per voxel | optimistix / this |\n|---|---|---|---|---|")
    for name, (cold, warm) in seconds.items():
        ratio = slowest / per_voxel[name]
        print(f"| {name} | {cold:.1f} s | {warm:.2f} s | {1e6 * per_voxel[name]:.1f} us | {ratio:.1f} |")

    result = jq.fit(TRAIN, signal)
    ok = np.asarray(result.status) == jq.Status.OK
    found = np.asarray(result.params.t2, np.float64)
    bound = cramer_rao(tissue, "t2", m0 / SNR)
    deviation = ((found - t2) / bound)[ok]
    z = ((found - t2) / np.asarray(result.stderr.t2))[ok]
    bias = 100 * np.mean((found / t2 - 1)[ok])
    print(
        f"\nConverged: {100 * ok.mean():.3f} %. T2: bias {bias:.3f} %, SD over Cramer-Rao bound {deviation.std():.3f},"
    )
    print(f"z-scores {z.std():.3f} (Student's t with 29 degrees of freedom: 1.036).")
    theirs = np.asarray(peer(few), np.float64)
    few_ok = ok[:N_FEW] & np.isfinite(theirs).all(axis=1)
    their_m0, their_t2, their_b1 = jnp.asarray(theirs).T
    peers = jq.Tissue(m0=their_m0 * jnp.max(jnp.abs(few), axis=1), t1=1.0, t2=their_t2, b1=their_b1)
    ours = jax.tree.map(lambda leaf: leaf[:N_FEW], result.params)
    costs = [
        np.sqrt(np.mean((np.asarray(jq.simulate(TRAIN, found)) - np.asarray(few)) ** 2, axis=1))
        for found in (ours, peers)
    ]
    higher = 1 + 1e-4
    ours_higher, theirs_higher = costs[0] > higher * costs[1], costs[1] > higher * costs[0]
    print(f"Misfit higher by 1e-4 than the other's: ours in {100 * np.mean(ours_higher[few_ok]):.2f} % of the voxels,")
    print(f"that of optimistix in {100 * np.mean(theirs_higher[few_ok]):.2f} %.\n")


def every_model(repeats: int) -> None:
    rng, n = np.random.default_rng(2), 32768

    def uniform(low, high):
        return jnp.asarray(rng.uniform(low, high, n), jnp.float32)

    te, ti = jnp.linspace(4.6e-3, 55.3e-3, 12), jnp.array([0.05, 0.1, 0.2, 0.5, 2.0, 4.0])
    b1, one = uniform(0.8, 1.2), jnp.ones(n)
    recovery = jq.Recovery(one, uniform(0.3, 2.5), uniform(0.85, 1.0))
    spoiled = jq.SpoiledGradientEcho(jnp.deg2rad(jnp.array([2.0, 5.0, 8.0, 12.0, 16.0])), 5.4e-3)
    cases: dict[str, tuple[jq.SignalModel, Any, dict[str, Any]]] = {
        "MonoExponential, 12 echoes": (jq.MonoExponential(te), jq.Decay(one, uniform(0.01, 0.08)), {}),
        "InversionRecovery, 6 TI, signed": (jq.InversionRecovery(ti, 15.0), recovery, {}),
        "InversionRecovery, 6 TI, magnitude": (jq.InversionRecovery(ti, 15.0, magnitude=True), recovery, {}),
        "SpoiledGradientEcho, 5 angles": (spoiled, jq.Tissue(one, uniform(0.3, 2.5), b1=b1), {"b1": b1}),
        "ComplexGradientEcho, 12 echoes": (
            jq.ComplexGradientEcho(te),
            jq.OffResonantDecay(jnp.exp(1j * uniform(-3, 3)), uniform(0.01, 0.08), uniform(-90, 90)),
            {},
        ),
    }
    print(f"| {n} voxels, SNR 50 | cold | warm | not eliminated / this | answered |\n|---|---|---|---|---|")
    for name, (model, params, known) in cases.items():
        signal = noisy(model, params, 50.0, rng)
        candidates = {"eliminated": lambda m=model, s=signal, k=known: jq.fit(m, s, known=k)}
        if not jnp.iscomplexobj(signal):
            candidates["not"] = lambda m=model, s=signal, k=known: jq.fit(m, s, known=k, noise=NotEliminated())
        seconds = interleaved(candidates, repeats)
        ok = np.mean(np.asarray(jq.fit(model, signal, known=known).status) == jq.Status.OK)
        cold, warm = seconds["eliminated"]
        ratio = f"{seconds['not'][1] / warm:.2f}" if "not" in seconds else ""
        print(f"| {name} | {cold:.1f} s | {1e3 * warm:.0f} ms | {ratio} | {100 * ok:.2f} % |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), Python {platform.python_version()}, jax {jax.__version__}\n")
    fast_spin_echo(repeats)
    every_model(repeats)


if __name__ == "__main__":
    main()
