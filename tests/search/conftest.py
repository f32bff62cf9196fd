"""A model's shapes without its weights, and a space small enough to be searched in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ctxpeft.search.job import Job
from ctxpeft.search.run import Found, search
from ctxpeft.search.spacefile import Space, space_from_document
from ctxpeft.spec.yaml_lines import parse_yaml
from ctxpeft.tasks import load_task
from tests.tasks.tiny import tiny_model, tiny_task

__all__ = ["tiny_model", "tiny_task"]

TINY_SPACE = """
title: A tiny space
anchors: [prefix-tuning-plus, prefix-tuning]
modules:
  - templates:
      matrix:
        placement: outside
        feature_map: [elu, gelu, relu]
        memory: {kind: matrix}
      prefix:
        placement: inside
        merge: [compete, compete_length]
        memory: {kind: slots, count: {low: 2, high: 4}}
rates: {multipliers: [1, 3], widen: 0}
search: {trials: 5, rung: 0.5, warmup: 2, finalists: 1, seeds: 2, retune: 0}
training: {steps: 6, batch_size: 4}
"""


def space_of(text: str, name: str = "tiny") -> Space:
    """A space from YAML text."""
    return space_from_document(parse_yaml(text, f"{name}.yaml"), name, Path())


@pytest.fixture(scope="session")
def skeleton() -> nn.Module:
    """The shapes of a 3M-parameter Llama with grouped heads."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


@pytest.fixture(scope="session")
def tiny_space() -> Space:
    return space_of(TINY_SPACE)


@pytest.fixture(scope="session")
def tiny_job(
    tiny_model: Path, tiny_task: dict[str, str], tiny_space: Space, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    """The tiny space on the tiny model and task, in a folder of its own."""
    task = load_task({"name": "tiny", "template": "{text} Label:", **tiny_task})
    return Job(tiny_space, str(tiny_model), (task,), tmp_path_factory.mktemp("search") / "study", "tiny")


@pytest.fixture(scope="session")
def found(tiny_job: Job) -> Found:
    """One finished search."""
    return search(tiny_job, ["ctxpeft", "search", "tiny.yaml"])
