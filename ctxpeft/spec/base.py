"""What every spec has in common: strict keys, immutable values, a compact dump that reads back exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

NAME = r"^[a-z0-9][a-z0-9._-]*$"
NAME_RULE = "lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit"


class Spec(BaseModel):
    """A value of the algebra. Unknown keys are errors; instances do not change after they are made.

    Types are meant: `true`, `"3"` and infinity are no numbers; 16 and 16.0 are the same number.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, strict=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        return (
            {key: _plain_value(value) for key, value in data.items()} if isinstance(data, Mapping) else data
        )


def _plain_value(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Domain:
    """The values a search may give a numeric field: `low <= value <= high`, on a log scale if `log`.

    Written once, beside the type: `count: Annotated[int, Domain(1, 256, log=True)] = 32`.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Later:
    """Marks a field that came after its class: at its default it stays out of the fingerprint.

    So a variant keeps the fingerprint it had before the field existed, and what was saved under it still loads.
    """


class BlockSpec(Spec):
    """Base of everything that is chosen by `kind`.

    A kind is one class in one file: the spec, `naive` (the equation, readable) and `build` (the torch
    module). `family` and `kind` place it in the registry; `cites` names the paper; `equation` is printed.
    """

    family: ClassVar[str]
    cites: ClassVar[str] = ""
    equation: ClassVar[str] = ""

    kind: str

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A file must say the kind, although a constructor in Python need not."""
        found = handler.resolve_ref_schema(handler(schema))
        found["properties"]["kind"].pop("default", None)
        found["required"] = sorted({*found.get("required", ()), "kind"})
        return found


def canonical(value: Any) -> Any:
    """Plain data with every default filled in, save those of fields that came `Later`."""
    if isinstance(value, BaseModel):
        out = {
            name: canonical(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if not (any(isinstance(m, Later) for m in field.metadata) and _at_default(value, name))
        }
        return out | {name: canonical(item) for name, item in (value.model_extra or {}).items()}
    if isinstance(value, dict):
        return {k: canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    return value


def _at_default(value: BaseModel, name: str) -> bool:
    default = type(value).model_fields[name].get_default(call_default_factory=True)
    return bool(compact(getattr(value, name)) == compact(default))


def compact(value: Any, defaults: bool = False) -> Any:
    """Plain data: `kind`, required keys and whatever differs from its default; it reads back to an equal spec.

    With `defaults` every value is there but a null that is the default.
    """
    if isinstance(value, BaseModel):
        out: dict[str, Any] = {}
        for name, field in type(value).model_fields.items():
            written = compact(getattr(value, name), defaults)
            if name == "kind" or field.is_required():
                out[name] = written
                continue
            usual = compact(field.get_default(call_default_factory=True), defaults)
            if written != usual or (defaults and written is not None):
                out[name] = written
        return out | {name: compact(item, defaults) for name, item in (value.model_extra or {}).items()}
    if isinstance(value, dict):
        return {k: compact(v, defaults) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [compact(v, defaults) for v in value]
    return value
