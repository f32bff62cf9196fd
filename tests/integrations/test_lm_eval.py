"""The Language Model Evaluation Harness on an adapted model: as an object, and by `--model ctxpeft`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ctxpeft
from ctxpeft.errors import AdapterError
from ctxpeft.testing.tiny import perturb
from ctxpeft.training import load_base
from tests.extras import needs

needs("lm_eval", "eval")
pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = [
    {"question": f"a {word} is", "choices": ["red", "a kind of animal", "far away"], "answer": place % 3}
    for place, word in enumerate(["cat", "stone", "tree", "cloud", "river", "dog"])
]
TASK = """\
task: kinds
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: multiple_choice
test_split: test
doc_to_text: question
doc_to_target: answer
doc_to_choice: choices
metric_list: [{metric: acc}]
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one task of the harness over a local file."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "kinds.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (folder / "kinds.yaml").write_text(TASK.replace("DATA", str(data)), encoding="utf-8")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return folder


def scores(model: Any, tasks: Path) -> list[list[float]]:
    """The log-likelihood of every choice of every question."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = simple_evaluate(model, tasks=["kinds"], task_manager=manager, log_samples=True, bootstrap_iters=0)
    samples = sorted(found["samples"]["kinds"], key=lambda s: s["doc_id"])
    return [[float(r[0][0] if isinstance(r[0], list | tuple) else r[0]) for r in s["resps"]] for s in samples]


def by_hand(base: Any) -> list[list[float]]:
    """The same log-likelihoods from plain forward passes."""
    found = []
    for row in ROWS:
        question = base.tokenizer(row["question"], add_special_tokens=False)["input_ids"]
        found.append([])
        for choice in row["choices"]:
            ids = base.tokenizer(f"{row['question']} {choice}", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                told = torch.log_softmax(base.model(torch.tensor([ids])).logits[0], -1)
            found[-1].append(sum(float(told[i - 1, ids[i]]) for i in range(len(question), len(ids))))
    return found


def test_an_adapted_object(tasks: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    base = load_base()
    plain = scores(HFLM(pretrained=base.model, tokenizer=base.tokenizer, add_bos_token=False), tasks)
    handle = ctxpeft.attach(base.model, "prefix-tuning-plus", seed=0)
    perturb(handle)
    harness = HFLM(pretrained=base.model, tokenizer=base.tokenizer, add_bos_token=False, batch_size=4)
    adapted = scores(harness, tasks)
    assert torch.allclose(torch.tensor(adapted), torch.tensor(by_hand(base)), atol=1e-3)
    assert not torch.allclose(torch.tensor(adapted), torch.tensor(plain), atol=0.1)


def test_by_name(tasks: Path, tmp_path: Path) -> None:
    """What `python -m ctxpeft.integrations.lm_eval` runs: the registered model, with one adapter and with two."""
    import ctxpeft.data
    from ctxpeft.integrations.lm_eval import AdaptedLM

    base = load_base()
    options = {"device": "cpu", "dtype": "float32", "add_bos_token": False, "batch_size": 2}
    folders = []
    for place, variant in enumerate(("prefix-tuning", "prefix-tuning-plus")):
        handle = ctxpeft.attach(base.model, variant, name=f"a{place}", seed=0)
        perturb(handle, seed=place)
        handle.save(tmp_path / f"a{place}")
        folders.append(str(tmp_path / f"a{place}"))
    path = str(ctxpeft.data.mini_model_path())
    both = AdaptedLM(pretrained=path, adapter="+".join(folders), **options)
    assert torch.allclose(torch.tensor(scores(both, tasks)), torch.tensor(by_hand(base)), atol=1e-3)
    ctxpeft.activate(base.model, ["a0"])
    one = AdaptedLM(pretrained=path, adapter=folders[0], **options)
    assert torch.allclose(torch.tensor(scores(one, tasks)), torch.tensor(by_hand(base)), atol=1e-3)
    with pytest.raises(AdapterError, match="no such folder"):
        AdaptedLM(pretrained=path, adapter=str(tmp_path / "none"), **options)


def test_the_command(tasks: Path, tmp_path: Path) -> None:
    import ctxpeft.data

    base = load_base()
    ctxpeft.attach(base.model, "prefix-tuning-plus", seed=0).save(tmp_path / "adapter")
    path = ctxpeft.data.mini_model_path()
    arguments = f"pretrained={path},adapter={tmp_path / 'adapter'},dtype=float32,add_bos_token=False"
    command = [sys.executable, "-m", "ctxpeft.integrations.lm_eval", "run", "--model", "ctxpeft"]
    command += [
        "--model_args",
        arguments,
        "--tasks",
        "kinds",
        "--include_path",
        str(tasks),
        "--device",
        "cpu",
    ]
    command += ["--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = (tmp_path / "out").rglob("results*.json")
    results = json.loads(report.read_text(encoding="utf-8"))
    expected = [max(range(3), key=told.__getitem__) for told in by_hand(base)]
    accuracy = sum(e == row["answer"] for e, row in zip(expected, ROWS, strict=True)) / len(ROWS)
    assert results["results"]["kinds"]["acc,none"] == pytest.approx(accuracy)
