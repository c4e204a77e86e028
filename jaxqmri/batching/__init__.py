"""Voxels in batches on threads and devices: JAX machinery, with no MRI in it."""
