"""`ctxpeft ls variants|blocks|spaces|tasks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ctxpeft.cli._arguments import JsonOption
from ctxpeft.cli._output import emit
from ctxpeft.cli._tables import print_table
from ctxpeft.errors import SpecError, did_you_mean

Rows = list[dict[str, Any]]


def command(
    what: Annotated[
        str, typer.Argument(help="variants, blocks, spaces or tasks.", metavar="WHAT")
    ] = "variants",
    json: JsonOption = False,
) -> None:
    """List what ships with ctxpeft, and the blocks that installed packages add."""
    lists: dict[str, tuple[Callable[[], Rows], Callable[[Rows], None]]] = {
        "variants": (_variants, _print_variants),
        "blocks": (_blocks, _print_blocks),
        "spaces": (_spaces, _print_titled),
        "tasks": (_tasks, _print_titled),
    }
    if what not in lists:
        raise SpecError(f"ls: '{what}' is not a list{did_you_mean(what, lists)}")
    find, show = lists[what]
    rows = find()
    if json:
        emit("ls", {what: rows})
    else:
        show(rows)


def _variants() -> Rows:
    from ctxpeft.shipped import shipped_names
    from ctxpeft.spec.equation import variant_equations
    from ctxpeft.spec.load import load_variant

    rows = []
    for name in shipped_names("variants"):
        variant = load_variant(name)
        rows.append(
            {
                "name": name,
                "title": variant.title,
                "source": variant.source,
                "placement": _placement([module.placement for module in variant.modules]),
                "equations": variant_equations(variant),
                "identity_at_init": None if variant.peft is not None else variant.identity_at_init(),
            }
        )
    return rows


def _placement(placements: list[str]) -> str:
    return " + ".join(dict.fromkeys(placements)) or "peft"


def _print_variants(rows: Rows) -> None:
    headers = [
        "name",
        "title",
        "source",
        "placement",
        "equation (first clause of each module)",
        "identity at init",
    ]
    lines = [
        [
            row["name"],
            row["title"],
            row["source"],
            row["placement"],
            "; ".join(equation.split(", ")[0].split("   ")[0] for equation in row["equations"]),
            {True: "yes", False: "no", None: ""}[row["identity_at_init"]],
        ]
        for row in rows
    ]
    print_table(headers, lines)


def _blocks() -> Rows:
    from ctxpeft.spec.registry import families, kinds

    return [
        {
            "family": family,
            "kind": kind,
            "equation": block.equation,
            "sign": getattr(block, "sign", None),
            "learned": getattr(block, "learned", None),
            "cites": block.cites,
            "module": block.__module__,
        }
        for family in families()
        for kind, block in kinds(family).items()
    ]


def _print_blocks(rows: Rows) -> None:
    for index, family in enumerate(dict.fromkeys(row["family"] for row in rows)):
        mine = [row for row in rows if row["family"] == family]
        signed = any(row["sign"] for row in mine)
        headers = ["kind", "equation", *(["sign", "learned"] if signed else []), "cites"]
        lines = []
        for row in mine:
            sign = [row["sign"] or "", "yes" if row["learned"] else "no"] if signed else []
            lines.append([row["kind"], row["equation"], *sign, row["cites"]])
        if index:
            print()
        print_table(headers, lines, title=family)


def _spaces() -> Rows:
    from ctxpeft.shipped import shipped_file, shipped_names
    from ctxpeft.spec.yaml_lines import read_yaml

    rows = []
    for name in shipped_names("search"):
        path = shipped_file("search", name)
        data = read_yaml(path).data if path else None
        rows.append({"name": name, "title": str(data.get("title", "")) if isinstance(data, dict) else ""})
    return rows


def _tasks() -> Rows:
    from ctxpeft.data import task_names
    from ctxpeft.tasks import load_task

    return [{"name": name, "title": load_task(name).title or ""} for name in task_names()]


def _print_titled(rows: Rows) -> None:
    print_table(["name", "title"], [[row["name"], row["title"]] for row in rows])
