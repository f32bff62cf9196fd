"""What HF PEFT's prompt methods can say of an adapter of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxpeft.adapters.peft_import import PROMPT_EMBEDDINGS
from ctxpeft.adapters.peft_llama_adapter import gate_name, projected, prompt_name, refusal
from ctxpeft.adapters.save import base_name
from ctxpeft.blocks.capture import Capture
from ctxpeft.blocks.context_module import ContextModule
from ctxpeft.errors import AdapterError
from ctxpeft.hosts.discover import Layer
from ctxpeft.hosts.handle import Handle
from ctxpeft.spec.module import ModuleSpec

FOLDED = ("direct", "mlp", "low_rank", "shared_kv", "frozen_projection")
Exported = tuple[dict[str, Any], dict[str, Tensor]]


def to_peft(handle: Handle) -> Exported:
    """PEFT's configuration and tensors. Reparameterisations and encoders are folded into what they produce.

    Raises AdapterError with the reason where PEFT has no method that computes the same on this model.
    """
    layers = handle.layers
    modules = handle.variant.modules
    try:
        if len(modules) != 1:
            raise AdapterError(
                f"PEFT holds one prompt method an adapter, and this one has {len(modules)} modules"
            )
        _check_plain(modules[0])
        if modules[0].placement == "outside":
            return _llama_adapter(handle, modules[0], layers)
        _check_inside(modules[0], layers)
        memory: Any = modules[0].memory
        if memory.parameterization.virtual_tokens:
            return _prompt(handle, layers)
        return _prefix(handle, memory, layers)
    except AdapterError as error:
        raise AdapterError(f"{handle.variant.name} cannot be exported to PEFT: {error}") from None


def _check_plain(spec: ModuleSpec) -> None:
    """Slots at every head, asked by every token with the plain rotated query."""
    memory: Any = spec.memory
    if memory.kind != "slots" or memory.score != "softmax":
        score = f" with score '{memory.score}'" if memory.kind == "slots" else ""
        raise AdapterError(
            f"its prompt methods are slots asked by softmax, and this is memory '{memory.kind}'{score}"
        )
    if memory.gated:
        raise AdapterError("it has no gates of single slots (memory.gated)")
    query = spec.query
    changed = (
        query.norm != "none" or query.scale != "none" or query.learned_temperature or query.temperature != 1
    )
    if spec.site != "head" or query.source != "rotated" or changed:
        raise AdapterError("its slots are asked at the attention heads with the query as it is")
    if spec.scope.heads != "all" or spec.scope.tokens != "all":
        raise AdapterError("its prompt methods act at all heads and on all tokens")


def _check_inside(spec: ModuleSpec, layers: list[Layer]) -> None:
    """One softmax with the content, in every layer, seen from everywhere."""
    if spec.merge != "compete" or spec.gate.kind != "none":
        raise AdapterError("its slots compete with the input as they are: merge 'compete' without a gate")
    if spec.scope.layer_indices(len(layers)) != list(range(len(layers))):
        raise AdapterError("its prefixes and prompts act in every layer")
    if any(layer.window() is not None for layer in layers):
        raise AdapterError(
            "this model has layers with a sliding window, which PEFT's virtual tokens leave as the input grows, and "
            "here they stay visible"
        )


def _prefix(handle: Handle, memory: Any, layers: list[Layer]) -> Exported:
    """K and V of every layer as they stand in a cache at positions 0 to P-1; with frozen slots, a cartridge."""
    if memory.parameterization.kind not in FOLDED:
        raise AdapterError(
            f"it keeps keys and values, and '{memory.parameterization.kind}' does not come down to them"
        )
    first = layers[0]
    heads, width = first.kv_heads, first.query_width
    if any((la.kv_heads, la.query_width, la.value_width) != (heads, width, width) for la in layers):
        raise AdapterError("the layers of this model differ in shape, and its prefix does not")
    raw = memory.placed(first.turnable) == "raw"
    if raw and not first.turnable:
        raise AdapterError(
            "it shifts the positions of the input by the number of slots, position 'raw' does not, and on this model "
            "no rotation of the keys makes up for it: train with position 'auto'"
        )
    pairs = []
    for layer, module in _by_layer(handle, layers):
        key, value = _folded(module, layer)
        if raw and layer.rotary is not None:
            key = layer.rotary.turn(key, memory.total())
        pairs.append(torch.stack([_per_kv_head(t, heads) for t in (key, value)]))
    whole = torch.stack(pairs).permute(3, 0, 1, 2, 4).reshape(memory.total(), -1)
    config = {
        **_config(handle, "CARTRIDGE" if memory.frozen else "PREFIX_TUNING"),
        "num_virtual_tokens": memory.total(),
        "num_transformer_submodules": 1,
        "num_layers": len(layers),
        "num_attention_heads": heads,
        "token_dim": heads * width,
    }
    config |= {"num_frozen_tokens": memory.frozen} if memory.frozen else {"prefix_projection": False}
    return config, {PROMPT_EMBEDDINGS: whole}


def _prompt(handle: Handle, layers: list[Layer]) -> Exported:
    """The embeddings of the virtual tokens."""
    (owner,) = [b.module for b in handle.built if b.layer is None]
    with torch.no_grad():
        embeddings: Tensor = owner.prompt()  # type: ignore[operator]
    config = {
        **_config(handle, "PROMPT_TUNING"),
        "num_virtual_tokens": len(embeddings),
        "num_transformer_submodules": 1,
        "num_layers": len(layers),
        "num_attention_heads": layers[0].query_heads,
        "token_dim": layers[0].hidden_width,
        "prompt_tuning_init": "RANDOM",
    }
    return config, {PROMPT_EMBEDDINGS: embeddings}


def _llama_adapter(handle: Handle, spec: ModuleSpec, layers: list[Layer]) -> Exported:
    """Prompts and one linear gate for each of the last layers."""
    memory: Any = spec.memory
    chosen = spec.scope.layer_indices(len(layers))
    if spec.merge != "add" or memory.parameterization.kind != "frozen_projection" or memory.frozen:
        raise AdapterError(
            "outside the softmax it has LLaMA-Adapter alone: merge 'add' and parameterization 'frozen_projection'"
        )
    if memory.position != "raw":
        raise AdapterError("its LLaMA-Adapter leaves the keys of its prompts unrotated: position 'raw'")
    if spec.gate.kind not in ("none", "constant", "scalar") or getattr(spec.gate, "per", "layer") != "layer":
        raise AdapterError("its LLaMA-Adapter has one gate a layer, the same for all tokens and heads")
    if chosen != list(range(len(layers)))[-len(chosen) :]:
        raise AdapterError("its LLaMA-Adapter acts in the last layers, as many as one likes")
    reason = refusal([layers[i] for i in chosen])
    if reason is not None:
        raise AdapterError(reason)
    through = projected(layers)
    if spec.projected != through:
        way = "through the output projection" if through else "behind the output projection, past it"
        raise AdapterError(
            f"on this model its LLaMA-Adapter adds what the heads read {way}: projected: {str(through).lower()}"
        )
    tensors: dict[str, Tensor] = {}
    for layer, module in _by_layer(handle, layers):
        slots: Any = module.memory.slots
        with torch.no_grad():
            gate = module.gate(Capture(output=slots.prompt), slots.prompt)
            tensors[prompt_name(layer)] = slots.hidden_states()[None]
        tensors[gate_name(layer)] = torch.ones(1) if gate is None else gate.reshape(1)
    config = {
        **_config(handle, "ADAPTION_PROMPT"),
        "adapter_len": memory.count,
        "adapter_layers": len(chosen),
        "target_modules": layers[0].attribute,
    }
    return config, tensors


def _config(handle: Handle, kind: str) -> dict[str, Any]:
    return {
        "peft_type": kind,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "base_model_name_or_path": base_name(handle),
        "revision": None,
        "auto_mapping": None,
    }


def _by_layer(handle: Handle, layers: list[Layer]) -> list[tuple[Layer, ContextModule]]:
    return [(layers[b.layer], b.module) for b in handle.built if b.layer is not None]  # type: ignore[misc]


def _folded(module: ContextModule, layer: Layer) -> tuple[Tensor, Tensor]:
    """K (G, P, d) and V (G, P, dv) of one layer."""
    with torch.no_grad():
        weight = layer.weight()
        slots: Any = module.memory.slots
        key, value = slots(Capture(output=weight, project_kv=layer.project_kv))
    return key, value


def _per_kv_head(t: Tensor, heads: int) -> Tensor:
    """(G, P, w) -> (Hkv, P, w). Raises AdapterError for one set a query head where kv heads are shared."""
    if len(t) not in (1, heads):
        raise AdapterError(
            "it has one set of slots a kv head, and this adapter one a query head (memory.per)"
        )
    return t.expand(heads, -1, -1)
