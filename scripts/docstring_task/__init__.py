"""The docstring-area task: which area of the library a docstring belongs to."""
