"""The notebooks: every cell runs and its assertions hold, and what is published is what the sources say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import jupytext
import nbformat
import pydicom
import pytest
from nbformat import NotebookNode

import jaxqmri
from jaxqmri.datasets import list_datasets

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
T2STAR = NOTEBOOKS / "01_t2star_from_dicom.py"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


render = _load(NOTEBOOKS / "render.py")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment without a network, with an empty cache, and with the package that is under test."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("JAXQMRI_DATA_DIR", str(cache))
    package = Path(jaxqmri.__file__).parents[1]
    return {"JAXQMRI_OFFLINE": "1", "JAXQMRI_DATA_DIR": str(cache), "PYTHONPATH": str(package)}


def _printed(notebook: NotebookNode, stream: str) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == stream)


def _n_pictures(notebook: NotebookNode) -> int:
    return sum("image/png" in o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", []))


def _published(source: Path) -> NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("source", render.sources(), ids=lambda path: path.stem)
def test_offline_the_notebook_runs_and_shows_what_is_published(source, tmp_path, offline):
    work = _folder(tmp_path, "work")
    notebook = render.execute(source, work, offline)
    assert _printed(notebook, "stderr") == ""  # a reader sees no warning
    assert _n_pictures(notebook) == _n_pictures(_published(source)) > 0
    assert list(work.iterdir()) == []  # it cleans up
    if source == T2STAR:
        assert "In use: the digital reference object." in _printed(notebook, "stdout")


def _copy_middle(file: Path, folder: Path) -> None:
    """A DICOM file reduced to its middle 96 x 96 pixels, so that Adam is done in seconds."""
    image = pydicom.dcmread(file)
    rows, columns = (slice((n - 96) // 2, (n + 96) // 2) for n in image.pixel_array.shape)
    image.PixelData = image.pixel_array[rows, columns].tobytes()
    image.Rows = image.Columns = 96
    image.save_as(folder / file.name)


def test_the_example_holds_on_real_images(tmp_path, offline, shared_data):
    """A slice of real kidneys takes the place of the download, which needs a network."""
    downloaded = list_datasets()[0].folder
    downloaded.mkdir(parents=True)
    files = sorted((shared_data / "ge_gre12_kidney" / "s16_dicom").glob("*.dcm"))
    slices = {file: float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2]) for file in files}
    for file in files:
        if slices[file] == min(slices.values()):
            _copy_middle(file, downloaded)

    notebook = render.execute(T2STAR, _folder(tmp_path, "work"), offline)
    printed = _printed(notebook, "stdout")
    assert "In use: the images of the ISMRM 2024 challenge" in printed
    assert "12 echoes at 4.6, " in printed


@pytest.mark.parametrize("source", render.sources(), ids=lambda path: path.stem)
def test_published_notebook_has_the_cells_of_its_source(source):
    published = _published(source)
    nbformat.validate(published)
    wanted = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source) for cell in published.cells] == wanted, "run python notebooks/render.py"


@pytest.mark.parametrize("source", render.sources(), ids=lambda path: path.stem)
def test_published_notebook_shows_its_results_and_nothing_of_the_machine(source):
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    published = _published(source)
    assert all(cell.execution_count for cell in published.cells if cell.cell_type == "code")
    assert _n_pictures(published) > 0
    assert _printed(published, "stderr") == ""
    assert "site-packages" not in text
    assert str(Path.home()) not in text
    assert len(text) < 500_000  # what a viewer in a browser still shows at once


@pytest.mark.slow
def test_a_failing_assertion_in_a_cell_is_an_error(tmp_path):
    """Without this, a notebook that runs would prove nothing."""
    source = tmp_path / "broken.py"
    source.write_text("# %%\nassert 1 + 1 == 3\n")
    with pytest.raises(Exception, match="AssertionError"):
        render.execute(source, tmp_path, {})
