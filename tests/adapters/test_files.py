"""Adapter folders from strangers: one clear sentence, the model untouched."""

import contextlib
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import ctxpeft
from ctxpeft.data import mini_model_path
from ctxpeft.errors import AdapterError
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.hosts.cases import MIXED

LORA = {"name": "lora", "peft": {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}}


@pytest.fixture
def folder(tmp_path):
    handle = ctxpeft.attach(tiny_model(), "prefix-tuning-plus", seed=0)
    perturb(handle)
    handle.save(tmp_path / "adapter")
    return tmp_path / "adapter"


def refused(folder, match, model=None):
    model = model or tiny_model()
    ids = torch.arange(3, 9)[None]
    before = model(ids).logits
    with pytest.raises(AdapterError, match=match) as caught:
        ctxpeft.load(model, folder)
    assert "\n" not in str(caught.value)
    assert torch.equal(model(ids).logits, before)
    assert all(p.requires_grad for p in model.parameters())


def rewrite(folder, change, **metadata):
    from safetensors import safe_open

    path = folder / "adapter.safetensors"
    with safe_open(path, "pt") as file:
        kept = {**file.metadata(), **metadata}
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=kept)


def test_the_folder_holds_three_files(folder):
    assert sorted(os.listdir(folder)) == ["README.md", "adapter.safetensors", "variant.yaml"]
    card = (folder / "README.md").read_text()
    assert "library_name: ctxpeft" in card
    assert "2506.13674" in card


def test_the_card_of_the_model_that_ships_loads_it(tmp_path, monkeypatch):
    """The hub does not know `ctxpeft-mini`, so the card must not ask it."""
    model = AutoModelForCausalLM.from_pretrained(mini_model_path())
    ctxpeft.attach(model, "prefix-tuning-plus", seed=0).save(tmp_path / "path" / "to" / "this" / "folder")
    card = (tmp_path / "path" / "to" / "this" / "folder" / "README.md").read_text()
    assert "base_model: ctxpeft-mini" in card
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert names["handle"].num_parameters() == 36_864


def test_a_checkpoint_of_the_trainer_is_told_how_to_be_used(folder):
    for name in ("variant.yaml", "adapter.safetensors"):
        (folder / name).unlink()
    (folder / "trainer_state.json").write_text("{}")
    refused(folder, "is a checkpoint of the Trainer, .*attach the same variant, then model.load_state_dict")


@pytest.mark.parametrize("size", [0, 1, 7, 100, -1])
def test_truncated(folder, size):
    path = folder / "adapter.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:size])
    refused(folder, "truncated or not a safetensors file")


def test_every_flipped_header_bit_is_refused_or_harmless(folder):
    """No damage to the header escapes as another error than ours."""
    path = folder / "adapter.safetensors"
    data = path.read_bytes()
    for position in range(0, 400, 9):
        broken = bytearray(data)
        broken[position] ^= 0x10
        path.write_bytes(broken)
        with contextlib.suppress(AdapterError):
            ctxpeft.load(tiny_model(), folder)


def test_a_pickle_is_not_opened(folder):
    torch.save({"x": torch.zeros(1)}, folder / "adapter.safetensors")
    refused(folder, "truncated or not a safetensors file")


def test_missing_files(folder, tmp_path):
    (folder / "variant.yaml").unlink()
    refused(folder, "holds no variant.yaml")
    refused(tmp_path / "nowhere", "no such folder")
    refused(folder / "adapter.safetensors", "is a file; expected a folder")


def test_foreign_weights(folder):
    tensors = load_file(folder / "adapter.safetensors")
    save_file(tensors, folder / "adapter.safetensors")
    refused(folder, "not written by ctxpeft")


def test_weights_of_another_spec(folder, tmp_path):
    other = ctxpeft.attach(tiny_model(), "prefix-tuning-plus-gelu", seed=0)
    other.save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "variant.yaml", folder / "variant.yaml")
    refused(folder, "belong to another spec")


def test_another_model(folder):
    refused(folder, r"has shape \(4, 8, 8\) and this model needs \(4, 16, 16\)", tiny_model(head_dim=16))
    refused(
        folder, "needs tensor 'layers.2.0.memory.matrix', which is missing", tiny_model(num_hidden_layers=3)
    )
    refused(folder, "unexpected tensor 'layers.1.0.memory.matrix'", tiny_model(num_hidden_layers=1))


def test_extra_tensors_and_nan(folder):
    rewrite(folder, lambda t: t.update(extra=torch.zeros(3)))
    refused(folder, "unexpected tensor 'extra'")
    rewrite(folder, lambda t: (t.pop("extra"), t["layers.0.0.memory.matrix"].fill_(float("nan"))))
    refused(folder, "holds NaN or infinity")


def test_integer_weights(folder):
    rewrite(folder, lambda t: t.update({"layers.0.0.memory.matrix": t["layers.0.0.memory.matrix"].int()}))
    refused(folder, "expected a floating-point tensor")


def test_a_broken_spec_inside(folder):
    (folder / "variant.yaml").write_text("name: x\nmodules:\n  - placement: sideways\n")
    refused(folder, "variant.yaml:3: modules")


def test_a_hub_id_without_a_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("nobody/nothing", "neither a local folder nor a repository")


def test_a_saved_spec_does_not_lean_on_defaults(folder):
    """Every field is written out, so that an old adapter keeps its meaning when a default changes."""
    saved = ctxpeft.load_variant(folder / "variant.yaml")
    text = (folder / "variant.yaml").read_text()
    assert saved == ctxpeft.load_variant("prefix-tuning-plus")
    for key in ("phi_per: query_head", "form: full", "norm: none", "heads: all", "temperature: 1.0"):
        assert key in text


def test_saving_over_a_file(folder, tmp_path):
    (tmp_path / "file").write_text("x")
    handle = ctxpeft.attach(tiny_model(), "prefix-tuning", seed=0)
    with pytest.raises(AdapterError, match="is a file"):
        handle.save(tmp_path / "file")


def test_saving_again_replaces(folder):
    handle = ctxpeft.attach(tiny_model(), "prefix-tuning", seed=0)
    handle.save(folder)
    assert ctxpeft.load(tiny_model(), folder).variant.name == "prefix-tuning"
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


@pytest.mark.parametrize("trainable", [True, False])
def test_peft_tuners_round_trip(tmp_path, trainable):
    model, ids = tiny_model(), torch.arange(3, 9)[None]
    handle = ctxpeft.attach(model, LORA, seed=0)
    perturb(handle)
    out = model(ids).logits
    handle.save(tmp_path / "lora")
    other = tiny_model()
    loaded = ctxpeft.load(other, tmp_path / "lora", name="elsewhere", trainable=trainable)
    assert torch.equal(other(ids).logits, out)
    assert all(p.requires_grad == trainable for p in loaded.parameters())


class TestHotswap:
    """The values of another saved adapter of the same spec, in place."""

    def test_values_change_and_nothing_else(self, tmp_path):
        ids = torch.arange(3, 12)[None]
        other = ctxpeft.attach(model := tiny_model(), MIXED, seed=1)
        perturb(other)
        other.save(tmp_path)
        wanted = model(ids).logits
        model = tiny_model()
        handle = ctxpeft.attach(model, MIXED, seed=0)
        before = [(id(p), p.requires_grad) for p in handle.parameters()]
        assert not torch.allclose(model(ids).logits, wanted, atol=1e-3)
        handle.hotswap(tmp_path)
        assert torch.equal(model(ids).logits, wanted)
        assert [(id(p), p.requires_grad) for p in handle.parameters()] == before

    @pytest.mark.parametrize("change", ["spec", "shape"])
    def test_another_spec_is_refused_and_changes_nothing(self, tmp_path, change):
        host = tiny_model() if change == "spec" else tiny_model(num_attention_heads=8)
        ctxpeft.attach(host, "prefix-tuning" if change == "spec" else MIXED, seed=0).save(tmp_path)
        model, ids = tiny_model(), torch.arange(3, 12)[None]
        handle = ctxpeft.attach(model, MIXED, seed=0)
        before = model(ids).logits
        match = "is of another spec" if change == "spec" else "this model needs"
        with pytest.raises(ctxpeft.AdapterError, match=match):
            handle.hotswap(tmp_path)
        assert torch.equal(model(ids).logits, before)
