"""What an adapter keeps at the model as a whole: the facts of each pass, the embeddings site, blocks of all layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ctxpeft.blocks.capture import Capture
from ctxpeft.hosts.controller import Controller
from ctxpeft.hosts.discover import embeddings
from ctxpeft.hosts.passes import Pass
from ctxpeft.hosts.positions import learned_positions, plan_shift, shifted
from ctxpeft.hosts.probe import record_pass
from ctxpeft.hosts.prompts import Prompts
from ctxpeft.hosts.site import Site, merge
from ctxpeft.hosts.spots import first_tensor, with_first

ATTRIBUTE = "_ctxpeft_root"


class Root:
    """The hooks on the model and on its token embedding. Parameters live in `Site` submodules of the two."""

    def __init__(self, model: nn.Module, controller: Controller) -> None:
        self.model, self.controller = model, controller
        self.names = list(inspect.signature(model.forward).parameters)
        self.embedding: nn.Module | None = None
        self.embedding_site = Site()
        self.time_first = False
        self.shared = Site()
        self.shifts: dict[str, int] = {}
        self.room = learned_positions(model)
        self.prompts = Prompts(model, controller, self.shared)
        self.removers: list[Callable[[], None]] = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True).remove,
            model.register_forward_hook(self._end, always_call=True).remove,
        ]
        base = getattr(model, "base_model", model)
        if isinstance(base, nn.Module):  # the part that holds the layers, also when it is called by itself
            self.removers.append(base.register_forward_pre_hook(self._see_checkpointing).remove)

    @classmethod
    def of(cls, model: nn.Module, controller: Controller) -> Root:
        """The root of a model, installed on first use."""
        found = model.__dict__.get(ATTRIBUTE)
        if found is None:
            found = model.__dict__[ATTRIBUTE] = cls(model, controller)
        assert isinstance(found, Root)
        return found

    def serve_embeddings(self) -> Site:
        """The site at the token embedding. Raises HostError for a model without one."""
        if self.embedding is None:
            found = embeddings(self.model)
            self.time_first = _reads_time_first(self.model, found[0])
            self.embedding = found[0]
            self.embedding.ctxpeft = self.embedding_site
            self.removers += [module.register_forward_hook(self._leave_embedding).remove for module in found]
        return self.embedding_site

    def serve_shared(self) -> Site:
        """Where blocks of `per: model` live: once, at the model itself."""
        if "ctxpeft" not in self.model._modules:
            self.model.ctxpeft = self.shared
        return self.shared

    def remove_adapter(self, name: str) -> None:
        """Forget the blocks of one adapter."""
        self.shifts.pop(name, None)
        self.prompts.forget(name)
        for site in (self.embedding_site, self.shared):
            site.forget(name)
        if not self.shared.adapters and "ctxpeft" in self.model._modules:
            del self.model.ctxpeft

    def remove(self) -> None:
        """Leave the model as it was found."""
        for remover in self.removers:
            remover()
        if self.embedding is not None:
            del self.embedding.ctxpeft
        self.model.__dict__.pop(ATTRIBUTE, None)

    def _begin(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        facts = Pass.of(given, self.controller.segments)
        plan = self.controller.begun(facts)
        self.controller.plans.append(plan)
        self.prompts.fill(facts, plan.names)
        shift = plan_shift(plan, self.shifts, facts) if self.shifts else 0
        if isinstance(shift, int) and not shift:
            return None
        return shifted(args, kwargs, self.names, facts, shift, self.room)

    def _see_checkpointing(self, module: nn.Module, args: Any) -> None:
        """Layers that are computed again in a backward pass are told their plan, the others ask for it."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            for seam in self.controller.seams.values():
                seam.carry()

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.controller.plans.pop()

    def _leave_embedding(self, module: nn.Module, args: Any, output: Any) -> Any:
        plan = self.controller.plan()
        acts = self.embedding_site.acts(plan.names, "embeddings")
        if not acts.acting:
            return None
        first = first_tensor(output)
        assert first is not None
        states = first.transpose(0, 1).contiguous() if self.time_first else first
        capture = Capture(output=states[:, None], positions=plan.positions)
        merged = merge(capture, acts, plan, self.controller.watch_at(None))[0][:, 0]
        return with_first(output, merged.transpose(0, 1).contiguous() if self.time_first else merged)


def _reads_time_first(model: nn.Module, embedding: nn.Module) -> bool:
    """Whether the token embedding is given ids (T, B), by a pass of one row."""
    name = next(name for name, module in model.named_modules() if module is embedding)
    shapes: list[tuple[int, ...]] = []

    def see(module: nn.Module, args: Any) -> None:
        shapes.append(tuple(args[0].shape))

    record_pass(model, lambda subject: [subject.get_submodule(name).register_forward_pre_hook(see)])
    return bool(shapes) and len(shapes[0]) == 2 and shapes[0][0] != 1
