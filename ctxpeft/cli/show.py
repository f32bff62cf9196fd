"""`ctxpeft show NAME [--model M]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxpeft.cli._arguments import JsonOption, model_option
from ctxpeft.cli._complete import variants
from ctxpeft.cli._output import emit
from ctxpeft.cli._tables import aligned
from ctxpeft.errors import one_line

if TYPE_CHECKING:
    from ctxpeft.spec.variant import Variant


def command(
    name: Annotated[
        str,
        typer.Argument(help="A shipped variant or a YAML file.", metavar="NAME", autocompletion=variants),
    ],
    model: Annotated[str | None, model_option("Count its cost on this hub id or directory.")] = None,
    json: JsonOption = False,
) -> None:
    """Show a variant: its equation, what it is for, what it costs on a model, and its YAML.

    Examples:
      ctxpeft show prefix-tuning-plus
      ctxpeft show mine.yaml --model ./model --json
    """
    from ctxpeft.spec.load import load_variant

    variant = load_variant(name)
    result = _described(variant)
    rows: list[tuple[str, str]] = []
    if model is not None:
        result["model"], rows = _counted(variant, model)
    if json:
        emit("show", result)
    else:
        _print(result, variant, rows)


def _described(variant: Variant) -> dict[str, Any]:
    from ctxpeft.spec.equation import variant_equations

    return {
        "name": variant.name,
        "title": variant.title,
        "source": variant.source,
        "regime": variant.regime,
        "differs": variant.differs,
        "equations": variant_equations(variant),
        "identity_at_init": None if variant.peft is not None else variant.identity_at_init(),
        "learning_rate": variant.usual_rate(),
        "fingerprint": variant.fingerprint(),
        "blocks": _blocks(variant),
        "variant": variant.to_dict(),
    }


def _blocks(variant: Variant) -> list[dict[str, str]]:
    """Every block of the variant once, with its equation and its paper."""
    from ctxpeft.spec.used import blocks_of

    return [
        {"block": f"{block.family}.{block.kind}", "equation": block.equation, "cites": block.cites}
        for block in blocks_of(variant)
    ]


def _counted(variant: Variant, model: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """For `--json`, and as rows of text."""
    from ctxpeft.analysis.cost import measure
    from ctxpeft.cli._model import empty_model
    from ctxpeft.errors import HostError
    from ctxpeft.hosts.count import count_parameters

    skeleton = empty_model(model)
    base = sum(p.numel() for p in skeleton.parameters())
    trainable = count_parameters(skeleton, variant, "trainable")
    deployed = count_parameters(skeleton, variant, "deployed")
    counted = {
        "name": model,
        "parameters": base,
        "trainable": trainable,
        "deployed": deployed,
        "share": trainable / base,
    }
    rows = [
        (f"on {model}", f"{base:,} parameters"),
        ("trainable", f"{trainable:,} ({trainable / base:.2%})"),
        ("deployed", f"{deployed:,}"),
    ]
    try:
        cost = measure(skeleton, variant)
    except HostError as error:  # the parameters are known all the same
        return {**counted, "cost": None, "uncounted": str(error)}, [*rows, ("cost", str(error))]
    return {**counted, "cost": cost.plain()}, [*rows, *cost.rows()]


def _print(result: dict[str, Any], variant: Variant, rows: list[tuple[str, str]]) -> None:
    print(one_line(f"{result['name']}: {result['title']}" if result["title"] else result["name"]))
    print()
    for equation in result["equations"]:
        print(f"    {equation}")
    print()
    facts = [
        ("source", result["source"]),
        ("for", result["regime"]),
        ("differs", result["differs"]),
        ("identity at init", _answer(result["identity_at_init"])),
        ("learning rate", _rate(variant)),
        ("fingerprint", result["fingerprint"]),
    ]
    for line in aligned([(key, one_line(text)) for key, text in [*facts, *rows] if text]):
        print(line)
    if result["blocks"]:
        print()
        for line in aligned([(b["block"], b["equation"], b["cites"]) for b in result["blocks"]]):
            print(line)
    print()
    print(variant.to_yaml(), end="")


def _rate(variant: Variant) -> str:
    """The rate to tune from, and what trains at a multiple of it."""
    apart = [
        f"modules[{index}] at {module.learning_rate_ratio:g} times it"
        for index, module in enumerate(variant.modules)
        if module.learning_rate_ratio != 1
    ]
    return ", ".join([f"{variant.usual_rate():.3g} to tune from", *apart])


def _answer(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"
