"""Zero-initialised attention."""

from __future__ import annotations

from torch import Tensor

from ctxpeft.blocks import naive
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import SLOTS, assert_equation, slots_of


@algebra_law(equation="o = o_X + tanh(g_h) softmax(a qᵀK_s) V_s", source="LLaMA-Adapter, arXiv:2303.16199")
def llama_adapter(heads: Heads) -> None:
    """Slots outside with their own softmax under a tanh gate a head are LLaMA-Adapter."""
    gate = {"kind": "scalar", "activation": "tanh"}
    module = heads.module({"placement": "outside", "memory": SLOTS, "gate": gate})
    key, value = slots_of(module)
    logit = dict(module.named_parameters())["gate.logit"]

    def equation(head: naive.Head) -> Tensor:
        return naive.llama_adapter(head, key[head.kv], value[head.kv], logit[head.number, 0, 0])

    assert_equation(heads, module, heads.per_head(equation))
