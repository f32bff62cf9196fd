"""One set of parameters for all layers, owned once and passed by reference: blocks of `per: model`, virtual tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ctxpeft.blocks.capture import compute_dtype
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.precision import FullPrecision
from ctxpeft.errors import HostError
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.module import ModuleSpec


def shared_parts(spec: ModuleSpec) -> list[str]:
    """The parts of a module that serve all layers."""
    parts = ["memory"] if getattr(spec.memory, "per", None) == "model" else []
    phi = spec.feature_map
    owned = phi is not None and spec.phi_per == "model" and (phi.has_parameters() or phi.random)
    return [*parts, "feature_map"] if owned else parts


def _shapes(part: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of the parameters and saved buffers."""
    return {key: tuple(t.shape) for key, t in part.state_dict().items()}


def has_virtual_tokens(spec: ModuleSpec) -> bool:
    """Whether the slots of a module are what the model computes for virtual tokens."""
    return bool(getattr(getattr(spec.memory, "parameterization", None), "virtual_tokens", False))


class SharedBlocks(FullPrecision):
    """The memory and the feature map of one module of a variant, taken from its first layer, and its virtual tokens.

    Raises HostError, with both shapes, where a layer needs other shapes than the first.
    """

    def __init__(self, modules: list[ContextModule], shape: SiteShape) -> None:
        super().__init__()
        for name in shared_parts(modules[0].spec):
            part: nn.Module = getattr(modules[0], name)
            wanted = _shapes(part)
            for module in modules:
                found = _shapes(getattr(module, name))
                if found != wanted:
                    key = next(k for k in wanted if found.get(k) != wanted[k])
                    raise HostError(
                        f"{name} is shared by the whole model (per 'model'), but its '{key}' is {wanted[key]} in the "
                        f"first layer and {found.get(key)} in another; share it per layer instead"
                    )
                module.refer(name, part)
            self.add_module(name, part)
        if has_virtual_tokens(modules[0].spec):
            self.prompt = self._virtual_tokens(modules, shape)

    @staticmethod
    def _virtual_tokens(modules: list[ContextModule], shape: SiteShape) -> nn.Module:
        memory: Any = modules[0].spec.memory
        default = torch.get_default_dtype()
        torch.set_default_dtype(compute_dtype(shape.dtype))
        try:
            with shape.device if shape.device.type == "meta" else torch.device("cpu"):
                prompt: nn.Module = memory.parameterization.build_whole(shape, memory.count, memory.init)
        finally:
            torch.set_default_dtype(default)
        for module in modules:
            slots: Any = module.memory.slots
            slots.refer(prompt)
        return prompt.to(shape.device)

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over."""
        total = 0
        for part in self.children():
            kept = getattr(part, "deployed_parameters", None)
            total += int(kept()) if callable(kept) else sum(p.numel() for p in part.parameters())
        return total
