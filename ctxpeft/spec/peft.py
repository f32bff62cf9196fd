"""An injectable HF PEFT tuner as a variant, so that what people use today stands in every comparison."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, model_validator

from ctxpeft.errors import did_you_mean
from ctxpeft.spec.base import Spec

PROMPT_METHODS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "ADAPTION_PROMPT", "MULTITASK_PROMPT_TUNING", "CPT")
INJECTABLE = ("LORA", "IA3", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "VERA", "LN_TUNING", "HRA", "FOURIERFT")


class PeftSpec(Spec):
    """`peft_type` and the keyword arguments of PEFT's own configuration class, which checks them at attach."""

    model_config = ConfigDict(extra="allow", frozen=True)

    peft_type: str

    @model_validator(mode="after")
    def _injectable(self) -> PeftSpec:
        if self.peft_type in PROMPT_METHODS:
            raise ValueError(
                f"'{self.peft_type}' cannot be injected in place by PEFT; write it in the algebra instead "
                "(variants prefix-tuning, llama-adapter, ... ship with ctxpeft)"
            )
        if self.peft_type not in INJECTABLE:
            raise ValueError(f"unknown peft_type '{self.peft_type}'{did_you_mean(self.peft_type, INJECTABLE)}")
        return self

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments besides `peft_type`."""
        return dict(self.model_extra or {})
