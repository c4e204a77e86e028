"""Two pools of water that decay at their own rates: T2 of spin echoes or T2* of gradient echoes."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact

from .base import NOTHING, Bounds, Known, Params, SignalModel, as_float_array, check_times
from .guess import inner_product, visible_times
from .tissue import Value


class TwoPools(NamedTuple):
    """Parameters of a decay of two pools."""

    m0: Value  # a.u., signal of both at TE = 0
    fraction: Value  # of m0 that is in the pool of the shorter time
    t_short: Value  # s; T2 or T2*
    t_long: Value  # s


class BiExponential(SignalModel):
    """S(TE) = M0 [f exp(-TE / t_short) + (1 - f) exp(-TE / t_long)], with t_short < t_long: two pools without exchange.

    A fit keeps the order. How well it tells the pools apart depends on their ratio: the SNR, M0 over the standard
    deviation of the noise, at which the fraction has an error of a fifth of the smaller pool (Cramer-Rao bound; 32
    echoes evenly from t_short / 4 to 8 t_short),

        t_long / t_short    fraction 0.1    0.2    0.5    0.8
                       2            1800    900    360    920
                       3             470    240     97    250
                       5             180     90     38    100
                       8             110     55     23     61

    It falls with the square root of the number of echoes in that span. A train that ends at 4 t_short needs 2 to 3.5
    times as much, one that ends at 2 t_short 10 to 20 times.

    Where there is no second pool a voxel ends as AT_BOUND (the fraction 0 or 1, or one time for both), as
    UNIDENTIFIABLE or NOT_CONVERGED, or with an error bar that holds 0 or 1: of a mono-exponential at SNR 50 or 200, 1 %
    of the voxels have a fraction two standard errors away from both. Those beyond the table have skewed error bars.

    Limits: both times from where 2 % of a pool are left at the first echo to where it falls by 10 % over the train.
    Source: Whittall, MacKay, J Magn Reson 84:134 (1989); for the start, amplitudes eliminated over a grid of pairs of
    times: Golub, Pereyra, Inverse Problems 19:R1 (2003).

    Args:
        te: (echo,) echo times, at least four, in any order [s].

    Raises:
        ValueError: fewer than four different echo times, or times that cannot be seconds.
    """

    te: Float[Array, " echo"] = eqx.field(converter=as_float_array)

    parameters: ClassVar[type] = TwoPools
    amplitude: ClassVar[str] = "m0"
    ordered: ClassVar[tuple[str, ...]] = ("t_short", "t_long")
    broadcasts: ClassVar[bool] = True

    def __check_init__(self):
        check_times("te", self.te, different=4)

    def check_signal(self, signal: Inexact[ArrayLike, "*voxel n"]) -> None:
        if jnp.iscomplexobj(signal):
            raise ValueError("signal is complex, but BiExponential predicts magnitudes; fit jnp.abs(signal).")

    def __call__(self, params: TwoPools) -> Float[Array, "echo ..."]:
        short, long = (jnp.exp(-self.te * (1 / jnp.asarray(t))) for t in (params.t_short, params.t_long))
        return params.m0 * (long + params.fraction * (short - long))

    def limits(self) -> TwoPools:
        times = self._times()
        # An estimate within 5 % of an end is AT_BOUND: the fraction at 1, where there is no second pool.
        return TwoPools(m0=(0.0, jnp.inf), fraction=(1e-3, 1.05), t_short=times, t_long=times)  # pyright: ignore[reportArgumentType]

    def _times(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        # Less than of one pool alone: until 2 % are left at the first echo, or beside another one it is a constant.
        shortest, longest = visible_times(self.te)
        return 2.5 * shortest, longest / 10

    def initial_guess(self, signal: Inexact[Array, "echo ..."], known: Known = NOTHING) -> TwoPools:
        if known:
            return jax.tree.map(lambda leaf: leaf[0], self.guesses(signal, known, {}, 1))
        echoes = list(signal)  # see MonoExponential.initial_guess
        shortest, longest = self._times()
        times = jnp.exp(jnp.linspace(jnp.log(shortest), jnp.log(longest), _N_TIMES))
        decays = jnp.exp(-self.te / times[:, None])
        norms = jnp.linalg.norm(decays, axis=1)
        units = decays / norms[:, None]
        _, overlaps = jax.lax.scan(lambda _, unit: (None, inner_product(list(unit), echoes)), None, units)
        one_minus_cosine = jnp.sum((units[:, None] - units) ** 2, axis=-1) / 2  # exact where they are nearly parallel

        def compare(best: tuple[Array, ...], pair: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
            i, j = pair
            a, b, away = overlaps[i], overlaps[j], one_minus_cosine[i, j]
            # Both amplitudes by least squares, in units of the decays' lengths, times 1 - cosine^2.
            short, long = (a - b) + away * b, (b - a) + away * a
            gain = (short * a + long * b) / (away * (2 - away))
            better = (short > 0) & (long > 0) & (gain > best[0])
            m0_short, m0_long = short / norms[i], long / norms[j]
            new = (gain, m0_short / jnp.where(better, m0_short + m0_long, 1.0), times[i], times[j])
            return tuple(jnp.where(better, n, old) for n, old in zip(new, best, strict=True)), None

        # Where one pool does as well as any two: the time that fits best, and a second one beside it.
        gains = jnp.where(overlaps > 0, overlaps, 0.0) ** 2
        at = jnp.argmax(gains, axis=0)
        one = times[at]
        start = (jnp.max(gains, axis=0), jnp.full_like(one, 0.5), one / 1.5, one * 1.5)
        (_, fraction, t_short, t_long), _ = jax.lax.scan(compare, start, _PAIRS, unroll=4)
        return TwoPools(jnp.ones_like(fraction), fraction, t_short, t_long)

    def batched_guess(self, signal: Inexact[Array, "echo voxel"], known: Known = NOTHING) -> TwoPools:
        return super().batched_guess(signal, known) if known else self.initial_guess(signal)  # which broadcasts

    def guesses(self, signal: Inexact[Array, " echo"], known: Known, bounds: Bounds, n: int) -> Params:
        found = super().guesses(signal, known, bounds, n)
        if {"fraction", *self.ordered} & {*known, *bounds}:
            return found
        turned = found.t_short > found.t_long
        short, long = jnp.minimum(found.t_short, found.t_long), jnp.maximum(found.t_short, found.t_long)
        return found._replace(
            fraction=jnp.where(turned, 1 - found.fraction, found.fraction), t_short=short, t_long=long
        )


_N_TIMES = 24  # a factor of 1.5 from one to the next on usual trains
_PAIRS = tuple(np.asarray(np.triu_indices(_N_TIMES, 1), np.int32))
