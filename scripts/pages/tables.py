"""The short generated parts: legal combinations, rules, spaces, laws, protocols, the command line."""

from __future__ import annotations

import contextlib
import io
import os

from scripts.pages.markdown import code, table


def legal_combinations() -> str:
    """The table of legal combinations, a row a rule."""
    from ctxpeft.spec.legality import TABLE

    return table(["rule", "key", "what it says"], [[code(r.id), code(r.key), r.reason] for r in TABLE])


def rules() -> str:
    """The rules of the construction guide, each under its id, and what the code holds by itself."""
    from ctxpeft.spec.guide import HELD, RULES

    parts = []
    for rule in RULES:
        title = rule.statement[0].upper() + rule.statement[1:]
        parts.append(f"### {rule.id}\n\n**{title}.**\n")
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
