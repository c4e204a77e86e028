"""JAX settings of one thread, for a block of code alone."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
import jax.core
import jax.experimental

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def double_precision(enabled: bool = True) -> AbstractContextManager[None]:
    """64-bit numbers, or 32-bit ones."""
    module: Any = jax if hasattr(jax, "enable_x64") else jax.experimental  # before JAX 0.8
    return module.enable_x64(enabled)


def mixed_ranks() -> AbstractContextManager[None]:
    """Vectors and matrices broadcast in the package's own formulas, whatever callers allow in theirs."""
    return jax.numpy_rank_promotion("allow")


def computed_at_once() -> AbstractContextManager[None]:
    """Concrete arrays also where a program is being traced, for what does not depend on its arguments.

    Not `jax.ensure_compile_time_eval`: that evaluates loops while they are lowered, for which JAX 0.7 has no rules.
    """
    return jax.core.eval_context()


def in_this_context(work: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
    """`work`, to be called from another thread with the precision, the device and the promotions of this one."""
    config: Any = jax.config
    x64, device, types = config.jax_enable_x64, config.jax_default_device, config.jax_numpy_dtype_promotion

    def run(argument: Argument) -> Result:
        with double_precision(x64), jax.default_device(device), jax.numpy_dtype_promotion(types), mixed_ranks():
            return jax.block_until_ready(work(argument))

    return run


def on_cpu() -> bool:
    """Whether new arrays go to a CPU, whose caches are small."""
    config: Any = jax.config
    device = config.jax_default_device or jax.default_backend()
    return getattr(device, "platform", device) == "cpu"
