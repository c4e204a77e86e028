"""What lies in a folder of DICOM files, from the headers alone: candidates, and what was passed over."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ...errors import CorruptInputError, NoInputError, remark
from ..candidates import in_brackets
from ..formats import check_paths, name_of, other_formats, start_of
from ..storage.plain_files import NO_FILE, NotAFileError, is_made_up, stamp_of
from ..storage.unpacking import SUFFIXES, starts_as_zip
from . import header, packed
from .enhanced import frame_headers, is_enhanced
from .header import Frame

EMPTY = "empty file"
NOT_DICOM = "not DICOM"
FALSE_DICOM = "not DICOM in spite of its name"
UNREADABLE = "not readable"
ARCHIVE = "archive"
_REMARKED = (
    EMPTY, FALSE_DICOM, UNREADABLE, header.MOSAIC, header.MULTIFRAME, header.LOCALIZER, header.DERIVED_MAP,
    header.UNPLACED,
)  # fmt: skip
_DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}
_STAY_ON_DISK = 1024  # bytes; larger values (pixels, vendors' protocols) are read when asked for
_MR_STORAGE = "1.2.840.10008.5.1.4.1.1."


def find_frames(paths: Sequence[Path]) -> tuple[list[Frame], dict[str, tuple[str, ...]]]:
    """The MR images in files and folders (searched recursively, links followed once); names skipped, by reason."""
    frames: list[Frame] = []
    passed_over: dict[str, list[str]] = defaultdict(list)
    unplaced: dict[tuple, str] = {}
    for path in _find_files(paths):
        parsed = _parse(path)
        found = {path.name: parsed} if isinstance(parsed, str) else _examine(path, parsed)
        for name, image in found.items():
            if isinstance(image, str):
                passed_over[image].append(name)
                if image == header.UNPLACED:
                    unplaced[_kind(parsed)] = name
            else:
                frames.append(image)
    if lost := next((unplaced[kind] for frame in frames if (kind := _kind(frame.file)) in unplaced), None):
        raise CorruptInputError(
            f"{lost}: no usable {header.PLACE}, which other images of its series have; export it again or take it out."
        )
    skipped = {reason: tuple(sorted(names)) for reason, names in passed_over.items()}
    if not frames and set(skipped) <= {EMPTY, NOT_DICOM, FALSE_DICOM, UNREADABLE, ARCHIVE, NO_FILE}:
        raise NoInputError(f"no DICOM or NIfTI images found in {name_of(paths)}{_what_else(skipped)}")
    counts = ", ".join(f"{len(skipped[reason])} {reason}" for reason in _REMARKED if reason in skipped)
    if counts:
        remark(f"passed over: {counts}; `jaxqmri inspect -v` names them.")
    return frames, skipped


def _kind(file: Dataset | str) -> tuple:
    """What images of one scan have in common."""
    keywords = ("SeriesInstanceUID", "Rows", "Columns")
    return () if isinstance(file, str) else tuple(str(file.get(keyword)) for keyword in keywords)


def _what_else(skipped: Mapping[str, Sequence[str]]) -> str:
    n = len(skipped.get(ARCHIVE, ()))
    if other := other_formats(name for reason in (NOT_DICOM, FALSE_DICOM) for name in skipped.get(reason, ())):
        return f"{in_brackets(skipped)}; {other}."
    if n == 0:
        return f"{in_brackets(skipped)}; check the path."
    others = in_brackets({reason: names for reason, names in skipped.items() if reason != ARCHIVE})
    return (
        f"{others}; it holds {n} archive{'s' * (n > 1)}, which are opened only where they are named: name one as "
        "INPUT (take it out first if it lies in another archive)."
    )


def _find_files(paths: Sequence[Path]) -> list[Path]:
    """Every file at or below the paths, once, even through links that form a loop."""
    check_paths(paths)
    found: dict[Path, Path] = {}
    visited: set[Path] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        try:
            real = path.resolve()
            if path.is_dir():
                if real not in visited and not is_made_up(real):
                    visited.add(real)
                    waiting.extend(path.iterdir())
            else:  # also a link to nowhere, which counts as unreadable
                found.setdefault(real, path)
        except (OSError, RuntimeError):  # a link to itself (RuntimeError before Python 3.13), a closed folder
            found.setdefault(path.absolute(), path)
    return sorted(found.values())


def _examine(path: Path, dataset: Dataset) -> dict[str, Frame | str]:
    """The images a file holds, by name; in place of each that is passed over the reason."""
    try:
        if not header.sop_class_uid(dataset).is_valid:
            raise ValueError("no valid SOPClassUID (0008,0016)")
        if not is_enhanced(dataset):
            return {path.name: header.read_frame(dataset, path.name)}
        headers = list(frame_headers(dataset))
        n_frames = header.as_int(dataset.get("NumberOfFrames")) or 1
        if n_frames != len(headers):
            raise CorruptInputError(
                f"{path.name}: NumberOfFrames (0028,0008) is {n_frames}, but PerFrameFunctionalGroupsSequence "
                f"(5200,9230) describes {len(headers)}, so that no frame has a certain header; export it again."
            )
        names = [f"{path.name} frame {i + 1}" for i in range(len(headers))]
        return {name: header.read_frame(headers[i], name, dataset, i) for i, name in enumerate(names)}
    except CorruptInputError:
        raise
    except Exception as error:  # a damaged value is found when it is converted, in as many ways as there are types
        raise _damaged(path, error) from error


def _parse(path: Path) -> Dataset | str:
    """The parsed file with its pixels left on disk, or the reason why it is none."""
    try:
        stamp, start = stamp_of(path), start_of(path, packed.START)
    except NotAFileError:
        return NO_FILE
    except OSError:
        return UNREADABLE
    if not start:
        return NOT_DICOM if path.name.startswith(".") else EMPTY
    if starts_as_zip(start) or path.name.lower().endswith(SUFFIXES):
        return ARCHIVE
    names = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    not_dicom = FALSE_DICOM if names.suffix.lower() in _DICOM_SUFFIXES else NOT_DICOM
    has_preamble = start[128:132] == b"DICM"
    # Without the preamble a data set starts with a low group number; pydicom's force reads any text as DICOM.
    if not has_preamble and (start[:2] not in (b"\x02\x00", b"\x08\x00") or packed.DEFLATED in start):
        return not_dicom
    try:
        dataset = packed.read_packed(path, start, _STAY_ON_DISK) if has_preamble else None
        if dataset is None:
            dataset = pydicom.dcmread(path, defer_size=_STAY_ON_DISK, force=not has_preamble)
        dataset.stamp = stamp
        return dataset if has_preamble or _plausible(dataset) else not_dicom
    except CorruptInputError:
        raise
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
