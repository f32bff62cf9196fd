"""What the slots of an adapter say, in words of the model's vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ctxpeft.analysis.diagnose._diagnosis import Diagnosis
from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.memory.slots import SlotMemory
from ctxpeft.hosts.handle import Handle


@torch.no_grad()
def slots(handles: dict[str, Handle], tokenizer: Any, top: int = 5) -> Diagnosis:
    """For every slot, the tokens whose unembedding is nearest to what its value adds to the residual stream.

    The value goes through the host's output projection (or past it, as the module says), all query heads reading it at
    once; nearness is the cosine.
    The norms of key and value are given beside. Slots that are virtual tokens of the input are left out: their keys and
    values exist in a forward pass only.
    """
    rows: list[tuple[str, int, int, int, float, float, str]] = []
    for name, handle in handles.items():
        head = handle.model.get_output_embeddings()  # type: ignore[operator]
        words = functional.normalize(head.weight.float(), dim=-1)
        layers = {seam.layer.index: seam.layer for seam in handle.seams}
        for _, place, layer, module in handle.built:
            if not (isinstance(module, ContextModule) and isinstance(module.memory, SlotMemory)):
                continue
            if layer is None or module.spec.site != "head" or _of_a_pass(module):
                continue
            host = layers[layer]
            key, value = module.memory.slots(Capture(output=torch.empty(0), project_kv=host.project_kv))
            said = _of_query_heads(module, value, host.query_heads)
            if module.spec.projected:
                said = host.output_projection()(said)
            near = functional.normalize(said.float(), dim=-1) @ words.T
            for slot in range(key.shape[1]):
                best = near[slot].topk(min(top, near.shape[1])).indices.tolist()
                rows.append(
                    (
                        name,
                        place,
                        layer,
                        slot,
                        float(key[:, slot].norm()),
                        float(value[:, slot].norm()),
                        " ".join(repr(tokenizer.decode([token])) for token in best),
                    )
                )
    return Diagnosis(
        "slots",
        "The tokens nearest to what each slot adds to the residual stream, and the norms of its key and value.",
        ("adapter", "module", "layer", "slot", "key", "value", "nearest tokens"),
        tuple(rows),
    )


def _of_a_pass(module: ContextModule) -> bool:
    parameterization = getattr(module.spec.memory, "parameterization", None)
    return getattr(parameterization, "kind", "") == "prompt"


def _of_query_heads(module: ContextModule, value: Tensor, count: int) -> Tensor:
    """(G, P, dv) -> (P, count dv), heads out of scope silent."""
    groups = torch.tensor(module.grouping.group_of_head, device=value.device)
    per_head = value[groups]
    if module.heads is not None:
        every = value.new_zeros(count, *value.shape[1:])
        per_head = every.index_copy(0, module.heads, per_head)
    return per_head.transpose(0, 1).flatten(1)
