"""What the construction guide asks of a model and its data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ctxpeft.errors import HostError
from ctxpeft.spec.guide import Facts

if TYPE_CHECKING:
    from ctxpeft.training import Bench

EXAMPLES = 8  # that the queries are measured on, and
SAMPLE = 1000  # the usual length
PROBE = {
    "placement": "outside",
    "feature_map": {"kind": "identity"},
    "memory": {"kind": "matrix", "per": "layer"},
}


def facts_of(benches: Iterable[Bench]) -> Facts:
    """The facts of one model and one task or several: the median input of all, and the scale of the queries over all.

    Examples are read evenly spaced, so that a large set costs no more than a small one.
    """
    found = list(benches)
    base = found[0].base
    ids = [[[*e.prompt, *e.answer] for e in _spaced(bench.train, SAMPLE)] for bench in found]
    lengths = [len(row) for rows in ids for row in rows]
    return Facts(
        input_length=float(median(lengths)) if lengths else None,
        examples=sum(len(bench.task.train) for bench in found),
        gqa=base.gqa,
        query_scale=query_scale(base.model, [row for rows in ids for row in _spaced(rows, EXAMPLES)]),
    )


def query_scale(model: nn.Module, texts: Sequence[Sequence[int]]) -> tuple[float, float] | None:
    """The smallest and the largest, over the layers, root mean square of an entry of the rotated queries.

    None without texts, and on a model that shows no queries. The model is left as it was.
    """
    import ctxpeft
    from ctxpeft.hosts.watching import watched

    name = "facts"
    try:
        handle = ctxpeft.attach(model, {"name": name, "modules": [PROBE]}, name=name, seed=0)
    except HostError:
        return None
    squares: dict[int | None, list[Tensor]] = {}

    def see(layer: int | None, capture: object, part: object) -> None:
        query = getattr(capture, "rotated", None)
        if query is not None:
            squares.setdefault(layer, []).append(query.float().square().mean(-1).flatten())

    try:
        device = next(model.parameters()).device
        with torch.no_grad(), watched(model, see):
            for text in texts:
                model(torch.tensor([list(text)], device=device))
    finally:
        handle.detach()
    scales = [float(torch.cat(rows).mean().sqrt()) for rows in squares.values()]
    return (round(min(scales), 3), round(max(scales), 3)) if scales else None


def _spaced(items: Sequence[Any], count: int) -> list[Any]:
    """Up to `count` of them, evenly spaced."""
    step = max(1, len(items) // count)
    return [items[i] for i in range(0, len(items), step)][:count]
