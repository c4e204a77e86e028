"""Where a stack of parallel slices lies: order along the normal, regularity, affine.

Storage follows dcm2niix: x along a row, y along a column from the bottom row up, z along row x column direction.
"""

from dataclasses import dataclass

import numpy as np

from ...errors import CorruptInputError, remark

SAME_SLICE = 0.01  # mm along the normal; scanners write positions to 1e-3 mm or better
IRREGULAR = 0.01  # of the slice distance, along or across it: beyond it one affine cannot say where the voxels are
UNEVEN = 0.001  # of the slice distance: worth a warning


@dataclass(frozen=True, eq=False)
class Slices:
    """Parallel slices."""

    positions: np.ndarray  # (slice, 3) Image Position (Patient), ascending along the normal, LPS+ [mm]
    orientation: np.ndarray  # (6,) Image Orientation (Patient), unit vectors
    pixel_spacing: tuple[float, float]  # distance between rows, between columns [mm]

    @property
    def origin(self) -> np.ndarray:
        """(3,) place of the first voxel of the first slice [mm]."""
        return self.positions[0]

    @property
    def tolerance(self) -> float:
        """How far apart images of one slice may lie [mm]: too little to be seen in a map."""
        return max(SAME_SLICE, IRREGULAR * min(self.pixel_spacing)) * (1 + 1e-6)

    def same_as(self, other: "Slices") -> bool:
        """Whether they lie in one place."""
        return (
            self.positions.shape == other.positions.shape
            and np.allclose(self.pixel_spacing, other.pixel_spacing, rtol=1e-4)
            and np.allclose(self.orientation, other.orientation, rtol=0, atol=1e-3)
            and bool(np.all(np.linalg.norm(self.positions - other.positions, axis=1) <= self.tolerance))
        )


def slice_index(positions: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """(image,) number of the slice each position (image, 3) belongs to, counted along the slice normal from 0."""
    along = positions @ _normal(orientation)
    order = np.argsort(along)
    index = np.empty(len(along), int)
    index[order] = np.cumsum(np.diff(along[order], prepend=along[order[0]]) > SAME_SLICE)
    return index


def slice_distance(positions: np.ndarray, orientation: np.ndarray, single: float) -> float:
    """Mean distance between neighbouring slices [mm]; `single` where there is only one."""
    along = positions @ _normal(orientation)
    n_slices = int(slice_index(positions, orientation)[np.argmax(along)]) + 1
    return single if n_slices == 1 else float(np.ptp(along)) / (n_slices - 1)


def slices_affine(slices: Slices, thickness: float, n_rows: int) -> np.ndarray:
    """Voxel index (x, y, z) -> RAS+ [mm] of regular slices, (4, 4); `thickness` [mm] where there is only one."""
    # Here and below, as loading it takes a while and NIfTI files do not need it.
    from highdicom.spatial import convert_affine_to_convention, create_affine_matrix_from_attributes

    positions, orientation = slices.positions, slices.orientation
    if len(positions) > 1:
        _check_regular(positions, _normal(orientation))
    distance = slice_distance(positions, orientation, single=thickness)
    affine = create_affine_matrix_from_attributes(
        positions[0].tolist(), orientation.tolist(), slices.pixel_spacing, distance, index_convention="RD"
    )
    # Along the normal, as dcm2niix has it, unless the slices are shifted by more than positions are rounded.
    n_steps = len(positions) - 1
    if np.linalg.norm(positions[0] + n_steps * affine[:3, 2] - positions[-1]) > SAME_SLICE:
        affine[:3, 2] = (positions[-1] - positions[0]) / n_steps
    bottom_up = np.diag([1.0, -1.0, 1.0, 1.0])
    bottom_up[1, 3] = n_rows - 1
    return convert_affine_to_convention(affine @ bottom_up, "LPS", "RAS")


def _normal(orientation: np.ndarray) -> np.ndarray:
    """(3,) unit vector of row x column direction."""
    from highdicom.spatial import get_normal_vector

    return get_normal_vector(orientation.tolist(), index_convention="RD")


def _check_regular(positions: np.ndarray, normal: np.ndarray) -> None:
    """Refuses gaps between slices that differ by more than 1 %, and slices that are shifted sideways."""
    gaps = np.diff(positions @ normal)
    uneven = float(np.max(np.abs(gaps / gaps.mean() - 1)))
    if uneven > IRREGULAR:
        narrow, wide = int(np.argmin(gaps)), int(np.argmax(gaps))
        raise CorruptInputError(
            f"slices are not evenly spaced: {gaps[wide]:.3f} mm between slices {wide + 1} and {wide + 2} of "
            f"{len(positions)}, but {gaps[narrow]:.3f} mm between {narrow + 1} and {narrow + 2}. A slice is missing, "
            "or two slabs are mixed; complete the folder, or give each slab its own."
        )
    step = positions[-1] - positions[0]
    tilt = float(np.linalg.norm(np.cross(step, normal)) / (step @ normal))
    if tilt > IRREGULAR:
        raise CorruptInputError(
            f"slices are shifted sideways by {100 * tilt:.1f} % of their distance (ImagePositionPatient (0020,0032)), "
            "so they form no upright volume; convert them with dcm2niix and give its NIfTI files."
        )
    if max(uneven, tilt) > UNEVEN:
        remark(
            f"slices are off an even, upright stack by up to {100 * max(uneven, tilt):.2f} % of their distance; the "
            "affine takes the mean."
        )
