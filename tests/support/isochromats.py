"""Multi-echo spin echoes by isochromats: rotation matrices, in double precision, without phase graphs.

The pulses are 200 hard ones with precession in the gradient between them. At every position across the slice stand as
many isochromats as the crushers need to spread over a turn, more than there are echoes that could bring them together.
"""

import numpy as np


def windowed_sinc(time_bandwidth, n=200):
    time = (np.arange(n) + 0.5) / n - 0.5
    pulse = np.sinc(time_bandwidth * time) * np.cos(np.pi * time) ** 2
    return pulse / pulse.sum()


def _about_z(angles):
    c, s, zero, one = np.cos(angles), np.sin(angles), np.zeros_like(angles), np.ones_like(angles)
    return np.moveaxis(np.array([[c, -s, zero], [s, c, zero], [zero, zero, one]]), -1, 0)


def _about(axis, angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]] if axis == "x" else [[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _in_gradient(pulse, axis, angle, cycles):
    """(position, 3, 3); `cycles` of precession during the pulse at each position."""
    half, matrix = _about_z(np.pi * cycles / pulse.size), np.broadcast_to(np.eye(3), (cycles.size, 3, 3))
    for amplitude in pulse:
        matrix = half @ _about(axis, angle * amplitude) @ half @ matrix
    return matrix


def train(t2, b1, thickness_ratio, *, time_bandwidth=4.0, t1=1.0, n_echoes=16, echo_spacing=0.01):
    """(echo,) magnitudes for times in s; refocused by 180 degrees, the excitation's rephaser set at b1 = 1."""
    edge, n_positions, n_crushed = 2.0, 60, 2 * n_echoes + 3
    positions = (np.arange(-n_positions, n_positions) + 0.5) * edge / n_positions  # of the excited thickness
    cycles, pulse = positions * time_bandwidth, windowed_sinc(time_bandwidth)

    def excited(b1):
        return _in_gradient(pulse, "y", b1 * np.pi / 2, cycles)[:, :, 2]

    nominal = excited(1.0) @ [1, 1j, 0]
    moments = np.linspace(-0.56, -0.46, 101)
    best = moments[np.argmax([abs(np.sum(nominal * np.exp(2j * np.pi * cycles * m))) for m in moments])]
    state = np.einsum("zij,zj->zi", _about_z(2 * np.pi * cycles * best), excited(b1))
    rewind = _about_z(-np.pi * cycles / thickness_ratio)
    refocus = rewind @ _in_gradient(pulse, "x", b1 * np.pi, cycles / thickness_ratio) @ rewind
    crush = _about_z(2 * np.pi * np.arange(n_crushed) / n_crushed)
    refocus = (crush @ refocus[:, None] @ crush).reshape(-1, 3, 3)
    state, signal = np.repeat(state, n_crushed, axis=0), []
    e1, e2 = np.exp(-echo_spacing / 2 / np.array([t1, t2]))
    for _ in range(n_echoes):
        state = np.einsum("zij,zj->zi", refocus, state * [e2, e2, e1] + [0, 0, 1 - e1])
        state = state * [e2, e2, e1] + [0, 0, 1 - e1]
        signal.append(abs(np.mean(state @ [1, 1j, 0])))
    return np.array(signal)
