"""Where the time goes that the floor does not take: operators, and calls of Python functions. `... profile`"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.hosts import title, tokens
from benchmarks.settings import Settings
from benchmarks.step import opened
from benchmarks.timing import FLOOR

SHOWN = 5
"""Operators that are named; the others are added up."""


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """A table for a training step and one for a decoded token: what each subject adds to the floor, by operator."""
    case = settings.profiled
    model, measured = opened(case, settings)
    ids = tokens(model, case.batch, case.tokens)
    caches = {s.name: s.prefill(ids[:1]) for s in measured}
    work = {
        "training step": {s.name: partial(s.step, ids) for s in measured},
        "decoded token": {s.name: partial(s.decode, caches[s.name], ids[:1, :1], 1) for s in measured},
    }
    for what, functions in work.items():
        rows = list(_added(functions, settings.rounds))
        yield {"kind": "profile", "what": what, **case.plain(title(case.model)), "rows": rows}


def _added(functions: dict[str, Callable[[], object]], rounds: int) -> Iterator[dict[str, Any]]:
    """For every subject: Python calls, operators dispatched, and the operators whose time differs most: the least time
    over the rounds, for the profiler's clock runs on while others have the core."""
    for function in functions.values():
        function()
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in functions}
    counts: dict[str, Counter[str]] = {}
    for number in range(rounds):
        for name, function in functions.items():
            counts[name] = Counter()
            for operator, calls, spent in operators(function):
                times[name][operator] += [0.0] * (number - len(times[name][operator])) + [spent]
                counts[name][operator] += calls
    least = {name: {operator: min(spent) for operator, spent in mine.items()} for name, mine in times.items()}
    called = {name: python_calls(function) for name, function in functions.items()}
    whole = sum(least[FLOOR].values())
    for name in functions:
        every = least[name].keys() | least[FLOOR].keys()
        added = {op: least[name].get(op, 0.0) - least[FLOOR].get(op, 0.0) for op in every}
        largest = sorted(added, key=lambda op: -abs(added[op]))[:SHOWN]
        yield {
            "name": name,
            "python_calls": called[name],
            "operators": counts[name].total(),
            "operators_ms": round(sum(least[name].values()) / 1e3, 3),
            "added_ms": round(sum(added.values()) / 1e3, 3),
            "added_share": round(sum(added.values()) / whole, 4),
            "largest": []
            if name == FLOOR
            else [
                {
                    "operator": op,
                    "added_calls": counts[name][op] - counts[FLOOR][op],
                    "added_ms": round(added[op] / 1e3, 3),
                }
                for op in largest
            ],
        }


def operators(function: Callable[[], object]) -> Iterator[tuple[str, int, float]]:
    """Name, calls and microseconds of its own of every operator that a call runs."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        function()
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            yield event.key.removeprefix("aten::"), event.count, event.self_cpu_time_total


def python_calls(function: Callable[[], object]) -> int:
    """How many Python functions a call enters in its own thread."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(see)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count
