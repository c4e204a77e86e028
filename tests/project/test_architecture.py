"""Imports only point down the design's list; the package loads nothing heavy before it is asked to."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import jaxqmri

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(jaxqmri.__file__).parent
# From top to bottom. A room may import from itself and from those below it.
ROOMS = (
    "cli", "workflow", "report", "datasets", "phantoms", "mapping", "io",
    "dictionary", "estimation", "models", "epg", "batching", "errors", "quantities",
)  # fmt: skip
NEVER_JAX = {"io", "report", "quantities", "errors"}
NEVER_FILES = {"dictionary", "estimation", "models", "epg"}
MAX_LINES, MAX_MODULES_IN_THE_ROOT = 400, 9


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The first name below the package; "" for the package itself."""
    return f"{module}.".split(".")[1]


def imported(module: str) -> tuple[set[str], set[str]]:
    """(modules of this package, top-level names of other packages), inside functions too."""
    path = MODULES[module]
    package = module.split(".")[: None if path.name == "__init__.py" else -1]
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            others.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            ours |= {name if name in MODULES else base for name in names}
    return ours - {module}, others


def circle_of(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle in order, the first of them last again; none: []."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        return circle.args[1]
    return []


def test_every_room_has_its_place():
    found = {room(name) for name in MODULES} - {"", "__main__"}
    assert found == set(ROOMS)
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_MODULES_IN_THE_ROOT


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    here = room(module)
    ours, others = imported(module)
    rooms = {room(name) for name in ours} - {"", here}
    assert "jaxqmri" not in others, "imports within the package are relative"
    if here in ROOMS:
        assert rooms <= set(ROOMS[ROOMS.index(here) :])
    if here in NEVER_JAX:
        assert rooms <= NEVER_JAX
        assert not others & {"jax", "jaxlib", "equinox", "optax", "jaxtyping"}
    if here in NEVER_FILES:
        assert not rooms & {"io", "report"}
        assert not others & {"pathlib", "pydicom", "nibabel", "matplotlib"}


def test_no_modules_import_each_other_in_a_circle():
    assert not circle_of({module: imported(module)[0] for module in MODULES})


def test_a_circle_of_modules_is_found():
    assert set(circle_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
    assert circle_of({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_file_is_long():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: n for name, n in lines.items() if n > MAX_LINES} == {}


def loaded_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in json.loads(output.splitlines()[-1])}


HEAVY = {"jax", "numpy", "matplotlib", "pydicom", "nibabel", "equinox", "optax", "scipy", "jinja2"}


@pytest.mark.parametrize("code", ["import jaxqmri", "import jaxqmri.cli", "import jaxqmri; jaxqmri.__version__"])
def test_importing_loads_nothing_heavy(code):
    assert not loaded_after(code) & HEAVY


def test_importing_starts_no_device_and_changes_no_configuration():
    code = (
        "import jax; before = dict(jax.config.values)\n"
        "import jaxqmri; [getattr(jaxqmri, name) for name in jaxqmri.__all__]\n"
        "assert dict(jax.config.values) == before\n"
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    assert "jaxqmri" in loaded_after(code)


def test_files_can_be_read_and_written_without_jax():
    code = "import jaxqmri; jaxqmri.read_dicom, jaxqmri.read_nifti, jaxqmri.write_maps, jaxqmri.ImageSeries"
    assert "jax" not in loaded_after(code)


def own_docstring(thing: object) -> str:
    """What was written for it: not what a class inherits or what Python makes up for a dataclass or a NamedTuple."""
    text = vars(thing).get("__doc__") if isinstance(thing, type) else getattr(thing, "__doc__", None)
    made_up = isinstance(thing, type) and (text or "").startswith(f"{thing.__name__}(")
    return "" if made_up or not (isinstance(thing, type) or callable(thing)) else (text or "").strip()


def test_every_public_name_is_there_and_documented():
    assert len(jaxqmri.__all__) > 15
    assert [name for name in jaxqmri.__all__ if not own_docstring(getattr(jaxqmri, name))] == []


def test_a_docstring_that_nobody_wrote_does_not_count():
    @dataclass
    class Made:
        x: int

    class Inherits(Exception):
        pass

    assert [own_docstring(thing) for thing in (Made, Inherits, NamedTuple("Pair", [("a", int)]), 1)] == [""] * 4


def broken_links(text: str) -> list[str]:
    """Links of a Markdown text of the root to files or headings that are not there."""

    def leads_nowhere(link: str) -> bool:
        path, _, heading = link.partition("#")
        if path and not (ROOT / path).exists():
            return True
        if not heading:
            return False
        titles = re.findall(r"^#+ +(.*)$", (ROOT / path).read_text(encoding="utf-8") if path else text, re.M)
        return heading not in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link and leads_nowhere(link)]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_what_is_there(name):
    assert broken_links((ROOT / name).read_text(encoding="utf-8")) == []


def test_a_link_to_nowhere_is_found():
    text = "# A `title`\n[a](README.md) [b](#a-title) [c](nowhere.md) [d](README.md#nowhere) [e](https://example.org)"
    assert broken_links(text) == ["nowhere.md", "README.md#nowhere"]
