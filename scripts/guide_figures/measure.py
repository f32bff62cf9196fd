"""What the steps of the construction do, measured on the adapters that a comparison has trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ctxpeft
from ctxpeft.analysis.diagnose._spectrum import eigenvalues
from ctxpeft.analysis.diagnose._texts import alone, read, seen, windows
from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.compose import Contribution
from ctxpeft.cli.diagnose import shipped_texts
from ctxpeft.errors import DataError
from ctxpeft.hosts.controller import controller_of
from ctxpeft.hosts.handle import Handle
from ctxpeft.hosts.watching import Sight
from ctxpeft.training import load_base

STEPS = (
    "prefix-tuning",
    "construction-1-moved-out",
    "construction-2-kernelised",
    "construction-3-free-matrix",
    "prefix-tuning-plus",
)
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WINDOWS = 16
SEED = "seed-0"


def measure(runs: Path) -> dict[str, Any]:
    """Everything that is drawn, by picture. Raises DataError where a run is missing."""
    base = load_base("ctxpeft-mini")
    ids = windows(base.tokenizer, shipped_texts(), max(LENGTHS), WINDOWS)
    handles: dict[str, Handle] = {}
    for name in STEPS:
        handles[name] = ctxpeft.load(base.model, adapter(runs, name), name=name)  # type: ignore[assignment]
    begins: dict[str, Handle] = {
        name: ctxpeft.attach(base.model, name, name=f"{name}-begins", seed=0)  # type: ignore[misc]
        for name in ("prefix-tuning", "length-compensated")
    }
    with torch.no_grad():
        return {
            "competition": {
                "prefix-tuning, as it begins": weights(begins["prefix-tuning"], ids),
                "prefix-tuning, trained": weights(handles["prefix-tuning"], ids),
                "length-compensated, as it begins": weights(begins["length-compensated"], ids),
            },
            "moved-out": {name: shares(handles[name], ids) for name in STEPS[:2]},
            "kernel": {name: slots_read(handles[name], ids) for name in STEPS[1:3]},
            "free-matrix": {name: spectra(handles[name], ids) for name in STEPS[2:4]},
            "dropped": {name: layers(handles[name], ids) for name in STEPS[3:]},
        }


def adapter(runs: Path, name: str) -> Path:
    """The folder of a variant's trained adapter, of seed 0."""
    found = sorted((runs / "runs").glob(f"{name}-????????/{SEED}-lr-*/adapter"))
    if not found:
        raise DataError(f"{runs} has no finished run of {name}")
    return found[0]


def weights(handle: Handle, ids: Tensor) -> list[dict[str, float]]:
    """rho by the number of tokens that a query sees: mean over layers, and the least and the most of them."""
    return _by_length([s.weight.mean((0, 1)) for s in seen(handle, ids) if s.weight is not None])


def shares(handle: Handle, ids: Tensor) -> list[dict[str, float]]:
    """Share of the memory in the output, by the number of tokens that a query sees."""
    return _by_length([_share(*_two(handle, sight)).mean((0, 1)) for sight in seen(handle, ids)])


def layers(handle: Handle, ids: Tensor) -> list[float]:
    """Share of the memory in the output of each layer, mean over tokens and heads."""
    return [float(_share(*_two(handle, sight)).mean()) for sight in seen(handle, ids)]


def _two(handle: Handle, sight: Sight) -> tuple[Tensor, Tensor]:
    """What the output is the sum of: the memory's answer with its weight, and what is left of the content."""
    module = handle.variant.modules[0]
    if sight.weight is not None:
        taken: Tensor | float = sight.weight[..., None]
    else:
        taken = float(module.gate.value) if module.merge == "mix" else 0.0
    return sight.change + taken * sight.output, (1 - taken) * sight.output


def _share(answer: Tensor, content: Tensor) -> Tensor:
    """|answer| / (|answer| + |content|)."""
    answer, content = answer.norm(dim=-1), content.norm(dim=-1)
    return answer / (answer + content + 1e-12)


def _by_length(rows: list[Tensor]) -> list[dict[str, float]]:
    stacked = torch.stack(rows)
    return [
        {"n": n, "mean": float(v.mean()), "least": float(v.min()), "most": float(v.max())}
        for n in LENGTHS
        for v in [stacked[:, n - 1]]
    ]


def spectra(handle: Handle, ids: Tensor) -> list[float]:
    """Share of each eigenvalue in the variance of the memory's answers, heads side by side, mean over layers."""
    found = [eigenvalues(replace(sight, change=_two(handle, sight)[0])) for sight in seen(handle, ids)]
    return [float(v) for v in torch.stack([v / v.sum() for v in found]).mean(0)]


def slots_read(handle: Handle, ids: Tensor) -> dict[str, Any]:
    """exp of the entropy of the weights over the slots, of every query: 1 is one slot, the count is all alike."""
    controller = controller_of(handle.model)
    numbers: list[Tensor] = []
    mine = {id(built.module) for built in handle.built}

    def see(_: int | None, capture: Capture, part: Contribution) -> None:
        if id(part.module) in mine:
            numbers.append(_effective(part.module, capture))

    with alone(handle):
        before, controller.watch = controller.watch, see
        try:
            read(handle.model, ids)
        finally:
            controller.watch = before
    every = torch.cat([n.flatten() for n in numbers])
    count = handle.variant.modules[0].memory.count
    edges = torch.linspace(1, count, 31)
    return {
        "slots": count,
        "median": float(every.median()),
        "edges": edges.tolist(),
        "queries": torch.histogram(every, edges).hist.div(len(every)).tolist(),
    }


def _effective(module: Any, capture: Capture) -> Tensor:
    """(B, H, T) effective number of slots, by the module's own score."""
    query = module.query(capture)
    key, _ = module.memory.slots(capture)
    folded = module.grouping.fold(query)
    if module.feature_map is None:
        weight = torch.softmax(folded @ key.transpose(-1, -2) * module.scaling, -1)
    else:
        weight = module.feature_map(folded) @ module.feature_map(key).transpose(-1, -2)
        weight = weight / weight.sum(-1, keepdim=True)
    entropy = -(weight * weight.clamp_min(1e-30).log()).sum(-1)
    return entropy.exp()
