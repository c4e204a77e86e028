"""Which files are DICOM, which NIfTI, and which only stand for content that is elsewhere."""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import NoInputError, UsageError
from .series import ImageSeries
from .storage.plain_files import is_plain_file, opened, why_no_file

GZIP = b"\x1f\x8b"  # how such a file begins
NIFTI_NAME = re.compile(r"\.nii(\.gz)?$", flags=re.IGNORECASE)
NOT_FETCHED = (
    "its content is not on this disk (a broken link, as git-annex leaves of files not fetched), so it cannot be read; "
    "fetch it with `datalad get` or `git annex get`."
)

_BY_NIBABEL = "in Python, nibabel.save(nibabel.load({name!r}), {nifti!r}) makes NIfTI of one"
_OTHERS = {  # pattern of names: what such a file is, and what makes NIfTI or DICOM of it
    r"(?i)\.img(\.gz)?$": ("a NIfTI or Analyze pair (.hdr, .img)", _BY_NIBABEL),
    r"(?i)\.(par|rec)$": ("Philips PAR/REC", "dcm2niix makes NIfTI of it, with sidecars"),
    r"(?i)\.mg[hz]$": ("FreeSurfer's", _BY_NIBABEL),
    r"(?i)\.mnc$": ("MINC", _BY_NIBABEL),
    r"(?i)\.(head|brik)(\.gz)?$": ("AFNI's", "3dAFNItoNIFTI makes NIfTI of it"),
    r"(?i)\.(nrrd|nhdr|mha|mhd)$": ("NRRD or MetaImage", "SimpleITK (ReadImage, WriteImage) makes NIfTI of it"),
    r"^(2dseq|fid|visu_pars|method)$": ("Bruker ParaVision", "export DICOM from ParaVision, or convert it with brkraw"),
    r"(?i)\.(dat|h5|mrd)$": ("perhaps raw data", "reconstruct the images, or export them as DICOM"),
}  # fmt: skip


def other_formats(names: Iterable[str]) -> str:
    """Which other format of images the first of these files has and what converts it, in words; or nothing."""
    for name in names:
        for pattern, (what, how) in _OTHERS.items():
            if found := re.search(pattern, name):
                return f"{name} is {what}; {how.format(name=name, nifti=f'{name[: found.start()]}.nii.gz')}"
    return ""


def as_paths(given: Any, name: str) -> list[Path]:
    """The paths that an argument names: one, or several; raises UsageError where it is an image in memory, say."""
    several = [given] if isinstance(given, str | PathLike) else given
    if isinstance(several, Iterable) and not isinstance(several, Mapping | ImageSeries) and not hasattr(given, "shape"):
        several = list(several)
        if all(isinstance(one, str | PathLike) for one in several):
            return [Path(one) for one in several]
    raise UsageError(f"{name} must be a path or a list of paths, got {_type_of(given)}{_of_images(given)}.")


def as_path(given: Any, name: str) -> Path:
    """The one path that an argument names; raises UsageError where it is anything else."""
    if isinstance(given, str | PathLike):
        return Path(given)
    raise UsageError(f"{name} must be a path, got {_type_of(given)}.")


def check_series(given: Any, name: str) -> None:
    """Refuses what is no `ImageSeries`; raises UsageError."""
    if not isinstance(given, ImageSeries):
        path = f", the path {str(given)!r}: read it first" if isinstance(given, str | PathLike) else _of_images(given)
        raise UsageError(
            f"{name} must be an ImageSeries, as read_dicom and read_nifti give, got {_type_of(given)}{path}."
        )


def _of_images(given: Any) -> str:
    return "; of images in memory ImageSeries.from_arrays makes a series" if hasattr(given, "shape") else ""


def _type_of(given: Any) -> str:
    return "None" if given is None else type(given).__name__


def is_nifti(file: Path) -> bool:
    return NIFTI_NAME.search(file.name) is not None


def is_dicom(file: Path) -> bool:
    """By name or, as exports of scanners have no endings, by content."""
    if file.suffix.lower() in (".dcm", ".ima"):
        return True
    with suppress(OSError):
        return start_of(file)[128:132] == b"DICM"
    return False


def start_of(path: Path, n_bytes: int = 132) -> bytes:
    """The first bytes of a file, unpacked where it is one of gzip."""
    with opened(path) as file:
        start = file.read(max(n_bytes, 1024))
    if not start.startswith(GZIP):
        return start[:n_bytes]
    with suppress(zlib.error):
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, n_bytes)
    return b""


def is_not_fetched(path: Path) -> bool:
    """Whether a file stands for content elsewhere: a link that leads nowhere, or a pointer file of git-annex."""
    if path.is_symlink():
        return not path.exists()
    with suppress(OSError), opened(path) as file:
        return file.read(15) == b"/annex/objects/"
    return False


def name_of(paths: Sequence[Path]) -> str:
    """What was given, for messages."""
    return str(paths[0]) if len(paths) == 1 else f"{len(paths)} given paths"


def files_below(paths: Sequence[Path]) -> Iterator[Path]:
    """The files given that are there, and those in folders given and in theirs."""
    for path in paths:
        with suppress(OSError):  # a name that no file can have
            if path.exists():
                yield from (file for file in chain([path], path.rglob("*")) if is_plain_file(file))


def check_paths(paths: Sequence[Path]) -> None:
    """Makes sure that every input is there; raises NoInputError."""
    for path in paths:
        with input_errors(path):
            if is_not_fetched(path):
                raise NoInputError(f"{path.name}: {NOT_FETCHED}")
            if not path.exists():
                raise NoInputError(f"{path}: no such file or folder; check the path.")
            if not path.is_dir() and (why := why_no_file(path)):
                raise NoInputError(f"{path}: {why}; name a file or a folder.")


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """What the system says against reading a path as a NoInputError."""
    try:
        yield
    except OSError as error:
        raise NoInputError(f"{path}: cannot be read ({error.strerror}); check its name and permissions.") from error
