"""Programs that XLA compiled stay on disk, so that the next run of the command starts without compiling them again."""

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

import jax
from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from ..errors import remark

MOST_BYTES = 2**28  # LRU size limit
MAX_WAIT = 2.0  # s; the folder is held while one program is read or written
LOCK = ".lockfile"  # as JAX calls it
# JAX's own variables; where one of them is set, the environment decides.
FOLDER, SWITCH = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"


def kept_in() -> Path | None:
    """The folder that keeps them, or None where the environment says that nothing is kept."""
    if os.environ.get(SWITCH, "true").lower() in ("0", "false", "n", "no", "off"):
        return None
    given = os.environ.get(FOLDER)
    return Path(given) if given else user_cache_path("jaxqmri") / "compiled" / _processor()


def keep_compiled_programs() -> None:
    """Makes JAX keep what it compiles from now on, in the user's cache folder.

    For commands, which own their process; a library must not decide this for the program it is part of. Nothing is kept
    where the folder cannot be written, nor changed where the environment decides.
    """
    folder = kept_in()
    if folder is None or FOLDER in os.environ:
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.access(folder, os.W_OK):
        return
    try:  # JAX would wait for 10 s at each of its programs
        with FileLock(folder / LOCK, timeout=MAX_WAIT):
            pass
    except Timeout:
        remark(
            f"compiled programs are neither taken from {folder} nor kept there, as another run, perhaps a stopped one "
            f"(Ctrl-Z), has held that folder for {MAX_WAIT:g} s; this one takes longer to start."
        )
        return
    except OSError:  # a disk without locks
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # With a largest size JAX locks the folder, so runs may share it.
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _processor() -> str:
    """What a program for the CPU depends on: homes are shared between machines, instruction sets are not."""
    words = [platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        words += [next((line for line in lines if line.startswith(("flags", "Features"))), "")]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]
