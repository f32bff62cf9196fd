"""What every spec has in common: strict keys, immutable values, a compact dump that reads back exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A value of the algebra. Unknown keys are errors; instances do not change after they are made."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


@dataclass(frozen=True)
class Domain:
    """The values a search may give a numeric field: `low <= value <= high`, on a log scale if `log`.

    Written once, beside the type: `count: Annotated[int, Domain(1, 256, log=True)] = 32`.
    """

    low: float
    high: float
    log: bool = False


class BlockSpec(Spec):
    """Base of everything that is chosen by `kind`.

    A kind is one class in one file: the spec, `naive` (the equation, readable) and `build` (the torch module).
    `family` and `kind` place it in the registry; `cites` names the paper; `equation` is what `ctxpeft show` prints.
    """

    family: ClassVar[str]
    cites: ClassVar[str] = ""
    equation: ClassVar[str] = ""

    kind: str


def compact(value: Any) -> Any:
    """Plain data holding `kind`, required keys and whatever differs from its default; it reads back to an equal spec."""
    if isinstance(value, BaseModel):
        out: dict[str, Any] = {}
        for name, field in type(value).model_fields.items():
            item = getattr(value, name)
            written = compact(item)
            if name == "kind" or field.is_required() or written != compact(field.get_default(call_default_factory=True)):
                out[name] = written
        return out | {name: compact(item) for name, item in (value.model_extra or {}).items()}
    if isinstance(value, dict):
        return {k: compact(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [compact(v) for v in value]
    return value
