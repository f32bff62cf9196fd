"""Mistakes where the host is seen and changed."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, mixed, shipped

SOURCES = ("tests/hosts/test_sources.py",)
SEAM = "hosts/seam.py"
SIGHT = "hosts/sight.py"
PROJECTED = ("tests/hosts/test_projected.py", "-k", "identity and gpt2")

MUTANTS = (
    Mutant("reads another token's query", SIGHT, "rotated=query,", "rotated=query.flip(2),", mixed("causal")),
    Mutant(
        "reads another row's hidden state",
        SIGHT,
        "hidden=None if self.hidden is None else self.hidden[:, None],",
        "hidden=None if self.hidden is None else self.hidden.flip(0)[:, None],",
        mixed("rows-are-separate-batches"),
    ),
    Mutant(
        "rotated for unrotated",
        "hosts/discover.py",
        "return self.wiring.query.output.take(output).transpose(1, 2)",
        "return self.wiring.query.output.take(output).roll(1, -1).transpose(1, 2)",
        SOURCES,
    ),
    Mutant(
        "key norm skipped in frozen projections",
        "hosts/wiring.py",
        "for step in self.steps:\n            module",
        "for step in self.steps[:1]:\n            module",
        SOURCES,
    ),
    Mutant(
        "heads of a fused projection taken from its start",
        "hosts/wiring.py",
        "[..., self.offset : self.offset + size]",
        "[..., :size]",
        SOURCES,
    ),
    Mutant(
        "plan not replayed",
        SEAM,
        "plan = kwargs.pop(PLAN, None)",
        "plan = kwargs.pop(PLAN, None) and None",
        shipped("gradient-checkpointing", "prefix-tuning"),
    ),
    Mutant(
        "content weights not scaled",
        SEAM,
        "weights = weights * kept[..., None].to(weights.dtype)",
        "pass",
        shipped("weights-are-what-is-left", "prefix-tuning"),
    ),
    Mutant(
        "config left behind",
        SEAM,
        "attention.config = self.original_config\n        del",
        "del",
        shipped("detach-restores-the-base", "prefix-tuning"),
    ),
    Mutant(
        "hooks left behind",
        SEAM,
        "self.removers = [hook.remove for hook in hooks]",
        "self.removers = [hook.remove for hook in hooks[1:]]",
        shipped("detach-restores-the-base", "prefix-tuning"),
    ),
    Mutant(
        "stale backend",
        "hosts/backend.py",
        "get_interface(config._attn_implementation, eager)",
        'get_interface("sdpa", eager)',
        mixed("weights-are-what-is-left"),
    ),
    Mutant("reads past the projection dropped", SEAM, "if behind is not None:", "if False:", PROJECTED),
    Mutant(
        "reads past the projection put through it",
        "hosts/site.py",
        "if m.spec.projected == projected]",
        "if projected]",
        PROJECTED,
    ),
    Mutant(
        "residual edits dropped",
        SEAM,
        'self._merge(self.residual_site, "residual", output, self.entered)',
        "None",
        shipped("trains-the-adapter-alone", "reft"),
    ),
)
