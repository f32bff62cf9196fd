"""A tiny random Llama with its own tokenizer, and a task it can learn something about: nothing is downloaded."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "lemon"],
    "metal": ["iron", "copper", "zinc", "silver", "tin"],
    "animal": ["horse", "otter", "fox", "heron", "vole"],
}
FILLER = [
    "the",
    "a",
    "of",
    "some",
    "near",
    "under",
    "old",
    "new",
    "red",
    "small",
    "we",
    "saw",
    "bought",
    "found",
    "it",
    "there",
]


def make_model(folder: Path, vocabulary: int = 400, seed: int = 0) -> Path:
    """Save a two-layer Llama (GQA, width 32) and a byte-level BPE tokenizer into `folder`."""
    corpus = [
        " ".join([*FILLER, *words, label]) + " Question: Answer: Label: \n" for label, words in WORDS.items()
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def make_encoder(folder: Path, seed: int = 0) -> Path:
    """Save a tiny random BERT without a head, and a tokenizer that ends every text, into `folder`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(make_model(folder))
    tokenizer.pad_token = "</s>"
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=1,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentences(count: int, seed: int) -> list[dict[str, str]]:
    """`count` rows `text,label`; the label is the family of the one word that is no filler."""
    chance = random.Random(seed)
    labels = sorted(WORDS)
    rows = []
    for i in range(count):
        label = labels[i % len(labels)]
        words = chance.choices(FILLER, k=chance.randint(3, 9))
        words.insert(chance.randrange(len(words)), chance.choice(WORDS[label]))
        rows.append({"text": " ".join([*words, str(i), str(seed)]), "label": label})
    return rows


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows, one a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_task(folder: Path) -> dict[str, str]:
    """Write a task into `folder`: paths of its train, test and ood files."""
    return {
        name: str(write_jsonl(folder / f"{name}.jsonl", sentences(count, seed)))
        for name, count, seed in (("train", 90, 1), ("test", 30, 2), ("ood", 12, 3))
    }


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model."""
    return make_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of train, test and ood files."""
    return make_task(tmp_path_factory.mktemp("tiny-task"))
