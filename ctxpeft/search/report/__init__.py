"""The report of a search: one HTML file that needs nothing else."""

from ctxpeft.search.report.page import write_report

__all__ = ["write_report"]
