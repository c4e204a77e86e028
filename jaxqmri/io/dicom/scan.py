"""What lies in a folder of DICOM files, from the headers alone: stacks of like images, and what was passed over."""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ...errors import CorruptInputError, InputWarning, NoInputError, UsageError
from ...quantities import ECHO_TIME, Axis
from ..axis import given_values
from ..storage.archive import starts_as_zip
from . import header
from .enhanced import frame_headers, is_enhanced
from .header import Frame
from .stack import Stack, find_stacks

EMPTY = "empty file"
NOT_DICOM = "not DICOM"
FALSE_DICOM = "not DICOM in spite of its name"
UNREADABLE = "not readable"
ARCHIVE = "zip archive"
_WORTH_A_WARNING = (
    EMPTY,
    FALSE_DICOM,
    UNREADABLE,
    header.MOSAIC,
    header.MULTIFRAME,
    header.LOCALIZER,
    header.DERIVED_MAP,
    header.UNPLACED,
)
_DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}
_STAY_ON_DISK = 1024  # bytes; larger values (pixels, vendors' protocols) are read when asked for
_MR_STORAGE = "1.2.840.10008.5.1.4.1.1."

PathLike = str | Path


OTHER_SERIES = "images of other series"


@dataclass(frozen=True, eq=False)
class DicomScan:
    """What was found.

    Attributes:
        source: what was scanned, as the caller wrote it.
        stacks: candidates, by series number.
        skipped: reason -> names of the images, and of the files that hold none, passed over for it.
        axis: what is to vary: echo time, inversion time or flip angle.
        given: (n,) values of it that the caller gave [s] or [rad], or None.
    """

    source: str
    stacks: tuple[Stack, ...]
    skipped: Mapping[str, tuple[str, ...]]
    axis: Axis = ECHO_TIME
    given: np.ndarray | None = None

    def along(self, axis: Axis) -> "DicomScan":
        """The same files where something else is to vary."""
        if axis is self.axis:
            return self
        frames = [header.along(frame, axis) for stack in self.stacks for frame in stack.frames]
        return replace(self, stacks=find_stacks(frames, None, axis), axis=axis, given=None)

    def of_series(self, series: int | str | Sequence[int | str]) -> "DicomScan":
        """The same folder as if only some series were in it; all of them if none is named.

        Args:
            series: Series Number (0020,0011), or Series Instance UID (0020,000E) or how it begins; one or several.

        Raises:
            UsageError: there is no such series.
        """
        wanted = [str(name).strip() for name in ([series] if isinstance(series, int | str) else series)]
        if not wanted:
            return self
        frames = [frame for stack in self.stacks for frame in stack.frames]
        for name in wanted:
            if not any(_is_of(frame, name) for frame in frames):
                there = "; ".join(f"{stack}, UID {min(stack.series_uids)}" for stack in self.stacks)
                raise UsageError(
                    f"{self.source}: no series {name} (--series), which is a series number or how its UID begins; "
                    f"there are: {there or 'none'}."
                )
        chosen = [frame for frame in frames if any(_is_of(frame, name) for name in wanted)]
        others = sorted(frame.name for frame in frames if not any(_is_of(frame, name) for name in wanted))
        skipped = {**self.skipped, OTHER_SERIES: tuple(others)} if others else self.skipped
        stacks = find_stacks([header.along(frame, self.axis) for frame in chosen], self.given, self.axis)
        return replace(self, stacks=stacks, skipped=skipped)


def _is_of(frame: Frame, name: str) -> bool:
    """Whether a series is called so; a number never is the beginning of a UID."""
    return frame.series_uid.startswith(name) if "." in name else name == str(frame.series_number)


def scan_dicom(
    path: PathLike | Iterable[PathLike],
    given: Sequence[float] | np.ndarray | None = None,
    axis: Axis = ECHO_TIME,
) -> DicomScan:
    """Groups the DICOM files of a folder into stacks, without reading pixels.

    Args:
        path: a folder (searched recursively, links followed once), a file, or several of either.
        given: (n,) values of the axis that replace those in the files [s] or [rad]; they go to the images of a slice in
            order of Echo Number(s) (0018,0086) if they are echo times or, where that does not tell them apart, of
            Instance Number (0020,0013); to series of one value each in order of Series Number (0020,0011).
        axis: what is to vary: echo time, inversion time or flip angle.

    Returns:
        Stacks, what was passed over, and the values in use.

    Raises:
        NoInputError: a path does not exist, or no DICOM file is there.
        CorruptInputError: a file announces itself as DICOM and cannot be parsed, or ends before its pixels.
        MetadataError: `given` cannot be such values.
        UsageError: `given` names a value twice, or the images of a slice cannot be put in order for it.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]
    source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} given paths"
    given = given_values(axis, given)
    frames, skipped = _read_frames(_find_files(paths), axis)
    if not frames and set(skipped) <= {EMPTY, NOT_DICOM, FALSE_DICOM, UNREADABLE, ARCHIVE}:
        raise NoInputError(f"no DICOM or NIfTI images found in {source}{_what_else(skipped)}")
    _warn_of(skipped)
    return DicomScan(source, find_stacks(frames, given, axis), skipped, axis, given)


def _what_else(skipped: Mapping[str, Sequence[str]]) -> str:
    n = len(skipped.get(ARCHIVE, ()))
    if n == 0:
        return f"{in_brackets(skipped)}; check the path."
    others = in_brackets({reason: names for reason, names in skipped.items() if reason != ARCHIVE})
    return (
        f"{others}; it holds {n} zip archive{'s' * (n > 1)}, which are opened only where they are named: name one as "
        "INPUT (take it out first if it lies in another archive)."
    )


def in_brackets(skipped: Mapping[str, Sequence[str]]) -> str:
    """' (passed over: 3 not DICOM, 1 empty file)', or nothing."""
    counts = ", ".join(f"{len(names)} {reason}" for reason, names in sorted(skipped.items()))
    return f" (passed over: {counts})" if counts else ""


def _find_files(paths: Iterable[Path]) -> list[Path]:
    """Every file at or below the paths, once, even through links that form a loop."""
    found: dict[Path, Path] = {}
    visited: set[Path] = set()
    waiting = list(paths)
    for path in waiting:
        if not path.exists():
            raise NoInputError(f"{path}: no such file or folder; check the path.")
    while waiting:
        path = waiting.pop()
        try:
            real = path.resolve()
            if path.is_dir():
                if real not in visited:
                    visited.add(real)
                    waiting.extend(path.iterdir())
            elif path.is_file() or path.is_symlink():  # a link to nowhere counts as unreadable
                found.setdefault(real, path)
        except (OSError, RuntimeError):  # a link to itself (RuntimeError before Python 3.13), a closed folder
            found.setdefault(path.absolute(), path)
    return sorted(found.values())


def _read_frames(paths: Iterable[Path], axis: Axis) -> tuple[list[Frame], dict[str, tuple[str, ...]]]:
    frames: list[Frame] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parsed = _parse(path)
        found = {path.name: parsed} if isinstance(parsed, str) else _examine(path, parsed, axis)
        for name, image in found.items():
            if isinstance(image, str):
                skipped[image].append(name)
            else:
                frames.append(image)
    return frames, {reason: tuple(sorted(names)) for reason, names in skipped.items()}


def _examine(path: Path, dataset: Dataset, axis: Axis) -> dict[str, Frame | str]:
    """The images a file holds, by name; in place of each that is passed over the reason."""
    try:
        if not header.sop_class_uid(dataset).is_valid:
            raise ValueError("no valid SOPClassUID (0008,0016)")
        if not is_enhanced(dataset):
            return {path.name: _examine_image(dataset, path.name, axis)}
        headers = list(frame_headers(dataset))
        _check_frames(path.name, header.as_int(dataset.get("NumberOfFrames")) or 1, len(headers))
        names = [f"{path.name} frame {i + 1}" for i in range(len(headers))]
        return {name: _examine_image(headers[i], name, axis, dataset, i) for i, name in enumerate(names)}
    except CorruptInputError:
        raise
    except Exception as error:  # a damaged value is found when it is converted, in as many ways as there are types
        raise _damaged(path, error) from error


def _examine_image(image: Dataset, name: str, axis: Axis, file: Dataset | None = None, index: int = 0) -> Frame | str:
    reason = header.reason_to_skip(image)
    return reason or header.read_frame(image, name, axis, file, index) or header.UNPLACED


def _check_frames(name: str, n_frames: int, n_headers: int) -> None:
    if n_frames != n_headers:
        raise CorruptInputError(
            f"{name}: NumberOfFrames (0028,0008) is {n_frames}, but PerFrameFunctionalGroupsSequence (5200,9230) "
            f"describes {n_headers}, so nobody can tell which is which; export it again."
        )


def _parse(path: Path) -> Dataset | str:
    """The parsed file with its pixels left on disk, or the reason why it is none."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return UNREADABLE
    if not start:
        return NOT_DICOM if path.name.startswith(".") else EMPTY
    if starts_as_zip(start):
        return ARCHIVE
    not_dicom = FALSE_DICOM if path.suffix.lower() in _DICOM_SUFFIXES else NOT_DICOM
    has_preamble = start[128:] == b"DICM"
    # Without the preamble a data set starts with a low group number; pydicom's force reads any text as DICOM.
    if not has_preamble and start[:2] not in (b"\x02\x00", b"\x08\x00"):
        return not_dicom
    try:
        dataset = pydicom.dcmread(path, defer_size=_STAY_ON_DISK, force=not has_preamble)
        return dataset if has_preamble or _plausible(dataset) else not_dicom
    except Exception as error:  # the parser can stumble over arbitrary bytes in any way
        if not has_preamble:
            return not_dicom
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CorruptInputError:
    reason = " ".join(str(error).split())[:120]
    return CorruptInputError(
        f"{path.name}: its DICOM header cannot be read ({reason}); the file is damaged. Copy it again or take it out."
    )


def _plausible(dataset: Dataset) -> bool:
    """Whether a file without preamble is DICOM after all; fills in the transfer syntax it was read with."""
    if not str(dataset.get("SOPClassUID", "")).startswith(_MR_STORAGE):
        return False
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        return True
    return UID(syntax).is_transfer_syntax


def _warn_of(skipped: Mapping[str, Sequence[str]]) -> None:
    counts = ", ".join(f"{len(skipped[reason])} {reason}" for reason in _WORTH_A_WARNING if reason in skipped)
    if counts:
        warnings.warn(f"passed over: {counts}; `jaxqmri inspect -v` names them.", InputWarning, stacklevel=3)
