"""What PEFT can say is written so that PEFT computes the same; the rest is refused with the reason."""

import json
import os

import peft
import pytest
import torch
from safetensors.torch import load_file

import ctxpeft
from ctxpeft.errors import AdapterError, DiskError
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.adapters.peft_folders import (
    COUNT,
    IDS,
    MASKS,
    PAIRS,
    PROMPTS,
    assert_same_logits,
    generated,
    saved,
)

SLOTS = {"kind": "slots", "count": COUNT, "init": {"kind": "normal", "std": 0.7}}
PROMPT = {**SLOTS, "parameterization": {"kind": "prompt"}}
PROJECTED = {**SLOTS, "parameterization": {"kind": "frozen_projection"}}
LAYER_GATE = {"kind": "scalar", "per": "layer", "activation": "tanh", "init": 0.8}


def inside(memory=SLOTS, **fields):
    return {"name": "mine", "modules": [{"placement": "inside", "memory": memory, **fields}]}


def outside(memory=PROJECTED, **fields):
    return {
        "name": "mine",
        "modules": [{"placement": "outside", "memory": memory, "gate": LAYER_GATE, **fields}],
    }


def theirs(family, folder, **options):
    return peft.PeftModel.from_pretrained(tiny_model(family, **options), str(folder)).eval()


def is_prompt(folder):
    return json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "PROMPT_TUNING"


def check(handle, family, folder, **options):
    """PEFT reads the folder and computes what we compute: logits of padded batches, and greedy tokens."""
    handle.export(folder)
    model = handle.model
    loaded = theirs(family, folder, **options)
    method = "prompt-tuning" if is_prompt(folder) else "other"
    for mask in MASKS.values():
        assert_same_logits(model, loaded, method, mask)
    assert torch.equal(generated(model, IDS, MASKS["none"]), generated(loaded, IDS, MASKS["none"]))


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_round_trip(tmp_path, method, family):
    """From PEFT to us and back: the same tensors bit for bit, the same computation, and again the same adapter."""
    saved(method, family, tmp_path / "peft")
    handle = ctxpeft.load(tiny_model(family), tmp_path / "peft")
    check(handle, family, tmp_path / "back")
    before, after = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("peft", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    again = ctxpeft.load(tiny_model(family), tmp_path / "back")
    assert again.variant.fingerprint() == handle.variant.fingerprint()
    ours, repeated = handle.state_dict(), again.state_dict()
    assert ours.keys() == repeated.keys()
    assert all(torch.equal(ours[k], repeated[k]) for k in ours)
    told, kept = (json.loads((tmp_path / f / "adapter_config.json").read_text()) for f in ("peft", "back"))
    folded = {"base_model_name_or_path", "prefix_projection"} | (
        {"peft_type"} if method in PROMPTS else set()
    )
    assert {k: told[k] for k in kept if k in told and k not in folded} == {
        k: v for k, v in kept.items() if k in told and k not in folded
    }
    assert {"num_virtual_tokens", "adapter_len"} & kept.keys()


VARIANTS = {
    "raw": inside(),
    "before": inside({**SLOTS, "position": "before"}),
    "offset": inside({**SLOTS, "position": "offset"}),
    "auto": inside({**SLOTS, "position": "auto"}),
    "frozen": inside({**SLOTS, "frozen": 1, "position": "auto"}),
    "one-set-a-layer": inside({**SLOTS, "per": "layer"}),
    "one-set": inside({**SLOTS, "per": "model", "position": "auto"}),
    "mlp": inside({**SLOTS, "parameterization": {"kind": "mlp", "embedding": 4, "hidden": 6}}),
    "low-rank": inside({**SLOTS, "parameterization": {"kind": "low_rank", "rank": 2}}),
    "shared-kv": inside({**SLOTS, "parameterization": {"kind": "shared_kv", "embedding": 4}}),
    "projected": inside({**SLOTS, "parameterization": {"kind": "frozen_projection", "hidden": 4}}),
    "prompt": inside(PROMPT),
    "encoded": inside({**SLOTS, "parameterization": {"kind": "prompt", "encoder": "lstm", "hidden": 4}}),
    "llama-adapter": outside(),
    "last": outside(scope={"layers": {"last": 1}}, gate={"kind": "constant", "value": 0.4}),
    "non-linear": outside(
        {**SLOTS, "parameterization": {"kind": "frozen_projection", "hidden": 4}}, gate={"kind": "none"}
    ),
}
OUTSIDE = ("llama-adapter", "last", "non-linear")
BEHIND = {
    f"{name}-behind": {**VARIANTS[name], "modules": [{**VARIANTS[name]["modules"][0], "projected": False}]}
    for name in OUTSIDE
}
ABSOLUTE = ("offset", "auto", "frozen", "one-set", "prompt", "encoded")
OURS = [
    *[(v, "llama") for v in VARIANTS],
    *[(v, "qwen3") for v in VARIANTS if v not in OUTSIDE],
    *[(v, "gpt2") for v in (*ABSOLUTE, *BEHIND)],
]


@pytest.mark.parametrize(("variant", "family"), OURS)
def test_trained_here_served_by_peft(tmp_path, variant, family):
    handle = ctxpeft.attach(tiny_model(family), (VARIANTS | BEHIND)[variant], seed=0)
    perturb(handle)
    check(handle, family, tmp_path / "out")


@pytest.mark.parametrize("family", ["olmo2", "smollm3", "phi3"])
def test_other_families(tmp_path, family):
    handle = ctxpeft.attach(tiny_model(family), "prefix-tuning", seed=0)
    perturb(handle)
    check(handle, family, tmp_path / "out")


def test_a_scaled_rotary_embedding(tmp_path):
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
    handle = ctxpeft.attach(tiny_model(rope_parameters=rope), inside(), seed=0)
    perturb(handle)
    check(handle, "llama", tmp_path / "out", rope_parameters=rope)


REFUSED = [
    ("llama", "prefix-tuning-plus", "slots asked by softmax, and this is memory 'matrix'"),
    ("llama", inside({**SLOTS, "score": "norga"}), "memory 'slots' with score 'norga'"),
    ("llama", inside({**SLOTS, "gated": True}), "no gates of single slots"),
    ("llama", inside(query={"source": "unrotated"}), "the query as it is"),
    ("llama", inside(query={"norm": "rms"}), "the query as it is"),
    ("llama", inside(query={"temperature": 2.0}), "the query as it is"),
    ("llama", inside(scope={"heads": [0, 2]}), "at all heads and on all tokens"),
    ("llama", inside(scope={"tokens": "prompt"}), "at all heads and on all tokens"),
    ("llama", inside(scope={"layers": {"last": 1}}), "act in every layer"),
    ("llama", inside(merge="compete_length"), "merge 'compete' without a gate"),
    ("llama", inside(gate={"kind": "scalar"}), "merge 'compete' without a gate"),
    ("llama", inside({**SLOTS, "per": "query_head"}), "one set of slots a kv head"),
    ("llama", "construction-1-moved-out", "LLaMA-Adapter alone"),
    ("llama", "llama-adapter", "one gate a layer"),
    ("llama", outside(scope={"layers": [0]}), "acts in the last layers"),
    ("llama", outside(memory={**PROJECTED, "position": "before"}), "position 'raw'"),
    ("qwen3", outside(), "for llama, mistral, gpt2 models only, this is 'qwen3'"),
    ("gpt2", outside(), "behind the output projection, past it: projected: false"),
    ("llama", outside(projected=False), "through the output projection: projected: true"),
    (
        "gpt2",
        inside(),
        "it shifts the positions of the input by the number of slots, position 'raw' does not",
    ),
    ("mistral", inside(), "sliding window"),
    ("gemma3_text", inside(PROMPT), "sliding window"),
    ("llama", {"name": "two", "modules": [*inside()["modules"], *inside()["modules"]]}, "has 2 modules"),
]


@pytest.mark.parametrize(("family", "variant", "reason"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_refused_with_the_reason(tmp_path, family, variant, reason):
    handle = ctxpeft.attach(tiny_model(family), variant, seed=0)
    with pytest.raises(AdapterError, match="cannot be exported to PEFT: .*" + reason) as caught:
        handle.export(tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_length_dependent_rope_needs_a_position(tmp_path):
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    handle = ctxpeft.attach(tiny_model(rope_parameters=rope), inside(), seed=0)
    with pytest.raises(AdapterError, match="no rotation of the keys makes up for it"):
        handle.export(tmp_path / "out")


def test_tuners_of_peft_are_not_exported(tmp_path):
    lora = {"name": "l", "peft": {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}}
    handle = ctxpeft.attach(tiny_model(), lora)
    with pytest.raises(AdapterError, match="'default' is an HF PEFT tuner"):
        handle.export(tmp_path / "out")


def test_formats_and_paths(tmp_path):
    handle = ctxpeft.attach(tiny_model(), "prefix-tuning", seed=0)
    with pytest.raises(AdapterError, match="unknown format 'pft'; did you mean 'peft'"):
        handle.export(tmp_path / "out", format="pft")
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdapterError, match="is a file; expected a folder"):
        handle.export(tmp_path / "file")
    with pytest.raises(DiskError, match="cannot be written"):
        handle.export(tmp_path / "file" / "below")


def test_a_failed_export_leaves_what_was_there(tmp_path, monkeypatch):
    """A new folder appears whole or not at all; an old one keeps its files."""
    handle = ctxpeft.attach(tiny_model(), "prefix-tuning", seed=0)
    handle.export(tmp_path / "old")
    before = {n: (tmp_path / "old" / n).read_bytes() for n in os.listdir(tmp_path / "old")}
    perturb(handle)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ctxpeft.adapters.export.save_file", full)
        for name in ("old", "new"):
            with pytest.raises(DiskError, match="No space left on device"):
                handle.export(tmp_path / name)
    assert os.listdir(tmp_path) == ["old"]
    assert {n: (tmp_path / "old" / n).read_bytes() for n in os.listdir(tmp_path / "old")} == before
    handle.export(tmp_path / "old")
    assert sorted(os.listdir(tmp_path / "old")) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (tmp_path / "old" / "adapter_model.safetensors").read_bytes() != before[
        "adapter_model.safetensors"
    ]
