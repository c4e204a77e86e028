"""Many voxels in batches of few sizes, so that memory stays flat and few programs are compiled."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, PyTree

from .context import in_this_context, mixed_ranks, on_cpu
from .processors import n_processors

DEFAULT_BATCH_SIZE = 32768  # voxels; enough to fill a GPU, small enough for a CPU's cache and memory
VECTOR = 64  # voxels; a multiple of what processors compute at once
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


def device_of(*values: PyTree) -> Any:
    """The device that the caller has put any of the numbers on; None: no one in particular."""
    for leaf in jax.tree.leaves(values):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.committed:
            return min(leaf.devices(), key=lambda device: device.id)
    return None


def stays_in_jax(*values: PyTree) -> bool:
    """Whether any of the numbers are traced, or spread over several devices.

    Others are cut, padded and reshaped by numpy: for every shape JAX would compile programs and keep them for ever.
    """
    leaves = jax.tree.leaves(values)
    return any(isinstance(leaf, Tracer) or (isinstance(leaf, jax.Array) and len(leaf.devices()) > 1) for leaf in leaves)


def in_batches(
    jitted: Callable[..., Result],
    common: tuple[Any, ...],
    voxels: PyTree[ArrayLike],
    batch_size: int | None,
    progress: Callable[[int], None] | None = None,
    *,
    launch: int | None = None,
    usual_size: int = DEFAULT_BATCH_SIZE,
    lay_out: Callable[[Any], Any] = lambda leaf: leaf,
    device: Any = None,
) -> Result:
    """Calls `jitted(*common, batch)` on batches of voxels and puts the results together, each leaf as `lay_out` says.

    Where the memory of the device does not suffice for a batch, this one and those after it are halved, up to five
    times. Within a larger program (`jax.jit`, `jax.vmap`) the batches are a loop of it, without `progress`.

    Every leaf of the batch and of the result has the voxels on its first axis; the last voxel is repeated where a batch
    is not full. `batch_size` None is a power of two, at most `usual_size`, or 32768 within a larger program; a batch
    takes the time of `launch` voxels more than it has, by default of a quarter of `usual_size`. `progress` gets the
    number of voxels done. `device` None is where JAX puts new arrays.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    n_voxels = jax.tree.leaves(voxels)[0].shape[0]
    most = _most_at_once.get()
    if stays_in_jax(common, voxels):
        step = max(min(batch_size or DEFAULT_BATCH_SIZE, n_voxels, most or n_voxels), 1)
        with mixed_ranks():
            result = _in_loop(lambda batch: jitted(*common, batch), voxels, n_voxels, step)
        return jax.tree.map(lay_out, result)
    with mixed_ranks(), nullcontext() if device is None else jax.default_device(device):
        size = batch_size or _usual_width(n_voxels, launch or usual_size // 4, usual_size)
        results = list(_one_by_one(jitted, common, jax.tree.map(np.asarray, voxels), min(size, most or size), progress))

    def together(*parts: np.ndarray) -> np.ndarray:
        return lay_out(parts[0] if len(parts) == 1 else np.concatenate(parts))

    return jax.device_put(jax.tree.map(together, *results), device)


def _one_by_one(
    jitted: Callable[..., Result],
    common: tuple[Any, ...],
    voxels: PyTree[np.ndarray],
    step: int,
    progress: Callable[[int], None] | None,
) -> Iterator[Result]:
    """The results of all batches, which are halved where the memory does not suffice."""
    n_voxels = jax.tree.leaves(voxels)[0].shape[0]
    begin, n_halvings = 0, 0
    while begin < max(n_voxels, 1):
        try:
            for result in _from(begin, step, jitted, common, voxels):
                yield result
                n_done = min(step, n_voxels - begin)
                begin += step
                if progress is not None:
                    progress(n_done)
        except RuntimeError as error:
            # XLA has one class for all its errors.
            if "RESOURCE_EXHAUSTED" not in str(error) or n_halvings == MOST_HALVINGS or step == 1:
                raise
            step, n_halvings = min(step, n_voxels) // 2, n_halvings + 1


def _in_loop(work: Callable[[Any], Result], voxels: PyTree[Array], n_voxels: int, step: int) -> Result:
    """All batches as one loop of the program that is being traced, compiled once; few voxels without any padding."""
    n_batches = max(-(-n_voxels // step), 1)
    voxels = jax.tree.map(lambda leaf: _padded(jnp, leaf, n_batches * step), voxels)
    if n_batches == 1:
        return jax.tree.map(lambda leaf: leaf[:n_voxels], work(voxels))
    batches = jax.tree.map(lambda leaf: leaf.reshape(n_batches, step, *leaf.shape[1:]), voxels)
    results = jax.lax.map(work, batches)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n_voxels], results)


def _from(
    begin: int, step: int, jitted: Callable[..., Result], common: tuple[Any, ...], voxels: PyTree[np.ndarray]
) -> Iterator[Result]:
    """The results of the batches from one voxel on, in order, each one computed before it is yielded."""
    n_voxels = jax.tree.leaves(voxels)[0].shape[0]
    width = min(-(-step // VECTOR) * VECTOR, _power_of_2(n_voxels))

    def work(start: int) -> Result:
        batch = jax.tree.map(lambda leaf: _padded(np, leaf[start : start + step], width), voxels)
        return jitted(*common, batch)

    starts = range(begin, max(n_voxels, 1), step)
    for start, result in zip(starts, _side_by_side(work, starts, program=(jitted, common, width)), strict=True):
        n_wanted = min(step, n_voxels - start)
        yield jax.tree.map(lambda leaf, n=n_wanted: np.asarray(leaf)[:n], result)


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


def _usual_width(n_voxels: int, launch: int, most: int) -> int:
    """Voxels at once: a power of two, so that images of any size share few programs, each of which takes 25 MB.

    The fastest one, where the last batch is as long as the others and each takes the time of `launch` voxels more: half
    of it counts when the last processor is done, half how long all of them have worked.
    """
    if n_voxels <= launch // 2:
        return min(_power_of_2(n_voxels), most)
    n, launch = (n_processors(), launch) if on_cpu() else (1, most)

    def cost(width: int) -> int:
        n_batches = -(-n_voxels // width)
        return (-(-n_batches // n) * n + n_batches) * (width + launch)

    return min((VECTOR << k for k in range((most // VECTOR).bit_length())), key=cost)


def _power_of_2(n_voxels: int) -> int:
    """The next one that holds them, in whole vectors: odd voxels at the end of a loop would be rounded differently."""
    return max(1 << max(n_voxels - 1, 0).bit_length(), VECTOR)


def _padded(xp: Any, leaf: Any, size: int) -> Any:
    """The leaf with its last voxel repeated.

    What was written there instead would be computed too: of zeros derivatives may be infinite, and maps are NaN.
    """
    missing = size - leaf.shape[0]
    if missing == 0:
        return leaf
    last = leaf[-1:] if leaf.shape[0] else xp.ones((1, *leaf.shape[1:]), leaf.dtype)
    return xp.concatenate([leaf, xp.broadcast_to(last, (missing, *leaf.shape[1:]))])
