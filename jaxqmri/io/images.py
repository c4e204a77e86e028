"""DICOM or NIfTI: reads whichever of the two is there; and maps that go with the images."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptInputError, LeaveOut, MetadataError, NoInputError, Setting, UsageError, remarks_kept
from ..quantities import ECHO_TIME, QUANTITIES, Axis
from .axis import axis_named, given_values
from .candidates import Scan
from .choose import choose, choose_axis
from .dicom.reader import scan_dicom
from .formats import check_paths, files_below, input_errors, is_dicom, is_nifti, name_of
from .load import narrowed, read_candidate
from .negative import Negative
from .nifti.file import read_on_grid
from .nifti.reader import scan_nifti
from .nifti.sidecar import check_transmit_field, read_sidecar
from .repeats import is_repeated, of_time_point
from .series import ImageSeries
from .storage.archive import unpacked
from .storage.plain_files import is_plain_file


def read_images(
    paths: Sequence[Path],
    axes: Sequence[str] = ("te",),
    given: Sequence[float] | None = None,
    component: str | None = None,
    series: Sequence[str] = (),
    negative: Negative = "keep",
    time_point: int | None = None,
) -> ImageSeries:
    """Reads the one series among these files in which one of `axes` varies; see `read_dicom` and `read_nifti`.

    `given` (n,) values [s] or [rad] replace those in the files; `axes` has one entry then.
    """
    narrow = {"series": series, "component": component, "time_point": time_point}
    with remarks_kept() as remarks, scan_images(paths, axis_named(axes[0]), given, **narrow) as scan:
        scan, chosen = (scan, choose(scan, component)) if len(axes) == 1 else choose_axis(scan, axes, component)
        if negative == "abs" and chosen.component != "magnitude":
            raise UsageError(
                Setting("negative"), f" is about magnitudes, but the images to be fitted are {chosen.component}, whose "
                "sign is part of the signal; ", LeaveOut("negative"), ", or give magnitude images.",
            )  # fmt: skip
        return replace(read_candidate(scan, chosen, negative), remarks=tuple(remarks))


@contextmanager
def scan_images(
    paths: Sequence[Path], axis: Axis = ECHO_TIME, given: Sequence[float] | None = None, **narrow: Any
) -> Iterator[Scan]:
    """Lists what is there without reading images, for the block: the files of an archive are gone afterwards.

    `given` values replace those in the files; see `narrowed` for what can be left out.
    """
    values = given_values(axis, given)
    with unpacked(paths) as folders:
        if _are_nifti(folders):
            scan = scan_nifti(folders, axis)
        else:
            try:
                scan = replace(scan_dicom(folders, axis), source=name_of(paths))
            except NoInputError as error:
                if all(map(_is_own_map, filter(is_nifti, files_below(folders)))):
                    raise error from None
                raise NoInputError(
                    f"{name_of(folders)}: no DICOM images, and its NIfTI files lie in subfolders, which are not "
                    "searched; name the folder that holds them (unpack an archive first), or map a BIDS data set with "
                    "`jaxqmri bids`."
                ) from None
        yield replace(narrowed(scan, **narrow), given=values)


@contextmanager
def scan_tree(
    paths: Sequence[Path],
    axis: Axis = ECHO_TIME,
    given: Sequence[float] | None = None,
    *,
    series: Sequence[str] = (),
    time_point: int | None = None,
) -> Iterator[list[tuple[str, Scan]]]:
    """All that lies below the paths, for the block: the DICOM files, and the NIfTI files of each folder.

    Each scan with what a job reads it from: "INPUT", the paths themselves; "INPUT/sub", a folder in them; or "FOLDER",
    one into which its files must be put, as they lie beside files of the other format.
    """
    with unpacked(paths) as folders:
        files = [] if any(not path.exists() for path in folders) else list(files_below(folders))
        nifti = dict.fromkeys(file.parent for file in files if _is_image(file))
        dicom = [file.parent for file in files if is_dicom(file)] if nifti else []
        if not nifti or (not dicom and set(nifti) <= {p if p.is_dir() else p.parent for p in folders}):
            with scan_images(paths, axis, given, series=series, time_point=time_point) as scan:
                yield [("INPUT", scan)]
            return
        mixed = set(nifti) & set(dicom)
        places = [(folder, scan_nifti([folder], axis)) for folder in sorted(nifti)]
        if dicom:
            top = Path(os.path.commonpath(dicom))
            places.append((top, scan_dicom([top], axis)))
            mixed |= {top} & set(nifti)
        if series:
            named = [(place, scan) for place, scan in places if scan.has_series(series)]
            places = [(place, scan.of_series(series)) for place, scan in named or places]
        if time_point is not None:
            repeated = [(place, scan) for place, scan in places if is_repeated(scan)]
            places = [(place, of_time_point(scan, time_point)) for place, scan in repeated or places]
        names = ["FOLDER" if place in mixed else _as_input(place, folders) for place, _ in places]
        values = given_values(axis, given)
        yield [
            (name, replace(_without_others(scan), given=values)) for name, (_, scan) in zip(names, places, strict=True)
        ]


def _is_image(file: Path) -> bool:
    return is_nifti(file) and not file.name.startswith(".") and not _is_own_map(file)


def _without_others(scan: Scan) -> Scan:
    """The same without what other scans of a tree hold among the files passed over."""
    nifti = (".nii", ".nii.gz", ".json")
    passed_over = {why: tuple(n for n in names if not n.endswith(nifti)) for why, names in scan.skipped.items()}
    of_others = ("not NIfTI", "subfolder (not searched)")
    return replace(scan, skipped={w: names for w, names in passed_over.items() if names and w not in of_others})


def _as_input(place: Path, folders: Sequence[Path]) -> str:
    """A folder as it is typed in place of INPUT."""
    if len(folders) > 1 or not place.is_relative_to(folders[0]):
        return str(place)
    return Path("INPUT", place.relative_to(folders[0])).as_posix()


_UNITS_OF_MAPS = {"b0_hz": "Hz", "gradient_hz_per_mm": "Hz/mm"}


def read_map(path: Path, setting: str, series: ImageSeries) -> np.ndarray:
    """Reads the map of a setting, such as b1, on the grid of the images, (x, y, z) as stored."""
    if setting == "b1":
        check_transmit_field(path)
    name = QUANTITIES[setting].term if setting in QUANTITIES else f"map of {setting}"
    unit = _UNITS_OF_MAPS.get(setting)
    if unit is not None and (stated := read_sidecar(path).get("Units", unit)) != unit:
        raise MetadataError(f"{path.name}: its Units are {stated}, wanted {unit}; convert the values and its sidecar.")
    return read_on_grid(path, name, series.affine, series.data.shape[:3], "resample it onto")


def _are_nifti(paths: Sequence[Path]) -> bool:
    check_paths(paths)
    files = [file for path in paths for file in _files_at(path)]
    nifti_files = list(filter(is_nifti, files))
    if not nifti_files:
        return False
    where = name_of(paths)
    n_dicom = sum(is_dicom(file) for file in files if not is_nifti(file))
    if all(map(_is_own_map, nifti_files)):
        if n_dicom or any(entry.is_dir() for path in paths if path.is_dir() for entry in path.iterdir()):
            return False
        raise NoInputError(f"{where}: its NIfTI files are maps made by jaxqmri; give the images they were made of.")
    if n_dicom:
        raise CorruptInputError(
            f"{where}: {n_dicom} DICOM and {len(nifti_files)} NIfTI files side by side, perhaps the same images twice; "
            "give the files of one format."
        )
    return True


def _files_at(path: Path) -> Iterator[Path]:
    """The file itself, or the files of the folder without its subfolders."""
    with input_errors(path):
        if path.is_dir():
            entries = (entry for entry in path.iterdir() if not entry.name.startswith("."))
            yield from (e for e in entries if is_plain_file(e) or (e.is_symlink() and not e.exists()))
        else:
            yield path


def _is_own_map(file: Path) -> bool:
    """Whether a NIfTI file is a result of this program: maps must not decide what the input is."""
    with suppress(MetadataError):
        makers = read_sidecar(file).get("GeneratedBy")
        return isinstance(makers, list) and any(isinstance(m, dict) and m.get("Name") == "jaxqmri" for m in makers)
    return False
