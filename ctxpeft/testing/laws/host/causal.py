"""No leak from the future."""

from __future__ import annotations

from dataclasses import replace

from ctxpeft.testing.laws.ground import Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="logits_i(t₁ … t_n) = logits_i(t₁ … t_i)",
    source="the design; a gate pooled over the sequence breaks it",
    least=Size(1, 2),
    base=True,
    peft=True,
)
def causal(host: Host, size: Size) -> None:
    """No output depends on a later token, gates included."""
    batch, cut = host.batch(*size[:2]), size.tokens * 2 // 3
    ids = batch.ids.clone()
    ids[:, cut:] = host.batch(*size[:2], seed=2).ids[:, cut:]
    same = ids[:, cut:] == batch.ids[:, cut:]
    ids[:, cut:][same] = host.ordinary[0 if int(host.ordinary[0]) not in batch.ids[:, cut:] else 1].to(ids)
    with host.adapted():
        one, other = host.run(batch), host.run(replace(batch, ids=ids))
    before = slice(None, cut)
    host.evidence.close(one.at(tokens=before), other.at(tokens=before), host.same_kernel)
    require(not bool((one.logits[:, cut:] == other.logits[:, cut:]).all()), "the model ignores its input")
