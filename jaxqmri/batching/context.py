"""What JAX keeps for each thread, entered for a block of code alone; no configuration outlives the block."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import jax
import jax.experimental

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@contextmanager
def double_precision() -> Iterator[None]:
    """64-bit numbers; computed at once, even where a program is being traced."""
    with _enable_x64(True), jax.ensure_compile_time_eval():
        yield


def in_this_context(work: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
    """`work`, to be called from another thread with the precision and the device of this one."""
    config: Any = jax.config
    x64, device = config.jax_enable_x64, config.jax_default_device

    def run(argument: Argument) -> Result:
        with _enable_x64(x64), jax.default_device(device):
            return jax.block_until_ready(work(argument))

    return run


def _enable_x64(enabled: bool) -> AbstractContextManager[None]:
    module: Any = jax if hasattr(jax, "enable_x64") else jax.experimental  # before JAX 0.8
    return module.enable_x64(enabled)


def on_cpu() -> bool:
    """Whether new arrays go to a CPU, whose caches are small."""
    config: Any = jax.config
    device = config.jax_default_device or jax.default_backend()
    return getattr(device, "platform", device) == "cpu"
