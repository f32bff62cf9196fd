"""Decoding a token after a prompt, and reading the prompt. `python -m benchmarks decode`, `... prefill`"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.hosts import title, tokens
from benchmarks.settings import Settings
from benchmarks.step import opened, predicted
from benchmarks.timing import interleaved

COUNT = 4
"""Tokens decoded in one repetition, behind one that is not timed, after which the cache is cut back."""


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """A table a case: times of one decoded token, ratios to the floor, tokens in the cache, to which ours add none."""
    for case in settings.decodes:
        model, measured = opened(case, settings)
        ids = tokens(model, case.batch, case.tokens)
        first = ids[:, :1].contiguous()
        caches: dict[str, Any] = {}
        functions, before = {}, {}
        for subject in measured:
            if case.compiled:
                caches[subject.name] = cache = subject.prefill_static(ids, COUNT)
                decode = subject.decode_static
            else:
                caches[subject.name] = cache = subject.prefill(ids)
                decode = subject.decode
            functions[subject.name] = partial(decode, cache, first, COUNT)
            before[subject.name] = partial(decode, cache, first, 1)
        times = interleaved(functions, 2 * settings.rounds, settings.device, before=before)
        rows: list[dict[str, Any]] = []
        for subject in measured:
            row = {"name": subject.name, "group": subject.group, **times[subject.name].plain(COUNT)}
            row["cached_tokens"] = int(caches[subject.name].get_seq_length())
            if subject.group == "ours" and row["cached_tokens"] != case.tokens:
                raise SystemExit(f"{subject.name} put tokens into the cache: {row['cached_tokens']}")
            cost = predicted(model, subject, case.tokens)
            if cost is not None:
                rows[0]["predicted_flops"] = case.batch * cost.base.decode
                row["predicted_flops"] = (
                    case.batch * (cost.base.decode + cost.per_token.decode) + cost.per_pass.decode
                )
            rows.append(row)
        yield {"kind": "decode", **case.plain(title(case.model)), "rows": rows}


def run_prefill(settings: Settings) -> Iterator[dict[str, Any]]:
    """A table a case: times of reading a prompt into a new cache."""
    for case in settings.prefills:
        model, measured = opened(case, settings)
        ids = tokens(model, case.batch, case.tokens)
        functions = {s.name: partial(s.prefill, ids) for s in measured}
        times = interleaved(functions, settings.rounds, settings.device)
        rows = [{"name": s.name, "group": s.group, **times[s.name].plain()} for s in measured]
        yield {"kind": "prefill", **case.plain(title(case.model)), "rows": rows}
