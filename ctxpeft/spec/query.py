"""The question a module asks: which tensor of the host, how normalised, how scaled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ctxpeft.spec.base import Domain, Spec

Source = Literal["rotated", "unrotated", "hidden", "output"]


class QuerySpec(Spec):
    """q' = scale(norm(source)) / temperature.

    source: `rotated` (the query after RoPE), `unrotated` (after bias and q_norm, before RoPE), `hidden` (what
    enters the attention or FFN block), `output` (what leaves it). Left out: `rotated` at the head site, `hidden`
    elsewhere.
    norm: over the width of one head. scale: a power of the width d (Performer and NTK-Attention use d^-1/4).
    temperature: a positive number; learned (one a head) if `learned_temperature`.
    """

    source: Source | None = None
    norm: Literal["none", "rms", "l2"] = "none"
    scale: Literal["none", "inverse_sqrt", "inverse_fourth_root"] = "none"
    temperature: Annotated[float, Field(gt=0), Domain(0.1, 10.0, log=True)] = 1.0
    learned_temperature: bool = False
