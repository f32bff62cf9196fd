"""HF PEFT's prompt methods as variants of the algebra."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ctxpeft.adapters.layout import PEFT_CONFIG
from ctxpeft.adapters.peft_folder import PeftFolder
from ctxpeft.adapters.peft_llama_adapter import gate_name, projected, prompt_name, refusal
from ctxpeft.errors import AdapterError
from ctxpeft.hosts.discover import Layer, discover
from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant

PROMPT_EMBEDDINGS = "prompt_embeddings"
Imported = tuple[Variant, dict[str, Tensor]]


def from_peft(folder: PeftFolder, model: nn.Module) -> Imported:
    """The variant that computes what PEFT computes, and its parameters under the names of our handles.

    Raises AdapterError for a method or an option that is not read, and for a folder that does not fit the model, which
    is only looked at; HostError for a model that cannot host the variant.
    """
    read = READERS.get(folder.kind)
    if read is None:
        raise AdapterError(
            f"{folder.path / PEFT_CONFIG}: an HF PEFT adapter of type {folder.kind}; ctxpeft reads "
            f"{', '.join(sorted(READERS))} (load this one with peft.PeftModel.from_pretrained)"
        )
    config = folder.config
    if config.get("task_type") not in (None, "CAUSAL_LM") or config.get("num_transformer_submodules") not in (
        None,
        1,
    ):
        raise AdapterError(
            f"{folder.path / PEFT_CONFIG}: ctxpeft reads adapters of causal language models, found task_type "
            f"{str(config.get('task_type'))[:40]!r}"
        )
    if config.get("modules_to_save"):
        raise AdapterError(
            f"{folder.path / PEFT_CONFIG}: modules_to_save are parts of the base, which ctxpeft keeps frozen"
        )
    return read(folder, discover(model))


def _prefix(folder: PeftFolder, layers: list[Layer]) -> Imported:
    """K and V of every layer, at positions 0 to P-1; a projection is folded already. `num_frozen_tokens` slots of a
    cartridge stay frozen."""
    count = folder.number("num_virtual_tokens")
    frozen = folder.number("num_frozen_tokens", 0) if folder.kind == "CARTRIDGE" else 0
    frozen = frozen if frozen < count else 0
    first = layers[0]
    heads, width = first.kv_heads, first.query_width
    if any((la.kv_heads, la.query_width, la.value_width) != (heads, width, width) for la in layers):
        raise AdapterError(
            f"{folder.path}: the layers of this model differ in shape, and PEFT's prefix does not"
        )
    folder.agree("num_layers", len(layers))
    folder.agree("num_attention_heads", heads)
    folder.only(PROMPT_EMBEDDINGS)
    whole = folder.shaped(PROMPT_EMBEDDINGS, count, len(layers) * 2 * heads * width)
    pairs = whole.view(count, len(layers), 2, heads, width).permute(1, 2, 3, 0, 4)
    tensors: dict[str, Tensor] = {}
    for layer, pair in enumerate(pairs):
        for name, t in zip(("key", "value"), pair, strict=True):
            slots = f"layers.{layer}.0.memory.slots"
            if frozen:
                tensors[f"{slots}.{name}"] = t[:, :frozen]
            tensors[f"{slots}.{'trained.' if frozen else ''}{name}"] = t[:, frozen:]
    _tell_of_windows(folder, layers)
    memory = {"kind": "slots", "count": count - frozen, "frozen": frozen, "position": "auto"}
    return _variant(folder, {"placement": "inside", "memory": memory}), tensors


def _prompt(folder: PeftFolder, layers: list[Layer]) -> Imported:
    """The embeddings of the virtual tokens; an encoder is folded already."""
    count, width = folder.number("num_virtual_tokens"), layers[0].hidden_width
    folder.agree("token_dim", width)
    folder.only(PROMPT_EMBEDDINGS)
    embeddings = folder.shaped(PROMPT_EMBEDDINGS, count, width)
    _tell_of_windows(folder, layers)
    memory = {"kind": "slots", "count": count, "parameterization": {"kind": "prompt"}}
    return _variant(folder, {"placement": "inside", "memory": memory}), {
        "shared.0.prompt.embedding": embeddings
    }


def _llama_adapter(folder: PeftFolder, layers: list[Layer]) -> Imported:
    """Prompts through the frozen W_K and W_V under their own softmax, one linear gate a layer. PEFT adds g W_O r behind
    the linear W_O, which is W_O (o + g r); on GPT-2 it adds g r itself there."""
    count, last = folder.number("adapter_len"), folder.number("adapter_layers")
    if last > len(layers):
        raise AdapterError(
            f"{folder.path / PEFT_CONFIG}: made for another model{folder.base()}: 'adapter_layers' is {last} and this "
            f"model has {len(layers)} layers"
        )
    chosen = layers[-last:]
    reason = refusal(chosen)
    if reason is not None:
        raise AdapterError(f"{folder.path}: {reason}")
    names = [name for layer in chosen for name in (prompt_name(layer), gate_name(layer))]
    folder.only(*names)
    tensors: dict[str, Tensor] = {}
    for layer in chosen:
        prompt = folder.shaped(prompt_name(layer), 1, count, layer.hidden_width)
        tensors[f"layers.{layer.index}.0.memory.slots.prompt"] = prompt[0]
        tensors[f"layers.{layer.index}.0.gate.logit"] = folder.shaped(gate_name(layer), 1).view(1, 1, 1)
    module = {
        "placement": "outside",
        "memory": {"kind": "slots", "count": count, "parameterization": {"kind": "frozen_projection"}},
        "gate": {"kind": "scalar", "activation": "linear", "per": "layer"},
        "scope": {"layers": "all" if last == len(layers) else {"last": last}},
        "projected": projected(chosen),
    }
    return _variant(folder, module), tensors


READERS: dict[str, Callable[[PeftFolder, list[Layer]], Imported]] = {
    "PREFIX_TUNING": _prefix,
    "CARTRIDGE": _prefix,
    "PROMPT_TUNING": _prompt,
    "P_TUNING": _prompt,
    "ADAPTION_PROMPT": _llama_adapter,
}
SOURCES = {
    "PREFIX_TUNING": ("Prefix-Tuning", "arXiv:2101.00190"),
    "CARTRIDGE": ("Cartridge", "arXiv:2506.06266"),
    "PROMPT_TUNING": ("Prompt Tuning", "arXiv:2104.08691"),
    "P_TUNING": ("P-Tuning", "arXiv:2103.10385"),
    "ADAPTION_PROMPT": ("LLaMA-Adapter", "arXiv:2303.16199"),
}


def _variant(folder: PeftFolder, module: dict[str, Any]) -> Variant:
    title, source = SOURCES[folder.kind]
    name = "peft-" + folder.kind.lower().replace("_", "-")
    return load_variant(
        {"name": name, "title": f"{title}, from HF PEFT", "source": source, "modules": [module]}
    )


def _tell_of_windows(folder: PeftFolder, layers: list[Layer]) -> None:
    window = min((w for layer in layers if (w := layer.window()) is not None), default=None)
    if window is not None:
        warnings.warn(
            f"{folder.path}: this model has layers with a sliding window of {window} tokens; PEFT's virtual tokens "
            "leave it as the input grows and here they stay visible: they are equal for inputs that fit into it",
            stacklevel=5,
        )
