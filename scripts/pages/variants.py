"""The shipped variants: a table to find one, and a gallery."""

from __future__ import annotations

from typing import Any

from ctxpeft.spec.used import blocks_of
from scripts.pages.markdown import code, maths, table
from scripts.pages.usage import evidence, shipped


def variants() -> str:
    """The shipped variants with their parameters on the model that ships."""
    from ctxpeft.cli.ls import parameter_cells, variant_rows
    from ctxpeft.training import MINI

    found = variant_rows(MINI)
    counts, reasons = parameter_cells(found, "[^variant-{}]")
    rows = [
        [
            f"[{code(row['name'])}](#{row['name']})",
            row["title"],
            row["placement"],
            "exact" if row["exact"] else "approximate",
            count,
        ]
        for row, count in zip(found, counts, strict=True)
    ]
    headers = ["name", "method", "placement", "fidelity", f"parameters on {MINI}"]
    notes = [f"[^variant-{number}]: {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n\n".join([table(headers, rows), *notes])


def gallery() -> str:
    """A section a variant: equation, source, what it is for, size, blocks, evidence, file."""
    from ctxpeft.cli.ls import variant_rows
    from ctxpeft.training import MINI

    return "\n".join(_section(row, MINI) for row in variant_rows(MINI))


def _section(row: dict[str, Any], model: str) -> str:
    variant = shipped()[row["name"]]
    lines = [f"### {row['name']}\n", f"**{row['title']}**\n"]
    lines += [f"{maths(equation)}\n" for equation in row["equations"]]
    facts = [("source", row["source"]), ("for", variant.regime), ("differs", row["differs"])]
    trained = f"{row['trainable']:,} trained on {model}" if row["trainable"] is not None else row["refused"]
    facts.append(("parameters", trained))
    if row["identity_at_init"] is not None:
        facts.append(("begins as the base", "yes" if row["identity_at_init"] else "no"))
    rate = variant.training.learning_rate if variant.training else None
    facts.append(("learning rate", f"{rate:g}, a hint measured for it" if rate else ""))
    used = sorted((block.family, block.kind) for block in blocks_of(variant))
    links = [f"[{code(f'{f}.{k}')}](blocks.md#{anchor(f, k)})" for f, k in used]
    facts.append(("blocks", ", ".join(links)))
    where = [f"[{title}](../{place})" for title, place in evidence().get(row["name"], [])]
    facts.append(("measured", ", ".join(where) or "not on a page of this site yet"))
    facts.append(("file", f"`variants/{row['name']}.yaml`; `ctxpeft show {row['name']}`"))
    lines += [f"- *{key}*: {text}" for key, text in facts if text]
    return "\n".join(lines) + "\n"


def anchor(family: str, kind: str) -> str:
    """The anchor of a block in the reference."""
    return f"{family}-{kind}"
