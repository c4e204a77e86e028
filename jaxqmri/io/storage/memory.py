"""Images as large as the disk allows: an array in memory, or in a file that the system pages in and out.

A machine that swaps, or that kills what takes too much, says nothing of the reason. So images that leave no room for
their fit go to a temporary file, from which slab after slab of slices is fitted.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import ceil, prod
from pathlib import Path

import numpy as np

from ...errors import DeviceError, OutputError

BYTES_PER_VALUE = 8  # an image in float32, and its copy in the hands of the fit
COMFORTABLE = 1 / 2  # of the memory; the rest is for the fit itself, the maps and everybody else
BYTES_PER_VOXEL = 64  # of the maps with what is made of them when they are written
AT_ONCE = 1 / 64  # values of a slab per byte of memory: with its copy an eighth of the memory
CHUNK = 2**24  # bytes
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
UNKNOWN_MEMORY = 2**33  # bytes


def new_images(shape: Sequence[int], where: str) -> np.ndarray:
    """An array for images, before the first one is read: plain where they fit comfortably, else a `numpy.memmap`.

    The file of a memmap has no name, so that nothing is left of it however this process ends. Its images lie in it one
    behind the other: reading or writing one of them, or a few slices, touches nothing else.

    Args:
        shape: (x, y, z, n) of all images together.
        where: the file, folder or series they come from, for the message.

    Returns:
        float32, values undefined.

    Raises:
        DeviceError: the memory suffices neither for the images nor for the maps of them.
        OutputError: the disk of the temporary file does not suffice for the images, nor does the memory.
    """
    needed, there = BYTES_PER_VALUE * prod(shape), _memory()
    if there is None or needed <= COMFORTABLE * there:
        return np.empty(shape, np.float32)
    size = " x ".join(map(str, shape))
    for_maps = BYTES_PER_VOXEL * prod(shape[:3])
    if needed > there and for_maps > there:
        raise DeviceError(
            f"{where}: the maps of {size} images need {for_maps / 1e9:.3g} GB of memory, and this machine has "
            f"{there / 1e9:.3g} GB; split the images into slabs of fewer slices, or use a larger machine."
        )
    try:
        return _on_disk(shape)
    except OSError as error:
        if needed <= there:  # tight, but without a disk the only way
            return np.empty(shape, np.float32)
        raise OutputError(
            f"{where}: {size} images need {needed / 1e9:.3g} GB of memory, this machine has {there / 1e9:.3g} GB, and "
            f"the {4 * prod(shape) / 1e9:.3g} GB of a temporary file cannot be had in {temporary_folder()} "
            f"({error.strerror}); set TMPDIR to a folder on a disk with that much free space."
        ) from error


def slabs(images: np.ndarray) -> list[slice]:
    """Slices along z that are to be taken at once: all of them, unless the images are mapped from a file.

    Args:
        images: (x, y, z, n), or (x, y, z).
    """
    n_slices = images.shape[2]
    if not isinstance(images, np.memmap):
        return [slice(0, n_slices)]
    values_at_once = AT_ONCE * (_memory() or UNKNOWN_MEMORY)
    n_slabs = min(ceil(images.size / values_at_once), n_slices)
    at_once = ceil(n_slices / n_slabs)  # slabs of one size share the compiled programs
    return [slice(k, k + at_once) for k in range(0, n_slices, at_once)]


def middle_slab(images: np.ndarray) -> np.ndarray:
    """The slab in the middle, to look at where there is no time for all: all slices, unless the images are mapped."""
    pieces = slabs(images)
    return images[:, :, pieces[len(pieces) // 2]]


def in_c_order(images: np.ndarray) -> Iterator[np.ndarray]:
    """All values, the last axis fastest, in contiguous pieces: one, unless the images are mapped from a file.

    Args:
        images: (x, y, z, n).
    """
    at_once = n = images.shape[0]
    if isinstance(images, np.memmap):  # few and large ones: each takes a walk through the whole file
        at_once = max(int(4 * AT_ONCE * (_memory() or UNKNOWN_MEMORY) * n / images.size), 1)
    for x in range(0, n, at_once):
        yield np.ascontiguousarray(images[x : x + at_once])


def _on_disk(shape: Sequence[int]) -> np.memmap:
    """Raises OSError where the disk does not suffice."""
    n_bytes, folder = 4 * prod(shape), temporary_folder()
    if shutil.disk_usage(folder).free < n_bytes:  # a disk filled to the brim harms others
        raise OSError(28, os.strerror(28))
    with tempfile.TemporaryFile(dir=folder, prefix=".jaxqmri-") as file:
        _reserve(file.fileno(), n_bytes)
        return np.memmap(file, np.float32, mode="r+", shape=tuple(shape), order="F")


def _reserve(file: int, n_bytes: int) -> None:
    """All of its space at once: where a disk fills up under a mapped file, the process is killed without a word."""
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, n_bytes)
        return
    zeros = memoryview(bytes(CHUNK))
    while n_bytes > 0:
        n_bytes -= os.write(file, zeros[:n_bytes])


def temporary_folder() -> str:
    """The one that was asked for, or one that is a disk: on many machines /tmp itself is memory."""
    asked_for = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    on_disk = "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()
    return next(filter(None, asked_for), on_disk)


def _memory() -> int | None:
    """All memory [bytes] of the machine, the container or this process, or None where it does not say."""
    found: list[int] = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(int(Path(limit).read_text()))
    with suppress(ImportError):  # Windows has none
        import resource

        found.append(resource.getrlimit(resource.RLIMIT_DATA)[0])  # -1: no limit
    return min((n for n in found if n > 0), default=None)
