"""Folders that HF PEFT saves, for every prompt method it has and every tiny model that it can run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import peft
import torch

from ctxpeft.testing.tiny import tiny_model

COUNT = 5
PROMPTS = {"prompt-tuning", "p-tuning-mlp", "p-tuning-lstm"}
METHODS: dict[str, dict[str, Any]] = {
    "prefix-tuning": {"peft_type": "PREFIX_TUNING"},
    "prefix-tuning-projected": {
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": True,
        "encoder_hidden_size": 7,
    },
    "prompt-tuning": {"peft_type": "PROMPT_TUNING"},
    "p-tuning-mlp": {"peft_type": "P_TUNING", "encoder_hidden_size": 7},
    "p-tuning-lstm": {
        "peft_type": "P_TUNING",
        "encoder_hidden_size": 7,
        "encoder_reparameterization_type": "LSTM",
    },
    "llama-adapter": {"peft_type": "ADAPTION_PROMPT", "adapter_len": COUNT, "adapter_layers": 1},
    "cartridge": {"peft_type": "CARTRIDGE", "num_frozen_tokens": 2},
}
MODELS = ("llama", "qwen3", "gpt2")
IDS = torch.randint(3, 61, (2, 7), generator=torch.Generator().manual_seed(1))
MASKS = {
    "none": torch.ones_like(IDS),
    "left": torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]),
    "right": torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1] * 7]),
}
ABSENT = ("llama-adapter", "qwen3")
"""What PEFT refuses to build, as a test holds."""
PAIRS = [(method, family) for method in METHODS for family in MODELS if (method, family) != ABSENT]


def peft_model(method: str, family: str, **options: Any) -> Any:
    """PEFT's own model with every trained parameter away from its init."""
    settings = dict(METHODS[method])
    kind = settings.pop("peft_type")
    if method != "llama-adapter":
        settings["num_virtual_tokens"] = COUNT
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType[kind]](task_type="CAUSAL_LM", **settings)
    model = peft.get_peft_model(tiny_model(family, **options), config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad or "frozen_embedding" in key:
                noise = torch.randn(parameter.shape, generator=generator)
                scale = 0.3 if parameter.ndim > 1 and "head" in key else 1.0
                parameter.copy_(scale * noise if "gate" not in key else noise + 1.5)
    return model


def saved(method: str, family: str, folder: Path, **options: Any) -> Any:
    """Save PEFT's model into a folder; returns the model."""
    model = peft_model(method, family, **options)
    model.save_pretrained(str(folder))
    return model


def logits(model: Any, method: str, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """PEFT's logits of the input: its prompts come first in what it returns."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return found[:, -ids.shape[1] :] if method in PROMPTS else found


def assert_same_logits(
    ours: Any, theirs: Any, method: str, mask: torch.Tensor = MASKS["none"], batch: torch.Tensor = IDS
) -> None:
    """Our model computes for the real tokens of a batch what PEFT's does, up to rounding."""
    real = mask.bool()
    with torch.no_grad():
        got, want = ours(batch, attention_mask=mask).logits[real], logits(theirs, method, batch, mask)[real]
    assert torch.allclose(got, want, atol=1e-5 * float(want.abs().max()), rtol=0)


def generated(model: Any, ids: torch.Tensor, mask: torch.Tensor, count: int = 6) -> torch.Tensor:
    """Greedy tokens, without a stop."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    with contextlib.suppress(AttributeError):
        model.generation_config.eos_token_id = None
    inner.generation_config.eos_token_id = None
    out: torch.Tensor = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, disable_compile=True
    )
    return out[:, ids.shape[1] :]
