"""The modules of all adapters at one module of the host."""

from __future__ import annotations

from torch import Tensor, nn

from ctxpeft.blocks.compose import Active
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.hosts.controller import Plan


class Site(nn.Module):
    """A submodule of the host's module, so that devices and shards follow."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()

    def add(self, name: str, key: str, module: nn.Module) -> None:
        """Put a module under an adapter's name; `key` is its place in the variant's list."""
        if name not in self.adapters:
            self.adapters[name] = nn.ModuleDict()
        group: nn.ModuleDict = self.adapters[name]  # type: ignore[assignment]
        group[key] = module

    def active(self, plan: Plan, site: str, like: Tensor, projected: bool = True) -> list[Active]:
        """The modules that act at a site under a plan, each with where it acts: booleans (B, 1 or T), or None.

        projected: those whose `projected` is this.
        """
        found: list[Active] = []
        for name in plan.names:
            if name in self.adapters:
                modules: list[ContextModule] = list(self.adapters[name].children())  # type: ignore[arg-type]
                found += [
                    (module, plan.mask(name, module.spec.scope.tokens, like.shape[0], like.device))
                    for module in modules
                    if module.spec.site == site and module.spec.projected == projected
                ]
        return found
