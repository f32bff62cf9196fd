"""Every installed memory and gate conforms, in each of its forms."""

import pytest

from ctxpeft.errors import HostError
from ctxpeft.testing.gates import GateConformance
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.memories import MemoryConformance

ELU, ELU1 = {"kind": "elu"}, {"kind": "elu_plus_one"}
SLOTS = {"kind": "slots", "count": 3}
MEMORIES = {
    "matrix": {"placement": "outside", "feature_map": ELU, "memory": {"kind": "matrix"}},
    "matrix-normal": {
        "placement": "outside",
        "feature_map": ELU,
        "memory": {"kind": "matrix", "init": {"kind": "normal"}},
    },
    "matrix-per-layer": {
        "placement": "outside",
        "feature_map": ELU,
        "memory": {"kind": "matrix", "per": "layer"},
    },
    "matrix-low-rank": {
        "placement": "outside",
        "feature_map": ELU,
        "memory": {"kind": "matrix", "form": "low_rank", "rank": 2},
    },
    "matrix-of-a-constant-map": {
        "placement": "outside",
        "feature_map": {"kind": "one"},
        "memory": {"kind": "matrix"},
    },
    "matrix-diagonal": {
        "placement": "outside",
        "feature_map": ELU,
        "memory": {"kind": "matrix", "form": "diagonal"},
    },
    "matrix-normalised": {
        "placement": "outside",
        "feature_map": ELU1,
        "memory": {"kind": "matrix"},
        "normalizer": "sum",
    },
    "matrix-inside": {"placement": "inside", "feature_map": ELU1, "memory": {"kind": "matrix"}},
    "slots-outside": {"placement": "outside", "memory": SLOTS},
    "slots-inside": {"placement": "inside", "memory": SLOTS},
    "slots-zero-values": {"placement": "outside", "memory": {**SLOTS, "value_init": {"kind": "zeros"}}},
    "slots-kernel": {"placement": "outside", "feature_map": ELU, "memory": {**SLOTS, "score": "kernel"}},
    "slots-kernel-inside": {
        "placement": "inside",
        "feature_map": ELU1,
        "memory": {**SLOTS, "score": "kernel"},
    },
    "slots-kernel-hedgehog": {
        "placement": "inside",
        "feature_map": {"kind": "hedgehog"},
        "phi_per": "kv_head",
        "memory": {**SLOTS, "score": "kernel"},
    },
    "slots-kernel-taylor": {
        "placement": "outside",
        "feature_map": {"kind": "taylor", "width": None},
        "memory": {**SLOTS, "score": "kernel"},
        "normalizer": "sum",
    },
    "slots-relu": {"placement": "outside", "memory": {**SLOTS, "score": "relu", "per": "layer"}},
    "slots-mlp": {
        "placement": "inside",
        "memory": {**SLOTS, "parameterization": {"kind": "mlp", "embedding": 4, "hidden": 5}},
    },
    "slots-norga": {"placement": "inside", "memory": {**SLOTS, "score": "norga"}},
    "slots-gated": {"placement": "inside", "memory": {**SLOTS, "gated": True}},
    "slots-frozen": {"placement": "outside", "memory": {**SLOTS, "frozen": 1}},
    "slots-low-rank": {
        "placement": "inside",
        "memory": {**SLOTS, "parameterization": {"kind": "low_rank", "rank": 2}},
    },
    "slots-shared-kv": {
        "placement": "inside",
        "memory": {**SLOTS, "parameterization": {"kind": "shared_kv", "embedding": 5}},
    },
    "slots-shared-kv-zero-values": {
        "placement": "outside",
        "memory": {**SLOTS, "parameterization": {"kind": "shared_kv"}, "value_init": {"kind": "zeros"}},
    },
    "edit": {"placement": "outside", "memory": {"kind": "edit", "rank": 2}},
    "edit-per-query-head": {
        "placement": "outside",
        "memory": {"kind": "edit", "rank": 3, "per": "query_head"},
    },
    "positions": {"placement": "outside", "memory": {"kind": "positions", "length": 3, "rank": 2}},
    "vector": {"placement": "outside", "memory": {"kind": "vector"}},
    "vector-inside": {
        "placement": "inside",
        "memory": {"kind": "vector", "per": "kv_head", "init": {"kind": "normal"}},
    },
}
GATES = {
    "none": {"kind": "none"},
    "constant": {"kind": "constant", "value": 0.3},
    "constant-zero": {"kind": "constant", "value": 0.0},
    "constant-one": {"kind": "constant", "value": 1.0},
    "scalar-linear-one": {"kind": "scalar", "activation": "linear", "per": "channel", "init": 1.0},
    "token-hidden-linear-one": {"kind": "token", "source": "hidden", "activation": "linear", "init": 1.0},
    **{
        f"scalar-{activation}-{per}": {"kind": "scalar", "activation": activation, "per": per}
        for activation in ("tanh", "sigmoid", "linear", "exp")
        for per in ("layer", "head", "channel")
    },
    **{
        f"token-{source}-{activation}": {"kind": "token", "source": source, "activation": activation}
        for source in ("query", "hidden", "output", "log_mass")
        for activation in ("tanh", "sigmoid")
    },
}


@pytest.mark.parametrize("name", list(MEMORIES))
class TestMemories(MemoryConformance):
    @pytest.fixture(autouse=True)
    def _module_of_name(self, name):
        self.module = MEMORIES[name]


def test_an_edit_of_more_than_there_is():
    heads = Heads.random(0, 1, kv_heads=1, repeat=1, tokens=2, width=4, value_width=4, mask="causal")
    with pytest.raises(HostError, match="rank 8 is more than the width 4"):
        heads.module({"placement": "outside", "memory": {"kind": "edit", "rank": 8}})
    with pytest.raises(HostError, match="5 wide and 4 do not fit"):
        heads.module({"placement": "outside", "query": {"source": "hidden"}, "memory": {"kind": "edit"}})


@pytest.mark.parametrize("name", list(GATES))
class TestGates(GateConformance):
    @pytest.fixture(autouse=True)
    def _gate_of_name(self, name):
        self.gate = GATES[name]
