"""The benchmarks of speed and size: every section runs, what it says is kept and becomes a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.hosts import host, tokens
from benchmarks.memory import peak_bytes
from benchmarks.settings import Case, Settings, full, quick
from benchmarks.subjects import MATRICES, OURS, REPLACES, SLOTS, floor, ours
from benchmarks.targets import targets
from benchmarks.timing import FLOOR, interleaved

FEW = ("prefix-tuning-plus", "prefix-tuning", "PEFT prefix tuning", "PEFT LoRA (q, v)")
TINY = Case("llama-3M", 1, 6, only=FEW)
ANSWERED = Case("llama-3M", 2, 9)
CPU = torch.device("cpu")


def tiny(device: torch.device, model: str | None) -> Settings:
    return Settings(
        device, (TINY,), (TINY,), (TINY,), (TINY,), TINY, "llama-3M", 2, (ANSWERED,), resident=65, points=1
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("section", list(command.SECTIONS))
def test_a_section_runs_and_becomes_a_page(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "quick", tiny)
    page, out = tmp_path / "performance.md", tmp_path / "performance"
    assert command.main([section, "--out", str(out), "--page", str(page)]) == 0
    record = json.loads((out / f"{section}.json").read_text())
    assert record["section"] == section
    assert record["environment"]["torch"] == torch.__version__
    assert record["tables"]
    assert all(table["kind"] == section for table in record["tables"])
    text, printed = page.read_text(), capsys.readouterr().out
    names = {FLOOR, *FEW} if section in ("step", "decode", "prefill", "size", "profile") else set(FEW[:2])
    if section == "cold":
        names = {"elu", "product added to o", "both, as the module calls them"}
        assert all(row["amid_us"][0] > 0 < row["share_of_token"] for row in record["tables"][0]["rows"])
    if section == "answers":
        names = {"at every token", "before labels alone"}
        assert record["tables"][0]["rows"][1]["peak_step_ratio"] < 1
    for name in names:
        assert f"| {name} |" in text or f", {name}**" in text
        assert name in printed
    assert ("scaling.svg" in text) == (section == "scaling") == (out / "scaling.svg").is_file()
    before = text
    assert command.main(["page", "--out", str(out), "--page", str(page)]) == 0
    assert page.read_text() == before


@pytest.mark.parametrize("variant", [None, "prefix-tuning-plus", "prefix-tuning"])
def test_a_compiled_subject_does_what_it_does_uncompiled(variant: str | None) -> None:
    """On a static cache, which it leaves as it was."""
    torch._dynamo.reset()
    model = host("llama-3M", CPU, torch.float32, num_hidden_layers=2)
    subject = floor(model) if variant is None else ours(model, variant)
    ids = tokens(model, 2, 5)
    expected = subject.decode(subject.prefill(ids), ids[:, :1], 3)
    subject.compile("eager")
    cache = subject.prefill_static(ids, 3)
    for _ in range(2):
        assert torch.equal(subject.decode_static(cache, ids[:, :1], 3), expected)
        assert cache.get_seq_length() == 5
    subject.step(ids)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["steps"], "no section is called 'steps'"),
        (["--model", "nowhere"], "--model: 'nowhere' is no folder of a model"),
        (["--rounds", "1"], "--rounds: 2 or more"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        command.main(words)
    assert error.value.code == 2
    assert sentence in capsys.readouterr().err


def test_ratios_are_taken_within_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that is slow for all changes no ratio."""
    slow = iter([1.0, 1.0, 50.0, 50.0, 2.0, 2.0])
    calls: list[str] = []

    def timed(function: Any, device: torch.device) -> tuple[float, float]:
        function()
        return (factor := next(slow)) * (1.1 if calls[-1] == "ours" else 1.0), factor

    monkeypatch.setattr("benchmarks.timing._timed", timed)
    functions = {name: (lambda n=name: calls.append(n)) for name in (FLOOR, "ours")}  # type: ignore[misc]
    found = interleaved(functions, 3, CPU)["ours"].plain()
    assert found["wall_ratio"] == pytest.approx([1.1] * 3, rel=1e-3)
    assert found["cpu_ratio"] == [1.0, 1.0, 1.0]
    assert found["rounds"] == 3


def test_peaks_are_the_live_allocations() -> None:
    """Two tensors of a megabyte at once, then another when one is gone: two megabytes."""

    def work() -> None:
        one, other = torch.empty(250_000), torch.empty(250_000)
        del one
        third = torch.empty(250_000)
        del other, third

    assert peak_bytes(work, CPU) == pytest.approx(2e6, rel=0.01)


def test_targets_are_missed_where_they_are() -> None:
    row = {"wall_ratio": [9.0, 9.0, 9.0]}
    table = {
        "kind": "step",
        "model": "m",
        "batch": 1,
        "tokens": 2,
        "compiled": False,
        "rows": [
            {"name": FLOOR, "cpu_ratio": [1.0, 1.0, 1.0], **row},
            {"name": "prefix-tuning-plus", "cpu_ratio": [1.031, 1.0, 1.1], **row},
            {"name": "prefix-tuning", "cpu_ratio": [1.05, 1.0, 1.1], **row},
            {"name": "PEFT prefix tuning", "cpu_ratio": [1.04, 1.0, 1.1], **row},
        ],
    }
    found = targets([table], "cpu")
    assert [(line[0], line[-1]) for line in found.rows] == [
        ("prefix-tuning-plus", "**missed**"),
        ("prefix-tuning", "met"),
        ("prefix-tuning-plus", "met"),
        ("prefix-tuning", "**missed**"),
    ]
    assert found.title == "Targets: 2 of 4 met"
    assert all(line[-1] == "**missed**" for line in targets([table], "cuda").rows[:2])
    compiled = {**table, "kind": "decode", "compiled": True, "rows": table["rows"][:3]}
    slots = [targets([{**compiled, "compiled": c}], "cpu").rows[-1] for c in (False, True)]
    assert [(line[0], line[2], line[-1]) for line in slots] == [
        ("prefix-tuning", "≤ 1.05", "met"),
        ("prefix-tuning", "≤ 1.03", "**missed**"),
    ]


def test_the_grid_covers_what_it_says() -> None:
    """Batches 1 to 16, 64 to 2048 tokens, both types, compiled or not; every variant named is measured."""
    whole = full(CPU, None)
    cases = [*whole.steps, *whole.decodes]
    assert {1, 4, 16} <= {case.batch for case in cases}
    assert {64, 256, 512, 1024, 2048} <= {case.tokens for case in cases}
    assert {case.dtype for case in cases} == {"float32", "bfloat16"}
    assert {case.compiled for case in cases} == {True, False}
    assert {64, 512, 2048} <= {case.tokens for case in quick(CPU, None).decodes}
    assert {*MATRICES, *SLOTS, *REPLACES} <= set(OURS)
