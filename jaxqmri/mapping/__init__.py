"""The named jobs: from an image series to maps. Here, and only here, files meet the models."""

from .noise import noise_of
from .t1 import t1_map
from .t2 import DEFAULT_T1, T2_METHODS, t2_map
from .t2star import EXAMPLE_SCALE, EXAMPLE_T2STAR, METHODS, t2star_map
from .voxels import auto_mask

__all__ = [
    "DEFAULT_T1",
    "EXAMPLE_SCALE",
    "EXAMPLE_T2STAR",
    "METHODS",
    "T2_METHODS",
    "auto_mask",
    "noise_of",
    "t1_map",
    "t2_map",
    "t2star_map",
]
