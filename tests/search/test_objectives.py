"""What a search can want: each measured as it says, alone, under constraints, and together."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

import ctxpeft
from ctxpeft.analysis.rates import next_to
from ctxpeft.errors import DataError, SpecError
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.finals import Final, Finals, winner_of
from ctxpeft.search.fresh import final_rate, finalists
from ctxpeft.search.job import Job, with_settings
from ctxpeft.search.meter import Forgetting, adapter_bytes, decode_ratio
from ctxpeft.search.outcome import front, ranking, tried
from ctxpeft.search.pareto import ranks
from ctxpeft.search.report.words import answer
from ctxpeft.search.run import Found, search
from ctxpeft.spec.load import load_variant
from ctxpeft.tasks import load_task
from tests.tasks.tiny import sentences


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another text."""
    path = tmp_path_factory.mktemp("text") / "other.txt"
    path.write_text("\n\n".join(row["text"] for row in sentences(60, 11)), encoding="utf-8")
    return path


@pytest.fixture
def job(tiny_job: Job, found: Found, tmp_path: Path) -> Job:
    """The tiny job in a folder of its own, runs that were finished before included."""
    shutil.copytree(found.out / "runs", tmp_path / "study" / "runs")
    return replace(tiny_job, out=tmp_path / "study")


def wanting(job: Job, **settings: Any) -> Job:
    """The job with settings of its search."""
    return replace(job, space=with_settings(job.space, {"search": {"finalists": 0, "trials": 4} | settings}))


def test_several_objectives_give_a_front_and_still_prune(job: Job) -> None:
    """Optuna refuses to prune here; the search's own rungs do it."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(NotImplementedError):
        study.ask().report(1.0, 1)
    pareto = wanting(job, objective=["loss", "parameters"], trials=8, startup=3, finalists=2, seeds=1)
    result = search(pareto)
    done = [row for row in result.rows if row.outcome == "completed"]
    for row in done:
        assert row.costs == (row.value, row.parameters)
        assert row.objectives == {"loss": row.value, "parameters": row.parameters}
    best = {row.number for row in front(result.rows)}
    study = optuna.load_study(study_name="tiny", storage=pareto.url)
    theirs = {t.number for t in study.best_trials if t.user_attrs["outcome"] == "completed"}
    assert best == theirs
    pruned = [row for row in result.rows if row.outcome == "pruned"]
    assert pruned, "a space of two templates, one of them large and poor at first"
    assert all("earlier Pareto front" in row.reason and "parameters" in row.objectives for row in pruned)
    files = {path.stem for path in (pareto.out / "front").glob("*.yaml")}
    assert files == {f"trial-{row.number}" for row in front(result.rows) if not row.anchor}
    again = search(pareto)
    assert again.rows == result.rows
    if result.finals is not None:
        assert {m.number for m in result.finals.methods if not m.anchor} <= best


@pytest.mark.parametrize("sampler", ["nsga2", "gp", "random"])
def test_every_sampler_takes_several_objectives(sampler: str, job: Job) -> None:
    rows = search(wanting(job, objective=["loss", "bytes"], sampler=sampler, trials=5, startup=2)).rows
    assert len(tried(rows)) == 5
    for row in rows:
        if row.outcome == "completed":
            assert row.objectives["bytes"] > 0
    assert ranks([row.costs for row in front(rows)]) == [0] * len(front(rows))


def test_a_design_that_breaks_a_constraint_is_no_answer(job: Job) -> None:
    """Parameters are known before training, so what has too many is not trained; anchors are only told of."""
    result = search(wanting(job, constraints={"parameters": 300}, startup=100))
    refused = [row for row in result.rows if row.outcome == "infeasible"]
    assert refused
    assert all(row.rule == "constraint" and not row.rates for row in refused)
    assert refused[0].reason == "parameters 512, which is to be at most 300"
    for row in result.rows:
        if row.outcome == "completed" and row.anchor:
            assert row.violations == {"parameters": (row.parameters or 0) - 300}
    assert all((row.parameters or 0) <= 300 for row in ranking(result.rows))
    assert result.best is not None
    study = optuna.load_study(study_name="tiny", storage=job.url)
    anchor = study.trials[0]
    assert anchor.system_attrs["constraints:parameters"] > 0


def test_forgetting_is_what_the_loss_on_the_text_rises_by(job: Job, text: Path) -> None:
    wants = wanting(job, constraints={"forgetting": 0.0}, forgetting=str(text), trials=3)
    result = search(wants)
    laboratory = Laboratory(wants)
    other = Forgetting(laboratory.base, str(text), 8192)
    checked = 0
    for row in result.rows:
        if row.outcome != "completed":
            continue
        splits = ("validation",)
        folder = laboratory.folder(load_variant(row.variant), row.rate, 6, 0, splits)
        before = other.loss()
        handle = ctxpeft.load(laboratory.base.model, folder / "adapter")
        after = other.loss()
        handle.detach()
        assert row.objectives["forgetting"] == pytest.approx(after - before, abs=1e-6)
        assert bool(row.violations) == (after > before)
        checked += 1
    assert checked >= 2
    assert any(row.violations for row in result.rows) or any(
        row.objectives.get("forgetting", 1) <= 0 for row in result.rows
    )


def test_another_text_is_another_study(job: Job, text: Path, tmp_path: Path) -> None:
    wants = wanting(job, constraints={"forgetting": 0.5}, forgetting=str(text), trials=0)
    search(wants)
    moved = tmp_path / "moved.txt"
    shutil.copy(text, moved)
    settings = {"constraints": {"forgetting": 0.5}, "forgetting": str(moved), "trials": 0}
    search(wanting(job, **settings))
    moved.write_text("Something else is told here.", encoding="utf-8")
    with pytest.raises(SpecError, match="was made with forgetting"):
        search(wanting(job, **settings))
    with pytest.raises(
        SpecError, match=r"made with search.constraints.forgetting = 0.5, and is now asked for 0.9"
    ):
        search(wanting(job, **{**settings, "constraints": {"forgetting": 0.9}}))


@pytest.mark.parametrize("objective", ["ood", ["metric", "loss"]])
def test_finals_rank_by_what_the_search_wants(objective: str | list[str], job: Job) -> None:
    """Not by the held-out loss; the rates of finalists are tuned by the loss all the same."""
    result = search(wanting(job, objective=objective, trials=3, finalists=2, seeds=2, retune=1, keep=1.0))
    finals, first = result.finals, objective if isinstance(objective, str) else objective[0]
    assert finals is not None
    for method in finals.methods:
        assert method.validation == [-value for value in method.objectives[first]]
        assert all(0 <= value <= 1 for value in method.objectives[first])
        assert set(method.objectives) == ({first} if first == "ood" else {"metric", "loss"})
    assert result.finals == Finals.from_plain(json.loads(json.dumps(finals.plain())))
    designs = [m for m in finals.methods if not m.anchor]
    assert finals.winner == min(designs, key=lambda m: (m.mean, m.number)).number
    winner = next(m for m in finals.methods if m.number == finals.winner)
    said = " ".join(answer(result.rows, finals, result.about))
    assert f"metric {-winner.mean:.4f}, mean of 2 fresh seeds" in said
    assert ("Held-out loss, mean of the fresh seeds [lowest, highest]:" in said) == (first == "metric")


def test_finals_measure_forgetting_and_keep_to_constraints(job: Job, text: Path) -> None:
    """A design that kept a constraint by luck on the search's seed is no winner where another keeps it."""
    wants = wanting(
        job, constraints={"forgetting": 10.0}, forgetting=str(text), trials=3, finalists=3, seeds=1, keep=1.0
    )
    result = search(wants)
    assert result.finals is not None
    found = [m.objectives["forgetting"][0] for m in result.finals.methods if not m.anchor]
    assert len(set(found)) > 1
    assert all(m.violations == {} for m in result.finals.methods)
    laboratory = Laboratory(replace(wants, space=with_settings(wants.space, {"search": {"constraints": {}}})))
    rows = {row.number: row for row in result.rows}
    final = result.finals.methods[0]
    folder = laboratory.folder(
        load_variant(rows[final.number].variant), final.rate, 6, 1, ("validation", "test")
    )
    assert laboratory.other_text.increase(folder) == pytest.approx(
        final.objectives["forgetting"][0], abs=1e-6
    )
    tight = replace(
        result.finals,
        methods=[
            replace(m, violations={"forgetting": 0.5} if m is final else {}) for m in result.finals.methods
        ],
        winner=final.number,
    )
    said = " ".join(answer(result.rows, tight, {**result.about, "constraints": {"forgetting": 0.1}}))
    assert "On fresh seeds it breaks a constraint: rise of the loss on another text" in said


def test_a_design_that_breaks_a_constraint_on_fresh_seeds_wins_only_where_all_do() -> None:
    def final(number: int, mean: float, anchor: str = "", **broken: float) -> Final:
        return Final(number, "v", anchor, 1, 0.1, mean, [mean], [0.5], violations=broken)  # type: ignore[arg-type]

    best, kept, poor = final(1, 1.0, forgetting=0.1), final(2, 2.0), final(3, 3.0)
    anchor = final(0, 0.5, anchor="lora-qv")
    assert winner_of([anchor, best, poor, kept]) is kept
    assert winner_of([anchor, final(4, 2.5, forgetting=0.1), best]) is best
    assert winner_of([anchor]) is None


def test_rates_of_finalists_are_compared_by_what_rungs_compare(job: Job) -> None:
    """Losses with losses, where the out-of-distribution metric ranks."""
    wants = wanting(job, objective="ood", trials=3, finalists=2, seeds=1, retune=1, keep=1.0)
    result, laboratory = search(wants), Laboratory(wants)
    moved = 0
    for row in finalists(result.rows, 2):
        assert row.rate is not None
        variant, tried = load_variant(row.variant), [r.rate for r in row.rates]
        losses: dict[float, float] = {}
        for rate in (row.rate, next_to(tried, row.rate, True), next_to(tried, row.rate, False)):
            if rate is not None:
                run = laboratory.train(variant, rate, 6, 0, ("validation", "ood"))
                losses[rate] = run.evaluations["validation"].metrics["token_loss"]
        better = [rate for rate in sorted(losses) if losses[rate] < losses[row.rate]]
        chosen = final_rate(laboratory, row, laboratory.tasks[0])
        assert chosen == (better[0] if better else row.rate), "the lower rate is asked first"
        moved += chosen != row.rate
    assert moved, "a rate that does better in full is taken for at least one finalist"


def test_rungs_measure_what_several_objectives_compare(job: Job, text: Path) -> None:
    objective = ["loss", "forgetting", "ood", "bytes", "parameters"]
    result = search(wanting(job, objective=objective, forgetting=str(text), trials=3, startup=2))
    learned = [row for row in result.rows if row.levels]
    assert len(learned) >= 4
    for row in learned:
        (beside,) = row.rung_costs
        assert set(beside) == {"forgetting", "ood", "bytes", "parameters"}
        assert -1 <= beside["ood"] <= 0
        assert beside["bytes"] > 0
    assert len({row.rung_costs[0]["forgetting"] for row in learned}) > 2


def test_out_of_distribution_data_can_decide(job: Job, tiny_task: dict[str, str]) -> None:
    wants = wanting(job, objective="ood", constraints={"metric": 0.2}, trials=3)
    rows = search(wants).rows
    for row in rows:
        if row.outcome == "completed":
            assert row.value == -row.objectives["ood"]
            assert row.metrics["ood"] == row.objectives["ood"]
            assert bool(row.violations) == (row.objectives["metric"] < 0.2)
    bare = load_task({"name": "bare", "train": [tiny_task["train"]], "template": "{text} Label:"})
    with pytest.raises(DataError, match="bare has no out-of-distribution data"):
        Laboratory(replace(wants, tasks=(bare,)))


def test_bytes_are_those_of_the_file(job: Job) -> None:
    laboratory = Laboratory(job)
    variant = load_variant("prefix-tuning-plus")
    laboratory.train(variant, 0.003, 2, 0)
    folder = laboratory.folder(variant, 0.003, 2, 0)
    assert adapter_bytes(folder) == (folder / "adapter" / "adapter.safetensors").stat().st_size
    assert adapter_bytes(folder) >= 4 * laboratory.counter(variant)


def test_decoding_time_is_measured_against_the_frozen_model_once(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    laboratory = Laboratory(job)
    small = load_variant("prefix-tuning-plus")
    wide = {
        "placement": "outside",
        "feature_map": {"kind": "projection", "width": 4096, "activation": "gelu"},
    }
    large = load_variant({"name": "large", "modules": [{**wide, "memory": {"kind": "matrix"}}] * 4})
    ratio = laboratory.latency(small)
    assert 0.8 < ratio < 3
    assert decode_ratio(laboratory.base, large, rounds=3) > ratio
    monkeypatch.setattr("ctxpeft.search.meter.decode_ratio", None)
    assert Laboratory(job).latency(small) == ratio
    monkeypatch.undo()
    rows = search(wanting(job, constraints={"latency": 0.01}, trials=1, startup=100)).rows
    assert {row.rule for row in rows if row.outcome == "infeasible"} == {"constraint"}
    assert all(row.violations["latency"] > 0 for row in rows if row.anchor and row.outcome == "completed")


def test_two_rungs(job: Job) -> None:
    rows = search(wanting(job, rung=[0.3, 0.6], trials=6, startup=100)).rows
    assert {len(row.levels) for row in rows if row.outcome == "completed"} == {2}
    assert {len(row.levels) for row in rows if row.outcome == "pruned"} <= {1, 2}
    study = optuna.load_study(study_name="tiny", storage=job.url)
    assert list(study.trials[0].intermediate_values) == [2, 4]


def test_audited_designs_are_trained_to_the_end_and_told_of(job: Job) -> None:
    result = search(wanting(job, audit=1.0, trials=6, startup=100))
    assert not any(row.outcome == "pruned" for row in result.rows)
    audited = [row for row in result.rows if row.audited]
    assert audited
    assert all("trained to the end to test the rung" in row.reason for row in audited)
    text = (result.out / "study.json").read_text(encoding="utf-8")
    assert f'"audited": {len(audited)}' in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "parameters"}, "parameters alone is best where nothing is learned"),
        ({"objective": ["loss", "loss"]}, "a name stands there twice"),
        (
            {"objective": ["loss", "latency"], "constraints": {"latency": 1}},
            "latency is an objective already",
        ),
        ({"objective": ["loss", "forgetting"]}, "forgetting needs a text"),
        ({"rung": [0.3, 0.1]}, "expected rising shares"),
        ({"objective": "los"}, "expected 'loss' or 'metric' or 'ood'"),
        ({"constraints": {"speed": 1}}, "search.constraints"),
    ],
)
def test_mistakes_are_one_sentence(settings: dict[str, Any], message: str, tiny_job: Job) -> None:
    with pytest.raises(SpecError) as caught:
        with_settings(tiny_job.space, {"search": settings})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
