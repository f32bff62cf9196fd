"""Hypothesis strategies: legal specs, drawn from the registry, so that third-party blocks are drawn too."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ctxpeft.blocks.inits.zeros import Zeros
from ctxpeft.spec.base import BlockSpec, Domain
from ctxpeft.spec.blocks import FeatureMapSpec, GateSpec, MemorySpec
from ctxpeft.spec.legality import INSIDE_MERGES
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.query import QuerySpec
from ctxpeft.spec.registry import Kinds
from ctxpeft.spec.scope import LayerRange, Scope
from ctxpeft.spec.variant import Variant

try:
    from hypothesis import assume
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("ctxpeft.testing.strategies needs hypothesis: pip install hypothesis") from error

ONE_HEAD_SOURCES = ("hidden", "output")
SITES = ("head", "attention_output", "ffn", "residual", "embeddings")
HEAD_SOURCES = ("rotated", "unrotated", "hidden", "output")


@cache
def blocks(family: str, flat: bool = False) -> st.SearchStrategy[Any]:
    """Any installed block of a family, its fields within their declared domains; `flat` as in `Kinds`."""
    found = Kinds(family, flat).installed().values()
    return st.one_of([block(cls) for cls in found if not getattr(cls, "compiles", False)])


@st.composite
def block(draw: st.DrawFn, cls: type[BlockSpec]) -> BlockSpec:
    """A block of one class; combinations of fields that its own validators refuse are not drawn."""
    data = {name: draw(_values(field)) for name, field in cls.model_fields.items()}
    try:
        return cls(**data)
    except ValidationError:
        assume(False)
        raise


@st.composite
def modules(draw: st.DrawFn) -> ModuleSpec:
    """A legal module: every choice is made among what the table of legal combinations leaves."""
    memory: MemorySpec = _slots_that_fit(draw(blocks("memory")))
    parameterization = getattr(memory, "parameterization", None)
    head_only = bool(getattr(parameterization, "head_site_only", False))
    if getattr(parameterization, "per_kv_head_only", False):
        memory = memory.model_copy(update={"per": "kv_head"})
    gated = bool(getattr(memory, "gated", False))
    if gated and memory.mass() != "always":
        memory = memory.model_copy(update={"gated": False})
    site = "head" if head_only else draw(st.sampled_from(SITES[:-1] if gated else SITES))
    if site == "embeddings" and memory.kind == "none":
        site = "residual"
    competes = site == "head" and memory.mass() != "never"
    inside = competes and draw(st.booleans())
    feature_map = draw(_feature_maps(memory, inside))
    merge = "add" if site == "embeddings" else draw(st.sampled_from(_merges(memory, inside)))
    shares_keys = memory.kind == "slots" and feature_map is not None and feature_map.has_parameters()
    per = st.sampled_from(["query_head", "kv_head", "layer", "model"])
    virtual = bool(getattr(parameterization, "virtual_tokens", False))
    source = draw(st.sampled_from([None, "rotated"] if virtual else [None, *_sources(site, head_only)]))
    if source not in (None, "rotated") or site != "head" or getattr(memory, "score", "softmax") != "softmax":
        memory = _unplaced(memory)
    return ModuleSpec.model_validate(
        {
            "projected": inside or site != "head" or merge != "add" or draw(st.booleans()),
            "placement": "inside" if inside else "outside",
            "merge": merge,
            "site": site,
            "query": draw(_plain(QuerySpec)).model_copy(update={"source": source}),
            "feature_map": feature_map,
            "phi_per": getattr(memory, "per", "layer") if shares_keys else draw(per),
            "memory": memory,
            "normalizer": draw(st.sampled_from(_normalizers(memory, feature_map, inside))),
            "gate": draw(_gates(inside, merge, site)),
            "length_bias": draw(_number(Domain(-8.0, 2.0))) if merge == "compete_length" else 0.0,
            "scope": draw(_scopes(site)),
        }
    )


def variants() -> st.SearchStrategy[Variant]:
    """A variant of one to three legal modules."""
    names = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,20}\Z")
    text = st.text(max_size=20)
    lists = st.lists(modules(), min_size=1, max_size=3)
    return st.builds(Variant, name=names, title=text, source=text, differs=text, modules=lists)


def _slots_that_fit(memory: MemorySpec) -> MemorySpec:
    """Virtual tokens alone, before the input and asked by softmax; the vocabulary only for them."""
    if getattr(getattr(memory, "parameterization", None), "virtual_tokens", False):
        placed = memory.position if memory.position != "raw" else "auto"  # type: ignore[attr-defined]
        alone = {"score": "softmax", "frozen": 0, "value_init": None, "position": placed}
        return memory.model_copy(update=alone)
    inits = {name: getattr(memory, name, None) for name in ("init", "value_init")}
    other = Zeros()
    return memory.model_copy(
        update={n: other for n, found in inits.items() if getattr(found, "from_vocabulary", False)}
    )


def _unplaced(memory: MemorySpec) -> MemorySpec:
    """The memory without a position, which only rotated queries under a softmax can see."""
    return memory.model_copy(update={"position": "raw"}) if hasattr(memory, "position") else memory


def _sources(site: str, head_only: bool) -> tuple[str, ...]:
    if site == "embeddings":
        return ("output",)
    if site != "head":
        return ONE_HEAD_SOURCES
    return HEAD_SOURCES[:2] if head_only else HEAD_SOURCES


def _feature_maps(memory: MemorySpec, inside: bool) -> st.SearchStrategy[FeatureMapSpec | None]:
    if memory.feature_map_use() == "forbidden":
        return st.none()
    maps = blocks("feature_map")
    return maps.filter(lambda phi: phi.gives(memory.mass())) if inside else maps


def _merges(memory: MemorySpec, inside: bool) -> tuple[str, ...]:
    if inside:
        return INSIDE_MERGES
    return ("scale",) if memory.kind == "none" else ("add", "mix")


def _normalizers(memory: MemorySpec, phi: FeatureMapSpec | None, inside: bool) -> list[str | None]:
    if inside:
        return [None, "none"]
    has_mass = memory.mass() == "always" or (phi is not None and phi.gives(memory.mass()))
    legal = [n for n in memory.normalizers() if n != "sum" or has_mass]
    return [*legal, None] if memory.normalizers()[0] in legal else list(legal)


@st.composite
def _gates(draw: st.DrawFn, inside: bool, merge: str, site: str) -> GateSpec:
    gate: GateSpec = draw(blocks("gate"))
    assume(not (merge in ("mix", "scale") and gate.kind == "none"))
    assume(not (inside and gate.per_channel()))
    unseen = {"head": (), "embeddings": ("log_mass", "hidden")}.get(site, ("log_mass",))
    if getattr(gate, "source", None) in unseen:
        gate = gate.model_copy(update={"source": "output"})
    on_mass = inside and gate.is_positive() and draw(st.booleans())
    return gate.model_copy(update={"on": "mass" if on_mass else "weight"})


_INDICES = st.lists(st.integers(0, 11), min_size=1, max_size=4, unique=True)
_RANGES = st.builds(
    lambda key, n: LayerRange(**{key: n}), st.sampled_from(["first", "last", "every"]), st.integers(1, 6)
)


@cache
def _scopes(site: str) -> st.SearchStrategy[Scope]:
    heads = st.one_of(st.just("all"), _INDICES) if site == "head" else st.just("all")
    layers = st.just("all") if site == "embeddings" else st.one_of(st.just("all"), _INDICES, _RANGES)
    return st.builds(
        Scope, layers=layers, heads=heads, tokens=st.sampled_from(["all", "prompt", "generated"])
    )


@cache
def _plain(cls: type[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({name: _values(f) for name, f in cls.model_fields.items()}).map(
        lambda data: cls(**data)
    )


def _values(field: FieldInfo) -> st.SearchStrategy[Any]:
    return _of(field.annotation, list(field.metadata))


def _of(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Values of an annotation; numbers need a Domain or bounds."""
    choice = next((m for m in metadata if isinstance(m, Kinds)), None)
    if choice:
        return blocks(choice.family, choice.flat)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        inner, *extras = typing.get_args(annotation)
        return _of(inner, [*metadata, *extras])
    if origin in (typing.Union, types.UnionType):
        return st.one_of([_of(part, metadata) for part in typing.get_args(annotation)])
    if origin is Literal:
        return st.sampled_from(typing.get_args(annotation))
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is str:
        return st.text(min_size=1, max_size=10)
    if annotation in (int, float):
        domain = next((m for m in metadata if isinstance(m, Domain)), Domain(1, 64))
        return _number(domain, whole=annotation is int)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _plain(annotation)
    raise TypeError(f"no strategy for a field of type {annotation}; blocks hold numbers, names and blocks")


def _number(domain: Domain, whole: bool = False) -> st.SearchStrategy[Any]:
    if whole:
        return st.integers(int(domain.low), int(domain.high))
    return st.floats(domain.low, domain.high, allow_nan=False, allow_infinity=False)
