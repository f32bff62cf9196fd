"""Inside is exact, on the model itself."""

from __future__ import annotations

from typing import Any

import torch

from ctxpeft.hosts.handle import Handle
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.evidence import Run
from ctxpeft.testing.laws.ground import DoesNotApply, Host
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size

_FREE = {"kind": "slots", "score": "softmax", "per": "kv_head", "frozen": 0, "gated": False}


def _is_a_prefix(variant: Variant) -> str | None:
    one = variant.modules[0] if len(variant.modules) == 1 else None
    free = one is not None and one.memory.model_dump(include=set(_FREE)) == _FREE
    plain = (
        one is not None
        and (one.merge, one.gate.kind, one.query.source) == ("compete", "none", "rotated")
        and (one.query.norm, one.query.scale, one.query.temperature) == ("none", "none", 1)
        and not one.query.learned_temperature
        and one.scope.model_dump(exclude_defaults=True) == {}
        and one.memory.parameterization.kind == "direct"  # type: ignore[attr-defined]
    )
    return None if free and plain else "the variant is not one module of free slots inside, a set a kv head"


@host_law(
    equation="inside slots = the same K_s, V_s put into the model's own cache",
    source="Prefix-Tuning, arXiv:2101.00190",
    applies=_is_a_prefix,
    most=Size(2, 4),
)
def slots_are_a_cache(host: Host, size: Size) -> None:
    """Slots inside give what transformers gives with the same keys and values in its cache.

    Positions are kept where the slots are `raw`, and counted on from the cache where they have a position.
    """
    from transformers import DynamicCache

    batch = host.batch(*size[:2])
    config = host.model.config.get_text_config()
    memory: Any = host.variant.modules[0].memory
    count: int = memory.count
    window = getattr(config, "sliding_window", None)
    if window is not None and window < count + size.tokens:
        raise DoesNotApply("the model's sliding window would push the slots out of its cache")
    with host.attached() as handle:
        assert isinstance(handle, Handle)
        ours = host.run(batch)
        slots = [dict(module.named_parameters()) for *_, module in handle.built]
    cache = DynamicCache(config=config)
    for layer, slot in enumerate(slots):
        key, value = (slot[f"memory.slots.{part}"].detach().to(host.dtype)[None] for part in ("key", "value"))
        key, value = (t.expand(size.batch, -1, -1, -1) for t in (key, value))
        cache.update(key, value, layer)
    mask = torch.ones(size.batch, count + size.tokens, dtype=torch.long, device=batch.ids.device)
    first = 0 if memory.position == "raw" else count
    positions = torch.arange(first, first + size.tokens, device=batch.ids.device)[None]
    with torch.no_grad():
        theirs = host.model(batch.ids, past_key_values=cache, attention_mask=mask, position_ids=positions)
    host.evidence.close(Run(ours.logits), Run(theirs.logits), host.other_kernel)
