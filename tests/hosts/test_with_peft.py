"""Tuners of HF PEFT and variants of ours on one model: trained together, saved, loaded."""

import peft
import pytest
import torch
from safetensors.torch import load_file

import ctxpeft
from ctxpeft.testing.tiny import tiny_model

IDS = torch.randint(3, 61, (4, 9), generator=torch.Generator().manual_seed(1))
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
PROMPT = {
    "name": "prompt",
    "modules": [
        {
            "placement": "inside",
            "memory": {"kind": "slots", "count": 4, "parameterization": {"kind": "prompt"}},
        }
    ],
}
OURS = {"prefix-tuning-plus": "prefix-tuning-plus", "prefix-tuning": "prefix-tuning", "prompt": PROMPT}
ours = pytest.mark.parametrize("variant", OURS.values(), ids=OURS)


def train(model, parameters, forward=None, steps=6):
    """A few steps of Adam on everything that is trained; the loss falls and every tensor moves, the base apart."""
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in parameters}
    base = [(p, p.clone()) for p in model.parameters() if not p.requires_grad]
    before = [p.detach().clone() for p in trained]
    optimizer = torch.optim.Adam(trained, lr=0.02)
    losses = []
    for _ in range(steps):
        loss = (forward or model)(input_ids=IDS, labels=IDS).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(bool((p != old).any()) for p, old in zip(trained, before, strict=True))
    assert all(torch.equal(p, old) for p, old in base)


@ours
@pytest.mark.parametrize("first", ["lora", "ours"])
def test_as_two_variants(tmp_path, variant, first):
    """`lora-qv` and a variant of ours, attached in either order."""
    model = tiny_model()
    handles = {}
    for name in ("lora", "ours") if first == "lora" else ("ours", "lora"):
        handles[name] = ctxpeft.attach(model, "lora-qv" if name == "lora" else variant, name=name, seed=0)
    train(model, [p for h in handles.values() for p in h.parameters()])
    out = model(IDS).logits
    parts = {}
    for name, handle in handles.items():
        handle.save(tmp_path / name)
        with handle.disabled():
            parts[name] = model(IDS).logits
        assert not torch.allclose(parts[name], out, atol=1e-3)
    other = tiny_model()
    for name in ("ours", "lora"):
        ctxpeft.load(other, tmp_path / name, name=name)
    assert torch.allclose(other(IDS).logits, out, atol=1e-5)
    for name in ("lora", "ours"):
        handles[name].detach()
    assert torch.equal(model(IDS).logits, tiny_model()(IDS).logits)


@ours
def test_on_a_model_with_an_injected_tuner(tmp_path, variant):
    """`peft.inject_adapter_in_model` came first: it stays trained, and each side saves its own."""
    model = tiny_model()
    peft.inject_adapter_in_model(peft.LoraConfig(**LORA), model)
    lora = [p for k, p in model.named_parameters() if "lora_" in k]
    handle = ctxpeft.attach(model, variant, seed=0)
    train(model, [*lora, *handle.parameters()])
    out = model(IDS).logits
    handle.save(tmp_path)
    kept = peft.get_peft_model_state_dict(model)
    assert len(kept) == len(lora)
    other = tiny_model()
    peft.inject_adapter_in_model(peft.LoraConfig(**LORA), other)
    peft.set_peft_model_state_dict(other, kept)
    loaded = ctxpeft.load(other, tmp_path)
    assert torch.allclose(other(IDS).logits, out, atol=1e-5)
    with loaded.disabled():
        assert not torch.allclose(other(IDS).logits, out, atol=1e-3)


@ours
@pytest.mark.parametrize("first", ["peft", "ours"])
def test_inside_a_peft_model(tmp_path, variant, first):
    """A PeftModel around the model that carries our adapter. PEFT freezes what it did not make, so where it wraps last,
    our parameters are asked for again."""
    model = tiny_model()
    config = peft.LoraConfig(task_type="CAUSAL_LM", **LORA)
    if first == "peft":
        wrapped = peft.get_peft_model(model, config)
        handle = ctxpeft.attach(wrapped.get_base_model(), variant, seed=0)
    else:
        handle = ctxpeft.attach(model, variant, seed=0)
        wrapped = peft.get_peft_model(model, config)
        for parameter in handle.parameters():
            parameter.requires_grad_(True)
    lora = [p for k, p in wrapped.named_parameters() if "lora_" in k]
    train(wrapped, [*lora, *handle.parameters()], wrapped.eval())
    out = wrapped(input_ids=IDS).logits
    tokens = wrapped.generate(input_ids=IDS, max_new_tokens=4, do_sample=False)
    wrapped.save_pretrained(str(tmp_path / "lora"))
    handle.save(tmp_path / "ours")
    stored = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert len(stored) == len(lora)
    assert not [key for key in stored if "ctxpeft" in key]
    other = peft.PeftModel.from_pretrained(tiny_model(), str(tmp_path / "lora")).eval()
    ctxpeft.load(other.get_base_model(), tmp_path / "ours")
    assert torch.allclose(other(input_ids=IDS).logits, out, atol=1e-5)
    assert torch.equal(other.generate(input_ids=IDS, max_new_tokens=4, do_sample=False), tokens)


def test_a_prompt_goes_through_the_tuner_as_the_input_does():
    """Virtual tokens are read by the model with its LoRA, as a prompt before the input would be; LoRA's gradient
    includes them."""
    model = tiny_model()
    peft.inject_adapter_in_model(peft.LoraConfig(init_lora_weights=False, **LORA), model)
    lora = [p for k, p in model.named_parameters() if "lora_" in k]
    handle = ctxpeft.attach(model, PROMPT, seed=0)
    out = model(IDS, labels=IDS)
    out.loss.backward()
    gradients = [p.grad.clone() for p in lora]
    model.zero_grad()
    with handle.disabled():
        tokens = dict(handle.named_parameters())["shared.0.prompt.embedding"].detach()
        inputs = torch.cat([tokens.expand(4, -1, -1), model.get_input_embeddings()(IDS)], 1)
        expected = model(inputs_embeds=inputs).logits[:, 4:].contiguous()
    model.loss_function(expected, IDS, model.config.vocab_size).backward()
    assert torch.allclose(out.logits, expected, atol=1e-5)
    for found, parameter in zip(gradients, lora, strict=True):
        assert torch.allclose(found, parameter.grad, atol=1e-5 * float(parameter.grad.abs().max()) + 1e-7)
