"""Samplers: each asks only what the space asks, goes on as it would have, and learns."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from ctxpeft.search.archive import archive_of, put_back
from ctxpeft.search.job import Job, with_settings
from ctxpeft.search.outcome import Row, tried
from ctxpeft.search.run import Found, search
from ctxpeft.search.samplers import sampler
from ctxpeft.search.samplers.process import encoded, places, rank_score
from ctxpeft.search.settings import Search
from ctxpeft.search.space.chooser import TrialChooser
from ctxpeft.search.space.walk import walk
from ctxpeft.search.spacefile import Space, load_space
from ctxpeft.spec.guide import Facts

NAMES = ["tpe", "nsga2", "random", "gp"]


def cost(params: dict[str, Any]) -> float:
    """A made-up objective over the answers of search/gates.yaml that one path of the tree makes small."""
    value = 3.0
    value -= params.get("1.template") == "matrix"
    value -= params.get("1.matrix.feature_map") == "gelu"
    value -= 0.5 * (params.get("1.matrix.gate") == "scalar #1") + 0.5 * (params.get("2.present") is False)
    return value


def ask(study: optuna.Study, space: Space, search: Search) -> optuna.Trial:
    """One design of a space."""
    guide = Facts() if search.guide else None
    study.sampler = sampler(study, space, search, 0, solve=False, guide=guide)
    trial = study.ask()
    walk(space.positions, TrialChooser(trial), solve=False, guide=guide)
    return trial


def tell(study: optuna.Study, trial: optuna.Trial, value: float) -> None:
    """As a finished trial of the search."""
    trial.set_user_attr("outcome", "completed")
    trial.set_user_attr("value", value)
    trial.set_user_attr("rung", value)
    study.tell(trial, value)


def refuse(study: optuna.Study, trial: optuna.Trial, outcome: str) -> None:
    """As a trial of the search that is no answer: it breaks a constraint when trained, or is not trained at all."""
    trial.set_constraint("forgetting", 1.0)
    if outcome == "violating":
        trial.set_user_attr("violations", {"forgetting": 1.0})
        tell(study, trial, cost(trial.params))
    else:
        trial.set_user_attr("outcome", outcome)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def study_of(trials: int, space: Space, search: Search, matrices: str = "") -> optuna.Study:
    """A study in memory, begun with an anchor, which answers no question; `matrices` is why a matrix is refused."""
    study = optuna.create_study()
    study.set_user_attr("about", {})
    study.enqueue_trial({}, user_attrs={"anchor": "lora-qv"})
    anchor = study.ask()
    tell(study, anchor, 1.0)
    for _ in range(trials):
        trial = ask(study, space, search)
        if matrices and is_matrix(trial.params):
            refuse(study, trial, matrices)
        else:
            tell(study, trial, cost(trial.params))
    return study


def is_matrix(params: dict[str, Any]) -> bool:
    """Whether a design of search/gates.yaml has what `cost` likes best."""
    return bool(params.get("1.template") == "matrix")


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_as_it_would_have(name: str) -> None:
    """The next five designs are the same in the study itself and in one put back from its file."""
    space, settings = load_space("gates"), Search(sampler=name, startup=4)  # type: ignore[arg-type]
    study = study_of(14, space, settings)
    other = optuna.create_study()
    put_back(other, archive_of(study))
    for _ in range(5):
        one, two = ask(study, space, settings), ask(other, space, settings)
        assert one.params == two.params
        tell(study, one, cost(one.params))
        tell(other, two, cost(two.params))


@pytest.mark.parametrize("name", ["tpe", "nsga2", "gp"])
def test_learns_beside_anchors(name: str) -> None:
    """The later half of a study is better than chance, although an anchor shares no dimension with it."""
    space = load_space("gates")
    chance = [cost(t.params) for t in study_of(60, space, Search(sampler="random")).trials[1:]]
    learned = []
    for seed in range(3):
        study = study_of(40, space, Search(sampler=name, startup=8, seed=seed))  # type: ignore[arg-type]
        learned += [cost(t.params) for t in study.trials[21:]]
    assert np.mean(learned) < np.mean(chance) - 0.3


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("tpe", "violating"),
        ("nsga2", "violating"),
        ("gp", "violating"),
        ("gp", "failed"),
        ("gp", "infeasible"),
    ],
)
def test_avoids_the_like_of_what_is_refused(name: str, outcome: str) -> None:
    """However well it does: chance draws every other design with a matrix."""
    space = load_space("gates")
    settings = Search(sampler=name, startup=8)  # type: ignore[arg-type]
    late = study_of(24, space, settings, outcome).trials[13:]
    assert sum(is_matrix(trial.params) for trial in late) / len(late) < 0.3
    chance = study_of(60, space, Search(sampler="random"), outcome).trials[1:]
    assert sum(is_matrix(trial.params) for trial in chance) / len(chance) > 0.4


def test_children_have_the_answers_of_two_parents() -> None:
    space, settings = load_space("gates"), Search(sampler="nsga2", startup=4)
    study = study_of(30, space, settings)
    generations = [t.system_attrs["Evolution:generation"] for t in study.trials[1:]]
    assert generations == sorted(generations)
    assert generations.count(0) == 4
    assert max(generations) >= 6
    answers: dict[str, set[Any]] = {}
    for trial in study.trials[1:5]:
        for key, value in trial.params.items():
            answers.setdefault(key, set()).add(value)
    second = [t for t in study.trials[1:] if t.system_attrs["Evolution:generation"] == 1]
    inherited = [key in answers and value in answers[key] for t in second for key, value in t.params.items()]
    assert sum(inherited) / len(inherited) > 0.6


def test_pruned_designs_rank_behind_completed_ones() -> None:
    rows = [
        Row(0, "completed", rung=3.0, value=2.0, costs=(2.0,)),
        Row(1, "pruned", rung=2.5),
        Row(2, "completed", rung=4.0, value=1.0, costs=(1.0,)),
        Row(3, "pruned", rung=2.2),
    ]
    assert places(rows) == [1, 3, 0, 2]
    better = {"rung": 1.0, "value": 0.5, "costs": (0.5,)}
    rows.append(Row(4, "completed", **better, violations={"latency": 0.5, "forgetting": 0.1}))
    rows.append(Row(5, "completed", **better, violations={"latency": 0.2}))
    assert places(rows) == [1, 3, 0, 2, 5, 4]
    assert rank_score(0, 4) < rank_score(1, 4) < 0 < rank_score(3, 4)


def test_absent_answers_are_zero_and_numbers_are_places() -> None:
    table = encoded([{"a": "x", "n": 1}, {"a": "y", "n": 100}, {"a": "x"}])
    assert table[0].tolist() == [1, 0, 1, 0, 0, 0]
    assert table[1].tolist() == [0, 0, 1, 1, 1, 0]
    assert table[2].tolist() == [1, 0, 0, 0, 0, 0]


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("name", ["nsga2", "random", "gp"])
def test_a_study_runs_and_resumes_with_it(name: str, tiny_job: Job, tmp_path: Path) -> None:
    """Interrupted after two designs and gone on with, it is the study that one sitting gives."""
    settings = {"sampler": name, "trials": 5, "finalists": 0, "startup": 2}
    space = with_settings(tiny_job.space, {"search": settings})
    seen = []
    for sittings in ([5], [2, 5]):
        out = tmp_path / f"{len(sittings)}"
        shutil.copytree(tiny_job.out / "runs", out / "runs")
        for trials in sittings:
            part = with_settings(space, {"search": {"trials": trials}})
            rows = search(replace(tiny_job, space=part, out=out)).rows
        seen.append([(row.fingerprint, row.outcome, row.value, row.choices) for row in rows])
        assert len(tried(rows)) == 5
    assert seen[0] == seen[1]


def test_another_sampler_is_another_study_and_the_usual_one_is_not_named(found: Found) -> None:
    assert "sampler" not in found.archive.described["search"]
