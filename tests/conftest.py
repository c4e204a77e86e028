"""Where the real scans are, a seed for everything random, and what is compiled once for a whole run."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

COMPILED = "JAX_COMPILATION_CACHE_DIR"
UNOPTIMISED = "JAX_DISABLE_MOST_OPTIMIZATIONS"
# The older way to make kernels takes half the time. It rounds a product that is added to here and not there, unless the
# processor is said to have no instruction for both at once. The newest XLA knows it no more.
SIMPLE_KERNELS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_max_isa=AVX"


def pytest_configure(config: pytest.Config) -> None:
    """Compile less, which is most of what the suite does. JAX reads the environment when it is imported.

    Quick tests run most programs once or twice, for which optimising them is not worth its time; slow ones run what
    users run. Workers, command lines and notebooks of one run share what they compile. The folder is new for each run,
    or a result could be that of an older compiler.
    """
    if "not slow" in config.option.markexpr and UNOPTIMISED not in os.environ:
        os.environ[UNOPTIMISED] = "1"
        flags = f"{os.environ.get('XLA_FLAGS', '')} {SIMPLE_KERNELS}"
        if platform.machine() in ("x86_64", "AMD64") and _are_known(flags):
            os.environ["XLA_FLAGS"] = flags
    if hasattr(config, "workerinput") or COMPILED in os.environ:
        return  # the environment is that of the process that started it, or the folder the developer's own
    folder = tempfile.mkdtemp(prefix="jaxqmri-tests-compiled-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ |= {
        COMPILED: folder,
        # With a limit there is a lock as well: nobody reads what somebody else has written half of.
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**32),
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


def _are_known(flags: str) -> bool:
    """Whether XLA knows them all, or it would end the process."""
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on real scans are slow ones."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans and golden maps; it is not part of the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("JAXQMRI_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}; set JAXQMRI_TEST_DATA to its folder")
    return folder


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_interrupts():
    """Also where the suite runs in the background of a shell, which makes its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240504)


@pytest.fixture
def double_precision():
    """JAX with 64-bit numbers for one test."""
    import jax

    if hasattr(jax, "enable_x64"):
        with jax.enable_x64(True):
            yield
    else:  # before JAX 0.8
        from jax.experimental import enable_x64

        with enable_x64():
            yield
