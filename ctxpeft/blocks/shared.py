"""Blocks of `per: model`: one set of parameters for all layers, owned once and passed by reference."""

from __future__ import annotations

from torch import nn

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.precision import FullPrecision
from ctxpeft.errors import HostError
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


class SharedBlocks(FullPrecision):
    """The memory and the feature map of one module of a variant, taken from its first layer.

    Raises HostError, with both shapes, where a layer needs other shapes than the first.
    """

    def __init__(self, modules: list[ContextModule]) -> None:
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

    def deployed_parameters(self) -> int:
        """Parameters that remain once training is over."""
        total = 0
        for part in self.children():
            kept = getattr(part, "deployed_parameters", None)
            total += int(kept()) if callable(kept) else sum(p.numel() for p in part.parameters())
        return total
