"""Where the real scans are, and a seed for everything random."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest


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
