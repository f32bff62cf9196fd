"""How a memory begins, one a file."""
