"""What a variant adds to the floor against slots, rank, heads, context, layers and adapters. `... scaling`"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

import ctxpeft
from benchmarks.hosts import host, title, tokens
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, floor, ours
from benchmarks.timing import FLOOR, Spread, interleaved
from ctxpeft.hosts.attach import place

SHAPE = "llama-26M"
LAYERS, BATCH, TOKENS = 2, 2, 128
PLUS, PREFIX, LOW_RANK = "prefix-tuning-plus", "prefix-tuning", "prefix-tuning-plus-low-rank"


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """One line of points a variant and axis: milliseconds that it adds to a training step (or to a decoded token)."""
    for axis, values, measure in AXES:
        points = []
        for value in values[: settings.points]:
            for name, added in measure(value, settings).items():
                points.append({"variant": name, "value": value, "added_ms": added})
        yield {"kind": "scaling", "axis": axis, "model": title(SHAPE), "points": points}


def _added(
    functions: dict[str, Callable[[], object]], settings: Settings, per: int = 1
) -> dict[str, list[float]]:
    """Median and quartiles of what every function takes beyond the floor in the same round, CPU time."""
    times = interleaved(functions, settings.rounds, settings.device)
    return {
        name: Spread.of([1e3 * (a - b) / per for a, b in zip(t.cpu, times[FLOOR].cpu, strict=True)]).plain()
        for name, t in times.items()
        if name != FLOOR
    }


def _steps(model: Any, variants: Sequence[tuple[str, Any]], settings: Settings) -> dict[str, list[float]]:
    measured = [floor(model), *(ours(model, variant, name) for name, variant in variants)]
    ids = tokens(model, BATCH, TOKENS)
    return _added({s.name: partial(s.step, ids) for s in measured}, settings)


def _model(settings: Settings, **changes: int) -> Any:
    return host(
        SHAPE, settings.device, torch.float32, settings.attention, **{"num_hidden_layers": LAYERS, **changes}
    )


def _changed(name: str, **memory: Any) -> Any:
    """A shipped variant with other sizes of its memory."""
    tree = ctxpeft.load_variant(name).to_dict()
    tree["modules"][0]["memory"].update(memory)
    return ctxpeft.load_variant(tree)


def _slots(value: int, settings: Settings) -> dict[str, list[float]]:
    return _steps(_model(settings), [(PREFIX, _changed(PREFIX, count=value))], settings)


def _rank(value: int, settings: Settings) -> dict[str, list[float]]:
    return _steps(_model(settings), [(LOW_RANK, _changed(LOW_RANK, rank=value))], settings)


def _heads(value: int, settings: Settings) -> dict[str, list[float]]:
    model = _model(settings, num_attention_heads=value, num_key_value_heads=value // 4)
    return _steps(model, [(PLUS, PLUS), (PREFIX, PREFIX)], settings)


def _layers(value: int, settings: Settings) -> dict[str, list[float]]:
    model = _model(settings, num_hidden_layers=value)
    return _steps(model, [(PLUS, PLUS), (PREFIX, PREFIX)], settings)


def _adapters(value: int, settings: Settings) -> dict[str, list[float]]:
    """So many adapters active at once."""
    model = _model(settings)
    measured: list[Subject] = [floor(model)]
    for name in (PLUS, PREFIX):
        subject = ours(model, name)
        for number in range(1, value):
            place(subject.model, ctxpeft.load_variant(name), f"a{number}", number)
        measured.append(subject)
    ids = tokens(model, BATCH, TOKENS)
    return _added({s.name: partial(s.step, ids) for s in measured}, settings)


def _context(value: int, settings: Settings) -> dict[str, list[float]]:
    """Decoding after a prompt of so many tokens."""
    model = _model(settings)
    measured = [floor(model), ours(model, PLUS), ours(model, PREFIX)]
    ids = tokens(model, 1, value)
    caches = {s.name: s.prefill(ids) for s in measured}
    functions = {s.name: partial(s.decode, caches[s.name], ids[:, :1], 4) for s in measured}
    return _added(functions, settings, per=4)


AXES: tuple[tuple[str, tuple[int, ...], Callable[[int, Settings], dict[str, list[float]]]], ...] = (
    ("slots", (8, 32, 128, 512), _slots),
    ("rank", (2, 8, 32, 128), _rank),
    ("heads", (4, 8, 16, 32), _heads),
    ("layers", (1, 2, 4, 8), _layers),
    ("adapters active at once", (1, 2, 4, 8), _adapters),
    ("context, decoding", (64, 256, 1024, 2048), _context),
)
