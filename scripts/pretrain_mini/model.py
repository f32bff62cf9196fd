"""The architecture: a Llama with grouped queries, small enough that fp32 weights stay below 10 MB."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.pretrain_mini.tokenizer import BOS_ID, EOS_ID, PAD_ID, VOCABULARY

MAX_POSITIONS = 512


def configuration(vocabulary: int = VOCABULARY) -> LlamaConfig:
    """Width 192, 6 layers, 6 query and 2 key-value heads of width 32, tied embeddings: 2,312,640 parameters."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )


def fresh_model(seed: int) -> LlamaForCausalLM:
    """A randomly initialised model; the same seed gives the same weights."""
    torch.manual_seed(seed)
    model: LlamaForCausalLM = LlamaForCausalLM(configuration())
    return model
