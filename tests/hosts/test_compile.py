"""Memories compiled from a text: slots that are the text in context, matrices that stand for it."""

import pytest
import torch

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.testing.tiny import FAMILIES, tiny_model

TEXT = [5, 17, 33, 8, 41, 9]
ROTARY = sorted(set(FAMILIES) - {"gpt2"})


class Words:
    """A tokenizer whose text is the numbers of its tokens."""

    def __call__(self, text):
        return {"input_ids": [int(word) for word in text.split()]}


def written(ids):
    return " ".join(map(str, ids))


def wide(family):
    """A model whose window is wider than the text and the input."""
    return tiny_model(
        family, **({"sliding_window": 64} if family in ("mistral", "gemma2", "gemma3_text") else {})
    )


def slots(count, text=TEXT, **fields):
    init = {"kind": "text", "text": written(text)}
    memory = {"kind": "slots", "count": count, "init": init, **fields}
    return {"name": "prompt", "modules": [{"placement": "inside", "memory": memory}]}


def batch(length=7):
    return torch.randint(3, 61, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", ROTARY)
@pytest.mark.parametrize("frozen", [0, 1])
def test_text_slots_are_the_text_in_context(family, frozen):
    """Every logit of an input equals that of the text followed by the input."""
    model, ids = wide(family), batch()
    together = model(torch.cat([torch.tensor([TEXT]).expand(2, -1), ids], 1)).logits[:, len(TEXT) :]
    ctxpeft.attach(model, slots(len(TEXT) - frozen, frozen=frozen), tokenizer=Words())
    assert torch.allclose(model(ids).logits, together, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("frozen", [0, 2])
def test_text_slots_with_a_position_are_the_text_in_context(family, frozen):
    """Also where positions are absolute: there the positions of the input shift."""
    model, ids = wide(family), batch()
    together = model(torch.cat([torch.tensor([TEXT]).expand(2, -1), ids], 1)).logits[:, len(TEXT) :]
    variant = slots(len(TEXT) - frozen, frozen=frozen, position="auto")
    ctxpeft.attach(model, variant, tokenizer=Words())
    assert torch.allclose(model(ids).logits, together, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_only_the_first_tokens_are_taken(family):
    model, ids = tiny_model(family), batch()
    first = ctxpeft.attach(model, slots(2), tokenizer=Words())
    short = {k: p.detach().clone() for k, p in first.named_parameters()}
    first.detach()
    exact = ctxpeft.attach(model, slots(2, TEXT), name="again", tokenizer=Words())
    assert all(torch.equal(p, short[k]) for k, p in exact.named_parameters())
    assert {p.shape[1] for p in exact.parameters()} == {2}
    model(ids, labels=ids).loss.backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in exact.parameters())


def test_a_text_that_is_too_short_is_refused_and_leaves_the_model_alone():
    model, ids = tiny_model(), batch()
    base = model(ids).logits
    with pytest.raises(
        HostError, match=r"modules\[0\].memory.init: .*the text has 6 tokens and there are 9 slots"
    ):
        ctxpeft.attach(model, slots(9), tokenizer=Words())
    assert torch.equal(model(ids).logits, base)
    assert "_ctxpeft" not in model.__dict__


def test_a_missing_tokenizer_is_told():
    with pytest.raises(HostError, match=r"needs the model's tokenizer.*tokenizer=\.\.\."):
        ctxpeft.attach(tiny_model(), slots(3))


def test_a_loaded_adapter_needs_no_tokenizer(tmp_path):
    model, ids = tiny_model(), batch()
    handle = ctxpeft.attach(model, slots(4, frozen=1), tokenizer=Words())
    out = model(ids).logits
    handle.save(tmp_path)
    other = tiny_model()
    ctxpeft.load(other, tmp_path)
    assert torch.equal(other(ids).logits, out)


def demonstrations(module, **fields):
    init = {"kind": "demonstrations", "text": written(TEXT), **fields}
    return {
        "name": "compiled",
        "modules": [{**module, "memory": {"kind": "matrix", "per": "query_head", "init": init}}],
    }


def test_ridge_reduces_what_the_text_would_change():
    """On its own probe the compiled matrix of the first layer explains part of the change at every head."""
    torch.manual_seed(0)
    model, probe = tiny_model(), batch(24)[:1]
    module = {
        "placement": "outside",
        "feature_map": {"kind": "elu"},
        "scope": {"layers": [0]},
    }
    together = torch.cat([torch.tensor([TEXT]), probe], 1)
    seen = {}
    hook = model.model.layers[0].self_attn.register_forward_hook(lambda m, a, out: seen.update(out=out[0]))
    model(together)
    wanted = seen["out"][:, len(TEXT) :]
    model(probe)
    plain = seen["out"]
    variant = demonstrations(module, probe=written(probe[0].tolist()), ridge=1e-4)
    ctxpeft.attach(model, variant, tokenizer=Words())
    hook.remove()
    hook = model.model.layers[0].self_attn.register_forward_hook(lambda m, a, out: seen.update(out=out[0]))
    model(probe)
    hook.remove()
    before, after = (wanted - plain).square().mean(), (wanted - seen["out"]).square().mean()
    assert float(after) < 0.5 * float(before)


def test_ridge_is_the_least_squares_solution():
    """The gradient of the ridge objective vanishes at the compiled matrix."""
    from ctxpeft.blocks.inits.demonstrations import change_in_context, features_of_queries
    from ctxpeft.hosts.compile import read_text
    from ctxpeft.hosts.controller import controller_of

    model = tiny_model()
    module = {"placement": "outside", "feature_map": {"kind": "elu"}}
    handle = ctxpeft.attach(model, demonstrations(module, ridge=0.3), tokenizer=Words())
    controller = controller_of(model)
    before, content = (read_text(model, controller, TEXT, where) for where in ("before", "content"))
    for _, _, layer, built in handle.built:
        X = features_of_queries(built, content[layer]).double()
        Y = change_in_context(built, before[layer], content[layer]).double()
        M = built.memory.matrix.detach().double().requires_grad_()
        strength = 0.3 * X.square().mean((1, 2)) * X.shape[1]
        objective = (X @ M - Y).square().sum() + (strength[:, None, None] * M.square()).sum()
        (gradient,) = torch.autograd.grad(objective, M)
        scale = float((X.transpose(1, 2) @ Y).abs().max())
        assert float(gradient.abs().max()) < 1e-4 * scale


@pytest.mark.parametrize("placement", ["inside", "outside"])
def test_sum_compiles_matrix_and_normaliser(placement):
    """M = sum phi(k) v^T and z = sum phi(k), for every query head of its kv head."""
    from ctxpeft.hosts.compile import read_text
    from ctxpeft.hosts.controller import controller_of

    model = tiny_model()
    module = {
        "placement": placement,
        "feature_map": {"kind": "elu_plus_one"},
        "query": {"scale": "inverse_fourth_root"},
    }
    if placement == "outside":
        module["normalizer"] = "sum"
    handle = ctxpeft.attach(model, demonstrations(module, method="sum"), tokenizer=Words())
    states = read_text(model, controller_of(model), TEXT, "before")
    for _, _, layer, built in handle.built:
        for h in range(4):
            key, value = states[layer].rotated_key[h // 2] * 8**-0.25, states[layer].value[h // 2]
            phi = torch.nn.functional.elu(key) + 1
            M = sum(torch.outer(phi[j], value[j]) for j in range(len(TEXT)))
            assert torch.allclose(built.memory.matrix[h], M, atol=1e-5)
            z = torch.nn.functional.softplus(built.memory.zeta[h])
            assert torch.allclose(z, phi.sum(0), atol=1e-4)
