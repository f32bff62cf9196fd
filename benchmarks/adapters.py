"""Many adapters in one batch of 64 rows: decoding a token with 1, 8 and 64 distinct ones, with 512 resident, and with
other rows at every call, whose parameters are laid side by side anew for COUNT tokens.

`python -m benchmarks adapters`
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import DynamicCache

import ctxpeft
from benchmarks.hosts import host, title, tokens, twin
from benchmarks.settings import Settings
from benchmarks.timing import FLOOR, interleaved
from ctxpeft.hosts.attach import place

ROWS, PROMPT, COUNT = 64, 32, 4
ANEW = f"{ROWS} distinct of {ROWS}, other rows every {COUNT} tokens"
DISTINCT = (1, 8, 64)
VARIANTS = ("prefix-tuning-plus", "prefix-tuning")


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """A table a variant: times of one decoded token of all rows; the floor is one adapter, not routed."""
    model = host(settings.shared, settings.device, torch.float32, settings.attention)
    many = settings.resident
    for name in VARIANTS:
        cases: dict[str, tuple[int, int | None]] = {FLOOR: (1, None)}
        cases |= {f"{distinct} distinct of {ROWS}": (ROWS, distinct) for distinct in DISTINCT}
        cases[f"{ROWS} distinct of {many}"] = (many, ROWS)
        cases[ANEW] = (ROWS, ROWS)
        functions = {
            case: _decoding(_resident(model, name, resident), distinct, case == ANEW)
            for case, (resident, distinct) in cases.items()
        }
        times = interleaved(functions, settings.rounds, settings.device)
        rows: list[dict[str, Any]] = [
            {"name": "one adapter, not routed" if case == FLOOR else case, **times[case].plain(COUNT)}
            for case in cases
        ]
        yield {
            "kind": "adapters",
            "variant": name,
            "model": title(settings.shared),
            "batch": ROWS,
            "tokens": PROMPT,
            "rows": rows,
        }


def _resident(model: Any, variant: str, count: int) -> Any:
    """A model with so many adapters, the first of them active."""
    mine, found = twin(model), ctxpeft.load_variant(variant)
    for number in range(count):
        place(mine, found, f"a{number}", number)
    ctxpeft.activate(mine, ["a0"])
    return mine


def _decoding(model: Any, distinct: int | None, anew: bool) -> Any:
    """Decode COUNT tokens of ROWS rows, cut the cache back; `anew`: of other rows each time."""
    ids = tokens(model, ROWS, PROMPT)
    rows = [f"a{i % distinct}" for i in range(ROWS)] if distinct else []

    def routed() -> contextlib.AbstractContextManager[None]:
        if anew:
            rows.append(rows.pop(0))
        return ctxpeft.route(model, rows) if rows else contextlib.nullcontext()

    cache = DynamicCache(config=model.config)
    with torch.no_grad(), routed():
        model(ids, past_key_values=cache, use_cache=True)

    def decode() -> None:
        with torch.no_grad(), routed():
            for _ in range(COUNT):
                model(ids[:, :1], past_key_values=cache, use_cache=True)
        cache.crop(-COUNT)

    return decode
