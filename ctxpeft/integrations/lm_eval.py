"""Saved adapters in the Language Model Evaluation Harness: the model `ctxpeft`.

    python -m ctxpeft.integrations.lm_eval run --model ctxpeft \\
        --model_args pretrained=MODEL,adapter=FOLDER --tasks arc_easy

The harness has no plug-ins: its own `lm_eval` knows the models of its own package. This module registers ours and then
is the harness's command line, every option unchanged. An adapted model object needs neither: `HFLM(pretrained=model)`.
"""

from __future__ import annotations

import os
from typing import Any

from ctxpeft.adapters.load import load
from ctxpeft.errors import CtxpeftError
from ctxpeft.extras import require

try:
    require("lm_eval", "eval", "the Language Model Evaluation Harness")
except CtxpeftError as error:
    if __name__ == "__main__":
        raise SystemExit(f"error: {error}") from None
    raise

from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM


@register_model("ctxpeft")
class AdaptedLM(HFLM):  # type: ignore[misc]
    """The harness's `hf` model with a saved adapter on it.

    adapter: a folder written by `handle.save`, a Hub id, or several joined by `+`, summed as `ctxpeft.activate` says.
    All other arguments are those of `hf`. Raises AdapterError for what is no adapter of this model.
    """

    def __init__(self, pretrained: Any, adapter: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(pretrained=pretrained, **options)
        for place, source in enumerate(os.fspath(adapter).split("+")):
            load(self.model, source, name=f"adapter-{place}")


def main() -> None:
    """The command line of the harness."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
