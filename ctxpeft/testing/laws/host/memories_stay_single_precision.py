"""Precision is the memory's, not the host's."""

from __future__ import annotations

import torch

from ctxpeft.blocks.capture import compute_dtype
from ctxpeft.hosts.handle import Handle
from ctxpeft.testing.laws.ground import Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="dtype(θ) = fp32 whatever the host is cast to (fp64 on an fp64 host)",
    source="the design; a published construction in bf16 keeps 38 of 400 checks",
)
def memories_stay_single_precision(host: Host, size: Size) -> None:
    """Memories are in fp32 on a host of any lower precision, stay so when it is cast, and outputs keep its type."""
    batch = host.batch(*size[:2])
    with host.attached() as handle:
        assert isinstance(handle, Handle)
        want = compute_dtype(host.dtype)
        for key, parameter in handle.named_parameters():
            require(parameter.dtype == want, f"{key} is {parameter.dtype}, not {want}")
        exact = {key: p.detach().clone() for key, p in handle.named_parameters()}
        for dtype in (torch.bfloat16, torch.float16):
            for built in handle.built:
                built.module.to(dtype)
        for key, parameter in handle.named_parameters():
            require(torch.equal(parameter, exact[key]), f"{key} is rounded when the host is cast")
        logits = host.run(batch).logits
        require(bool(torch.isfinite(logits).all()), "an output is not finite")
    require(logits.dtype == host.run(batch).logits.dtype, "the outputs change their type")
