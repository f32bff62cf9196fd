"""What is trained, and what is not."""

from __future__ import annotations

import torch

from ctxpeft.testing.laws.ground import Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="∂loss/∂θ ≠ 0 for every parameter of the adapter, none for the base",
    source="the design",
    least=Size(2, 9),
    peft=True,
)
def trains_the_adapter_alone(host: Host, size: Size) -> None:
    """Every parameter of the adapter gets a gradient, and no parameter of the base does."""
    batch = host.batch(*size[:2])
    before = {key: p.grad for key, p in host.model.named_parameters()}
    with host.attached() as handle:
        ours = {id(p) for p in handle.parameters()}
        torch.autograd.backward(host.loss(batch))
        for key, parameter in host.model.named_parameters():
            if id(parameter) not in ours:
                require(parameter.grad is before.get(key), f"the base parameter {key} gets a gradient")
                require(not parameter.requires_grad, f"the base parameter {key} is trainable")
        for key, gradient in host.collect(handle).items():
            alive = gradient is not None and bool(gradient.abs().sum() > 0)
            require(alive, f"the parameter {key} gets no gradient")
