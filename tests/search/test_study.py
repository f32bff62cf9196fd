"""The study: rates inside trials, pruning, repetition at no cost, failures recorded, resuming."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from ctxpeft.analysis.statistics import holm
from ctxpeft.errors import CtxpeftError, SpecError
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.job import Job, with_settings
from ctxpeft.search.learning import Learning, TaskScore
from ctxpeft.search.objective import Objective
from ctxpeft.search.outcome import TRAINED, Row, rows_of, tried
from ctxpeft.search.progress import Watch
from ctxpeft.search.run import Found, search
from ctxpeft.search.spacefile import SpaceFile
from ctxpeft.search.storage import difference, load_study, owned
from ctxpeft.spec.guide import Facts
from ctxpeft.spec.load import load_variant
from ctxpeft.training import RunFolder
from tests.search.conftest import space_of


def copied(job: Job, out: Path, **settings: dict[str, Any]) -> Job:
    """The job in another folder, with other settings; runs that were finished before are there already."""
    if (job.out / "runs").is_dir() and not (out / "runs").exists():
        shutil.copytree(job.out / "runs", out / "runs")
    return replace(job, out=out, space=with_settings(job.space, settings))


def test_anchors_first_then_as_many_designs_as_asked(found: Found) -> None:
    assert [row.anchor for row in found.rows[:2]] == ["prefix-tuning-plus", "prefix-tuning"]
    assert all(row.outcome == "completed" for row in found.rows[:2])
    assert len(tried(found.rows)) == 5


def test_the_best_rate_at_the_rung_goes_on(found: Found) -> None:
    for row in found.rows:
        if row.outcome not in TRAINED:
            continue
        values = {r.rate: r.value for r in row.rates}
        assert len(values) == 2
        assert row.rung == min(v for v in values.values() if v is not None)
        assert values[row.rate or 0] == row.rung


def test_only_designs_outside_the_better_half_are_pruned(found: Found) -> None:
    pruned = [row for row in found.rows if row.outcome == "pruned"]
    for row in pruned:
        before = sorted(
            r.rung for r in found.rows if r.number < row.number and r.rung and r.outcome in TRAINED
        )
        assert row.rung is not None
        assert row.rung > before[-(-len(before) // 2) - 1]
        assert not row.anchor


def test_designs_are_repeated_at_no_cost(found: Found, tiny_job: Job, tmp_path: Path) -> None:
    designs = [row for row in found.rows if row.outcome in TRAINED]
    assert len({row.fingerprint for row in designs}) == len(designs)
    job = copied(tiny_job, tmp_path / "more", search={"trials": 7, "finalists": 0, "startup": 100})
    rows = search(job).rows
    memoised = [row for row in rows if row.outcome == "memoised"]
    assert memoised, "a space this small is asked for a design twice"
    for row in memoised:
        first = next(r for r in rows if r.number == row.same_as)
        assert first.fingerprint == row.fingerprint
        assert row.seconds < 1


def test_fresh_seeds_decide_nothing_but_the_verdict(found: Found, tiny_job: Job) -> None:
    finals = found.finals
    assert finals is not None
    assert finals.split == "test"
    assert finals.seeds == [1, 2]
    assert {v.anchor for v in finals.versus} == {"prefix-tuning-plus", "prefix-tuning"}
    assert [v.adjusted for v in finals.versus] == holm([v.interval.p or 0.0 for v in finals.versus])
    for versus in finals.versus:
        assert versus.adjusted is not None
        assert (versus.verdict == "not significant") == (versus.adjusted >= 0.05)
    read = [p for p in (tiny_job.out / "runs").iterdir() if (p / "predictions-test.jsonl").is_file()]
    assert len(read) == 3 * 2, "test data are read by the fresh runs of three finalists alone"


def test_resuming_runs_nothing_twice(found: Found, tiny_job: Job) -> None:
    before = {p: p.stat().st_mtime_ns for p in (tiny_job.out / "runs").rglob("result.json")}
    again = search(tiny_job, ["ctxpeft", "search", "tiny.yaml"])
    after = {p: p.stat().st_mtime_ns for p in (tiny_job.out / "runs").rglob("result.json")}
    assert before == after
    assert again.rows == found.rows
    assert again.finals == found.finals


def test_resuming_goes_on_to_a_larger_number(tiny_job: Job, found: Found, tmp_path: Path) -> None:
    shutil.copytree(tiny_job.out, tmp_path / "copy")
    job = copied(tiny_job, tmp_path / "copy", search={"trials": 6, "finalists": 0})
    rows = search(job).rows
    assert rows[: len(found.rows)] == found.rows
    assert len(tried(rows)) == 6


@pytest.mark.usefixtures("found")
def test_another_space_is_refused_with_the_first_difference(tiny_job: Job) -> None:
    job = replace(tiny_job, space=with_settings(tiny_job.space, {"training": {"steps": 9}}))
    with pytest.raises(SpecError, match=r"made with training.steps = 6, and is now asked for 9: .*--fresh"):
        search(job)


def test_fresh_starts_again(tiny_job: Job, tmp_path: Path, found: Found) -> None:
    shutil.copytree(tiny_job.out, tmp_path / "copy")
    job = copied(tiny_job, tmp_path / "copy", search={"trials": 0, "finalists": 0}, training={"steps": 2})
    assert len(search(job, fresh=True).rows) == 2


def test_fresh_discards_nothing_where_the_command_is_refused(
    tiny_job: Job, tmp_path: Path, found: Found
) -> None:
    """A mistake in the model, the data, the settings, an anchor or the budget costs no study."""
    out = tmp_path / "copy"
    shutil.copytree(tiny_job.out, out)
    job = replace(tiny_job, out=out)
    held = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    task = job.tasks[0]
    wrong = [
        replace(job, model="nowhere/at-all"),
        replace(job, tasks=(task.model_copy(update={"train": [str(tmp_path / "no.csv")]}),)),
        replace(job, space=with_settings(job.space, {"budget": {"parameters.like": "nothing-known"}})),
        *(
            replace(job, space=replace(job.space, file=job.space.file.model_copy(update=wrong)))
            for wrong in ({"anchors": ["nothing"]}, {"training": {"stepz": 9}})
        ),
    ]
    for refused in wrong:
        with pytest.raises(CtxpeftError):
            search(refused, fresh=True)
    other = replace(job, space=with_settings(job.space, {"training": {"steps": 9}}))
    with pytest.raises(SpecError, match="--from needs the same"):
        search(other, fresh=True, begin=found.archive)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == held


def test_a_folder_in_use_is_refused(tiny_job: Job, tmp_path: Path) -> None:
    with owned(tmp_path / "busy"), pytest.raises(CtxpeftError, match="in use by another search"):
        search(replace(tiny_job, out=tmp_path / "busy"))


def failing(cause: Callable[[Any], Any]) -> Callable[..., Any]:
    """A `train` that goes wrong for every design of template `prefix` beyond the anchors."""
    real = Laboratory.train

    def train(self: Laboratory, variant: Any, *args: Any, **kwargs: Any) -> Any:
        result = real(self, variant, *args, **kwargs)
        inside = variant.modules[0].placement == "inside" and variant.name.startswith("design-")
        return cause(result) if inside else result

    return train


def not_a_number(result: Any) -> Any:
    evaluation = result.evaluations["validation"]
    bad = replace(evaluation, metrics={**evaluation.metrics, "token_loss": float("nan")})
    return replace(result, evaluations={"validation": bad})


def out_of_memory(result: Any) -> Any:
    raise RuntimeError("out of memory\nand more")


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (not_a_number, "every learning rate diverged"),
        (out_of_memory, "RuntimeError: out of memory"),
    ],
)
def test_a_failed_design_is_recorded_and_the_study_goes_on(
    cause: Callable[[Any], Any], reason: str, tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Laboratory, "train", failing(cause))
    job = copied(tiny_job, tmp_path / "study", search={"trials": 4, "finalists": 0, "startup": 100})
    rows = search(job).rows
    failed = [row for row in rows if row.outcome == "failed"]
    assert failed
    assert all(row.reason.startswith(reason) and "\n" not in row.reason for row in failed)
    assert any(row.outcome in ("completed", "pruned") and not row.anchor for row in rows)
    assert reason in (job.out / "report.html").read_text(encoding="utf-8")


def test_an_interrupt_loses_nothing(
    tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Found
) -> None:
    real = Laboratory.train
    runs = 0

    def train(self: Laboratory, *args: Any, **kwargs: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs == 8:  # the second rate of the first design; the two anchors take three runs each
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    job = replace(tiny_job, out=tmp_path / "study")
    monkeypatch.setattr(Laboratory, "train", train)
    with pytest.raises(KeyboardInterrupt):
        search(job)
    rows = search(job).rows
    assert [row.outcome for row in rows].count("interrupted") == 1
    assert [strip(row) for row in rows if row.outcome != "interrupted"] == [strip(row) for row in found.rows]


def strip(row: Row) -> dict[str, Any]:
    """A row without its number and clock."""
    return {k: v for k, v in row.plain().items() if k not in ("number", "seconds", "same_as", "reason")}


@pytest.mark.usefixtures("found")
def test_infeasible_designs_cost_nothing_and_are_not_counted(tiny_job: Job, tmp_path: Path) -> None:
    job = copied(tiny_job, tmp_path / "study", search={"trials": 2, "finalists": 0, "startup": 100})
    budget = {"budget": {"parameters": {"like": "prefix-tuning-plus"}}}
    file = SpaceFile.model_validate({**job.space.file.model_dump(), **budget})
    rows = search(replace(job, space=replace(job.space, file=file))).rows
    refused = [row for row in rows if row.outcome == "infeasible"]
    assert refused
    assert all(row.rule == "budget" and row.value is None for row in refused)
    assert len(tried(rows)) == 2


@pytest.mark.usefixtures("found")
def test_a_space_that_is_used_up_ends(tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxpeft.search.loop.PATIENCE", 20)
    job = copied(tiny_job, tmp_path / "study", search={"trials": 500, "finalists": 0})
    assert len(tried(search(job).rows)) <= 3 + 2 * 3


@pytest.mark.parametrize(
    ("guide", "scale", "norms"),
    [
        (True, (0.1, 1.5), {"rms"}),
        (True, (0.9, 1.5), {"none", "rms"}),
        (False, (0.1, 1.5), {"none", "rms"}),
    ],
)
def test_designs_stay_within_the_guide_that_knows_the_model(
    guide: bool, scale: tuple[float, float], norms: set[str], tiny_job: Job, tmp_path: Path
) -> None:
    text = """
title: A quadratic map
modules:
  - templates:
      matrix: {placement: outside, feature_map: squared_relu, query: {norm: [none, rms]}, memory: {kind: matrix}}
"""
    job = replace(tiny_job, out=tmp_path, space=with_settings(space_of(text), {"search": {"guide": guide}}))
    laboratory = Laboratory(job)
    laboratory.facts = Facts(query_scale=scale)
    objective = Objective(laboratory, Watch())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [objective._design(study.ask()) for _ in range(8)]
    assert {module.query.norm for variant in drawn for module in variant.modules} == norms


@pytest.mark.usefixtures("found")
def test_workers_share_a_study(tiny_job: Job, tmp_path: Path) -> None:
    job = copied(tiny_job, tmp_path / "study", search={"trials": 3, "finalists": 1, "seeds": 1})
    result = search(job, workers=2)
    assert 3 <= len(tried(result.rows)) <= 4
    assert {row.anchor for row in result.rows} >= {"prefix-tuning-plus", "prefix-tuning"}
    completed = [row for row in result.rows if not row.anchor and row.outcome == "completed"]
    assert (result.finals is not None) == bool(completed)


@pytest.mark.parametrize("beside", [False, True])
def test_a_run_that_another_worker_is_at_is_waited_for(beside: bool, tiny_job: Job, tmp_path: Path) -> None:
    """Two workers may draw one design at one moment: the second takes the first one's result, and fails nothing."""
    laboratory = copied(tiny_job, tmp_path / "study", search={"together": beside}).open()
    variant, rates = load_variant("prefix-tuning-plus"), (0.003, 0.01)
    others = [
        RunFolder(laboratory.folder(variant, rate, 2, 0, beside=beside), {}) for rate in rates[: 1 + beside]
    ]
    released = threading.Event()

    def work() -> None:
        with contextlib.ExitStack() as stack:
            for other in others:
                stack.enter_context(other.locked())
            ready.set()
            time.sleep(0.5)
            released.set()

    ready = threading.Event()
    worker = threading.Thread(target=work)
    worker.start()
    ready.wait()
    some = rates[: 1 + beside]
    results = laboratory.train_rates(variant, some, 2, 0)
    assert released.is_set()
    worker.join()
    assert [result.learning_rate for result in results] == list(some)


def test_a_design_that_another_worker_finished_meanwhile_is_counted_once(
    tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers drew it at one moment; neither saw the other when it began."""
    job = copied(tiny_job, tmp_path / "study", search={"trials": 2, "finalists": 0})
    tune, rivals = Learning.tune, []

    def tuned(self: Learning, task: str) -> TaskScore:
        score = tune(self, task)
        if self.variant.name.startswith("design-") and not rivals:
            study = load_study(job.url, job.study)
            anchor = study.trials[0]
            attributes = {k: v for k, v in anchor.user_attrs.items() if k != "anchor"}
            attributes |= {"fingerprint": self.variant.fingerprint(), "variant": self.variant.to_dict()}
            study.add_trial(optuna.create_trial(value=anchor.value, user_attrs=attributes))
            rivals.append(self.variant.fingerprint())
        return score

    monkeypatch.setattr(Learning, "tune", tuned)
    rows = search(job).rows
    same = [row for row in rows if row.fingerprint == rivals[0]]
    (counted,) = [row for row in same if row.outcome in TRAINED]
    repeated = [row for row in same if row.outcome == "memoised"]
    assert repeated[0].number < counted.number
    assert {row.same_as for row in repeated} == {counted.number}


def test_exports_read_back(found: Found, tiny_job: Job) -> None:
    variant = load_variant(tiny_job.out / "best.yaml")
    assert found.best is not None
    assert variant.fingerprint() == found.best.fingerprint
    assert variant.training.learning_rate == found.best.rate
    assert variant.source.startswith("found by ctxpeft search tiny")
    study = json.loads((tiny_job.out / "study.json").read_text(encoding="utf-8"))
    assert len(study["trials"]) == len(found.rows)
    lines = (tiny_job.out / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(found.rows) + 1


def test_the_study_is_plain_optuna(found: Found, tiny_job: Job) -> None:
    study = optuna.load_study(study_name="tiny", storage=tiny_job.url)
    done = [row for row in found.rows if row.value is not None]
    assert study.best_value == min(row.value for row in done if row.value is not None)
    assert rows_of(load_study(tiny_job.url, None).trials) == found.rows


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}, ""),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b = 1, and is now asked for 2"),
        ({"a": [1, {"c": 2}]}, {"a": [1, {"c": 3}]}, "a[1].c = 2, and is now asked for 3"),
        ({"a": 1}, {"a": 1, "z": 0}, "z = null, and is now asked for 0"),
        ({"model": "x"}, {"model": "y"}, "another model"),
    ],
)
def test_difference(old: Any, new: Any, message: str) -> None:
    assert difference(old, new) == message


def test_rates_side_by_side_reach_what_they_reach_one_by_one(
    found: Found, tiny_job: Job, tmp_path: Path
) -> None:
    job = replace(
        tiny_job,
        out=tmp_path,
        space=with_settings(tiny_job.space, {"search": {"together": True, "trials": 2, "finalists": 0}}),
    )
    together = search(job).rows
    for one, other in zip(together, found.rows, strict=False):
        assert one.fingerprint == other.fingerprint
        assert one.rate == other.rate
        assert [r.value for r in one.rates] == pytest.approx([r.value for r in other.rates], rel=1e-4)
    assert _beside(tmp_path)
    assert not _beside(tiny_job.out)


def _beside(out: Path) -> list[Path]:
    """The runs of a search that were trained side by side with others."""
    return [p.parent for p in (out / "runs").glob("*/resolved.yaml") if "beside: true" in p.read_text()]


def test_a_search_begins_with_the_notes_on_the_data_and_the_anchors(
    tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Job.open

    def with_notes(job: Job) -> Laboratory:
        laboratory = opened(job)
        laboratory.benches = {
            name: replace(bench, notes=("the labels were guessed",))
            for name, bench in laboratory.benches.items()
        }
        return laboratory

    monkeypatch.setattr(Job, "open", with_notes)
    search(copied(tiny_job, tmp_path / "noted", search={"trials": 0, "finalists": 0}))
    lines = capsys.readouterr().err.splitlines()
    assert "note: tiny: the labels were guessed" in lines
    assert "anchor prefix-tuning-plus: 512 parameters" in lines
