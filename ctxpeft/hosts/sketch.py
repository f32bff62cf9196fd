"""A model without weights that runs: the host's own classes on the meta device, where nothing may look at a value.

Masks are left out, since building them looks at values; the attention that is computed is the same. Where the model
itself has no weights, what the watched pass reads from values is stood in for by modules of the same shape.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from ctxpeft.blocks.kernels import aten
from ctxpeft.errors import HostError
from ctxpeft.hosts.attach import place
from ctxpeft.hosts.backend import NAME, calls_interface
from ctxpeft.hosts.handle import BaseHandle
from ctxpeft.hosts.probe import ATTRIBUTE, Wiring, wirings
from ctxpeft.hosts.wiring import Arrangement, Chain, Step
from ctxpeft.spec.variant import Variant

META = torch.device("meta")
COUNTED = ("sdpa", "eager")


class Sketch:
    """The twin of a model, called with zeros. Parameters, caches and what is saved for backward have their true sizes.

    Raises HostError where the model cannot be built, or its forward looks at values.
    """

    def __init__(self, model: nn.Module) -> None:
        original: Any = model
        try:
            with META:
                self.model: Any = type(original)(copy.deepcopy(original.config))
        except Exception as error:  # a class of its own may ask for anything
            raise _uncountable(original, error) from error
        self.model.to(next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32))
        self.model.eval().requires_grad_(False)
        self.wirings = {
            name: _stand_in(self.model.get_submodule(name), wiring) for name, wiring in wirings(model).items()
        }
        _without_masks(self.model)
        two = bool(self.model.config.is_encoder_decoder) and "decoder_input_ids" in _takes(self.model)
        self.inputs = ("input_ids", "decoder_input_ids") if two else ("input_ids",)

    def attach(self, variant: Variant) -> BaseHandle:
        """Put a variant into the twin. Raises HostError where the model cannot host it."""
        self.model.__dict__[ATTRIBUTE] = self.wirings
        return place(self.model, variant, "default", None)

    def forward(self, batch: int, tokens: int) -> Tensor:
        """The output of a pass whose gradient goes down to the input embeddings."""
        hook = self.model.get_input_embeddings().register_forward_hook(
            lambda module, args, out: out.requires_grad_()
        )
        try:
            out = self._call(batch, tokens)
        finally:
            hook.remove()
        found: Tensor = out.logits if hasattr(out, "logits") else out[0]
        return found

    def decode(self, batch: int, tokens: int, cache: Any = None) -> Any:
        """The cache after so many more tokens, None for a model that has none. Nothing is trained."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            with torch.no_grad():
                out = self._call(batch, tokens, use_cache=True, past_key_values=cache)
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
        return getattr(out, "past_key_values", None)

    def _call(self, batch: int, tokens: int, **options: Any) -> Any:
        given = dict.fromkeys(self.inputs, torch.zeros(batch, tokens, dtype=torch.long, device=META))
        known = {name: value for name, value in options.items() if name in _takes(self.model)}
        try:
            with _Sdpa():
                return self.model(**given, **known)
        except (RuntimeError, NotImplementedError) as error:
            raise _uncountable(self.model, error) from error


class _Sdpa(TorchFunctionMode):
    """Attention on the meta device is that of the fused kernel of a CPU, whose sizes are those of other devices'."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **options)
        q, k, v = (*args, *(options[n] for n in ("query", "key", "value")[len(args) :]))[:3]
        if q.shape[-1] != v.shape[-1]:
            return func(*args, **options)
        return aten._scaled_dot_product_flash_attention_for_cpu(
            q,
            k,
            v,
            0.0,
            options.get("is_causal", False),
            attn_mask=options.get("attn_mask"),
            scale=options.get("scale"),
        )[0]


def _takes(model: Any) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _without_masks(model: Any) -> None:
    """Every attention keeps its backend (one of those without kernels of another package), the model has none that
    transformers builds a mask for. A padding token is looked for in the input: there is none."""
    served = [m for m in model.modules() if calls_interface(m)]
    for module in served:
        name = module.config._attn_implementation
        module.config = copy.copy(module.config)
        module.config._attn_implementation_internal = name if name in COUNTED else "eager"
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config._attn_implementation_internal = NAME
    model.config.get_text_config(decoder=True).pad_token_id = None


def _stand_in(attention: nn.Module, wiring: Wiring | None) -> Wiring | None:
    """The wiring of a model without weights, with projections of the right shape for those it could not see."""
    if wiring is None or not wiring.meta:
        return wiring
    key, value = (
        _projection(attention, f"ctxpeft_{name}", wiring, width)
        for name, width in (("key", wiring.query_width), ("value", wiring.value_width))
    )
    return replace(wiring, key=key, value=value)


def _projection(attention: nn.Module, name: str, wiring: Wiring, width: int) -> Chain:
    dtype = next((p.dtype for p in attention.parameters() if p.is_floating_point()), torch.float32)
    made = nn.Linear(wiring.hidden_width, wiring.kv_heads * width, bias=False, device=META, dtype=dtype)
    attention.add_module(name, made.requires_grad_(False))
    return Chain((Step(name, None, Arrangement("BTW", wiring.kv_heads, width)),))


def _uncountable(model: nn.Module, error: Exception) -> HostError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rstrip(".") if lines else type(error).__name__
    return HostError(f"{type(model).__name__} cannot be counted without its weights: {reason}")
