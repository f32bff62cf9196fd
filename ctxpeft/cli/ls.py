"""`ctxpeft ls variants|blocks|spaces|tasks [--model M]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxpeft.cli._arguments import JsonOption, model_option
from ctxpeft.cli._complete import lists
from ctxpeft.cli._output import emit
from ctxpeft.cli._tables import print_table
from ctxpeft.errors import CtxpeftError, SpecError, did_you_mean

if TYPE_CHECKING:
    from ctxpeft.spec.variant import Variant

Rows = list[dict[str, Any]]


def command(
    what: Annotated[
        str, typer.Argument(help="variants, blocks, spaces or tasks.", metavar="WHAT", autocompletion=lists)
    ] = "variants",
    model: Annotated[
        str | None,
        model_option("Count the trainable parameters of each variant on this hub id or directory."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List what ships with ctxpeft, and the blocks that installed packages add.

    A variant is exact where it is what its source describes, approximate where its file says what differs.

    Examples:
      ctxpeft ls
      ctxpeft ls variants --model ./model
      ctxpeft ls blocks --json
    """
    lists: dict[str, tuple[Callable[[], Rows], Callable[[Rows], None]]] = {
        "variants": (lambda: variant_rows(model), _print_variants),
        "blocks": (_blocks, _print_blocks),
        "spaces": (_spaces, _print_titled),
        "tasks": (_tasks, _print_tasks),
    }
    if what not in lists:
        raise SpecError(f"ls: '{what}' is not a list{did_you_mean(what, lists)}")
    if model is not None and what != "variants":
        raise SpecError(f"ls: --model counts the parameters of variants; it does not go with '{what}'")
    find, show = lists[what]
    rows = find()
    if json:
        emit("ls", {what: rows})
    else:
        show(rows)


def variant_rows(model: str | None = None) -> Rows:
    """The shipped variants. With a model each row has `trainable`, its parameters there, or `refused`, why it has none.

    Raises HostError: there is no such model.
    """
    from ctxpeft.shipped import shipped_names
    from ctxpeft.spec.equation import variant_equations
    from ctxpeft.spec.load import load_variant

    counted = None if model is None else _counter(model)
    rows = []
    for name in shipped_names("variants"):
        variant = load_variant(name)
        rows.append(
            {
                "name": name,
                "title": variant.title,
                "source": variant.source,
                "exact": not variant.differs,
                "differs": variant.differs,
                "placement": _placement([module.placement for module in variant.modules]),
                "equations": variant_equations(variant),
                "identity_at_init": None if variant.peft is not None else variant.identity_at_init(),
                **({} if counted is None else counted(variant)),
            }
        )
    return rows


def _counter(model: str) -> Callable[[Variant], dict[str, Any]]:
    """Counts on the skeleton of a model, which is loaded once."""
    from ctxpeft.cli._model import empty_model
    from ctxpeft.hosts.count import count_parameters

    skeleton = empty_model(model)

    def counted(variant: Variant) -> dict[str, Any]:
        try:
            return {"trainable": count_parameters(skeleton, variant), "refused": None}
        except CtxpeftError as error:
            return {"trainable": None, "refused": str(error)}

    return counted


def _placement(placements: list[str]) -> str:
    return " + ".join(dict.fromkeys(placements)) or "peft"


def _print_variants(rows: Rows) -> None:
    counts, reasons = parameter_cells(rows)
    headers = [
        "name",
        "title",
        "source",
        "fidelity",
        *(["trainable"] if counts else []),
        "placement",
        "equation (first clause of each module)",
        "identity at init",
    ]
    width = max(map(len, counts), default=0)
    lines = [
        [
            row["name"],
            row["title"],
            row["source"],
            "exact" if row["exact"] else "approximate",
            *([counts[index].rjust(width)] if counts else []),
            row["placement"],
            "; ".join(equation.split(", ")[0].split("   ")[0] for equation in row["equations"]),
            {True: "yes", False: "no", None: ""}[row["identity_at_init"]],
        ]
        for index, row in enumerate(rows)
    ]
    print_table(headers, lines)
    for number, reason in enumerate(reasons, 1):
        print(f"[{number}] {reason}")


def parameter_cells(rows: Rows, mark: str = "[{}]") -> tuple[list[str], list[str]]:
    """The parameters of each variant as text, a dash and the mark of a footnote where there are none; the footnotes.

    No cells at all for rows that were made without a model.
    """
    reasons = list(dict.fromkeys(row["refused"] for row in rows if row.get("refused")))
    cells = [
        f"{row['trainable']:,}"
        if row["refused"] is None
        else f"- {mark.format(reasons.index(row['refused']) + 1)}"
        for row in rows
        if "trainable" in row
    ]
    return cells, reasons


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
    from ctxpeft.data import protocol_names, task_names
    from ctxpeft.tasks import load_task

    rows = []
    for name in (*task_names(), *protocol_names()):
        spec = load_task(name)
        where = f"hub: {spec.hub.id}" if spec.hub else "ships with ctxpeft"
        rows.append({"name": name, "title": spec.title or "", "kind": spec.kind or "", "data": where})
    return rows


def _print_tasks(rows: Rows) -> None:
    columns = ["name", "title", "kind", "data"]
    print_table(columns, [[row[column] for column in columns] for row in rows])


def _print_titled(rows: Rows) -> None:
    print_table(["name", "title"], [[row["name"], row["title"]] for row in rows])
