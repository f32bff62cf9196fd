"""What the modules of a decoder layer are called across families, as data."""

from __future__ import annotations

FFN: tuple[tuple[str, str], ...] = (
    ("mlp", "mlp"),
    ("feed_forward", "feed_forward"),
    ("block_sparse_moe", "block_sparse_moe"),
    ("moe", "moe"),
    ("ffn.ffn", "ffn.ffn"),
    ("ffn", "ffn"),
    ("ff", "ff"),
    ("ff_layer", "ff_layer"),
    ("feedforward", "feedforward"),
    ("mlp_block", "mlp_block"),
    ("channel_mixer", "channel_mixer"),
    ("mixer_mlp", "mixer_mlp"),
    ("mlp_moe", "mlp_moe"),
    ("fc1", "fc2"),
    ("intermediate.dense", "output.dense"),
    ("layer.1.DenseReluDense", "layer.1.DenseReluDense"),
    ("layer.2.DenseReluDense", "layer.2.DenseReluDense"),
)
"""The FFN of a layer: the module that takes its input and the one that gives its output (the same where it is one)."""

ATTENTION: tuple[str, ...] = (
    "self_attn",
    "self_attention",
    "attention",
    "attn",
    "attn1",
    "self_att.self_attention",
)
"""The attention of a layer that does not call the interface."""

PROJECTED_BY = "output.dense"
"""Beside an attention called `self` (BERT), the module that projects what leaves its heads."""

ASIDE: tuple[str, ...] = ("patcher",)
"""Parts of a model whose attention only decides how the text is cut: no memory is trained there."""

RECURRENCE = "receptance"
"""The part by which a module called `attention` is a linear recurrence and no attention (RWKV)."""

REVERSIBLE = "backward_pass"
"""The method of a layer that computes its own gradients (Reformer): a memory beside its parts would get none."""
