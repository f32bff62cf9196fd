"""Variants drawn from the whole algebra obey the laws of a host: nothing is special about those that ship."""

from functools import cache

import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ctxpeft import attach
from ctxpeft.errors import HostError
from ctxpeft.hosts.count import count_parameters
from ctxpeft.spec.load import load_variant
from ctxpeft.testing.laws import law
from ctxpeft.testing.laws.ground import Host
from ctxpeft.testing.laws.run import run_law
from ctxpeft.testing.strategies import variants
from ctxpeft.testing.tiny import TinyTokenizer, tiny_model

LAWS = (
    "identity-at-init",
    "detach-restores-the-base",
    "disabled-is-the-base",
    "causal",
    "left-padding",
    "right-padding",
    "rows-are-permutable",
    "saves-and-loads",
    "counts-its-parameters",
    "memories-stay-single-precision",
)
SCOPES = ({}, {"layers": {"last": 1}}, {"layers": [0]})
HEADS = ({}, {"heads": [0, 2]})


@cache
def lent(family, dtype):
    """In double precision where a law compares: a drawn variant may cancel what it reads and enlarge its rounding."""
    return tiny_model(family).to(dtype)


def on_two_layers(variant, layers, heads):
    """The variant with scopes that a model of two layers and four heads has."""
    data = variant.to_dict()
    for module in data["modules"]:
        site, tokens = module.get("site", "head"), module.get("scope", {}).get("tokens", "all")
        module["scope"] = {"tokens": tokens}
        module["scope"] |= layers if site != "embeddings" else {}
        module["scope"] |= heads if site == "head" else {}
    return load_variant(data)


drawn = st.builds(on_two_layers, variants(), st.sampled_from(SCOPES), st.sampled_from(HEADS))


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(drawn, st.sampled_from(LAWS), st.sampled_from(["llama", "gpt2", "gemma2", "mistral"]))
def test_drawn_variants(variant, name, family):
    """Those that the host can carry: layers and heads it has, widths that fit."""
    model = lent(family, torch.float32 if name == "memories-stay-single-precision" else torch.float64)
    try:
        assume(count_parameters(model, variant) < 100_000)
        attach(model, variant, seed=0, tokenizer=TinyTokenizer()).detach()
    except HostError:
        assume(False)
    outcome = run_law(law(name), Host(model, variant, std=0.05, tokenizer=TinyTokenizer()), [law(name).most])
    assert outcome.result != "violated", outcome.sentence()
