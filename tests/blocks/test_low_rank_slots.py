"""Slots of low rank once they are deployed."""

import pytest

import ctxpeft
from ctxpeft.hosts.count import count_parameters
from ctxpeft.spec.load import load_variant
from ctxpeft.testing.tiny import tiny_model


@pytest.mark.parametrize(("count", "rank", "folds"), [(2, 1, False), (16, 1, False), (2, 8, True)])
def test_factors_are_folded_only_where_keys_and_values_are_fewer(count: int, rank: int, folds: bool) -> None:
    """What remains is never more than what is saved: K (P, d) and V (P, dv), or their factors."""
    low_rank = {"kind": "low_rank", "rank": rank}
    memory = {"kind": "slots", "count": count, "parameterization": low_rank, "per": "kv_head"}
    variant = load_variant({"name": "low", "modules": [{"placement": "inside", "memory": memory}]})
    model = tiny_model("llama")
    handle = ctxpeft.attach(model, variant)
    config = model.config
    groups, width = config.num_hidden_layers * config.num_key_value_heads, config.head_dim
    factors, whole = 2 * groups * rank * (count + width), 2 * groups * count * width
    assert handle.num_parameters() == factors
    assert handle.num_parameters("deployed") == (whole if folds else factors) == min(whole, factors)
    assert count_parameters(model, variant, "deployed") == min(whole, factors)
