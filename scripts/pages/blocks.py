"""The reference of blocks: every installed kind with equation, shapes, cost, source, use and an example."""

from __future__ import annotations

import copy
import inspect
from functools import cache
from typing import Any

import yaml

from ctxpeft.errors import CtxpeftError
from ctxpeft.spec.base import BlockSpec
from ctxpeft.spec.variant import Variant
from scripts.pages.markdown import code, maths, table
from scripts.pages.usage import uses

FAMILIES = {
    "feature_map": "What is made of a query before the memory is asked: $`\\varphi: \\mathbb{R}^d \\to "
    "\\mathbb{R}^w`$, every token alone. The widths below are $`w`$ for $`d = 32`$ and $`d = 64`$ with the defaults.",
    "memory": "What is asked. A memory gives a read and, where it has one, the log of its mass.",
    "parameterization": "What is trained in place of the keys and values of slots.",
    "init": "How the parameters of a memory begin.",
    "gate": "How much of the answer is let in.",
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "gate": {"memory": {"kind": "vector", "init": {"kind": "normal", "std": 0.02}}},
    "init": {"placement": "inside", "memory": {"kind": "slots", "count": 16}},
    "parameterization": {"placement": "inside", "memory": {"kind": "slots", "count": 16}},
}
PARTICULAR: dict[str, dict[str, Any]] = {
    "memory.none": {
        "merge": "scale",
        "memory": {"kind": "none"},
        "gate": {"kind": "scalar", "activation": "linear", "init": 1.0},
    },
    "memory.slots": {"placement": "inside", "memory": {"kind": "slots", "count": 16}},
    "memory.vector": {"memory": {"kind": "vector"}},
    "memory.edit": {
        "site": "residual",
        "query": {"source": "hidden"},
        "memory": {"kind": "edit", "rank": 4},
    },
    "memory.positions": {"site": "embeddings", "memory": {"kind": "positions", "length": 64, "rank": 4}},
    "init.demonstrations": {
        "feature_map": {"kind": "elu"},
        "memory": {"kind": "matrix", "init": {"kind": "demonstrations", "text": "text: ... Area: network"}},
    },
    "init.text": {
        "placement": "inside",
        "memory": {"kind": "slots", "count": 16, "init": {"kind": "text", "text": "Name the area."}},
    },
    "init.vocabulary": {
        "placement": "inside",
        "memory": {
            "kind": "slots",
            "count": 16,
            "parameterization": {"kind": "prompt"},
            "init": {"kind": "vocabulary"},
        },
    },
    "gate.none": {"memory": {"kind": "vector"}},
}


def blocks() -> str:
    """Every installed kind, a section a family."""
    from ctxpeft.spec.registry import families, kinds

    parts = []
    for family in [name for name in FAMILIES if name in families()]:
        parts.append(f"## {family}\n\n{FAMILIES[family]}\n")
        parts += [_section(family, kind, cls) for kind, cls in kinds(family).items()]
    return "\n".join(parts)


def _section(family: str, kind: str, cls: type[BlockSpec]) -> str:
    lines = [f"### {family}: {kind}\n", f"{maths(cls.equation)}\n"]
    lines.append(f"{inspect.cleandoc(cls.__doc__ or '')}\n")
    facts = [("source", cls.cites), *_traits(cls)]
    found = example(family, kind, cls)
    if found is not None:
        facts += costs(found)
    used = [f"[{code(name)}](variants.md#{name})" for name in uses().get((family, kind), [])]
    facts.append(("used by", ", ".join(used) or "no shipped variant"))
    lines.append("\n".join(f"- *{key}*: {text}" for key, text in facts if text) + "\n")
    rows = [
        [code(name), typed(field), default(field)]
        for name, field in cls.model_fields.items()
        if name != "kind"
    ]
    if rows:
        lines.append(table(["key", "type", "default"], rows) + "\n")
    if found is not None:
        lines.append(f"```yaml\n{written(found)}```\n")
    return "\n".join(lines)


def _traits(cls: type[BlockSpec]) -> list[tuple[str, str]]:
    """What a kind declares, in words; for a map its widths too."""
    traits = []
    if hasattr(cls, "out_width"):
        traits.append(("width", _widths(cls)))
        traits.append(("sign", str(getattr(cls, "sign", "")).replace("_", " ")))
        flags = [
            word
            for word, on in (
                ("bounded by 2", getattr(cls, "bounded", False)),
                ("learned", getattr(cls, "learned", False)),
                ("random, saved as a buffer", getattr(cls, "random", False)),
            )
            if on
        ]
        traits.append(("also", ", ".join(flags)))
    return traits


def _widths(cls: type[Any]) -> str:
    try:
        spec = cls()
        return f"{spec.out_width(32)} and {spec.out_width(64)}"
    except (ValueError, CtxpeftError):
        return ""


def example(family: str, kind: str, cls: type[BlockSpec]) -> dict[str, Any] | None:
    """A module that uses the kind, as a file would write it; None where the general one does not go."""
    module: dict[str, Any] = dict(PARTICULAR.get(f"{family}.{kind}") or EXAMPLES.get(family, {}))
    if f"{family}.{kind}" not in PARTICULAR:
        if family == "feature_map":
            module = {"feature_map": {"kind": kind}, "memory": {"kind": "matrix"}}
        elif family == "memory":
            module = {"memory": {"kind": kind}}
            if cls.feature_map_use(None) == "required":  # type: ignore[attr-defined]
                module = {"feature_map": {"kind": "elu"}, **module}
        elif family == "gate":
            module = {**module, "gate": {"kind": kind}}
        else:
            module = {**module, "memory": {**module["memory"], family: {"kind": kind}}}
    module = {"placement": "outside", **module}
    try:
        Variant.model_validate({"name": "example", "modules": [module]})
    except (ValueError, CtxpeftError):
        return None
    return module


def written(module: dict[str, Any]) -> str:
    """A module as YAML, a line a key."""
    lines = []
    for key, value in module.items():
        flow = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()
        lines.append(f"{key}: {flow.removesuffix('...').strip()}")
    return "- " + "\n  ".join(lines) + "\n"


ROWS, TOKENS = (2, 3), 64


@cache
def _sketch() -> Any:
    """The model that ships, with one layer and no weights; it runs on the meta device."""
    import torch

    from ctxpeft.cli._model import empty_model
    from ctxpeft.hosts.sketch import Sketch
    from ctxpeft.training import MINI

    whole = empty_model(MINI)
    config = copy.deepcopy(whole.config)
    config.num_hidden_layers = 1
    with torch.device("meta"):
        return Sketch(type(whole)(config))


def _flops(rows: int) -> int:
    from ctxpeft.hosts.flops import flop_counter

    sketch = _sketch()
    with flop_counter() as counter:
        sketch.forward(rows, TOKENS)
    return int(counter.get_total_flops())


@cache
def _frozen(rows: int) -> int:
    return _flops(rows)


def costs(module: dict[str, Any]) -> list[tuple[str, str]]:
    """Parameters and forward FLOPs of the example in one layer of the model that ships."""
    variant = Variant.model_validate({"name": "example", "modules": [module]})
    frozen = [_frozen(rows) for rows in ROWS]
    try:
        handle = _sketch().attach(variant)
    except CtxpeftError:
        return []
    trained = handle.num_parameters()
    few, many = (_flops(rows) - before for rows, before in zip(ROWS, frozen, strict=True))
    handle.detach()
    row = (many - few) // (ROWS[1] - ROWS[0])
    once = few - ROWS[0] * row
    size = f"{trained:,} parameters, {row // TOKENS:+,} FLOPs a token" + (
        f", {once:+,} a pass" if once else ""
    )
    return [("cost of the example, a layer", size)]


def typed(field: Any) -> str:
    """What a field takes, as a spec file would write it."""
    from ctxpeft.search.space.types import field_type

    kind = field_type(field)
    parts = [code(str(literal)) for literal in kind.literals]
    parts += ["true or false"] if kind.boolean else []
    parts += [f"a kind of {kind.family.family}"] if kind.family else []
    parts += ["a mapping"] if kind.model else []
    parts += ["a whole number" if kind.number is int else "a number"] if kind.number else []
    parts += [code("null")] if kind.optional else []
    return " or ".join(parts)


def default(field: Any) -> str:
    """A field's default as a spec file would write it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, dict):
        return code("{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}")
    return code("null" if value is None else str(value).lower() if isinstance(value, bool) else str(value))
