"""Laws of a variant on a model, one a file."""
