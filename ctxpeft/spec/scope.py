"""Where a module acts: which layers and which heads."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctxpeft.errors import HostError
from ctxpeft.spec.base import Later, Spec

Index = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]


class LayerRange(Spec):
    """The first n layers, the last n, or every k-th counted from the last. Exactly one is given.

    A share below 1 stands for as many of the model's layers, rounded up: `last: 0.5` is the upper half.
    """

    first: Number | None = None
    last: Number | None = None
    every: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> LayerRange:
        if sum(x is not None for x in (self.first, self.last, self.every)) != 1:
            raise ValueError("expected exactly one of 'first', 'last', 'every'")
        return self


class Scope(Spec):
    """Layers and query heads that carry the module (the others are left as they are and get no parameters), and the
    tokens it acts on.

    stack: `decoder` (causal self-attention, or that of a decoder), `encoder` (self-attention that sees later tokens),
    `cross` (attention of a decoder to its encoder), or all that the model has. `layers` counts within a stack.

    tokens: `prompt` or `generated`, told apart by the labels in training (-100 is prompt), by the cache in `generate`
    (what is processed on a cache that holds tokens is generated), or by `ctxpeft.segments`.
    """

    layers: Literal["all"] | LayerRange | Annotated[list[Index], Field(min_length=1)] = "all"
    heads: Literal["all"] | Annotated[list[Index], Field(min_length=1)] = "all"
    tokens: Annotated[Literal["all", "prompt", "generated"], Later()] = "all"
    stack: Annotated[Literal["all", "decoder", "encoder", "cross"], Later()] = "all"

    @model_validator(mode="after")
    def _no_repeats(self) -> Scope:
        for key in ("layers", "heads"):
            value = getattr(self, key)
            if isinstance(value, list) and len(set(value)) != len(value):
                raise ValueError(f"'{key}' names an index twice: {value}")
        return self

    def layer_indices(self, count: int) -> list[int]:
        """The layers in scope of a model that has `count`. Raises HostError on an index it does not have."""
        layers = self.layers
        if layers == "all":
            return list(range(count))
        if isinstance(layers, LayerRange):
            if layers.every is not None:
                return sorted(range(count - 1, -1, -layers.every))
            number = layers.first if layers.first is not None else layers.last
            assert number is not None
            wanted = math.ceil(number * count) if number < 1 else int(number)
            if wanted > count:
                raise HostError(f"scope.layers asks for {wanted} layers and the model has {count}")
            return list(range(wanted)) if layers.first is not None else list(range(count - wanted, count))
        assert isinstance(layers, list)
        bad = [i for i in layers if i >= count]
        if bad:
            raise HostError(f"scope.layers names layer {bad[0]} and the model has layers 0 to {count - 1}")
        return sorted(layers)

    def head_indices(self, count: int) -> tuple[int, ...]:
        """The query heads in scope of a layer of `count`. Raises HostError on an index it does not have."""
        if self.heads == "all":
            return tuple(range(count))
        bad = [i for i in self.heads if int(i) >= count]
        if bad:
            raise HostError(f"scope.heads names head {bad[0]} and the layer has heads 0 to {count - 1}")
        return tuple(sorted(int(i) for i in self.heads))
