"""Parameter maps as NIfTI images with JSON sidecars in the words of BIDS (quantitative MRI derivatives, BIDS 1.11)."""

import gzip
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image

from ..errors import OutputError, Remark, SwitchOn, UsageError
from ..quantities import map_kind
from .affines import same_grid
from .formats import as_path, check_series
from .series import ImageSeries
from .storage.atomic import check_writable, output_errors, strict_json, write_files


class Maps(dict[str, np.ndarray]):
    """Maps (x, y, z) by name, with how they were estimated.

    Attributes:
        metadata: what goes into every sidecar beside the facts about the map: BIDS keys such as
            `EstimationAlgorithm`, and anything JSON can hold. `Levels`, code -> meaning, goes to maps of codes alone.
        remarks: what was mended or assumed when they were made.
    """

    def __init__(self, maps: Mapping[str, np.ndarray] | None = None, metadata: Mapping[str, Any] | None = None):
        super().__init__(maps or {})
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.remarks: tuple[Remark, ...] = ()


def check_output_folder(folder: str | Path, *, inputs: Iterable[str | Path] = (), overwrite: bool = False) -> None:
    """Makes sure, before computing, that `folder` can be written; it may lie in or around an input, but be none."""
    folder = Path(folder)
    with output_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file, so no maps can be written into it; name a folder.")
        sources = [path if path.is_dir() else path.parent for path in map(Path, inputs)]
        if folder.resolve() in [source.resolve() for source in sources]:
            raise OutputError(f"{folder}: is the input folder, where maps would be taken for images; name another.")
        there = [] if overwrite or not folder.exists() else folder.iterdir()
        n_files = sum(not entry.name.startswith(".") for entry in there)
        if n_files:
            full = f"{folder}: already has {n_files} file{'s' * (n_files > 1)}; "
            raise OutputError(full, "choose another folder, or replace them with ", SwitchOn("overwrite"), ".")
        check_writable(folder)


def write_maps(
    folder: str | Path, maps: Mapping[str, np.ndarray], series: ImageSeries, *, overwrite: bool = False
) -> list[Path]:
    """Writes each map as `<name>.nii.gz` with a `<name>.json`.

    Values are float32 (codes uint8) in the units of `MAP_KINDS`, NaN where there is no answer. The affine of the
    series is in sform and qform; a sheared one, which no qform can hold, in the sform alone. Equal maps give equal
    bytes. Either all files are written or, where the disk is full, none is changed.

    Args:
        folder: created where there is none.
        maps: (x, y, z) arrays by name; a `Maps` tells the sidecars how they were estimated.
        series: the images they were made of: grid, what varied, acquisition.
        overwrite: whether existing files of these names may be replaced.

    Returns:
        The NIfTI files, in the order of `maps`.

    Raises:
        UsageError: arguments of other types, or in another order.
        ValueError: an unknown name, a shape that is not the series', a code that is none from 0 to 255.
        OutputError: they cannot be written, or exist already.
    """
    folder = as_path(folder, "folder")
    if not isinstance(maps, Mapping):
        raise UsageError(f"maps must be arrays by name, {{'T2map': t2}} say, got {type(maps).__name__}.")
    check_series(series, "series")
    metadata = dict(getattr(maps, "metadata", {}))
    files: dict[Path, bytes] = {}
    for name, values in maps.items():
        image = _nifti(name, np.asarray(values), series)
        # The sidecar first: an image that is there has its units beside it.
        files[folder / f"{name}.json"] = strict_json(_sidecar(name, series, metadata)).encode()
        # GzipFile rather than gzip.compress: its header is the same on every system and Python.
        buffer = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=6) as file:
            file.write(image.to_bytes())
        files[folder / f"{name}.nii.gz"] = buffer.getvalue()
    with output_errors(folder):
        present = [path.name for path in files if path.exists()]
    if present and not overwrite:
        there = f"{folder}: {', '.join(present)} already there; choose another folder, or replace them with "
        raise OutputError(there, SwitchOn("overwrite"), ".")
    check_writable(folder)
    write_files(files)
    return [path for path in files if path.suffix == ".gz"]


def _nifti(name: str, values: np.ndarray, series: ImageSeries) -> Nifti1Image:
    kind = map_kind(name)
    shape = series.data.shape[:3]
    if values.shape != shape:
        raise ValueError(f"map {name} has shape {values.shape}, but the series has voxels {shape}.")
    if not abs(np.linalg.det(series.affine[:3, :3])) > 0:  # also where it is NaN
        raise ValueError(f"affine of the series has no inverse, so maps have no place: {series.affine.tolist()}.")
    stored = values.astype(np.uint8 if kind.is_code else np.float32)
    if kind.is_code and not np.array_equal(stored, values):
        raise ValueError(f"map {name} must hold whole numbers from 0 to 255.")
    image = Nifti1Image(stored, None)
    image.set_qform(series.affine, code=1)
    if not same_grid(series.affine, np.asarray(image.get_qform())):
        image.set_qform(series.affine, code=0)
    image.set_sform(series.affine, code=1)
    header: Any = image.header
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = f"jaxqmri {name} [{kind.units}]".encode()
    return image


def _sidecar(name: str, series: ImageSeries, metadata: Mapping[str, Any]) -> dict[str, Any]:
    kind = map_kind(name, metadata)
    axis = series.axis
    facts = {
        "Description": kind.description,
        "Units": kind.units,
        # 4.611 ms is 0.004611 s, not 0.0046110000000000005
        axis.keyword or axis.name: [float(f"{axis.bids_per_si * value:.12g}") for value in series.values],
    }
    estimated = {key: value for key, value in metadata.items() if key not in facts and key != "Levels"}
    levels = {"Levels": metadata["Levels"]} if kind.is_code and "Levels" in metadata else {}
    return {**facts, **levels, "SkullStripped": False, **series.acquisition, **estimated}
