"""An injectable HF PEFT tuner as a variant, so that what people use today stands in every comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, model_validator

from ctxpeft.errors import did_you_mean
from ctxpeft.spec.base import Spec

USUAL_RATE = 3e-3  # LoRA's on a model of 3M parameters; lower on large ones
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
_CODE = "it names code to import, and a spec never does"
_FILES = "it reads data or files that a spec does not carry"
_BASE = "it changes the base, which stays as it is"
REFUSED = {
    "megatron_config": _CODE,
    "megatron_core": _CODE,
    "auto_mapping": _CODE,
    "arrow_config": _FILES,
    "corda_config": _FILES,
    "eva_config": _FILES,
    "lora_ga_config": _FILES,
    "loftq_config": _BASE,
    "layer_replication": _BASE,
    "modules_to_save": _BASE,
}
INITS = ("gaussian", "orthogonal")  # the others of PEFT change the weights of the base or need data
PATTERNS = ("target_modules", "exclude_modules", "feedforward_modules", "layers_pattern", "target_parameters")
KEYED_BY_PATTERNS = ("rank_pattern", "alpha_pattern", "n_frequency_pattern")
_REPEATED = re.compile(r"[*+{]")
_GROUP_REPEATED = re.compile(r"[)}][*+{]")
MOST_REPEATS, LONGEST_PATTERN = 3, 500


class PeftSpec(Spec):
    """`peft_type` and the arguments of PEFT's own configuration class, which checks them at attach.

    Arguments that name code, read files or change the base are refused here, whatever PEFT does with them.
    """

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
            if name in REFUSED and value is not None:
                raise ValueError(f"'{name}' cannot stand in a spec: {REFUSED[name]}")
            if name.startswith("init_") and isinstance(value, str) and value not in INITS:
                raise ValueError(
                    f"'{name}: {value}' cannot stand in a spec: {_BASE}; expected true, false, gaussian or orthogonal"
                )
            for pattern in _patterns(name, value):
                if _may_be_slow(pattern):
                    raise ValueError(
                        f"'{name}' has a pattern that may take for ever to match: list the modules by name, or repeat "
                        f"nothing but single characters and at most {MOST_REPEATS} times"
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


def _patterns(name: str, value: Any) -> Iterator[str]:
    """The regular expressions among an argument's texts, as PEFT reads them."""
    if name in KEYED_BY_PATTERNS and isinstance(value, Mapping):
        yield from value
    if name in PATTERNS:
        yield from (
            [value] if isinstance(value, str) else filter(_is_text, value) if isinstance(value, list) else ()
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _may_be_slow(pattern: str) -> bool:
    """Whether a regular expression repeats a group or a repetition, or repeats more often than a name needs."""
    return (
        len(pattern) > LONGEST_PATTERN
        or len(_REPEATED.findall(pattern)) > MOST_REPEATS
        or _GROUP_REPEATED.search(pattern) is not None
    )
