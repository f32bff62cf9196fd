"""Pages and files that are generated from the code, so that they cannot fall behind it.

A page asks for a part with a comment of its own line, `<!-- generated: NAME -->`, and for a file of the repository,
as a block of code, with `<!-- file: PATH -->`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = re.compile(r"^<!-- (generated|file): (\S+) -->$", re.MULTILINE)
REPOSITORY = Path(__file__).parents[1]
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put every generated part and every file in its place."""
    return MARK.sub(lambda match: file(match[2]) if match[1] == "file" else PARTS[match[2]](), markdown)


def file(path: str) -> str:
    """A file of the repository, titled with its path."""
    text = (REPOSITORY / path).read_text(encoding="utf-8").strip()
    return f'```{LANGUAGES[Path(path).suffix]} title="{path}"\n{text}\n```'


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; cells are plain text."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Inline code, or nothing."""
    return f"`{text}`" if text else ""


def legal_combinations() -> str:
    """The table of legal combinations, a row a rule."""
    from ctxpeft.spec.legality import TABLE

    return table(["rule", "key", "what it says"], [[code(r.id), code(r.key), r.reason] for r in TABLE])


def blocks() -> str:
    """Every installed kind, a section a family."""
    from ctxpeft.spec.registry import families, kinds

    parts = []
    for family in families():
        parts.append(f"## {family}\n")
        for kind, cls in kinds(family).items():
            parts.append(f"### `{kind}`\n")
            parts.append(f"{code(cls.equation)}\n")
            parts.append(f"{inspect.cleandoc(cls.__doc__ or '')}\n")
            facts = [
                f"{fact}: {getattr(cls, fact)}"
                for fact in ("sign", "bounded", "learned", "random")
                if hasattr(cls, fact)
            ]
            facts += [f"source: {cls.cites}"] if cls.cites else []
            parts.append("\n".join(f"- {fact}" for fact in facts) + "\n")
            rows = [
                [code(name), typed(field), default(field)]
                for name, field in cls.model_fields.items()
                if name != "kind"
            ]
            parts.append(table(["key", "type", "default"], rows) + "\n" if rows else "")
    return "\n".join(parts)


def typed(field: Any) -> str:
    """What a field takes, as a spec file would write it."""
    from ctxpeft.search.space.types import field_type

    kind = field_type(field)
    parts = [code(str(literal)) for literal in kind.literals]
    parts += ["true or false"] if kind.boolean else []
    parts += [f"a kind of {kind.family.family}"] if kind.family else []
    parts += ["a mapping"] if kind.model else []
    parts += ["a whole number" if kind.number is int else "a number"] if kind.number else []
    parts += [code("null")] if kind.optional else []
    return " or ".join(parts)


def default(field: Any) -> str:
    """A field's default as a spec file would write it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, dict):
        return code("{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}")
    return code("null" if value is None else str(value).lower() if isinstance(value, bool) else str(value))


def rules() -> str:
    """The rules of the construction guide, each with an anchor of its own, and what the code holds by itself."""
    from ctxpeft.spec.guide import HELD, RULES

    parts = []
    for rule in RULES:
        title = rule.statement[0].upper() + rule.statement[1:]
        parts.append(f"### {title} {{ #{rule.id} }}\n")
        parts.append(f"*{rule.severity}*, at {code(rule.key)}: {rule.reason}.\n\nSource: {rule.source}.\n")
    parts.append("## Held by construction\n")
    parts += [f"- {code(name)}: {statement}; {reason}." for name, statement, reason in HELD]
    return "\n".join(parts)


def spaces() -> str:
    """The shipped spaces, with their budget, anchors and number of structures."""
    from ctxpeft.search.space.tree import size
    from ctxpeft.search.spacefile import load_space
    from ctxpeft.shipped import shipped_names

    rows = []
    for name in shipped_names("search"):
        space = load_space(name)
        wanted = space.file.budget.parameters if space.file.budget else None
        budget = getattr(wanted, "like", wanted)
        anchors = ", ".join(map(code, space.file.anchors))
        rows.append(
            [
                code(name),
                space.file.title,
                f"as {code(str(budget))}" if budget else "",
                anchors,
                f"{size(space.positions):,}",
            ]
        )
    return table(["name", "what it asks", "parameters", "anchors", "structures"], rows)


def variants() -> str:
    """The shipped variants with their equations, and their parameters on the model that ships."""
    from ctxpeft.cli._model import MINI
    from ctxpeft.cli.ls import parameter_cells, variant_rows

    found = variant_rows(MINI)
    counts, reasons = parameter_cells(found, "[^variant-{}]")
    rows = [
        [
            code(row["name"]),
            row["title"],
            "<br>".join(code(equation) for equation in row["equations"]),
            row["source"],
            "exact" if row["exact"] else f"approximate: {row['differs']}",
            count,
        ]
        for row, count in zip(found, counts, strict=True)
    ]
    headers = ["name", "method", "equation", "source", "fidelity", f"parameters on {MINI}"]
    notes = [f"[^variant-{number}]: {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n\n".join([table(headers, rows), *notes])


def laws() -> str:
    """The registry of laws, a table a ground, with where each is checked."""
    from ctxpeft.testing.laws import laws as registered

    grounds = {
        "algebra": ("The equations", "Checked by `make test` (`tests/laws/test_algebra.py`)."),
        "spec": (
            "Variants as data",
            "Checked by `make test` (`tests/laws/test_shipped.py`) and `ctxpeft check`.",
        ),
        "host": (
            "A variant on a model",
            "Checked by `ctxpeft check` and by `make test` (`tests/laws/test_shipped.py`, "
            "`tests/hosts/test_families.py`).",
        ),
    }
    parts = []
    for ground, (title, where) in grounds.items():
        rows = [
            [code(law.id), law.statement, code(law.equation), law.source]
            for law in registered(ground)  # type: ignore[arg-type]
        ]
        parts.append(
            f"## {title}\n\n{where}\n\n{table(['law', 'what it says', 'equation', 'source'], rows)}\n"
        )
    return "\n".join(parts)


def cli() -> str:
    """What `--help` prints, command by command."""
    from ctxpeft.cli import COMMANDS, run_command

    os.environ.update(NO_COLOR="1", TERM="dumb", COLUMNS="100", TERMINAL_WIDTH="100")
    parts = []
    for name in COMMANDS:
        captured = io.StringIO()
        with contextlib.redirect_stdout(captured):
            run_command(name, ["--help"])
        text = "\n".join(line.rstrip() for line in captured.getvalue().strip().splitlines())
        parts.append(f"## ctxpeft {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def protocols() -> str:
    """The shipped protocols, a row each."""
    from ctxpeft.data import protocol_names
    from ctxpeft.tasks import load_task

    rows = []
    for name in protocol_names():
        spec = load_task(name)
        metric = spec.primary or ("token loss" if spec.kind == "completion" else "accuracy")
        judged = ", ".join(spec.metrics) if spec.metrics else metric
        where = f"`{spec.hub.id}`" + (f", {spec.hub.config}" if spec.hub.config else "") if spec.hub else ""
        rows.append([code(name), spec.title or "", judged, where, spec.licence or ""])
    return table(["task", "what", "metrics, the main one first", "set on the hub", "licence"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "blocks": blocks,
    "cli": cli,
    "laws": laws,
    "legal-combinations": legal_combinations,
    "protocols": protocols,
    "rules": rules,
    "spaces": spaces,
    "variants": variants,
}
