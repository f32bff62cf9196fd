"""The deliberate mistakes of `tests/mutation.py`, file by file: at least one for every fast path."""

from __future__ import annotations

from dataclasses import dataclass

FUSED = ("tests/hosts/test_fused.py",)
CONTENT = ("tests/hosts/test_content.py",)
SOURCES = ("tests/hosts/test_sources.py",)
VANISHED = ("tests/blocks/test_vanished_mass.py",)
MAPS = ("tests/blocks/test_feature_maps.py", "tests/blocks/test_feature_map_laws.py")
TABLES = ("tests/blocks/test_edit_and_positions.py",)


def algebra(*laws: str) -> tuple[str, ...]:
    """Laws of the algebra by id."""
    return ("tests/laws/test_algebra.py", "-k", " or ".join(laws))


def shipped(law: str, *variants: str, host: str = "TestOnLlama") -> tuple[str, ...]:
    """A law of hosts for shipped variants."""
    return tuple(f"tests/laws/test_shipped.py::{host}::test_law[{law}-{variant}]" for variant in variants)


def mixed(law: str, family: str = "llama") -> tuple[str, ...]:
    """A law of hosts for the variant that uses every merge, source and gate."""
    return (f"tests/hosts/test_families.py::TestFamilies::test_law[{law}-mixed-{family}]",)


@dataclass(frozen=True)
class Mutant:
    """In `file` of the package `old` becomes `new`; `tests` are pytest's arguments for those that must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


COMPOSE = "blocks/compose.py"
MODULE = "blocks/context_module.py"
SLOTS = "blocks/memory/slots.py"
MATRIX = "blocks/memory/matrix.py"
QUERY = "blocks/query.py"
TOKEN = "blocks/gates/token.py"
SEAM = "hosts/seam.py"
READ = "hosts/content.py"

MUTANTS = (
    # the merge
    Mutant(
        "sign of the prefix",
        COMPOSE,
        "n - m[..., None] * o",
        "n + m[..., None] * o",
        algebra("tradeoff-form"),
    ),
    Mutant(
        "inside modules merged one after another",
        COMPOSE,
        "(n - m[..., None] * o)",
        "(n - m[..., None] * merged)",
        algebra("inside-joins-one-softmax"),
    ),
    Mutant(
        "content mass forgotten",
        COMPOSE,
        "total = torch.exp(log_mass - shift)",
        "total = torch.zeros_like(log_mass)",
        algebra("inside-is-concatenation"),
    ),
    Mutant(
        "L detached",
        COMPOSE,
        "torch.exp(log_mass - shift)",
        "torch.exp(log_mass.detach() - shift)",
        algebra("inside-is-concatenation"),
    ),
    Mutant(
        "no common shift",
        COMPOSE,
        "shift = torch.maximum(shift, c.detach())",
        "pass",
        algebra("huge-scores"),
    ),
    Mutant(
        "minus infinity as a shift",
        COMPOSE,
        "torch.where(torch.isneginf(shift), torch.zeros_like(shift), shift)",
        "shift",
        algebra("content-that-sees-nothing"),
    ),
    Mutant(
        "gate on the weight dropped",
        COMPOSE,
        "change, rho = gate * change, gate[..., 0] * rho",
        "rho = gate[..., 0] * rho",
        algebra("gates-inside"),
    ),
    Mutant(
        "gate ignored in the weight that is left",
        COMPOSE,
        "change, rho = gate * change, gate[..., 0] * rho",
        "change = gate * change",
        algebra("weight-left-to-content"),
    ),
    Mutant(
        "row and token masks ignored inside",
        COMPOSE,
        "c = torch.where(mask[:, None], c, -torch.inf)",
        "pass",
        algebra("routed-rows"),
    ),
    Mutant(
        "row and token masks ignored outside",
        COMPOSE,
        "change = change * mask[:, None, :, None].to(change.dtype)",
        "pass",
        algebra("tokens-out-of-scope"),
    ),
    Mutant(
        "heads in scope misplaced inside",
        COMPOSE,
        ".index_add(1, heads, t.contiguous())",
        ".index_add(1, heads.flip(0), t.contiguous())",
        algebra("heads-out-of-scope"),
    ),
    Mutant(
        "heads in scope misplaced outside",
        COMPOSE,
        "o.index_add(1, module.heads, change",
        "o.index_add(1, module.heads.flip(0), change",
        algebra("heads-out-of-scope"),
    ),
    Mutant(
        "mix adds instead of mixing",
        COMPOSE,
        "gate * (read.n - mine)",
        "gate * read.n",
        algebra("moved-out-with-constant-lambda"),
    ),
    Mutant("scale adds", COMPOSE, "(gate - 1) * mine", "gate * mine", algebra("token-gates-outside")),
    Mutant(
        "gate of an added read dropped",
        COMPOSE,
        "read.n if gate is None else gate * read.n",
        "read.n",
        algebra("llama-adapter"),
    ),
    Mutant(
        "nothing seen at all",
        COMPOSE,
        "total.masked_fill(total < torch.finfo(total.dtype).tiny, 1.0)",
        "total.clamp_min(torch.finfo(total.dtype).tiny)",
        VANISHED,
    ),
    Mutant(
        "autocast inside the blocks",
        "blocks/precision.py",
        "enabled=False",
        "enabled=True",
        algebra("merges-are-single-precision"),
    ),
    # the module
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
        "n * gate, m * gate[..., 0], None",
        "n * gate, m, None",
        algebra("gates-inside"),
    ),
    Mutant(
        "normaliser dropped",
        MODULE,
        "return Read(_divided(n, m)), gate",
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
    # the query
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
        "x.square().mean(-1, keepdim=True)",
        "torch.ones_like(x[..., :1])",
        algebra("query-block"),
    ),
    Mutant("l2 for rms", QUERY, "x.square().sum(-1", "x.square().mean(-1", algebra("query-block")),
    Mutant("query scale dropped", QUERY, "x = x * self.factor", "pass", algebra("ntk-attention")),
    # gates
    Mutant(
        "token gate without its bias", TOKEN, "(logit + self.bias)", "(logit)", algebra("token-gates-outside")
    ),
    Mutant(
        "token gate pooled over the sequence",
        TOKEN,
        "ACTIVATIONS[self.activation](logit + self.bias)",
        "ACTIVATIONS[self.activation](logit.mean(2, keepdim=True).expand_as(logit) + self.bias)",
        algebra("modules-are-causal"),
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
    # slots
    Mutant(
        "scaling of the slots lost", SLOTS, "key) * self.scaling", "key)", algebra("inside-is-concatenation")
    ),
    Mutant(
        "softcap of the slots lost",
        SLOTS,
        "score = torch.tanh(score / self.softcap) * self.softcap",
        "pass",
        algebra("inside-with-sinks-and-softcap"),
    ),
    Mutant(
        "keys not put through the kernel",
        SLOTS,
        "self._by_kernel(x, phi(key), value)",
        "self._by_kernel(x, key, value)",
        algebra("kernelised-with-normalizer"),
    ),
    Mutant(
        "kernel mass of one slot",
        SLOTS,
        "m = weight.sum(-1)\n",
        "m = weight[..., 0]\n",
        algebra("slots-collapse-into-a-matrix"),
    ),
    Mutant(
        "relu of slots dropped",
        SLOTS,
        "functional.relu(score), value",
        "score, value",
        algebra("relu-slots-are-a-parallel-adapter"),
    ),
    Mutant(
        "non-linear score without its scale",
        SLOTS,
        "self.alpha * torch.tanh(self.tau * score)",
        "self.alpha * torch.tanh(score)",
        algebra("norga-slots"),
    ),
    Mutant(
        "slot gates on the keys alone",
        SLOTS,
        "read = weight if gate is None else weight * gate",
        "read = weight",
        algebra("gated-slots"),
    ),
    Mutant("slot gates on the values alone", SLOTS, "score = gate * score", "pass", algebra("gated-slots")),
    Mutant(
        "slot gates of another token",
        "blocks/memory/slot_gates.py",
        ".repeat(1, 1, heads, 1)",
        ".repeat_interleave(heads, 2)",
        algebra("gated-slots"),
    ),
    Mutant(
        "slot gates without their scale",
        "blocks/memory/slot_gates.py",
        "self.scale * torch.sigmoid",
        "torch.sigmoid",
        algebra("gated-slots"),
    ),
    Mutant(
        "slots without a shift",
        SLOTS,
        "score.detach().amax(-1)",
        "0 * score.detach().amax(-1)",
        algebra("huge-scores"),
    ),
    Mutant(
        "mean mass of the slots", SLOTS, "weight.sum(-1), c)", "weight.mean(-1), c)", algebra("tradeoff-form")
    ),
    Mutant(
        "frozen slots are not saved",
        "blocks/parameterizations/frozen.py",
        'self.register_buffer("key", torch.empty(groups, count, shape.source_width))',
        'self.register_buffer("key", torch.empty(groups, count, shape.source_width), persistent=False)',
        algebra("frozen-slots"),
    ),
    Mutant(
        "frozen slots left out",
        "blocks/parameterizations/frozen.py",
        "torch.cat([self.value, value], 1)",
        "torch.cat([0 * self.value, value], 1)",
        algebra("frozen-slots"),
    ),
    Mutant(
        "values from the factors of keys",
        "blocks/parameterizations/low_rank.py",
        "self.value_left @ self.value_right",
        "self.key_left @ self.value_right",
        algebra("slot-parameterizations"),
    ),
    Mutant(
        "shared embedding without its tanh",
        "blocks/parameterizations/shared_kv.py",
        "e = torch.tanh(self.embedding)\n        return e @ self.key_weight",
        "e = self.embedding\n        return e @ self.key_weight",
        algebra("slot-parameterizations"),
    ),
    Mutant(
        "linear reparameterisation",
        "blocks/parameterizations/mlp.py",
        "torch.tanh(self.embedding @ self.weight_1 + self.bias_1)",
        "(self.embedding @ self.weight_1 + self.bias_1)",
        algebra("slot-parameterizations"),
    ),
    Mutant(
        "groups of a reparameterisation interleaved",
        "blocks/parameterizations/mlp.py",
        ".reshape(count, self.groups, self.key_width).transpose(0, 1)",
        ".reshape(count, self.key_width, self.groups).permute(2, 0, 1)",
        algebra("slot-parameterizations"),
    ),
    Mutant(
        "slots of another kv head",
        "blocks/parameterizations/frozen_projection.py",
        "used = sorted({h // repeat for h in shape.heads})",
        "used = sorted({shape.kv_heads - 1 - h // repeat for h in shape.heads})",
        algebra("heads-out-of-scope"),
    ),
    # matrices, vectors, tables
    Mutant(
        "normaliser may be negative",
        MATRIX,
        "functional.softplus(self.zeta)",
        "self.zeta",
        algebra("ntk-attention"),
    ),
    Mutant(
        "low-rank factor transposed",
        MATRIX,
        '"bgnw,gwr->bgnr", x, self.down)',
        '"bgnw,grw->bgnr", x, self.down.reshape(len(self.down), self.down.shape[2], -1))',
        algebra("matrix-forms"),
    ),
    Mutant(
        "diagonal reversed",
        MATRIX,
        "x * self.matrix[:, None]",
        "x * self.matrix[:, None].flip(-1)",
        algebra("matrix-forms"),
    ),
    Mutant(
        "mass of a vector not learned",
        "blocks/memory/vector.py",
        "c = self.log_mass[None, :, None]",
        "c = 0.5 + 0 * self.log_mass[None, :, None]",
        algebra("vector-inside"),
    ),
    Mutant(
        "rows of an edit not orthonormal",
        "blocks/memory/edit.py",
        "rows = (q * sign).transpose(1, 2)",
        "rows = self.free",
        TABLES,
    ),
    Mutant(
        "positions beyond the table",
        "blocks/memory/positions.py",
        " * (at < len(self.left))[..., None]",
        "",
        TABLES,
    ),
    Mutant(
        "mean instead of the sum of demonstrations",
        "blocks/inits/demonstrations.py",
        "mean_of_groups(module, feature.sum(1))",
        "mean_of_groups(module, feature.mean(1))",
        algebra("compiled-demonstrations"),
    ),
    # feature maps
    Mutant(
        "elu for elu + 1",
        "blocks/feature_maps/elu_plus_one.py",
        "functional.elu(x) + 1",
        "functional.elu(x)",
        MAPS,
    ),
    Mutant(
        "hedgehog without its other half",
        "blocks/feature_maps/hedgehog.py",
        "torch.cat([y, -y], -1)",
        "torch.cat([y, y], -1)",
        MAPS,
    ),
    Mutant(
        "half the norm forgotten in the random features",
        "blocks/feature_maps/favor_plus.py",
        "y.square().sum(-1, keepdim=True) / 2",
        "0 * y.square().sum(-1, keepdim=True)",
        MAPS,
    ),
    Mutant(
        "random rows of the wrong length",
        "blocks/feature_maps/favor_plus.py",
        "torch.cat(directions, -2) * lengths",
        "torch.cat(directions, -2) * width**0.5",
        MAPS,
    ),
    Mutant(
        "frequencies without their bandwidth",
        "blocks/feature_maps/random_fourier.py",
        "scale = spec.bandwidth * width**0.5",
        "scale = width**0.5",
        MAPS,
    ),
    Mutant(
        "buffers not saved",
        "blocks/feature_maps/favor_plus.py",
        "orthogonal_gaussian(groups, count, width))",
        "orthogonal_gaussian(groups, count, width), persistent=False)",
        MAPS,
    ),
    Mutant(
        "products without their root of two",
        "blocks/feature_maps/grouped.py",
        "2**0.5 * upper_products",
        "upper_products",
        MAPS,
    ),
    # the content
    Mutant(
        "gradient of the fused mass dropped",
        "hosts/fused.py",
        "dmass / norm * do",
        "0 * dmass / norm * do",
        FUSED,
    ),
    Mutant(
        "gradient of a fused mass without one of the output",
        "hosts/fused.py",
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
        "return mask[..., :length].to(query.dtype)",
        "return torch.zeros_like(mask[..., :length], dtype=query.dtype)",
        FUSED,
    ),
    Mutant(
        "keys of other heads for one query",
        "hosts/fused.py",
        "query.reshape(batch, groups, heads // groups, -1)",
        "query.reshape(batch, heads // groups, groups, -1).transpose(1, 2)",
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
        "self.query.shape[-1] ** -0.5 if told is None else told",
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
    # the seam
    Mutant("reads another token's query", SEAM, "rotated=query,", "rotated=query.flip(2),", mixed("causal")),
    Mutant(
        "reads another row's hidden state",
        SEAM,
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
    Mutant(
        "residual edits dropped",
        SEAM,
        'self._merge(self.residual_site, "residual", output, self.entered)',
        "None",
        shipped("trains-the-adapter-alone", "reft"),
    ),
    # adapters on a model
    Mutant(
        "rows not masked",
        "hosts/controller.py",
        "self.rows.index(batch, device)[:, None] == self.rows.names.index(name)",
        "self.rows.index(batch, device)[:, None] >= -1",
        shipped("rows-are-separate-batches", "prefix-tuning", "prefix-tuning-plus"),
    ),
    Mutant(
        "rows of beams mixed",
        "hosts/controller.py",
        ".repeat_interleave(batch // given, output_size=batch)",
        ".repeat(batch // given)",
        ("tests/hosts/test_adapters.py", "-k", "rows_equal_separate_runs"),
    ),
    Mutant(
        "prompt for generated",
        "hosts/controller.py",
        'generated if tokens == "generated" else ~generated',
        "generated",
        ("tests/hosts/test_tokens.py", "-k", "prompt_and_generated"),
    ),
    Mutant(
        "silenced adapters act",
        "hosts/controller.py",
        "return Plan(tuple(n for n in self.active if n not in self.silenced), None, facts)",
        "return Plan(self.active, None, facts)",
        shipped("disabled-is-the-base", "prefix-tuning"),
    ),
    Mutant(
        "base left frozen",
        "hosts/freeze.py",
        "parameter.requires_grad_(trainable)",
        "pass",
        shipped("detach-restores-the-base", "prefix-tuning"),
    ),
    Mutant(
        "base not frozen",
        "hosts/freeze.py",
        "parameter.requires_grad_(False)",
        "pass",
        shipped("trains-the-adapter-alone", "prefix-tuning"),
    ),
    Mutant(
        "checkpoint keys left behind",
        "hosts/freeze.py",
        'model._keys_to_ignore_on_save = state["ignored"]',
        "pass",
        shipped("detach-restores-the-base", "prefix-tuning"),
    ),
    Mutant(
        "tuner layers left behind",
        "hosts/peft_tuner.py",
        "setattr(self.model.get_submodule(parent), attribute, layer.get_base_layer())",
        "pass",
        shipped("detach-restores-the-base", "lora-qv"),
    ),
    Mutant(
        "text read where the input will stand",
        "hosts/compile.py",
        "positions = positions - len(ids)",
        "pass",
        ("tests/hosts/test_compile.py",),
    ),
    Mutant(
        "shared blocks counted in every layer",
        "blocks/context_module.py",
        "del self._modules[name]\n",
        "pass\n",
        ("tests/hosts/test_shared.py",),
    ),
    Mutant(
        "weights not checked",
        "adapters/load.py",
        "if tensor.shape != wanted[key].shape:",
        "if False:",
        ("tests/adapters/test_files.py",),
    ),
)
