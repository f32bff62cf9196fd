"""Whether the tensors of modules are what they were when something was made of them."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

PLAIN = (nn.Parameter, Tensor)
VERSION = operator.attrgetter("_version")
Look = tuple[list[Tensor], list[int], list[int]]


class Unchanged:
    """The parameters and buffers of modules, their parts included, as they were when this was made.

    A tensor is what it was while it is the same object, changed as often, with its values in the same place. known:
    whether that can be told of all: not of tensors of an inference pass, of subclasses of Tensor, nor, unless `meta`
    says so, of tensors without values.
    """

    def __init__(self, modules: Iterable[nn.Module], meta: bool = False) -> None:
        places: list[tuple[dict[str, Any], str]] = []
        for module in modules:
            _find(module, places)
        self.owners, self.names = [owner for owner, _ in places], [name for _, name in places]
        self.meta = meta
        self.seen = self._look()

    @property
    def known(self) -> bool:
        """See above."""
        return self.seen is not None

    def holds(self) -> bool:
        """Whether every tensor is what it was; where that was not known, whether it still is not."""
        if self.seen is None:
            return self._look() is None
        tensors, versions, storages = self.seen
        return (
            all(map(operator.is_, map(dict.get, self.owners, self.names), tensors))
            and list(map(VERSION, tensors)) == versions
            and list(map(Tensor.data_ptr, tensors)) == storages
        )

    def _look(self) -> Look | None:
        """Which tensors there are, how often they were changed and where their values lie."""
        tensors = [owner[name] for owner, name in zip(self.owners, self.names, strict=True)]
        if any(
            t is None or (t.is_meta and not self.meta) or t.is_inference() or type(t) not in PLAIN
            for t in tensors
        ):
            return None
        return tensors, list(map(VERSION, tensors)), list(map(Tensor.data_ptr, tensors))


def _find(module: nn.Module, places: list[tuple[dict[str, Any], str]]) -> None:
    """Add where the tensors of a module are kept: they may be replaced."""
    tensors: dict[str, Any]
    for tensors in (module._parameters, module._buffers):
        places += [(tensors, name) for name, tensor in tensors.items() if tensor is not None]
    for part in module._modules.values():
        if part is not None:
            _find(part, places)
