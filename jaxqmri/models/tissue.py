"""What tissue is made of, for all sequences: the parameters a signal model may depend on."""

from typing import NamedTuple

from jaxtyping import Array, Float

Value = Float[Array, "..."] | float


class Tissue(NamedTuple):
    """Parameters of tissue and of the transmit field in it. Fields that a model does not use are ignored."""

    m0: Value = 1.0  # a.u., equilibrium magnetisation times receiver gain
    t1: Value = 1.0  # s
    t2: Value = 0.1  # s
    t2star: Value = 0.05  # s
    b1: Value = 1.0  # true flip angle / nominal flip angle
