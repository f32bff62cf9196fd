"""Mistakes in what is known of the content's softmax: L and the visible keys."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

FUSED = ("tests/hosts/test_fused.py",)
CONTENT = ("tests/hosts/test_content.py",)
READ = "hosts/content.py"
KERNEL = "blocks/attention.py"

MUTANTS = (
    Mutant(
        "gradient of the fused mass dropped",
        KERNEL,
        "dmass / norm * do",
        "0 * dmass / norm * do",
        FUSED,
    ),
    Mutant(
        "gradient of a fused mass without one of the output",
        KERNEL,
        "dmass / step * first",
        "0 * dmass * first",
        FUSED,
    ),
    Mutant(
        "fused rows that see nothing",
        "hosts/fused.py",
        "mass.masked_fill(~visible.any(-1), -torch.inf)",
        "mass",
        FUSED,
    ),
    Mutant(
        "fused mask dropped",
        "hosts/fused.py",
        "return mask[..., :length].to(dtype)",
        "return torch.zeros_like(mask[..., :length], dtype=dtype)",
        FUSED,
    ),
    Mutant(
        "keys of other heads for one query",
        KERNEL,
        "t.reshape(t.shape[0], groups, t.shape[1] // groups, *t.shape[3:])",
        "t.reshape(t.shape[0], t.shape[1] // groups, groups, *t.shape[3:]).transpose(1, 2)",
        FUSED,
    ),
    Mutant("mask off by one", READ, ".tril()", ".tril(-1)", CONTENT),
    Mutant(
        "padding counted in the mass",
        READ,
        "score = score.masked_fill(~visible, -torch.inf)",
        "pass",
        CONTENT,
    ),
    Mutant(
        "padding counted as keys",
        READ,
        "return visible.sum(-1)",
        "return visible.sum(-1) * 0 + visible.shape[-1]",
        CONTENT,
    ),
    Mutant("missing sink", READ, 'sinks = self.options.get("s_aux")', "sinks = None", CONTENT),
    Mutant(
        "content softcap forgotten", READ, "score = torch.tanh(score / softcap) * softcap", "pass", CONTENT
    ),
    Mutant(
        "content scaling forgotten",
        READ,
        "query.shape[-1] ** -0.5 if told is None else told",
        "1.0",
        CONTENT,
    ),
    Mutant(
        "queries of other kv heads in the mass",
        READ,
        "score = score.reshape(batch, heads, tokens, length)",
        "score = score.reshape(batch, tokens, heads, length).transpose(1, 2)",
        CONTENT,
    ),
)
