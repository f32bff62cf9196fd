"""A variant as the line one would write on a blackboard: `o ← o + elu(q)ᵀ M`.

Notation: o content output (h the residual stream, e the embedding, y what W_O makes of all heads, cut into as many), L
its log-mass, q the query (q̄ before RoPE, x the hidden state), K and V slot keys and values, M a matrix, z a positive
normaliser, b a vector, g a gate, ρ the weight of the memory, σ the logistic function. Each symbol is per head unless
the spec shares it.
"""

from __future__ import annotations

from ctxpeft.errors import one_line
from ctxpeft.spec.blocks import FeatureMapSpec
from ctxpeft.spec.module import ModuleSpec
from ctxpeft.spec.peft import PeftSpec
from ctxpeft.spec.scope import LayerRange, Scope
from ctxpeft.spec.variant import Variant

SOURCES = {"rotated": "q", "unrotated": "q̄", "hidden": "x"}
PEFT = {
    "LORA": "W ← W + (α/r) B A",
    "ADALORA": "W ← W + P Λ Q",
    "IA3": "y ← l ⊙ y",
    "LN_TUNING": "the parameters of the layer norms are trained",
    "VERA": "W ← W + Λ_b B Λ_d A",
    "LOHA": "W ← W + (B₁ A₁) ⊙ (B₂ A₂)",
    "LOKR": "W ← W + C ⊗ (B A)",
    "OFT": "W ← R W",
    "BOFT": "W ← R W",
    "HRA": "W ← W H₁ ⋯ H_r",
    "FOURIERFT": "W ← W + F⁻¹(C)",
}


def variant_equations(variant: Variant) -> list[str]:
    """One line a module, in order; one line for a wrapped PEFT tuner."""
    if variant.peft is not None:
        return [one_line(_peft(variant.peft))]
    return [module_equation(module) for module in variant.modules]


def module_equation(module: ModuleSpec) -> str:
    """The merge of one module, what its symbols stand for, and where it acts if that is not everywhere."""
    parts = _inside(module) if module.placement == "inside" else _outside(module)
    if _query(module) == "q'":
        parts.append(f"q' = {_query(module, spelled=True)}")
    return ", ".join(parts) + _where(module)


def _outside(module: ModuleSpec) -> list[str]:
    o = _output(module) if module.projected else "y"
    gate, meaning = _gate(module)
    factor = "" if gate == "1" else f"{gate} ⊙ " if module.gate.per_channel() else f"{gate} "
    if module.merge == "scale":
        line = f"{o} ← {factor}{o}"
    elif module.merge == "mix":
        constant = getattr(module.gate, "value", None) if module.gate.kind == "constant" else None
        rest = f"(1 − {gate})" if constant is None else f"{1 - constant:g}"
        line = f"{o} ← {rest} {o} + {factor}{_read(module)}"
    else:
        line = f"{o} ← {o} + {factor}{_read(module)}"
    return [line, *meaning]


def _inside(module: ModuleSpec) -> list[str]:
    numerator, mass = _numerator_and_mass(module)
    gate, meaning = _gate(module)
    if module.merge == "compete" and gate == "1" and module.memory.kind == "matrix":
        return [f"o ← (e^L o + {numerator}) / (e^L + {mass})"]
    log_mass = "l + log n + b" if module.merge == "compete_length" else "l"
    if module.gate.on == "mass" and gate != "1":
        log_mass += f" + log {gate}"
    weight = "" if module.gate.on == "mass" or gate == "1" else f"{gate} "
    lines = [f"o ← (1 − ρ) o + ρ {_normalised(module, numerator, mass)}", f"ρ = {weight}σ({log_mass} − L)"]
    lines.append(f"l = {mass[2:]}" if mass.startswith("e^") else f"l = log {mass}")
    if module.merge == "compete_length":
        lines.append("n = number of visible content keys")
    return [*lines, *meaning]


def _read(module: ModuleSpec) -> str:
    """The read r of an outside module."""
    numerator, mass = _numerator_and_mass(module)
    if module.normalizer == "softmax":
        return _normalised(module, numerator, mass)
    return f"({numerator}) / ({mass})" if module.normalizer == "sum" else numerator


def _normalised(module: ModuleSpec, numerator: str, mass: str) -> str:
    """The read divided by its mass."""
    return module.memory.written_normalised(_query(module)) or f"({numerator}) / ({mass})"


def _numerator_and_mass(module: ModuleSpec) -> tuple[str, str]:
    return module.memory.written(_query(module), lambda x: _phi(module.feature_map, x))


def _phi(feature_map: FeatureMapSpec | None, argument: str) -> str:
    """The map applied to its argument."""
    return argument if feature_map is None else feature_map.written(argument)


def _output(module: ModuleSpec) -> str:
    """What is merged into: o, the residual stream h, or the embedding e."""
    return {"residual": "h", "embeddings": "e"}.get(module.site, "o")


def _query(module: ModuleSpec, spelled: bool = False) -> str:
    """The name of the query, `q'` where it is more than its source; or what `q'` stands for."""
    query = module.query
    symbol = _output(module) if query.source == "output" else SOURCES[query.source or "rotated"]
    text = {"none": symbol, "rms": f"rms({symbol})", "l2": f"{symbol}/‖{symbol}‖"}[query.norm]
    text += {"none": "", "inverse_sqrt": " d^(−1/2)", "inverse_fourth_root": " d^(−1/4)"}[query.scale]
    if query.learned_temperature:
        text += " / τ"
    elif query.temperature != 1.0:
        text += f" / {query.temperature:g}"
    if spelled:
        return text
    return symbol if text == symbol else "q'"


def _gate(module: ModuleSpec) -> tuple[str, list[str]]:
    """How a gate is written in the equation, and what must be said beside it."""
    symbol, meaning = module.gate.written(_query(module), _output(module))
    return symbol, [f"{symbol} = {meaning}"] if meaning else []


def _where(module: ModuleSpec) -> str:
    """The site and the scope, where they are not the attention heads of every layer."""
    places = {
        "attention_output": "after the attention",
        "ffn": "beside the FFN",
        "residual": "on the residual stream",
        "embeddings": "at the embeddings",
    }
    tokens = {"prompt": "prompt tokens", "generated": "generated tokens"}.get(module.scope.tokens, "")
    place = places.get(module.site, "") if module.projected else "behind the output projection"
    parts = [place, _layers(module.scope), _heads(module.scope), tokens]
    parts = [text for text in parts if text]
    return f"   [{', '.join(parts)}]" if parts else ""


def _layers(scope: Scope) -> str:
    if isinstance(scope.layers, LayerRange):
        found = scope.layers
        if found.every is not None:
            ordinal = {2: "2nd", 3: "3rd"}.get(found.every, f"{found.every}th")
            return f"every {ordinal} layer from the last" if found.every > 1 else ""
        side, number = ("first", found.first) if found.first is not None else ("last", found.last)
        assert number is not None
        return f"{side} {number:.0%} of the layers" if number < 1 else f"{side} {number:g} layers"
    return "" if scope.layers == "all" else f"layers {', '.join(map(str, scope.layers))}"


def _heads(scope: Scope) -> str:
    return "" if scope.heads == "all" else f"heads {', '.join(map(str, scope.heads))}"


def _peft(peft: PeftSpec) -> str:
    equation = PEFT.get(peft.peft_type, peft.peft_type)
    targets = peft.arguments().get("target_modules")
    if not targets:
        return equation
    return f"{equation}   [{', '.join(map(str, targets)) if isinstance(targets, list) else targets}]"
