"""The laws of a host, on a tiny random model of every family in the table."""

import pytest
import torch

import ctxpeft
from ctxpeft.testing.tiny import FAMILIES, perturb, tiny_model

from .cases import VARIANTS

pytestmark = pytest.mark.parametrize("family", sorted(FAMILIES))
variants = pytest.mark.parametrize("variant", list(VARIANTS))


def tokens(batch=2, length=9):
    return torch.randint(3, 61, (batch, length), generator=torch.Generator().manual_seed(1))


@variants
def test_identity_at_init_and_after_detach(family, variant):
    model, ids = tiny_model(family), tokens()
    base = model(ids).logits
    flags = [p.requires_grad for p in model.parameters()]
    handle = ctxpeft.attach(model, VARIANTS[variant], seed=0)
    assert torch.equal(model(ids).logits, base) or not handle.variant.identity_at_init()
    perturb(handle)
    changed = model(ids).logits
    assert not torch.equal(changed, base)
    assert bool(((changed - base).abs().amax((0, 2)) > 0).all()), "some position does not see the memory"
    with handle.disabled():
        assert torch.equal(model(ids).logits, base)
    assert torch.equal(model(ids).logits, changed)
    handle.detach()
    assert torch.equal(model(ids).logits, base)
    assert [p.requires_grad for p in model.parameters()] == flags


@variants
def test_causal(family, variant):
    """No output depends on a later token."""
    model, ids = tiny_model(family), tokens()
    perturb(ctxpeft.attach(model, VARIANTS[variant], seed=0))
    later = ids.clone()
    later[:, 6:] = (later[:, 6:] + 1) % 58 + 3
    a, b = model(ids).logits, model(later).logits
    assert torch.equal(a[:, :6], b[:, :6]) or torch.allclose(a[:, :6], b[:, :6], atol=1e-5)
    assert not torch.allclose(a[:, 6:], b[:, 6:], atol=1e-3)


@variants
def test_every_parameter_gets_a_gradient_and_the_base_none(family, variant):
    model, ids = tiny_model(family), tokens()
    handle = ctxpeft.attach(model, VARIANTS[variant], seed=0)
    perturb(handle)
    model(ids, labels=ids).loss.backward()
    ours = {id(p) for p in handle.parameters()}
    missing = [k for k, p in handle.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not missing
    assert all(p.grad is None for p in model.parameters() if id(p) not in ours)


@variants
def test_left_padding_does_not_matter(family, variant):
    model, ids = tiny_model(family), tokens(length=6)
    perturb(ctxpeft.attach(model, VARIANTS[variant], seed=0))
    alone = model(ids).logits
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), ids], 1)
    mask = (padded != 0).long()
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    both = model(padded, attention_mask=mask, position_ids=positions).logits[:, 3:]
    assert torch.allclose(both, alone, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_padded_queries_stay_finite_at_init(family, placement, backend):
    """A left-padded query sees no key, L = -inf: no gate and no gradient may turn that into NaN."""
    model = tiny_model(family)
    if backend == "sdpa" and family == "gemma2":
        pytest.skip("sdpa refuses softcap: gemma2 runs eager")
    model.set_attn_implementation(backend)
    gate = {"kind": "token", "source": "log_mass", "activation": "exp"}
    module = {"placement": placement, "memory": {"kind": "slots", "count": 2}, "gate": gate}
    if placement == "inside":
        module |= {"merge": "compete_length", "gate": {**gate, "on": "mass"}}
    handle = ctxpeft.attach(model, {"name": "gated", "modules": [module]}, seed=0)
    ids = tokens()
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    out = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
    out.loss.backward()
    assert bool(torch.isfinite(out.logits).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in handle.parameters())


@variants
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_is_teacher_forcing(family, variant, cache):
    """Cached greedy decoding of a left-padded batch equals argmax of full forward passes."""
    model, ids = tiny_model(family), tokens(length=5)
    perturb(ctxpeft.attach(model, VARIANTS[variant], seed=0))
    ids[0, :2] = 0
    mask = (ids != 0).long()
    options = {"cache_implementation": "static"} if cache == "static" else {}
    model.generation_config.eos_token_id = None
    got = model.generate(
        ids, attention_mask=mask, max_new_tokens=6, do_sample=False, disable_compile=True, **options
    )
    grown, grown_mask = ids, mask
    for _ in range(6):
        positions = (grown_mask.cumsum(1) - 1).clamp_min(0)
        logits = model(grown, attention_mask=grown_mask, position_ids=positions, use_cache=False).logits[
            :, -1
        ]
        top = logits.topk(2).values
        assert bool((top[:, 0] - top[:, 1] > 1e-4).all()), "a tie would make this comparison meaningless"
        grown = torch.cat([grown, logits.argmax(-1, keepdim=True)], 1)
        grown_mask = torch.cat([grown_mask, torch.ones(2, 1, dtype=torch.long)], 1)
    assert torch.equal(got, grown)


@variants
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(family, variant, reentrant):
    """The same gradients with recomputation, even when the adapter is switched off before backward."""
    model, ids = tiny_model(family), tokens()
    handle = ctxpeft.attach(model, VARIANTS[variant], seed=0)
    perturb(handle)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model(ids, labels=ids).loss.backward()
    plain = {k: p.grad.clone() for k, p in handle.named_parameters()}
    for p in handle.parameters():
        p.grad = None
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    loss = model(ids, labels=ids).loss
    with handle.disabled():
        loss.backward()
    for key, p in handle.named_parameters():
        assert torch.allclose(p.grad, plain[key], atol=1e-5, rtol=1e-4), key


@variants
def test_eager_equals_sdpa(family, variant):
    model, ids = tiny_model(family), tokens()
    if family == "gemma2":
        pytest.skip("sdpa refuses softcap: gemma2 runs eager")
    perturb(ctxpeft.attach(model, VARIANTS[variant], seed=0))
    model.set_attn_implementation("sdpa")
    sdpa = model(ids).logits
    model.set_attn_implementation("eager")
    eager = model(ids, output_attentions=True)
    assert torch.allclose(eager.logits, sdpa, atol=2e-4, rtol=1e-4)


def test_the_recomputed_log_mass_equals_the_kernels(family, monkeypatch):
    """Where no kernel tells L it is recomputed from the scores: the same values and gradients."""
    model, ids = tiny_model(family), tokens()
    handle = ctxpeft.attach(model, VARIANTS["mixed"], seed=0)
    perturb(handle)
    padded = torch.ones_like(ids)
    padded[0, 6:] = 0
    seen = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr("ctxpeft.hosts.seam.applicable", lambda *_: False)
        for mask in (None, padded):
            for parameter in handle.parameters():
                parameter.grad = None
            out = model(ids, attention_mask=mask, labels=ids)
            out.loss.backward()
            seen.append([out.logits.detach(), *(p.grad for p in handle.parameters())])
    for kernel, scores in zip(seen[:2], seen[2:], strict=True):
        assert all(torch.allclose(a, b, atol=2e-4, rtol=1e-3) for a, b in zip(kernel, scores, strict=True))


def test_slots_are_a_prefilled_cache(family):
    """Inside slots equal the same keys and values put into transformers' own cache, positions kept."""
    from transformers import DynamicCache

    model, ids = (
        tiny_model(family, **({"sliding_window": None} if family == "mistral" else {})),
        tokens(length=4),
    )
    if family in ("gemma2", "gemma3_text"):
        model = tiny_model(family, sliding_window=64)
    variant = {
        "name": "slots",
        "modules": [
            {
                "placement": "inside",
                "memory": {"kind": "slots", "count": 3, "init": {"kind": "normal", "std": 1}},
            }
        ],
    }
    handle = ctxpeft.attach(model, variant, seed=0)
    ours = model(ids).logits
    parameters = dict(handle.named_parameters())
    cache = DynamicCache(config=model.config)
    for layer in range(2):
        key, value = (
            parameters[f"layers.{layer}.0.memory.slots.{part}"].detach() for part in ("key", "value")
        )
        cache.update(key.expand(2, -1, -1, -1), value.expand(2, -1, -1, -1), layer)
    handle.detach()
    theirs = model(
        ids,
        past_key_values=cache,
        attention_mask=torch.ones(2, 7, dtype=torch.long),
        position_ids=torch.arange(4)[None],
    ).logits
    assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)


@variants
def test_save_and_load(family, variant, tmp_path):
    model, ids = tiny_model(family), tokens()
    handle = ctxpeft.attach(model, VARIANTS[variant], seed=0)
    perturb(handle)
    out = model(ids).logits
    handle.save(tmp_path / "adapter")
    other = tiny_model(family)
    loaded = ctxpeft.load(other, tmp_path / "adapter")
    assert torch.equal(other(ids).logits, out)
    assert loaded.variant == handle.variant
    assert not any(p.requires_grad for p in other.parameters())
