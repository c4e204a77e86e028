"""Names in folders that no file of images is behind."""

import os
import stat
from collections.abc import Callable
from pathlib import Path


def named_pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")  # which has no end


def link_to_the_kernel(path: Path) -> None:
    path.symlink_to("/proc/self/status")


NO_FILES: tuple[Callable[[Path], None], ...] = (named_pipe, unix_socket, link_to_a_device, link_to_the_kernel)
