"""Many voxels in batches of few sizes, so that memory stays flat and few programs are compiled."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

from .context import in_this_context, on_cpu
from .processors import n_processors

DEFAULT_BATCH_SIZE = 32768  # voxels; enough to fill a GPU, small enough for a CPU's cache and memory
TRAINS_ON_A_CPU = 8192  # voxels of a recursion at once: their orders, and derivatives, stay in the cache
MOST_HALVINGS = 5  # each one compiles anew; where 1024 voxels do not fit, the memory is taken by something else

Result = TypeVar("Result")

_most_at_once: ContextVar[int | None] = ContextVar("most voxels at once", default=None)


@contextmanager
def at_most(n_voxels: int | None) -> Iterator[None]:
    """No batch of this block and thread is larger; None: as it was."""
    if n_voxels is not None and n_voxels < 1:
        raise ValueError(f"at least 1 voxel must be done at once, got {n_voxels}.")
    token = _most_at_once.set(n_voxels or _most_at_once.get())
    try:
        yield
    finally:
        _most_at_once.reset(token)


def for_every_processor(n_voxels: int, least: int) -> int:
    """Voxels at once, so that each processor of a CPU has a batch, but no batch of less than `least`."""
    return min(max(-(-n_voxels // _n_side_by_side()), least), DEFAULT_BATCH_SIZE)


def in_batches(
    jitted: Callable[..., Result],
    common: tuple[Any, ...],
    voxels: PyTree[Array],
    batch_size: int | None,
    progress: Callable[[int], None] | None = None,
    usual_size: int = DEFAULT_BATCH_SIZE,
) -> Result:
    """Calls `jitted(*common, batch)` on batches of voxels and puts the results together.

    Where the memory of the device does not suffice for a batch, this one and those after it are halved, up to five
    times. Within a larger program (`jax.jit`, `jax.vmap`) the batches are a loop of it, without `progress`.

    Every leaf of the batch and of the result has the voxels on its first axis, and zeros must be voxels for `jitted`.
    `batch_size` None is `usual_size`, or 32768 within a larger program. `progress` gets the number of voxels done.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    n_voxels = jax.tree.leaves(voxels)[0].shape[0]
    most = _most_at_once.get() or n_voxels
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((common, voxels)))
    usual_size = DEFAULT_BATCH_SIZE if traced else usual_size
    step = max(min(batch_size or usual_size, n_voxels, most), 1)
    if traced:
        return _in_loop(lambda batch: jitted(*common, batch), voxels, n_voxels, step)
    results: list[Result] = []
    begin, n_halvings = 0, 0
    while begin < max(n_voxels, 1):
        try:
            for result in _from(begin, step, jitted, common, voxels):
                results.append(result)
                n_done = min(step, n_voxels - begin)
                begin += step
                if progress is not None:
                    progress(n_done)
        except RuntimeError as error:
            # XLA has one class for all its errors.
            if "RESOURCE_EXHAUSTED" not in str(error) or n_halvings == MOST_HALVINGS or step == 1:
                raise
            step, n_halvings = step // 2, n_halvings + 1
    return results[0] if len(results) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *results)


def _in_loop(work: Callable[[Any], Result], voxels: PyTree[Array], n_voxels: int, step: int) -> Result:
    """All batches as one loop of the program that is being traced, compiled once; few voxels without any padding."""
    n_batches = max(-(-n_voxels // step), 1)
    voxels = jax.tree.map(lambda leaf: _padded(leaf, n_batches * step), voxels)
    if n_batches == 1:
        return jax.tree.map(lambda leaf: leaf[:n_voxels], work(voxels))
    batches = jax.tree.map(lambda leaf: leaf.reshape(n_batches, step, *leaf.shape[1:]), voxels)
    results = jax.lax.map(work, batches)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n_voxels], results)


def _from(
    begin: int, step: int, jitted: Callable[..., Result], common: tuple[Any, ...], voxels: PyTree[Array]
) -> Iterator[Result]:
    """The results of the batches from one voxel on, in order, each one computed before it is yielded."""
    n_voxels = jax.tree.leaves(voxels)[0].shape[0]
    width = _compiled_width(step)

    def work(start: int) -> Result:
        some = (leaf[start : start + step] for leaf in jax.tree.leaves(voxels))
        batch = jax.tree.unflatten(jax.tree.structure(voxels), [_padded(leaf, width) for leaf in some])
        result = jitted(*common, batch)
        n_wanted = min(step, n_voxels - start)
        return result if n_wanted == width else jax.tree.map(lambda leaf: leaf[:n_wanted], result)

    starts = range(begin, max(n_voxels, 1), step)
    yield from map(jax.block_until_ready, _side_by_side(work, starts, program=(jitted, common, width)))


def _side_by_side(work: Callable[[int], Result], starts: Iterable[int], program: PyTree) -> Iterator[Result]:
    """Results in order. On a CPU as many batches run at once as there are processors.

    XLA shares only large operations among processors; two batches side by side are up to 1.6 times faster. The first
    one runs alone where its program has yet to be compiled.
    """
    remaining = deque(starts)
    known = _signature(program)
    if known not in _compiled:
        yield work(remaining.popleft())
        _compiled.add(known)
    if len(remaining) < 2 or not on_cpu():
        yield from _one_ahead(map(work, remaining))
        return
    run, n_threads = in_this_context(work), _n_side_by_side()
    with ThreadPoolExecutor(n_threads) as pool:
        running: deque[Future[Result]] = deque()
        while remaining or running:
            while remaining and len(running) < n_threads:
                running.append(pool.submit(run, remaining.popleft()))
            yield running.popleft().result()


def _n_side_by_side() -> int:
    return n_processors() if on_cpu() else 1


def _one_ahead(dispatched: Iterator[Result]) -> Iterator[Result]:
    """The device gets its next batch before the last one is waited for."""
    waiting: deque[Result] = deque()
    for result in dispatched:
        waiting.append(result)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


_compiled: set[Any] = set()  # programs that have run in this process


def _signature(program: PyTree) -> tuple[Any, ...]:
    """The same for calls that share a compiled program."""
    leaves, structure = jax.tree.flatten(program)
    kinds = [(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array | np.ndarray) else leaf for leaf in leaves]
    config: Any = jax.config
    return (structure, config.jax_enable_x64, config.jax_default_device, *kinds)


def _compiled_width(n_voxels: int) -> int:
    """Up to one eighth more voxels, so that masks of any size share few compiled shapes: at most 8 per doubling.

    Whole vectors of the processor: the odd voxels at the end of a loop would be rounded differently.
    """
    granule = max(2 ** (n_voxels.bit_length() - 4), 64)
    return -(-n_voxels // granule) * granule


def _padded(leaf: Array, size: int) -> Array:
    missing = size - leaf.shape[0]
    return leaf if missing == 0 else jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
