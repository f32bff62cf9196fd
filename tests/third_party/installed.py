"""What must hold in an environment that has ctxpeft-example; `test_package.py` makes one and runs this file in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

import ctxpeft
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.hosts.count import count_parameters
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.tiny import tiny_model
from scripts.pages import filled
from tests.cli.running import run
from tests.tasks.tiny import make_model

Capture = pytest.CaptureFixture[str]

VARIANT = """
name: third-party
modules:
  - placement: outside
    feature_map: {kind: sine, frequency: 2.0}
    memory: {kind: matrix, init: {kind: normal, std: 0.1}}
    gate: {kind: length, init: -0.5}
"""
SPACE = """
modules:
  - templates:
      any: {placement: outside, feature_map: any, memory: {kind: matrix}, gate: any}
"""
NARROW = """
modules:
  - templates:
      sine:
        placement: outside
        feature_map: {kind: sine, frequency: any}
        memory: {kind: matrix}
        gate: [length, {kind: length, init: any}]
"""


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    path = tmp_path / "variant.yaml"
    path.write_text(VARIANT, encoding="utf-8")
    return path


def test_ls(capsys: Capture) -> None:
    rows = {
        (row["family"], row["kind"]): row for row in run(capsys, "ls", "blocks", "--json").result["blocks"]
    }
    sine, length = rows["feature_map", "sine"], rows["gate", "length"]
    assert sine["module"] == "ctxpeft_example.sine"
    assert (sine["sign"], sine["learned"], sine["equation"]) == ("signed", True, "sin(ω ⊙ x)")
    assert length["module"] == "ctxpeft_example.length"


def test_schema(capsys: Capture, variant: Path) -> None:
    schema = Draft202012Validator(json.loads(run(capsys, "schema").out))
    data = ctxpeft.load_variant(variant).to_dict()
    schema.validate(data)
    data["modules"][0]["feature_map"]["frequency"] = -1
    assert not schema.is_valid(data)


def test_validate(capsys: Capture, variant: Path) -> None:
    done = run(capsys, "validate", variant)
    assert (done.code, done.out.split()[1:3]) == (0, ["ok", "variant"])
    variant.write_text(VARIANT.replace("frequency: 2.0", "frequensy: 2.0"), encoding="utf-8")
    told = run(capsys, "validate", variant)
    assert told.code == 2
    assert told.err.endswith("unknown key 'frequensy'; did you mean 'frequency'?\n")


def test_show(capsys: Capture, variant: Path) -> None:
    result = run(capsys, "show", variant, "--json").result
    assert result["equations"] == ["o ← o + g sin(ω ⊙ q)ᵀ M, g = nᵃ"]
    assert {"block": "gate.length", "equation": "g = nᵃ", "cites": ""} in result["blocks"]


def test_search_space(capsys: Capture, tmp_path: Path) -> None:
    """The kinds and the domains of their fields stand in the derived tree, and designs are drawn with them."""
    model, space = make_model(tmp_path / "model"), tmp_path / "space.yaml"
    space.write_text(SPACE, encoding="utf-8")
    tree = run(capsys, "search", space, "--model", model, "--dry-run", "--json").result["tree"]
    sine, length = tree.index("    | sine"), tree.index("    | length")
    assert tree[sine + 1].strip() == "frequency in 0.1..30, log scale"
    assert "init in -1..1" in {line.strip() for line in tree[length + 1 : length + 3]}
    space.write_text(NARROW, encoding="utf-8")
    designs = run(capsys, "search", space, "--model", model, "--dry-run", "--json").result["designs"]
    modules = [design["variant"]["modules"][0] for design in designs]
    assert len(modules) > 1
    assert all(m["feature_map"]["kind"] == "sine" and m["gate"]["kind"] == "length" for m in modules)
    assert len({m["feature_map"]["frequency"] for m in modules}) == len(modules)


def test_docs() -> None:
    page = filled("<!-- generated: blocks -->")
    assert "### feature_map: sine\n\n$`\\mathrm{sin}\\left( \\omega \\odot x \\right)`$" in page
    assert "### gate: length\n\n`g = nᵃ`" in page


def test_a_life_of_an_adapter(tmp_path: Path, variant: Path) -> None:
    """Counted, attached, trained a step, saved and loaded."""
    model = tiny_model()
    counted = count_parameters(model, ctxpeft.load_variant(variant))
    handle: Any = ctxpeft.attach(model, variant, seed=0)
    named = dict(handle.named_parameters())
    shapes = {name.rsplit(".", 1)[-1]: p.shape for name, p in named.items()}
    assert {"frequency", "exponent"} <= set(shapes)
    assert counted == handle.num_parameters() == sum(p.numel() for p in named.values())
    ids = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in named.items()}
    optimizer = torch.optim.AdamW(handle.parameters(), lr=1e-2, weight_decay=0.0)
    first = model(ids, labels=ids).loss
    first.backward()
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in named.items())
    trained = model(ids, labels=ids)
    assert trained.loss < first
    handle.save(tmp_path / "adapter")
    other = tiny_model()
    ctxpeft.load(other, tmp_path / "adapter")
    assert torch.equal(other(ids).logits, trained.logits)


def test_generation_counts_the_keys_of_the_cache(variant: Path) -> None:
    model = tiny_model()
    ctxpeft.attach(model, variant, seed=0)
    ids = torch.randint(3, 61, (2, 5), generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    cached = model.generate(ids, use_cache=True, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))


@pytest.mark.parametrize(("exponent", "merge"), [(0.0, "compete"), (1.0, "compete_length")])
def test_the_exponent_leads_from_one_merge_to_the_other(exponent: float, merge: str) -> None:
    """A law across the two packages: `length` on the mass is `compete` at 0 and `compete_length` at 1."""
    heads = Heads.random(0, 2, kv_heads=2, repeat=2, tokens=5, width=4, value_width=4, mask="padded")
    slots = {"placement": "inside", "memory": {"kind": "slots", "count": 3}}

    def composed(**fields: Any) -> torch.Tensor:
        torch.manual_seed(0)
        return heads.composed(ContextModule(ModuleSpec.model_validate({**slots, **fields}), heads.shape()))

    gated = composed(gate={"kind": "length", "on": "mass", "init": exponent})
    assert torch.allclose(gated, composed(merge=merge), rtol=1e-12, atol=1e-12)
