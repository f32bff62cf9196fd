"""Which inputs read the memory most."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.analysis.diagnose._diagnosis import INK, Diagnosis, plain_axes
from ctxpeft.analysis.diagnose._texts import seen
from ctxpeft.hosts.handle import Handle

TINY = 1e-12
CONTEXT = 6


def reads(handles: dict[str, Handle], ids: Tensor, tokenizer: Any, top: int = 12) -> Diagnosis:
    """The tokens whose outputs a memory changes most, with what stands before them.

    share: |change| / (|change| + |o|), mean over heads, layers and modules of the adapter.
    """
    rows: list[tuple[str, int, str, str, float]] = []
    for name, handle in handles.items():
        shares = []
        for sight in seen(handle, ids):
            change, output = sight.change.norm(dim=-1), sight.output.norm(dim=-1)
            shares.append((change / (change + output + TINY)).mean(1))
        share = torch.stack(shares).mean(0).cpu()
        for rank, flat in enumerate(share.flatten().topk(min(top, share.numel())).indices.tolist()):
            row, column = divmod(flat, share.shape[1])
            before = ids[row, max(0, column - CONTEXT) : column].tolist()
            rows.append(
                (
                    name,
                    rank + 1,
                    repr(tokenizer.decode(before)),
                    repr(tokenizer.decode([int(ids[row, column])])),
                    float(share[row, column]),
                )
            )
    return Diagnosis(
        "reads",
        "Tokens whose outputs the memory changes most; share of the change in the output, mean over layers and heads.",
        ("adapter", "rank", "before", "token", "share"),
        tuple(rows),
        lambda figure: _paint(figure, rows),
    )


def _paint(figure: Any, rows: list[tuple[str, int, str, str, float]]) -> None:
    axes = figure.subplots()
    labels = [f"{name}: …{before[1:-1][-18:]}[{token[1:-1]}]" for name, _, before, token, _ in rows]
    axes.barh(range(len(rows)), [row[-1] for row in rows], color="#3d6cb3")
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("share of the memory in the output", fontsize=8.5)
    axes.set_title("Who reads the memory most", loc="left", fontsize=10, color=INK)
    plain_axes(axes)
