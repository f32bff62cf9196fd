"""What the layers below the lowest adapted one give, computed once for each batch.

They are frozen and no adapter reaches them, so the same batch leaves them the same: at every rate, for every design
whose lowest layer is the same, in every epoch. What is kept is the very tensor, computed by the same kernels from a
batch of the same rows, so that a pass with it equals the pass without it bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctxpeft.blocks.shared import SharedBlocks, has_virtual_tokens
from ctxpeft.hosts.controller import Controller, controller_of
from ctxpeft.hosts.handle import BaseHandle, Handle
from ctxpeft.hosts.kept import Kept, Key, Place
from ctxpeft.hosts.spots import first_tensor

READ = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""Arguments that decide what the layers give."""
UNREAD = ("labels", "num_items_in_batch", "return_dict", "logits_to_keep", "use_cache")
"""Arguments that do not; a pass with any other is computed as always."""
COLLECTED = ("output_hidden_states", "output_attentions", "output_router_logits")
"""Settings under which the layers give more than their output."""


@contextlib.contextmanager
def kept_below(model: nn.Module, kept: Kept | None) -> Iterator[str]:
    """Inside the block passes of the model with the adapters it has now skip the layers below them where the batch was
    seen before. Gives why they do not, "" where they do.

    The base must be the same whenever `kept` is given. A pass is computed as always where it keeps a cache of keys and
    values, recomputes activations in the backward pass, asks for the states of layers or is given unknown arguments;
    what was computed with random numbers is not kept.
    """
    if kept is None or not kept.limit:
        yield "nothing is to be kept"
        return
    below, reason = _lowest(model)
    if below is None:
        yield reason
        return
    skipping = _Skipping(model, kept, below)
    with skipping.installed():
        if below.place not in kept.refusals:
            kept.refusals[below.place] = _differs(model, skipping)
        reason = kept.refusals[below.place]
        skipping.refused = bool(reason)
        yield reason


@dataclass(frozen=True)
class _Below:
    place: Place
    layers: list[nn.Module]


def _lowest(model: nn.Module) -> tuple[_Below | None, str]:
    """The layers below every adapter of the model, or why there are none."""
    if not isinstance(model.__dict__.get("_ctxpeft"), Controller):
        return None, "nothing is attached"
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return None, "the model has two stacks"
    handles = list(controller_of(model).handles.values())
    reasons = (_reaches_bottom(handle) for handle in handles)
    if reason := next(filter(None, reasons), ""):
        return None, reason
    adapters = {id(p) for handle in handles for p in handle.parameters()}
    base: Any = getattr(model, "base_model", model)
    if any(p.requires_grad and id(p) not in adapters for p in base.parameters()):
        return None, "parameters of the base are trained"
    layers = [
        handle.layers[built.layer]
        for handle in handles
        if isinstance(handle, Handle)
        for built in handle.built
        if built.layer is not None
    ]
    lowest = min(layers, key=lambda layer: layer.index, default=None)
    if lowest is None or lowest.first is not lowest.last or lowest.first is lowest.attention:
        return None, "the layers are no modules"
    parent, _, number = lowest.name.rpartition(".")
    holder = model.get_submodule(parent)
    if not isinstance(holder, nn.ModuleList):
        return None, "the layers are not in a list"
    if not int(number):
        return None, "the lowest layer is adapted"
    return _Below((parent, int(number)), list(holder[: int(number)])), ""


def _reaches_bottom(handle: BaseHandle) -> str:
    """Why an adapter acts below its layers; "" if it does not."""
    if not isinstance(handle, Handle):
        return "tuners of HF PEFT do not tell their layers"
    if any(b.layer is None and not isinstance(b.module, SharedBlocks) for b in handle.built):
        return "the embeddings are adapted"
    if any(has_virtual_tokens(spec) for spec in handle.variant.modules):
        return "virtual tokens pass all layers"
    if handle.root.shifts.get(handle.name):
        return "the positions of the content are shifted"
    return ""


class _Skipping:
    """The hooks on the model and the layers: which batch passes, and what is known of it."""

    def __init__(self, model: nn.Module, kept: Kept, below: _Below) -> None:
        self.model, self.kept, self.below = model, kept, below
        self.names = list(inspect.signature(model.forward).parameters)
        self.refused = False
        self.key: Key | None = None
        self.output: Any = None
        self.random: list[Tensor] = []

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        hooks = [
            self.model.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.model.register_forward_hook(self._end, always_call=True),
        ]
        before = [layer.__dict__.get("forward") for layer in self.below.layers]
        for number, layer in enumerate(self.below.layers):
            layer.forward = self._around(layer.forward, number)
        try:
            yield
        finally:
            for layer, forward in zip(self.below.layers, before, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward
            for hook in hooks:
                hook.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.key = None
        if self.refused or torch.compiler.is_compiling():
            return
        self.key = self._key({**dict(zip(self.names, args, strict=False)), **kwargs})
        self.output = None if self.key is None else self.kept.get(self.key)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.key = self.output = None
        self.random = []

    def _around(self, forward: Callable[..., Any], number: int) -> Callable[..., Any]:
        last = number == len(self.below.layers) - 1

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.output is not None:
                return self.output
            if self.key is None:
                return forward(*args, **kwargs)
            if not number:
                self.random = _random_states()
            output = forward(*args, **kwargs)
            if last:
                drew = any(not torch.equal(a, b) for a, b in zip(self.random, _random_states(), strict=True))
                if not drew and _is_one_tensor(output):
                    self.kept.put(self.key, output)
                self.key = None
            return output

        return run

    def _key(self, given: Mapping[str, Any]) -> Key | None:
        """What decides the output for a batch; None where it is not told by the batch alone."""
        told = {name: value for name, value in given.items() if value is not None}
        config: Any = self.model.config
        use_cache = told.get("use_cache", getattr(config, "use_cache", False))
        if use_cache or not isinstance(told.get("input_ids"), Tensor):
            return None
        if not set(told) <= {*READ, *UNREAD} or any(getattr(config, name, False) for name in COLLECTED):
            return None
        if self.model.training and _recomputes(self.model):
            return None
        tensors = {name: told[name] for name in READ if name in told}
        if not all(isinstance(t, Tensor) and t.ndim == 2 for t in tensors.values()):
            return None
        device = tensors["input_ids"].device
        how = (
            self.model.training,
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type),
            getattr(config, "_attn_implementation", None),
        )
        return (self.below.place, *how, *((name, *_digest(t)) for name, t in tensors.items()))


@torch.no_grad()
def _differs(model: nn.Module, skipping: _Skipping) -> str:
    """Why the layers above need more than the output of those below, found by passes of the frozen model over two
    batches, the first again without the layers below; "" if its logits are the same, bit for bit."""
    kept, skipping.kept = skipping.kept, Kept(1 << 30)
    device = next(model.parameters()).device
    size = model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    ids = [torch.arange(start, start + 24, device=device).reshape(2, 12) % size for start in (3, 31)]
    mask = torch.ones_like(ids[0])
    mask[1, 9:] = 0
    controller, training = controller_of(model), model.training
    model.eval()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
            for name in controller.handles:
                stack.enter_context(controller.silence(name))
            first, _, again = (
                model(input_ids=ids[i], attention_mask=mask, use_cache=False).logits for i in (0, 1, 0)
            )
    except Exception as error:
        return f"a pass without the layers below is not possible ({type(error).__name__})"
    finally:
        found, skipping.kept = skipping.kept.found, kept
        model.train(training)
    if not found:
        return "the layers below draw random numbers or give more than one tensor"
    return "" if torch.equal(first, again) else "the layers above read more than the output of those below"


def _recomputes(model: nn.Module) -> bool:
    """Whether activations are computed again in the backward pass."""
    name = "is_activation_checkpointing"
    return bool(getattr(model, name if hasattr(model, name) else "is_gradient_checkpointing", False))


def _is_one_tensor(output: Any) -> bool:
    rest = output[1:] if isinstance(output, tuple) else ()
    return first_tensor(output) is not None and all(part is None for part in rest)


def _digest(t: Tensor) -> tuple[Any, ...]:
    held = t.detach().cpu().contiguous()
    return (
        t.dtype,
        tuple(t.shape),
        t.device,
        hashlib.sha256(held.view(torch.uint8).numpy().tobytes()).digest(),
    )


def _random_states() -> list[Tensor]:
    states = [torch.get_rng_state()]
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [*states, torch.cuda.get_rng_state()] if cuda else states
