"""Peak memory of a training step and of a decoding step, the adapter's file, attaching and loading. `... size`"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.hosts import title, tokens, twin
from benchmarks.memory import peak_bytes
from benchmarks.settings import Settings
from benchmarks.step import opened, predicted
from benchmarks.subjects import Subject
from benchmarks.timing import FLOOR, Spread, clocked
from ctxpeft.adapters.layout import PEFT_WEIGHTS, WEIGHTS
from ctxpeft.adapters.load import load
from ctxpeft.hosts.attach import place

REPEATS = 3


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """A table a case. Bytes of files and parameters are exact, and must be what the cost model says."""
    for case in settings.sizes:
        model, measured = opened(case, settings)
        ids = tokens(model, case.batch, case.tokens)
        rows = []
        for subject in measured:
            subject.step(ids)
            row: dict[str, Any] = {
                "name": subject.name,
                "group": subject.group,
                "trainable": sum(p.numel() for p in subject.trained),
                "peak_step_bytes": peak_bytes(partial(subject.step, ids), settings.device),
            }
            cache = subject.prefill(
                ids[:1]
            )  # training comes before: what is kept while a cache grows ends with it
            token = partial(subject.decode, cache, ids[:1, :1], 1)
            token()
            row["peak_decode_bytes"] = peak_bytes(token, settings.device)
            row |= _files(model, subject, case.tokens)
            rows.append(row)
        for row in rows:
            for key in ("peak_step_bytes", "peak_decode_bytes"):
                row[f"{key.removesuffix('_bytes')}_ratio"] = round(row[key] / rows[0][key], 4)
        yield {"kind": "size", **case.plain(title(case.model)), "rows": rows}


def _files(model: Any, subject: Subject, context: int) -> dict[str, Any]:
    """Bytes of the weights' file, milliseconds to attach and to load."""
    with tempfile.TemporaryDirectory() as folder:
        if subject.group == FLOOR:
            return {}
        if subject.handle is None:
            subject.model.save_pretrained(folder)
            return {"file_bytes": os.path.getsize(Path(folder, PEFT_WEIGHTS))}
        subject.handle.save(folder)
        size = os.path.getsize(Path(folder, WEIGHTS))
        if subject.group != "ours":
            return {"file_bytes": size}
        cost = predicted(model, subject, context)
        assert cost is not None
        if cost.file != size:
            raise SystemExit(f"{subject.name}: {cost.file} bytes predicted, {size} written")
        copies = [twin(model) for _ in range(2 * REPEATS)]
        attach = [clocked(partial(place, copy, subject.handle.variant, "x", 0)) for copy in copies[:REPEATS]]
        again = [clocked(partial(load, copy, folder)) for copy in copies[REPEATS:]]
        return {
            "file_bytes": size,
            "attach_ms": Spread.of([1e3 * t for t in attach]).plain(),
            "load_ms": Spread.of([1e3 * t for t in again]).plain(),
        }
