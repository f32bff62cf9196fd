"""Comparisons with statistics, and diagnosis `from ctxpeft.analysis.compare import compare`."""
