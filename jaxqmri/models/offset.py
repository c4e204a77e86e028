"""A train of pulses whose signal ends on a constant."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact

from .base import NO_BOUNDS, NOTHING, Bounds, Known, SignalModel
from .guess import fitting_amplitude, linear_least_squares, squares
from .tissue import Tissue

_SHARES = (0.0, 0.6, 0.95)  # of the smallest measurement, taken for the offset where a search begins


class TissueWithOffset(NamedTuple):
    """A `Tissue` whose signal has a constant."""

    m0: Any = 1.0  # a.u.
    t1: Any = 1.0  # s
    t2: Any = 0.1  # s
    t2star: Any = 0.05  # s
    b1: Any = 1.0
    offset: Any = 0.0  # a.u., what is left at late echoes; not negative


class WithOffset(SignalModel):
    """The magnitude of a train that ends on a constant: |signal| + offset, not negative.

    T2 is told far worse beside an offset than without, and so is B1: the echoes should go on for three T2 or more. An
    offset of 0 is an answer, error bars are those as if it could be negative.

        jq.fit(jq.WithOffset(jq.FSE(flip_angles, echo_spacing, magnitude=True)), signal)

    Args:
        model: an `FSE` of magnitudes or with signals that are real, or another model of a `Tissue`.

    Raises:
        ValueError: a model of other parameters.
    """

    model: SignalModel

    parameters: ClassVar[type] = TissueWithOffset
    signed: ClassVar[tuple[str, ...]] = ("offset",)  # pyright: ignore[reportIncompatibleVariableOverride]
    signal_units: ClassVar[tuple[str, ...]] = ("m0", "offset")  # pyright: ignore[reportIncompatibleVariableOverride]
    knows_valleys: ClassVar[bool] = True
    mirrored: ClassVar[Any] = property(lambda self: self.model.mirrored)
    sequential: ClassVar[Any] = property(lambda self: self.model.sequential)

    def __check_init__(self):
        if self.model.parameters is not Tissue or self.model.amplitude != "m0":
            raise ValueError(f"model is {type(self.model).__name__}, wanted one of a Tissue, such as jq.FSE(...).")

    @property
    def magnitude(self) -> bool:
        return self.model.magnitude

    @property
    def ignored(self) -> tuple[str, ...]:
        return self.model.ignored

    @property
    def assumed(self) -> tuple[str, ...]:
        return self.model.assumed

    @property
    def n_measurements(self) -> int:
        return self.model.n_measurements

    def __call__(self, params: TissueWithOffset) -> Inexact[Array, " n"]:
        return self.model(Tissue(*params[:-1])) + params.offset

    def batched(self, params: TissueWithOffset) -> Inexact[Array, "n voxel"]:
        return self.model.batched(Tissue(*params[:-1])) + params.offset

    def limits(self) -> TissueWithOffset:
        return TissueWithOffset(*self.model.limits(), offset=(0.0, jnp.inf))

    def check_signal(self, signal: Inexact[ArrayLike, "*voxel n"]) -> None:
        if jnp.iscomplexobj(signal):
            raise ValueError("signal is complex, but an offset is that of magnitudes; fit jnp.abs(signal).")

    def prepared(self, free: Sequence[str]) -> "WithOffset":
        return replace(self, model=self.model.prepared(free))

    def usual_starts(self, free: Sequence[str]) -> int:
        return self.model.usual_starts(free)

    def to_coordinate(self, name: str, value: Float[Array, "..."]) -> Float[Array, "..."]:
        return value if name == "offset" else self.model.to_coordinate(name, value)

    def from_coordinate(self, name: str, coordinate: Float[Array, "..."]) -> Float[Array, "..."]:
        return coordinate if name == "offset" else self.model.from_coordinate(name, coordinate)

    def ends_at_mirror(self, name: str) -> Bool[ArrayLike, ""]:
        return name != "offset" and self.model.ends_at_mirror(name)

    def initial_guess(self, signal: Inexact[Array, " n"], known: Known = NOTHING) -> TissueWithOffset:
        return jax.tree.map(lambda leaf: leaf[0], self.guesses(signal, known, NO_BOUNDS, 1))

    def guesses(self, signal: Inexact[Array, " n"], known: Known, bounds: Bounds, n: int) -> TissueWithOffset:
        # Those of the model beside some offsets, of which the best with the offset that fits best.
        def beside(share: Array) -> tuple[Array, TissueWithOffset]:
            taken = known["offset"] if "offset" in known else share * jnp.maximum(jnp.min(signal), 0)
            guesses = self.model.guesses(signal - taken, known, bounds, n)
            return jax.vmap(lambda guess: self._completed(signal, guess, known))(guesses)

        misfits, found = jax.vmap(beside)(jnp.asarray(_SHARES, signal.dtype))
        best = jnp.argmin(jnp.min(misfits, axis=1))
        return jax.tree.map(lambda leaf: leaf[best], found)

    def _completed(self, signal: Array, guess: Tissue, known: Known) -> tuple[Array, TissueWithOffset]:
        """With the best m0 and the best offset that is not negative, or the known one; and the misfit."""
        train = list(self.model(guess._replace(m0=jnp.ones_like(guess.t2))))
        measured = list(signal)
        _, offset = linear_least_squares([train, [jnp.ones_like(train[0])] * len(train)], measured)
        offset = known["offset"] if "offset" in known else jnp.maximum(offset, 0)
        m0 = fitting_amplitude(train, [s - offset for s in measured])
        left = [s - offset - m0 * f for s, f in zip(measured, train, strict=True)]
        return squares(left), TissueWithOffset(*guess._replace(m0=m0), offset=offset + jnp.zeros_like(m0))
