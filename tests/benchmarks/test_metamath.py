"""The benchmark of HF PEFT on a tiny model: the same data, loss, order and judgement, and its result file."""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import ctxpeft
from benchmarks.evidence.prepare import write as write_rows
from benchmarks.metamath.__main__ import EXPERIMENTS, main, shipped
from benchmarks.metamath.answers import accuracy, answer, value
from benchmarks.metamath.data import LONGEST, Sources, load_sets
from benchmarks.metamath.loop import Meter, batches, encoded, loss_of, text_loss, train, written
from benchmarks.metamath.parameters import Parameters, load_parameters
from ctxpeft.errors import DataError, SpecError
from tests.tasks.tiny import tiny_model, tiny_task

__all__ = ["tiny_model", "tiny_task"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("metamath")
    train = [
        {
            "type": "x",
            "query": f"we saw {i} foxes {'and a plum ' * (i % 5)}",
            "response": f"{i}. The answer is: {i}",
        }
        for i in range(40)
    ]
    train.insert(3, {"type": "x", "query": "q" * LONGEST, "response": "The answer is: 1"})
    write_rows(folder / "metamath.jsonl", train)
    for name, count in (("train", 60), ("test", 7)):
        rows = [{"question": f"how many {i} foxes", "answer": f"some\n#### {i}"} for i in range(count)]
        write_rows(folder / f"{name}.jsonl", rows)
    write_rows(folder / "wiki.jsonl", [{"text": f"the old fox near {i} red plums " * 3} for i in range(5)])
    return {name: folder / f"{name}.jsonl" for name in ("metamath", "train", "test", "wiki")}


def sources(files: dict[str, Path]) -> Sources:
    return Sources(str(files["metamath"]), f"{files['train']},{files['test']}", str(files["wiki"]))


def flags(files: dict[str, Path], model: Path) -> list[str]:
    where = sources(files)
    small = [
        f"model_id={model}",
        "dtype=float32",
        "max_steps=4",
        "eval_steps=2",
        "batch_size=2",
        "max_seq_length=96",
    ]
    small.append("generation_kwargs={max_length: 100, max_new_tokens: 6}")
    return [
        "--metamath",
        where.metamath,
        "--gsm8k",
        where.gsm8k,
        "--wiki",
        where.wiki,
        "--set",
        *small,
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Answer: so 4^2. The answer is: 16", 16.0),
        ("The answer is 3/4.", 0.75),
        ("x\n#### 1,000", "1,000"),
        ("The final answer is: $5.\n\nNext question The answer", 5.0),
        ("The answer is: 1\nThe answer is: 50%", 50.0),
        ("The answer is: 2/0", "2/0"),
        ("#### 7 The answer is: 8!", 8.0),
        ("nothing", None),
    ],
)
def test_answers(text: str, found: object) -> None:
    assert value(answer(text)) == found


def test_accuracy_counts_equal_answers() -> None:
    responses = ["#### 4", "#### 1/2", "#### x + 1"]
    assert accuracy(["The answer is: 4.0", "The answer is 0.5", "The answer is: x + 1"], responses) == 1.0
    assert accuracy(["4", "The answer is 0.6", "The answer is: x + 2"], responses) == 0.0
    with pytest.raises(ValueError, match="no answer in the response"):
        accuracy(["x"], ["x"])


def test_data_are_filtered_and_drawn_as_there(files: dict[str, Path]) -> None:
    import numpy as np

    sets = load_sets(sources(files))
    assert len(sets.train) == 40
    assert [row["query"] for row in sets.train[:2]] == ["we saw 0 foxes ", "we saw 1 foxes and a plum "]
    np.random.seed(0)
    order = np.arange(60)
    np.random.shuffle(order)
    assert [row["query"] for row in sets.validation] == [f"how many {i} foxes" for i in order[:50]]
    assert (len(sets.test), len(sets.texts)) == (7, 5)


def test_buckets_keep_the_order_of_the_set_and_sort_within() -> None:
    ids = [[0] * (1 + (7 * i) % 11) for i in range(100)]
    found = list(batches(ids, 2))
    assert len(found) == 50
    assert [sorted(map(len, b)) for b in found[:1]] == [[11, 11]]
    for start in (0, 40, 80):
        part = [len(row) for batch in found[start // 2 : start // 2 + 20] for row in batch]
        assert part == sorted(part, reverse=True)
        assert sorted(part) == sorted(len(row) for row in ids[start : start + 40])


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.pad_token = tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval(), tokenizer


def test_the_loss_is_of_all_tokens_and_one_end(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    rows = [[0, 5, 6, 7, 8], [0, 9, 10]]
    total, end = 0.0, tokenizer.eos_token_id
    for row, answers in ((rows[0], rows[0]), (rows[1], [*rows[1], end])):
        with torch.no_grad():
            logp = model(torch.tensor([row])).logits[0].log_softmax(-1)
        total -= sum(float(logp[i, answers[i + 1]]) for i in range(len(answers) - 1))
    found = loss_of(model, rows, end, "cpu")
    assert found.item() == pytest.approx(total / 8, rel=1e-4)


def test_text_loss_and_text_are_those_of_single_rows(loaded: tuple[Any, Any], files: dict[str, Path]) -> None:
    model, tokenizer = loaded
    texts = load_sets(sources(files)).texts
    sums = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums += [-float(logp[i, ids[i + 1]]) for i in range(len(ids) - 1)]
    assert text_loss(model, tokenizer, texts, 2) == pytest.approx(sum(sums) / len(sums), rel=1e-5)
    parameters = Parameters(generation_kwargs={"max_length": 60, "max_new_tokens": 5}, batch_size_eval=2)
    prompts = [tokenizer(text[: 9 + 4 * i])["input_ids"] for i, text in enumerate(texts[:3])]
    for prompt, text in zip(prompts, written(model, tokenizer, prompts, parameters), strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(5):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert text == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_result_as_the_table_reads_it(
    tiny_model: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "prefix-tuning-plus/llama-3.2-3B-lr_0.001"
    on = [
        "run",
        name,
        "--results",
        str(tmp_path),
        "--keep",
        str(tmp_path / "kept"),
        *flags(files, tiny_model),
    ]
    assert main(on) == 0, capsys.readouterr().err
    path = tmp_path / "prefix-tuning-plus--llama-3.2-3B-lr_0.001.json"
    found = json.loads(path.read_text())
    assert set(found) == {"run_info", "train_info", "meta_info"}
    run, train_info = found["run_info"], found["train_info"]
    assert run["experiment_name"] == name
    assert run["peft_config"]["peft_type"] == "CTXPEFT:prefix-tuning-plus"
    assert run["train_config"]["optimizer_kwargs"] == {"lr": 1e-3, "weight_decay": 0.0}
    assert train_info["status"] == "success"
    assert train_info["num_trainable_params"] == 2 * 4 * 8 * 8
    assert [m["step"] for m in train_info["metrics"]] == [2, 4, 4]
    last = train_info["metrics"][-1]
    assert set(last) == {
        "step",
        "test accuracy",
        "train loss",
        "train samples",
        "train total tokens",
        "forgetting",
    }
    assert (last["train samples"], last["forgetting"] != 0) == (8, True)
    kept = tmp_path / "kept" / "prefix-tuning-plus" / "llama-3.2-3B-lr_0.001"
    assert (kept / "adapter.safetensors").stat().st_size == train_info["file_size"]
    before = path.read_bytes()
    assert main(on) == 0
    assert path.read_bytes() == before
    assert "is there already" in capsys.readouterr().err


def test_every_shipped_experiment_runs_and_is_as_large_as_it_says(
    tiny_model: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    sizes = {
        "prefix-tuning-plus": 11_010_048,
        "prefix-tuning-plus-kv-shared": 3_670_016,
        "prefix-tuning": 11_468_800,
        "ntk-attention": 11_096_064,
        "parallel-adapter-ffn": 8_258_880,
    }
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    from ctxpeft.hosts.count import count_parameters

    with torch.device("meta"):
        large = LlamaForCausalLM(config)
    for name in shipped():
        variant = ctxpeft.load_variant(EXPERIMENTS / name / "variant.yaml")
        assert count_parameters(large, variant) == sizes[name.split("/")[0]], name
    assert main(["run", *shipped(), "--results", str(tmp_path), *flags(files, tiny_model)]) == 0
    assert len(list(tmp_path.glob("*.json"))) == len(shipped())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_step": 3}, "did you mean 'max_steps'"),
        ({"optimizer_type": "lora+"}, "optimizer_type"),
        ({"query_template": "no"}, "has no {query}"),
        ({"optimizer_kwargs": {}}, "no learning rate"),
        ({"compile": True}, "compile"),
    ],
)
def test_parameters_that_are_refused(tmp_path: Path, given: dict[str, Any], told: str) -> None:
    (tmp_path / "training_params.json").write_text(json.dumps(given))
    with pytest.raises(SpecError) as caught:
        load_parameters(tmp_path, {})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "prefix-tuning-pluss/x", "--results", str(tmp_path)]) == 2
    assert "no experiment 'prefix-tuning-pluss/x'" in capsys.readouterr().err
    (tmp_path / "m" / "n").mkdir(parents=True)
    assert main(["run", str(tmp_path / "m" / "n"), "--results", str(tmp_path)]) == 2
    assert "holds no variant.yaml" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"expected TRAIN\.jsonl,TEST\.jsonl"):
        load_sets(Sources(gsm8k="one.jsonl", metamath=str(_rows(tmp_path)), wiki="w.jsonl"))


def _rows(folder: Path) -> Path:
    write_rows(folder / "m.jsonl", [{"query": "q", "response": "r"}])
    return folder / "m.jsonl"


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`run.py` and `utils.py` of PEFT's comparison, from a checkout named by $CTXPEFT_PEFT, made to load on a CPU."""
    checkout = os.environ.get("CTXPEFT_PEFT")
    folder = Path(checkout or "", "method_comparison", "MetaMathQA")
    if not checkout or not (folder / "run.py").is_file():
        pytest.skip("compares with a checkout of huggingface/peft: set CTXPEFT_PEFT to it")
    import peft.utils

    monkeypatch.setattr(peft.utils, "infer_device", lambda: "cuda")
    stub: Any = types.ModuleType("bitsandbytes")
    stub.__version__ = "0"
    monkeypatch.setitem(sys.modules, "bitsandbytes", stub)
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield importlib.import_module("run")
    for name in set(sys.modules) - before:
        if name in ("run", "utils", "data"):
            del sys.modules[name]


@pytest.mark.filterwarnings("ignore")
def test_the_losses_are_those_of_the_original(
    upstream: Any, tiny_model: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT's own `train` and ours, on the same adapter: every loss, the metrics and the judgement."""
    parameters = Parameters(
        max_steps=25,
        eval_steps=10,
        batch_size=2,
        max_seq_length=40,
        generation_kwargs={"max_length": 100, "max_new_tokens": 6},
    )
    sets = load_sets(sources(files))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side, tokenizer.model_max_length = "right", parameters.max_seq_length
    runs = []
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        handle = ctxpeft.attach(model, "prefix-tuning-plus", seed=0)
        runs.append((model, handle))
    metrics, _, losses = train(
        *runs[0], tokenizer, sets, parameters, Meter(torch.device("cpu")), lambda text: None
    )
    model, handle = runs[1]
    model.peft_config, model.disable_adapter = {}, handle.disabled
    model.get_nb_trainable_parameters = lambda: (1, 1)

    class Table(list[Any]):
        """As much of a dataset as the original asks for: slices are columns."""

        def __getitem__(self, index: Any) -> Any:
            rows = list.__getitem__(self, index)
            return {key: [row[key] for row in rows] for key in rows[0]} if isinstance(index, slice) else rows

    def table(rows: Any, with_response: bool) -> Table:
        ids = encoded(tokenizer, rows, parameters, with_response)
        return Table(
            {"input_ids": i, "attention_mask": [1] * len(i), "response": r["response"]}
            for i, r in zip(ids, rows, strict=True)
        )

    three = (table(sets.train, True), table(sets.validation, False), table(sets.test, False))
    monkeypatch.setattr(upstream, "get_train_valid_test_datasets", lambda **_: three)
    monkeypatch.setattr(upstream, "get_wiki_small", lambda: list(sets.texts))
    monkeypatch.setattr(upstream, "print_verbose", lambda *_, **__: None, raising=False)
    monkeypatch.setattr(upstream, "device", "cpu", raising=False)
    original = upstream.calculate_mean_per_token_loss
    shift = 1.5 - original(
        model=model, tokenizer=tokenizer, rows=list(sets.texts), batch_size=2, max_length=768
    )
    monkeypatch.setattr(upstream, "calculate_mean_per_token_loss", lambda **k: original(**k) + shift)
    result = upstream.train(
        model=model,
        max_steps=25,
        batch_size=2,
        batch_size_eval=parameters.batch_size_eval,
        tokenizer=tokenizer,
        accelerator_memory_init=0,
        eval_steps=10,
        generation_kwargs=parameters.generation_kwargs,
        grad_norm_clip=1.0,
        optimizer_type="AdamW",
        optimizer_kwargs=parameters.optimizer_kwargs,
        query_template=parameters.query_template,
        lr_scheduler_arg="cosine",
        use_amp=False,
        is_adalora=False,
        init_kv_cache_prefix=None,
        is_adamss=False,
    )
    assert result.error_msg == ""
    assert result.losses == pytest.approx(losses, rel=1e-5)
    assert len(losses) == 20
    for ours, theirs in zip(metrics, result.metrics, strict=True):
        for key in theirs:
            if "time" not in key and "sec" not in key and key != "train loss":
                assert ours[key] == pytest.approx(theirs[key], abs=1e-5), key
