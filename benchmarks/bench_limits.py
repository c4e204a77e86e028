"""How near is each kernel to what the machine can do?

    python benchmarks/bench_limits.py [--repeats 5] [--small]

What the machine can do is measured first: products of large float32 matrices, the most operations per second there
are; arithmetic on vectors that stay in registers, the most that a formula without products of matrices can have; and
an addition to an array larger than any cache, the most bytes per second.

Operations are those of the algorithm, counted in its jaxpr: an addition, multiplication, comparison or elementary
function of one number is one, a product of matrices has two per term. Bytes are the arrays that go in and come out,
once each: what a perfect program would move. A match counts as the exhaustive search that its answer is equal to. A fit
counts in evaluations of signal and derivatives, of which a solver needs one per step and one for the error bars.
"""

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bench_fit
import bench_matching
import bench_simulation
import bench_t2star
import jax
import jax.numpy as jnp
import numpy as np
from timing import Timed, arguments, heading, interleaved, span, table

import jaxqmri as jq

_FREE = {
    "broadcast_in_dim", "reshape", "transpose", "squeeze", "slice", "dynamic_slice", "concatenate", "pad", "copy",
    "convert_element_type", "gather", "iota", "rev", "select_and_gather_add", "stop_gradient", "optimization_barrier",
    "dynamic_update_slice", "split", "copy_p", "real", "imag", "complex",
}  # fmt: skip


_STEPS = 64  # of a chain of multiplications and additions, written out


def operations(f: Callable[..., Any], *args: Any) -> float:
    """Arithmetic operations of a function without loops of unknown length."""
    return _operations(jax.make_jaxpr(f)(*args).jaxpr)


def _operations(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "while":
            raise ValueError("how often a while loop runs is not known before.")
        if name in _FREE:
            continue
        inner = [params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params]
        if inner:
            total += params.get("length", 1) * _operations(getattr(inner[0], "jaxpr", inner[0]))
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * terms * equation.outvars[0].aval.size
        elif name.startswith("reduce_"):
            total += equation.invars[0].aval.size
        else:
            total += max(variable.aval.size for variable in equation.outvars)
    return total


def n_bytes(*arrays: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays) if hasattr(leaf, "nbytes"))


def machine(repeats: int, small: bool) -> tuple[float, float, float]:
    """Operations per second of matrix products and of vectors, and bytes per second."""
    side, rounds, values = (512, 4, 2**20) if small else (2048, 64, 2**26)
    n = os.cpu_count() or 1
    a = np.random.default_rng(0).random((side, side), np.float32)
    few, many, there = jnp.linspace(0.0, 1.0, 2**16), np.ones(values, np.float32), np.zeros(values, np.float32)

    @jax.jit
    def in_registers(x):
        def block(x):
            # Four chains at once: one would wait for its own results.
            chains = [x + i for i in range(4)]
            for _ in range(_STEPS):
                chains = [c * 0.999 + 0.001 for c in chains]
            return sum(chains)

        return jax.lax.fori_loop(0, rounds, lambda _, x: block(x) * 0.25, x)

    timed = interleaved(
        {
            "products": lambda: a @ a,
            "vectors": lambda: _side_by_side(lambda _: jax.block_until_ready(in_registers(few)), range(n)),
            "bytes": lambda: _side_by_side(_add_one, np.array_split(many, n), np.array_split(there, n)),
        },
        repeats,
    )
    in_vectors = n * few.size * rounds * (4 * (2 * _STEPS + 1) + 4)
    return (
        2 * side**3 / timed["products"].warm,
        in_vectors / timed["vectors"].warm,
        2 * many.nbytes / timed["bytes"].warm,
    )


def _side_by_side(work: Callable[..., Any], *arguments: Iterable[Any]) -> None:
    """On all processors; neither numpy nor JAX holds the interpreter meanwhile."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, *arguments))


def _add_one(many: np.ndarray, there: np.ndarray) -> None:
    """Into memory that is there: what is new has to be asked for first."""
    np.add(many, 1.0, out=there)


def kernels(small: bool, repeats: int) -> list[tuple[str, Timed, float, int]]:
    """Name, seconds, operations and bytes of each."""
    n_voxels = 2048 if small else 65536
    tissue = bench_simulation.random_tissue(n_voxels)
    fewer = bench_simulation.random_tissue(n_voxels // 8)
    simulate = bench_simulation.our_signals(tissue)[bench_simulation.OURS]
    derivatives = bench_simulation.our_derivatives(fewer)["jvp of FSE.batched"]
    train, one_signal = bench_simulation.TRAIN, 4 * bench_simulation.N_ECHOES  # bytes
    thousand = jq.make_dictionary(bench_matching.TRAIN, jq.grid(jq.Tissue, t2=bench_matching.T2_GRID))
    decays = jnp.asarray(bench_matching.decays(n_voxels)[0])
    large = bench_matching.large_dictionary(100 if small else 1000, 10 if small else 100)
    trains = jnp.asarray(bench_matching.trains(n_voxels, 50.0))

    def exhaustive(dictionary: jq.Dictionary) -> float:
        return 2.0 * dictionary.atoms.size * n_voxels

    maps = (tissue.t1, tissue.t2, tissue.b1)
    one_train = operations(train, jax.tree.map(lambda leaf: leaf[0], tissue))
    candidates: dict[str, tuple[Callable[[], Any], float, int]] = {
        "FSE, 32 echoes, exact": (simulate, n_voxels * one_train, n_bytes(maps) + one_signal * n_voxels),
        "the same with derivatives by T2 and B1": (
            derivatives,
            n_voxels // 8 * _with_two_derivatives(train, fewer),
            (n_bytes(maps) + 3 * one_signal * n_voxels) // 8,
        ),
        f"match, {len(thousand.norms)} atoms": (
            lambda: jq.match(thousand, decays),
            exhaustive(thousand),
            n_bytes(decays, thousand.atoms) + 20 * n_voxels,
        ),
        f"match, {len(large.norms)} T2 x B1, SNR 50": (
            lambda: jq.match(large, trains),
            exhaustive(large),
            n_bytes(trains, large.atoms) + 20 * n_voxels,
        ),
    }
    timed = interleaved({name: run for name, (run, _, _) in candidates.items()}, repeats)
    return [(name, timed[name], count, size) for name, (_, count, size) in candidates.items()]


def _with_two_derivatives(train: jq.FSE, tissue: jq.Tissue) -> float:
    """Operations of one voxel: the signal and two tangents of it."""
    one = jax.tree.map(lambda leaf: leaf[0], tissue)

    def signal(t2, b1):
        return train(one._replace(t2=t2, b1=b1))

    once = operations(signal, one.t2, one.b1)
    with_tangent = operations(lambda d: jax.jvp(signal, (one.t2, one.b1), (d, d)), jnp.ones(()))
    return once + 2 * (with_tangent - once)


def fits(small: bool, repeats: int) -> None:
    """How many evaluations of signal and derivatives a fit takes as long as."""
    n_voxels = 1024 if small else 16384
    rng = np.random.default_rng(1)
    tissue = bench_simulation.random_tissue(n_voxels)._replace(t1=jnp.ones(n_voxels))
    within = tissue._replace(b1=jnp.asarray(rng.uniform(0.7, 0.98, n_voxels), jnp.float32))
    trains = bench_fit.noisy(bench_simulation.TRAIN, within, 100.0, rng)
    decays = jnp.asarray(bench_t2star.random_tissue(128)[0][:n_voxels])
    model = jq.MonoExponential(bench_t2star.TE)

    @jax.jit
    def of_decays(s0, t2):
        def signal(s0, t2):
            return model.batched(jq.Decay(s0, t2))

        return jax.vmap(lambda d: jax.jvp(signal, (s0, t2), (d[0], d[1])), out_axes=(None, 0))(
            jnp.stack([jnp.stack([jnp.ones_like(s0), jnp.zeros_like(s0)]), jnp.stack([jnp.zeros_like(s0), t2])])
        )

    s0, t2 = jnp.ones(len(decays)), jnp.full(len(decays), 0.03)
    timed = interleaved(
        {
            "train": bench_simulation.our_derivatives(within)["jvp of FSE.batched"],
            "fit of trains": lambda: jq.fit(bench_simulation.TRAIN, trains),
            "decay": lambda: of_decays(s0, t2),
            "fit of decays": lambda: jq.fit(model, decays),
        },
        repeats,
    )
    rows = [
        (name, str(n), span(timed[fit].warm), span(timed[one].warm), f"{timed[fit].warm / timed[one].warm:.1f}")
        for name, fit, one, n in (
            ("T2, B1, M0 of 32 echoes, SNR 100", "fit of trains", "train", n_voxels),
            ("T2*, S0 of 11 echoes", "fit of decays", "decay", len(decays)),
        )
    ]
    print(table(("fit", "voxels", "fit", "signal and derivatives once", "ratio"), rows))


def main() -> None:
    given = arguments(__doc__)
    print(heading() + "\n")
    products, vectors, moved = machine(given.repeats, given.small)
    print(f"Products of matrices {products / 1e9:.0f} Gflop/s, vectors {vectors / 1e9:.0f} Gflop/s, memory ", end="")
    print(f"{moved / 1e9:.1f} GB/s.\n")
    rows = []
    for name, timed, count, size in kernels(given.small, given.repeats):
        by_products, by_vectors, by_bytes = count / products, count / vectors, size / moved
        share = max(by_products if name.startswith("match") else by_vectors, by_bytes) / timed.warm
        limits = (span(by_products), span(by_vectors), span(by_bytes))
        rows.append((name, span(timed.warm), f"{count / 1e9:.3g}", *limits, f"{100 * share:.0f} %"))
    columns = ("warm", "10^9 operations", "as products", "as vectors", "bytes once", "limit / time")
    print(table(("kernel", *columns), rows))
    fits(given.small, given.repeats)


if __name__ == "__main__":
    main()
