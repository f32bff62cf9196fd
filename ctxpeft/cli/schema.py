"""`ctxpeft schema [variant|space]`."""

from __future__ import annotations

from typing import Annotated

import typer

from ctxpeft.cli._arguments import JsonOption
from ctxpeft.cli._complete import schemas
from ctxpeft.cli._output import emit
from ctxpeft.errors import SpecError, did_you_mean


def command(
    what: Annotated[
        str, typer.Argument(help="variant or space.", metavar="WHAT", autocompletion=schemas)
    ] = "variant",
    json: JsonOption = False,
) -> None:
    """Print the JSON schema of a variant or a search space file, installed third-party blocks included.

    Editors with a YAML language server complete a file whose first line is
    `# yaml-language-server: $schema=variant.schema.json`; ctxpeft cp writes that line, and the schema beside the file.

    Examples:
      ctxpeft schema variant > variant.schema.json
      ctxpeft schema space > space.schema.json
    """
    from ctxpeft.cli._schemas import SCHEMAS, schema, schema_text

    if what not in SCHEMAS:
        raise SpecError(f"schema: '{what}' has no schema{did_you_mean(what, SCHEMAS)}")
    if json:
        emit("schema", schema(what))
    else:
        print(schema_text(what), end="")
