"""Gates, one a file."""
