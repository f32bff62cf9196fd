"""`memory.position`: slots that stand before the content, as in the cache that HF PEFT's prefix fills."""

import inspect

import pytest
import torch
from transformers import DynamicCache

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.testing.laws import law
from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.run import run_law
from ctxpeft.testing.tiny import perturb, tiny_model

COUNT = 5
FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "granite", "smollm3", "starcoder2", "olmo2", "phi3", "gpt2")
ROTATING = FAMILIES[:-1]
IDS = torch.randint(3, 61, (2, 7), generator=torch.Generator().manual_seed(1))
MASKS = {"none": None, "left": [[0, 0, 1, 1, 1, 1, 1], [1] * 7], "right": [[1, 1, 1, 1, 1, 0, 0], [1] * 7]}


def variant(position, count=COUNT):
    slots = {
        "kind": "slots",
        "count": count,
        "position": position,
        "init": {"kind": "normal", "std": 0.7},
    }
    return {"name": position, "modules": [{"placement": "inside", "memory": slots}]}


def host(family, **options):
    if family == "phi3":
        options["rope_parameters"] = {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        }
    if family == "smollm3":
        options["no_rope_layers"] = [1, 0]
    return tiny_model(family, **options)


def mask_of(name):
    return None if MASKS[name] is None else torch.tensor(MASKS[name])


def with_cache(model, slots, ids, mask, **more):
    """The base with the slots in its cache at positions 0 to P-1, as HF PEFT calls it."""
    cache = DynamicCache()
    for layer, (key, value) in enumerate(slots):
        cache.update(key.expand(len(ids), -1, -1, -1), value.expand(len(ids), -1, -1, -1), layer)
    if mask is not None:
        mask = torch.cat([torch.ones(len(ids), slots[0][0].shape[1], dtype=mask.dtype), mask], 1)
    return model(ids, attention_mask=mask, past_key_values=cache, **more).logits


def slots_of(handle):
    found = dict(handle.named_parameters())
    layers = range(len({key.split(".")[1] for key in found}))
    return [tuple(found[f"layers.{i}.0.memory.slots.{part}"] for part in ("key", "value")) for i in layers]


def close(ours, theirs, mask, tolerance=2e-5):
    kept = slice(None) if mask is None else mask.bool()
    assert torch.allclose(
        ours[kept], theirs[kept], atol=tolerance * float(theirs.detach().abs().max()), rtol=0
    )


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize(
    ("family", "position"),
    [(f, "before") for f in ROTATING] + [(f, "offset") for f in FAMILIES] + [("gpt2", "auto")],
)
def test_equals_slots_in_the_cache(family, position, padding):
    """Values, and the gradients of keys and values."""
    model, mask = host(family), mask_of(padding)
    handle = ctxpeft.attach(model, variant(position), seed=0)
    out = model(IDS, attention_mask=mask).logits
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    if mask is not None:
        weights = weights * mask[..., None]
    (out * weights).sum().backward()
    slots = [tuple(t.detach().clone().requires_grad_() for t in pair) for pair in slots_of(handle)]
    with handle.disabled():
        expected = with_cache(model, slots, IDS, mask)
    (expected * weights).sum().backward()
    close(out, expected, mask)
    for ours, theirs in zip(slots_of(handle), slots, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a.grad, b.grad, atol=1e-4 * float(b.grad.abs().max()), rtol=0)
    raw = ctxpeft.attach(model, variant("raw"), name="raw", seed=0)
    ctxpeft.activate(model, ["raw"])
    assert float((model(IDS, attention_mask=mask).logits - out).abs().max()) > 1e-3
    raw.detach()


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "mistral"])
def test_sliding_windows(family):
    """Inside the window the cache agrees; each layer is turned by the rotary embedding of its own type."""
    options = {"sliding_window": 32}
    if family == "gemma3_text":
        kinds = {"sliding_attention": 10.0, "full_attention": 1000.0}
        options["rope_parameters"] = {k: {"rope_type": "default", "rope_theta": v} for k, v in kinds.items()}
        options["layer_types"] = list(kinds)
    model = tiny_model(family, **options)
    handle = ctxpeft.attach(model, variant("before"), seed=0)
    out = model(IDS).logits
    slots = slots_of(handle)
    with handle.disabled():
        close(out, with_cache(model, slots, IDS, None), None)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_scaled_rotary_embeddings(rope):
    """YaRN scales cos and sin: the keys are turned and not scaled again."""
    model = tiny_model(rope_parameters={"rope_theta": 10000.0, **rope})
    handle = ctxpeft.attach(model, variant("before"), seed=0)
    out = model(IDS).logits
    slots = slots_of(handle)
    with handle.disabled():
        close(out, with_cache(model, slots, IDS, None), None)


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "factor": 2.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize("rope", [DYNAMIC, LONG], ids=["dynamic", "longrope"])
def test_length_dependent_rotary_embeddings(rope):
    model = tiny_model(rope_parameters=rope)
    with pytest.raises(HostError, match=r"modules\[0\]: position 'before' .* changes with the length"):
        ctxpeft.attach(model, variant("before"))
    assert "_ctxpeft" not in model.__dict__
    for position in ("offset", "auto"):
        handle = ctxpeft.attach(model, variant(position), seed=0)
        out, slots = model(IDS).logits, slots_of(handle)
        with handle.disabled():
            close(out, with_cache(model, slots, IDS, None), None)
        handle.detach()


def test_absolute_positions_are_refused():
    model = tiny_model("gpt2")
    with pytest.raises(
        HostError, match=r"'before' .* gpt2 has none that ctxpeft knows; use position 'offset'"
    ):
        ctxpeft.attach(model, variant("before"))
    assert "_ctxpeft" not in model.__dict__


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize(
    ("family", "position"),
    [("llama", "before"), ("llama", "offset"), ("gemma3_text", "before"), ("gpt2", "offset")],
)
def test_generate_is_teacher_forcing(family, position, padding, cache):
    """The position of every generated token is counted over what is not padding, and then shifted."""
    model, mask = tiny_model(family), mask_of(padding)
    handle = ctxpeft.attach(model, variant(position), seed=0)
    perturb(handle)
    model.generation_config.eos_token_id = None
    mask = torch.ones_like(IDS) if mask is None else mask
    settings = {
        "max_new_tokens": 5,
        "do_sample": False,
        "cache_implementation": cache,
        "disable_compile": True,
    }
    got = model.generate(IDS, attention_mask=mask, **settings)
    full = torch.cat([mask, torch.ones(2, 5, dtype=mask.dtype)], 1)
    logits = model(got, attention_mask=full, position_ids=(full.cumsum(1) - 1).clamp_min(0)).logits
    assert torch.equal(logits[:, 6:-1].argmax(-1), got[:, 7:])


@pytest.mark.parametrize(("family", "position"), [("llama", "before"), ("gpt2", "offset")])
def test_gradient_checkpointing(family, position):
    options = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0} if family == "gpt2" else {}
    model = tiny_model(family, **options)
    handle = ctxpeft.attach(model, variant(position), seed=0)
    model.train()
    model(IDS, labels=IDS).loss.backward()
    plain = {k: p.grad.clone() for k, p in handle.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = model(IDS, labels=IDS).loss
    with handle.disabled():
        model(IDS)
    loss.backward()
    for key, parameter in handle.named_parameters():
        assert torch.allclose(parameter.grad, plain[key], atol=1e-5 * float(plain[key].abs().max()))


def test_each_row_is_shifted_by_its_own_adapter():
    model = tiny_model("gpt2")
    for name, count in (("short", 2), ("long", 9)):
        ctxpeft.attach(model, variant("offset", count), name=name, seed=count)
    alone = {}
    for name in ("short", "long"):
        ctxpeft.activate(model, [name])
        alone[name] = model(IDS).logits
    ctxpeft.activate(model, [])
    base = model(IDS).logits
    rows = torch.cat([IDS, IDS[:1]])
    with ctxpeft.route(model, ["short", "long", None]):
        out = model(rows).logits
    for got, wanted in zip(out, (alone["short"][0], alone["long"][1], base[0]), strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)


def test_position_ids_given_by_position_or_name():
    model = tiny_model("gpt2")
    ctxpeft.attach(model, variant("offset"), seed=0)
    told = torch.arange(3, 10)[None]
    by_name = model(IDS, position_ids=told).logits
    assert not torch.allclose(by_name, model(IDS).logits, atol=1e-3)
    order = list(inspect.signature(model.forward).parameters)
    args = {"input_ids": IDS, "position_ids": told}
    assert torch.equal(
        model(*[args.get(n) for n in order[: order.index("position_ids") + 1]]).logits, by_name
    )


def test_the_base_keeps_its_positions():
    model = tiny_model("gpt2")
    before = model(IDS).logits
    handle = ctxpeft.attach(model, variant("offset"), seed=0)
    with handle.disabled():
        assert torch.equal(model(IDS).logits, before)
    handle.detach()
    assert torch.equal(model(IDS).logits, before)


def test_raw_keeps_its_fingerprint():
    plain = variant("raw")
    del plain["modules"][0]["memory"]["position"]
    assert ctxpeft.load_variant(plain).fingerprint() == ctxpeft.load_variant(variant("raw")).fingerprint()
    others = {ctxpeft.load_variant(variant(p)).fingerprint() for p in ("raw", "before", "offset", "auto")}
    assert len(others) == 4


@pytest.mark.parametrize(
    ("family", "position"), [("llama", "before"), ("qwen3", "offset"), ("gpt2", "auto"), ("llama", "raw")]
)
def test_the_law_of_the_cache_speaks_of_positions(family, position):
    rule = law("slots-are-a-cache")
    outcome = run_law(rule, Host(tiny_model(family), ctxpeft.load_variant(variant(position))), [rule.most])
    assert outcome.result == "holds", outcome.sentence()


@pytest.mark.parametrize("told", [False, True])
def test_a_text_too_long_for_the_positions_that_are_left_is_refused(told):
    """A model that learned its positions has no others; one with RoPE has as many as it is asked for."""
    count, tokens = 60, 8
    given = {"position_ids": torch.arange(tokens)[None]} if told else {}
    ids = torch.zeros(1, tokens, dtype=torch.long)
    model = tiny_model("gpt2")
    ctxpeft.attach(model, variant("offset", count), seed=0)
    model(ids[:, :4], **{k: v[:, :4] for k, v in given.items()})
    with pytest.raises(HostError, match="8 tokens behind 60 slots need 68 positions, and the model has 64"):
        model(ids, **given)
    with ctxpeft.route(model, [None]):
        model(ids, **given)
    turned = tiny_model("llama")
    ctxpeft.attach(turned, variant("offset", count), seed=0)
    turned(ids, **given)


def test_more_virtual_tokens_than_positions_are_refused_before_anything_is_attached():
    memory = {"kind": "slots", "count": 65, "parameterization": {"kind": "prompt"}}
    longer = {"name": "longer", "modules": [{"placement": "inside", "memory": memory}]}
    model = tiny_model("gpt2")
    with pytest.raises(HostError, match="65 virtual tokens need as many positions, and the model has 64"):
        ctxpeft.attach(model, longer)
    assert not hasattr(model, "_ctxpeft")
    ctxpeft.attach(tiny_model("llama"), longer)
