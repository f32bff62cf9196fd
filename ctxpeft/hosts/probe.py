"""One pass of two tokens through a model, watched: which attention modules run, in what shapes, fed by what."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ctxpeft.errors import HostError
from ctxpeft.hosts.backend import SEAM, calls_interface, renamed, run_backend
from ctxpeft.hosts.device import execution_device
from ctxpeft.hosts.families import ASIDE
from ctxpeft.hosts.parts import parts, usual_attentions
from ctxpeft.hosts.replay import bound, keys_and_values
from ctxpeft.hosts.rotary import Rotary
from ctxpeft.hosts.wiring import Call, Chain, Record, Step, chain_to, query_step, same

ATTRIBUTE = "_ctxpeft_wiring"
TOKENS, MORE = 2, 8


class Tokens(NamedTuple):
    """How many tokens a recorded pass had, in a decoder (or the only stack) and in an encoder before it."""

    decoder: int
    encoder: int


@dataclass(frozen=True)
class Wiring:
    """What the recorded pass tells of one attention module. Plain data: it is copied and pickled with the model.

    query_width d, value_width dv. scaling, softcap: on the content scores. crosses: its keys are of another sequence.
    sees_later: a query sees keys after it. query: the module that yields q before RoPE; key, value: the modules that
    make K and V of a hidden state (None: unknown). replays: K and V of a hidden state can be had from the attention's
    own forward.
    turns: its keys are turned by position as the model's rotary embedding says (False: not at all, None: otherwise).
    projection: the submodule behind the heads. meta: the model has no weights, so values could not be looked at.
    """

    query_heads: int
    kv_heads: int
    query_width: int
    value_width: int
    hidden_width: int
    scaling: float
    softcap: float | None
    crosses: bool
    sees_later: bool
    query: Step | None
    key: Chain | None
    value: Chain | None
    replays: bool
    turns: bool | None
    projection: str | None
    meta: bool

    def projects(self) -> bool:
        """Whether K and V of a given hidden state can be had."""
        return self.meta or self.replays or (self.key is not None and self.value is not None)


class Watcher:
    """Stands at one attention module during the recorded pass."""

    def __init__(self, model: nn.Module, name: str) -> None:
        attention: Any = model.get_submodule(name)
        self.model, self.name, self.attention = model, name, attention
        self.held = attention.__dict__.get(SEAM)
        self.config = attention.config
        self.original_config = self.config if self.held is None else self.held.original_config
        self.record: Record | None = None
        self.open = False
        attention.__dict__[SEAM] = self
        attention.config = renamed(attention, self.original_config)
        self.removers = [attention.register_forward_pre_hook(self._enter, with_kwargs=True)]
        self.removers += [
            module.register_forward_hook(self._see(name))
            for name, module in attention.named_modules()
            if name and not name.startswith("ctxpeft")
        ]

    def remove(self) -> None:
        """Leave the module as it was found."""
        for handle in self.removers:
            handle.remove()
        self.attention.config = self.config
        del self.attention.__dict__[SEAM]
        if self.held is not None:
            self.attention.__dict__[SEAM] = self.held

    def _enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.open = self.record is None
        if self.open:
            given = [kwargs.get("hidden_states"), *args, *kwargs.values()]
            states = [x for x in given if isinstance(x, Tensor) and x.ndim == 3]
            self.record = Record(states, bound(module, args, kwargs), [])

    def _see(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self.open and args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                assert self.record is not None
                self.record.calls.append(Call(name, args[0], output))
            elif args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                self._see_projection(name, args[0], output)

        return hook

    def _see_projection(self, name: str, given: Tensor, output: Tensor) -> None:
        record = self.record
        if record is None or record.query is None or record.value is None or not record.inputs:
            return
        heads, states = record.query.shape[1] * record.value.shape[3], record.inputs[0].shape[-1]
        if record.projection is None and (given.shape[-1], output.shape[-1]) == (heads, states):
            record.projection = name

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Note the call, then do what the host does."""
        if self.open and self.record is not None and self.record.query is None:
            self.record.query, self.record.key, self.record.value = query, key, value
            self.record.scaling = options.get("scaling")
            self.record.softcap = options.get("softcap")
            self.record.sees_later = _sees_later(module, key, mask, options)
        self.open = False
        return run_backend(module, self.original_config, query, key, value, mask, options)

    def wiring(self) -> Wiring | None:
        """What was seen, or None if the module did not call the interface."""
        record = self.record
        if record is None or record.query is None or record.key is None or record.value is None:
            return None
        query, key, value = record.query, record.key, record.value
        scaling = query.shape[-1] ** -0.5 if record.scaling is None else float(record.scaling)
        projection, chain = record.projection, chain_to(key, record)
        return Wiring(
            query_heads=query.shape[1],
            kv_heads=key.shape[1],
            query_width=query.shape[3],
            value_width=value.shape[3],
            hidden_width=record.inputs[0].shape[-1] if record.inputs else 0,
            scaling=scaling,
            softcap=record.softcap,
            crosses=query.shape[2] == TOKENS and key.shape[2] == TOKENS + 1,
            sees_later=record.sees_later,
            query=query_step(record),
            key=chain,
            value=chain_to(value, record),
            replays=self._replays(record),
            turns=self._turns(chain, record),
            projection=projection,
            meta=query.is_meta,
        )

    def _turns(self, chain: Chain | None, record: Record) -> bool | None:
        """Whether the key of the second token is the one its state gives, turned by one position, or not turned."""
        assert record.key is not None
        if chain is None or record.key.is_meta:
            return None
        still = chain.run(self.attention, record.inputs[0])[0, 1]
        if same(still, record.key[0, :, 1]):
            return False
        try:
            rotary = Rotary.of(self.model, self.name, self.attention)
            turned = None if rotary is None else replace(rotary, applies=True).turn(still[:, None], 1)[:, 0]
            known = rotary is not None and bool(rotary.kind())
        except Exception:  # a host's own rotary embedding may ask for anything; then it is not known
            return None
        return True if known and turned is not None and same(turned, record.key[0, :, 1]) else None

    def _replays(self, record: Record) -> bool:
        """Whether a replay gives the key that the first token had and the values of all (they are not rotated)."""
        assert record.key is not None
        assert record.value is not None
        if not record.inputs or record.key.is_meta:
            return False
        try:
            states = record.inputs[0][0]
            rows = torch.cat([states, states[:1]])
            key, value = keys_and_values(self.attention, record.arguments, rows)
        except Exception:  # the forward of a host may ask for anything; then there is no replay
            return False
        wanted = torch.cat([record.value[0], record.value[0, :, :1]], 1)
        return same(key[:, 0], record.key[0, :, 0]) and same(value, wanted)


def wirings(model: nn.Module) -> dict[str, Wiring | None]:
    """The wiring of every attention module that a text pass calls through the interface, by name, in order; where there
    is none, None for every attention that the pass calls by other means.

    The pass runs once a model, in eval mode and without gradients. Raises HostError if the model refuses it.
    """
    found: dict[str, Wiring | None] | None = model.__dict__.get(ATTRIBUTE)
    if found is None:
        subject = _without_values(model) if _device(model).type == "meta" else model
        found = dict(_watched(subject)) or dict.fromkeys(_called(subject))
        model.__dict__[ATTRIBUTE] = found
    return found


def _device(model: nn.Module) -> torch.device:
    """Where the model computes: weights that accelerate keeps elsewhere are on the meta device between calls."""
    return execution_device(model, next(model.parameters()))


def _without_values(model: Any) -> nn.Module:
    """A copy of a model on the meta device that runs there: nothing in its pass may look at a value, and some kernels
    take bfloat16 alone."""
    twin: Any = copy.deepcopy(model).to(torch.bfloat16)
    twin.config.get_text_config(decoder=True).pad_token_id = None
    twin.set_attn_implementation("eager")
    return twin  # type: ignore[no-any-return]


def _watched(model: nn.Module) -> dict[str, Wiring]:
    """The attention modules that call the interface."""
    watchers = {
        name: Watcher(model, name)
        for name, module in model.named_modules()
        if calls_interface(module) and not set(ASIDE) & set(name.split("."))
    }
    try:
        if watchers:
            text_pass(model)
        with torch.no_grad():
            seen = {name: watcher.wiring() for name, watcher in watchers.items()}
    finally:
        for watcher in watchers.values():
            watcher.remove()
    return {name: wiring for name, wiring in seen.items() if wiring is not None}


def _called(model: nn.Module) -> list[str]:
    """The attention modules, known by their usual names, that do not call the interface and return rows of states."""
    names = usual_attentions(model)
    ran: set[str] = set()
    hooks = [
        model.get_submodule(parts(model, name, interface=False).output).register_forward_hook(
            lambda module, args, out, name=name: ran.add(name) if _by_token(out) else None
        )
        for name in names
    ]
    try:
        if names:
            some_tokens(model)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in names if name in ran]


def _by_token(output: Any) -> bool:
    """Whether what a module returns begins with (B, T, D) or (T, B, D), one row in the recorded pass."""
    first = output[0] if isinstance(output, tuple | list) else output
    return isinstance(first, Tensor) and first.ndim == 3 and 1 in first.shape[:2]


def record_pass(model: nn.Module, hooks: Callable[[nn.Module], list[RemovableHandle]]) -> Tokens:
    """A pass of a few tokens through the model, or through a copy of it that can run without values, with hooks.

    Returns how many tokens there were. Raises HostError if the model refuses it.
    """
    subject = _without_values(model) if _device(model).type == "meta" else model
    made = hooks(subject)
    try:
        return some_tokens(subject)
    finally:
        for hook in made:
            hook.remove()


def some_tokens(model: nn.Module) -> Tokens:
    """Two tokens through the model, or eight where it cannot read so few (a funnel); an encoder gets one more."""
    given = few_tokens(model)
    try:
        text_pass(model, None, **given)
    except HostError as error:
        given = few_tokens(model, MORE)
        try:
            text_pass(model, None, **given)
        except HostError:
            raise error from None
    counts = [given[name].shape[1] for name in ("decoder_input_ids", "input_ids") if name in given]
    return Tokens(counts[0], counts[-1])


def text_pass(model: nn.Module, called: nn.Module | None = None, /, **given: Any) -> None:
    """Two tokens, or what is given, through the base model or the part of it that is called, without gradients.

    No adapter acts, and the model is left in the mode it had. Raises HostError, in one sentence, where it fails.
    """
    try:
        with without_adapters(model):
            (model if called is None else called)(**(given or few_tokens(model)))
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        whole = "; ctxpeft serves models that run on token ids alone" if called is None else ""
        raise HostError(
            f"a pass of a few tokens through this model ({type(model).__name__}) fails: {reason}{whole}"
        ) from error


@contextlib.contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Inside the block the base runs in eval mode, without gradients and without any adapter of ours."""
    modes = {module: module.training for module in model.modules()}
    controller: Any = model.__dict__.get("_ctxpeft")
    before = ((), None) if controller is None else (controller.active, controller.routed)
    if controller is not None:
        controller.active, controller.routed = (), None
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        if controller is not None:
            controller.active, controller.routed = before


def few_tokens(model: Any, count: int = TOKENS) -> dict[str, Tensor]:
    """The arguments of a pass of a few different tokens, none of them padding; an encoder gets one more."""
    config = model.config.get_text_config(decoder=True)
    padding = getattr(config, "pad_token_id", None)
    ids = [i for i in range(3, count + 5) if i != padding]
    device = _device(model)
    takes = inspect.signature(model.forward).parameters
    given: dict[str, Tensor] = {"input_ids": torch.tensor([ids[:count]], device=device)}
    if model.config.is_encoder_decoder and "decoder_input_ids" in takes:
        given = {
            "input_ids": torch.tensor([ids[: count + 1]], device=device),
            "decoder_input_ids": torch.tensor([ids[:count]], device=device),
        }
    return given


def _sees_later(module: nn.Module, key: Tensor, mask: Any, options: dict[str, Any]) -> bool:
    if (
        isinstance(mask, Tensor)
        and mask.ndim == 4
        and not mask.is_meta
        and mask.shape[-2:] == (TOKENS, TOKENS)
    ):
        later = mask[0, 0, 0, 1]
        return bool(later) if mask.dtype == torch.bool else bool(later > torch.finfo(mask.dtype).min / 2)
    told = options.get("is_causal")
    return not bool(getattr(module, "is_causal", True) if told is None else told)
