"""Fast spin echo: how long do the signal and its derivatives take, against TorchSim and blochsim?

    python benchmarks/bench_simulation.py [--repeats 5] [--small]      (peers: see peers.py)

One process, the same arrays for all; every repetition runs all candidates one after the other, and the table has the
medians: compare rows of one table, not tables. "Cold" is the first call with its compilation.

* Signal: 65 536 voxels of random T1, T2 and B1, 32 echoes of 180 degrees. "Exact" keeps all orders that can return to
  an echo; the peers keep 10 by default and are exact with 32.
* Derivatives by T2 and B1, with the signal, exact: 8192 voxels, as the peers take minutes for more.
* Scaling with voxels and echoes, ours alone: the exact train of n echoes has n / 2 orders, so its time grows by n^2.

Errors are the largest differences from the operators of `jaxqmri.epg` put together as the pulse diagram says, all 32
orders, in float64: of M0 = 1 for the signal, of the largest derivative by the same parameter for derivatives.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers
from timing import arguments, heading, interleaved, span, table

import jaxqmri as jq
from jaxqmri import epg
from jaxqmri.batching.context import double_precision

N_ECHOES, SPACING = 32, 5e-3
ANGLES = np.full(N_ECHOES, np.pi)
TRAIN = jq.FSE(ANGLES, SPACING)
N_CHECKED = 2048  # voxels that are compared with float64
PLAIN, OURS = "plain operators under vmap", "jq.simulate(FSE), exact"
OUR_DERIVATIVES = "jvp of FSE.batched"


def plain_train(t1: Any, t2: Any, b1: Any, angles: Any) -> jax.Array:
    """The train of one voxel by its pulse diagram; orders 0 ... 31 are all that can return within 32 echoes."""

    def echo(states, flip_angle):
        states = epg.shift(epg.relax(states, SPACING / 2, t1, t2))
        states = epg.rf(states, b1 * flip_angle, 0.0)
        states = epg.relax(epg.shift(states), SPACING / 2, t1, t2)
        return states, states[0, 0]

    start = epg.equilibrium(N_ECHOES).astype(jnp.result_type(b1, jnp.complex64))
    excited = epg.rf(start, b1 * jnp.pi / 2, jnp.pi / 2)
    return jax.lax.scan(echo, excited, angles)[1].real


def random_tissue(n_voxels: int) -> jq.Tissue:
    rng = np.random.default_rng(1)
    t1, t2, b1 = (
        jnp.asarray(rng.uniform(low, high, n_voxels), jnp.float32)
        for low, high in ((0.3, 2.0), (0.02, 0.3), (0.6, 1.2))
    )
    one = jnp.ones(n_voxels)
    return jq.Tissue(m0=one, t1=t1, t2=t2, t2star=one, b1=b1)  # `batched` wants every leaf per voxel


def in_float64(of_one_voxel: Callable[..., Any], tissue: jq.Tissue) -> Any:
    """`of_one_voxel(t1, t2, b1, angles)` of the first voxels."""
    maps = [np.asarray(leaf, np.float64)[:N_CHECKED] for leaf in (tissue.t1, tissue.t2, tissue.b1)]
    with double_precision():
        result = jax.jit(jax.vmap(of_one_voxel, in_axes=(0, 0, 0, None)))(*map(jnp.asarray, maps), jnp.asarray(ANGLES))
        return jax.tree.map(np.asarray, result)


def our_signals(tissue: jq.Tissue) -> dict[str, Callable[[], Any]]:
    """Each returns (voxel, echo)."""
    ten, angles = jq.FSE(ANGLES, SPACING, n_states=10), jnp.asarray(ANGLES, jnp.float32)
    plain = jax.jit(jax.vmap(plain_train, in_axes=(0, 0, 0, None)))
    return {
        PLAIN: lambda: plain(tissue.t1, tissue.t2, tissue.b1, angles),
        OURS: lambda: jq.simulate(TRAIN, tissue),
        "jq.simulate(FSE), 10 orders": lambda: jq.simulate(ten, tissue),
    }


def our_derivatives(tissue: jq.Tissue) -> dict[str, Callable[[], Any]]:
    """Each returns the signal and its derivatives by T2 [1/s] and B1, all (echo, voxel) or (voxel, echo)."""
    angles = jnp.asarray(ANGLES, jnp.float32)
    plain = jax.jit(jax.vmap(with_jacobian(plain_train), in_axes=(0, 0, 0, None)))

    @jax.jit
    def both(tissue: jq.Tissue) -> Any:
        def signal(t2, b1):
            return TRAIN.batched(tissue._replace(t2=t2, b1=b1))

        at, one, zero = (tissue.t2, tissue.b1), jnp.ones_like(tissue.t2), jnp.zeros_like(tissue.t2)
        directions = jnp.stack([jnp.stack([one, zero]), jnp.stack([zero, one])])
        signals, columns = jax.vmap(lambda d: jax.jvp(signal, at, tuple(d)), out_axes=(None, 0))(directions)
        return signals, columns[0], columns[1]

    return {
        "plain operators, jacfwd under vmap": lambda: plain(tissue.t1, tissue.t2, tissue.b1, angles),
        OUR_DERIVATIVES: lambda: both(tissue),
    }


def with_jacobian(train: Callable[..., jax.Array]) -> Callable[..., Any]:
    def of_one_voxel(t1, t2, b1, angles):
        by_t2, by_b1 = jax.jacfwd(train, (1, 2))(t1, t2, b1, angles)
        return train(t1, t2, b1, angles), by_t2, by_b1

    return of_one_voxel


def signals(n_voxels: int, repeats: int) -> None:
    tissue = random_tissue(n_voxels)
    theirs = {
        f"{package}, {n_states} states": lambda p=package, n=n_states: peers.epg_train(p, tissue, ANGLES, SPACING, n)
        for package in ("torchsim", "blochsim")
        for n_states in (10, 32)
    }
    timed = interleaved(our_signals(tissue) | peers.those_installed(theirs), repeats)
    right = in_float64(plain_train, tissue)
    fastest_peer = min((t.warm for name, t in timed.items() if name.endswith(", 32 states")), default=float("nan"))
    rows = []
    for name, (cold, warm, found) in timed.items():
        error = np.max(np.abs(np.real(np.asarray(found))[: len(right)] - right))
        ratios = (f"{timed[PLAIN].warm / warm:.1f}", f"{fastest_peer / warm:.1f}")
        rows.append((name, span(cold), span(warm), *ratios, f"{error:.1e}"))
    columns = ("cold", "warm", "plain / this", "fastest peer at 32 states / this", "largest error")
    print(table((f"signal, {n_voxels} x {N_ECHOES}, B1 per voxel", *columns), rows))


def derivatives(n_voxels: int, repeats: int) -> None:
    tissue = random_tissue(n_voxels)
    theirs = {
        f"{package}, 32 states": lambda p=package: peers.epg_jacobian(p, tissue, ANGLES, SPACING, 32)
        for package in ("torchsim", "blochsim")
    }
    timed = interleaved(our_derivatives(tissue) | peers.those_installed(theirs), repeats)
    right = in_float64(with_jacobian(plain_train), tissue)
    plain = timed["plain operators, jacfwd under vmap"].warm
    fastest_peer = min((t.warm for name, t in timed.items() if name.endswith(", 32 states")), default=float("nan"))
    rows = []
    for name, (cold, warm, found) in timed.items():
        if len(found) == 2:  # a peer's
            both = np.real(np.asarray(found[1]))
            found = (np.real(np.asarray(found[0])), 1e3 * both[:, 0], both[:, 1])  # of ms to of s
        leaves = [np.asarray(leaf) for leaf in found]
        leaves = [leaf if leaf.shape[-1] == N_ECHOES else leaf.T for leaf in leaves]
        errors = [np.max(np.abs(a[: len(b)] - b)) / np.max(np.abs(b)) for a, b in zip(leaves, right, strict=True)][1:]
        ratios = (f"{plain / warm:.1f}", f"{fastest_peer / warm:.1f}")
        rows.append((name, span(cold), span(warm), *ratios, *(f"{error:.1e}" for error in errors)))
    columns = ("cold", "warm", "plain / this", "fastest peer / this", "error by T2", "error by B1")
    print(table((f"signal and derivatives, {n_voxels} x {N_ECHOES}", *columns), rows))


def scaling(small: bool, repeats: int) -> None:
    cases = [(1024, 8)] if small else [(10**n, N_ECHOES) for n in (3, 4, 5, 6)] + [(16384, 2**n) for n in range(2, 8)]
    rows = []
    for n_voxels, n_echoes in cases:
        train, tissue = jq.FSE(np.full(n_echoes, np.pi), SPACING), random_tissue(n_voxels)
        cold, warm, _ = interleaved({"": lambda train=train, tissue=tissue: jq.simulate(train, tissue)}, repeats)[""]
        each = (span(warm / n_voxels), span(warm / (n_voxels * n_echoes**2)))
        rows.append((str(n_voxels), str(n_echoes), span(cold), span(warm), *each))
    print(table(("voxels", "echoes", "cold", "warm", "per voxel", "per voxel and echo^2"), rows))


def main() -> None:
    given = arguments(__doc__, more=lambda parser: parser.add_argument("--only-scaling", action="store_true"))
    print(heading(("torch", "torchsim", "blochsim")) + "\n")
    if not given.only_scaling:
        signals(2048 if given.small else 65536, given.repeats)
        derivatives(512 if given.small else 8192, given.repeats)
    scaling(given.small, given.repeats)


if __name__ == "__main__":
    main()
