"""The parameters of a run, under the names that PEFT's `training_params.json` gives them, with its defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ctxpeft.errors import SpecError
from ctxpeft.spec.explain import spec_error
from ctxpeft.spec.yaml_lines import Document

FILE = "training_params.json"
WARMUP = 0.1  # of all steps


class Parameters(BaseModel):
    """What decides a run. Those of PEFT's file that only its own methods use are refused unless they say nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: str = "meta-llama/Llama-3.2-3B"
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    max_seq_length: Annotated[int, Field(ge=8)] = 768
    batch_size: Annotated[int, Field(ge=1)] = 4
    batch_size_eval: Annotated[int, Field(ge=1)] = 50
    max_steps: Annotated[int, Field(ge=1)] = 5000
    eval_steps: Annotated[int, Field(ge=1)] = 250
    compile: Literal[False] = False
    use_gc: bool = False
    seed: int = 0
    grad_norm_clip: Annotated[float, Field(ge=0)] = 1.0
    optimizer_type: Literal["AdamW"] = "AdamW"
    optimizer_kwargs: dict[str, Any] = Field(default_factory=lambda: {"lr": 1e-4, "weight_decay": 0.1})
    lr_scheduler: Literal["cosine"] | None = "cosine"
    use_amp: Literal[False] = False
    autocast_adapter_dtype: Literal[True] = True
    attn_implementation: str | None = None
    generation_kwargs: dict[str, Any] = Field(
        default_factory=lambda: {"max_length": 800, "max_new_tokens": 300}
    )
    query_template: str = "Question: {query} Think step by step.\nAnswer:"
    init_kv_cache_prefix: None = None

    @field_validator("query_template")
    @classmethod
    def _asks(cls, value: str) -> str:
        if "{query}" not in value:
            raise ValueError("query_template has no {query}")
        return value

    @field_validator("optimizer_kwargs")
    @classmethod
    def _has_a_rate(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("lr"), int | float):
            raise ValueError("optimizer_kwargs has no learning rate lr")
        return value


def load_parameters(folder: Path, changes: Mapping[str, Any]) -> Parameters:
    """The defaults, what the folder's `training_params.json` says otherwise, and `changes`.

    Raises:
        SpecError: an unknown name or a value that is not allowed.
    """
    path = folder / FILE
    given: Any = {}
    if path.is_file():
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise SpecError(f"{path} line {error.lineno}: not JSON: {error.msg.lower()}") from None
    if not isinstance(given, dict):
        raise SpecError(f'{path}: expected an object such as {{"max_steps": 5000}}')
    data = {**given, **changes}
    try:
        return Parameters.model_validate(data)
    except ValidationError as error:
        raise spec_error(error, Document(data, {}, str(path)), Parameters) from None
