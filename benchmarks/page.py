"""docs/performance.md, from what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.environment import PACKAGES
from benchmarks.grids import Grid, Record, grid
from benchmarks.plots import draw
from benchmarks.targets import targets
from ctxpeft.files import replacing

HEAD = """# Performance

What the variants cost beside the frozen model, and beside what they replace in HF PEFT. This page is written by

```sh
make bench
```

which is `python -m benchmarks`: sections by name (`python -m benchmarks step decode`), `--full` for the whole grid
(batches 1 to 16, 64 to 2048 tokens at every size), `--model` for another model, `--device cuda`, `--rounds`
for more or fewer rounds than the default; how many there were stands below. Every table is also in
`performance/SECTION.json`, with versions and the machine.
"""
READING = """## How to read it

The *floor* is the frozen model, with gradients down to the input embeddings in a training step. All subjects of a table
run in the same process on the same weights, in every round each once, in an order drawn anew; a ratio is taken within
a round. Told are the median over the rounds and, in brackets, the quartiles. CPU time is that of the process: it leaves
out the time in which others had the core, so it is what targets are judged by on a CPU; on a GPU it is wall time.
Before the tokens that are timed each subject decodes one that is not.
Models named `llama-...` have random weights: `llama-3M` the shape of stories3M (6 layers, width 192), `llama-26M` 8
layers of width 512, `llama-100M` 12 of width 768, all with grouped queries. Bytes of files and numbers of parameters
are checked against the [cost model](reference/cli.md) by the command, which stops where they differ. Tables of
`torch.compile` decode on a static cache, all subjects alike. On a CPU, memory that is freed stays with the process
where the C library can be told so, for whom its page faults meet is chance.
"""
SECTIONS = {
    "step": (
        "Training step",
        "Forward, loss and backward. The predicted FLOPs are those of `ctxpeft show VARIANT --model M`, over the "
        "floor's; beside them the CPU time of the step divided by them.",
    ),
    "decode": (
        "Decoding",
        "Greedy tokens, one by one, on a cache that holds the prompt. What our variants add to the cache is checked to "
        "be nothing; PEFT's prefixes live in it.",
    ),
    "prefill": ("Reading a prompt", "A forward pass that fills a new cache."),
    "size": (
        "Memory, files, attaching and loading",
        "Peaks are the highest sum of live allocations of torch's allocator during a call, beyond what was there "
        "before: exact, whatever else the machine does. Times to attach and load are medians of three.",
    ),
    "answers": (
        "Training on answers",
        "A step of Prefix-Tuning+ on prompts that end with an answer, whose tokens alone have labels. `train`, "
        "`compare` and `search` read the head of a causal language model only where a label follows; the loss and "
        "every gradient are those of the model's own loss, which reads it at every token. Where a model's loss is "
        "another (a router's is added, say) they take the model's own. The shape named `qwen2.5-0.5B` has that "
        "model's widths and vocabulary of 151,936.",
    ),
    "adapters": (
        "Many adapters in one batch",
        "A decoding step of 64 rows, each row routed to its adapter, against the same step with one adapter that is "
        "not routed.",
    ),
    "scaling": (
        "Scaling",
        "What a training step (for the context: a decoded token) takes beyond the floor, in milliseconds of CPU time. "
        "Where the floor takes much longer than what is added, the difference of two runs can be below zero: noise.",
    ),
    "profile": (
        "Where the rest goes",
        "Operators with the time of their own under torch's profiler, the least over the rounds, for its clock runs on "
        "while others have the core; and the Python functions that a call enters. What is added is the difference to "
        "the floor; the operators named are those that differ most. A product that the floor runs too (`mm`) and that "
        "differs without being called more often is the noise of the machine.",
    ),
    "cold": (
        "What a read takes amid a token",
        "Decoding reads every weight of the model once a token, and what was in the caches before, code too, is gone "
        "when the next read comes. The operators that Prefix-Tuning+ adds to a layer are timed twice: called in a row, "
        "and each time after the products of a layer of the floor. The last column is what they take in all layers, of "
        "a decoded token of the floor in the same run: no way of calling them makes a token cheaper than that on this "
        "machine.",
    ),
}


def write(page: Path, results: Path) -> Path:
    """Write the page from the sections in a folder, and the picture of scaling beside them."""
    found = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in SECTIONS
        if (path := results / f"{name}.json").is_file()
    }
    parts = [HEAD, READING, _machine(found), _targets(found)]
    for name, record in found.items():
        heading, says = SECTIONS[name]
        parts.append(f"## {heading}\n\n{says}\n")
        if name == "scaling":
            draw(record["tables"], results / "scaling.svg")
            parts.append(f"![Scaling]({results.name}/scaling.svg)\n")
        parts += [f"{grid(table).markdown()}\n" for table in record["tables"]]
        if name == "profile":
            parts += [_sentence(table) for table in record["tables"]]
    with replacing(page) as path:
        path.write_text("\n".join(parts), encoding="utf-8")
    return page


def _machine(found: dict[str, Record]) -> str:
    """Where each section ran, and what else did."""
    lines = ["## Machine\n"]
    first = next(iter(found.values()), None)
    if first is None:
        return "\n".join([*lines, "Nothing has been measured yet.\n"])
    here: dict[str, Any] = first["environment"]
    versions = ", ".join(f"{name} {here[name]}" for name in ("ctxpeft", "python", *PACKAGES) if here[name])
    lines.append(f"{here.get('gpu') or here['processor']}, {here['cores']} cores; {versions}.\n")
    header = ("section", "date", "threads", "load when it began", "seconds", "rounds")
    rows = [
        (
            name,
            record["environment"]["date"],
            str(record["environment"]["threads"]),
            f"{record['environment']['load_average'][0]:.1f}",
            str(record["environment"].get("seconds", "")),
            _rounds(record),
        )
        for name, record in found.items()
    ]
    lines.append(Grid("Runs", header, rows).markdown() + "\n")
    busy = [
        name
        for name, record in found.items()
        if record["environment"]["load_average"][0] > record["environment"]["threads"] + 0.5
    ]
    if busy:
        lines.append(
            f"The machine was shared with other work during {', '.join(busy)}: wall times there say little. Ratios "
            "are taken within rounds, and CPU time counts this process alone; what others do to caches and clock "
            "remains in both.\n"
        )
    return "\n".join(lines)


def _rounds(record: Record) -> str:
    counts = {row["rounds"] for table in record["tables"] for row in table.get("rows", ()) if "rounds" in row}
    return ", ".join(map(str, sorted(counts)))


def _targets(found: dict[str, Record]) -> str:
    """Met and missed."""
    tables = [table for record in found.values() for table in record["tables"]]
    device = "cuda" if any("gpu" in record["environment"] for record in found.values()) else "cpu"
    says = (
        "What the project aims at, judged by medians; `missed` says so without excuse. Targets of models so small that "
        "Python, not arithmetic, sets the pace of the floor are counted like the others."
    )
    return f"## Targets, met and missed\n\n{says}\n\n{targets(tables, device).markdown()}\n"


def _sentence(table: Record) -> str:
    """What explains the gap of a table: calls of Python and operators, over the floor's."""
    floor, *others = table["rows"]
    told = [
        f"{row['name']} {row['python_calls'] - floor['python_calls']:+,} Python calls and "
        f"{row['operators'] - floor['operators']:+,} operators"
        for row in others
    ]
    return (
        f"In a {table['what']} of {table['model']} the floor enters {floor['python_calls']:,} Python functions and "
        f"runs {floor['operators']:,} operators; beyond that: {'; '.join(told)}.\n"
    )
