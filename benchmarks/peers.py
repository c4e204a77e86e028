"""Other programs that answer the same questions, each behind a function of arrays.

Nothing is imported before it is asked for. All of them: `pip install ".[bench]"`, after torch 2.13.0 in a build for
the CPU where pip would bring gigabytes for a GPU. Licences: torchsim, blochsim and faiss-cpu MIT, numba and torch BSD,
mrpro and optimistix Apache 2.0. Each peer runs in the fastest of its modes that was found: no gradients recorded,
compiled parts where it has any, with torch one thread or all, whichever a trial before the first call found faster (on
a busy machine all of them can take ten times as long). So what is "cold" flatters the peers.
"""

import importlib
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxqmri as jq

Run = Callable[[], Any]

_INSTALL = {
    "torch": "pip install torch==2.13.0",
    "torchsim": "pip install torch==2.13.0 torchsim",
    "blochsim": "pip install torch==2.13.0 blochsim",
    "mrpro": "pip install torch==2.13.0 mrpro",
    "faiss": "pip install faiss-cpu",
    "numba": "pip install numba",
    "optimistix": "pip install optimistix",
}


class NotInstalledError(ImportError):
    """A peer that is not there; the message says how to get it."""


def those_installed(makers: dict[str, Callable[[], Run]]) -> dict[str, Run]:
    """The candidates that could be made; says of the others how to install them."""
    made: dict[str, Run] = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except NotInstalledError as error:
            print(f"left out: {name}; {error}", file=sys.stderr)
    return made


def is_installed(package: str) -> bool:
    try:
        _imported(package)
    except NotInstalledError:
        return False
    return True


def _imported(package: str) -> Any:
    if package == "mrpro":
        stand_in_for_torchvision()
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise NotInstalledError(f"{package} cannot be imported ({error}): {_INSTALL[package]}") from error


def _torch() -> Any:
    torch = _imported("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    return torch


def _in_fastest_threads(run: Run, trial: Run | None = None) -> Run:
    """`run` with as many threads as suit it, found by `trial`, a short form of it."""
    torch, trial = _torch(), trial or run
    trial()
    seconds = {}
    for n_threads in (1, os.cpu_count() or 1):
        torch.set_num_threads(n_threads)
        taken = []
        for _ in range(2):
            start = time.perf_counter()
            trial()
            taken.append(time.perf_counter() - start)
        seconds[n_threads] = min(taken)
    fastest = min(seconds, key=lambda n: seconds[n])

    def with_threads() -> Any:
        torch.set_num_threads(fastest)
        return run()

    return with_threads


def _tensor(values: Any) -> Any:
    return _torch().as_tensor(np.array(values, np.float32))


# --- simulation -------------------------------------------------------------------------------------------------------


def epg_train(package: str, tissue: jq.Tissue, flip_angles: np.ndarray, spacing: float, n_states: int) -> Run:
    """A fast spin echo by torchsim or blochsim: () -> (voxel, echo) complex signals for M0 = 1."""
    torch = _torch()
    simulator, maps = _epg_simulator(package, tissue, flip_angles, spacing, n_states)

    def run() -> Any:
        with torch.no_grad():  # its kernels refuse tensors of inference_mode
            return simulator.simulate(**maps)

    return _in_fastest_threads(run)


def epg_jacobian(package: str, tissue: jq.Tissue, flip_angles: np.ndarray, spacing: float, n_states: int) -> Run:
    """The same with its derivatives: () -> (voxel, echo) and (voxel, 2, echo), by T2 [1/ms] and by B1."""
    torch = _torch()
    simulator, maps = _epg_simulator(package, tissue, flip_angles, spacing, n_states)

    def run() -> Any:
        with torch.no_grad():
            return simulator.jacobian(["T2", "B1"], **maps)

    return _in_fastest_threads(run)


def _epg_simulator(
    package: str, tissue: jq.Tissue, flip_angles: np.ndarray, spacing: float, n_states: int
) -> tuple[Any, dict[str, Any]]:
    """The simulator with its protocol, and its maps; both packages have one interface, in degrees and ms."""
    torch = _torch()
    _imported(package)
    kind = importlib.import_module(f"{package}.simulators").FSESimulator
    # TR is infinite, so one playing of the train is what two are, in half the time.
    once = {"repetitions": 1} if package == "blochsim" else {}
    flip = torch.as_tensor(np.rad2deg(flip_angles), dtype=torch.float32)
    simulator = kind(flip=flip, ESP=1e3 * spacing, states=n_states, **once)
    in_ms = {"T1": 1e3 * np.asarray(tissue.t1, np.float64), "T2": 1e3 * np.asarray(tissue.t2, np.float64)}
    return simulator, {name: _tensor(value) for name, value in {**in_ms, "B1": tissue.b1}.items()}


# --- matching ---------------------------------------------------------------------------------------------------------


def numba_loop(atoms: np.ndarray, signals: np.ndarray) -> Run:
    """Exhaustive search as in the founding example: one voxel after the other per thread, first of equals wins."""
    numba = _imported("numba")

    @numba.njit(fastmath=True)
    def product(a, b):
        total = 0.0
        for i in range(a.shape[0]):
            total += a[i] * b[i]
        return total

    @numba.njit(fastmath=True, parallel=True)
    def search(signals, atoms, largest, index):
        for voxel in numba.prange(signals.shape[0]):
            for atom in range(atoms.shape[0]):
                value = product(signals[voxel], atoms[atom])
                if np.abs(value) > np.abs(largest[voxel]):
                    largest[voxel] = value
                    index[voxel] = atom

    def run() -> np.ndarray:
        largest, index = np.zeros(len(signals), np.complex64), np.zeros(len(signals), np.int64)
        search(signals, atoms, largest, index)
        return index

    return run


def numpy_products(atoms: np.ndarray, signals: np.ndarray, at_once: int = 2**21) -> Run:
    """The largest product in float32, so many products at once as stay near the processor."""
    transposed = np.ascontiguousarray(atoms.T)
    step = max(at_once // len(atoms), 16)

    def run() -> np.ndarray:
        blocks = range(0, len(signals), step)
        return np.concatenate([np.argmax(np.abs(signals[i : i + step] @ transposed), axis=1) for i in blocks])

    return run


def torchsim_matcher(atoms: np.ndarray, signals: np.ndarray, groups: int | None = None) -> Run:
    """TorchSim's matcher; with groups it leaves out those that look unlikely, without a bound."""
    matcher = _imported("torchsim").DictionaryMatcher(dictionary=_tensor(atoms), groups=groups)
    measured = _tensor(signals)
    return _in_fastest_threads(
        lambda: matcher.match(measured).indices[:, 0], lambda: matcher.match(measured[: len(measured) // 8])
    )


def faiss_search(atoms: np.ndarray, signals: np.ndarray) -> Run:
    """Exact search for the largest inner product."""
    faiss = _imported("faiss")
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    index = faiss.IndexFlatIP(atoms.shape[1])
    index.add(np.ascontiguousarray(atoms, np.float32))
    queries = np.ascontiguousarray(signals, np.float32)
    return lambda: index.search(queries, 1)[1][:, 0]


# --- fits -------------------------------------------------------------------------------------------------------------


def mrpro_adam(te: np.ndarray, signal: np.ndarray, steps: int, scale: float, t2star: float) -> Run:
    """The founding example's T2* fit: () -> S0 and T2* [s], both (voxel,).

    Its loop records a graph in every step; to compile the step would be to change the example.
    """
    torch = _torch()
    _imported("mrpro")
    model = importlib.import_module("mrpro.operators.models").MonoExponentialDecay(torch.as_tensor(te).float())
    data = _tensor(signal.T / scale)
    loss = importlib.import_module("mrpro.operators.functionals").MSE(data) @ model
    adam = importlib.import_module("mrpro.algorithms.optimizers").adam
    start = [data[0], torch.full_like(data[0], t2star)]

    def run(n_steps: int = steps) -> tuple[Any, Any]:
        s0, t2 = adam(loss, start, max_iterations=n_steps, learning_rate=1e-3)
        return scale * s0, t2

    return _in_fastest_threads(run, lambda: run(20))


def stand_in_for_torchvision() -> None:
    """MRpro imports torchvision for one phantom; there is no build of it for a torch without a GPU."""
    try:
        importlib.import_module("torchvision.transforms.functional")
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[name] = types.ModuleType(name)


_MINPACK: dict[str, Any] = {"method": "lm", "x_scale": "jac", "xtol": 1e-12, "ftol": 1e-12}


def scipy_decay(te: np.ndarray, signal: np.ndarray, s0: np.ndarray, t2: np.ndarray) -> Run:
    """MINPACK in float64, one voxel after the other, from the given start: () -> S0 and T2* [s]."""
    from scipy.optimize import least_squares

    measured = np.asarray(signal, np.float64)

    def one(values: np.ndarray, start: np.ndarray) -> np.ndarray:
        def residual(x: np.ndarray) -> np.ndarray:
            return x[0] * np.exp(-te / x[1]) - values

        def jacobian(x: np.ndarray) -> np.ndarray:
            decay = np.exp(-te / x[1])
            return np.stack([decay, x[0] * decay * te / x[1] ** 2], axis=1)

        return least_squares(residual, start, jac=jacobian, **_MINPACK).x  # pyright: ignore[reportArgumentType]

    starts = np.stack([s0, t2], axis=1).astype(np.float64)
    return lambda: np.stack([one(values, start) for values, start in zip(measured, starts, strict=True)], axis=1)


def torchsim_least_squares(
    train: jq.FSE, signal: np.ndarray, n_states: int, m0: float, bounds: dict[str, tuple[float, float]]
) -> Run:
    """TorchSim's Levenberg-Marquardt: () -> maps by name, T2 in ms, M0 over `m0`.

    Args:
        train: the protocol.
        signal: (voxel, echo).
        n_states: orders that it keeps.
        m0: what the signal is divided by: it starts at M0 = 1.
        bounds: of T2 [ms] and B1, and where it starts: halfway.
    """
    torchsim, torch = _imported("torchsim"), _torch()
    simulator = importlib.import_module("torchsim.simulators").FSESimulator(
        flip=torch.as_tensor(np.rad2deg(np.asarray(train.flip_angles))),
        ESP=1e3 * float(train.echo_spacing),
        states=n_states,
        T1=1000.0,
    )
    bounds = {**bounds, "M0": (0.05, 5.0)}
    initial = {name: (low + high) / 2 for name, (low, high) in bounds.items()} | {"M0": 1.0}
    estimator = torchsim.NonlinearLeastSquares(simulator, bounds=bounds, initial=initial)
    estimator.fit(bounds, samples=64)
    measured = _tensor(signal / m0)
    return _in_fastest_threads(lambda: estimator.map(measured), lambda: estimator.map(measured[: len(measured) // 8]))


def optimistix_fit(model: jq.FSE, signal: jax.Array) -> Run:
    """Its Levenberg-Marquardt under vmap: () -> (voxel, 3), M0 over the largest measurement, T2 [s], B1."""
    optx = _imported("optimistix")
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

    fit = jax.jit(jax.vmap(one))
    return lambda: fit(signal)
