"""What the modules of a layer may look at in a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.states import TextStates
from ctxpeft.hosts.content import Content
from ctxpeft.hosts.controller import Plan
from ctxpeft.hosts.discover import Layer
from ctxpeft.hosts.replay import keys_and_values


class Sight:
    """What one layer has seen of a pass: what its attention was given, the query before RoPE, the plan."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.plan = Plan(())
        self.hidden: Tensor | None = None
        self.unrotated: Tensor | None = None
        self.projecting = False
        wiring = layer.wiring
        self.replays = wiring is not None and wiring.replays and (wiring.key is None or wiring.value is None)
        self.arguments: dict[str, Any] = {}

    def _pairs(self, module: ContextModule, query: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of slots that look at nothing of the text."""
        memory: Any = module._modules["memory"]
        if memory.alone:
            found: tuple[Tensor, Tensor] = memory.own_pairs(self.plan.continues)
            return found
        return module.pairs(self._around(query))

    def _around(self, output: Tensor, **more: Any) -> Capture:
        """What does not depend on the text, and `more`."""
        return Capture(
            output=output,
            project_kv=self._project_kv,
            rotate_back=self._rotate_back,
            prompt_kv=self._prompt_kv,
            projections=None if self.replays else self.layer.projections,
            continues=self.plan.continues(),
            **more,
        )

    def _capture(self, output: Tensor, content: Content, mass: Tensor | None) -> Capture:
        """What the modules at the heads may look at; L is asked of the content where no kernel told it."""
        query = content.query
        return self._around(
            output,
            hidden=None if self.hidden is None else self.hidden[:, None],
            rotated=query,
            unrotated=self._unrotated_or(query),
            log_mass=_once(content.log_mass) if mass is None else lambda: mass,
            key_count=content.key_count,
            positions=self.plan.positions,
        )

    def _unrotated_or(self, query: Tensor) -> Tensor | None:
        """q before RoPE, if it was seen. A model without weights does not show it: there another of the same shape."""
        if self.unrotated is not None:
            return self.layer.unrotated(self.unrotated)
        return query.clone() if query.is_meta else None

    def _states(self, capture: Capture, key: Tensor, value: Tensor) -> TextStates:
        """What this layer computed for the one row of this pass."""
        hidden, arguments = self.hidden, self.arguments

        def unrotated() -> Tensor:
            assert hidden is not None
            return self._project(hidden[0], arguments)[0]

        return TextStates(key[0], unrotated, value[0], capture)

    def _rotate_back(self, key: Tensor, by: int) -> Tensor:
        assert self.layer.rotary is not None
        return self.layer.rotary.turn(key, -by)

    def _prompt_kv(self, owner: nn.Module) -> tuple[Tensor, Tensor]:
        return self.plan.known().prompts[owner][self.layer.index]

    def _project_kv(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._project(x, self.arguments)

    def _project(self, x: Tensor, arguments: dict[str, Any]) -> tuple[Tensor, Tensor]:
        self.projecting = True
        try:
            if self.replays:
                attention = self.layer.attention
                return keys_and_values(attention, arguments, x.to(self.layer.weight().dtype))
            return self.layer.project_kv(x)
        finally:
            self.projecting = False


def _once(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same tensor for everyone who asks."""
    kept: list[Tensor] = []

    def ask() -> Tensor:
        if not kept:
            kept.append(function())
        return kept[0]

    return ask
