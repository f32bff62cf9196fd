"""optuna-dashboard opens the study as it lies there, through its own storage: every trial, its state and its reason."""

from __future__ import annotations

import io
import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from ctxpeft.search.job import Job
from ctxpeft.search.measures import TITLE
from ctxpeft.search.run import Found

dashboard = pytest.importorskip("optuna_dashboard", reason="needs the extra 'dashboard'")


def get(app: Any, path: str, query: str = "") -> Any:
    """The JSON that the dashboard's page gets from its server."""
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query, "wsgi.errors": io.StringIO()}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = b"".join(app(environ, lambda line, *_: status.append(line)))
    assert status == ["200 OK"], environ["wsgi.errors"].getvalue()
    return json.loads(body)


def test_the_dashboard_shows_the_study(found: Found, tiny_job: Job) -> None:
    app = dashboard.wsgi(tiny_job.url)
    (summary,) = get(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "tiny"
    assert summary["directions"] == ["minimize"]
    detail = get(app, f"/api/studies/{summary['study_id']}", "after=0")
    assert detail["objective_names"] == [TITLE["loss"]]
    trials = {trial["number"]: trial for trial in detail["trials"]}
    assert sorted(trials) == [row.number for row in found.rows]
    states = {"completed": "Complete", "pruned": "Pruned", "failed": "Pruned", "infeasible": "Pruned"}
    for row in found.rows:
        trial = trials[row.number]
        told = {attribute["key"]: attribute["value"] for attribute in trial["user_attrs"]}
        assert told["outcome"] == row.outcome
        if row.outcome in states:
            assert trial["state"] == states[row.outcome]
        if row.value is not None:
            assert trial["values"] == [row.value]
        if row.rung is not None and row.outcome != "memoised":
            assert trial["intermediate_values"][0]["value"] == row.rung
    shown = get(app, f"/api/studies/{summary['study_id']}/param_importances")["param_importances"][0]
    assert "template" in {parameter["name"] for parameter in shown}
