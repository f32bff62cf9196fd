"""Mistakes in who acts where, and in what is frozen, counted and loaded."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, shipped

MUTANTS = (
    Mutant(
        "rows not masked",
        "hosts/controller.py",
        "self.rows.index(batch, device)[:, None] == self.rows.names.index(name)",
        "self.rows.index(batch, device)[:, None] >= -1",
        ("tests/hosts/test_rows.py", "-k", "masking"),
    ),
    Mutant(
        "rows of beams mixed",
        "hosts/rows.py",
        "range(row * times, (row + 1) * times)",
        "range(row, batch, batch // times)",
        ("tests/hosts/test_adapters.py", "-k", "rows_equal_separate_runs"),
    ),
    Mutant(
        "rows in the order of adapters",
        "hosts/rows.py",
        "whole if self.back is None else whole.index_select(0, self.back)",
        "whole",
        shipped("rows-are-separate-batches", "prefix-tuning", "prefix-tuning-plus"),
    ),
    Mutant(
        "states of other rows",
        "blocks/capture.py",
        "rotated=some(self.rotated)",
        "rotated=some(self.rotated.flip(0))",
        shipped("rows-are-separate-batches", "prefix-tuning-plus"),
    ),
    Mutant(
        "reads behind the projection in the order of adapters",
        "hosts/site.py",
        "return self.divided.join(added)",
        "return torch.cat(added)",
        ("tests/hosts/test_rows.py", "-k", "masking"),
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
        "if self.silenced:",
        "if False:",
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
        "setattr(model.get_submodule(parent), attribute, layer.get_base_layer())",
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
        "reads of GPT-2's LLaMA-Adapter projected",
        "adapters/peft_llama_adapter.py",
        '"gpt2": False',
        '"gpt2": True',
        ("tests/adapters/test_peft_import.py", "-k", "logits and llama-adapter-gpt2"),
    ),
    Mutant(
        "weights not checked",
        "adapters/load.py",
        "if shape != needed:",
        "if False:",
        ("tests/adapters/test_files.py",),
    ),
)
