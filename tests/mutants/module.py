"""Mistakes in one module: how it reads, its query, its gates, its precision."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, algebra, shipped

VANISHED = ("tests/blocks/test_vanished_mass.py",)
MODULE = "blocks/context_module.py"
QUERY = "blocks/query.py"
TOKEN = "blocks/gates/token.py"

MUTANTS = (
    Mutant(
        "length counted without the log",
        MODULE,
        "torch.log(count.clamp_min(1))",
        "count.clamp_min(1)",
        algebra("length-compensation"),
    ),
    Mutant("length bias dropped", MODULE, " + self.length_bias", "", algebra("length-compensation")),
    Mutant(
        "gate on the mass reaches only the numerator",
        MODULE,
        "n, m, gate = n * gate, gate[..., 0] if m is None else m * gate[..., 0], None",
        "n, gate = n * gate, None",
        algebra("gates-inside"),
    ),
    Mutant(
        "normaliser dropped",
        MODULE,
        "return Read(n if m is None else _divided(n, m)), gate",
        "return Read(n), gate",
        algebra("kernelised-with-normalizer"),
    ),
    Mutant(
        "division by a vanished mass",
        MODULE,
        "empty = m < torch.finfo(m.dtype).tiny",
        "empty = m < 0",
        VANISHED,
    ),
    Mutant(
        "memories cast down",
        "blocks/precision.py",
        "return t.to(moved.device) if lowered else moved",
        "return moved",
        shipped("memories-stay-single-precision", "prefix-tuning"),
    ),
    Mutant(
        "memories in the type of the host",
        "blocks/capture.py",
        "torch.promote_types(dtype, torch.float32)",
        "dtype",
        algebra("merges-are-single-precision"),
    ),
    Mutant(
        "wrong head repeat",
        "spec/blocks.py",
        "[h // repeat for h in self.heads]",
        "[h % self.kv_heads for h in self.heads]",
        algebra("grouped-queries"),
    ),
    Mutant(
        "folded heads read transposed",
        "blocks/grouping.py",
        "x = x.reshape(batch, self.heads, tokens, width)",
        "x = x.reshape(batch, tokens, self.heads, width).transpose(1, 2)",
        algebra("prefix-tuning-plus"),
    ),
    Mutant(
        "temperature inverted",
        QUERY,
        "torch.exp(-self.log_temperature)",
        "torch.exp(self.log_temperature)",
        algebra("query-block"),
    ),
    Mutant(
        "norm forgotten",
        QUERY,
        "functional.rms_norm(x, x.shape[-1:], eps=EPS)",
        "x",
        algebra("query-block"),
    ),
    Mutant("l2 for rms", QUERY, "x.square().sum(-1", "x.square().mean(-1", algebra("query-block")),
    Mutant("query scale dropped", QUERY, "x = x * self.factor", "pass", algebra("ntk-attention")),
    Mutant(
        "token gate without its bias",
        TOKEN,
        "[..., 0] + self.bias",
        "[..., 0]",
        algebra("token-gates-outside"),
    ),
    Mutant(
        "token gate pooled over the sequence",
        TOKEN,
        "ACTIVATIONS[self.activation](logit)",
        "ACTIVATIONS[self.activation](logit.mean(2, keepdim=True).expand_as(logit))",
        algebra("modules-are-causal"),
    ),
    Mutant(
        "gate reads L without its gradient",
        TOKEN,
        "capture.log_mass()[..., None]",
        "capture.log_mass().detach()[..., None]",
        algebra("token-gates-outside"),
    ),
    Mutant(
        "log-mass of a padded query in a gate",
        TOKEN,
        "torch.isneginf(mass), 0.0",
        "torch.isneginf(mass), -torch.inf",
        (
            "tests/hosts/test_families.py::TestPaddedQueries::test_law[padded-queries-stay-finite-gated-outside-llama]",
        ),
    ),
    Mutant(
        "scalar gate without its activation",
        "blocks/gates/scalar.py",
        "ACTIVATIONS[self.activation](self.logit)[None]",
        "self.logit[None]",
        algebra("llama-adapter"),
    ),
    Mutant(
        "another constant",
        "blocks/gates/constant.py",
        "torch.full((1, 1, 1, 1), value,",
        "torch.full((1, 1, 1, 1), value / 2,",
        algebra("moved-out-with-constant-lambda"),
    ),
)
