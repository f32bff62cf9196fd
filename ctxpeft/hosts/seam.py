"""The seam: how the modules of a layer see its attention and FFN, and put their word in.

A served attention module calls our attention function (`ctxpeft.hosts.backend`). It asks the original config for the
real backend at every call, runs it, and merges what the memories read. A module that does not call the interface is
served behind its output, beside its FFN and at the residual stream.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.precision import autocasts
from ctxpeft.blocks.side_by_side import one_row
from ctxpeft.errors import HostError
from ctxpeft.hosts.backend import SEAM, implementation, is_plain, names_sdpa, renamed, run_backend
from ctxpeft.hosts.content import Content
from ctxpeft.hosts.controller import Controller, Plan, transformed
from ctxpeft.hosts.discover import Layer
from ctxpeft.hosts.divided import Divided
from ctxpeft.hosts.fused import applicable, attention_with_mass, one_query, question
from ctxpeft.hosts.needs import Need, needs
from ctxpeft.hosts.replay import bound
from ctxpeft.hosts.short import Short, beside
from ctxpeft.hosts.sight import Sight
from ctxpeft.hosts.site import Acts, Behind, Site, joined, merge
from ctxpeft.hosts.spots import entered, first_tensor, with_first

PLAN = "ctxpeft_plan"
IDLE = Plan(())
NOTHING = None, Acts({}, {}, [], False, False)


class Seam(Sight):
    """The hooks in one layer. Plain object: parameters live in `Site` submodules of the host's own modules."""

    def __init__(self, layer: Layer, controller: Controller) -> None:
        super().__init__(layer)
        self.controller = controller
        self.behind: Behind | None = None
        self.attended = False
        self.can_carry = layer.first is not layer.attention and all(
            _takes_any_keyword(module) for module in (layer.first, layer.attention)
        )
        self.carries = False
        self.enters = False
        self.attention_site = Site()
        self.ffn_site = Site()
        self.residual_site = Site()
        self.installed: list[tuple[nn.Module, Site]] = []
        self.time_first: set[str] = set()
        self.entered: Tensor | None = None
        self.entered_ffn: Tensor | None = None
        self.original_config: Any = None
        self.needs: set[Need] | None = None
        self.at_output = self.later = False
        self.ready: tuple[tuple[str, ...] | None, Acts] = NOTHING
        self.removers: list[Callable[[], None]] = []

    @classmethod
    def of(cls, layer: Layer, controller: Controller) -> Seam:
        """The seam of a layer, installed on first use."""
        found = layer.attention.__dict__.get(SEAM)
        if found is None:
            found = cls(layer, controller)
            found.install()
        assert isinstance(found, Seam)
        return found

    def add(self, name: str, key: str, module: ContextModule) -> None:
        """Put a module of an adapter at its site; `key` is its place in the variant's list."""
        self._site(module.spec.site).add(name, key, module)
        self._watch()

    def _site(self, name: str) -> Site:
        """Where the modules of a site of the spec are kept: in a module of the host, from the first one on."""
        layer = self.layer
        attention = (layer.attention, self.attention_site)
        beside = {"residual": (layer.last, self.residual_site)}
        if layer.ffn is not None:
            beside["ffn"] = (layer.ffn[1], self.ffn_site)
        module, site = beside.get(name, attention)
        spot = None if name == "head" else layer.spot(cast(Any, name))
        if spot is not None and spot.time_first:
            self.time_first.add(name)
        if all(site is not there for _, there in self.installed):
            holder = _holder(module)
            holder.ctxpeft = site
            self.installed.append((holder, site))
        return site

    def install(self) -> None:
        """Stand at the attention of the layer."""
        attention: Any = self.layer.attention
        if self.layer.wiring is not None:
            self.original_config = attention.config
            attention.config = renamed(attention, attention.config)
        attention.__dict__[SEAM] = self
        self.controller.seams[self.layer.index] = self

    def carry(self) -> None:
        """Whether the layer hands its plan to the attention: where a backward pass computes it again."""
        first = self.layer.first
        carries = first.training and self.can_carry and bool(getattr(first, "gradient_checkpointing", False))
        if carries != self.carries:
            self.carries = carries
            self._watch()

    def _watch(self) -> None:
        """Register the hooks that the modules here need, and no others."""
        layer, self.ready = self.layer, NOTHING
        sites = (self.attention_site, self.ffn_site, self.residual_site)
        modules = [module for site in sites for name in site.adapters for module in site.modules_of(name)]
        self.at_output = any(module.spec.site == "attention_output" for module in modules)
        self.later = bool(self.ffn_site.adapters or self.residual_site.adapters)
        found = needs(modules, self.replays, layer.wiring is not None)
        if self.carries:
            found |= {"states", "layer"}
        if found == self.needs:
            return
        self._unwatch()
        self.needs, self.enters = found, "states" in found
        hooks = [layer.output.register_forward_hook(self._leave_attention)]
        if "states" in found:
            hooks.append(layer.attention.register_forward_pre_hook(self._enter_attention, with_kwargs=True))
        if "layer" in found:
            hooks.append(layer.first.register_forward_pre_hook(self._enter_layer, with_kwargs=True))
            hooks.append(layer.last.register_forward_hook(self._leave_layer))
        point = layer.unrotated_point() if "unrotated" in found else None
        if point is not None:
            hooks.append(point.register_forward_hook(self._see_unrotated))
        if layer.ffn is not None and "ffn" in found:
            first, last = layer.ffn
            hooks.append(first.register_forward_pre_hook(self._enter_ffn, with_kwargs=True))
            hooks.append(last.register_forward_hook(self._leave_ffn))
        self.removers = [hook.remove for hook in hooks]

    def _unwatch(self) -> None:
        for remover in self.removers:
            remover()
        self.removers, self.needs = [], None

    def remove(self) -> None:
        """Leave the layer as it was found."""
        self._unwatch()
        attention: Any = self.layer.attention
        if self.layer.wiring is not None:
            attention.config = self.original_config
        del attention.__dict__[SEAM]
        del self.controller.seams[self.layer.index]
        for holder, _ in self.installed:
            del holder.ctxpeft

    def remove_adapter(self, name: str) -> None:
        """Forget the modules of one adapter; after the last one the layer is as it was found."""
        sites = (self.attention_site, self.ffn_site, self.residual_site)
        for site in sites:
            site.forget(name)
        if any(site.adapters for site in sites):
            self._watch()
        else:
            self.remove()

    # One plan a pass. A layer that a backward pass computes again receives it as a keyword, which is replayed.

    def _enter_layer(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        self.entered = entered(args, kwargs)
        if self.carries:
            kwargs.setdefault(PLAN, self.controller.plan())
        return args, kwargs

    def _enter_attention(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        plan = kwargs.pop(PLAN, None)
        self.plan = self.controller.plan() if plan is None else plan
        self.hidden = entered(args, kwargs)
        self.arguments = bound(module, args, kwargs) if self.replays else {}
        return args, kwargs

    def _see_unrotated(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if not self.projecting:
            self.unrotated = output

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The host's attention with the memories merged in: out (B, T, Hq, dv) and the content weights, if any."""
        self.attended = True
        controller, plans, tried = self.controller, self.controller.plans, False
        alone = controller.recording is None and not self.carries and not torch.is_grad_enabled()
        if alone and plans and plans[-1].quiet:
            self.plan = plan = plans[-1]
            if plan.names is not self.ready[0]:
                self.ready = plan.names, self.attention_site.acts(plan.names, "head")
            acts = self.ready[1]
            if plan.rows is None:
                short = acts.short
                if short is not None and not short.is_bare(False):
                    short = None
            else:
                short = self._short(acts, plan, query) if acts.brief and acts.acting else None
            if short is not None:
                tried, done = True, self._quietly(module, short, query, key, value, mask, options)
                if done is not None:
                    return done
        carried = options.pop(PLAN, None)
        if carried is not None:
            self.plan = carried
        elif not self.enters:
            self.plan = controller.plan()
        plan, recording = self.plan, controller.recording
        acts = self.attention_site.acts(plan.names, "head")
        if not acts.acting and not acts.past and recording is None:
            return run_backend(module, self.original_config, query, key, value, mask, options)
        brief = acts.brief and recording is None and not tried
        short = self._short(acts, plan, query) if brief else None
        if short is not None:
            done = self._shortly(module, short, query, key, value, mask, options)
            if done is not None:
                return done
        backend = implementation(self.original_config)
        content = Content(module, query, key, mask, options, backend)
        told = acts.reads_log_mass and backend == "sdpa" and applicable(query, key, value, mask, options)
        watch = controller.watch_at(self.layer.index)
        if told and acts.joins and recording is None:
            asked = lambda: question(content, value)  # noqa: E731
            merged = joined(self._capture(query, content, None), acts, plan, watch, asked)
            if merged is not None:
                return merged.contiguous(), None
        weights = mass = None
        if told:
            output, mass = attention_with_mass(
                query, key, value, content.visible(), mask, content.causal(), content.scaling()
            )
        else:
            output, found = run_backend(module, self.original_config, query, key, value, mask, options)
            output = output.transpose(1, 2)
            weights = found if found is not None and found.ndim == 4 else None
        capture = self._capture(output, content, mass)
        if recording is not None:
            recording[self.layer.index] = self._states(capture, key, value)
        self.behind = Behind.of(capture, acts.past, plan) if acts.past else None
        if not acts.acting:
            return output.transpose(1, 2), weights
        merged, kept = merge(capture, acts, plan, watch)
        if weights is not None and kept is not None:
            weights = weights * kept[..., None].to(weights.dtype)
        return merged.transpose(1, 2).contiguous(), weights

    def _short(self, acts: Acts, plan: Plan, query: Tensor) -> Short | None:
        """The modules that go the short way, where nobody else has a say in this pass: no instrument, no autocast, no
        hooks; of routing, gradients and a compiler one at most. With routing those of all rows side by side, for one
        query a row."""
        if self.controller.watch is not None or autocasts(query.device):
            return None
        short, rows = acts.short, plan.rows
        if (rows is not None) + torch.is_grad_enabled() + torch.compiler.is_compiling() > 1:
            return None
        if rows is not None and not rows.one_for_all(query.shape[0]):
            if query.shape[2] > 1:
                return None
            return Divided.side_by_side(acts.acting, plan, query.shape[0], query.device).short
        return short if short is None or short.is_bare() else None

    def _quietly(
        self,
        module: nn.Module,
        short: Short,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None] | None:
        """What `_shortly` returns, in a pass that is quiet."""
        if short.calls or not names_sdpa(self.original_config):
            return self._shortly(module, short, query, key, value, mask, options)
        output: Tensor | None
        if short.competing is not None:
            output = beside(short.competing, module, query, key, value, mask, options, self._pairs)
            if output is None:
                return None
        else:
            output = one_query(query, key, value, mask, options)
            if output is None:
                output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        o = output
        for one in short.adding:
            q = query if one.rotated else cast(Tensor, self._unrotated_or(query))
            o = (
                one.add_to(o, q, True, self.hidden)
                if one.short
                else one.add_read(o, q, self._pairs(one, query), True)
            )
        return o if o.dtype is output.dtype else o.to(output.dtype), None

    def _shortly(
        self,
        module: nn.Module,
        short: Short,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None] | None:
        """What `attend` returns, by the short way; None where that does not serve this call."""
        config, competing, trains = self.original_config, short.competing, torch.is_grad_enabled()
        ours = is_plain(config)
        calls = short.calls or (trains and not all(one.one_product for one in short.adding))
        content = capture = weights = None
        if calls:
            content = Content(module, query, key, mask, options, implementation(config))
        output: Tensor | None
        if competing is not None:
            if not ours:
                return None
            output = beside(competing, module, query, key, value, mask, options, self._pairs)
            if output is None:
                return None
        elif ours:
            output, weights = sdpa_attention_forward(module, query, key, value, mask, **options)
        else:
            output, weights = run_backend(module, config, query, key, value, mask, options)
        if calls:
            capture = self._capture(output.transpose(1, 2), cast(Content, content), None)
        into = ours and not trains and not calls and (self.plan.quiet or not transformed())
        o = output
        for one in short.adding:
            plain = one.one_product if trains else one.short or one.aside
            if not plain:
                assert capture is not None
                o = one.add(o, capture if one.count == query.shape[1] else one_row(capture))
                continue
            q = query if one.rotated else cast(Tensor, self._unrotated_or(query))
            o = (
                one.add_to(o, q, into, self.hidden)
                if one.short
                else one.add_read(o, q, self._pairs(one, query), into)
            )
        return o if o.dtype == output.dtype else o.to(output.dtype), weights

    def _leave_attention(self, module: nn.Module, args: Any, output: Any) -> Any:
        if not self.attended and self.layer.wiring is not None and self.controller.plan().names:
            raise HostError(
                f"the attention of {self.layer.name} ({type(self.layer.attention).__name__}) did not call "
                "transformers' attention interface in this pass"
            )
        merged = None
        if self.at_output or self.behind is not None:
            merged = self._merge(self.attention_site, "attention_output", output, self.hidden, self.behind)
        self.attended, self.hidden, self.unrotated, self.behind = False, None, None, None
        self.arguments = {}
        if not self.later:
            self.plan = IDLE
        return merged

    def _enter_ffn(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.entered_ffn = entered(args, kwargs)

    def _leave_ffn(self, module: nn.Module, args: Any, output: Any) -> Any:
        merged = self._merge(self.ffn_site, "ffn", output, self.entered_ffn)
        self.entered_ffn = None
        return merged

    def _leave_layer(self, module: nn.Module, args: Any, output: Any) -> Any:
        merged = self._merge(self.residual_site, "residual", output, self.entered)
        if self.layer.first is self.layer.last:
            self.entered, self.plan = None, Plan(())
        return merged

    def _merge(
        self, site: Site, name: str, output: Any, hidden: Tensor | None, behind: Behind | None = None
    ) -> Any:
        """Add what passed the output projection by and merge the modules of a one-head site into what its host module
        returned; None leaves it as it is."""
        if not self.plan.names:
            return None
        acts = site.acts(self.plan.names, name)
        if not acts.acting and behind is None:
            return None
        first = first_tensor(output)
        assert first is not None
        turned = name in self.time_first
        states = self._by_token(first, turned)
        watch = self.controller.watch_at(self.layer.index)
        if behind is not None:
            states = behind.add(states, self.layer.query_heads, watch)
        if acts.acting:
            capture = Capture(
                output=states[:, None],
                hidden=None if hidden is None else self._by_token(hidden, turned)[:, None],
                positions=self.plan.positions,
            )
            states = merge(capture, acts, self.plan, watch)[0][:, 0]
        merged = (states.transpose(0, 1).contiguous() if turned else states).reshape(first.shape)
        return with_first(output, merged)

    def _by_token(self, states: Tensor, turned: bool) -> Tensor:
        """(B, T, D), also where a mixture of experts lays rows and tokens out in one axis, or tokens come first."""
        if states.ndim == 3 or self.entered is None:
            return states.transpose(0, 1).contiguous() if turned else states
        return states.reshape(*self.entered.shape[:2], -1)


def _holder(module: nn.Module) -> nn.Module:
    """Where a site can live without being called: a container calls all that it holds, its last part does not."""
    while isinstance(module, nn.Sequential):
        module = module[-1]
    return module


def _takes_any_keyword(module: nn.Module) -> bool:
    parameters = inspect.signature(module.forward).parameters.values()
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
