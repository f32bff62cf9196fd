"""Memories, gates and merges are computed in single precision."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxpeft.blocks.compose import compose
from ctxpeft.testing.heads import Heads
from ctxpeft.testing.laws.law import algebra_law
from ctxpeft.testing.laws.problems import MODULES, Spec

_SINGLE = 2e-5


@algebra_law(
    equation="o_bf16 = round(o_fp32(inputs)), memories in fp32",
    source="the algebra; a published construction in bf16 keeps 38 of 400 checks",
    sinks=True,
    module=MODULES,
    dtype=(torch.bfloat16, torch.float16, torch.float32),
)
def merges_are_single_precision(heads: Heads, module: Spec, dtype: torch.dtype) -> None:
    """On a host of low precision the merge is exact to fp32 and rounded once, autocast or not."""
    exact = heads.module(module)
    built = heads.module(module, dtype=dtype)
    for mine, theirs in zip(built.parameters(), exact.parameters(), strict=True):
        assert mine.dtype == torch.float32
        mine.data.copy_(theirs.data)
        theirs.data.copy_(mine.data)

    def low(x: Tensor) -> Tensor:
        return x.detach().to(dtype)

    names = ("query", "key", "value", "hidden", "unrotated")
    rounded = heads.changed(**{name: low(getattr(heads, name)).double() for name in names})
    capture = rounded.capture()
    output, mass = low(capture.output), rounded.content()[1]
    capture.output = output.double()
    expected = compose(capture, [(exact, None)])[0]
    cast = heads.capture()
    cast.output, cast.log_mass = output, mass.float
    cast.hidden, cast.rotated, cast.unrotated = (low(x) for x in (heads.hidden, heads.query, heads.unrotated))
    cast.key_count = rounded.capture().key_count
    got = compose(cast, [(built, None)])[0]
    assert got.dtype == dtype
    scale = max(1.0, float(expected.detach().abs().max()))
    tolerance = (_SINGLE + torch.finfo(dtype).eps) * scale
    error = float((got.double() - expected).detach().abs().max())
    assert error <= tolerance, f"error {error:.3g} against {tolerance:.3g}"
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compose(cast, [(built, None)])[0], got), "autocast reaches the merge"
