"""The seam: how the modules of a layer see its attention and FFN, and put their word in.

Each served attention module gets a shallow copy of its config that names our attention function; the model's own
config is untouched, so masks are built for the real backend. Our function asks the original config for the real
backend at every call, runs it, and merges what the memories read.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.compose import compose
from ctxpeft.blocks.states import TextStates
from ctxpeft.errors import HostError
from ctxpeft.hosts.content import Content
from ctxpeft.hosts.controller import Controller, Plan
from ctxpeft.hosts.discover import Layer
from ctxpeft.hosts.fused import applicable, attention_with_mass
from ctxpeft.hosts.site import Site

NAME = "ctxpeft"
PLAN = "ctxpeft_plan"


class Seam:
    """The hooks in one layer. Plain object: parameters live in `Site` submodules of the host's own modules."""

    def __init__(self, layer: Layer, controller: Controller) -> None:
        self.layer, self.controller = layer, controller
        self.plan = Plan(())
        self.hidden: Tensor | None = None
        self.unrotated: Tensor | None = None
        self.attended = False
        self.projecting = False
        self.carries_plan = _takes_any_keyword(layer.decoder) and _takes_any_keyword(layer.attention)
        self.attention_site = Site()
        self.ffn_site = Site()
        self.residual_site = Site()
        self.entered: Tensor | None = None
        self.original_config: Any = None
        self.removers: list[Callable[[], None]] = []

    @classmethod
    def of(cls, layer: Layer, controller: Controller) -> Seam:
        """The seam of a layer, installed on first use."""
        found = layer.attention.__dict__.get("_ctxpeft_seam")
        if found is None:
            found = cls(layer, controller)
            found.install()
        assert isinstance(found, Seam)
        return found

    def site(self, name: str) -> Site:
        """Where the modules of a site of the spec are kept."""
        return {"ffn": self.ffn_site, "residual": self.residual_site}.get(name, self.attention_site)

    def install(self) -> None:
        """Register the hooks and the config copy."""
        layer = self.layer
        attention: Any = layer.attention
        self.original_config = attention.config
        attention.config = copy.copy(attention.config)
        attention.config._attn_implementation_internal = NAME
        attention.ctxpeft = self.attention_site
        attention.__dict__["_ctxpeft_seam"] = self
        hooks = [
            attention.register_forward_pre_hook(self._enter_attention, with_kwargs=True),
            attention.register_forward_hook(self._leave_attention),
            layer.unrotated_point().register_forward_hook(self._see_unrotated),
        ]
        layer.decoder.ctxpeft = self.residual_site
        hooks.append(layer.decoder.register_forward_pre_hook(self._enter_layer, with_kwargs=True))
        hooks.append(layer.decoder.register_forward_hook(self._leave_layer))
        if layer.ffn is not None:
            layer.ffn.ctxpeft = self.ffn_site
            hooks.append(layer.ffn.register_forward_hook(self._leave_ffn))
        self.removers = [hook.remove for hook in hooks]

    def remove(self) -> None:
        """Leave the layer as it was found."""
        for remover in self.removers:
            remover()
        attention: Any = self.layer.attention
        attention.config = self.original_config
        del attention.ctxpeft, self.layer.decoder.ctxpeft
        del attention.__dict__["_ctxpeft_seam"]
        if self.layer.ffn is not None:
            del self.layer.ffn.ctxpeft

    def remove_adapter(self, name: str) -> None:
        """Forget the modules of one adapter; after the last one the layer is as it was found."""
        sites = (self.attention_site, self.ffn_site, self.residual_site)
        for site in sites:
            if name in site.adapters:
                del site.adapters[name]
        if not any(site.adapters for site in sites):
            self.remove()

    # One plan a pass: the layer's caller receives it as a keyword, so gradient checkpointing replays it.

    def _enter_layer(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        self.entered = args[0] if args else kwargs.get("hidden_states")
        if self.carries_plan:
            kwargs.setdefault(PLAN, self.controller.plan())
        return args, kwargs

    def _enter_attention(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        plan = kwargs.pop(PLAN, None)
        self.plan = self.controller.plan() if plan is None else plan
        hidden = kwargs.get("hidden_states", args[0] if args else None)
        self.hidden = hidden
        self.attended = False
        return args, kwargs

    def _see_unrotated(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if not self.projecting and (self.plan.names or self.controller.recording is not None):
            self.unrotated = output

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The host's attention with the memories merged in: out (B, T, Hq, dv) and the content weights, if any."""
        self.attended = True
        active = self.attention_site.active(self.plan, "head", query)
        recording = self.controller.recording
        if not active and recording is None:
            return self._delegate(module, query, key, value, mask, options)
        backend = str(self.original_config._attn_implementation)
        content = Content(module, query, key, mask, options, backend)
        log_mass = _once(content.log_mass)
        weights = None
        if (
            any(m.reads_log_mass for m, _ in active)
            and backend == "sdpa"
            and applicable(query, key, value, mask, options)
        ):
            output, mass = attention_with_mass(
                query, key, value, content.visible(), mask, content.causal(), content.scaling()
            )
            log_mass = _once(lambda: mass)
        else:
            output, told = self._delegate(module, query, key, value, mask, options)
            output = output.transpose(1, 2)
            weights = told if told is not None and told.ndim == 4 else None
        capture = Capture(
            output=output,
            hidden=None if self.hidden is None else self.hidden[:, None],
            rotated=query,
            unrotated=None if self.unrotated is None else self.layer.unrotated(self.unrotated),
            log_mass=log_mass,
            key_count=content.key_count,
            project_kv=self._project_kv,
            positions=self.plan.positions,
            rotate_back=self._rotate_back,
            prompt_kv=self._prompt_kv,
        )
        if recording is not None:
            recording[self.layer.index] = self._states(capture, key, value)
        if not active:
            return output.transpose(1, 2), weights
        merged, kept = compose(capture, active, self.controller.watch_at(self.layer.index))
        if weights is not None and kept is not None:
            weights = weights * kept[..., None].to(weights.dtype)
        return merged.transpose(1, 2).contiguous(), weights

    def _states(self, capture: Capture, key: Tensor, value: Tensor) -> TextStates:
        """What this layer computed for the one row of this pass."""
        assert self.hidden is not None
        unrotated, _ = self._project_kv(self.hidden[0])
        return TextStates(key[0], unrotated, value[0], capture)

    def _delegate(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        backend = self.original_config._attn_implementation
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        function = ALL_ATTENTION_FUNCTIONS.get_interface(backend, eager)
        ours = module.config
        module.config = self.original_config
        try:
            result: tuple[Tensor, Tensor | None] = function(module, query, key, value, mask, **options)
            return result
        finally:
            module.config = ours

    def _rotate_back(self, key: Tensor, by: int) -> Tensor:
        assert self.layer.rotary is not None
        return self.layer.rotary.turn(key, -by)

    def _prompt_kv(self, owner: nn.Module) -> tuple[Tensor, Tensor]:
        return self.plan.known().prompts[owner][self.layer.index]

    def _project_kv(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.projecting = True
        try:
            return self.layer.project_kv(x)
        finally:
            self.projecting = False

    def _leave_attention(self, module: nn.Module, args: Any, output: Any) -> Any:
        if not self.attended and self.plan.names:
            raise HostError(
                f"the attention of {self.layer.name} ({type(module).__name__}) does not call transformers' attention "
                "interface, so ctxpeft cannot serve it"
            )
        merged = self._merge(self.attention_site, "attention_output", output, self.hidden)
        self.hidden = self.unrotated = None
        return merged

    def _leave_ffn(self, module: nn.Module, args: Any, output: Any) -> Any:
        return self._merge(self.ffn_site, "ffn", output, args[0] if args else None)

    def _leave_layer(self, module: nn.Module, args: Any, output: Any) -> Any:
        merged = self._merge(self.residual_site, "residual", output, self.entered)
        self.entered = None
        self.plan = Plan(())
        return merged

    def _merge(self, site: Site, name: str, output: Any, hidden: Tensor | None) -> Any:
        """Merge the modules of a one-head site into what its host module returned; None leaves it as it is."""
        if not self.plan.names:
            return None
        first = output[0] if isinstance(output, tuple) else output
        active = site.active(self.plan, name, first)
        if not active:
            return None
        capture = Capture(
            output=first[:, None],
            hidden=None if hidden is None else hidden[:, None],
            positions=self.plan.positions,
        )
        watch = self.controller.watch_at(self.layer.index)
        merged = compose(capture, active, watch)[0][:, 0]
        return (merged, *output[1:]) if isinstance(output, tuple) else merged


def _once(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same tensor for everyone who asks."""
    kept: list[Tensor] = []

    def ask() -> Tensor:
        if not kept:
            kept.append(function())
        return kept[0]

    return ask


def _takes_any_keyword(module: nn.Module) -> bool:
    parameters = inspect.signature(module.forward).parameters.values()
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """The attention function registered with transformers; every served module finds its own seam."""
    seam: Seam = module.__dict__["_ctxpeft_seam"]
    return seam.attend(module, query, key, value, attention_mask, **options)


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
