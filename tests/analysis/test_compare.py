"""A comparison: fair, resumable, complete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctxpeft.analysis.compare import SWEEP_SEED, Comparison, compare
from ctxpeft.analysis.table import markdown, rows
from ctxpeft.errors import CtxpeftError, DataError, HostError, SpecError
from ctxpeft.training import Bench, TrainingConfig
from ctxpeft.training._job import Job

QUICK = TrainingConfig(steps=3, batch_size=4, eval_every=0)
VARIANTS = ["prefix-tuning-plus", "lora-qv", "none"]


@pytest.fixture(scope="module")
def study(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("study")
    return compare(
        bench, VARIANTS, out, seeds=2, config=QUICK, lr_sweep=True, sweep_steps=2, resamples=500
    ), out


def test_what_is_found(study: tuple[Comparison, Path]) -> None:
    result, _ = study
    assert [e.name for e in result.entries] == VARIANTS
    assert (result.metric, result.test_examples, result.seeds, result.steps) == ("accuracy", 30, [0, 1], 3)
    reference, lora, frozen = result.entries
    assert reference.difference is None
    assert lora.difference is not None
    assert lora.difference.mean == pytest.approx(lora.mean - reference.mean)
    assert lora.difference.low <= lora.difference.mean <= lora.difference.high
    assert 3 <= len(lora.sweep) <= 5
    assert lora.learning_rate == min(lora.sweep, key=lambda t: (t.loss, t.rate)).rate
    assert (frozen.trainable, frozen.sweep, frozen.sd) == (0, [], None)
    assert reference.ood is not None


def test_what_is_written(study: tuple[Comparison, Path]) -> None:
    result, out = study
    transferred = {f"transfer.{kind}" for kind in ("md", "json", "png")}  # the task has ood data
    assert {p.name for p in out.iterdir()} == {
        "runs",
        "compare.json",
        "table.md",
        "compare.png",
        *transferred,
    }
    written = json.loads((out / "compare.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    assert written["entries"][1]["difference"]["verdict"] in ("significant", "not significant")
    header, cells = rows(result)
    assert all(len(row) == len(header) for row in cells)
    assert (out / "table.md").read_text() == markdown(result)
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_test_data_are_read_at_the_chosen_rate_only(study: tuple[Comparison, Path]) -> None:
    result, out = study
    for folder in (out / "runs").glob("*/*"):
        tested = (folder / "predictions-test.jsonl").exists()
        assert tested == folder.name.startswith("seed-")
    for entry in result.entries:
        expected = 1 if entry.name == "none" else 2
        assert len(list((out / "runs").glob(f"{entry.name}-*/seed-*"))) == expected
    assert SWEEP_SEED not in result.seeds


def _count(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    done: list[tuple[str, int]] = []
    complete = Job.complete

    def counted(self: Job, *args: Any) -> Any:
        done.append((self.method.name, self.config.seed))
        return complete(self, *args)

    monkeypatch.setattr(Job, "complete", counted)
    return done


def test_only_what_is_missing_runs(
    bench: Bench, study: tuple[Comparison, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = study
    done = _count(monkeypatch)
    options: dict[str, Any] = {"config": QUICK, "lr_sweep": True, "sweep_steps": 2, "resamples": 500}
    again = compare(bench, VARIANTS, out, seeds=2, **options)
    assert done == []
    assert again == result
    more = compare(bench, [*VARIANTS, "ia3"], out, seeds=3, **options)
    assert [d for d in done if d[1] != SWEEP_SEED] == [
        ("prefix-tuning-plus", 2),
        ("lora-qv", 2),
        *(("ia3", seed) for seed in range(3)),
    ]
    assert {name for name, seed in done if seed == SWEEP_SEED} == {"ia3"}
    assert more.entries[0].values[:2] == result.entries[0].values
    with pytest.raises(CtxpeftError, match=r"training\.batch_size: 4 there, 8 here"):
        compare(bench, VARIANTS, out, seeds=2, config=QUICK.model_copy(update={"batch_size": 8}))


def test_rates_without_a_sweep_are_given_or_hinted(bench: Bench, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"learning_rate": 0.02})
    result = compare(bench, ["ia3", "lora-qv"], tmp_path, seeds=[7], config=config, resamples=50)
    assert [e.learning_rate for e in result.entries] == [0.02, 0.02]
    assert "not tuned here" in markdown(result)
    assert not list((tmp_path / "runs").glob("*/sweep-*"))


@pytest.mark.parametrize(
    ("variants", "seeds", "error", "told"),
    [
        (["ia3"], 1, SpecError, "two variants or more"),
        (["ia3", "ia3"], 1, SpecError, "named twice"),
        (["ia3", "lora-qvv"], 1, SpecError, "did you mean 'lora-qv'"),
        (["ia3", "none"], [1, 1], SpecError, "different seeds"),
        (["ia3", "none"], [], SpecError, "different seeds"),
    ],
)
def test_what_cannot_be_compared(
    bench: Bench,
    tmp_path: Path,
    variants: list[str],
    seeds: int | Sequence[int],
    error: type[CtxpeftError],
    told: str,
) -> None:
    with pytest.raises(error, match=told):
        compare(bench, variants, tmp_path / "out", seeds=seeds, config=QUICK)
    assert not (tmp_path / "out").exists()


def test_the_same_method_under_two_names(bench: Bench, tmp_path: Path) -> None:
    import ctxpeft

    twin = ctxpeft.load_variant("ia3").model_copy(update={"name": "other"})
    with pytest.raises(SpecError, match="the same method"):
        compare(bench, ["ia3", twin], tmp_path / "out", seeds=1, config=QUICK)


def test_a_variant_that_does_not_fit_stops_before_anything_runs(bench: Bench, tmp_path: Path) -> None:
    layers = {"name": "deep", "modules": [{"placement": "outside", "feature_map": {"kind": "elu"}}]}
    layers["modules"][0] |= {"memory": {"kind": "matrix"}, "scope": {"layers": [0, 17]}}  # type: ignore[index]
    with pytest.raises((HostError, SpecError)):
        compare(bench, ["ia3", layers], tmp_path / "out", seeds=1, config=QUICK)
    assert not (tmp_path / "out").exists()


def test_without_test_data_there_is_no_comparison(bench: Bench, tmp_path: Path) -> None:
    lacking = replace(bench, task=replace(bench.task, test=()))
    with pytest.raises(DataError, match="no test data"):
        compare(lacking, ["ia3", "none"], tmp_path / "out", seeds=1, config=QUICK)
