"""Several tasks as one objective: rates, references, pruning, intervals, and the runs of each task apart."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ctxpeft.errors import DataError, SpecError
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.export import trials_csv
from ctxpeft.search.finals import Finals
from ctxpeft.search.job import Job, tasks_of, with_settings
from ctxpeft.search.joint import joint
from ctxpeft.search.outcome import TRAINED
from ctxpeft.search.run import Found, search, stored
from ctxpeft.search.spacefile import Space
from ctxpeft.tasks import TaskSpec, load_task
from tests.search.conftest import space_of
from tests.tasks.tiny import sentences, write_jsonl

SETTINGS = {"search": {"trials": 3, "finalists": 1, "seeds": 2}}


@pytest.fixture(scope="module")
def tasks(tiny_task: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskSpec, ...]:
    """Two classifications with other words and data, so with losses of another size."""
    folder = tmp_path_factory.mktemp("second")
    rows = [{**row, "label": f"{row['label']} of a kind"} for row in sentences(90, 5)]
    test = [{**row, "label": f"{row['label']} of a kind"} for row in sentences(30, 6)]
    files = {
        name: str(write_jsonl(folder / f"{name}.jsonl", part))
        for name, part in (("train", rows), ("test", test))
    }
    return (
        load_task({"name": "short", "template": "{text} Label:", **tiny_task}),
        load_task({"name": "long", "template": "{text} Label:", **files}),
    )


@pytest.fixture(scope="module")
def job(
    tiny_space: Space, tiny_model: Path, tasks: tuple[TaskSpec, ...], tmp_path_factory: pytest.TempPathFactory
) -> Job:
    space = with_settings(tiny_space, SETTINGS)
    return Job(space, str(tiny_model), tasks, tmp_path_factory.mktemp("joint") / "study", "joint")


@pytest.fixture(scope="module")
def both(job: Job) -> Found:
    return search(job, ["ctxpeft", "search", "tiny.yaml"])


def test_one_task_keeps_its_value() -> None:
    assert joint([1.25], None) == 1.25
    assert joint([1.25], [2.0]) == 1.25


def test_the_order_does_not_depend_on_the_references_nor_on_a_tasks_scale() -> None:
    a, b = [1.0, 0.2], [0.9, 0.23]
    order = joint(a, [1, 1]) < joint(b, [1, 1])
    assert order == (joint(a, [7, 0.3]) < joint(b, [7, 0.3]))
    assert joint([0.5 * 1000, 1.0], [1000, 1.0]) == pytest.approx(joint([1000, 0.5], [1000, 1.0]))
    assert joint([-0.5, -0.7], None) == pytest.approx(-0.6)
    assert math.isfinite(joint([0.0, 1.0], [1.0, 1.0]))


def test_every_task_has_its_own_rate_and_the_objective_is_their_mean(both: Found) -> None:
    references = {task["key"]: task["reference"] for task in both.about["tasks"]}
    assert references["short"] != references["long"]
    for row in both.rows:
        if row.outcome not in TRAINED:
            continue
        assert [score.task for score in row.tasks] == ["short", "long"]
        for score in row.tasks:
            values = {r.rate: r.value for r in score.rates}
            assert len(values) == 2
            assert score.rung == min(v for v in values.values() if v is not None)
        logs = [math.log((score.rung or 0) / references[score.task]) for score in row.tasks]
        assert row.rung == pytest.approx(math.exp(sum(logs) / 2))
        if row.outcome == "completed":
            logs = [math.log((score.value or 0) / references[score.task]) for score in row.tasks]
            assert row.value == pytest.approx(math.exp(sum(logs) / 2))
            means = [sum(score.metrics["accuracy"] for score in row.tasks) / 2]
            assert row.metrics["accuracy"] == pytest.approx(means[0])


def test_the_reference_is_the_frozen_model(both: Found, job: Job) -> None:
    from ctxpeft.training import TrainingConfig, load_base, prepare, run

    bench = prepare(load_base(job.model), job.open().benches["long"].task)
    frozen = run(bench, "none", TrainingConfig(steps=1), splits=("validation",), generate=0)
    reference = both.archive.references
    assert reference is not None
    assert reference["long"] == pytest.approx(
        frozen.evaluations["validation"].metrics["token_loss"], rel=1e-5
    )


def test_intervals_on_each_task_and_over_both(both: Found) -> None:
    finals = both.finals
    assert finals is not None
    anchors = {"prefix-tuning-plus", "prefix-tuning"}
    assert {(v.anchor, v.task) for v in finals.by_task} == {
        (a, t) for a in anchors for t in ("short", "long")
    }
    assert {(v.anchor, v.task) for v in finals.versus} == {(a, "") for a in anchors}
    for versus in finals.versus:
        parts = [v for v in finals.by_task if v.anchor == versus.anchor]
        assert versus.interval.mean == pytest.approx(sum(v.interval.mean for v in parts) / 2)
        assert versus.winner == pytest.approx(sum(v.winner for v in parts) / 2)
        assert versus.metric == "accuracy"
    assert Finals.from_plain(finals.plain()) == finals
    for method in finals.methods:
        assert [task.task for task in method.tasks] == ["short", "long"]
        assert all(len(task.validation) == len(task.test) == 2 for task in method.tasks)


def test_resuming_runs_nothing_twice_and_stays_the_same(both: Found, job: Job) -> None:
    before = {p: p.stat().st_mtime_ns for p in (job.out / "runs").rglob("result.json")}
    again = search(job, ["ctxpeft", "search", "tiny.yaml"])
    assert {p: p.stat().st_mtime_ns for p in (job.out / "runs").rglob("result.json")} == before
    assert (again.rows, again.finals) == (both.rows, both.finals)
    assert stored(job.url, None, job.out).rows == both.rows


def test_a_second_sitting_is_what_one_sitting_would_have_been(both: Found, job: Job, tmp_path: Path) -> None:
    shutil.copytree(job.out / "runs", tmp_path / "study" / "runs")
    other = replace(job, out=tmp_path / "study")
    first = search(replace(other, space=with_settings(job.space, {"search": {"trials": 1, "finalists": 0}})))
    assert len(first.rows) < len(both.rows)
    whole = search(other)
    assert [(r.fingerprint, r.value, r.tasks) for r in whole.rows] == [
        (r.fingerprint, r.value, r.tasks) for r in both.rows
    ]


def test_each_task_has_columns(both: Found) -> None:
    header, *lines = trials_csv(both.rows).splitlines()
    assert {"short.rate", "short.value", "long.accuracy", "long.rung"} <= set(header.split(","))
    assert all(line.count(",") >= header.count(",") for line in lines)


@pytest.mark.usefixtures("both")
def test_another_task_is_another_study(job: Job, tasks: tuple[TaskSpec, ...]) -> None:
    for changed, what in (
        ((tasks[0], tasks[1].model_copy(update={"max_length": 40})), "another task long"),
        ((tasks[0],), "another task"),
    ):
        with pytest.raises(SpecError, match=f"was made with {what}:"):
            search(replace(job, tasks=changed))


def test_a_metric_cannot_join_accuracy_and_loss(
    job: Job, tasks: tuple[TaskSpec, ...], tmp_path: Path
) -> None:
    text = write_jsonl(tmp_path / "text.jsonl", [{"text": row["text"]} for row in sentences(20, 9)])
    space = with_settings(job.space, {"search": {"objective": "metric"}})
    mixed = (tasks[0], load_task({"name": "text", "train": [str(text)]}))
    with pytest.raises(DataError, match=r"cannot join short \(accuracy\) and text \(token loss\)"):
        Laboratory(replace(job, space=space, tasks=mixed))


def test_tasks_of_different_kinds_share_the_relative_loss(
    job: Job, tasks: tuple[TaskSpec, ...], tmp_path: Path
) -> None:
    text = write_jsonl(tmp_path / "text.jsonl", [{"text": row["text"]} for row in sentences(40, 9)])
    mixed = (tasks[0], load_task({"name": "text", "train": [str(text)], "test": [str(text)]}))
    mixed = (tasks[0], load_task({"name": "text", "train": [str(text)], "test_fraction": 0.2}))
    space = with_settings(job.space, {"search": {"trials": 1, "seeds": 1}})
    finals = search(replace(job, space=space, tasks=mixed, out=tmp_path / "study")).finals
    if finals is not None:
        assert {(v.metric, v.greater_is_better) for v in finals.versus} == {("relative_token_loss", False)}
        assert {v.metric for v in finals.by_task} == {"accuracy", "token_loss"}


def test_tasks_come_from_the_command_line_or_the_space(tiny_task: dict[str, str], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"train: {tiny_task['train']}\n", encoding="utf-8")
    module = "modules: [{templates: {a: {placement: outside, feature_map: elu, memory: matrix}}}]"
    space = replace(space_of(f"task: [one.yaml, two.yaml]\n{module}"), folder=tmp_path)
    assert [spec.name for spec in tasks_of(space, [], [], [])] == ["one", "two"]
    given = [str(tmp_path / "two.yaml")]
    assert [spec.name for spec in tasks_of(space, given, [], [])] == ["two"]
    with pytest.raises(SpecError, match="two tasks are called 'two'"):
        tasks_of(space, given * 2, [], [])


def test_a_task_file_may_name_a_folder_by_the_environment(
    tiny_task: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("title: T\ntrain: $TINY_DATA/train.jsonl\n", encoding="utf-8")
    monkeypatch.delenv("TINY_DATA", raising=False)
    with pytest.raises(
        SpecError, match=r"t.yaml:2: train: '\$TINY_DATA/train.jsonl' names an environment variable"
    ):
        load_task(file)
    monkeypatch.setenv("TINY_DATA", str(Path(tiny_task["train"]).parent))
    assert load_task(file).train == [tiny_task["train"]]
