"""A bounded store of what layers of a frozen model gave for a batch."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from ctxpeft.hosts.spots import first_tensor, with_first

Place = tuple[str, int]
"""A list of layers and how many of them."""
Key = tuple[Any, ...]
"""A place, and what decides the output there."""


@dataclass
class Kept:
    """Outputs by batch, `limit` bytes of them at most, on the device of the model.

    A full store keeps what it has of the layers in use, so that a pass over more batches than fit still finds a part
    of them, and gives up what other layers left, the longest unused first. found, computed: batches, counted.
    used: bytes. refusals: by layers, why nothing of theirs is kept.
    """

    limit: int
    found: int = 0
    computed: int = 0
    used: int = 0
    _outputs: OrderedDict[Key, Any] = field(default_factory=OrderedDict)
    refusals: dict[Place, str] = field(default_factory=dict)

    def get(self, key: Key) -> Any:
        """The output kept for a batch, as a copy that may be written into; None if there is none."""
        output = self._outputs.get(key)
        if output is None:
            self.computed += 1
            return None
        self.found += 1
        self._outputs.move_to_end(key)
        return _copied(output)

    def put(self, key: Key, output: Any) -> None:
        """Keep a copy of an output, if there is room."""
        size = _bytes(output)
        while self.used + size > self.limit:
            other = next((k for k in self._outputs if k[0] != key[0]), None)
            if other is None:
                return
            self.used -= _bytes(self._outputs.pop(other))
        self._outputs[key] = _copied(output)
        self.used += size


def _copied(output: Any) -> Any:
    first = first_tensor(output)
    assert first is not None
    return with_first(output, first.detach().clone())


def _bytes(output: Any) -> int:
    first = first_tensor(output)
    assert first is not None
    return first.numel() * first.element_size()
