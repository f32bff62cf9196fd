"""`ctxpeft schema [variant|space]`."""

from __future__ import annotations

import json as json_text
from typing import Annotated, Any

import typer

from ctxpeft.cli._arguments import JsonOption
from ctxpeft.cli._output import emit
from ctxpeft.errors import SpecError, did_you_mean

WHAT = ("variant", "space")


def command(
    what: Annotated[str, typer.Argument(help="variant or space.", metavar="[variant|space]")] = "variant",
    json: JsonOption = False,
) -> None:
    """Print the JSON schema of a variant or a search space file, installed third-party blocks included."""
    if what not in WHAT:
        raise SpecError(f"schema: '{what}' has no schema{did_you_mean(what, WHAT)}")
    schema = _variant() if what == "variant" else _space()
    if json:
        emit("schema", schema)
    else:
        print(json_text.dumps(schema, indent=2, ensure_ascii=False))


def _variant() -> dict[str, Any]:
    from ctxpeft.spec.schema import variant_schema

    return variant_schema()


def _space() -> dict[str, Any]:
    from ctxpeft.search.spacefile import SpaceFile
    from ctxpeft.spec.schema import DIALECT

    return {"$schema": DIALECT, **SpaceFile.model_json_schema()}
