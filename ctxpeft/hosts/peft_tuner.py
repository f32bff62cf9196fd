"""An injectable HF PEFT tuner under the same handle as our own variants."""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError, SpecError, did_you_mean
from ctxpeft.extras import require
from ctxpeft.hosts.controller import controller_of
from ctxpeft.hosts.freeze import freeze, release, remember
from ctxpeft.hosts.handle import BaseHandle
from ctxpeft.spec.variant import Variant


def _peft() -> Any:
    require("peft", "peft", "a variant that wraps an HF PEFT tuner")
    import peft

    return peft


def _config(variant: Variant) -> Any:
    """PEFT's own configuration. Raises SpecError with the nearest argument name for one it does not know."""
    peft = _peft()
    assert variant.peft is not None
    cls = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType[variant.peft.peft_type]]
    arguments = variant.peft.arguments()
    valid = [p for p in inspect.signature(cls.__init__).parameters if p != "self"]
    for key in arguments:
        if key not in valid:
            raise SpecError(
                f"{variant.name}: peft.{key}: {cls.__name__} has no such argument{did_you_mean(key, valid)}"
            )
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{variant.name}: peft: {cls.__name__} refuses this: {error}") from None


def inject(
    model: nn.Module,
    variant: Variant,
    name: str,
    check: Callable[[dict[str, Tensor]], None] | None = None,
) -> PeftHandle:
    """Inject the tuner in place. Raises HostError where PEFT finds none of the target modules.

    `check` is given the parameters on the meta device first; what it raises leaves the model as it was.
    """
    config = _config(variant)
    if check is not None:
        trial = _injected(model, variant, name, config, on_meta=True)
        try:
            check(trial.state_dict())
        finally:
            trial.detach()
    return _injected(model, variant, name, config)


def _injected(
    model: nn.Module, variant: Variant, name: str, config: Any, on_meta: bool = False
) -> PeftHandle:
    trained = [(p, p.requires_grad) for p in model.parameters()]
    before = {id(p) for p, _ in trained}
    fresh = "_ctxpeft_base" not in model.__dict__
    remember(model)
    try:
        _inject(model, config, variant, name, on_meta)
    except HostError:
        _take_out(model, name)
        if fresh:
            release(model)
        raise
    for parameter, was in trained:
        parameter.requires_grad_(was)
    controller = controller_of(model, create=True)
    mine = [(key, p) for key, p in model.named_parameters() if id(p) not in before]
    handle = PeftHandle(model, variant, name, mine)
    freeze(model)
    for _, parameter in mine:
        parameter.requires_grad_(True)
    controller.handles[name] = handle
    controller.active = (*controller.active, name)
    return handle


def _inject(model: nn.Module, config: Any, variant: Variant, name: str, on_meta: bool = False) -> None:
    try:
        _peft().inject_adapter_in_model(config, model, adapter_name=name, low_cpu_mem_usage=on_meta)
    except Exception as error:  # PEFT raises many types here, each of them "not with this configuration"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise HostError(f"{variant.name}: PEFT cannot inject it here: {reason}") from None


def count_injected(model: nn.Module, variant: Variant) -> int:
    """Trainable parameters the tuner would add, counted on a copy of the model on the meta device.

    Raises HostError where PEFT finds none of the target modules.
    """
    with torch.device("meta"):
        bare: nn.Module = type(model)(copy.deepcopy(model.config))
        before = {id(p) for p in bare.parameters()}
        _inject(bare, _config(variant), variant, "default")
    return sum(p.numel() for p in bare.parameters() if id(p) not in before)


class PeftHandle(BaseHandle):
    """An injected HF PEFT tuner."""

    def __init__(
        self, model: nn.Module, variant: Variant, name: str, parameters: list[tuple[str, nn.Parameter]]
    ) -> None:
        super().__init__(model, variant, name)
        self._named = parameters

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for key, parameter in self._named:
            yield key.replace(f".{self.name}.", ".").removesuffix(f".{self.name}"), parameter

    def num_parameters(self, kind: Literal["trainable", "deployed"] = "trainable") -> int:
        return sum(p.numel() for _, p in self._named)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        layers = self._layers()
        before = [layer.disable_adapters for _, layer in layers]
        for _, layer in layers:
            layer.enable_adapters(enabled=False)
        try:
            yield
        finally:
            for (_, layer), was in zip(layers, before, strict=True):
                layer.enable_adapters(enabled=not was)
            for _, parameter in self._named:
                parameter.requires_grad_(True)

    def export(self, directory: str | os.PathLike[str], format: str = "peft") -> None:
        from ctxpeft.errors import AdapterError

        raise AdapterError(
            f"'{self.name}' is an HF PEFT tuner: use handle.save(), or PEFT's own save_pretrained on a PeftModel"
        )

    def _layers(self) -> list[tuple[str, Any]]:
        return _tuner_layers(self.model)

    def _remove(self) -> None:
        _take_out(self.model, self.name)


def _tuner_layers(model: nn.Module) -> list[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(key, m) for key, m in model.named_modules() if isinstance(m, BaseTunerLayer)]


def _take_out(model: nn.Module, name: str) -> None:
    """Remove one tuner, and PEFT's layers where it was the last."""
    for key, layer in _tuner_layers(model):
        if any(name in getattr(layer, part, {}) for part in layer.adapter_layer_names):
            layer.delete_adapter(name)
        left = any(len(getattr(layer, part)) for part in layer.adapter_layer_names if hasattr(layer, part))
        if not left:
            parent, _, attribute = key.rpartition(".")
            setattr(model.get_submodule(parent), attribute, layer.get_base_layer())
    if not _tuner_layers(model):
        model.__dict__.pop("peft_config", None)
