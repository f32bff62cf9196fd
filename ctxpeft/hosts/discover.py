"""The decoder layers of a model, their parts and their shapes, read from modules and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.hosts.device import execution_device
from ctxpeft.hosts.families import FAMILIES, Family
from ctxpeft.hosts.rotary import Rotary, check_turnable
from ctxpeft.spec.blocks import SiteShape
from ctxpeft.spec.module import ModuleSpec


@dataclass
class Layer:
    """One decoder layer of a host.

    index counts the layers that have attention, from 0. query_width d, value_width dv, hidden_width D. turnable:
    whether every layer of the model rotates its keys by angles that do not depend on the length of the input.
    """

    index: int
    name: str
    family: Family
    decoder: nn.Module
    attention: nn.Module
    ffn: nn.Module | None
    query_heads: int
    kv_heads: int
    query_width: int
    value_width: int
    hidden_width: int
    rotary: Rotary | None
    turnable: bool = False

    def shape(self, spec: ModuleSpec) -> SiteShape:
        """The shape of a module's site in this layer. Raises HostError where the layer lacks the site, a head or the
        rotary embedding that the module's slots need."""
        weight = self.projection_weight()
        if getattr(spec.memory, "position", None) == "before":
            check_turnable(self.rotary, str(getattr(self.attention.config, "model_type", "the model")))
        if spec.site == "ffn" and self.ffn is None:
            raise HostError(f"{self.name} has no FFN module '{self.family.ffn}' to stand beside")
        if spec.site != "head":
            return _one_head(self.hidden_width, weight, execution_device(self.attention, weight))
        widths = {"hidden": self.hidden_width, "output": self.value_width}
        return SiteShape(
            query_heads=self.query_heads,
            kv_heads=self.kv_heads,
            heads=spec.scope.head_indices(self.query_heads),
            source_width=widths.get(str(spec.query.source), self.query_width),
            value_width=self.value_width,
            scaling=float(vars(self.attention).get("scaling", self.query_width**-0.5)),
            softcap=getattr(self.attention, "attn_logit_softcapping", None),
            hidden_width=self.hidden_width,
            dtype=weight.dtype,
            device=execution_device(self.attention, weight),
            turnable=self.turnable,
        )

    def window(self) -> int | None:
        """How many tokens back a query sees, where that is limited."""
        told = vars(self.attention).get(
            "sliding_window", getattr(self.attention.config, "sliding_window", None)
        )
        return None if told is None else int(told)

    def projection_weight(self) -> Tensor:
        """The weight of the query projection: its device and dtype are those of the layer."""
        weights = [p for p in getattr(self.attention, _first(self.family)).parameters() if p.ndim == 2]
        weight = next((w for w in weights if w.is_floating_point()), None)
        return torch.empty(0, device=weights[0].device if weights else None) if weight is None else weight

    def split_heads(self, x: Tensor, which: int) -> Tensor:
        """(..., heads * width) -> (..., heads, width) of q (0), k (1) or v (2), also out of a fused projection."""
        sizes = [
            self.query_heads * self.query_width,
            self.kv_heads * self.query_width,
            self.kv_heads * self.value_width,
        ]
        if isinstance(self.family.projections, str):
            x = torch.split(x, sizes, dim=-1)[which]
        heads = self.query_heads if which == 0 else self.kv_heads
        return x.reshape(*x.shape[:-1], heads, -1)

    def project_kv(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(P, D) through the frozen W_K and W_V: K (Hkv, P, d) and V (Hkv, P, dv), key norm included, no RoPE."""
        names = self.family.projections
        x = x.to(self.projection_weight().dtype)[None]
        fused = isinstance(names, str)
        outputs = [getattr(self.attention, names)(x)] * 2 if isinstance(names, str) else None
        if outputs is None:
            outputs = [getattr(self.attention, name)(x) for name in names[1:]]
        key, value = outputs
        if self.family.key_norm and self.family.norm_layout == "BTW" and not fused:
            key = getattr(self.attention, self.family.key_norm)(key)
        key, value = self.split_heads(key, 1), self.split_heads(value, 2)
        if self.family.key_norm and self.family.norm_layout != "BTW":
            key = getattr(self.attention, self.family.key_norm)(key)
        return key[0].transpose(0, 1), value[0].transpose(0, 1)

    def unrotated_point(self) -> nn.Module:
        """The module whose output is q before RoPE, after bias and norm."""
        point: nn.Module = getattr(self.attention, self.family.query_norm or _first(self.family))
        return point

    def unrotated(self, output: Tensor) -> Tensor:
        """What `unrotated_point` returned, as (B, Hq, T, d)."""
        layout = self.family.norm_layout if self.family.query_norm else "BTW"
        if layout == "BHTd":
            return output
        if layout == "BTW":
            output = self.split_heads(output, 0)
        return output.transpose(1, 2)


def embedding_shape(model: nn.Module) -> SiteShape:
    """The shape of the site at the token embedding. Raises HostError for a model without one."""
    getter = getattr(model, "get_input_embeddings", None)
    embedding = getter() if callable(getter) else None
    weight = getattr(embedding, "weight", None)
    if not isinstance(embedding, nn.Module) or not isinstance(weight, Tensor):
        raise HostError("this model has no token embedding to stand at (site 'embeddings')")
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


def _first(family: Family) -> str:
    return family.projections if isinstance(family.projections, str) else family.projections[0]


def discover(model: nn.Module) -> list[Layer]:
    """The layers with attention that the seam can serve, in order. Raises HostError when there are none."""
    layers: list[Layer] = []
    seen: set[str] = set()
    for name, module in model.named_modules():
        for attribute in ("self_attn", "attn"):
            attention = getattr(module, attribute, None)
            config = getattr(attention, "config", None)
            if not isinstance(attention, nn.Module) or config is None:
                continue
            model_type = str(getattr(config, "model_type", ""))
            seen.add(model_type)
            family = FAMILIES.get(model_type) or _by_structure(attention, attribute)
            if family is not None and family.attention == attribute:
                rotary = Rotary.of(model, name, attention) if family.rotary else None
                layers.append(_layer(len(layers), name, family, module, attention, rotary))
                break
    if not layers:
        found = ", ".join(sorted(seen - {""})) or type(model).__name__
        raise HostError(
            f"ctxpeft finds no attention it can serve in this model ({found}); supported families: "
            f"{', '.join(sorted(FAMILIES))}, and others built like llama"
        )
    turnable = all(layer.rotary is not None and layer.rotary.fixed() for layer in layers)
    for layer in layers:
        layer.turnable = turnable
    return layers


def _by_structure(attention: nn.Module, attribute: str) -> Family | None:
    """A family not in the table that is built like llama: separate projections, no norm on the queries."""
    alike = all(
        isinstance(getattr(attention, part, None), nn.Module)
        for part in ("q_proj", "k_proj", "v_proj", "o_proj")
    )
    normed = any(hasattr(attention, part) for part in ("q_norm", "q_layernorm", "query_norm"))
    return (
        Family(attention=attribute, rotary=False)
        if alike and not normed and hasattr(attention, "head_dim")
        else None
    )


def _layer(
    index: int, name: str, family: Family, decoder: nn.Module, attention: Any, rotary: Rotary | None
) -> Layer:
    config = attention.config
    head: int = attention.head_dim
    ffn = getattr(decoder, family.ffn, None)
    if isinstance(family.projections, str):
        query_heads = int(config.num_attention_heads)
        kv_heads = int(getattr(config, "num_key_value_heads", None) or query_heads)
        value = head
    else:
        q, k, v = (getattr(attention, part) for part in family.projections)
        query_heads, kv_heads = q.out_features // head, k.out_features // head
        value = v.out_features // kv_heads
    return Layer(
        index=index,
        name=name,
        family=family,
        decoder=decoder,
        attention=attention,
        ffn=ffn if isinstance(ffn, nn.Module) else None,
        query_heads=query_heads,
        kv_heads=kv_heads,
        query_width=head,
        value_width=value,
        hidden_width=int(config.hidden_size),
        rotary=rotary,
    )
