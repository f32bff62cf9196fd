"""Scripts that make what the package ships: the default model and the default tasks."""
