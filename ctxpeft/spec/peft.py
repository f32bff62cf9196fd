"""An injectable HF PEFT tuner as a variant, so that what people use today stands in every comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, model_validator

from ctxpeft.errors import did_you_mean
from ctxpeft.spec.base import Spec

PROMPT_METHODS = (
    "PREFIX_TUNING",
    "PROMPT_TUNING",
    "P_TUNING",
    "ADAPTION_PROMPT",
    "MULTITASK_PROMPT_TUNING",
    "CPT",
)
INJECTABLE = (
    "LORA",
    "IA3",
    "ADALORA",
    "LOHA",
    "LOKR",
    "OFT",
    "BOFT",
    "VERA",
    "LN_TUNING",
    "HRA",
    "FOURIERFT",
)


class PeftSpec(Spec):
    """`peft_type` and the arguments of PEFT's own configuration class, which checks them at attach."""

    model_config = ConfigDict(extra="allow")

    peft_type: str

    @model_validator(mode="after")
    def _injectable(self) -> PeftSpec:
        if self.peft_type in PROMPT_METHODS:
            raise ValueError(
                f"'{self.peft_type}' cannot be injected in place by PEFT; write it in the algebra instead "
                "(variants prefix-tuning, llama-adapter, ... ship with ctxpeft)"
            )
        if self.peft_type not in INJECTABLE:
            raise ValueError(
                f"unknown peft_type '{self.peft_type}'{did_you_mean(self.peft_type.upper(), INJECTABLE)}"
            )
        for name, value in self.arguments().items():
            if not _is_plain(value):
                raise ValueError(
                    f"'{name}' must be plain data: text, finite numbers, true, false, lists and mappings"
                )
        return self

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments besides `peft_type`."""
        return dict(self.model_extra or {})


def _is_plain(value: Any) -> bool:
    """Whether a value can stand in a file and come back the same."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)
