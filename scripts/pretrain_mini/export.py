"""A checkpoint as a folder transformers loads: config, generation config, safetensors, tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from scripts.pretrain_mini.model import MAX_POSITIONS, fresh_model
from scripts.pretrain_mini.tokenizer import BOS_ID, EOS_ID, PAD_ID, wrap


def export(work: Path, checkpoint: Path, out: Path) -> None:
    """Write model and tokenizer to `out`; files already there (card, evaluation) stay."""
    model = fresh_model(0)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    model.generation_config = GenerationConfig(
        bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID, max_new_tokens=64
    )
    write(model, work, out)


def write(model: LlamaForCausalLM, work: Path, out: Path) -> None:
    """Save in float32, in one file, readable by all."""
    out.mkdir(parents=True, exist_ok=True)
    model.float().save_pretrained(out)
    wrap(Tokenizer.from_file(str(work / "tokenizer.json")), MAX_POSITIONS).save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)
