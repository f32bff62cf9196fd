"""The layers of a model that have attention, their parts and their shapes, found by structure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.hosts.device import execution_device
from ctxpeft.hosts.families import CROSS
from ctxpeft.hosts.parts import parts
from ctxpeft.hosts.probe import Wiring, wirings
from ctxpeft.hosts.rotary import Rotary, check_turnable
from ctxpeft.hosts.spots import Place, Site, Spot, Spots
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.module import ModuleSpec

Stack = Literal["decoder", "encoder", "cross"]
LACKS = {
    "attention_output": "returns no states behind its attention to stand at",
    "ffn": "has no FFN to stand beside",
    "residual": "hands on no single residual stream to stand at",
}
OUTSIDE_SITES = "attention_output, ffn, residual and embeddings"
SUPPORTED = (
    "it serves every model whose attention calls transformers' attention interface, and at the sites "
    f"{OUTSIDE_SITES} also others with attention layers"
)


@dataclass
class Layer:
    """One attention of a host and the layer around it.

    index counts the attentions, from 0; number counts those of one stack. name: that of the layer; attribute: what its
    attention is called. first, last: the modules that take the layer's input and give its output, both the layer itself
    where that is one module. output: the module behind which the site `attention_output` stands. ffn: the modules that
    take the input and give the output of the FFN. wiring: None where the attention does not call the interface and has
    no head site. owns: the first attention of its layer, the one that keeps the sites `ffn` and `residual`. rotary: how
    its keys turn by position, where the recorded pass confirms it. spots: what its other sites hold. turnable: whether
    every layer of the model has a rotary embedding, by angles that do not depend on the length of the input.
    """

    index: int
    number: int
    stack: Stack
    prefix: str
    name: str
    attribute: str
    first: nn.Module
    last: nn.Module
    attention: nn.Module
    output: nn.Module
    ffn: tuple[nn.Module, nn.Module] | None
    wiring: Wiring | None
    owns: bool
    rotary: Rotary | None
    spots: Spots
    turnable: bool = False

    @property
    def query_heads(self) -> int:
        """Hq, 0 without a head site."""
        return 0 if self.wiring is None else self.wiring.query_heads

    @property
    def kv_heads(self) -> int:
        """Hkv, 0 without a head site."""
        return 0 if self.wiring is None else self.wiring.kv_heads

    @property
    def value_width(self) -> int:
        """dv, 0 without a head site."""
        return 0 if self.wiring is None else self.wiring.value_width

    @property
    def query_width(self) -> int:
        """d, 0 without a head site."""
        return 0 if self.wiring is None else self.wiring.query_width

    @property
    def hidden_width(self) -> int:
        """D, the width of what enters the attention."""
        if self.wiring is not None:
            return self.wiring.hidden_width
        spot = self.spots.of(self.index, "attention_output")
        return 0 if spot is None else spot.taken

    def spot(self, site: Site) -> Spot | None:
        """What stands at a site that is not at the heads, None where the layer has no such site. A residual stream is
        as wide as the model, or as what its attention adds to it; several streams side by side are none."""
        found = self.spots.of(self.index, site)
        if found is None or site != "residual":
            return found
        inner = self.spots.of(self.index, "attention_output")
        widths = {_model_width(self.spots.model), None if inner is None else inner.width}
        return found if found.width in widths else None

    def shape(self, spec: ModuleSpec) -> SiteShape:
        """The shape of a module's site in this layer. Raises HostError where the layer lacks the site, a head, a
        source or the rotary embedding that the module asks for."""
        weight = self.weight()
        if getattr(spec.memory, "position", None) == "before":
            config = getattr(self.attention, "config", None)
            check_turnable(self.rotary, str(getattr(config, "model_type", "the model")))
        device = execution_device(self.attention, weight)
        if spec.site in ("attention_output", "ffn", "residual"):
            return self._beside(spec, spec.site, weight, device)
        wiring = self.wiring
        if wiring is None:
            raise HostError(
                f"{self._names()} does not call transformers' attention interface, so it has no site 'head'; "
                f"{self._works()}"
            )
        if not spec.projected and wiring.query_heads * wiring.value_width != self.hidden_width:
            raise HostError(
                f"{self._names()} has {wiring.query_heads} heads of width {wiring.value_width}: side by side they do "
                f"not fill a hidden state of {self.hidden_width}, as projected: false needs"
            )
        if spec.query.source == "unrotated" and wiring.query is None and not wiring.meta:
            raise HostError(f"{self._names()} does not show its query before RoPE; use query.source: rotated")
        if needs_projections(spec) and not wiring.projects():
            raise HostError(
                f"{self._names()} does not show the projections that make its keys and values; use "
                "parameterization: direct"
            )
        widths = {"hidden": wiring.hidden_width, "output": wiring.value_width}
        return SiteShape(
            query_heads=wiring.query_heads,
            kv_heads=wiring.kv_heads,
            heads=spec.scope.head_indices(wiring.query_heads),
            source_width=widths.get(str(spec.query.source), wiring.query_width),
            value_width=wiring.value_width,
            scaling=wiring.scaling,
            softcap=wiring.softcap,
            hidden_width=wiring.hidden_width,
            dtype=weight.dtype,
            device=device,
            turnable=self.turnable,
        )

    def _beside(self, spec: ModuleSpec, site: Site, weight: Tensor, device: torch.device) -> SiteShape:
        """The shape of a site that is not at the heads. Raises HostError where the layer has none."""
        spot = self.spot(site)
        if spot is None:
            raise HostError(f"{self.name} ({type(self.last).__name__}) {LACKS[site]}; {self._works()}")
        if spec.scope.tokens != "all" and not spot.whole:
            raise HostError(
                f"{self.name} ({type(self.last).__name__}) does not hold the tokens one by one (they are pooled or "
                "padded), so scope.tokens cannot be told there; scope.tokens: all works"
            )
        taken = spot.taken if spec.query.source == "hidden" else spot.width
        return replace(_one_head(spot.width, weight, device), source_width=taken, hidden_width=spot.taken)

    def _works(self) -> str:
        """What a refusal ends with: the sites that there are."""
        outside: tuple[Site, ...] = ("attention_output", "ffn", "residual")
        there = ["head"] * (self.wiring is not None) + [
            site for site in outside if self.spot(site) is not None
        ]
        if has_embeddings(self.spots.model):
            there.append("embeddings")
        return f"the sites {', '.join(there)} work" if len(there) > 1 else f"the site {there[0]} works"

    def window(self) -> int | None:
        """How many tokens back a query sees, where that is limited."""
        config = getattr(self.attention, "config", None)
        told = vars(self.attention).get("sliding_window", getattr(config, "sliding_window", None))
        return None if told is None else int(told)

    def _names(self) -> str:
        return f"the attention of {self.name} ({type(self.attention).__name__})"

    def weight(self) -> Tensor:
        """A weight of the attention: its device and dtype are those of the layer."""
        packed: Tensor | None = None
        for name, weight in self.attention.named_parameters():
            if weight.ndim < 2 or "ctxpeft" in name:
                continue
            if weight.is_floating_point():
                return weight
            packed = weight if packed is None else packed
        return torch.empty(0, device=None if packed is None else packed.device)

    def projections(self) -> list[tuple[dict[str, Any], str]] | None:
        """Where the modules are that `project_kv` goes through: the dict of the parent and the name there. None where
        one of them has parts, which may do anything."""
        assert self.wiring is not None
        chains = (self.wiring.key, self.wiring.value)
        found: list[tuple[dict[str, Any], str]] = []
        for step in (step for chain in chains if chain is not None for step in chain.steps):
            module = self.attention
            for name in step.module.split("."):
                found.append((module._modules, name))
                module = module.get_submodule(name)
            if module._modules:
                return None
        return found

    def project_kv(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(P, D) through the frozen W_K and W_V: K (Hkv, P, d) and V (Hkv, P, dv), key norm included, no RoPE."""
        assert self.wiring is not None
        if self.wiring.key is None or self.wiring.value is None:
            raise HostError(f"{self._names()} does not show the projections that make its keys and values")
        x = x.to(self.weight().dtype)[None]
        key, value = self.wiring.key.run(self.attention, x), self.wiring.value.run(self.attention, x)
        return key[0].transpose(0, 1), value[0].transpose(0, 1)

    def output_projection(self) -> nn.Module:
        """The module that takes all heads side by side, (..., Hq dv), back to the width of the hidden state.

        Raises HostError where there is none.
        """
        if self.wiring is not None and self.wiring.projection is not None:
            return self.attention.get_submodule(self.wiring.projection)
        if self.output is self.attention:
            raise HostError(f"{self._names()} does not show the projection behind its heads")
        return self.output

    def unrotated_point(self) -> nn.Module | None:
        """The module whose output is q before RoPE, after bias and norm; None if there is none."""
        if self.wiring is None or self.wiring.query is None:
            return None
        return self.attention.get_submodule(self.wiring.query.module)

    def unrotated(self, output: Tensor) -> Tensor:
        """What `unrotated_point` returned, as (B, Hq, T, d)."""
        assert self.wiring is not None
        assert self.wiring.query is not None
        return self.wiring.query.output.take(output).transpose(1, 2)


def needs_projections(spec: ModuleSpec) -> bool:
    """Whether a module's memory goes through the host's frozen W_K and W_V."""
    parameterization = getattr(spec.memory, "parameterization", None)
    return bool(getattr(parameterization, "kind", None) == "frozen_projection")


def embeddings(model: nn.Module) -> list[nn.Module]:
    """The token embedding, and the modules of an encoder and a decoder that share its weight.

    Raises HostError for a model without one.
    """
    first = _embedding(model)
    if first is None:
        raise HostError(
            "this model has no token embedding to stand at (site 'embeddings'); the sites of its layers work"
        )
    weight = first.weight
    sharing = [
        m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight is weight and m is not first
    ]
    return [first, *sharing]


def has_embeddings(model: nn.Module) -> bool:
    """Whether the model has a token embedding."""
    return _embedding(model) is not None


def _embedding(model: nn.Module) -> nn.Module | None:
    getter = getattr(model, "get_input_embeddings", None)
    first = getter() if callable(getter) else None
    weight = getattr(first, "weight", None)
    return first if isinstance(first, nn.Module) and isinstance(weight, Tensor) else None


def embedding_shape(model: nn.Module) -> SiteShape:
    """The shape of the site at the token embedding. Raises HostError for a model without one."""
    embedding = embeddings(model)[0]
    weight: Any = embedding.weight
    return _one_head(weight.shape[1], weight, execution_device(embedding, weight))


def _one_head(width: int, like: Tensor, device: torch.device) -> SiteShape:
    return SiteShape(
        query_heads=1,
        kv_heads=1,
        heads=(0,),
        source_width=width,
        value_width=width,
        scaling=width**-0.5,
        softcap=None,
        hidden_width=width,
        dtype=like.dtype,
        device=device,
    )


def discover(model: nn.Module) -> list[Layer]:
    """The attentions that can be served, in order. Raises HostError when there are none."""
    found = wirings(model)
    if not found:
        config = getattr(model, "config", None)
        called = getattr(config, "model_type", "") or type(model).__name__
        raise HostError(f"ctxpeft finds no attention it can serve in this model ({called}); {SUPPORTED}")
    layers: list[Layer] = []
    places: dict[Place, tuple[str, str]] = {}
    stacks: dict[int, str] = {}
    spots = Spots(model, places, stacks)
    for name, wiring in found.items():
        layers.append(_layer(model, layers, name, wiring, spots))
    main = "decoder" if any(layer.stack == "decoder" for layer in layers) else "encoder"
    for layer in layers:
        layer.prefix = f"{'layers' if layer.stack == main else layer.stack}.{layer.number}"
    turnable = all(layer.rotary is not None and layer.rotary.fixed() for layer in layers)
    for layer in layers:
        layer.turnable = turnable
    return layers


def _layer(model: nn.Module, before: list[Layer], name: str, wiring: Wiring | None, spots: Spots) -> Layer:
    """One layer; its sites are added to the places of the spots."""
    index, its = len(before), parts(model, name, wiring is not None)
    stack, attention = _stack(model, name, wiring), model.get_submodule(name)
    alone = its.layer == name and not its.in_pieces
    owns = not alone and all(other.name != its.layer for other in before)
    spots.stacks[index] = stack
    spots.places[index, "attention_output"] = (name, its.output)
    if owns:
        spots.places[index, "residual"] = (its.first, its.last)
        if its.ffn is not None:
            spots.places[index, "ffn"] = its.ffn
    return Layer(
        index=index,
        number=sum(layer.stack == stack for layer in before),
        stack=stack,
        prefix="",
        name=its.layer,
        attribute=name.rpartition(".")[2],
        first=model.get_submodule(its.first),
        last=model.get_submodule(its.last),
        attention=attention,
        output=model.get_submodule(its.output),
        ffn=None if its.ffn is None else (model.get_submodule(its.ffn[0]), model.get_submodule(its.ffn[1])),
        wiring=wiring,
        owns=owns,
        rotary=_rotary(model, name, attention, wiring),
        spots=spots,
    )


def _rotary(model: nn.Module, name: str, attention: nn.Module, wiring: Wiring | None) -> Rotary | None:
    """The rotary embedding of a layer, as far as the recorded pass confirms what it does to the keys."""
    if wiring is None or (wiring.turns is None and not wiring.meta):
        return None
    found = Rotary.of(model, name, attention)
    return found if found is None or wiring.turns is None else replace(found, applies=wiring.turns)


def _model_width(model: Any) -> int | None:
    """D as the configuration tells it, None where it does not."""
    told = getattr(model.config.get_text_config(decoder=True), "hidden_size", None)
    return told if isinstance(told, int) else None


def _stack(model: Any, name: str, wiring: Wiring | None) -> Stack:
    if name.rpartition(".")[2] in CROSS if wiring is None else wiring.crosses:
        return "cross"
    path = name.lower().split(".")
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        side = next((p for p in path if "encoder" in p or "decoder" in p), "decoder")
        return "decoder" if "decoder" in side else "encoder"
    return "encoder" if wiring is not None and wiring.sees_later else "decoder"
