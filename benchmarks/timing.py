"""Times that survive a busy machine: everything is measured in every round, in an order drawn anew each time.

A ratio is taken within a round, so that what slows a whole round cancels; what is told is the median over rounds, with
its quartiles. CPU time of the process stands beside wall time: it does not count the time that others had the cores.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

FLOOR = "floor"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of two values or more."""
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), low, high)

    def plain(self) -> list[float]:
        """Four digits of each."""
        return [float(f"{value:.4g}") for value in (self.median, self.low, self.high)]


@dataclass(frozen=True)
class Times:
    """Seconds of every round, of one subject; `floor` those of what it is compared with in the same rounds."""

    wall: list[float]
    cpu: list[float]
    floor: Times | None = None

    def plain(self, per: int = 1) -> dict[str, Any]:
        """Milliseconds per one of `per` repetitions, and ratios to the floor."""
        found: dict[str, Any] = {"rounds": len(self.wall)}
        for clock in ("wall", "cpu"):
            mine: list[float] = getattr(self, clock)
            found[f"{clock}_ms"] = Spread.of([1e3 * t / per for t in mine]).plain()
            if self.floor is not None:
                theirs: list[float] = getattr(self.floor, clock)
                found[f"{clock}_ratio"] = Spread.of(
                    [a / b for a, b in zip(mine, theirs, strict=True)]
                ).plain()
        return found


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    seed: int = 0,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Times]:
    """Run every function once to warm up, then in every round once, in random order. `floor` is what ratios are to.

    `before` runs each time ahead of the function of its name, off the clock: what another left in the caches of the
    processor is not the cost of this one.
    """
    draw = random.Random(seed)
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in functions}
    for function in functions.values():
        function()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            order = list(functions)
            draw.shuffle(order)
            for name in order:
                if before is not None:
                    before[name]()
                wall, cpu = _timed(functions[name], device)
                found[name][0].append(wall)
                found[name][1].append(cpu)
            gc.collect()
    finally:
        gc.enable()
    floor = Times(*found[FLOOR]) if FLOOR in found else None
    return {name: Times(*times, floor) for name, times in found.items()}


def _timed(function: Callable[[], object], device: torch.device) -> tuple[float, float]:
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    _wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clocked(function: Callable[[], object]) -> float:
    """Seconds of wall time that one call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin
