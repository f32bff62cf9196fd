"""Sites of hosts whose layers are laid out in ways of their own: in parts, tokens first, pooled, tuples."""

from typing import Any

import pytest
import torch

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.hosts.discover import discover
from ctxpeft.testing.hosts.family import variants
from ctxpeft.testing.hosts.subject import Subject, perturb, tokens
from ctxpeft.testing.tiny import TinyTokenizer

SITES = variants()["sites"]
HOSTS = ("causal/xlm", "causal/xlnet", "seq2seq/fsmt", "masked/funnel", "masked/ibert", "masked/albert")
VECTOR = {"placement": "outside", "memory": {"kind": "vector"}}


def subject(family: str, **options: Any) -> Subject:
    mapping, _, kind = family.partition("/")
    made = Subject(mapping, kind)
    for name, value in options.items():
        setattr(made.config, name, value)
    return made


@pytest.mark.parametrize("family", HOSTS)
def test_rows_equal_separate_runs(family: str) -> None:
    """One adapter a row, at every site: a row is a row also where tokens are laid out first."""
    host = subject(family)
    host.ids, host.encoded = tokens(3, 9), tokens(3, 7, seed=2)
    model = host.model()
    for name in ("a", "b"):
        perturb(ctxpeft.attach(model, SITES, name=name, seed=ord(name)))
    rows = ["b", None, "a"]
    with ctxpeft.route(model, rows), torch.no_grad():
        together = host.logits(model)
    for row, name in enumerate(rows):
        ctxpeft.activate(model, [] if name is None else [name])
        with torch.no_grad():
            alone = host.logits(model)[row]
        assert torch.allclose(together[row], alone, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.parametrize("site", ["ffn", "residual"])
def test_generated_tokens_are_told_where_tokens_come_first(site: str) -> None:
    """In the last layer the states of the tokens that are told move, and no others."""
    host = subject("causal/xlnet")
    model = host.model()
    module = {**VECTOR, "site": site, "scope": {"tokens": "generated", "layers": {"last": 1}}}
    perturb(ctxpeft.attach(model, {"name": "told", "modules": [module]}, seed=0))
    generated = torch.zeros_like(host.ids, dtype=torch.bool)
    generated[0, 5:] = generated[1, 2] = True
    ctxpeft.activate(model, [])
    base = host.logits(model)
    ctxpeft.activate(model, ["default"])
    with ctxpeft.segments(model, generated):
        moved = (host.logits(model) - base).abs().amax(-1) > 1e-6
    assert torch.equal(moved, generated)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        ({**VECTOR, "site": "ffn", "scope": {"tokens": "prompt"}}, r"say scope.stack: encoder"),
        (
            {"placement": "inside", "memory": {"kind": "slots", "init": {"kind": "text", "text": "a b c"}}},
            r"a model with one stack.*init: {kind: normal}",
        ),
        (
            {"placement": "inside", "memory": {"kind": "slots", "parameterization": {"kind": "prompt"}}},
            r"needs a causal model.*'direct' or 'mlp'",
        ),
    ],
    ids=["tokens", "text", "prompt"],
)
@pytest.mark.parametrize("family", ["seq2seq/t5", "seq2seq/bart"])
def test_what_asks_for_one_sequence_is_refused_by_two_stacks(
    family: str, module: dict[str, Any], match: str
) -> None:
    model = subject(family).model()
    with pytest.raises(HostError, match=match) as caught:
        ctxpeft.attach(model, {"name": "one", "modules": [module]}, tokenizer=TinyTokenizer())
    assert "\n" not in str(caught.value)
    assert "_ctxpeft" not in model.__dict__


def test_pooled_tokens_cannot_be_told() -> None:
    module = {**VECTOR, "site": "ffn", "scope": {"tokens": "generated"}}
    with pytest.raises(HostError, match=r"pooled or padded.*scope.tokens: all works"):
        ctxpeft.attach(subject("masked/funnel").model(), {"name": "told", "modules": [module]})


def test_a_layer_that_does_not_end_with_its_norm_has_no_residual_site() -> None:
    """Flaubert with norms first adds the FFN to the stream outside of any module."""
    model = subject("masked/flaubert", pre_norm=False).model()
    assert discover(model)[0].spot("residual") is not None
    model.transformer.pre_norm = True
    model.transformer.forward = before_the_ffn(model.transformer)
    model.__dict__.pop("_ctxpeft_spots")
    with pytest.raises(
        HostError, match=r"no single residual stream.*the sites attention_output, ffn, embeddings work"
    ):
        ctxpeft.attach(model, {"name": "r", "modules": [{**VECTOR, "site": "residual"}]})


def before_the_ffn(transformer: Any) -> Any:
    """Flaubert's layers with norms first, as its forward has them where it is given no cache."""

    def forward(input_ids: Any = None, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        states, mask = transformer.embeddings(input_ids), torch.ones_like(input_ids)
        for i, attention in enumerate(transformer.attentions):
            states = states + attention(transformer.layer_norm1[i](states), mask)[0]
            states = states + transformer.ffns[i](transformer.layer_norm2[i](states))
        return BaseModelOutput(last_hidden_state=states)

    return forward


def test_an_ffn_beside_a_shared_attention_is_found() -> None:
    """Zamba keeps attention and FFN of a layer in a block inside it."""
    layers = discover(subject("causal/zamba").model())
    assert all(layer.spot("ffn") is not None for layer in layers)
    assert {(s.taken, s.width) for layer in layers if (s := layer.spot("attention_output"))} == {(64, 32)}


def test_refusals_list_what_works() -> None:
    for family, site in (
        ("causal/nemotron_h", "ffn"),
        ("causal/deepseek_v4", "residual"),
        ("causal/bloom", "head"),
    ):
        model = subject(family).model()
        with pytest.raises(HostError, match=r"the sites .* work") as caught:
            ctxpeft.attach(model, {"name": "x", "modules": [{**VECTOR, "site": site}]})
        assert "\n" not in str(caught.value)
        assert "_ctxpeft" not in model.__dict__
