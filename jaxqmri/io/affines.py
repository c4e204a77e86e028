"""Where voxels lie: (4, 4) affines, voxel index -> RAS+ [mm]."""

import numpy as np

from ..errors import CorruptInputError

SAME_GRID = 1e-3  # of a voxel edge; the float32 quaternion of a qform leaves 1e-4
EDGES = (1e-6, 1e6)  # mm; float32, in which maps store their place, holds more, but nothing else does


def same_grid(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two (4, 4) affines [mm] agree to a thousandth of a voxel edge, element by element."""
    edge = voxel_edges(a).min()
    return bool(np.allclose(a, b, rtol=0, atol=SAME_GRID * edge))


def voxel_edges(affine: np.ndarray) -> np.ndarray:
    """(3,) lengths of the edges of a voxel [mm]."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def check_affine(affine: np.ndarray, where: str) -> None:
    """Raises CorruptInputError unless the voxels of a file, `where`, have a place that maps can be written for."""
    edges = voxel_edges(affine)
    if not np.all(np.isfinite(affine)) or np.any(edges == 0):
        wrong = "cannot be inverted (zero or not a number)"
    elif np.any(edges < EDGES[0]) or np.abs(affine).max() > EDGES[1]:
        wrong = f"is beyond all bounds (voxels of {' x '.join(f'{edge:g}' for edge in edges)} mm)"
    elif abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-6:
        wrong = "cannot be inverted (its axes lie in one plane)"
    else:
        return
    raise CorruptInputError(f"{where}: its affine {wrong}, so its voxels have no place; convert the images again.")
