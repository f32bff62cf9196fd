"""The command line in this process: exit code, standard output, standard error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from ctxpeft.cli import main


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The result of `--json`, whose envelope is checked."""
        envelope = json.loads(self.out)
        assert set(envelope) == {"command", "version", "result"}
        return envelope["result"]


def run(capsys: pytest.CaptureFixture[str], *args: object) -> Outcome:
    """Run `ctxpeft ARGS...`."""
    capsys.readouterr()
    code = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)
