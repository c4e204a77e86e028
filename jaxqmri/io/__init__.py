"""What scanners write and viewers read: numpy only, never JAX."""
