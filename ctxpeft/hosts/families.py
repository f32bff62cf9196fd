"""What the modules of a decoder layer are called across families, as data."""

from __future__ import annotations

FFN: tuple[tuple[str, str], ...] = (
    ("mlp", "mlp"),
    ("feed_forward", "feed_forward"),
    ("block_sparse_moe", "block_sparse_moe"),
    ("moe", "moe"),
    ("ffn.ffn", "ffn.ffn"),
    ("ffn.linear_1", "ffn.linear_2"),
    ("ffn", "ffn_output"),
    ("ffn", "ffn"),
    ("ff.layer_1", "ff.layer_2"),
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
    ("layer.1.mlp", "layer.1.mlp"),
    ("layer.2.mlp", "layer.2.mlp"),
)
"""The FFN of a layer: the module that takes its input and the one that gives its output (the same where it is one)."""

ATTENTION: tuple[str, ...] = (
    "self_attn",
    "self_attention",
    "attention",
    "attn",
    "attn1",
    "rel_attn",
    "self_att.self_attention",
)
"""The attention of a layer that does not call the interface."""

CROSS: tuple[str, ...] = ("encoder_attn", "cross_attn")
"""The attention to an encoder of a layer that does not call the interface."""

PIECES: tuple[tuple[str, str, str], ...] = (("attentions", "ffns", "layer_norm2"),)
"""Lists beside each other that hold the parts of layers which are no modules (XLM): the attentions, the FFNs, and the
norms that close a layer where they come last."""

PROJECTED_BY = "output.dense"
"""Beside an attention called `self` (BERT), the module that projects what leaves its heads."""

PROJECTED_IN: tuple[str, ...] = ("output.dense", "post_proj")
"""Inside an attention that adds its input to what its heads say, the module that projects the latter."""

ASIDE: tuple[str, ...] = ("patcher",)
"""Parts of a model whose attention only decides how the text is cut: no memory is trained there."""

RECURRENCE = "receptance"
"""The part by which a module called `attention` is a linear recurrence and no attention (RWKV)."""

REVERSIBLE = "backward_pass"
"""The method of a layer that computes its own gradients (Reformer): a memory beside its parts would get none."""
