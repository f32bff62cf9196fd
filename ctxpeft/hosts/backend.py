"""The attention function registered with transformers, and the real backend behind it.

A module that is watched or served gets a shallow copy of its config that names our function; the model's own config
is untouched, so masks are built for the real backend.
"""

from __future__ import annotations

import copy
import sys
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "ctxpeft"
SEAM = "_ctxpeft_seam"
INTERFACE = "ALL_ATTENTION_FUNCTIONS"


class Attends(Protocol):
    """Whoever stands at a module of the host and answers its call of the interface."""

    original_config: Any

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
    ) -> tuple[Tensor, Tensor | None]: ...


def calls_interface(module: nn.Module) -> bool:
    """Whether the class of a module calls transformers' attention interface."""
    if isinstance(module, PreTrainedModel) or not hasattr(
        getattr(module, "config", None), "_attn_implementation"
    ):
        return False
    functions = (f for cls in type(module).__mro__ for f in vars(cls).values())
    return any(INTERFACE in code.co_names for f in functions if (code := getattr(f, "__code__", None)))


class Alias(str):
    """Our name to the registry, and the real backend's name to whoever compares it with that."""

    config: Any
    __slots__ = ("config",)

    def __new__(cls, config: Any) -> Alias:
        made = super().__new__(cls, NAME)
        made.config = config
        return made

    def __eq__(self, other: object) -> bool:
        return other in (NAME, str(self.config._attn_implementation))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(NAME)

    def __reduce__(self) -> tuple[type[Alias], tuple[Any]]:
        return Alias, (self.config,)


def asks_for_backend(module: nn.Module) -> bool:
    """Whether the class of a module does one thing under one backend and another under another (sparse attention
    builds its mask for `eager` and `sdpa` alone)."""
    for function in (f for cls in type(module).__mro__ for f in vars(cls).values()):
        code = getattr(function, "__code__", None)
        if code is not None and "_attn_implementation" in code.co_names:
            words = [w for c in code.co_consts for w in (c if isinstance(c, tuple) else (c,))]
            if "eager" in words or "sdpa" in words:
                return True
    return False


def renamed(module: nn.Module, config: Any) -> Any:
    """A copy of the config of an attention module whose attention is ours."""
    ours = copy.copy(config)
    ours._attn_implementation_internal = Alias(config) if asks_for_backend(module) else NAME
    return ours


def implementation(config: Any) -> str:
    """The attention backend that a config names, past the property that shows it: attributes of configs are slow."""
    return str(config._attn_implementation_internal)


def names_sdpa(config: Any) -> bool:
    """Whether that is sdpa, past what configs do where an attribute is read. Not for a compiler."""
    return bool(object.__getattribute__(config, "_attn_implementation_internal") == "sdpa")


def unchanged() -> bool:
    """Whether transformers' own function for sdpa is registered."""
    return ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


def is_plain(config: Any) -> bool:
    """Whether a config asks for transformers' own function for sdpa. It does not look at the module's config, and what
    it returns is nobody else's."""
    return implementation(config) == "sdpa" and unchanged()


def run_backend(
    module: Any, config: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """The attention that `config`, the module's own, asks for: out (B, T, Hq, dv) and the weights, if any."""
    if is_plain(config):
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **options)
        return found
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    function = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)
    ours = module.config
    module.config = config
    try:
        result: tuple[Tensor, Tensor | None] = function(module, query, key, value, mask, **options)
        return result
    finally:
        module.config = ours


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """The function transformers calls; every served module finds its own seam."""
    seam: Attends = module.__dict__[SEAM]
    return seam.attend(module, query, key, value, attention_mask, **options)


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
