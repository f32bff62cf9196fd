"""What the operators of a read take called in a row, and amid a token, whose weights push their code out of the caches.

`python -m benchmarks cold`
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.hosts import title, tokens
from benchmarks.settings import Settings
from benchmarks.step import opened
from benchmarks.timing import FLOOR, Spread
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.blocks.products import add_into

NAME = "prefix-tuning-plus"
TIMES = 40
"""Measurements a round."""


@torch.no_grad()
def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """A table a case: for elu(q), for the product that adds it to o, and for both as Prefix-Tuning+ calls them."""
    for case in settings.colds:
        model, measured = opened(case, settings)
        floor, subject = (next(s for s in measured if s.name == name) for name in (FLOOR, NAME))
        ids = tokens(model, case.batch, case.tokens)
        layers = int(model.config.num_hidden_layers)
        stream = _Stream(model, layers)
        reads = _reads(next(m for m in subject.model.modules() if isinstance(m, ContextModule)))
        cache = floor.prefill(ids)
        floor.decode(cache, ids[:, :1], 1)
        decode = partial(floor.decode, cache, ids[:, :1], 1)
        whole = Spread.of([_microseconds(decode) for _ in range(settings.rounds)]).median
        times = _measured(reads, stream, settings.rounds * TIMES)
        nothing = {way: Spread.of(times[way]["nothing"]).median for way in times}
        rows: list[dict[str, Any]] = []
        for name in reads:
            row: dict[str, Any] = {"name": name, "rounds": settings.rounds * TIMES}
            for way, found in times.items():
                row[f"{way}_us"] = Spread.of([t - nothing[way] for t in found[name]]).plain()
            row["share_of_token"] = round(row["amid_us"][0] * layers / whole, 5)
            rows.append(row)
        said = {"layers": layers, "token_ms": round(whole / 1e3, 3)}
        yield {"kind": "cold", **case.plain(title(case.model)), **said, "rows": rows}


class _Stream:
    """The products of one layer after another with a vector, as a token is decoded."""

    def __init__(self, model: nn.Module, layers: int) -> None:
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        self.linears = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
        self.vectors = {m.in_features: m.weight.new_ones(1, 1, m.in_features) for m in self.linears}
        self.a_layer, self.place = len(self.linears) // layers, 0

    def __call__(self) -> None:
        for _ in range(self.a_layer):
            linear = self.linears[self.place]
            linear(self.vectors[linear.in_features])
            self.place = (self.place + 1) % len(self.linears)


def _reads(module: ContextModule) -> dict[str, Callable[[], object]]:
    """The operators on a query of one token, and both together as they are called."""
    shape: Any = module.shape
    matrix: Any = module.get_submodule("memory").factors()[0]  # type: ignore[operator]
    width, out = matrix.shape[1:]
    q = torch.randn(1, shape.query_heads, 1, width, device=matrix.device)
    o = torch.zeros(1, 1, shape.query_heads, out, device=matrix.device)
    return {
        "elu": lambda: functional.elu(q),
        "product added to o": lambda: add_into(o, q, (matrix,), 1),
        "both, as the module calls them": lambda: module.add_to(o, q, True),
    }


def _measured(
    reads: dict[str, Callable[[], object]], stream: _Stream, times: int
) -> dict[str, dict[str, list[float]]]:
    """Microseconds in a row and amid the stream, in an order drawn anew each time; of nothing too."""
    draw = random.Random(0)
    functions: dict[str, Callable[[], object]] = {"nothing": lambda: None, **reads}
    found: dict[str, dict[str, list[float]]] = {way: {n: [] for n in functions} for way in ("row", "amid")}
    for _ in range(times):
        for name in draw.sample(list(functions), len(functions)):
            stream()
            found["amid"][name].append(_microseconds(functions[name]))
            for _ in range(3):
                functions[name]()
            found["row"][name].append(_microseconds(functions[name]))
    return found


def _microseconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - begin) / 1e3
