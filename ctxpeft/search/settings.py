"""What a space file says beside its modules: the budget and how to search. Read without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ctxpeft.search.measures import AT_A_RUNG, LEARNED, Name
from ctxpeft.spec.base import Spec

Share = Annotated[float, Field(gt=0, le=1)]


class Like(Spec):
    """As many parameters as a variant has on the model."""

    like: str


class Budget(Spec):
    """Trainable parameters every design must have, within `tolerance` (a share)."""

    parameters: Annotated[int, Field(ge=1)] | Like
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.03
    shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.25, 0.5, 0.75], description="What the first of two modules may take."
    )

    @field_validator("parameters", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if value is None or value == "":
            raise ValueError("a value is missing; expected a whole number such as 30000, or {like: VARIANT}")
        if isinstance(value, str) and value.startswith("like:"):
            return {"like": value.removeprefix("like:").strip()}
        return value


class Search(Spec):
    """How the search goes.

    trials: designs trained beyond the anchors, to the end, to the rung, or to a failure; designs that cost nothing
    (infeasible, seen before) are not counted. rung: the share of the steps after which rates are compared and designs
    pruned, or several shares, rising, rates being compared at the first. keep: the share of designs that passes a rung.
    audit: the share of those stopped there that are trained to the end all the same, so that the study tells how often
    rungs are wrong. finalists: how many of the best are trained again on `seeds` fresh seeds together with the anchors;
    0 skips that. objective: what decides, one name or several (a Pareto front, ranked by the first); constraints:
    bounds of what does not decide. Names: loss, metric, ood, forgetting, parameters, latency, bytes. forgetting: the
    text whose loss may not rise. guide: whether what breaks a `must` or `should` rule of the construction guide is
    left out.
    """

    trials: Annotated[int, Field(ge=0)] = 30
    seed: int = 0
    rung: Share | Annotated[list[Share], Field(min_length=1, max_length=4)] = 0.2
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    warmup: Annotated[int, Field(ge=0)] = Field(
        4, description="Designs, anchors included, that pass the rung before any is pruned."
    )
    startup: Annotated[int, Field(ge=1)] = Field(
        10, description="Designs drawn at random before the sampler learns; the population of nsga2."
    )
    finalists: Annotated[int, Field(ge=0)] = 1
    seeds: Annotated[int, Field(ge=1)] = 3
    retune: Annotated[int, Field(ge=0, le=4)] = Field(
        1,
        description="How many rates below the one chosen at the rung, or else above it, each finalist tries in full "
        "before the fresh seeds; short runs like high rates.",
    )
    objective: Name | Annotated[list[Name], Field(min_length=1)] = "loss"
    constraints: dict[Name, float] = Field(
        default_factory=dict, description="The least metric or ood, the most of everything else."
    )
    forgetting: str | None = Field(None, description="A text file; see objective.")
    forgetting_tokens: Annotated[int, Field(ge=256)] = 8192
    audit: Annotated[float, Field(ge=0, le=1)] = 0.0
    metrics: bool = Field(
        True,
        description="Whether full runs score every label besides the loss; many long labels make that slow.",
    )
    guide: bool = True
    together: bool = Field(
        False,
        description="Whether the rates of a design are trained side by side at the first rung, each row of a batch "
        "through its own adapter, where that computes what separate runs compute. On a CPU no gain was measured.",
    )
    cache: Annotated[int, Field(ge=0)] = Field(
        256,
        description="MiB that a worker may fill with hidden states below the lowest adapted layer, so that designs of "
        "upper layers do not compute them anew for each batch; 0 keeps none. Results are the same, bit for bit.",
    )
    sampler: Literal["tpe", "nsga2", "random", "gp"] = Field(
        "tpe",
        description="Who proposes designs: TPE over groups of dimensions, NSGA-II, chance, or a Gaussian process.",
    )

    @property
    def objectives(self) -> tuple[Name, ...]:
        """What decides, the first ranks."""
        return (self.objective,) if isinstance(self.objective, str) else tuple(self.objective)

    @property
    def pareto(self) -> bool:
        """Whether several things decide."""
        return len(self.objectives) > 1

    @property
    def wanted(self) -> tuple[Name, ...]:
        """Everything that is measured: objectives, then constraints."""
        return tuple(dict.fromkeys([*self.objectives, *self.constraints]))

    @property
    def quality(self) -> Literal["loss", "metric"]:
        """What rates and rungs are compared by."""
        return "metric" if "metric" in self.objectives and "loss" not in self.objectives else "loss"

    @property
    def measured_at_rungs(self) -> tuple[Name, ...]:
        """What, of several objectives, is measured at every rung beside what rates are compared by."""
        return tuple(name for name in self.objectives if name in AT_A_RUNG) if self.pareto else ()

    @property
    def rungs(self) -> tuple[float, ...]:
        """Shares of the steps, rising."""
        return (self.rung,) if isinstance(self.rung, float) else tuple(self.rung)

    @field_validator("forgetting")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value == "":
            raise ValueError("a value is missing; expected the path of a text file")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Search:
        names = self.objectives
        if names[0] not in LEARNED:
            raise ValueError(
                f"objective: {names[0]} alone is best where nothing is learned; begin with {', '.join(LEARNED)}, and "
                "add it behind, or to the constraints"
            )
        if len(set(names)) < len(names):
            raise ValueError("objective: a name stands there twice")
        both = next((name for name in names if name in self.constraints), None)
        if both:
            raise ValueError(f"constraints: {both} is an objective already")
        if "forgetting" in self.wanted and self.forgetting is None:
            raise ValueError("forgetting needs a text: search.forgetting: FILE")
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rung: expected rising shares, such as [0.1, 0.3]")
        return self
