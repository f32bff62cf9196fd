"""What the sites of a layer that are not at its heads take and give: one recorded pass of a few tokens, watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ctxpeft.hosts.probe import Tokens, record_pass

ATTRIBUTE = "_ctxpeft_spots"
Site = Literal["attention_output", "ffn", "residual"]
Place = tuple[int, Site]


@dataclass(frozen=True)
class Spot:
    """One site of one layer. Plain data: it is copied and pickled with the model.

    width: of what stands there, D; taken: of what enters the block, the source `hidden`. time_first: it is laid out
    (T, B, D). whole: it holds every token of the pass, one by one (pooled or padded sequences do not).
    """

    width: int
    taken: int
    time_first: bool
    whole: bool


class _Seen:
    """What one site took and gave, and when it was done."""

    def __init__(self) -> None:
        self.given: tuple[int, ...] = ()
        self.left: tuple[int, ...] = ()
        self.ended = 0


class Spots:
    """The sites of a model's layers, looked at when somebody first asks: one pass, once a model.

    places: the module that takes and the one that gives, by layer and site; stacks: the stack of each layer.
    """

    def __init__(
        self, model: nn.Module, places: dict[Place, tuple[str, str]], stacks: dict[int, str]
    ) -> None:
        self.model, self.places, self.stacks = model, places, stacks

    def of(self, layer: int, site: Site) -> Spot | None:
        """A site of a layer, None where it has none: its output is no tensor (B, T, D), (T, B, D) or (B T, D), or what
        should close the layer is not done last. Raises HostError if the model refuses the pass."""
        found: dict[Place, Spot] | None = self.model.__dict__.get(ATTRIBUTE)
        if found is None:
            found = self.model.__dict__[ATTRIBUTE] = self._look()
        return found.get((layer, site))

    def _look(self) -> dict[Place, Spot]:
        seen, tokens = _watch(self.model, self.places)
        found: dict[Place, Spot] = {}
        for (layer, site), one in seen.items():
            spot = _spot(one, tokens, self.stacks[layer])
            last = max(other.ended for place, other in seen.items() if place[0] == layer)
            if spot is not None and (site != "residual" or one.ended == last):
                found[layer, site] = spot
        return found


def _watch(model: nn.Module, places: Mapping[Place, tuple[str, str]]) -> tuple[dict[Place, _Seen], Tokens]:
    seen = {place: _Seen() for place in places}
    clock = iter(range(1, 1 << 30))

    def hooks(subject: nn.Module) -> list[Any]:
        made: list[Any] = []
        for place, (first, last) in places.items():
            record = seen[place]

            def enter(module: nn.Module, args: Any, kwargs: Any, record: _Seen = record) -> None:
                states = entered(args, kwargs)
                record.given = () if states is None else tuple(states.shape)

            def leave(module: nn.Module, args: Any, output: Any, record: _Seen = record) -> None:
                states = first_tensor(output)
                record.left, record.ended = () if states is None else tuple(states.shape), next(clock)

            made.append(subject.get_submodule(first).register_forward_pre_hook(enter, with_kwargs=True))
            made.append(subject.get_submodule(last).register_forward_hook(leave))
        return made

    return seen, record_pass(model, hooks)


def _spot(seen: _Seen, tokens: Tokens, stack: str) -> Spot | None:
    wanted = tokens.encoder if stack == "encoder" else tokens.decoder
    if len(seen.left) not in (2, 3) or not seen.given:
        return None
    time_first = len(seen.left) == 3 and seen.left[0] != 1
    if len(seen.left) == 3 and 1 not in seen.left[:2]:
        return None
    count = seen.left[0] if time_first or len(seen.left) == 2 else seen.left[1]
    return Spot(seen.left[-1], seen.given[-1], time_first, count == wanted)


def entered(args: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """The states that a block is given: its `hidden_states`, else its first argument that is a tensor of states."""
    for x in (kwargs.get("hidden_states"), *args, *kwargs.values()):
        if isinstance(x, Tensor) and x.is_floating_point():
            return x
    return None


def first_tensor(output: Any) -> Tensor | None:
    """What a module returns, or the first of what it returns."""
    found = output[0] if isinstance(output, tuple | list) and output else output
    return found if isinstance(found, Tensor) else None


def with_first(output: Any, states: Tensor) -> Any:
    """What a module returned, with other states in their place."""
    if not isinstance(output, tuple | list):
        return states
    made: Any = getattr(output, "_make", type(output))
    return made((states, *output[1:]))
