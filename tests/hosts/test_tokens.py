"""`scope.tokens`: a module acts on the prompt or on what is generated, in training and in generation alike."""

import pytest
import torch

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.testing.tiny import perturb, tiny_model

FAMILIES = ("llama", "gpt2", "gemma3_text")
SITES = {
    "head": {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}},
    "slots": {"placement": "inside", "memory": {"kind": "slots", "count": 3}},
    "ffn": {"placement": "outside", "site": "ffn", "memory": {"kind": "vector"}},
    "residual": {"placement": "outside", "site": "residual", "memory": {"kind": "vector"}},
    "embeddings": {"placement": "outside", "site": "embeddings", "memory": {"kind": "vector"}},
}
pytestmark = pytest.mark.parametrize("family", FAMILIES)
sites = pytest.mark.parametrize("site", sorted(SITES))


def attached(family, site, tokens):
    model = tiny_model(family)
    module = {**SITES[site], "scope": {"tokens": tokens}}
    handle = ctxpeft.attach(model, {"name": "scoped", "modules": [module]}, seed=0)
    perturb(handle, std=1.0)
    return model, handle


def batch(length=8):
    return torch.randint(3, 61, (2, length), generator=torch.Generator().manual_seed(1))


@sites
def test_labels_tell_in_training(family, site):
    """`generated` leaves the logits of the prompt alone; with everything prompt it is the base, bit for bit."""
    model, handle = attached(family, site, "generated")
    ids = batch()
    labels = ids.clone()
    labels[:, :5] = -100
    with handle.disabled():
        base = model(ids).logits
    out = model(ids, labels=labels).logits
    assert torch.equal(out[:, :5], base[:, :5])
    assert bool(((out - base)[:, 5:].abs().amax(-1) > 0).all())
    assert torch.equal(model(ids, labels=torch.full_like(ids, -100)).logits, base)


@sites
@pytest.mark.parametrize("tokens", ["prompt", "generated"])
def test_generate_is_teacher_forcing(family, site, tokens):
    """What generation does step by step, a pass over the whole text does with `ctxpeft.segments`."""
    model, _ = attached(family, site, tokens)
    ids = batch(5)
    model.generation_config.eos_token_id = None
    got = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, disable_compile=True
    )
    generated = torch.zeros_like(got, dtype=torch.bool)
    generated[:, 5:] = True
    with ctxpeft.segments(model, generated):
        logits = model(got).logits
    assert torch.equal(logits[:, 4:-1].argmax(-1), got[:, 5:])
    labels = got.masked_fill(~generated, -100)
    assert torch.equal(model(got, labels=labels).logits, logits)


@sites
def test_prompt_and_generated_are_all(family, site):
    """On a memory that is the same everywhere, the two scopes in one variant are the scope `all`."""
    model, ids = tiny_model(family), batch()
    both = [{**SITES[site], "scope": {"tokens": tokens}} for tokens in ("prompt", "generated")]
    handle = ctxpeft.attach(model, {"name": "both", "modules": both}, seed=0)
    parameters = dict(handle.named_parameters())
    perturb(handle)
    for key, parameter in parameters.items():
        if ".1." in key.removeprefix("layers"):
            twin = key.replace(".1.", ".0.", 1) if key.startswith("embeddings") else None
            twin = twin or f"layers.{key.split('.')[1]}.0.{key.split('.', 3)[3]}"
            parameter.data.copy_(parameters[twin])
    labels = ids.clone()
    labels[:, :3] = -100
    split = model(ids, labels=labels).logits
    handle.detach()
    one = ctxpeft.attach(model, {"name": "all", "modules": [SITES[site]]}, seed=0)
    for key, parameter in one.named_parameters():
        parameter.data.copy_(parameters[key])
    assert torch.allclose(model(ids).logits, split, atol=1e-5, rtol=1e-5)


@sites
def test_gradient_checkpointing_replays_the_segments(family, site):
    model, handle = attached(family, site, "generated")
    ids = batch()
    labels = ids.clone()
    labels[:, :5] = -100
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model(ids, labels=labels).loss.backward()
    plain = {k: p.grad.clone() for k, p in handle.named_parameters()}
    for p in handle.parameters():
        p.grad = None
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = model(ids, labels=labels).loss
    model(ids)
    loss.backward()
    for key, p in handle.named_parameters():
        assert torch.allclose(p.grad, plain[key], atol=1e-5, rtol=1e-4), key


def test_a_mask_of_the_wrong_shape_is_refused(family):
    model, _ = attached(family, "head", "prompt")
    with (
        ctxpeft.segments(model, torch.zeros(2, 3, dtype=torch.bool)),
        pytest.raises(HostError, match="of shape"),
    ):
        model(batch())


def test_a_part_of_the_model_cannot_tell(family):
    model, _ = attached(family, "head", "prompt")
    with pytest.raises(HostError, match="call the model that it was attached to"):
        model.base_model(batch())


def drafter(family):
    """A model that drafts two tokens a pass, seldom the right ones."""
    model = tiny_model(family)
    for parameter in model.parameters():
        parameter.data.mul_(-1.1)
    model.generation_config.num_assistant_tokens = 2
    model.generation_config.num_assistant_tokens_schedule = "constant"
    return model


def test_a_pass_that_cannot_tell_is_refused(family):
    """A prompt in chunks, drafted tokens, generation without a cache: one sentence, not a silent guess."""
    model, _ = attached(family, "head", "prompt")
    ids = batch(6)[:1]
    model.generation_config.eos_token_id = None
    call = {"max_new_tokens": 8, "do_sample": False, "disable_compile": True}
    for way, match in (
        ({"prefill_chunk_size": 4}, "puts 2 tokens on a cache of 4"),
        ({"assistant_model": drafter(family)}, r"puts \d tokens on a cache"),
        ({"use_cache": False}, "no labels and keeps no cache"),
    ):
        with pytest.raises(HostError, match=match) as caught:
            model.generate(ids, attention_mask=torch.ones_like(ids), **call, **way)
        assert "ctxpeft.segments" in str(caught.value)
        assert "\n" not in str(caught.value)
    generated = torch.arange(14)[None] >= 6
    with ctxpeft.segments(model, generated):
        told = model.generate(ids, attention_mask=torch.ones_like(ids), **call, use_cache=False)
    assert torch.equal(told, model.generate(ids, attention_mask=torch.ones_like(ids), **call))
