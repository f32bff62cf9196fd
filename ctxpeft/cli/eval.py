"""`ctxpeft eval`: a model on a task, with or without an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxpeft.cli import _output
from ctxpeft.cli._arguments import (
    DATA,
    WHAT,
    DryRunOption,
    JsonOption,
    ModelOption,
    TaskOption,
    data_option,
    settings_argument,
)
from ctxpeft.cli._complete import splits
from ctxpeft.errors import AdapterError, CtxpeftError, DataError, SpecError, did_you_mean

if TYPE_CHECKING:
    from ctxpeft.training import Base

SPLITS = ("train", "validation", "test", "ood")

OURS, HEAD = "adapter.safetensors", "head.safetensors"


def _another_base(adapter: Path, base: Base) -> str | None:
    """What a run says it trained the adapter on, where that is not this model in the same type of numbers."""
    from ctxpeft.spec.yaml_lines import read_yaml
    from ctxpeft.training._folder import RESOLVED

    written = adapter.parent / RESOLVED
    try:
        run = read_yaml(written).data if adapter.name == "adapter" and written.is_file() else {}
        trained, name = run["model"], str(run["about"]["model"])
    except (CtxpeftError, KeyError, TypeError):
        return None
    same_type = trained.get("dtype") == base.dtype
    return name if same_type and trained.get("digest") != base.digest() else None


def command(
    overrides: Annotated[list[str] | None, settings_argument("test_limit=500 columns.label=stars")] = None,
    model: ModelOption = "ctxpeft-mini",
    adapter: Annotated[
        Path | None,
        typer.Option(
            "--adapter",
            "-a",
            help="A folder ctxpeft train or save wrote.",
            metavar="DIR",
            rich_help_panel=WHAT,
        ),
    ] = None,
    task: TaskOption = None,
    data: Annotated[list[str] | None, data_option("Files to evaluate on")] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="validation, test, ood or train; 'test' takes ood too.",
            metavar="NAME",
            rich_help_panel=DATA,
            autocompletion=splits,
        ),
    ] = "test",
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> int:
    """Evaluate on a task's test data, or on files; an adapter brings its prompt and labels along.

    Examples:
      ctxpeft eval --task docstring-area
      ctxpeft eval --adapter runs/first --task docstring-area --dry-run
      ctxpeft eval --model ./model --adapter runs/mine --data test.csv --json
    """
    import ctxpeft
    from ctxpeft.cli._session import evaluation_spec, open_base, read_settings
    from ctxpeft.tasks import build_task

    settings = read_settings(overrides)
    if settings.training:
        raise SpecError(f"eval trains nothing: '{next(iter(settings.training))}' is a training setting")
    if adapter is not None and not adapter.exists():
        raise AdapterError(f"{adapter} does not exist: expected a folder with adapter.safetensors")
    if adapter is not None and any((adapter / "adapter" / name).is_file() for name in (OURS, HEAD)):
        adapter = adapter / "adapter"
    found = build_task(evaluation_spec(task, data, adapter, settings))
    names = [split] if split != "test" else ["test", "ood"]
    if names[0] not in SPLITS:
        raise DataError(f"unknown split '{split}'{did_you_mean(split, SPLITS)}")
    from ctxpeft.tasks import evaluate  # from here on torch is imported
    from ctxpeft.training import encoder_for, load_head

    base = open_base(model, settings, found)
    if adapter is not None and (not load_head(base.model, adapter) or (adapter / OURS).is_file()):
        other = _another_base(adapter, base)  # before there is an adapter among the parameters
        ctxpeft.load(base.model, adapter)
        if other is not None:
            _output.note(
                f"the adapter was trained on another model ({other}): its shapes fit, its numbers need not"
            )
    encoder = encoder_for(base, found)
    results: dict[str, Any] = {}
    wanted = [name for name in names if name == names[0] or found.split(name)]
    if dry_run:
        facts = {
            "model": model,
            "adapter": adapter and str(adapter),
            "task": found.spec.name,
            "kind": found.kind,
        }
        sizes = {name: len(found.split(name)) for name in wanted}
        plan = {**facts, "labels": list(found.labels), "examples": sizes, "notes": list(found.notes)}
        _output.emit_plan("eval", plan, json)
        return 0
    for name in wanted:
        results[name] = evaluate(base.model, encoder, found.split(name)).summary()
    if json:
        payload = {"model": model, "adapter": adapter, "task": found.spec.name, "evaluations": results}
        _output.emit("eval", {**payload, "notes": list(found.notes)})
        return 0
    for note in found.notes:
        _output.note(note)
    console = _output.stdout()
    for name, result in results.items():
        metrics = _output.metrics_text(result["metrics"], result["generated"], result["count"])
        console.print(f"{name} ({result['count']}): {metrics}", markup=False)
        for label, counts in result["per_class"].items():
            shown = "  ".join(f"{key} {value}" for key, value in counts.items())
            console.print(f"  {label}: {shown}", markup=False)
    return 0
