"""`ctxpeft check VARIANT --model M`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxpeft.cli import _output
from ctxpeft.cli._arguments import RUN, DryRunOption, JsonOption, ModelOption
from ctxpeft.cli._complete import laws, variants
from ctxpeft.cli._tables import print_table
from ctxpeft.errors import LawError, SpecError

if TYPE_CHECKING:
    from ctxpeft.testing.laws.ground import Host
    from ctxpeft.testing.laws.law import Law
    from ctxpeft.testing.laws.run import Outcome

MOVED = 0.05


def command(
    variant: Annotated[
        str,
        typer.Argument(help="A shipped variant or a YAML file.", metavar="VARIANT", autocompletion=variants),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings: dtype=bfloat16 device=cuda variant.<key>=...", metavar="KEY=VALUE"),
    ] = None,
    model: ModelOption = "ctxpeft-mini",
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--law",
            help="Only this law; may be given again.",
            metavar="ID",
            rich_help_panel=RUN,
            autocompletion=laws,
        ),
    ] = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Check on a model that a variant obeys the laws: small batches in ascending size, the model left as it was.

    Exits 1 on a violated law and names the smallest batch that breaks it.

    Examples:
      ctxpeft check prefix-tuning
      ctxpeft check mine.yaml --model ./model dtype=bfloat16
      ctxpeft check prefix-tuning-plus --law disabled-is-the-base --json
    """
    from ctxpeft.cli._session import changed_variant, check_variant_name, open_base, read_settings

    settings = read_settings(overrides)
    for section, keys in (("training", settings.training), ("task", settings.task)):
        if keys:
            raise SpecError(f"check trains nothing: '{next(iter(keys))}' is a {section} setting")
    check_variant_name(variant)
    chosen = _chosen(only)
    method = changed_variant(variant, settings)
    if method.variant is None:
        raise SpecError(f"the baseline '{variant}' is no variant, so no law is stated for it")
    base = open_base(model, settings)
    from ctxpeft.hosts.count import count_parameters
    from ctxpeft.testing.laws.ground import Host

    count_parameters(base.model, method.variant)
    host = Host(base.model, method.variant, MOVED, base.tokenizer, scaled=True)
    if dry_run:
        plan = {"variant": host.variant.name, "model": model, "dtype": str(host.dtype).removeprefix("torch.")}
        statements = {law.id: law.statement for law in chosen}
        _output.emit_plan("check", {**plan, "laws": statements if json else len(statements)}, json)
        if not json:
            _output.print_facts(statements)
        return
    outcomes = _run(chosen, host)
    if json:
        _output.emit("check", _result(outcomes, host, model))
    else:
        _print(outcomes, host, model)
    violated = [o for o in outcomes if o.result == "violated"]
    if violated:
        others = f" ({len(violated) - 1} more)" if len(violated) > 1 else ""
        first = violated[0]
        raise LawError(f"{method.variant.name} violates '{first.law.id}' on {model}: {first.reason}{others}")


def _chosen(only: Sequence[str] | None) -> list[Law]:
    from ctxpeft.testing.laws import law, laws

    every: list[Law] = [*laws("spec"), *laws("host")]
    if not only:
        return every
    found = [law(name) for name in only]
    for one in found:
        if one not in every:
            raise SpecError(f"the law '{one.id}' is about the equations, not about a model; the tests run it")
    return found


def _run(chosen: list[Law], host: Host) -> list[Outcome]:
    from ctxpeft.testing.laws.run import run_laws

    outcomes: list[Outcome] = []
    console = _output.stderr()
    quiet = not sys.stderr.isatty()
    with console.status("") as status:
        if quiet:
            status.stop()
        for law in chosen:
            status.update(f"{len(outcomes) + 1} of {len(chosen)}: {law.id}")
            outcomes += run_laws([law], host)
    return outcomes


def _result(outcomes: list[Outcome], host: Host, model: str) -> dict[str, Any]:
    return {
        "variant": host.variant.name,
        "fingerprint": host.variant.fingerprint(),
        "model": model,
        "dtype": str(host.dtype).removeprefix("torch."),
        "tolerances": _tolerances(host),
        "violated": [o.law.id for o in outcomes if o.result == "violated"],
        "laws": [
            {
                "id": o.law.id,
                "statement": o.law.statement,
                "equation": o.law.equation,
                "source": o.law.source,
                "result": o.result,
                "reason": o.reason,
                "error": o.error,
                "tolerance": o.allowed,
                "seconds": round(o.seconds, 3),
            }
            for o in outcomes
        ],
    }


def _tolerances(host: Host) -> dict[str, float]:
    """What two results may differ by, over the largest logit (at least 1)."""
    bounds = {"same kernel": host.same_kernel, "other kernel": host.other_kernel}
    return {name: bound.absolute + bound.relative for name, bound in bounds.items()}


def _print(outcomes: list[Outcome], host: Host, model: str) -> None:
    same, other = _tolerances(host).values()
    dtype = str(host.dtype).removeprefix("torch.")
    print_table(
        ["law", "result", "|Δ|", "allowed", "seconds", "what it says"],
        [
            [
                o.law.id,
                f"{o.result}: {o.reason}" if o.reason else o.result,
                "" if o.error is None else f"{o.error:.1e}",
                "" if o.allowed is None else f"{o.allowed:.1e}" if o.allowed else "0",
                f"{o.seconds:.2f}",
                o.law.statement,
            ]
            for o in outcomes
        ],
        title=f"{host.variant.name} on {model} ({dtype})",
    )
    held = sum(o.result == "holds" for o in outcomes)
    apart = sum(o.result == "does not apply" for o in outcomes)
    print(
        f"{held} laws hold, {len(outcomes) - held - apart} are violated, {apart} do not apply. Tolerances of {dtype}, "
        f"times the largest logit: {same:.2g} where the kernel is the same, {other:.2g} where it is another, else 0."
    )
