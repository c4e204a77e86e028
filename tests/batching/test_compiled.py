"""What a command compiles is there for the next one, and only where nobody has decided otherwise."""

import os
import subprocess
import sys

import pytest
from command import ENVIRONMENT
from filelock import FileLock

from jaxqmri.batching.compiled import FOLDER, SWITCH, keep_compiled_programs, kept_in
from jaxqmri.errors import InputWarning

OURS = {name: value for name, value in ENVIRONMENT.items() if "COMPILATION_CACHE" not in name}
COMPILE = """
import jax
from jaxqmri.batching.compiled import keep_compiled_programs
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
assert float(jax.jit(lambda x: jax.numpy.sin(x) ** 2)(0.5)) > 0.2
print(found.count("/jax/compilation_cache/cache_hits"), found.count("/jax/compilation_cache/cache_misses"))
"""


def compiled_by_a_process(environment):
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return tuple(map(int, done.stdout.split()))


def test_what_one_process_compiles_the_next_one_finds(tmp_path):
    environment = OURS | {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    hits, misses = compiled_by_a_process(environment)
    assert hits == 0 < misses
    assert compiled_by_a_process(environment) == (misses, 0)
    assert list(tmp_path.rglob("*-cache"))


def test_a_home_that_cannot_be_written_only_means_that_nothing_is_kept(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    hits, _ = compiled_by_a_process(OURS | {"XDG_CACHE_HOME": str(blocked), "HOME": str(blocked)})
    assert hits == 0
    assert blocked.read_text() == "no folder"


def test_a_folder_that_another_process_holds_is_not_used(tmp_path, monkeypatch):
    import jax

    for name in (FOLDER, SWITCH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("jaxqmri.batching.compiled.MAX_WAIT", 0.1)
    before = jax.config.jax_compilation_cache_dir
    folder = kept_in()
    folder.mkdir(parents=True)
    with FileLock(folder / ".lockfile"), pytest.warns(InputWarning, match=r"neither taken .* stopped one \(Ctrl-Z\)"):
        keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize(
    ("variable", "value", "folder"), [(FOLDER, "/elsewhere", "/elsewhere"), (SWITCH, "false", None)]
)
def test_the_variables_of_jax_decide(variable, value, folder, monkeypatch):
    import jax

    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setenv(variable, value)
    before = jax.config.jax_compilation_cache_dir
    keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == before
    found = kept_in()
    assert (None if found is None else os.fspath(found)) == folder
