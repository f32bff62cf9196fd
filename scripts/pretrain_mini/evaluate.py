"""Everything the model card states, measured and written to `evaluation.json` beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from scripts.pretrain_mini.compression import bits_per_byte, joined
from scripts.pretrain_mini.ngram import KneserNey
from scripts.pretrain_mini.probe import Labelled, probe
from scripts.pretrain_mini.train import Recipe

#: Prompt and seed of each sampled continuation in the card: taken as they come, none chosen.
PROMPTS = ("Once upon a time", "The old king looked at the", "Return a list of", "Open the file and")
SAMPLE = {"max_new_tokens": 60, "do_sample": True, "temperature": 0.8, "top_k": 40}

FILE = "evaluation.json"


def samples(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[dict[str, str]]:
    """One continuation a prompt, with seed 0 each."""
    found = []
    for prompt in PROMPTS:
        torch.manual_seed(0)
        encoded = tokenizer(prompt, return_tensors="pt")
        ids = model.generate(**encoded, **SAMPLE)[0, encoded["input_ids"].shape[1] :]
        found.append({"prompt": prompt, "continuation": tokenizer.decode(ids, skip_special_tokens=True)})
    return found


def probes(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, area: Path, trec: Path | None
) -> dict[str, dict[str, Any]]:
    """Task -> `trained` and `random_init` -> probe results; the random network has the same shape, seed 1."""
    torch.manual_seed(1)
    fresh = type(model)(model.config).eval()
    sets = {
        "docstring-area": (
            Labelled.read(area / "train.jsonl"),
            Labelled.read(area / "validation.jsonl"),
            {name: Labelled.read(area / f"{name}.jsonl") for name in ("test", "ood")},
        )
    }
    if trec is not None:
        train, validation = Labelled.read(trec / "train.jsonl").split(10)
        sets["trec-6"] = (train, validation, {"test": Labelled.read(trec / "test.jsonl")})
    return {
        task: {
            "trained": probe(model, tokenizer, *data),
            "random_init": probe(fresh, tokenizer, *data),
        }
        for task, data in sets.items()
    }


def word_baseline(area: Path) -> dict[str, float]:
    """Accuracy by split of TF-IDF words and logistic regression on docstring-area, from the snapshot's manifest."""
    manifest = json.loads((area / "manifest.json").read_text(encoding="utf-8"))
    return {split: found["tfidf_logistic_regression"] for split, found in manifest["baselines"].items()}


def training(work: Path, name: str) -> dict[str, Any]:
    """What the decay run `name` made of the stable run, from its log: steps, tokens, final loss in nats per token."""
    with (work / f"{name}.jsonl").open(encoding="utf-8") as log:
        lines = [json.loads(line) for line in log]
    start, points = lines[0], [line for line in lines if "loss" in line]
    return {
        "steps": points[-1]["step"],
        "decay_steps": points[-1]["step"] - start["start"],
        "tokens": points[-1]["tokens"],
        "hours": round(points[-1]["seconds"] / 3600, 2),
        "final_loss": round(sum(point["loss"] for point in points[-5:]) / len(points[-5:]), 4),
        "recipe": vars(Recipe()),
        "corpus": json.loads((work / "corpus.json").read_text(encoding="utf-8")),
    }


def evaluate(folder: Path, work: Path, name: str, area: Path, trec: Path | None) -> dict[str, Any]:
    """Measure the model in `folder` on the held-out text of `work`, and write `folder/evaluation.json`."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = {
        stream: json.loads((work / f"{stream}.json").read_text(encoding="utf-8"))
        for stream in ("books", "docs", "held_out_books", "held_out_docs")
    }
    counted = KneserNey(joined(texts["books"] + texts["docs"]))
    result = {
        "command": "python -m scripts.pretrain_mini evaluate --work WORK --trec TREC",
        "parameters": sum(p.numel() for p in model.parameters()),
        "training": training(work, name),
        "bits_per_byte": {
            stream: bits_per_byte(model, tokenizer, counted, texts[stream])
            for stream in ("held_out_books", "held_out_docs")
        },
        "probes": probes(model, tokenizer, area, trec),
        "words": {"docstring-area": word_baseline(area)},
        "samples": samples(model, tokenizer),
    }
    (folder / FILE).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return result
