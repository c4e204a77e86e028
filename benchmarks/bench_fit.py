"""One fit for every model: how fast is it, how right, and what does eliminating the amplitude bring?

    python benchmarks/bench_fit.py [--repeats 5] [--small]      (peers: see peers.py)

One process, the same arrays for all; every repetition runs all candidates one after the other, and the table has the
medians: compare rows of one table, not tables. "Cold" is the first call with its compilation.

* FSE: T2, B1 and M0 of 32 echoes of 180 degrees at SNR 100, T2 20 ... 200 ms, B1 0.70 ... 0.98. TorchSim's
  NonlinearLeastSquares keeps 10 orders by default and is exact with 32; it gets bounds just outside the true range and
  starts in their middle. The Levenberg-Marquardt of optimistix under vmap gets the same model, start and logarithms of
  parameters as ours. Both do fewer voxels: compare per voxel. "Deviation" is that of T2 from the least-squares answer
  of scipy in float64, started at the truth, for the first 64 voxels: near B1 = 1 there may be a lower minimum beside
  that one, a percent away. SD is that of (estimate - truth) over the Cramer-Rao bound of each voxel.
* Elimination: the same fits with the amplitude searched like any other parameter.
* Every model: voxels of its usual protocol at SNR 50.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import peers
from scipy.optimize import least_squares
from timing import arguments, heading, interleaved, span, table

import jaxqmri as jq
from jaxqmri.batching.context import double_precision

N_ECHOES, SPACING, SNR = 32, 5e-3, 100.0
N_CHECKED = 64  # voxels that scipy fits
TRAIN = jq.FSE(np.full(N_ECHOES, np.pi), SPACING)
TORCHSIM_BOUNDS = {"T2": (10.0, 300.0), "B1": (0.6, 1.0)}  # ms


class NotEliminated(jq.Gaussian):
    """Least squares with the amplitude searched step by step."""

    least_squares: ClassVar[bool] = False


def noisy(model: jq.SignalModel, params: Any, snr: float, rng: np.random.Generator) -> jax.Array:
    """Signals with Gaussian noise, its standard deviation the amplitude over `snr`."""
    clean = np.asarray(jq.simulate(model, params))
    noise = rng.normal(size=clean.shape)
    if np.iscomplexobj(clean):
        noise = noise + 1j * rng.normal(size=clean.shape)
    amplitude = np.abs(np.asarray(getattr(params, model.amplitude or "s0")))
    return jnp.asarray((clean + noise * amplitude[:, None] / snr).astype(clean.dtype))


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


def exact_t2(signal: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """T2 [s] of (voxel, echo) signals by MINPACK in float64, from (voxel, 3) M0, T2 and B1."""
    with double_precision():
        train = jq.FSE(np.full(N_ECHOES, np.pi), SPACING)
        predict = jax.jit(lambda x: train(jq.Tissue(m0=x[0], t1=jnp.ones(()), t2=x[1], b1=x[2])))
        slopes = jax.jit(jax.jacfwd(predict))
        found = []
        for measured, start in zip(signal.astype(np.float64), starts.astype(np.float64), strict=True):
            found.append(
                least_squares(
                    lambda x, measured=measured: np.asarray(predict(jnp.asarray(x))) - measured,
                    start,
                    lambda x: np.asarray(slopes(jnp.asarray(x))),  # pyright: ignore[reportArgumentType]
                    method="lm",
                    x_scale="jac",
                    xtol=1e-12,
                    ftol=1e-15,  # near perfect refocusing the misfit hardly depends on B1
                    gtol=1e-15,
                ).x[1]
            )
    return np.array(found)


def fast_spin_echo(n_voxels: int, n_torchsim: int, n_optimistix: int, repeats: int) -> None:
    rng = np.random.default_rng(1)
    t2, b1 = rng.uniform(0.02, 0.2, n_voxels), rng.uniform(0.7, 0.98, n_voxels)
    m0 = rng.uniform(500, 1500, n_voxels)
    tissue = jq.Tissue(m0=jnp.asarray(m0), t1=1.0, t2=jnp.asarray(t2), b1=jnp.asarray(b1))
    signal = noisy(TRAIN, tissue, SNR, rng)
    few, some, known_b1 = signal[:n_optimistix], np.asarray(signal[:n_torchsim]), jnp.asarray(b1)
    makers = {
        f"torchsim, {n_states} states": lambda n=n_states: peers.torchsim_least_squares(
            TRAIN, some, n, 1000.0, TORCHSIM_BOUNDS
        )
        for n_states in (10, 32)
    }
    candidates = peers.those_installed(makers | {"optimistix": lambda: peers.optimistix_fit(TRAIN, few)}) | {
        "jq.fit": lambda: jq.fit(TRAIN, signal),
        "jq.fit, as many as optimistix": lambda: jq.fit(TRAIN, few),
        "jq.fit, B1 known": lambda: jq.fit(TRAIN, signal, known={"b1": known_b1}),
        "jq.fit, not eliminated": lambda: jq.fit(TRAIN, signal, noise=NotEliminated()),
    }
    timed = interleaved(candidates, repeats)
    found = {name: t2_of(t.result) for name, t in timed.items()}
    per_voxel = {name: t.warm / len(found[name]) for name, t in timed.items()}
    exact = exact_t2(np.asarray(signal[:N_CHECKED]), np.stack([m0, t2, b1], axis=1)[:N_CHECKED])
    rows = []
    for name, (cold, warm, _) in timed.items():
        ratios = (
            f"{per_voxel.get(peer, math.nan) / per_voxel[name]:.1f}" for peer in ("torchsim, 32 states", "optimistix")
        )
        deviation = np.abs(found[name][:N_CHECKED] / exact - 1)
        quality = (
            ("", "")
            if name == "jq.fit, B1 known"
            else (f"{np.nanmedian(deviation):.1e}", f"{np.nanmax(deviation):.1e}")
        )
        rows.append((name, str(len(found[name])), span(cold), span(warm), span(per_voxel[name]), *ratios, *quality))
    columns = (
        "voxels",
        "cold",
        "warm",
        "per voxel",
        "torchsim / this",
        "optimistix / this",
        "deviation, median",
        "worst",
    )
    print(table((f"T2, B1, M0 of {N_ECHOES} echoes, SNR {SNR:g}", *columns), rows))

    result = timed["jq.fit"].result
    ok = np.asarray(result.status) == jq.Status.OK
    bound = cramer_rao(tissue, "t2", m0 / SNR)
    deviation = ((found["jq.fit"] - t2) / bound)[ok]
    z = ((found["jq.fit"] - t2) / np.asarray(result.stderr.t2))[ok]
    bias = 100 * np.mean((found["jq.fit"] / t2 - 1)[ok])
    print(f"Converged: {100 * ok.mean():.3f} %. T2: bias {bias:.3f} %, SD over Cramer-Rao bound {deviation.std():.3f},")
    print(f"z-scores {z.std():.3f} (Student's t with 29 degrees of freedom: 1.036).")
    if "optimistix" in timed:
        compare_misfits(result, np.asarray(timed["optimistix"].result, np.float64), np.asarray(few), ok)


def t2_of(found: Any) -> np.ndarray:
    """(voxel,) T2 [s] in float64 of our result, TorchSim's maps or those of optimistix."""
    if isinstance(found, jq.FitResult):
        return np.asarray(found.params.t2, np.float64)
    if isinstance(found, dict):
        return 1e-3 * np.asarray(found["T2"], np.float64)
    return np.asarray(found, np.float64)[:, 1]


def compare_misfits(ours: jq.FitResult, theirs: np.ndarray, signal: np.ndarray, ok: np.ndarray) -> None:
    n = len(signal)
    their_m0, their_t2, their_b1 = jnp.asarray(theirs).T
    peer = jq.Tissue(m0=their_m0 * np.max(np.abs(signal), axis=1), t1=1.0, t2=their_t2, b1=their_b1)
    mine = jax.tree.map(lambda leaf: leaf[:n], ours.params)
    costs = [
        np.sqrt(np.mean((np.asarray(jq.simulate(TRAIN, found)) - signal) ** 2, axis=1))[
            ok[:n] & np.isfinite(theirs).all(axis=1)
        ]
        for found in (mine, peer)
    ]
    higher = [100 * np.mean(a > (1 + 1e-4) * b) for a, b in (costs, costs[::-1])]
    print(f"Misfit higher by 1e-4 than the other's: ours in {higher[0]:.2f} % of the voxels, that of optimistix in")
    print(f"{higher[1]:.2f} %.\n")


def every_model(n: int, repeats: int) -> None:
    rng = np.random.default_rng(2)

    def uniform(low, high):
        return jnp.asarray(rng.uniform(low, high, n), jnp.float32)

    te, ti = jnp.linspace(4.6e-3, 55.3e-3, 12), jnp.array([0.05, 0.1, 0.2, 0.5, 2.0, 4.0])
    b1, one = uniform(0.8, 1.2), jnp.ones(n)
    many_te, t_short, change = 5e-3 * jnp.arange(1, 33), uniform(0.01, 0.03), uniform(-20, 20)
    recovery = jq.Recovery(one, uniform(0.3, 2.5), uniform(0.85, 1.0))
    spoiled = jq.SpoiledGradientEcho(jnp.deg2rad(jnp.array([2.0, 5.0, 8.0, 12.0, 16.0])), 5.4e-3)
    cases: dict[str, tuple[jq.SignalModel, Any, dict[str, Any]]] = {
        "MonoExponential, 12 echoes": (jq.MonoExponential(te), jq.Decay(one, uniform(0.01, 0.08)), {}),
        "MonoExponential with offset, 12 echoes": (
            jq.MonoExponential(te, offset=True),
            jq.DecayWithOffset(one, uniform(0.01, 0.03), uniform(0.0, 0.2)),
            {},
        ),
        "MonoExponential, 32 echoes": (jq.MonoExponential(many_te), jq.Decay(one, uniform(0.01, 0.08)), {}),
        "BiExponential, 32 echoes": (
            jq.BiExponential(many_te),
            jq.TwoPools(one, uniform(0.2, 0.8), t_short, t_short * uniform(3.5, 8)),
            {},
        ),
        "DephasedGradientEcho, 12 echoes": (
            jq.DephasedGradientEcho(te),
            jq.DephasingDecay(one, uniform(0.01, 0.08), change),
            {"b0_change": change},
        ),
        "InversionRecovery, 6 TI, signed": (jq.InversionRecovery(ti, 15.0), recovery, {}),
        "InversionRecovery, 6 TI, magnitude": (jq.InversionRecovery(ti, 15.0, magnitude=True), recovery, {}),
        "SpoiledGradientEcho, 5 angles": (spoiled, jq.Tissue(one, uniform(0.3, 2.5), b1=b1), {"b1": b1}),
        "ComplexGradientEcho, 12 echoes": (
            jq.ComplexGradientEcho(te),
            jq.OffResonantDecay(jnp.exp(1j * uniform(-3, 3)), uniform(0.01, 0.08), uniform(-90, 90)),
            {},
        ),
    }
    rows = []
    for name, (model, params, known) in cases.items():
        signal = noisy(model, params, 50.0, rng)
        candidates = {"eliminated": lambda m=model, s=signal, k=known: jq.fit(m, s, known=k)}
        if not jnp.iscomplexobj(signal):
            candidates["not"] = lambda m=model, s=signal, k=known: jq.fit(m, s, known=k, noise=NotEliminated())
        timed = interleaved(candidates, repeats)
        cold, warm, result = timed["eliminated"]
        ratio = f"{timed['not'].warm / warm:.2f}" if "not" in timed else ""
        answered = f"{100 * np.mean(np.asarray(result.status) == jq.Status.OK):.2f} %"
        rows.append((name, span(cold), span(warm), ratio, answered))
    print(table((f"{n} voxels, SNR 50", "cold", "warm", "not eliminated / this", "answered"), rows))


def main() -> None:
    given = arguments(__doc__)
    print(heading(("torch", "torchsim", "optimistix", "scipy")) + "\n")
    if given.small:
        fast_spin_echo(128, 128, 128, given.repeats)
        return
    fast_spin_echo(65536, 4096, 1024, given.repeats)
    every_model(32768, given.repeats)


if __name__ == "__main__":
    main()
