"""Virtual tokens that begin as tokens of the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ctxpeft.blocks.shared import SharedBlocks
from ctxpeft.errors import HostError
from ctxpeft.hosts.build import Built
from ctxpeft.hosts.compile import model_tokenizer, token_ids
from ctxpeft.hosts.controller import Controller
from ctxpeft.spec.variant import Variant


def fill_from_vocabulary(
    model: nn.Module,
    controller: Controller,
    variant: Variant,
    built: list[Built],
    tokenizer: Any,
    seed: int | None,
) -> None:
    """Fill every prompt whose init asks for the vocabulary, as the host embeds it. With a seed, drawn from it alone.

    Raises HostError where a text is given and the model's tokenizer cannot be had.
    """
    for _, place, _, module in built:
        init: Any = getattr(variant.modules[place].memory, "init", None)
        if not isinstance(module, SharedBlocks) or not getattr(init, "from_vocabulary", False):
            continue
        embed: Any = model.get_input_embeddings()  # type: ignore[operator]
        table: Any = module.prompt.embedding
        if init.text is None:
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            size = embed.weight.shape[0]
            ids = torch.randint(min(size, init.top or size), (len(table),), generator=generator)
        else:
            ids = torch.tensor(token_ids(tokenizer or model_tokenizer(model), init.text))
            if int(ids.max()) >= embed.weight.shape[0]:
                raise HostError(
                    f"{variant.name}: the tokenizer does not belong to this model: token {int(ids.max())}"
                )
            ids = ids.repeat(-(-len(table) // len(ids)))[: len(table)]
        with torch.no_grad(), controller.record():
            table.copy_(embed(ids.to(embed.weight.device)))
