"""Imports only point down the design's list; the package loads nothing heavy before it is asked to."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxqmri

PACKAGE = Path(jaxqmri.__file__).parent
# A room may import from itself and from those named behind it (DESIGN, "Imports point down").
MAY_IMPORT = {
    "cli": {"workflow", "mapping", "report", "batching", "io", "datasets", "phantoms"},
    "workflow": {"mapping", "report", "estimation", "dictionary", "models", "batching", "io", "datasets", "phantoms"},
    "mapping": {"estimation", "dictionary", "models", "epg", "batching", "io"},
    "report": set(),
    "estimation": {"models", "batching"},
    "dictionary": {"estimation", "models", "batching"},
    "models": {"epg", "batching"},
    "phantoms": {"models", "batching"},
    "datasets": {"io"},
    "io": set(),
    "batching": set(),
    "epg": set(),
    "quantities": set(),
    "errors": set(),
}
EVERYBODY = {"quantities", "errors", "__version__"}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or not path.stem.startswith("__")]


def imported(path: Path) -> tuple[set[str], set[str]]:
    """(layers of this package, top-level names of other packages), inside functions too."""
    package = ["jaxqmri", *path.relative_to(PACKAGE).parent.parts]
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            others.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            names = [[*base, alias.name] for alias in node.names] if not node.module else [base]
            ours |= {name[1] for name in names if len(name) > 1 and name[1]}
    return ours, others


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    ours, others = imported(path)
    assert ours - {layer} - EVERYBODY <= MAY_IMPORT[layer]
    assert "jaxqmri" not in others, "imports within the package are relative"
    if layer in ("io", "report", "quantities", "errors"):
        assert not others & {"jax", "jaxlib", "equinox", "optax", "jaxtyping"}
    if layer in ("models", "estimation", "dictionary", "epg"):
        assert not others & {"pathlib", "pydicom", "nibabel", "matplotlib"}


def loaded_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in json.loads(output.splitlines()[-1])}


HEAVY = {"jax", "numpy", "matplotlib", "pydicom", "nibabel", "equinox", "optax", "scipy"}


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


def test_every_public_name_is_there_and_documented():
    assert len(jaxqmri.__all__) > 15
    for name in jaxqmri.__all__:
        assert getattr(jaxqmri, name).__doc__, name


def test_readme_links_to_what_is_there():
    root = Path(__file__).resolve().parents[2]
    readme = (root / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert len(links) > 4
    for link in links:
        assert (root / link).exists(), link
