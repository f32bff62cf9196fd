"""Decoding with a cache is the same function."""

from __future__ import annotations

from typing import Any

import torch

from ctxpeft.testing.laws.evidence import Run
from ctxpeft.testing.laws.ground import Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size

NEW = 6


def decode(host: Host, size: Size, **options: Any) -> None:
    """Greedy decoding of a batch whose first row is padded, compared with one pass over what it wrote."""
    batch = host.batch(size.batch, size.tokens + size.padded).hidden(size.padded).prompt()
    with host.adapted(), host.greedy():
        out = host.model.generate(
            batch.ids,
            attention_mask=batch.mask,
            max_new_tokens=NEW,
            return_dict_in_generate=True,
            output_logits=True,
            disable_compile=True,
            **options,
        )
        written = out.sequences[:, batch.ids.shape[1] :]
        require(written.shape[1] == NEW, f"generate wrote {written.shape[1]} tokens, not {NEW}")
        forced = host.run(batch.followed_by(written), use_cache=False)
    steps = slice(batch.ids.shape[1] - 1, -1)
    cached, forced = Run(torch.stack(out.logits, 1).to(forced.logits)), forced.at(tokens=steps)
    host.evidence.close(cached, Run(forced.logits), host.other_kernel)
    chosen = forced.logits.gather(2, written[..., None])[..., 0]
    lag = forced.logits.amax(2) - chosen
    tie = host.other_kernel.absolute + host.other_kernel.relative * chosen.abs()
    require(bool((lag <= tie).all()), "generate wrote a token that teacher forcing finds less likely")


@host_law(
    equation="generate(x) = argmax of full passes, logits included",
    source="the design",
    most=Size(2, 3, 2),
    base=True,
    peft=True,
)
def generates_as_teacher_forced(host: Host, size: Size) -> None:
    """Greedy decoding with the dynamic cache, one row padded, equals full passes without a cache."""
    decode(host, size)
