"""The construction guide as code: rules with a reason, read by `validate`, by the search and by the guide's own page.

The table of legal combinations says what has a meaning; these rules say what is wise. Each rule looks at one module,
and where it needs to at facts about model and data; a fact that is not known breaks no rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ctxpeft.spec.blocks import InitSpec
    from ctxpeft.spec.module import ModuleSpec
    from ctxpeft.spec.variant import Variant

Severity = Literal["must", "should", "consider"]
QUADRATIC = ("squared_relu", "square", "taylor", "rebased", "outer", "dpfp", "hadamard", "all_poly")
FEW = 1000
DILUTED = 8
LEVEL = 2.0


@dataclass(frozen=True)
class Facts:
    """What is known of the model and the data.

    input_length: tokens of a usual input. examples: training examples. gqa: query heads per kv head.
    query_scale: the smallest and the largest, over the layers, root mean square of an entry of the queries that the
    data give; 1 is what `query.norm: rms` makes of them.
    """

    input_length: float | None = None
    examples: int | None = None
    gqa: int | None = None
    query_scale: tuple[float, float] | None = None

    def sentence(self) -> str:
        """What is known, for people."""
        known = []
        if self.input_length is not None:
            known.append(f"a usual input of {self.input_length:g} tokens")
        if self.examples is not None:
            known.append(f"{self.examples:,} training examples")
        if self.gqa is not None:
            known.append(f"{self.gqa} query head{'s' if self.gqa > 1 else ''} per kv head")
        if self.query_scale is not None:
            known.append("queries of size {:.2f} to {:.2f} by layer".format(*self.query_scale))
        return ", ".join(known) or "nothing is known"


@dataclass(frozen=True)
class Rule:
    """One rule: `key` is the key path it speaks about, `source` a paper or how it was measured.

    must: the module cannot do what it is for. should: it was seen to do worse. consider: it depends.
    """

    id: str
    key: str
    severity: Severity
    statement: str
    reason: str
    source: str
    broken: Callable[[ModuleSpec, Facts], bool]


@dataclass(frozen=True)
class Advice:
    """A rule that one module of a variant breaks."""

    rule: Rule
    module: int

    def sentence(self) -> str:
        """`modules[0].gate: ... [rule-id]`, for people."""
        rule = self.rule
        return (
            f"{rule.severity}: modules[{self.module}].{rule.key}: {rule.statement}; {rule.reason} [{rule.id}]"
        )


def advice(variant: Variant, facts: Facts | None = None) -> list[Advice]:
    """The rules that the modules of a variant break, the gravest first."""
    known = facts or Facts()
    order = {"must": 0, "should": 1, "consider": 2}
    found = [Advice(r, i) for i, m in enumerate(variant.modules) for r in RULES if r.broken(m, known)]
    return sorted(found, key=lambda a: (order[a.rule.severity], a.module))


def _init(m: ModuleSpec, name: str = "init") -> InitSpec | None:
    found: InitSpec | None = getattr(m.memory, name, None)
    return found


def _values_init(m: ModuleSpec) -> InitSpec | None:
    return _init(m, "value_init") or _init(m)


def _direct_slots(m: ModuleSpec) -> bool:
    parameterization = getattr(m.memory, "parameterization", None)
    return m.memory.kind == "slots" and parameterization is not None and parameterization.kind == "direct"


def _reads_nothing(m: ModuleSpec) -> bool:
    return m.memory.kind != "none" and m.memory.zero_read_at_init()


def _level_queries(m: ModuleSpec, facts: Facts) -> bool:
    """Whether the model's own queries are known to be about as large, in every layer, as normalised ones."""
    if facts.query_scale is None or m.site != "head":
        return False
    low, high = facts.query_scale
    return low >= 1 / LEVEL and high <= LEVEL


def _keys_without_gradient(m: ModuleSpec) -> bool:
    init = _init(m)
    return (
        _direct_slots(m) and getattr(m.memory, "score", "") == "relu" and init is not None and init.is_zero()
    )


def _small_keys(m: ModuleSpec) -> bool:
    init = _init(m)
    std = getattr(init, "std", None)
    small = init is not None and (init.is_zero() or (std is not None and std < 0.1))
    return _direct_slots(m) and getattr(m.memory, "score", "") in ("softmax", "norga") and small


RULES: tuple[Rule, ...] = (
    Rule(
        "alive-at-init",
        "gate",
        "must",
        "a gate that starts at zero needs a memory that does not read zero",
        "the gradient of each is the value of the other, so neither ever moves",
        "the product rule; held by a test",
        lambda m, _: (
            m.placement == "outside"
            and m.merge == "add"
            and m.gate.is_zero_at_init()
            and m.gate.kind != "constant"
            and _reads_nothing(m)
        ),
    ),
    Rule(
        "gate-that-stays-shut",
        "gate.value",
        "must",
        "a constant gate of zero shuts the module for good",
        "nothing multiplied by zero is trained",
        "the product rule",
        lambda m, _: m.gate.kind == "constant" and m.gate.is_zero_at_init(),
    ),
    Rule(
        "relu-keys-off-zero",
        "memory.init",
        "must",
        "slots with score 'relu' need keys that are not zero",
        "relu has no gradient at a score of zero",
        "held by a test",
        lambda m, _: _keys_without_gradient(m),
    ),
    Rule(
        "identity-at-init",
        "memory.init",
        "should",
        "begin as the base model: a memory that reads zero, or a gate at zero",
        "a random matrix beside every head begins by destroying the model, and one published attempt never recovered "
        "(validation perplexity 186)",
        "an independent re-implementation of arXiv:2506.13674; LLaMA-Adapter, arXiv:2303.16199",
        lambda m, _: (
            m.placement == "outside"
            and m.merge == "add"
            and not getattr(_init(m), "compiles", False)
            and not m.identity_at_init()
        ),
    ),
    Rule(
        "keys-of-unit-scale",
        "memory.init",
        "should",
        "give slots keys about as large as the model's own (standard deviation 1)",
        "keys near zero get the same weight from every query, so all slots receive the same gradient",
        "measured here, tests/hosts/test_slots_at_init.py",
        lambda m, _: _small_keys(m),
    ),
    Rule(
        "quiet-values-inside",
        "memory.value_init",
        "should",
        "inside the softmax, begin with values at zero or with those of a prompt",
        "random values take weight from the content and put noise in its place",
        "HF PEFT's MetaMathQA suite: zero values and a prompt's values beat random ones",
        lambda m, _: (
            m.placement == "inside"
            and _direct_slots(m)
            and not getattr(_values_init(m), "compiles", False)
            and not m.memory.zero_read_at_init()
            and not m.gate.is_zero_at_init()
        ),
    ),
    Rule(
        "normalise-before-quadratic",
        "query.norm",
        "should",
        "normalise the query before a map that grows quadratically",
        "the norms of queries differ by layer and model, and a quadratic map squares the difference; queries that "
        "are known to have entries of size 1/2 to 2 in every layer (root mean square) are let off; measured: ahead by "
        ".024 and .007 on two models with tuned rates, significantly on neither",
        "Based, arXiv:2402.18668; feature maps of arXiv:2012.11346; docs/evidence",
        lambda m, facts: (
            m.feature_map is not None
            and m.feature_map.kind in QUADRATIC
            and m.query.norm == "none"
            and not _level_queries(m, facts)
        ),
    ),
    Rule(
        "no-normaliser-outside",
        "normalizer",
        "consider",
        "outside the softmax, leave the normaliser out",
        "a free matrix and the layer norm after it absorb what it does, and without it signed maps are legal",
        "arXiv:2506.13674, the last step of the construction",
        lambda m, _: m.placement == "outside" and m.normalizer == "sum",
    ),
    Rule(
        "long-inputs-dilute",
        "merge",
        "consider",
        "with inputs much longer than the prefix, move the memory outside",
        "P slots keep about P / (P + n) of a query that sees n tokens: 32 slots .33 of 64 tokens, .06 of 512; "
        "trained behind 128 words, keeping that weight (compete_length) did no better than losing it, outside did",
        "arXiv:2506.13674, eq. 3; measured on slots at zero and on TREC behind words of a story",
        lambda m, facts: (
            m.merge == "compete"
            and m.memory.kind == "slots"
            and facts.input_length is not None
            and facts.input_length > DILUTED * int(getattr(m.memory, "count", 1))
        ),
    ),
    Rule(
        "share-when-data-are-few",
        "memory.per",
        "consider",
        "with few examples, share the memory by kv head first",
        "grouped queries ask alike, and sharing cuts parameters by the group size",
        "arXiv:2410.02200 on shared structure; a full matrix a layer overfits 5,000 examples",
        lambda m, facts: (
            m.site == "head"
            and m.memory.kind == "matrix"
            and getattr(m.memory, "per", None) == "query_head"
            and (facts.gqa or 1) > 1
            and facts.examples is not None
            and facts.examples < FEW
        ),
    ),
    Rule(
        "position-free-read",
        "query.source",
        "consider",
        "for inputs of very different lengths, ask with the query before RoPE",
        "after RoPE what a token reads depends on where it stands, and positions beyond those trained on are new to it",
        "arXiv:2506.13674 leaves the choice open; both variants ship",
        lambda m, facts: (
            m.placement == "outside"
            and m.site == "head"
            and m.query.source == "rotated"
            and m.memory.feature_map_use() == "required"
            and facts.input_length is not None
            and facts.input_length > 512
        ),
    ),
)

HELD = (
    (
        "memories-in-fp32",
        "memories, gates and merges are fp32 whatever the base is",
        "a published construction passes 400 of 400 checks in float64 and 38 in bf16",
    ),
    (
        "no-pooled-gates",
        "no gate looks at another token",
        "a gate pooled over the sequence tells a token what comes after it",
    ),
    (
        "no-slots-in-the-cache",
        "slots never enter the KV cache",
        "a sliding window would evict them, and a mask would have to know of them",
    ),
    (
        "positive-normalisers",
        "a normaliser is softplus of what is learned",
        "signed maps make 22 % of the masses negative, and abs has no gradient at zero",
    ),
)
