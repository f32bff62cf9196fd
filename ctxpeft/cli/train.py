"""`ctxpeft train`: one variant, one task, one folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxpeft.cli import _output
from ctxpeft.cli._arguments import (
    OUTPUT,
    DataOption,
    DryRunOption,
    FreshOption,
    JsonOption,
    ModelOption,
    OverridesArgument,
    TaskOption,
    TestOption,
    VariantOption,
)
from ctxpeft.errors import SpecError

if TYPE_CHECKING:
    from ctxpeft.analysis.cost import Cost
    from ctxpeft.training import Bench, Method, RunResult, TrainingConfig


def command(
    variant: VariantOption,
    overrides: OverridesArgument = None,
    model: ModelOption = "ctxpeft-mini",
    task: TaskOption = None,
    data: DataOption = None,
    test: TestOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The run's folder.", metavar="DIR", rich_help_panel=OUTPUT),
    ] = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    fresh: FreshOption = False,
) -> int:
    """Train one variant on one task; the same command continues an interrupted run.

    Settings are those of training (steps, learning_rate, batch_size, seed, patience, ...), of the task
    (template, limit, per_class, max_length, columns.label, ...), dtype, device, and variant.<path>.

    Examples:
      ctxpeft train --variant prefix-tuning-plus --task docstring-area --out runs/first steps=100
      ctxpeft train --model ./model --variant mine.yaml --data train.csv --test test.csv --out runs/mine
      ctxpeft train --variant prefix-tuning --data reviews.csv columns.text=review columns.label=stars --dry-run
      ctxpeft train --variant prefix-tuning --task docstring-area --out runs/8 variant.modules.0.memory.count=8
    """
    from ctxpeft.cli._session import (
        changed_variant,
        check_variant_name,
        open_bench,
        read_settings,
        task_spec,
        training_config,
    )

    if out is None and not dry_run:
        raise SpecError("--out DIR is needed: the folder the run writes into")
    settings = read_settings(overrides)
    check_variant_name(variant)
    config, asked = training_config(settings), task_spec(task, data, test, settings)
    method = changed_variant(variant, settings)  # from here on torch is imported
    bench = open_bench(model, asked, settings)
    if dry_run:
        return _plan(bench, method, config, json)

    from ctxpeft.training import ConsoleReporter, count_parameters, run

    count_parameters(
        bench.base.model, method
    )  # a variant that does not fit is refused before anything is written

    reporter = ConsoleReporter()
    for note in bench.notes:
        reporter.note(note)
    result = run(bench, method, config, out=out, reporter=reporter, fresh=fresh)
    if json:
        _output.emit("train", {**result.summary(), "out": str(out)})
    else:
        _print(result, out)
    if result.stopped == "diverged":
        _output.print_error("the loss is no longer a number: lower the learning rate")
        return 1
    return 0


def _plan(bench: Bench, method: Method, config: TrainingConfig, json: bool) -> int:
    from ctxpeft.analysis.facts import facts_of
    from ctxpeft.cli._session import task_facts
    from ctxpeft.spec.guide import advice
    from ctxpeft.training import count_parameters, resolve

    resolved = resolve(bench, method, config)
    trainable, deployed = count_parameters(bench.base.model, method)
    cost = _cost(bench, method)
    plan: dict[str, Any] = {
        "variant": method.name,
        "model": bench.base.name,
        "trainable": trainable,
        "deployed": deployed,
        "training": resolved["training"],
        **task_facts(bench),
    }
    advised = [a.sentence() for a in advice(method.variant, facts_of([bench]))] if method.variant else []
    if json:
        plan["cost"] = cost if isinstance(cost, str) else cost and cost.plain()
        plan["advice"] = advised
    _output.emit_plan("train", plan, json)
    if json:
        return 0
    console = _output.stdout()
    for line in [f"cost: {cost}"] if isinstance(cost, str) else cost.lines() if cost else ():
        console.print(f"  {line}", markup=False)
    for sentence in advised:
        console.print(f"  {sentence}", markup=False)
    return 0


def _cost(bench: Bench, method: Method) -> Cost | str | None:
    """What the variant costs on this model, or why that cannot be said; nothing for a baseline."""
    from ctxpeft.analysis.cost import measure
    from ctxpeft.errors import HostError

    try:
        return measure(bench.base.model, method.variant) if method.variant else None
    except HostError as error:
        return str(error)


def _print(result: RunResult, out: Path | None) -> None:
    console = _output.stdout()
    for name, evaluation in result.evaluations.items():
        count = len(evaluation.records)
        metrics = _output.metrics_text(evaluation.metrics, evaluation.generated, count)
        console.print(f"{name} ({count}): {metrics}", markup=False)
    ended = f", stopped: {result.stopped}" if result.stopped else ""
    console.print(
        f"{result.method}: {result.trainable:,} trainable parameters, learning rate {result.learning_rate:g}, "
        f"{result.steps} steps, {result.seconds:.1f} s{ended}; written to {out}",
        markup=False,
    )
