"""`ctxpeft validate FILE...`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxpeft.cli._arguments import DataOption, JsonOption, TaskOption, is_setting, model_option
from ctxpeft.cli._output import emit, print_error, stdout
from ctxpeft.errors import CtxpeftError, SpecError

if TYPE_CHECKING:
    from ctxpeft.spec.guide import Facts


def command(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Variant, space or task files; settings of the data, such as columns.label=stars.",
            metavar="FILE... [KEY=VALUE...]",
        ),
    ],
    model: Annotated[
        str | None, model_option("A hub id, a local directory, or 'ctxpeft-mini', to be advised for.")
    ] = None,
    task: TaskOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Check files against the algebra: `ok` with the fingerprint, or a sentence on each mistake.

    Under a valid variant stands what the construction guide advises, if anything. Some of its rules ask about the model
    (--model) and the data (--task or --data): the usual length of an input, the number of examples, the query heads per
    kv head, the size of the queries. Exits 2 if any file is not valid.

    Examples:
      ctxpeft validate mine.yaml
      ctxpeft validate variants/*.yaml search/*.yaml --json
      ctxpeft validate mine.yaml --model ./model --data train.csv
    """
    settings = [argument for argument in files if is_setting(argument)]
    facts = _facts(model, task, data, settings)
    paths = [Path(argument) for argument in files if argument not in settings]
    results = [_check(path, facts) for path in paths]
    if json:
        emit("validate", {"files": results, "facts": asdict(facts) if facts else None})
    elif facts is not None:
        stdout().print(f"advised for {facts.sentence()}", markup=False, emoji=False)
    for result in results:
        for sentence in result["mistakes"]:
            print_error(sentence)
        if not (json or result["mistakes"]):
            mark = result["fingerprint"] or ""
            stdout().print(
                f"{result['file']}: ok  {result['kind']}  {mark}".rstrip(), markup=False, emoji=False
            )
            for advice in result["advice"]:
                stdout().print(f"  {advice['sentence']}", markup=False, emoji=False)
    return 2 if any(result["error"] is not None for result in results) else 0


def _facts(model: str | None, task: str | None, data: list[str] | None, overrides: list[str]) -> Facts | None:
    """What is told of model and data; of a model alone, what its configuration says.

    Raises SpecError for settings without data, and what loading raises.
    """
    if not (model or task or data):
        if overrides:
            raise SpecError(f"'{overrides[0]}' is a setting of data: give --task NAME or --data FILE with it")
        return None
    from ctxpeft.cli._session import open_bench, read_settings, task_spec

    name = model or "ctxpeft-mini"
    if not (task or data):
        from ctxpeft.cli._model import empty_model
        from ctxpeft.spec.guide import Facts
        from ctxpeft.training import gqa_of

        return Facts(gqa=gqa_of(empty_model(name).config))
    from ctxpeft.analysis.facts import facts_of

    settings = read_settings(overrides)
    return facts_of([open_bench(name, task_spec(task, data, None, settings), settings)])


def _check(path: Path, facts: Facts | None) -> dict[str, Any]:
    from ctxpeft.cli._documents import read_spec

    result: dict[str, Any] = {
        "file": str(path),
        "kind": None,
        "fingerprint": None,
        "advice": [],
        "error": None,
        "mistakes": [],
    }
    try:
        found = read_spec(path, facts)
    except CtxpeftError as error:
        return {**result, "error": str(error), "mistakes": list(error.mistakes)}
    advised = [
        {
            "rule": a.rule.id,
            "severity": a.rule.severity,
            "key": f"modules[{a.module}].{a.rule.key}",
            "sentence": a.sentence(),
            "source": a.rule.source,
        }
        for a in found.advice
    ]
    return {**result, "kind": found.kind, "fingerprint": found.fingerprint, "advice": advised}
