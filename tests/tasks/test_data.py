"""Formats, columns, splits and subsamples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxpeft.tasks import TaskData, TaskSpec, build_task, load_task, task_from_files, with_settings
from ctxpeft.tasks._split import hold_out, subsample, without
from tests.tasks.tiny import sentences, write_jsonl

ROWS = [{"text": f'row {i}, "quoted"\nand more', "label": "ab"[i % 2]} for i in range(20)]


def _csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    import csv
    import io

    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", _csv(ROWS).encode()),
        ("a.csv", b"\xef\xbb\xbf" + _csv(ROWS).encode()),
        ("a.csv", _csv(ROWS, ";").encode()),
        ("a.tsv", _csv(ROWS, "\t").encode()),
        ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.json", json.dumps({"data": ROWS}).encode()),
        ("a.json", "\n".join(map(json.dumps, ROWS)).encode()),
        ("a.jsonl", ("\r\n".join(map(json.dumps, ROWS)) + "\r\n\r\n").encode()),
    ],
)
def test_every_format_gives_the_same_task(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "reference.jsonl").write_bytes("\n".join(map(json.dumps, ROWS)).encode())
    found = build_task(task_from_files([str(tmp_path / name)]))
    reference = build_task(task_from_files([str(tmp_path / "reference.jsonl")]))
    assert found.digest() == reference.digest()
    assert found.labels == ("a", "b")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"text": "t", "label": "l"}, "classification"),
        ({"text": "t", "category": "l"}, "classification"),
        ({"sentence": "t", "Label": "l"}, "classification"),
        ({"prompt": "p", "completion": "c"}, "completion"),
        ({"instruction": "p", "output": "c"}, "completion"),
        ({"text": "t", "id": "7"}, "language_modelling"),
    ],
)
def test_kind_and_columns_are_recognised(tmp_path: Path, row: dict[str, str], kind: str) -> None:
    rows = [
        {k: f"{v}{i % 2}" if k.lower() in ("label", "category") else f"{v}{i}" for k, v in row.items()}
        for i in range(12)
    ]
    task = build_task(task_from_files([str(write_jsonl(tmp_path / "d.jsonl", rows))]))
    assert task.kind == kind
    recognised = {"category", "sentence", "Label", "instruction", "output"} & set(row)
    assert len(task.notes) == len(recognised)


def test_files_are_joined_and_settings_apply(tmp_path: Path) -> None:
    files = [str(write_jsonl(tmp_path / f"{i}.jsonl", sentences(30, i))) for i in range(2)]
    spec = with_settings(task_from_files(files), {"per_class": 5, "columns.text": "text", "draw": 3})
    task = build_task(spec)
    assert [sum(e.target == label for e in task.train) for label in task.labels] == [5, 5, 5]


def test_more_columns_in_the_template(tmp_path: Path) -> None:
    rows = [{"premise": f"p{i}", "hypothesis": f"h{i}", "label": "yn"[i % 2]} for i in range(10)]
    spec = task_from_files([str(write_jsonl(tmp_path / "d.jsonl", rows))])
    task = build_task(with_settings(spec, {"template": "{premise} so {hypothesis}? {label}"}))
    assert task.kind == "classification"
    assert task.template == "{premise} so {hypothesis}? "
    assert set(task.train[0].fields) == {"premise", "hypothesis"}


def _task(tmp_path: Path, **settings: object) -> TaskData:
    train, test = sentences(60, 1), sentences(20, 2)
    test += [{"text": "  " + train[4]["text"].upper(), "label": train[4]["label"]}]
    train += [train[7]] * 5
    spec = task_from_files(
        [str(write_jsonl(tmp_path / "a.jsonl", train))], [str(write_jsonl(tmp_path / "b.jsonl", test))]
    )
    return build_task(with_settings(spec, settings))


def test_no_text_is_on_two_sides(tmp_path: Path) -> None:
    task = _task(tmp_path)
    sides = [{e.key for e in side} for side in (task.train, task.validation, task.test)]
    for i, one in enumerate(sides):
        for other in sides[i + 1 :]:
            assert not one & other
    assert any("1 training examples" in note and "test" in note for note in task.notes)


def test_splits_do_not_depend_on_file_order(tmp_path: Path) -> None:
    rows = sentences(60, 1)
    one = build_task(task_from_files([str(write_jsonl(tmp_path / "a.jsonl", rows))]))
    two = build_task(task_from_files([str(write_jsonl(tmp_path / "b.jsonl", rows[::-1]))]))
    assert {e.id for e in one.validation} == {e.id for e in two.validation}
    assert {e.id for e in one.train} == {e.id for e in two.train}


def test_validation_is_stratified(tmp_path: Path) -> None:
    task = _task(tmp_path, validation_fraction=0.2)
    assert {label: sum(e.target == label for e in task.validation) for label in task.labels} == {
        "animal": 4,
        "fruit": 4,
        "metal": 4,
    }


def test_draws_are_nested_and_differ(tmp_path: Path) -> None:
    examples = _task(tmp_path).train
    small, large, other = (
        {e.id for e in subsample(examples, limit=n, draw=d)} for n, d in ((10, 0), (20, 0), (10, 1))
    )
    assert small < large
    assert small != other


def test_rare_classes_stay_in_training(tmp_path: Path) -> None:
    rows = [
        *sentences(30, 1),
        {"text": "only one", "label": "rare"},
        {"text": "x", "label": "two"},
        {"text": "y", "label": "two"},
    ]
    task = build_task(task_from_files([str(write_jsonl(tmp_path / "d.jsonl", rows))]))
    assert {"rare", "two"} <= {e.target for e in task.train}


def test_hold_out_and_without() -> None:
    task = TaskSpec(train=["x"])
    assert task.validation_fraction == 0.1
    from ctxpeft.tasks import Example

    examples = [Example(("text",), (f"t{i}",), "") for i in range(10)]
    kept, held = hold_out(examples, 0.3)
    assert (len(kept), len(held)) == (7, 3)
    assert without(kept, held) == (kept, 0)
    assert without(examples, held)[1] == 3


def test_a_task_file_finds_its_data(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", sentences(12, 0))
    (tmp_path / "mine.yaml").write_text("train: rows.jsonl\ntemplate: '{text} Label:'\n", encoding="utf-8")
    spec = load_task(tmp_path / "mine.yaml")
    assert spec.name == "mine"
    assert build_task(spec).labels == ("animal", "fruit", "metal")


def test_the_shipped_task() -> None:
    task = build_task(load_task("docstring-area"))
    assert len(task.labels) == 8
    assert min(len(task.train), len(task.validation), len(task.test), len(task.ood)) > 300
    assert task.notes == ()


def test_hub_needs_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from ctxpeft.errors import DataError

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'ctxpeft\[data\]'"):
        build_task(load_task("hub:some/dataset"))


def test_hub_rows_come_with_label_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    columns = {"text": [f"t{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    folder = tmp_path / "published"
    folder.mkdir()
    datasets.Dataset.from_dict(columns, features).to_parquet(folder / "train.parquet")
    hub = {"id": str(folder), "test": None}
    assert build_task(load_task({"name": "x", "hub": hub})).labels == ("no", "yes")
    named = load_task({"name": "x", "hub": {**hub, "rename": {"text": "query"}, "values": {"yes": "sure"}}})
    assert build_task(named).labels == ("no", "sure")
    from ctxpeft.errors import DataError

    with pytest.raises(DataError, match="has no split 'trian'; did you mean 'train'"):
        build_task(load_task({"name": "x", "hub": {**hub, "train": "trian"}}))
    with pytest.raises(DataError, match="has no column 'txet'; did you mean 'text'"):
        build_task(load_task({"name": "x", "hub": {**hub, "rename": {"txet": "text"}}}))
