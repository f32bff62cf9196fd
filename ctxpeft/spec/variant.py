"""A variant: a method, as a list of modules (or a wrapped HF PEFT tuner), and where it comes from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from ctxpeft.errors import one_line
from ctxpeft.spec.base import NAME, Domain, Spec, canonical, compact
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.peft import USUAL_RATE, PeftSpec
from ctxpeft.spec.yaml_lines import dump_yaml

DESCRIPTIVE = ("name", "title", "source", "regime", "differs", "training")


class TrainingHints(Spec):
    """Values measured to work for the variant; `train` and `compare` start from them."""

    learning_rate: Annotated[float, Field(gt=0), Domain(1e-4, 1e-1, log=True)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None


class Variant(Spec):
    """A context-based PEFT method in the algebra, or an injectable HF PEFT tuner to compare it with.

    name: how it is called; title, source (paper), regime (what it is for), differs (where the file departs from
    the published method): for people. Modules act in list order; see `ctxpeft.spec.module`.
    """

    name: Annotated[str, Field(pattern=NAME, max_length=80)]
    title: str = ""
    source: str = ""
    regime: str = ""
    differs: str = ""
    modules: list[ModuleSpec] = Field(default_factory=list)
    peft: PeftSpec | None = None
    training: TrainingHints = TrainingHints()

    @model_validator(mode="after")
    def _one_body(self) -> Variant:
        if bool(self.modules) == (self.peft is not None):
            found = "found both" if self.modules else "found neither"
            raise ValueError(f"expected either a non-empty list 'modules' or a mapping 'peft', {found}")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Variant:
        """Read a variant file. Raises SpecError with file, line and key on anything that is not one."""
        from ctxpeft.spec.load import variant_from_file

        return variant_from_file(Path(path))

    def to_yaml(self, path: str | Path | None = None, defaults: bool = False) -> str:
        """YAML text that reads back to an equal variant; also written to `path` (atomically) if given.

        With `defaults` every value is written out: a file that is kept means the same when a default changes.
        """
        text = dump_yaml(compact(self, defaults))
        if path is not None:
            from ctxpeft.files import write_text

            write_text(Path(path), text)
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain data without defaults; `load_variant` accepts it."""
        data: dict[str, Any] = compact(self)
        return data

    def fingerprint(self) -> str:
        """SHA-256 of canonical JSON: defaults filled, descriptive fields left out, module order kept."""
        data = {key: value for key, value in canonical(self).items() if key not in DESCRIPTIVE}
        for module in data["modules"]:
            _one_head_site_canonical(module)
        text = json.dumps(_numbers(data), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def usual_rate(self) -> float:
        """The learning rate to begin with: the variant's hint, else what its blocks declare, the smallest of several.

        One rate trains all modules, and one that is too high costs more than one that is too low.
        """
        if self.training.learning_rate is not None:
            return self.training.learning_rate
        return min((m.usual_rate() for m in self.modules), default=USUAL_RATE)

    def identity_at_init(self) -> bool:
        """Whether attaching the variant leaves every output bit-identical until it is trained."""
        return self.peft is None and all(m.identity_at_init() for m in self.modules)

    def __repr__(self) -> str:
        """Python that makes an equal variant."""
        return f"Variant({', '.join(f'{key}={value!r}' for key, value in self.to_dict().items())})"

    def __str__(self) -> str:
        """The name and the equation of every module."""
        from ctxpeft.spec.equation import variant_equations

        return f"{self.name}: {'; '.join(variant_equations(self))}"

    def _repr_html_(self) -> str:
        from ctxpeft.html import facts
        from ctxpeft.spec.equation import variant_equations

        rows = [("equation", variant_equations(self)), ("source", self.source)]
        rows += [("for", self.regime), ("differs", self.differs)]
        return facts(one_line(self.title or self.name), rows, self.to_yaml())


def _numbers(value: Any) -> Any:
    """1 and 1.0 are the same number, and so are 0.0 and -0.0."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _one_head_site_canonical(module: dict[str, Any]) -> None:
    """At a site of one head, per query head, per kv head and per layer are the same thing."""
    if module["site"] == "head":
        if module["feature_map"] is None:
            module["phi_per"] = None
        return
    if module["phi_per"] != "model":
        module["phi_per"] = "layer"
    for block in (module["memory"], module["gate"]):
        if block.get("per") in ("query_head", "kv_head", "head"):
            block["per"] = "layer"
