"""Runs above layers whose states are kept equal runs without, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import ctxpeft
from ctxpeft.hosts.below import kept_below
from ctxpeft.hosts.kept import Kept
from ctxpeft.testing.hosts.subject import Subject
from ctxpeft.testing.tiny import tiny_model as tiny_host
from ctxpeft.training import Bench, RunResult, TrainingConfig, run, run_beside

RATES = (1e-2, 1e-1)
QUICK = TrainingConfig(steps=10, batch_size=4, eval_every=0, group_by_length=True)
HOSTS = ["llama", "mistral", "qwen3", "gemma2", "gpt2", "phi3"]
LATE = {"layers": {"last": 1}}
MODULES: dict[str, dict[str, Any]] = {
    "matrix": {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}},
    "prefix": {"placement": "inside", "memory": {"kind": "slots", "count": 3}},
    "ffn": {
        "placement": "outside",
        "site": "ffn",
        "query": {"source": "hidden", "norm": "rms"},
        "feature_map": {"kind": "projection", "width": 4},
        "phi_per": "layer",
        "memory": {"kind": "matrix", "per": "layer"},
    },
    "residual": {"placement": "outside", "site": "residual", "memory": {"kind": "vector"}},
    "prompt-tokens": {
        "placement": "outside",
        "site": "attention_output",
        "query": {"source": "output"},
        "memory": {"kind": "edit", "rank": 2},
    },
}


def variant(*names: str, **scope: Any) -> dict[str, Any]:
    modules = [{**MODULES[name], "scope": {**LATE, **scope}} for name in names]
    return {"name": "late", "modules": modules}


def host(family: str, layers: int = 3, **options: Any) -> Any:
    return tiny_host(family, **{"n_layer" if family == "gpt2" else "num_hidden_layers": layers}, **options)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "adapter" / "adapter.safetensors")
    return found


def same(one: RunResult, other: RunResult) -> bool:
    """Everything but the time it took."""
    return replace(one, seconds=0.0) == replace(other, seconds=0.0)


@pytest.mark.parametrize("names", [("matrix",), ("prefix",), ("ffn", "matrix"), ("residual", "prefix")])
def test_runs_and_rates_are_those_without(bench: Bench, names: tuple[str, ...], tmp_path: Path) -> None:
    """Losses, parameters and evaluations, one by one and side by side, the first time and when all is found."""
    kept = Kept(1 << 24)
    keeping = replace(bench, base=replace(bench.base, kept=kept))
    spec = ctxpeft.load_variant(variant(*names))
    configs = [QUICK.model_copy(update={"learning_rate": rate}) for rate in RATES]
    before = {name: value.clone() for name, value in bench.base.model.state_dict().items()}
    for where, on in (("without", bench), ("first", keeping), ("again", keeping)):
        found = kept.found
        folder = tmp_path / where
        beside = [folder / f"beside-{i}" for i in range(len(RATES))]
        run_beside(on, spec, configs, out=beside, splits=("validation", "test"))
        run(on, spec, configs[0], out=folder / "alone", generate=2)
        assert where != "again" or kept.found - found >= 2 * QUICK.steps
    assert kept.used
    for name in ("beside-0", "beside-1", "alone"):
        for where in ("first", "again"):
            one, other = tmp_path / "without" / name, tmp_path / where / name
            assert same(RunResult.read(one), RunResult.read(other))
            ours, theirs = tensors(one), tensors(other)
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    after = bench.base.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any("forward" in vars(module) for module in bench.base.model.modules())


def steps(model: Any, handle: Any, batches: list[dict[str, torch.Tensor]], kept: Kept | None) -> list[Any]:
    """Losses of two epochs with an evaluation behind, and the parameters in the end."""
    optimizer = torch.optim.SGD(handle.parameters(), lr=0.1)
    seen: list[Any] = []
    with kept_below(model, kept):
        model.train()
        for batch in batches * 2:
            output = model(**batch, use_cache=False)
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seen += [output.loss.detach(), output.logits.detach()]
        model.eval()
        with torch.no_grad():
            seen += [model(**batch, use_cache=False).logits for batch in batches]
    return seen + [p.detach().clone() for p in handle.parameters()]


def batch(rows: int, length: int, padding: int, seed: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 61, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    if padding:
        mask[-1, -padding:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    family=st.sampled_from(HOSTS),
    names=st.lists(st.sampled_from([*MODULES]), min_size=1, max_size=2),
    last=st.integers(1, 3),
    shapes=st.lists(
        st.tuples(st.integers(1, 3), st.integers(5, 9), st.integers(0, 3)), min_size=1, max_size=3
    ),
    limit=st.sampled_from([1 << 12, 1 << 20]),
)
def test_drawn_designs_hosts_and_batches(
    family: str, names: list[str], last: int, shapes: list[tuple[int, int, int]], limit: int
) -> None:
    """Bit for bit, whatever fits into the store; kept only below the lowest adapted layer."""
    batches = [batch(*shape, seed) for seed, shape in enumerate(shapes)]
    seen, kept = [], Kept(limit)
    for store in (None, kept):
        model = host(family)
        handle = ctxpeft.attach(model, variant(*names, layers={"last": last}), seed=1)
        seen.append(steps(model, handle, batches, store))
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert kept.used <= limit
    assert bool(kept.found) == bool(kept.used)
    assert kept.used == 0 if last == 3 else True
    if limit == 1 << 20 and last < 3:
        assert kept.found >= len(batches)


@pytest.mark.parametrize(
    ("why", "spec"),
    [
        ("the lowest layer is adapted", "prefix-tuning-plus"),
        ("virtual tokens pass all layers", "prompt-tuning"),
        ("tuners of HF PEFT do not tell their layers", "lora-qv"),
        (
            "the embeddings are adapted",
            {
                "name": "e",
                "modules": [{"placement": "outside", "site": "embeddings", "memory": {"kind": "vector"}}],
            },
        ),
    ],
)
def test_why_nothing_is_kept(why: str, spec: Any) -> None:
    model = host("llama")
    ctxpeft.attach(model, spec, seed=0)
    kept = Kept(1 << 20)
    with kept_below(model, kept) as reason:
        model(**batch(2, 6, 0, 0), use_cache=False)
    assert reason == why
    assert not kept.used


def test_a_base_that_is_trained_keeps_nothing() -> None:
    model = host("llama")
    ctxpeft.attach(model, variant("matrix"), seed=0)
    model.get_input_embeddings().weight.requires_grad_(True)
    with kept_below(model, Kept(1 << 20)) as reason:
        assert reason == "parameters of the base are trained"


def test_dropout_is_drawn_anew() -> None:
    """Below the adapter dropout is drawn in every pass of training, and none in evaluation."""
    model = host("gpt2", resid_pdrop=0.3)
    ctxpeft.attach(model, variant("matrix"), seed=0)
    kept, given_ = Kept(1 << 20), batch(2, 6, 0, 0)
    with kept_below(model, kept) as reason:
        assert reason == ""
        model.train()
        first, second = (model(**given_, use_cache=False).logits for _ in range(2))
        assert not torch.equal(first, second)
        assert not kept.used
        model.eval()
        first, second = (model(**given_, use_cache=False).logits for _ in range(2))
        assert torch.equal(first, second)
        assert kept.found == 1
        model.train()
        model(**given_, use_cache=False)
        assert kept.found == 1


def test_the_same_tokens_under_another_mask_are_another_batch() -> None:
    """And so are the same tokens at other positions."""
    model = host("llama")
    ctxpeft.attach(model, variant("matrix"), seed=0)
    ids = batch(2, 6, 0, 0)["input_ids"]
    masks = [torch.ones_like(ids), torch.ones_like(ids)]
    masks[1][0, :2] = 0
    calls: list[dict[str, torch.Tensor]] = [{"attention_mask": mask} for mask in masks]
    calls.append({"position_ids": torch.arange(6)[None].expand(2, -1) * 3})
    expected = [model(ids, **call, use_cache=False).logits for call in calls]
    kept = Kept(1 << 20)
    with kept_below(model, kept):
        for _ in range(2):
            for call, wanted in zip(calls, expected, strict=True):
                assert torch.equal(model(ids, **call, use_cache=False).logits, wanted)
    assert (kept.found, kept.computed) == (3, 3)


def test_other_passes_are_computed_as_always() -> None:
    """Caches of keys and values, states that are asked for, recomputed activations, embeddings in place of tokens."""
    model = host("llama")
    handle = ctxpeft.attach(model, variant("matrix"), seed=0)
    kept, given_ = Kept(1 << 20), batch(2, 6, 0, 0)
    ids = given_["input_ids"]
    expected = model.generate(ids, max_new_tokens=4, do_sample=False)
    states = model(ids, output_hidden_states=True).hidden_states
    with kept_below(model, kept):
        assert torch.equal(model.generate(ids, max_new_tokens=4, do_sample=False), expected)
        found = model(ids, output_hidden_states=True, use_cache=False).hidden_states
        assert all(torch.equal(a, b) for a, b in zip(states, found, strict=True))
        model(inputs_embeds=model.get_input_embeddings()(ids), use_cache=False)
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(**given_, use_cache=False).loss.backward()
        assert any(p.grad is not None for p in handle.parameters())
        assert not kept.used


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("gemma3n_text", "a pass without the layers below is not possible (KeyError)"),  # keys shared upwards
        ("bloom", "the layers below draw random numbers or give more than one tensor"),
        ("zamba2", ""),
        ("deepseek_v3", ""),
    ],
)
def test_unusual_families(family: str, why: str) -> None:
    """Layers without attention, keys shared between layers, positions by biases: skipped exactly, or not at all."""
    batches, seen, kept = [batch(2, 7, 0, seed) for seed in range(2)], [], Kept(1 << 20)
    spec = {"name": "v", "modules": [{**MODULES["residual"], "site": "attention_output", "scope": LATE}]}
    subject = Subject("causal", family)
    for store in (None, kept):
        model = subject.model()
        handle = ctxpeft.attach(model, spec, seed=0)
        with kept_below(model, store) as reason:
            pass
        torch.manual_seed(0)
        seen.append(steps(model, handle, batches, store))
    assert reason == why
    assert bool(kept.found) == (not why)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


class _Remembers(torch.nn.Module):
    """A layer's FFN that leaves what it saw for a layer above."""

    def __init__(self, inner: torch.nn.Module, notes: list[torch.Tensor], writes: bool) -> None:
        super().__init__()
        self.inner, self.notes, self.writes = inner, notes, writes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.writes:
            self.notes[:] = [x]
            return self.inner(x)  # type: ignore[no-any-return]
        return self.inner(x) + self.notes[0]  # type: ignore[no-any-return]


def test_layers_that_read_more_than_the_one_below_are_refused() -> None:
    """A layer above reads what a layer below left beside its output: a pass without that layer would be another."""
    model, notes = host("llama"), []
    model.model.layers[0].mlp = _Remembers(model.model.layers[0].mlp, notes, True)
    model.model.layers[2].mlp = _Remembers(model.model.layers[2].mlp, notes, False)
    ctxpeft.attach(model, variant("matrix"), seed=0)
    kept = Kept(1 << 20)
    with kept_below(model, kept) as reason:
        assert reason == "the layers above read more than the output of those below"
        model(**batch(2, 6, 0, 0), use_cache=False)
    assert not kept.used


def test_a_full_store_keeps_what_is_in_use() -> None:
    states = torch.zeros(256)
    kept = Kept(2 * states.numel() * 4)
    for key in (("low", 0), ("low", 1), ("low", 2)):
        kept.put(key, states)
    assert [kept.get(("low", i)) is None for i in range(3)] == [False, False, True]
    kept.put(("high", 0), states)  # other layers are in use now
    kept.put(("high", 1), states)
    kept.put(("high", 2), states)
    assert kept.get(("low", 0)) is None
    assert kept.used <= kept.limit
    found = kept.get(("high", 1))
    found += 1
    assert not kept.get(("high", 1)).any()
