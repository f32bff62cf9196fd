"""`ctxpeft check`: the laws on a user's model, and what a broken block looks like there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ctxpeft.blocks.gates.token import TokenGate
from ctxpeft.blocks.memory.slots import SlotMemory
from ctxpeft.spec.load import load_variant
from ctxpeft.testing.laws import laws
from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.run import run_laws
from ctxpeft.testing.tiny import tiny_model
from tests.cli.running import run

Capture = pytest.CaptureFixture[str]
GATED = """name: gated
modules:
  - placement: outside
    feature_map: {kind: elu}
    memory: {kind: matrix}
    gate: {kind: token, source: hidden}
"""


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    (tmp_path / "gated.yaml").write_text(GATED)
    return tmp_path / "gated.yaml"


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """UniPELT's gate as published pools over the sequence: a decoder that uses it sees the future."""
    honest = TokenGate.forward

    def forward(self: TokenGate, capture: object, query: Tensor) -> Tensor:
        g: Tensor = honest(self, capture, query)  # type: ignore[arg-type,assignment]
        return g.mean(2, keepdim=True).expand_as(g)

    monkeypatch.setattr(TokenGate, "forward", forward)


def test_a_variant_that_obeys(capsys: Capture, gated: Path) -> None:
    outcome = run(capsys, "check", gated)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "gated on ctxpeft-mini (float32)"
    assert [line.split()[0] for line in lines[2:-1]] == [law.id for g in ("spec", "host") for law in laws(g)]
    assert re.match(r"2\d laws hold, 0 are violated", lines[-1])


def test_json(capsys: Capture) -> None:
    result = run(
        capsys, "check", "prefix-tuning", "--law", "causal", "--law", "identity-at-init", "--json"
    ).result
    causal, identity = result["laws"]
    assert causal["result"] == "holds"
    assert 0 <= causal["error"] <= causal["tolerance"]
    assert (identity["result"], identity["error"]) == ("does not apply", None)
    assert identity["reason"] == "the variant does not claim identity at init"
    assert result["violated"] == []


def test_a_leak_of_the_future_is_found_at_its_smallest(capsys: Capture, gated: Path, pooled: None) -> None:
    outcome = run(capsys, "check", gated, "--law", "causal")
    assert outcome.code == 1
    assert re.match(
        r"error: gated violates 'causal' on ctxpeft-mini: batch 1, 2 tokens: \|Δ\| = \S+ > \S+ at token 0, "
        r"first seen after layer 0\n$",
        outcome.err,
    ), outcome.err
    assert "violated: batch 1, 2 tokens" in outcome.out


def test_padding_that_leaks_names_the_padding(capsys: Capture, gated: Path, pooled: None) -> None:
    result = run(capsys, "check", gated, "--law", "left-padding", "--json")
    assert result.code == 1
    (law,) = result.result["laws"]
    assert law["reason"].startswith("batch 1, 1 token, 1 padded: |Δ| = ")
    assert law["error"] > law["tolerance"]


def test_a_block_that_crashes_is_a_finding(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: SlotMemory, *_: object) -> Tensor:
        raise IndexError("no such slot")

    for name in ("forward", "softmax_read"):
        monkeypatch.setattr(SlotMemory, name, forward)
    outcome = run(capsys, "check", "llama-adapter", "--law", "causal")
    assert outcome.code == 1
    assert outcome.err.endswith("batch 1, 2 tokens: IndexError: no such slot\n")


def test_half_precision(capsys: Capture) -> None:
    result = run(capsys, "check", "prefix-tuning-plus", "dtype=bfloat16", "--json")
    assert result.code == 0, result.err
    assert result.result["dtype"] == "bfloat16"


def test_a_wrapped_peft_tuner(capsys: Capture) -> None:
    laws = {law["id"]: law for law in run(capsys, "check", "lora-qv", "--json").result["laws"]}
    for name in ("trains-the-adapter-alone", "detach-restores-the-base", "saves-and-loads", "causal"):
        assert laws[name]["result"] == "holds"
    assert laws["order-of-adapters"]["reason"] == "an HF PEFT tuner makes no such claim"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["prefix-tunin"],
            "no shipped variant is called 'prefix-tunin' and no such file exists; did you mean 'prefix-tuning'?",
        ),
        (["prefix-tuning", "--law", "causl"], "no law is called 'causl'; did you mean 'causal'?"),
        (["prefix-tuning", "--law", "ntk-attention"], "the law 'ntk-attention' is about the equations"),
        (["prefix-tuning", "steps=3"], "check trains nothing: 'steps' is a training setting"),
        (["prefix-tuning", "variant.modules.0.scope.layers=[99]"], "scope.layers names layer 99"),
    ],
)
def test_mistakes(capsys: Capture, arguments: list[str], sentence: str) -> None:
    outcome = run(capsys, "check", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_model_is_left_as_it_was(gated: Path, pooled: None) -> None:
    """Also by laws that are violated on the way."""
    model = tiny_model()
    model.model.layers[0].requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    ids = torch.arange(3, 12)[None]
    logits, generation, backend = (
        model(ids).logits,
        model.generation_config,
        model.config._attn_implementation,
    )
    violated = [
        o.law.id for o in run_laws(laws("host"), Host(model, load_variant(gated))) if o.result == "violated"
    ]
    assert "causal" in violated
    assert "detach-restores-the-base" not in violated
    assert torch.equal(model(ids).logits, logits)
    assert (model.generation_config, model.config._attn_implementation) == (generation, backend)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())
    assert not [key for key in vars(model) if "ctxpeft" in key]


def test_a_model_that_breaks_a_law_by_itself_is_not_the_variants_fault() -> None:
    """A base that looks ahead."""
    model = tiny_model()
    handle = model.model.norm.register_forward_hook(lambda m, a, out: out + out.mean(1, keepdim=True))
    (outcome,) = run_laws(
        [law for law in laws("host") if law.id == "causal"], Host(model, load_variant("ia3"))
    )
    handle.remove()
    assert outcome.result == "does not apply"
    assert outcome.reason.startswith("the model breaks it without the variant, batch 1, 2 tokens")
