"""Optimizer groups in which some parameters train at a multiple of the run's learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def split(groups: Sequence[dict[str, Any]], ratios: Mapping[nn.Parameter, float]) -> list[dict[str, Any]]:
    """The groups of an optimizer, each divided by ratio; parameters that `ratios` does not name come first, at 1."""
    found = []
    for group in groups:
        by_ratio: dict[float, list[nn.Parameter]] = {1.0: []}
        for parameter in group["params"]:
            by_ratio.setdefault(ratios.get(parameter, 1.0), []).append(parameter)
        found += [
            {**group, "params": members, "lr": group["lr"] * ratio}
            for ratio, members in by_ratio.items()
            if members or len(by_ratio) == 1
        ]
    return found
