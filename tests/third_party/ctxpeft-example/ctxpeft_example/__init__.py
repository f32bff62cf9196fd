"""Blocks for ctxpeft, one a file."""
