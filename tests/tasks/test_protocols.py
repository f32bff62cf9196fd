"""Every shipped protocol: its file, the layout its set is published in, and some real steps on the shipped model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evidence.prepare import fairytale_questions, write
from ctxpeft.analysis.compare import compare
from ctxpeft.data import protocol_names, protocol_path
from ctxpeft.errors import CtxpeftError, DataError
from ctxpeft.tasks import TaskData, build_task, load_task, on_files, with_settings
from ctxpeft.training import TrainingConfig, load_base, prepare
from tests.cli.running import run as command

QUICK = TrainingConfig(steps=2, batch_size=2, eval_every=0)
SMALL = {"test_limit": 6, "validation_limit": 4, "generate_limit": 2}
FEW = [name for name in protocol_names() if name.endswith("-few-shot")]
ABSENT = ("dbpedia", "dbpedia-few-shot")  # no real rows of it here
DECODER = [name for name in protocol_names() if name not in ("trec-encoder", *ABSENT)]


@dataclass(frozen=True)
class Published:
    """A set as the hub has it: the class labels of a column, rows a split, and what they make of the protocol."""

    rows: list[dict[str, Any]]
    classes: dict[str, list[str]] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    prompt: str = ""
    targets: tuple[str, ...] = ()


def _questions(column: str, names: list[str]) -> list[dict[str, Any]]:
    return [{"text": f"who is number {i} ?", column: i % len(names)} for i in range(24)]


TREC = ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]
CHOICES = {"text": ["sand", "the sun", "ice"], "label": ["A", "B", "C"]}
HUB: dict[str, Published] = {
    "trec": Published(
        [{**row, "fine_label": 3} for row in _questions("coarse_label", TREC)],
        {"coarse_label": TREC},
        prompt="Question: who is number 0 ? Type:",
        targets=("abbreviation", "description", "entity", "human", "location", "number"),
    ),
    "sst2": Published(
        [
            {"text": f"film {i}", "label": i % 2, "label_text": ["negative", "positive"][i % 2]}
            for i in range(20)
        ],
        prompt="Review: film 0 Sentiment:",
        targets=("negative", "positive"),
    ),
    "banking77": Published(
        [{"text": f"card {i}", "label": i % 3, "label_text": f"intent_{i % 3}"} for i in range(20)],
        prompt="Query: card 0 Intent:",
        targets=("intent_0", "intent_1", "intent_2"),
    ),
    "goemotions": Published(
        [{"text": f"well {i}", "labels": [i % 28] if i % 5 else [1, 2], "id": str(i)} for i in range(140)],
        {"labels": [f"emotion_{i}" if i else "admiration" for i in range(28)]},
        ("labels",),
    ),
    "dbpedia": Published(
        [{"title": f"t {i}", "content": f"a place {i}", "label": i % 2} for i in range(20)],
        {"label": ["Company", "Village"]},
        prompt="Article: a place 0 Class:",
        targets=("Company", "Village"),
    ),
    "e2e": Published(
        [
            {
                "meaning_representation": f"name[The {i}], area[city]",
                "target": f"The {i} is in the city .",
                "references": [f"The {i} is in the city .", f"In the city there is The {i} ."]
                if i > 12
                else [],
            }
            for i in range(20)
        ],
        prompt="name[The 0], area[city]\nText:",
    ),
    "webnlg": Published(
        [
            {
                "input": [f"A{i} | cityServed | B", "B | country | C"],
                "target": f"A{i} serves B .",
                "references": [],
                "category": ["Airport", "Artist"][i % 5 == 4],
            }
            for i in range(20)
        ],
        prompt="A0 | cityServed | B && B | country | C\nText:",
    ),
    "arc-easy": Published(
        [
            {"id": str(i), "question": f"What is hot {i}?", "choices": CHOICES, "answerKey": "B"}
            for i in range(20)
        ],
        prompt="Question: What is hot 0?\nAnswer:",
        targets=("the sun",),
    ),
    "openbookqa": Published(
        [
            {"question_stem": f"Hot {i} is", "choices": CHOICES, "answerKey": "B", "id": "x"}
            for i in range(20)
        ],
        prompt="Hot 0 is",
        targets=("the sun",),
    ),
    "alpaca": Published(
        [
            {"instruction": f"Say {i}", "input": "" if i % 2 else "loud", "output": f"{i}", "text": "x"}
            for i in range(60)
        ],
        prompt="### Instruction:\nSay 0\n\n### Input:\nloud\n\n### Response:\n",
    ),
    "fairytaleqa": Published(
        [
            {
                "story_name": "s",
                "story_section": f"Once {i} kings lived .",
                "question": "How many ?",
                "answer1": f"{i}",
                "answer2": f"{i}",
            }
            for i in range(20)
        ],
        prompt="Once 0 kings lived .\nQuestion: How many ?\nAnswer:",
    ),
}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_every_protocol_says_what_it_is() -> None:
    assert {name.removesuffix("-few-shot").removesuffix("-encoder") for name in protocol_names()} == set(HUB)
    for name in protocol_names():
        spec = load_task(name)
        assert spec.name == name
        assert spec.title
        assert spec.source
        assert spec.licence
        assert spec.hub is not None
    for name in FEW:
        assert (load_task(name).per_class, load_task(name).draw) == (1, "seed")


@pytest.mark.parametrize("name", HUB)
def test_the_layout_of_the_hub(name: str, cached: Path) -> None:
    """The same code that reads the hub reads a folder of parquet files with the published columns."""
    import datasets

    published = HUB[name]
    folder = cached / "published"
    folder.mkdir()
    found = datasets.Dataset.from_list(published.rows)
    for column, names in published.classes.items():
        label = datasets.ClassLabel(names=names)
        found = found.cast_column(column, datasets.Sequence(label) if column in published.lists else label)
    half = len(found) * 2 // 3
    parts = {"train": range(half), "validation": range(half, half), "test": range(half, len(found))}
    spec = load_task(name)
    assert spec.hub is not None
    for split in ("train", "test") if spec.hub.test else ("train",):
        found.select(parts[split] if spec.hub.test else range(len(found))).to_parquet(
            folder / f"{split}.parquet"
        )
    local = {"hub.id": str(folder), "hub.config": None, "hub.revision": None, "hub.validation": None}
    task = build_task(with_settings(spec, local))
    assert task.kind == spec.kind
    prompts = {
        task.template.rstrip(" ").format(**e.fields) for e in (*task.train, *task.validation, *task.test)
    }
    assert published.prompt in prompts or not published.prompt
    if published.targets:
        assert {e.target for e in task.train} <= set(published.targets)
        assert not task.labels or task.labels == published.targets
    if name == "webnlg":
        assert len(task.ood) == 4
    if name == "e2e":
        assert len(task.test) == 2 * len({e.key for e in task.test}) > 0
    if name == "goemotions":
        assert "admiration" in task.labels
        assert any("rows of other labels were left out" in note for note in task.notes)


@pytest.fixture(scope="module")
def local(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Real rows of every set that is here, in the columns of its protocol."""
    data, out = shared / "data", tmp_path_factory.mktemp("slices")
    sources = {
        "trec": data / "trec" / "train.jsonl",
        "sst2": data / "sst2" / "train.jsonl",
        "banking77": data / "banking77" / "train.csv",
        "goemotions": data / "goemotions" / "train.tsv",
        "e2e": data / "e2e" / "valid.jsonl",
        "webnlg": data / "webnlg2017" / "train.jsonl",
        "arc-easy": data / "commonsense" / "ARC-Easy.train.json",
        "openbookqa": data / "commonsense" / "openbookqa.train.json",
        "alpaca": data / "instruct" / "alpaca_en_demo.json",
    }
    tales = data / "fairytaleqa"
    rows = fairytale_questions(tales / "train.qa.jsonl", [tales / "train.stories.jsonl"])
    write(out / "fairytaleqa.jsonl", _first(rows, 40))
    return {
        **{name: [str(path)] for name, path in sources.items()},
        "fairytaleqa": [str(out / "fairytaleqa.jsonl")],
    }


def _first(rows: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [row for row, _ in zip(rows, range(count), strict=False)]


def slice_of(name: str, local: dict[str, list[str]]) -> TaskData:
    """The protocol on real rows, a few of them."""
    base = name.removesuffix("-few-shot").removesuffix("-encoder")
    settings: dict[str, Any] = {**SMALL, "test_fraction": 0.1}
    if base == "webnlg":
        settings["unseen"] = {"category": ["Monument"]}
    if not name.endswith("-few-shot"):
        settings["limit"] = 40
    return build_task(with_settings(on_files(load_task(name), local[base]), settings))


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODER)
def test_real_rows_train_and_are_judged(name: str, local: dict[str, list[str]], tmp_path: Path) -> None:
    task = slice_of(name, local)
    bench = prepare(load_base(), task)
    result = compare(bench, ["prefix-tuning-plus", "none"], tmp_path, seeds=2, config=QUICK, resamples=50)
    primary = task.spec.primary or "accuracy"
    assert result.metric == primary
    assert all(0 <= value <= 1 for entry in result.entries for value in entry.values)
    assert set(task.spec.metrics) <= set(result.entries[0].metrics)
    assert result.entries[0].metrics["token_loss"] != result.entries[1].metrics["token_loss"]
    assert result.draws == (name in FEW)
    if name in FEW:
        assert result.train_examples <= len(task.labels)
    if name == "webnlg":
        assert result.ood_metric == "rouge_l"
        assert len(task.ood) > len({e.key for e in task.ood}) == SMALL["test_limit"]
    if task.spec.metrics:
        rows = (
            next((tmp_path / "runs").glob("none-*/seed-0*/predictions-test.jsonl")).read_text().splitlines()
        )
        assert all(json.loads(row)["predicted"] is not None for row in rows)


def test_a_task_file_may_extend_another(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("extends: trec\nname: mine\nmax_length: 64\n")
    (tmp_path / "two.yaml").write_text("extends: one.yaml\nper_class: 3\n")
    two = load_task(tmp_path / "two.yaml")
    assert (two.name, two.max_length, two.per_class) == ("two", 64, 3)
    assert two.template == load_task("trec").template
    (tmp_path / "one.yaml").write_text("extends: two.yaml\n")
    with pytest.raises(DataError, match="extends itself by way of"):
        load_task(tmp_path / "two.yaml")
    (tmp_path / "one.yaml").write_text("extends: trek\n")
    with pytest.raises(DataError, match="did you mean 'trec'"):
        load_task(tmp_path / "one.yaml")


def test_the_prompt_of_a_protocol_on_ones_own_files(
    tmp_path: Path, tiny_model: Path, tiny_task: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", tiny_model, "--data", tiny_task["train"], "--test", tiny_task["test"])
    done = command(capsys, "train", "--task", "trec", "--variant", "ia3", *flags, "--dry-run", "--json")
    plan = done.result["plan"]
    assert (plan["train"], plan["test"]) == (81, 30)
    assert plan["example"]["prompt"].startswith("<s>Question: ")
    assert protocol_path("trec").is_file()
    with pytest.raises(DataError, match="did you mean 'trec'"):
        protocol_path("trek")


def test_settings_that_contradict(tmp_path: Path) -> None:
    rows = tmp_path / "d.jsonl"
    rows.write_text('{"text": "a", "label": "x", "kind": "k"}\n{"text": "b", "label": "y", "kind": "k"}\n')
    for settings, told in (
        ({"metrics": ["bleu"]}, "metrics needs one of rouge_l, f1, exact_match"),
        ({"skip_other_labels": True}, "skip_other_labels needs labels"),
        ({"kind": "completion", "head": "classifier"}, "no use for kind completion"),
        ({"unseen": {"knid": ["k"]}}, "no column 'knid' for `unseen`; did you mean 'kind'"),
        ({"unseen": {"kind": ["other"]}}, "no row has one of the values of `unseen`"),
        ({"labels": ["z"], "skip_other_labels": True}, "no row has one of the task's labels"),
    ):
        with pytest.raises(CtxpeftError, match=told):
            build_task(load_task({"train": [str(rows)], **settings}))
