"""One module of a variant: a question, a memory, a merge."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ctxpeft.spec.base import Domain, Later, Spec
from ctxpeft.spec.blocks import FeatureMap, Gate, Memory, MemorySpec, Normalizer, Per
from ctxpeft.spec.legality import TABLE
from ctxpeft.spec.query import QuerySpec, Source
from ctxpeft.spec.scope import Scope

Merge = Literal["compete", "compete_length", "add", "mix", "scale"]
Site = Literal["head", "attention_output", "ffn", "residual", "embeddings"]


def usual_merge(placement: str) -> Merge:
    """The merge of a module that names none."""
    return "compete" if placement == "inside" else "add"


def usual_source(site: str) -> Source:
    """The query source of a module that names none."""
    usual: dict[str, Source] = {"head": "rotated", "residual": "output", "embeddings": "output"}
    return usual.get(site, "hidden")


def usual_normalizer(placement: str, memory: MemorySpec) -> Normalizer:
    """The normaliser of a module that names none."""
    return "none" if placement == "inside" else memory.normalizers()[0]


class ModuleSpec(Spec):
    """o <- merge(o, L, memory.read(query(source), phi), gate) at one site of the layers in scope.

    placement inside: the memory joins the softmax over the content (merge `compete`, or `compete_length`, which
    adds log(number of visible content keys) + b_h to its log-mass; `length_bias` is the initial b_h).
    placement outside: o + g r (`add`), (1-g) o + g r (`mix`), g o (`scale`, no memory).
    projected: whether what is added at the heads goes with them through the host's output projection, W_O (o + g r).
    Past it, the reads of all heads stand side by side behind it, W_O o + g r, and must together be as wide as the
    hidden state.
    learning_rate_ratio: the module's parameters train at the run's learning rate times this, where modules want rates
    far apart (a scale per channel some thirty times that of a matrix; LoRA+, arXiv 2402.12354, is the same idea within
    LoRA). What the module computes does not depend on it.
    Left out, `merge`, `normalizer` and `query.source` take the only or usual value of their placement, memory
    and site.
    """

    placement: Literal["inside", "outside"]
    merge: Merge | None = None
    site: Site = "head"
    query: QuerySpec = QuerySpec()
    feature_map: FeatureMap | None = None
    phi_per: Per = "query_head"
    memory: Memory
    normalizer: Normalizer | None = None
    gate: Gate = Field(default_factory=lambda: {"kind": "none"})  # type: ignore[assignment]
    length_bias: Annotated[float, Domain(-8.0, 2.0)] = 0.0
    scope: Scope = Scope()
    projected: Annotated[bool, Later()] = True
    learning_rate_ratio: Annotated[float, Field(gt=0, le=1000), Later()] = 1.0

    @field_validator("memory", "gate", "feature_map", mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise PydanticCustomError(
                "kind_as_text", "expected a mapping such as {example}", {"example": "{kind: " + value + "}"}
            )
        return value

    @model_validator(mode="after")
    def _resolve_and_check(self) -> ModuleSpec:
        if self.merge is None:
            object.__setattr__(self, "merge", usual_merge(self.placement))
        if self.query.source is None:
            source = usual_source(self.site)
            object.__setattr__(self, "query", self.query.model_copy(update={"source": source}))
        for row in TABLE:
            if row.broken(self):
                raise PydanticCustomError(
                    "illegal_combination", "{reason}", {"reason": row.reason, "key": row.key}
                )
        if self.normalizer is None:
            object.__setattr__(self, "normalizer", usual_normalizer(self.placement, self.memory))
        return self

    def usual_rate(self) -> float:
        """The run's learning rate to begin with: what the memory's kind declares for the placement, by the ratio."""
        return self.memory.usual_rate(self.placement) / self.learning_rate_ratio

    def needs_mass(self) -> bool:
        """Whether the read must come with its mass: it competes, or it is normalised."""
        return self.placement == "inside" or self.normalizer in ("sum", "softmax")

    def identity_at_init(self) -> bool:
        """Whether attaching the module changes no output, bit for bit: outside/add with a zero read or a zero
        gate, outside/scale with a gate of one, inside with a zero gate on the weight; slots that may shift the
        content's positions do not. Nothing else claims it."""
        if getattr(self.memory, "position", "raw") in ("auto", "offset"):  # these may shift the content
            return False
        if self.placement == "inside":
            return self.gate.on == "weight" and self.gate.is_zero_at_init()
        if self.merge == "scale":
            return self.gate.is_one_at_init()
        return self.merge == "add" and (self.memory.zero_read_at_init() or self.gate.is_zero_at_init())
