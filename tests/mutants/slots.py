"""Mistakes in slots, their parameterizations and their gates."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, algebra

SLOTS = "blocks/memory/slots.py"

MUTANTS = (
    Mutant(
        "scaling of the slots lost",
        SLOTS,
        "grouped(x, key.transpose(1, 2)) * self.scaling",
        "grouped(x, key.transpose(1, 2))",
        algebra("inside-is-concatenation"),
    ),
    Mutant(
        "scaling of the slots lost by the kernel",
        SLOTS,
        "attention(x, key, value, None, False, self.scaling)",
        "attention(x, key, value, None, False, 1.0)",
        algebra("inside-is-concatenation"),
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
        "kernel below zero by rounding",
        SLOTS,
        "weight = weight.clamp_min(0)",
        "pass",
        ("tests/blocks/test_vanished_mass.py", "-k", "rounding"),
    ),
    Mutant(
        "keys of kernel slots without their map",
        SLOTS,
        "self._by_kernel(x, phi(key), value)",
        "self._by_kernel(x, phi(key).abs(), value)",
        algebra("kernel-slots-inside"),
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
        'self.register_buffer("key", torch.empty(wanted.keys()))',
        'self.register_buffer("key", torch.empty(wanted.keys()), persistent=False)',
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
        "sorted(set(wanted.site.kv_head_of_heads()))",
        "sorted({wanted.site.kv_heads - 1 - h for h in wanted.site.kv_head_of_heads()})",
        algebra("heads-out-of-scope"),
    ),
)
