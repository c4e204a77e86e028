"""Runs notebooks and writes them with their pictures: `python notebooks/render.py [SOURCE ...]`, by default all.

The sources are the `.py` files (jupytext, percent format); edit those. The `.ipynb` beside each is for readers.
"""

import base64
import io
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parent


def sources() -> list[Path]:
    """The notebooks' sources."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def execute(source: Path, folder: Path, environment: Mapping[str, str], timeout: int = 300) -> NotebookNode:
    """Runs all cells in this interpreter's own kernel, whatever kernels are registered on the computer.

    Args:
        source: a jupytext source.
        folder: working directory of the cells.
        environment: variables to set for them.
        timeout: for one cell [s].

    Returns:
        The notebook with its outputs.

    Raises:
        CellExecutionError: a cell raised an error, or an assertion in it failed.
    """
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"  # jupytext's are random, and would differ with every run
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=timeout,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    return client.execute(env={**os.environ, **environment})


def shrink_pictures(notebook: NotebookNode) -> None:
    """Reduces PNG pictures to 256 colours, which nobody sees and which halves the file."""
    for data in _pictures(notebook):
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        buffer = io.BytesIO()
        picture.quantize(256, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
        data["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def _pictures(notebook: NotebookNode) -> Iterable[NotebookNode]:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return [output["data"] for output in outputs if "image/png" in output.get("data", {})]


def main() -> None:
    for source in [Path(name) for name in sys.argv[1:]] or sources():
        with tempfile.TemporaryDirectory() as folder:
            # What a reader without a network gets: the outputs then depend on nothing outside the repository.
            offline = {"JAXQMRI_OFFLINE": "1", "JAXQMRI_DATA_DIR": folder}
            notebook = execute(source, Path(folder), offline)
        shrink_pictures(notebook)
        target = source.with_suffix(".ipynb")
        nbformat.write(notebook, target)
        print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
