"""Feature maps phi: R^d -> R^w, one a file."""
