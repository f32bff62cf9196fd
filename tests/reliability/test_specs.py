"""Whatever a spec file holds: a spec, or one sentence, and nothing is imported or run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctxpeft.errors import SpecError
from ctxpeft.spec.load import load_variant
from tests.reliability.specs import Target, fuzz, targets
from tests.reliability.watch import watched

EXAMPLES = 1000


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_only_our_errors_escape(target: Target, tmp_path: Path) -> None:
    tally = fuzz(target, EXAMPLES // len(targets()), tmp_path)
    assert tally.accepted + tally.refused == tally.inputs >= EXAMPLES // len(targets())
    assert tally.refused > tally.inputs // 4
    assert tally.accepted or "raw" in target.name
    assert tally.slowest < 20


def test_the_watch_sees_what_it_should(tmp_path: Path) -> None:
    """A watch that sees nothing would prove nothing."""
    module = tmp_path / "module_of_a_stranger.py"
    module.write_text("import os; os.system('true'); open(__file__, 'a').close()\n")
    sys.path.insert(0, str(tmp_path))
    try:
        with watched() as acts:
            import module_of_a_stranger  # type: ignore[import-not-found]  # noqa: F401
    finally:
        sys.path.remove(str(tmp_path))
    told = " ".join(acts)
    for act in ("import ('module_of_a_stranger',)", "exec (", "os.system (", "open ("):
        assert act in told
    with watched() as acts, pytest.raises(SpecError):
        load_variant({"name": "x", "modules": [{"placement": "os:system"}]})
    assert acts == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "it names code to import"),
        ({"auto_mapping": {"parent_library": "os"}}, "it names code to import"),
        ({"corda_config": {"cache_file": "/etc/passwd"}}, "it reads data or files"),
        ({"layer_replication": [[0, 1]]}, "it changes the base"),
        ({"init_lora_weights": "pissa"}, "it changes the base"),
        ({"target_modules": "(a+)+$"}, "may take for ever"),
        ({"target_modules": ".*.*.*.*x"}, "may take for ever"),
        ({"rank_pattern": {"(.*)*": 3}}, "may take for ever"),
        ({"exclude_modules": "x" * 501}, "may take for ever"),
    ],
)
def test_arguments_of_peft_that_no_spec_may_carry(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_variant({"name": "x", "peft": {"peft_type": "LORA", **arguments}})


@pytest.mark.parametrize(
    "arguments",
    [
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q_proj|v_proj)"},
        {"target_modules": ["q_proj"], "rank_pattern": {r"^model\.layers\.[0-9]+\..*q_proj": 4}},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"megatron_config": None},
    ],
)
def test_arguments_of_peft_that_are_fine(arguments: dict[str, object]) -> None:
    load_variant({"name": "x", "peft": {"peft_type": "LORA", **arguments}})
