"""How much memory images need and how much there is: a machine that swaps or kills says nothing of the reason."""

import os
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

from .errors import DeviceError

INFLATION = 1032  # no byte of deflated data holds more
BYTES_PER_VALUE = 8  # an image in float32, and its copy in the hands of the fit
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_memory(shape: Sequence[int], where: str, on_disk: int | None = None) -> None:
    """Refuses images that cannot be held, before the first one is read.

    Args:
        shape: (x, y, z, n) of all images together.
        where: the file, folder or series they come from, for the message.
        on_disk: size of their files [bytes]; a damaged header that promises far more than them is left to the reader.

    Raises:
        DeviceError: they and their copy for the fit need more than all memory of this machine or container.
    """
    needed, there = BYTES_PER_VALUE * prod(shape), _memory()
    held = needed if on_disk is None else BYTES_PER_VALUE * INFLATION * on_disk
    if there is not None and min(needed, held) > there:
        raise DeviceError(
            f"{where}: {' x '.join(map(str, shape))} images need {needed / 1e9:.3g} GB of memory, and this machine has "
            f"{there / 1e9:.3g} GB; split them into slabs of fewer slices, or use a larger machine."
        )


def _memory() -> int | None:
    """All memory [bytes] of the machine or the container, or None where it does not say."""
    found: list[int] = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(int(Path(limit).read_text()))
    return min((n for n in found if n > 0), default=None)
