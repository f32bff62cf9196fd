"""Variants that between them use every site, source and merge."""

MIXED = {
    "name": "mixed",
    "modules": [
        {
            "placement": "inside",
            "memory": {"kind": "slots", "count": 3, "init": {"kind": "normal", "std": 0.5}},
        },
        {
            "placement": "inside",
            "merge": "compete_length",
            "length_bias": -2.0,
            "query": {"source": "unrotated"},
            "memory": {"kind": "slots", "count": 2, "init": {"kind": "normal", "std": 0.5}},
            "gate": {"kind": "scalar", "activation": "sigmoid", "on": "mass"},
        },
        {
            "placement": "outside",
            "query": {"source": "hidden", "norm": "rms"},
            "feature_map": {"kind": "projection", "width": 5},
            "phi_per": "kv_head",
            "memory": {"kind": "matrix", "per": "kv_head"},
            "gate": {"kind": "token", "source": "log_mass"},
        },
        {
            "placement": "outside",
            "merge": "mix",
            "query": {"source": "output", "learned_temperature": True},
            "feature_map": {"kind": "hedgehog"},
            "memory": {"kind": "matrix"},
            "normalizer": "sum",
            "gate": {"kind": "scalar", "activation": "sigmoid", "per": "channel", "init": -2.0},
            "scope": {"layers": {"last": 1}, "heads": [0, 2]},
        },
        {
            "placement": "outside",
            "site": "attention_output",
            "query": {"source": "output"},
            "feature_map": {"kind": "silu"},
            "memory": {"kind": "matrix", "form": "low_rank", "rank": 2},
        },
        {
            "placement": "outside",
            "site": "ffn",
            "feature_map": {"kind": "projection", "width": 4, "activation": "relu"},
            "memory": {"kind": "matrix"},
            "gate": {"kind": "token", "source": "hidden"},
        },
        {"placement": "outside", "memory": {"kind": "vector"}},
        {
            "placement": "outside",
            "merge": "scale",
            "memory": {"kind": "none"},
            "gate": {"kind": "token", "source": "hidden", "activation": "linear", "init": 1.0},
        },
    ],
}
INSIDE = {"name": "inside", "modules": [MIXED["modules"][0]]}
VARIANTS = {
    "prefix-tuning": "prefix-tuning",
    "prefix-tuning-plus": "prefix-tuning-plus",
    "prefix-tuning-plus-unrotated": "prefix-tuning-plus-unrotated",
    "llama-adapter": "llama-adapter",
    "ntk-attention": "ntk-attention",
    "parallel-adapter-ffn": "parallel-adapter-ffn",
    "mixed": MIXED,
}
WIDE = {
    "name": "wide",
    "modules": [
        {
            "placement": "outside",
            "site": "embeddings",
            "feature_map": {"kind": "projection", "width": 4},
            "phi_per": "layer",
            "memory": {"kind": "matrix", "per": "layer"},
            "gate": {"kind": "token", "source": "output"},
        },
        {
            "placement": "outside",
            "site": "residual",
            "feature_map": {"kind": "projection", "width": 3},
            "phi_per": "model",
            "memory": {"kind": "matrix", "per": "model"},
            "gate": {"kind": "token", "source": "hidden"},
        },
        {
            "placement": "inside",
            "memory": {"kind": "slots", "count": 3, "per": "model", "init": {"kind": "normal", "std": 0.5}},
        },
    ],
}
VARIANTS["wide"] = WIDE
