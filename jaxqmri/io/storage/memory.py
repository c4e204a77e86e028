"""Images larger than the memory: an array in memory, or in a temporary file that the system pages in and out.

A machine that swaps, or that kills what takes too much, does not say why. So images that leave no room for their fit
go to a file, from which slab after slab of slices is fitted.
"""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import ceil, prod
from pathlib import Path, PurePosixPath

import numpy as np

from ...errors import DeviceError, OutputError

BYTES_PER_VALUE = 8  # of an image in float32 and its copy while it is fitted
COMFORTABLE = 1 / 2  # share of the memory that images may take; the rest is for the fit, the maps and other programs
BYTES_PER_VOXEL = 64  # of the maps and what is made of them when they are written
VALUES_AT_ONCE = 1 / 64  # of a slab, per byte of memory: with its copy an eighth of the memory
CHUNK = 2**24  # bytes
UNKNOWN_MEMORY = 2**33  # bytes
PROC = Path("/proc/self")


def new_images(shape: Sequence[int], where: str) -> np.ndarray:
    """A float32 array for (x, y, z, n) images: plain where they fit comfortably into the memory, else a `numpy.memmap`.

    The file of a memmap has no name, so nothing is left of it however this process ends. Its images follow each other:
    reading or writing one of them, or a few slices, touches nothing else. Messages name `where` the images come from.
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
        if needed <= there:  # tight, but the only way without a disk
            return np.empty(shape, np.float32)
        raise OutputError(
            f"{where}: {size} images need {needed / 1e9:.3g} GB of memory, this machine has {there / 1e9:.3g} GB, and "
            f"the {4 * prod(shape) / 1e9:.3g} GB of a temporary file cannot be had in {temporary_folder()} "
            f"({error.strerror}); set TMPDIR to a folder on a disk with that much free space."
        ) from error


def slabs(images: np.ndarray) -> list[slice]:
    """Ranges of slices (the third axis) to be fitted at once: all of them, unless the images are mapped from a file."""
    n_slices = images.shape[2]
    if not isinstance(images, np.memmap):
        return [slice(0, n_slices)]
    n_slabs = min(ceil(images.size / _values_at_once()), n_slices)
    at_once = ceil(n_slices / n_slabs)  # slabs of one size share the compiled programs
    return [slice(k, k + at_once) for k in range(0, n_slices, at_once)]


def middle_slab(images: np.ndarray) -> np.ndarray:
    """The slab in the middle, as a sample of the images; all of them, unless they are mapped from a file."""
    pieces = slabs(images)
    return images[:, :, pieces[len(pieces) // 2]]


def in_c_order(images: np.ndarray) -> Iterator[np.ndarray]:
    """All values of (x, y, z, n) images, the last axis fastest, in contiguous pieces; one, unless they are mapped."""
    at_once = n = images.shape[0]
    if isinstance(images, np.memmap):  # large pieces: each takes a walk through the whole file
        at_once = max(int(4 * _values_at_once() * n / images.size), 1)
    for x in range(0, n, at_once):
        yield np.ascontiguousarray(images[x : x + at_once])


def _values_at_once() -> float:
    return VALUES_AT_ONCE * (_memory() or UNKNOWN_MEMORY)


def _on_disk(shape: Sequence[int]) -> np.memmap:
    """Raises OSError where the disk does not suffice."""
    n_bytes, folder = 4 * prod(shape), temporary_folder()
    if shutil.disk_usage(folder).free < n_bytes:  # rather than fill the disk for other programs
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with tempfile.TemporaryFile(dir=folder, prefix=".jaxqmri-") as file:
        # All space at once: a disk that fills up under a mapped file kills the process without a message.
        if sys.platform == "linux":
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            zeros = memoryview(bytes(CHUNK))
            while n_bytes > 0:
                n_bytes -= os.write(file.fileno(), zeros[:n_bytes])
        return np.memmap(file, np.float32, mode="r+", shape=tuple(shape), order="F")


def temporary_folder() -> str:
    """The folder that TMPDIR, TEMP or TMP names, else one on a disk: on many machines /tmp itself is memory."""
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    on_disk = "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()
    return next(filter(None, named), on_disk)


def _memory() -> int | None:
    """Memory [bytes] this process may use: the least of machine, control groups and its own limit; None: unknown."""
    found = _cgroup_limits()
    if sys.platform != "win32":
        import resource

        found.append(resource.getrlimit(resource.RLIMIT_DATA)[0])  # -1: no limit
        with suppress(ValueError, OSError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    else:
        import ctypes

        installed = ctypes.c_ulonglong()  # kB; stays 0 where the system does not know
        ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(installed))
        found.append(1024 * installed.value)
    return min((n for n in found if n > 0), default=None)


def _cgroup_limits() -> list[int]:
    """Memory limits [bytes] of the control groups of this process, from its own up to the root; Linux only.

    Source: cgroups(7); Documentation/admin-guide/cgroup-v1 and cgroup-v2 of the Linux kernel.
    """
    try:
        groups = [line.split(":", 2) for line in (PROC / "cgroup").read_text(errors="replace").splitlines()]
        mounts = [line.partition(" - ") for line in (PROC / "mountinfo").read_text(errors="replace").splitlines()]
    except OSError:
        return []
    paths = {controller: path for _, controllers, path in groups for controller in controllers.split(",")}
    limits = []
    for place, _, system in mounts:
        (root, mount_point), (kind, *_, options) = place.split()[3:5], system.split()
        if kind == "cgroup2":
            own, names = paths.get(""), ("memory.max", "memory.high")
        elif kind == "cgroup" and "memory" in options.split(","):
            own, names = paths.get("memory"), ("memory.limit_in_bytes",)
        else:
            continue
        # In a container the group may be the root of the mount, but its path that on the host.
        below = PurePosixPath(own or "/")
        below = below.relative_to(root) if below.is_relative_to(root) and ".." not in below.parts else PurePosixPath()
        for group in (below, *below.parents):
            for name in names:
                with suppress(OSError, ValueError):  # no such limit, or "max"
                    limits.append(int(Path(mount_point, group, name).read_text()))
    return limits
