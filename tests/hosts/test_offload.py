"""Bases whose weights accelerate keeps elsewhere (CPU, disk, a map): attached before or after, the same values."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from transformers import AutoModelForCausalLM

import ctxpeft
from ctxpeft.testing.tiny import TinyTokenizer, perturb, tiny_model

from .cases import VARIANTS

CPU = torch.device("cpu")
DEVICE_MAP = {
    "model.embed_tokens": "disk",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}
pytestmark = pytest.mark.filterwarnings("ignore")


def tokens():
    return torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(1))


def offload(model, where, folder):
    return (
        cpu_offload(model, CPU) if where == "cpu" else disk_offload(model, str(folder), execution_device=CPU)
    )


@pytest.fixture(params=["prefix-tuning", "mixed", "wide"])
def adapted(request, tmp_path):
    """A variant, the logits with it, its saved adapter."""
    model = tiny_model()
    handle = ctxpeft.attach(model, VARIANTS[request.param], seed=0)
    perturb(handle)
    handle.save(tmp_path / "adapter")
    return request.param, model(tokens()).logits, tmp_path / "adapter"


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_after_attaching(adapted, where, tmp_path):
    """The adapter is offloaded with its base and brought back with it."""
    variant, logits, _ = adapted
    model = tiny_model()
    handle = ctxpeft.attach(model, VARIANTS[variant], seed=0)
    perturb(handle)
    offload(model, where, tmp_path / "offload")
    assert all(p.device.type == "meta" for p in handle.parameters())
    assert torch.equal(model(tokens()).logits, logits)


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_attached_after_offloading(adapted, where, tmp_path):
    """The adapter's parameters are where the base computes, not where its weights wait."""
    _, logits, folder = adapted
    model = tiny_model()
    offload(model, where, tmp_path / "offload")
    handle = ctxpeft.load(model, folder)
    assert all(p.device == CPU for p in handle.parameters())
    assert torch.equal(model(tokens()).logits, logits)


def test_a_device_map_trains_and_leaves(adapted, tmp_path):
    _, logits, folder = adapted
    tiny_model().save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", device_map=DEVICE_MAP, offload_folder=tmp_path / "offload"
    )
    assert any(p.device.type == "meta" for p in model.parameters())
    base = model(tokens()).logits
    handle = ctxpeft.load(model, folder, trainable=True)
    out = model(tokens(), labels=tokens())
    assert torch.allclose(out.logits, logits, atol=1e-5)
    out.loss.backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in handle.parameters())
    handle.detach()
    assert torch.equal(model(tokens()).logits, base)


def test_a_text_compiles_on_an_offloaded_base():
    text = {"kind": "text", "text": "seven words make a memory of it"}
    variant = {
        "name": "told",
        "modules": [{"placement": "inside", "memory": {"kind": "slots", "count": 7, "init": text}}],
    }
    plain, offloaded = tiny_model(), tiny_model()
    cpu_offload(offloaded, CPU)
    logits = []
    for model in (plain, offloaded):
        ctxpeft.attach(model, variant, tokenizer=TinyTokenizer())
        logits.append(model(tokens()).logits)
    assert torch.equal(*logits)
