"""Laws of variants as data, one a file."""
