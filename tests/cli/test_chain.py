"""How far a typed value goes: every module on its way is a place to go wrong."""

import sys

import numpy as np
from command import run
from nifti_files import save

from jaxqmri.errors import UsageError
from jaxqmri.io import join

TE_MS = [3.1, 8.2, 15.3, 25.4]


def are_the_echo_times(value):
    if not isinstance(value, list | tuple | np.ndarray) or len(value) != len(TE_MS):
        return False
    numbers = all(isinstance(one, int | float) for one in value)
    return numbers and np.allclose(value, np.array(TE_MS) / 1e3)


def holds(variable):
    """Whether it is, or is made of, the echo times in seconds."""
    fields = getattr(type(variable), "__dataclass_fields__", ())
    return are_the_echo_times(variable) or any(are_the_echo_times(vars(variable).get(name)) for name in fields)


def test_a_typed_echo_time_passes_ten_modules_until_it_is_that_of_an_image(tmp_path, capsys, monkeypatch):
    modules: dict[str, None] = {}

    def watch(frame, event, returned):
        name = frame.f_globals.get("__name__", "")
        held = (*frame.f_locals.values(), returned) if event in ("call", "return") else ()
        if name.startswith("jaxqmri.") and any(map(holds, held)):
            modules[name] = None

    def arrived(*_):
        sys.setprofile(None)
        raise UsageError("arrived")

    monkeypatch.setattr(join, "_contradicts", arrived)
    scan = save(tmp_path / "scan.nii", np.ones((4, 4, 1, 4), np.float32))
    sys.setprofile(watch)
    try:
        done = run(capsys, "t2star", scan, "-o", tmp_path / "out", "--te-ms", *TE_MS)
    finally:
        sys.setprofile(None)
    assert "arrived" in done.error
    assert modules.keys() >= {"jaxqmri.cli.options", "jaxqmri.io.join"}
    assert len(modules) <= 10, " ".join(modules)
