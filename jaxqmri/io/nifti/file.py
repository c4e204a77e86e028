"""One NIfTI file: what its header and sidecar say, and its voxels."""

import gzip
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
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

from ...errors import CorruptInputError, MetadataError, NoInputError
from ...quantities import Axis
from ..affines import SAME_GRID, check_affine, same_grid, voxel_edges
from ..candidates import number
from ..formats import NOT_FETCHED, is_not_fetched
from ..storage.plain_files import Stamp, opened, stamp_of, unchanged
from ..wrapped import wrapped
from .sidecar import read_sidecar, sidecar_values

INFLATION = 1032  # no byte of deflated data holds more
HEAD_SIZE = 552  # bytes up to the first extension and its size in NIfTI-2, where NIfTI-1 has 360
CHUNK = 2**20  # bytes
MOST_BEFORE = 2**26  # bytes, of header and extensions
MOST_BEHIND = 2**24  # bytes; a few kB may inflate to more than the memory holds
MOST_VOLUMES = 2**15  # no NIfTI-1 file holds more
MM_PER_UNIT = {1: 1e3, 3: 1e-3}  # of the codes of xyzt_units for metres and micrometres; others are millimetres
FLOAT128 = 1536  # code of datatype; processors differ in what such a number is
LAST_EXTENSION = 128  # codes of extensions are even; 44 was the last one given out in 2026
USUAL_EDGES = (5e-3, 50.0)  # mm, of voxels of MR images
NIFTI2_SIZES = (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # sizeof_hdr = 540 in either byte order
UNREADABLE = (
    OSError, EOFError, ValueError, OverflowError, zlib.error, HeaderDataError, HeaderTypeError, ImageFileError,
    WrapStructError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """Header and sidecar of one file, no voxels."""

    path: Path
    stamp: Stamp  # when the header was read
    shape: tuple[int, ...]  # (x, y, z) or (x, y, z, volume)
    affine: np.ndarray  # (4, 4) float64, voxel index -> RAS+ [mm]
    dtype: np.dtype  # of the stored values
    offset: int  # bytes before them
    slope: float  # signal per stored value
    intercept: float  # signal where the stored value is 0
    declares_slope: bool  # whether the header has a slope at all
    sidecar: Mapping[str, Any]  # may hold identity, so it is not for passing on
    remarks: tuple[str, ...]  # what is odd about its geometry
    _values: dict[str, tuple[float, ...] | MetadataError] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_volumes(self) -> int:
        return self.shape[3] if len(self.shape) == 4 else 1

    @property
    def origin(self) -> np.ndarray:
        """(3,) place of the first voxel [mm]."""
        return self.affine[:3, 3]

    @cached_property
    def keys_per_volume(self) -> frozenset[str]:
        """Keys of the sidecar under which each volume has a number of its own."""
        lists = {key: value for key, value in self.sidecar.items() if isinstance(value, list)}
        return frozenset(k for k, v in lists.items() if len(v) == self.n_volumes and None not in map(number, v))

    def values(self, axis: Axis) -> tuple[float, ...]:
        """What the sidecar says of an axis [s] or [rad]: one, one per volume, or (); else raises MetadataError."""
        if axis.name not in self._values:
            try:
                self._values[axis.name] = sidecar_values(self.sidecar, self.path, axis)
            except MetadataError as error:
                self._values[axis.name] = error
        found = self._values[axis.name]
        if isinstance(found, MetadataError):
            raise MetadataError(*found.parts)
        return found

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
        stamp = stamp_of(path)
        with _opened(path) as file:
            head = file.read(HEAD_SIZE)
            header: Any = _header(head)
            offset = int(header.get_data_offset())
            _check_offset(header, offset, head, file)
        shape = tuple(map(int, header.get_data_shape()))
        dtype = header.get_data_dtype()
        slope, intercept = header.get_slope_inter()  # None where the slope is 0 or NaN, which means "not scaled"
        affine = np.array(header.get_best_affine(), dtype=np.float64)
        remarks = _remarks(header, affine)
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "colour"
        raise CorruptInputError(f"{path.name}: holds {kind} values; take the magnitude and save it as a NIfTI file.")
    check_affine(affine, path.name)
    if in_mm := _in_mm(header, affine):
        affine[:3] *= in_mm[0]
        remarks = (*remarks, in_mm[1])
    return NiftiFile(
        path=path,
        stamp=stamp,
        shape=_image_shape(shape, path),
        affine=affine,
        dtype=dtype,
        offset=offset,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        declares_slope=slope is not None,
        sidecar=read_sidecar(path),
        remarks=remarks,
    )


def read_on_grid(path: str | Path, what: str, affine: np.ndarray, shape: tuple[int, ...], mend: str) -> np.ndarray:
    """Reads a 3-D file that lies on the grid of the images, (x, y, z) as stored.

    `what` it is and what to do where the shapes differ, `mend`, are for messages.
    """
    path = Path(path)
    if not path.exists():
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
    """Of each volume (x, y, z) float32, rescaled, in the machine's byte order; bool: at the top of its range or over.

    A wrong checksum is known only behind the last volume.
    """
    dtype, shape = image.dtype, image.shape[:3]
    n_bytes = prod(shape) * dtype.itemsize
    is_scaled = (image.slope, image.intercept) != (1.0, 0.0)
    # Floats saved as scaled integers use the whole range by construction: at its top nothing need be saturated.
    top = np.iinfo(dtype).max if dtype.kind in "iu" and not is_scaled else np.inf
    with unchanged(image.path, image.stamp), _unreadable(image.path), _opened(image.path) as file:
        file.seek(image.offset)
        for k in range(image.n_volumes):
            content = _read_exactly(file, n_bytes, image.offset + k * n_bytes, image)
            stored = np.frombuffer(content, dtype).reshape(shape, order="F")
            values = stored * np.float64(image.slope) + image.intercept if is_scaled else stored
            at_top = stored == top
            yield values.astype(np.float32), at_top if is_scaled else at_top | wrapped(stored)
        n_behind = 0
        while more := file.read(CHUNK):  # up to the checksum at the end of a compressed one
            n_behind += len(more)
            if any(more) or n_behind > MOST_BEHIND:  # zeros fill up blocks
                raise ValueError(
                    "longer than its header says, with bytes behind the voxels: dim, datatype or vox_offset is wrong"
                )


def check_length(image: NiftiFile) -> None:
    """Raises CorruptInputError where a file cannot hold what its header promises, before room is made for that."""
    with unchanged(image.path, image.stamp), _unreadable(image.path), _opened(image.path) as file:
        there, compressed = image.path.stat().st_size, isinstance(file, gzip.GzipFile)
        if image.n_bytes > there * (INFLATION if compressed else 1):
            there = sum(map(len, iter(lambda: file.read(CHUNK), b""))) if compressed else there
            raise EOFError(f"truncated: {there} of {image.n_bytes} bytes")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file, compressed or not."""
    with opened(path) as file:
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
        is_2 = head[:4] in NIFTI2_SIZES
        header = Nifti2Header(head[:540], check=False) if is_2 else Nifti1Header(head[:348], check=False)
        if int(header["datatype"]) == FLOAT128:
            raise ValueError("128-bit floating-point values, which differ between processors: save float32 or float64")
        if not np.isfinite(header["vox_offset"]):
            raise ValueError(f"vox_offset is {header['vox_offset']:g}")
        header.check_fix()
        return header
    finally:
        logger.disabled = before


def _check_offset(header: Any, offset: int, head: bytes, file: IO[bytes]) -> None:
    """Refuses voxels that begin far behind the header, or within an extension of it."""
    if offset > MOST_BEFORE:
        raise ValueError(f"vox_offset {offset} leaves more than {MOST_BEFORE} bytes before the voxels")
    end = int(header["sizeof_hdr"])
    if offset < end:
        raise ValueError(f"vox_offset {offset} lies within its header of {end} bytes")
    if not head[end : end + 1].strip(b"\0"):  # no extension
        return
    order = "little" if header.endianness == "<" else "big"
    before, start = head + file.read(max(offset + 8 - len(head), 0)), end + 4
    while start <= offset and start + 8 <= len(before):
        size, code = (int.from_bytes(before[k : k + 4], order) for k in (start, start + 4))
        if not 8 <= size < 2**31 or code % 2 or code > LAST_EXTENSION:  # filled up, or a flag without an extension
            return
        if start + size > offset:
            raise ValueError(f"an extension of {size} bytes reaches into the voxels at vox_offset {offset}")
        start += size
        if start == offset:
            return


def _remarks(header: Nifti1Header, affine: np.ndarray) -> tuple[str, ...]:
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        return ("neither sform nor qform is set, so the orientation is a guess",)
    if sform and qform and not same_grid(affine, np.asarray(header.get_qform())):
        return ("sform and qform disagree; the sform is used",)
    return ()


def _in_mm(header: Nifti1Header, affine: np.ndarray) -> tuple[float, str] | None:
    """Where the header is in metres or micrometres the factor to millimetres, and a remark; else None."""
    code, edges = int(header["xyzt_units"]) & 7, voxel_edges(affine)
    if code not in MM_PER_UNIT:
        return None
    unit, factor = {1: "metres", 3: "micrometres"}[code], MM_PER_UNIT[code]
    if USUAL_EDGES[0] <= factor * edges.min() and factor * edges.max() <= USUAL_EDGES[1]:
        return factor, f"lengths are in {unit} by xyzt_units; the maps have millimetres"
    size = " x ".join(f"{edge:g}" for edge in edges)
    return 1.0, f"xyzt_units says {unit}, which voxels of {size} cannot be; taken for millimetres"


def _image_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise CorruptInputError(f"{path.name}: shape {shape} is neither (x, y, z) nor (x, y, z, echo); save it as one.")
    if len(shape) == 4 and shape[3] > MOST_VOLUMES:
        raise CorruptInputError(
            f"{path.name}: {shape[3]} volumes by its header, more than any scan has; copy it again."
        )
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
