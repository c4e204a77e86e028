"""Each signal model with a usual protocol and a formula of its own in float64 numpy, for tests that all must pass."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

import jaxqmri as jq

TE = 4e-3 * np.arange(1, 11)  # s
TE_COMPLEX = 4.6e-3 * np.arange(1, 9)  # s
TI = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 2.0, 4.0])  # s
TR_INVERSION = 10.0  # s
ANGLES = np.deg2rad([2.0, 4.0, 6.0, 9.0, 12.0, 16.0, 20.0, 25.0])
TR_SPOILED = 0.010  # s
N_ECHOES, SPACING, REFOCUSING = 12, 0.010, np.deg2rad(160.0)
SIGNED = ("efficiency", "b0")


class Family(NamedTuple):
    """A model, and what is known of it without the package.

    Attributes:
        model: with its protocol.
        shape: (..., n) measurements for an amplitude of 1, from the other parameters as keywords of shape (..., 1).
        amplitude: its name.
        typical: the other free parameters of the tissue whose error bars are tested.
        ranges: the lowest and highest they have in random voxels; they are what is fitted, in this order.
        grid: the values a search through all that the model allows looks at.
        known: the lowest and highest value of the parameters that are given.
        complex: whether signal and amplitude are.
    """

    model: jq.SignalModel
    shape: Callable[..., np.ndarray]
    amplitude: str
    typical: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]
    grid: Mapping[str, np.ndarray]
    known: Mapping[str, tuple[float, float]] = {}
    complex: bool = False

    @property
    def n_unknowns(self) -> int:
        """Real numbers that are fitted."""
        return len(self.ranges) + (2 if self.complex else 1)

    @property
    def n_numbers(self) -> int:
        """Real numbers that are measured."""
        return self.model.n_measurements * (2 if self.complex else 1)

    def formula(self, amplitude: Any, params: Mapping[str, Any]) -> np.ndarray:
        """(..., n) measurements; the leaves broadcast against each other."""
        columns = {name: np.asarray(value, float)[..., None] for name, value in params.items()}
        return np.asarray(amplitude)[..., None] * self.shape(**columns)


def recovery(t1: np.ndarray, efficiency: np.ndarray) -> np.ndarray:
    return 1 - (1 + efficiency) * np.exp(-TI / t1) + efficiency * np.exp(-TR_INVERSION / t1)


def steady_state(t1: np.ndarray, b1: np.ndarray) -> np.ndarray:
    e1, angle = np.exp(-TR_SPOILED / t1), b1 * ANGLES
    return np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle))


def spin_echo_train(t2: np.ndarray, b1: np.ndarray, t1: float = 1.0) -> np.ndarray:
    """Extended phase graph of all orders: one echo spacing as a matrix on (F+_k, F-_k, -i Z_k), k = 0 ... N_ECHOES.

    Excitation about y and pulses about x leave all of that real. What recovers never meets an echo.
    Source: Weigel, J Magn Reson Imaging 41:266 (2015).
    """
    t2, b1 = np.broadcast_arrays(t2[..., 0], b1[..., 0])
    sin2, cos2 = np.sin(b1 * REFOCUSING / 2) ** 2, np.cos(b1 * REFOCUSING / 2) ** 2
    sin, cos = np.sin(b1 * REFOCUSING), np.cos(b1 * REFOCUSING)
    pulse = np.stack([cos2, sin2, sin, sin2, cos2, -sin, -sin / 2, sin / 2, cos], axis=-1)
    e1, e2 = np.full(t2.shape, np.exp(-SPACING / 2 / t1)), np.exp(-SPACING / 2 / t2)
    decay = np.repeat(np.stack([e2, e2, e1], axis=-1), N_ORDERS, axis=-1)
    spacing = decay[..., None] * np.tensordot(pulse, BETWEEN_CRUSHERS, 1) * decay[..., None, :]
    states = np.zeros((*t2.shape, 3 * N_ORDERS, 1))
    states[..., [0, N_ORDERS], 0] = np.sin(b1 * np.pi / 2)[..., None]
    echoes = []
    for _ in range(N_ECHOES):
        states = spacing @ states
        echoes.append(states[..., 0, 0])
    return np.stack(echoes, axis=-1)


def _between_crushers() -> np.ndarray:
    """(9, state, state): what each element of a pulse's matrix does between two crushers.

    A crusher moves F+ up one order and F- down one, and F+_0 is the conjugate of the new F-_0.
    """
    crusher = np.zeros((3, N_ORDERS, 3, N_ORDERS))
    for order in range(N_ORDERS - 1):
        crusher[0, order + 1, 0, order] = crusher[1, order, 1, order + 1] = 1
    crusher[0, 0, 1, 1] = 1
    crusher[2, :, 2, :] = np.eye(N_ORDERS)
    crusher = crusher.reshape(3 * N_ORDERS, 3 * N_ORDERS)
    elements = np.eye(9).reshape(9, 3, 3)
    return np.stack([crusher @ np.kron(element, np.eye(N_ORDERS)) @ crusher for element in elements])


N_ORDERS = N_ECHOES + 1
BETWEEN_CRUSHERS = _between_crushers()


def _recoveries(magnitude: bool) -> Family:
    return Family(
        model=jq.InversionRecovery(TI, TR_INVERSION, magnitude),
        shape=(lambda t1, efficiency: np.abs(recovery(t1, efficiency))) if magnitude else recovery,
        amplitude="m0",
        typical={"t1": 0.9, "efficiency": 0.92},
        ranges={"t1": (0.2, 2.5), "efficiency": (0.7, 1.0)},
        grid={"t1": np.geomspace(5e-3, 400, 240), "efficiency": np.linspace(-0.95, 10, 120)},
    )


FAMILIES = {
    "exponential decay": Family(
        model=jq.MonoExponential(TE),
        shape=lambda t2: np.exp(-TE / t2),
        amplitude="s0",
        typical={"t2": 0.025},
        ranges={"t2": (0.008, 0.12)},
        grid={"t2": np.geomspace(4e-4, 4, 2000)},
    ),
    "inversion recovery": _recoveries(magnitude=False),
    "magnitude inversion recovery": _recoveries(magnitude=True),
    "spoiled gradient echo": Family(
        model=jq.SpoiledGradientEcho(ANGLES, TR_SPOILED),
        shape=steady_state,
        amplitude="m0",
        typical={"t1": 1.0},
        ranges={"t1": (0.2, 3.0)},
        known={"b1": (0.7, 1.3)},
        grid={"t1": np.geomspace(4.6e-3, 1600, 2000)},
    ),
    "fast spin echo": Family(
        model=jq.FSE(np.full(N_ECHOES, REFOCUSING), SPACING),
        shape=spin_echo_train,
        amplitude="m0",
        typical={"t2": 0.03, "b1": 0.85},
        ranges={"t2": (0.02, 0.3), "b1": (0.5, 1.0)},
        grid={"t2": np.geomspace(1e-3, 12, 80), "b1": np.linspace(0.4, 1.12, 52)},
    ),
    "complex gradient echo": Family(
        model=jq.ComplexGradientEcho(TE_COMPLEX),
        shape=lambda t2star, b0: np.exp(-TE_COMPLEX / t2star + 2j * np.pi * b0 * TE_COMPLEX),
        amplitude="m0",
        typical={"t2star": 0.03, "b0": 40.0},
        ranges={"t2star": (0.008, 0.12), "b0": (-80.0, 80.0)},
        grid={"t2star": np.geomspace(4.6e-4, 3.68, 120), "b0": np.linspace(-109, 109, 219)},
        complex=True,
    ),
}
