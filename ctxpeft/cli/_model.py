"""A model's skeleton for commands that look at shapes only: no weights are read or allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxpeft.errors import HostError
from ctxpeft.online import hub_settings, without_network

if TYPE_CHECKING:
    from torch import nn


def empty_model(name: str) -> nn.Module:
    """The model of a hub id, a local directory or `ctxpeft-mini`, on the meta device.

    Raises:
        HostError: there is no such model, or transformers cannot build it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ctxpeft.training import source_of

    source = source_of(name)
    settings = hub_settings(source)
    try:
        config = AutoConfig.from_pretrained(source, **settings)
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises many types here, each of them "this cannot be loaded"
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = without_network(error, settings) or (lines[0].rstrip(".") if lines else type(error).__name__)
        raise HostError(f"model '{name}' cannot be loaded as a causal language model: {reason}") from None
    return model
