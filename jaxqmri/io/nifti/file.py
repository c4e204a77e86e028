"""One NIfTI file: what its header and sidecar say, and its voxels."""

import gzip
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError

from ...errors import CorruptInputError, NoInputError
from ..formats import NOT_FETCHED, is_not_fetched
from .sidecar import read_sidecar

INFLATION = 1032  # no byte of deflated data holds more
HEADER_SIZE = 540  # bytes of NIfTI-2; NIfTI-1 has 348
CHUNK = 2**20  # bytes
MOST_BEHIND = 2**24  # bytes; a few kB may inflate to more than the memory holds
NIFTI2_SIZES = (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # sizeof_hdr = 540 in either byte order
UNREADABLE = (
    OSError, EOFError, ValueError, zlib.error, HeaderDataError, HeaderTypeError, ImageFileError, WrapStructError
)  # fmt: skip
SAME_GRID = 1e-3  # of a voxel edge; the float32 quaternion of a qform leaves 1e-4


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """Header and sidecar of one file, no voxels."""

    path: Path
    shape: tuple[int, ...]  # (x, y, z) or (x, y, z, volume)
    affine: np.ndarray  # (4, 4) float64, voxel index -> RAS+ [mm]
    dtype: np.dtype  # of the stored values
    offset: int  # bytes before them
    slope: float  # signal per stored value
    intercept: float  # signal where the stored value is 0
    sidecar: Mapping[str, Any]  # may hold identity, so it is not for passing on
    remark: str  # what is odd about its geometry, or ""

    @property
    def n_volumes(self) -> int:
        return self.shape[3] if len(self.shape) == 4 else 1

    def same_as(self, other: "NiftiFile") -> bool:
        """Whether the voxels lie in one place."""
        return same_grid(self.affine, other.affine)

    @property
    def n_bytes(self) -> int:
        """Length of the content that the header promises."""
        return self.offset + prod(self.shape) * self.dtype.itemsize


def read_image(path: Path) -> NiftiFile:
    """Reads the header and the sidecar of a NIfTI-1 or NIfTI-2 file, compressed or not by content, not by name."""
    if is_not_fetched(path):
        raise NoInputError(f"{path.name}: {NOT_FETCHED}")
    with _unreadable(path):
        with _opened(path) as file:
            header: Any = _header(file.read(HEADER_SIZE))
        shape = tuple(map(int, header.get_data_shape()))
        dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
        slope, intercept = header.get_slope_inter()  # None where the slope is 0 or NaN, which means "not scaled"
        affine = np.array(header.get_best_affine(), dtype=np.float64)
        remark = _remark(header, affine)
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "colour"
        raise CorruptInputError(f"{path.name}: holds {kind} values; take the magnitude and save it as a NIfTI file.")
    if not np.all(np.isfinite(affine)) or np.linalg.det(affine[:3, :3]) == 0:
        raise CorruptInputError(
            f"{path.name}: its affine cannot be inverted (zero or not a number), so its voxels have no place; convert "
            "the images again."
        )
    return NiftiFile(
        path=path,
        shape=_image_shape(shape, path),
        affine=affine,
        dtype=dtype,
        offset=offset,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        sidecar=read_sidecar(path),
        remark=remark,
    )


def read_on_grid(path: str | Path, what: str, affine: np.ndarray, shape: tuple[int, ...], mend: str) -> np.ndarray:
    """Reads a 3-D file that lies on the grid of the images, (x, y, z) as stored.

    `what` it is and what to do where the shapes differ, `mend`, are for messages.
    """
    path = Path(path)
    if not path.is_file():
        raise NoInputError(f"{path}: no such {what} file.")
    file = read_image(path)
    if file.shape != shape:
        raise CorruptInputError(
            f"{path.name}: the {what} has shape {file.shape}, the images {shape}; {mend} the images."
        )
    if not same_grid(affine, file.affine):
        raise CorruptInputError(
            f"{path.name}: the {what} has the shape of the images but lies elsewhere (its affine differs by more than "
            f"{SAME_GRID:g} of a voxel); resample it onto the images."
        )
    check_length(file)
    ((values, _),) = read_volumes(file)  # to its end, where the checksum is
    return values


def read_volumes(image: NiftiFile) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Of each volume (x, y, z) float32, rescaled, in the machine's byte order, and bool: at the top of its range.

    A wrong checksum is known only behind the last volume.
    """
    dtype, shape = image.dtype, image.shape[:3]
    n_bytes = prod(shape) * dtype.itemsize
    is_scaled = (image.slope, image.intercept) != (1.0, 0.0)
    # Floats saved as scaled integers use the whole range by construction: at its top nothing need be saturated.
    top = np.iinfo(dtype).max if dtype.kind in "iu" and not is_scaled else np.inf
    with _unreadable(image.path), _opened(image.path) as file:
        _read_exactly(file, image.offset, 0, image)
        for k in range(image.n_volumes):
            content = _read_exactly(file, n_bytes, image.offset + k * n_bytes, image)
            stored = np.frombuffer(content, dtype).reshape(shape, order="F")
            values = stored * np.float64(image.slope) + image.intercept if is_scaled else stored
            yield values.astype(np.float32), stored == top
        n_behind = 0
        while isinstance(file, gzip.GzipFile) and (more := file.read(CHUNK)):  # up to the checksum at the end
            n_behind += len(more)
            if n_behind > MOST_BEHIND:
                raise ValueError(f"more than {MOST_BEHIND} bytes behind the voxels that its header declares")


def check_length(image: NiftiFile) -> None:
    """Raises CorruptInputError where a file cannot hold what its header promises, before room is made for that."""
    with _unreadable(image.path), _opened(image.path) as file:
        there, compressed = image.path.stat().st_size, isinstance(file, gzip.GzipFile)
        if image.n_bytes > there * (INFLATION if compressed else 1):
            there = sum(map(len, iter(lambda: file.read(CHUNK), b""))) if compressed else there
            raise EOFError(f"truncated: {there} of {image.n_bytes} bytes")


def same_grid(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two (4, 4) affines [mm] agree to a thousandth of a voxel edge, element by element."""
    edge = np.linalg.norm(a[:3, :3], axis=0).min()
    return bool(np.allclose(a, b, rtol=0, atol=SAME_GRID * edge))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file, compressed or not."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if compressed else file


def _read_exactly(file: IO[bytes], n_bytes: int, n_before: int, image: NiftiFile) -> bytes:
    content = file.read(n_bytes)
    if len(content) < n_bytes:
        raise EOFError(f"truncated: {n_before + len(content)} of {image.n_bytes} bytes")
    return content


def _header(head: bytes) -> Nifti1Header:
    if len(head) < 348:
        raise EOFError("truncated within its header" if head else "empty file")
    before, logger.disabled = logger.disabled, True  # nibabel would print on stderr what our errors say
    try:
        return Nifti2Header(head) if head[:4] in NIFTI2_SIZES else Nifti1Header(head[:348])
    finally:
        logger.disabled = before


def _remark(header: Nifti1Header, affine: np.ndarray) -> str:
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        return "neither sform nor qform is set, so the orientation is a guess"
    if sform and qform and not same_grid(affine, np.asarray(header.get_qform())):
        return "sform and qform disagree; the sform is used"
    return ""


def _image_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise CorruptInputError(f"{path.name}: shape {shape} is neither (x, y, z) nor (x, y, z, echo); save it as one.")
    return shape if len(shape) > 2 else (*shape, 1)


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """What goes wrong on reading as a CorruptInputError."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise CorruptInputError(
            f"{path.name}: not a readable NIfTI image ({reason}); copy or convert it again."
        ) from error
