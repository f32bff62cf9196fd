"""The table of legal combinations. Whatever is not refused here has a meaning and a law.

Each row has an id, the reason a user reads, and a predicate that is true when a module breaks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctxpeft.spec.module import ModuleSpec

INSIDE_MERGES = ("compete", "compete_length")
OUTSIDE_MERGES = ("add", "mix", "scale")


@dataclass(frozen=True)
class Row:
    """One row of the table: `key` is the key path a message points at."""

    id: str
    key: str
    reason: str
    broken: Callable[[ModuleSpec], bool]


def _has_mass(m: ModuleSpec) -> bool:
    mass = m.memory.mass()
    if mass in ("always", "never"):
        return mass == "always"
    return m.feature_map is not None and m.feature_map.gives(mass)


TABLE: tuple[Row, ...] = (
    Row(
        "merge-of-inside",
        "merge",
        "placement 'inside' merges by 'compete' or 'compete_length'",
        lambda m: m.placement == "inside" and m.merge not in INSIDE_MERGES,
    ),
    Row(
        "merge-of-outside",
        "merge",
        "placement 'outside' merges by 'add', 'mix' or 'scale'",
        lambda m: m.placement == "outside" and m.merge not in OUTSIDE_MERGES,
    ),
    Row(
        "inside-needs-a-softmax",
        "site",
        "placement 'inside' exists only at site 'head': nowhere else is there a softmax to compete in",
        lambda m: m.placement == "inside" and m.site != "head",
    ),
    Row(
        "sources-of-one-head-sites",
        "query.source",
        "the sites 'attention_output', 'ffn' and 'residual' offer the sources 'hidden' and 'output'; queries exist at "
        "site 'head'",
        lambda m: m.site not in ("head", "embeddings") and m.query.source in ("rotated", "unrotated"),
    ),
    Row(
        "source-of-embeddings",
        "query.source",
        "the site 'embeddings' offers the source 'output': the embedding of the token",
        lambda m: m.site == "embeddings" and m.query.source != "output",
    ),
    Row(
        "gate-source-of-embeddings",
        "gate.source",
        "at site 'embeddings' a gate reads the 'query' or the 'output': there is no hidden state before it",
        lambda m: m.site == "embeddings" and getattr(m.gate, "source", None) == "hidden",
    ),
    Row(
        "embeddings-need-a-memory",
        "memory.kind",
        "the site 'embeddings' adds what a memory reads: memory 'none' has nothing to add",
        lambda m: m.site == "embeddings" and m.memory.kind == "none",
    ),
    Row(
        "embeddings-add",
        "merge",
        "the site 'embeddings' takes merge 'add' only",
        lambda m: m.site == "embeddings" and m.merge != "add",
    ),
    Row(
        "embeddings-have-no-layers",
        "scope.layers",
        "the site 'embeddings' comes before all layers: leave scope.layers at 'all'",
        lambda m: m.site == "embeddings" and m.scope.layers != "all",
    ),
    Row(
        "heads-of-one-head-sites",
        "scope.heads",
        "the sites other than 'head' have one head: leave scope.heads at 'all'",
        lambda m: m.site != "head" and m.scope.heads != "all",
    ),
    Row(
        "scale-has-no-memory",
        "memory",
        "merge 'scale' is o <- g * o and takes no memory: write memory: {kind: none}",
        lambda m: m.merge == "scale" and m.memory.kind != "none",
    ),
    Row(
        "no-memory-only-scales",
        "memory.kind",
        "memory 'none' has nothing to read and serves merge 'scale' only",
        lambda m: m.memory.kind == "none" and m.merge != "scale",
    ),
    Row(
        "scale-and-mix-need-a-gate",
        "gate",
        "merges 'mix' and 'scale' are defined by their gate: give one (constant, scalar or token)",
        lambda m: m.merge in ("mix", "scale") and m.gate.kind == "none",
    ),
    Row(
        "past-the-projection-is-added",
        "projected",
        "projected: false adds reads of the heads behind the output projection: it goes with site 'head', placement "
        "'outside' and merge 'add'",
        lambda m: not m.projected and (m.placement == "inside" or m.site != "head" or m.merge != "add"),
    ),
    Row(
        "feature-map-required",
        "feature_map",
        "this memory is read through a feature map: give feature_map: {kind: ...}",
        lambda m: m.memory.feature_map_use() == "required" and m.feature_map is None,
    ),
    Row(
        "feature-map-forbidden",
        "feature_map",
        "this memory is not read through a feature map: leave feature_map out",
        lambda m: m.memory.feature_map_use() == "forbidden" and m.feature_map is not None,
    ),
    Row(
        "inside-needs-mass",
        "feature_map.kind",
        "placement 'inside' needs a mass: a positive feature map (elu gives 22 % negative masses), kernel slots under "
        "a map of positive kernel (taylor, rebased), slots with score 'softmax' or 'norga', or a vector",
        lambda m: m.placement == "inside" and not _has_mass(m),
    ),
    Row(
        "normalizer-is-outside-only",
        "normalizer",
        "a normalizer exists only outside: inside, the joint softmax normalises",
        lambda m: m.placement == "inside" and m.normalizer not in (None, "none"),
    ),
    Row(
        "normalizer-of-memory",
        "normalizer",
        "this memory cannot take this normalizer (softmax slots take 'softmax'; kernel slots and matrices 'none' "
        "or 'sum'; everything else 'none')",
        lambda m: (
            m.placement == "outside"
            and m.normalizer is not None
            and m.normalizer not in m.memory.normalizers()
        ),
    ),
    Row(
        "sum-needs-positive-map",
        "normalizer",
        "normalizer 'sum' divides by phi(q)^T z and needs a positive feature map; kernel slots divide by the sum of "
        "phi(q)^T phi(k) and need one of positive kernel (taylor and rebased are)",
        lambda m: m.normalizer == "sum" and not _has_mass(m),
    ),
    Row(
        "gate-on-mass-is-inside-only",
        "gate.on",
        "a gate acts on the mass only inside; outside there is no mass to gate",
        lambda m: m.placement == "outside" and m.gate.on == "mass",
    ),
    Row(
        "gate-on-mass-is-positive",
        "gate",
        "a gate on the mass adds log g and must be positive: use activation 'sigmoid' or 'exp', or a positive "
        "constant",
        lambda m: m.placement == "inside" and m.gate.on == "mass" and not m.gate.is_positive(),
    ),
    Row(
        "channel-gate-is-outside-only",
        "gate.per",
        "a gate per channel cannot act on a softmax weight, which has one value a head",
        lambda m: m.placement == "inside" and m.gate.per_channel(),
    ),
    Row(
        "length-bias-needs-its-merge",
        "length_bias",
        "length_bias is the initial b_h of merge 'compete_length'",
        lambda m: m.merge != "compete_length" and m.length_bias != 0.0,
    ),
    Row(
        "frozen-projection-at-head",
        "memory.parameterization",
        "this parameterization goes through the host's frozen W_K and W_V, which exist at site 'head'",
        lambda m: m.site != "head" and _parameterization_flag(m, "head_site_only"),
    ),
    Row(
        "frozen-projection-has-head-width",
        "query.source",
        "this parameterization gives slot keys of one head's width: ask with source 'rotated' or 'unrotated'",
        lambda m: (
            _parameterization_flag(m, "head_site_only") and m.query.source not in ("rotated", "unrotated")
        ),
    ),
    Row(
        "slot-gates-see-a-hidden-state",
        "memory.gated",
        "slot gates read the hidden state, and at site 'embeddings' there is none before it",
        lambda m: m.site == "embeddings" and bool(getattr(m.memory, "gated", False)),
    ),
    Row(
        "slot-gates-scale-a-softmax-score",
        "memory.gated",
        "slot gates go with the scores 'softmax' and 'norga'",
        lambda m: bool(getattr(m.memory, "gated", False)) and m.memory.mass() != "always",
    ),
    Row(
        "position-at-head",
        "memory.position",
        "slots have a position where there are queries, at site 'head'; leave it at 'raw'",
        lambda m: m.site != "head" and _position(m) != "raw",
    ),
    Row(
        "position-under-a-softmax",
        "memory.position",
        "slots have a position where they are asked by score 'softmax'; leave it at 'raw'",
        lambda m: getattr(m.memory, "score", "softmax") != "softmax" and _position(m) != "raw",
    ),
    Row(
        "position-of-rotated-queries",
        "memory.position",
        "slots have a position where rotated queries ask them: source 'rotated'; leave it at 'raw'",
        lambda m: m.query.source != "rotated" and _position(m) != "raw",
    ),
    Row(
        "log-mass-gate-at-head",
        "gate.source",
        "a gate that reads the content log-mass needs a softmax: it exists at site 'head'",
        lambda m: m.site != "head" and getattr(m.gate, "source", None) == "log_mass",
    ),
    Row(
        "frozen-projection-per-kv-head",
        "memory.per",
        "this parameterization gives one set of slots a kv head: per must be 'kv_head'",
        lambda m: (
            _parameterization_flag(m, "per_kv_head_only") and getattr(m.memory, "per", None) != "kv_head"
        ),
    ),
    Row(
        "virtual-tokens-under-a-softmax",
        "memory.parameterization",
        "virtual tokens are asked by score 'softmax', as the input is",
        lambda m: (
            getattr(m.memory, "score", "softmax") != "softmax" and _parameterization_flag(m, "virtual_tokens")
        ),
    ),
    Row(
        "virtual-tokens-stand-somewhere",
        "memory.position",
        "virtual tokens stand before the input: position must be 'auto', 'before' or 'offset'",
        lambda m: _parameterization_flag(m, "virtual_tokens") and _position(m) == "raw",
    ),
    Row(
        "virtual-tokens-come-alone",
        "memory.parameterization",
        "virtual tokens give all keys and all values: leave out value_init and frozen",
        lambda m: (
            _parameterization_flag(m, "virtual_tokens")
            and (getattr(m.memory, "value_init", None) is not None or bool(getattr(m.memory, "frozen", 0)))
        ),
    ),
    Row(
        "vocabulary-fills-virtual-tokens",
        "memory.init",
        "init 'vocabulary' gives embeddings of tokens: to slots with parameterization 'prompt'",
        lambda m: (
            any(
                getattr(getattr(m.memory, name, None), "from_vocabulary", False)
                for name in ("init", "value_init")
            )
            and not _parameterization_flag(m, "virtual_tokens")
        ),
    ),
    Row(
        "text-fills-slots",
        "memory.init",
        "init 'text' gives the keys and values of a prompt: to slots at site 'head' with parameterization 'direct', "
        "per 'kv_head', asked by softmax with the rotated query, and without a value_init",
        lambda m: _init(m) == "text" and not _holds_a_prompt(m),
    ),
    Row(
        "demonstrations-fill-a-matrix",
        "memory.init",
        "init 'demonstrations' compiles a full matrix at site 'head', asked with the 'rotated' or 'unrotated' query "
        "and projected with the heads",
        lambda m: (
            _init(m) == "demonstrations"
            and not (
                m.memory.kind == "matrix"
                and getattr(m.memory, "form", None) == "full"
                and m.site == "head"
                and m.query.source in ("rotated", "unrotated")
                and getattr(m.memory, "per", None) != "model"
                and m.projected
            )
        ),
    ),
    Row(
        "ridge-fits-what-is-added",
        "memory.init.method",
        "method 'ridge' fits what is added: it goes with placement 'outside', merge 'add' and no normalizer; take "
        "method 'sum' elsewhere",
        lambda m: (
            _method(m) == "ridge"
            and (m.merge not in (None, "add") or m.placement == "inside" or m.normalizer == "sum")
        ),
    ),
    Row(
        "delta-rule-has-no-mass",
        "memory.init.method",
        "method 'delta' writes values and no mass: it goes with placement 'outside' and no normalizer; take method "
        "'sum' elsewhere",
        lambda m: _method(m) == "delta" and (m.placement == "inside" or m.normalizer == "sum"),
    ),
    Row(
        "learned-kernel-shares-its-slots",
        "phi_per",
        "kernel slots put their keys through phi too: a learned feature map must be shared as the slots are "
        "(phi_per = memory.per)",
        lambda m: (
            m.memory.kind == "slots"
            and m.memory.feature_map_use() == "required"
            and m.feature_map is not None
            and m.feature_map.has_parameters()
            and m.phi_per != getattr(m.memory, "per", None)
        ),
    ),
)


def _position(m: ModuleSpec) -> str:
    return str(getattr(m.memory, "position", "raw"))


def _parameterization_flag(m: ModuleSpec, flag: str) -> bool:
    return bool(getattr(getattr(m.memory, "parameterization", None), flag, False))


def _init(m: ModuleSpec) -> str | None:
    """The kind of the memory's init; `text` also where only the values ask for it."""
    kinds = [getattr(getattr(m.memory, name, None), "kind", None) for name in ("value_init", "init")]
    compiled = [kind for kind in kinds if kind in ("text", "demonstrations")]
    return compiled[0] if compiled else kinds[1]


def _method(m: ModuleSpec) -> str | None:
    """How a matrix is compiled from demonstrations, if it is."""
    found = getattr(m.memory, "init", None) if _init(m) == "demonstrations" else None
    return getattr(found, "method", None)


def _holds_a_prompt(m: ModuleSpec) -> bool:
    return (
        m.memory.kind == "slots"
        and m.site == "head"
        and m.query.source == "rotated"
        and m.memory.mass() == "always"
        and getattr(m.memory, "per", None) == "kv_head"
        and getattr(getattr(m.memory, "parameterization", None), "kind", None) == "direct"
        and getattr(m.memory, "value_init", None) is None
    )
