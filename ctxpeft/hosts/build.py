"""The modules of a variant, built for the layers of a host but not yet put there."""

from __future__ import annotations

from collections.abc import Callable

from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.errors import HostError
from ctxpeft.hosts.discover import Layer
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.variant import Variant

Built = tuple[int, int, ContextModule]


def build(
    layers: list[Layer], variant: Variant, at: Callable[[SiteShape], SiteShape] = lambda shape: shape
) -> list[Built]:
    """(layer, place in the variant's list, module) for all modules in all layers of their scope.

    Raises HostError, naming the module, where a layer, a head or a site is missing.
    """
    built: list[Built] = []
    for index, spec in enumerate(variant.modules):
        try:
            chosen = spec.scope.layer_indices(len(layers))
            built += [(i, index, ContextModule(spec, at(layers[i].shape(spec)))) for i in chosen]
        except HostError as error:
            raise HostError(f"{variant.name}: modules[{index}]: {error}") from None
    return built
