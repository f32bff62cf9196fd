"""Mistakes in `ctxpeft/blocks/compose.py`: the joint softmax and the outside merges."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, algebra

VANISHED = ("tests/blocks/test_vanished_mass.py",)
COMPOSE = "blocks/compose.py"

MUTANTS = (
    Mutant(
        "sign of the prefix",
        COMPOSE,
        "torch.addcmul(merged, share[..., None], n)",
        "torch.addcmul(merged, -share[..., None], n)",
        algebra("tradeoff-form"),
    ),
    Mutant(
        "inside modules merged one after another",
        COMPOSE,
        "weight = weight - rho",
        "weight = weight * (1 - rho)",
        algebra("inside-joins-one-softmax"),
    ),
    Mutant(
        "content mass forgotten",
        COMPOSE,
        "total = torch.exp(log_mass - shift)",
        "total = torch.zeros_like(log_mass)",
        algebra("inside-is-concatenation"),
    ),
    Mutant(
        "L detached",
        COMPOSE,
        "torch.exp(log_mass - shift)",
        "torch.exp(log_mass.detach() - shift)",
        algebra("inside-is-concatenation"),
    ),
    Mutant(
        "no common shift",
        COMPOSE,
        "shift = torch.maximum(shift, c.detach())",
        "pass",
        algebra("huge-scores"),
    ),
    Mutant(
        "minus infinity as a shift",
        COMPOSE,
        "torch.where(torch.isneginf(shift), torch.zeros_like(shift), shift)",
        "shift",
        algebra("content-that-sees-nothing"),
    ),
    Mutant(
        "gate on the weight dropped",
        COMPOSE,
        "share = gate[..., 0] * share",
        "pass",
        algebra("gates-inside"),
    ),
    Mutant(
        "gate ignored in the weight that is left",
        COMPOSE,
        "rho = share if m is None else share * m",
        "rho = (share if m is None else share * m) / (1.0 if gate is None else gate[..., 0])",
        algebra("weight-left-to-content"),
    ),
    Mutant(
        "row and token masks ignored inside",
        COMPOSE,
        "c = torch.where(mask[:, None], c, -torch.inf)",
        "pass",
        algebra("routed-rows"),
    ),
    Mutant(
        "row and token masks ignored outside",
        COMPOSE,
        "change = change * mask[:, None, :, None].to(change.dtype)",
        "pass",
        algebra("tokens-out-of-scope"),
    ),
    Mutant(
        "heads in scope misplaced inside",
        COMPOSE,
        ".index_add(1, heads, t.contiguous())",
        ".index_add(1, heads.flip(0), t.contiguous())",
        algebra("heads-out-of-scope"),
    ),
    Mutant(
        "heads in scope misplaced outside",
        COMPOSE,
        "o.index_add(1, module.heads, change",
        "o.index_add(1, module.heads.flip(0), change",
        algebra("heads-out-of-scope"),
    ),
    Mutant(
        "mix adds instead of mixing",
        COMPOSE,
        "gate * (read.n - mine)",
        "gate * read.n",
        algebra("moved-out-with-constant-lambda"),
    ),
    Mutant("scale adds", COMPOSE, "(gate - 1) * mine", "gate * mine", algebra("token-gates-outside")),
    Mutant(
        "gate of an added read dropped",
        COMPOSE,
        "read.n if gate is None else gate * read.n",
        "read.n",
        algebra("llama-adapter"),
    ),
    Mutant(
        "heads behind the projection transposed",
        COMPOSE,
        "return o.transpose(1, 2).flatten(2).to(states.dtype)",
        "return o.reshape(states.shape).to(states.dtype)",
        algebra("reads-past-the-projection"),
    ),
    Mutant(
        "nothing seen at all",
        COMPOSE,
        "total.masked_fill(total < torch.finfo(total.dtype).tiny, 1.0)",
        "total.clamp_min(torch.finfo(total.dtype).tiny)",
        VANISHED,
    ),
    Mutant(
        "autocast inside the blocks",
        "blocks/precision.py",
        "enabled=False",
        "enabled=True",
        algebra("merges-are-single-precision"),
    ),
)
