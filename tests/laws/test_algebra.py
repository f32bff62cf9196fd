"""The equations: every merge and memory is its paper's, over drawn shapes and masks, values and every gradient."""

from ctxpeft.testing.laws import AlgebraLaws


class TestAlgebra(AlgebraLaws):
    """Every law of the registry, ours and those of installed packages."""
