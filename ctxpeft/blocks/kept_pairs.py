"""Keys and values that are made of something, by an MLP or by the host's projections: made once while a cache grows."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ctxpeft.blocks.unchanged import Unchanged

Pairs = tuple[Tensor, Tensor]
Place = tuple[dict[str, Any], str]
"""A module: the dict of its parent, and its name there."""


class KeptPairs:
    """K and V of one memory. A copy of the memory makes its own."""

    def __init__(self) -> None:
        self.found: tuple[_Maker, Pairs] | None = None

    def __deepcopy__(self, memo: Any) -> KeptPairs:
        return KeptPairs()

    def __reduce__(self) -> tuple[type[KeptPairs], tuple[()]]:
        return KeptPairs, ()

    def of(
        self, continues: bool | None, makers: Callable[[], Sequence[Place] | None], make: Callable[[], Pairs]
    ) -> Pairs:
        """Those of the pass before where this one goes on with its cache and none of the modules that make them has
        changed, else new ones.

        continues: whether the pass goes on with a cache, None where nothing may be kept (gradients, a compiler).
        makers: where the modules are, None where it cannot be told what they do.
        """
        if continues is None:
            self.found = None
            return make()
        if continues and self.found is not None and self.found[0].is_as_it_was():
            return self.found[1]
        pairs, places = make(), makers()
        maker = None if places is None else _Maker(places)
        self.found = (maker, pairs) if maker is not None and maker.alone else None
        return pairs


class KeptFrom:
    """K and V made of a tensor by the host alone (turned back, in another type), kept while it is the same tensor with
    the same values and the cache grows. A copy of the memory makes its own."""

    def __init__(self) -> None:
        self.found: tuple[Tensor, int, Pairs] | None = None

    def __deepcopy__(self, memo: Any) -> KeptFrom:
        return KeptFrom()

    def __reduce__(self) -> tuple[type[KeptFrom], tuple[()]]:
        return KeptFrom, ()

    def of(self, continues: bool | None, source: Tensor, make: Callable[[], Pairs]) -> Pairs:
        """Those of the pass before, or new ones; `continues` is what `KeptPairs` is told."""
        if continues is None:
            self.found = None
            return make()
        version = -1 if source.is_inference() else source._version
        if continues and self.found is not None and self.found[0] is source and self.found[1] == version:
            return self.found[2]
        pairs = make()
        self.found = (source, version, pairs)
        return pairs


class _Maker:
    """Modules whose output is told by their tensors and their input. alone: nobody else has a say in what they do: no
    hooks, not accelerate's, no parametrizations."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.owners, self.names = [owner for owner, _ in places], [name for _, name in places]
        self.modules = [owner[name] for owner, name in places]
        self.tensors = Unchanged(self.modules, meta=True)
        self.dicts: list[dict[Any, Any]] = []
        self.alone = self.tensors.known
        for part in (part for module in self.modules for part in module.modules()):
            own = part.__dict__
            hooks = own["_forward_hooks"], own["_forward_pre_hooks"]
            self.dicts += (own, own["_modules"], *hooks)
            if any(hooks) or "_hf_hook" in own or "parametrizations" in own["_modules"]:
                self.alone = False
        self.counts = list(map(len, self.dicts))

    def is_as_it_was(self) -> bool:
        """Whoever comes to have a say puts something into one of the dicts, or a module of its own in the place."""
        return (
            all(map(operator.is_, map(dict.get, self.owners, self.names), self.modules))
            and list(map(len, self.dicts)) == self.counts
            and self.tensors.holds()
        )
