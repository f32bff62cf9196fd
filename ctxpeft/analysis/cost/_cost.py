"""The cost of a variant as numbers, as plain data and as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Flops:
    """Matmul FLOPs, two a multiply-add, as `torch.utils.flop_counter` counts them.

    forward: of a training step. training: forward and backward, the gradient down to the input embeddings. decode: of
    one token on a cache.
    """

    forward: int
    training: int
    decode: int


@dataclass(frozen=True)
class Part:
    """What one module of a variant adds: `forward` FLOPs a token and a pass."""

    name: str
    trainable: int
    forward: int
    forward_per_pass: int


@dataclass(frozen=True)
class Cost:
    """A variant on a model, each row of the batch `context` tokens long.

    base: the frozen model's FLOPs a token. per_token: what the variant adds a token; per_pass: what it adds a pass,
    whatever the batch (slots made by an MLP, virtual tokens). saved_*: bytes kept for the backward pass beyond the
    frozen model's, which keeps `base_saved` a token; negative where it keeps less; on a CPU what a feature map makes is
    kept besides. cache: bytes a token in the KV cache beyond the frozen model's, which holds `base_cache` a token; both
    None for a model without a cache. file: bytes of adapter.safetensors.
    """

    variant: str
    context: int
    parameters: int
    trainable: int
    deployed: int
    base: Flops
    per_token: Flops
    per_pass: Flops
    base_saved: int
    saved_per_token: int
    saved_per_pass: int
    base_cache: int | None
    cache: int | None
    file: int
    parts: tuple[Part, ...]

    def share(self, kind: str) -> float:
        """FLOPs of `forward`, `training` or `decode` over the frozen model's, for one row of `context` tokens.

        What is added a pass is spread over the row; a decoding pass is one token.
        """
        tokens = 1 if kind == "decode" else self.context
        extra = getattr(self.per_token, kind) + getattr(self.per_pass, kind) / tokens
        return float(extra / getattr(self.base, kind))

    def plain(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        shares = {kind: self.share(kind) for kind in ("forward", "training", "decode")}
        return {**asdict(self), "parts": [asdict(part) for part in self.parts], "share": shares}

    def rows(self) -> Iterator[tuple[str, str]]:
        """Names and texts, for people, of all but the counts of parameters."""
        yield "counted on", f"rows of {self.context} tokens"
        for kind, name in (("forward", "forward"), ("training", "training step"), ("decode", "decode")):
            per_pass = getattr(self.per_pass, kind)
            fixed = f" and {per_pass:+,} a pass" if per_pass else ""
            extra = f"{getattr(self.per_token, kind):+,} FLOPs a token{fixed}"
            yield name, f"{extra}, {self.share(kind):+.2%} of {getattr(self.base, kind):,}"
        fixed = f" and {self.saved_per_pass:+,} a pass" if self.saved_per_pass else ""
        share = self.saved_per_token / self.base_saved if self.base_saved else 0.0
        yield (
            "kept for backward",
            f"{self.saved_per_token:+,} bytes a token{fixed}, {share:+.2%} of {self.base_saved:,}",
        )
        if self.cache is not None:
            yield "KV cache", f"{self.cache:+,} bytes a token, of {self.base_cache:,}"
        yield "adapter file", f"{self.file:,} bytes"
        for part in self.parts if len(self.parts) > 1 else ():
            fixed = f" and {part.forward_per_pass:+,} a pass" if part.forward_per_pass else ""
            yield part.name, f"{part.trainable:,} trainable, forward {part.forward:+,} FLOPs a token{fixed}"

    def lines(self) -> Iterator[str]:
        """`rows` as aligned lines."""
        rows = list(self.rows())
        width = max(len(name) for name, _ in rows)
        return (f"{name:<{width}}  {text}" for name, text in rows)
