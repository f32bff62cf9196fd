"""What is added behind the output projection without going through it."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks.compose import add_behind, compose, read_all
from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import ADDED, SLOTS, Spec


@algebra_law(
    equation="y = [o_1 … o_H] W_O + [g_1 r_1 … g_H r_H]",
    source="LLaMA-Adapter on GPT-2 as HF PEFT has it (AdaptedAttentionGPT)",
    past=True,
    module=ADDED,
    scoped=(False, True),
)
def reads_past_the_projection(heads: Heads, module: Spec, scoped: bool) -> None:
    """Reads that pass the output projection by are added behind it, head beside head, those out of scope zero."""
    chosen = tuple(range(0, heads.query.shape[1], heads.repeat)) if scoped else None
    behind = heads.module({**module, "projected": False}, heads=chosen)
    before = heads.module({"placement": "inside", "memory": SLOTS}, seed=1)
    capture = heads.capture()
    content = compose(capture, [(before, None)])[0]
    batch, count, tokens, width = content.shape
    generator = torch.Generator().manual_seed(heads.seed)
    weight = torch.randn(count * width, count * width, dtype=torch.float64, generator=generator)
    states = content.transpose(1, 2).flatten(2) @ weight
    got = add_behind(states, read_all(capture, [(behind, None)]), count)
    read, gate = behind.read(capture)
    added = read.n if gate is None else gate * read.n
    named = chosen or tuple(range(count))
    added = added.expand(batch, len(named), tokens, width)

    def token(b: int, t: int) -> Tensor:
        through = torch.stack([content[b, h, t] @ weight[h * width :][:width] for h in range(count)]).sum(0)
        past = [added[b, named.index(h), t] if h in named else 0 * content[b, h, t] for h in range(count)]
        return through + torch.cat(past)

    expected = torch.stack([torch.stack([token(b, t) for t in range(tokens)]) for b in range(batch)])
    parameters = {
        f"{m}.{k}": p for m, part in enumerate((before, behind)) for k, p in part.named_parameters()
    }
    assert_same_with_gradients(got, expected, {**heads.inputs(), **parameters})
