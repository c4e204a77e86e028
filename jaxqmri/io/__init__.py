"""Images and files: numpy only, never JAX."""
