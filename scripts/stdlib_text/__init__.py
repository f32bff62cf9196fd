"""Text of the Python standard library, read from its source without importing any of it."""
