"""Learning rates: what blocks declare, grids that widen at their edge, and finalists tuned once more in full."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxpeft.analysis.rates import beyond, next_to
from ctxpeft.blocks.memory.vector import Vector
from ctxpeft.search.bench import Laboratory
from ctxpeft.search.fresh import final_rate, finalists
from ctxpeft.search.job import Job, with_settings
from ctxpeft.search.outcome import TRAINED, Row
from ctxpeft.search.rates import Rates
from ctxpeft.search.run import Found, search
from ctxpeft.spec.load import load_variant
from ctxpeft.training import TrainingConfig, load_method
from tests.search.test_study import copied

MATRIX = {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}
SLOTS = {"placement": "inside", "memory": {"kind": "slots"}}
BIAS = {"placement": "outside", "memory": {"kind": "vector"}}


@pytest.mark.parametrize(
    ("modules", "usual"),
    [
        ([MATRIX], 3e-3),
        ([SLOTS], 1e-1),
        ([SLOTS | {"placement": "outside"}], 3e-2),
        ([SLOTS | {"memory": {"kind": "slots", "parameterization": {"kind": "mlp"}}}], 3e-3),
        ([SLOTS, MATRIX], 3e-3),
        ([MATRIX, SLOTS], 3e-3),
    ],
)
def test_a_rate_comes_from_the_blocks_the_smallest_of_several(
    modules: list[dict[str, object]], usual: float
) -> None:
    found = load_variant({"name": "v", "modules": modules})
    assert found.usual_rate() == usual
    assert Rates(multipliers=[1.0]).of(found) == [usual]
    assert TrainingConfig().resolved(load_method(found), 100).learning_rate == usual


def test_a_block_declares_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vector, "learning_rate", 0.7)
    found = load_variant({"name": "v", "modules": [BIAS]})
    assert Rates().of(found) == [0.233, 0.7, 2.1]
    assert TrainingConfig().resolved(load_method(found), 100).learning_rate == 0.7
    assert TrainingConfig(learning_rate=0.2).resolved(load_method(found), 100).learning_rate == 0.2


def test_a_hint_comes_first_and_a_file_before_the_blocks() -> None:
    hinted = load_variant({"name": "v", "modules": [SLOTS], "training": {"learning_rate": 0.5}})
    rates = Rates(
        multipliers=[1.0], centre={"slots": 0.2, "inside.slots": 0.4, "matrix": [0.3], "peft": 0.01}
    )
    assert rates.of(hinted) == [0.5]
    assert rates.of(load_variant({"name": "v", "modules": [SLOTS]})) == [0.4]
    assert rates.of(load_variant({"name": "v", "modules": [SLOTS | {"placement": "outside"}]})) == [0.2]
    assert rates.of(load_variant({"name": "v", "modules": [MATRIX]})) == [0.3]
    assert Rates(centre={"matrix": [0.3]}).of(load_variant({"name": "v", "modules": [MATRIX]})) == [0.3]
    peft = {"name": "v", "peft": {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}}
    assert rates.of(load_variant(peft)) == [0.01]


@given(st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=5, unique_by=lambda r: round(r, 3)), st.data())
def test_a_grid_widens_beyond_its_edge_and_nowhere_else(tried: list[float], data: st.DataObject) -> None:
    best = data.draw(st.sampled_from(tried))
    wider = beyond(tried, best)
    if best in (min(tried), max(tried)):
        assert wider is not None
        assert wider > max(tried) or wider < min(tried) or len(set(tried)) == 1
    else:
        assert wider is None


def test_rates_beside_one() -> None:
    tried = [0.01, 0.03, 0.09]
    assert [next_to(tried, 0.03, down) for down in (True, False)] == [0.01, 0.09]
    assert [next_to(tried, 0.01, down) for down in (True, False)] == [0.00333, 0.03]
    assert [next_to(tried, 0.09, down) for down in (True, False)] == [0.03, 0.27]
    assert next_to(tried, 0.00333, down=True) == pytest.approx(0.00111)
    assert next_to([0.01], 0.01, down=True) is None
    assert beyond([0.01], 0.01) is None


@pytest.fixture(scope="module")
def wide(tiny_job: Job, found: Found, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Found]:
    """The tiny search with grids that widen and finalists that are tuned again."""
    settings = {"trials": 3, "retune": 2, "seeds": 1, "startup": 100}
    out = tmp_path_factory.mktemp("wide") / "study"
    job = copied(tiny_job, out, search=settings, rates={"widen": 2})
    return job, search(job)


def test_the_best_rate_lies_inside_its_grid_or_the_grid_was_widened(wide: tuple[Job, Found]) -> None:
    widened = 0
    for row in wide[1].rows:
        if row.outcome not in TRAINED:
            continue
        values = {r.rate: r.value for r in row.rates}
        rising = sorted(values)
        assert 2 <= len(rising) <= 4
        assert row.rung == min(v for v in values.values() if v is not None)
        best = min(rising, key=lambda rate: values[rate] or 0.0)
        if best in (rising[0], rising[-1]):
            assert len(rising) == 4, "the best is at the edge, and one more could have been tried"
        widened += len(rising) > 2
    assert widened


def test_finalists_are_tuned_in_full(wide: tuple[Job, Found]) -> None:
    job, found = wide
    assert found.finals is not None
    laboratory = Laboratory(job)
    for row in finalists(found.rows, job.search.finalists):
        full = full_values(job, row)
        final = next(m for m in found.finals.methods if m.number == row.number)
        assert row.rate is not None
        assert row.value is not None
        assert full[row.rate] == pytest.approx(row.value)
        assert final.rate == min(full, key=lambda rate: full[rate]), "the best of those tried in full"
        assert len(full) > 1
        below = [rate for rate in full if rate < row.rate]
        assert below, "a lower rate is tried first"
        assert final_rate(laboratory, row, laboratory.tasks[0]) == final.rate
    best = load_variant(job.out / "best.yaml")
    winner = next(m for m in found.finals.methods if m.number == found.finals.winner)
    assert best.training.learning_rate == winner.rate


def full_values(job: Job, row: Row) -> dict[float, float]:
    """What each rate of a design reached in full on the search's own seed, by the folders of its runs."""
    laboratory, steps, seed = Laboratory(job), job.open().steps("tiny"), job.search.seed
    found: dict[float, float] = {}
    todo = [row.rate or 0.0]
    while todo:
        rate = todo.pop()
        chosen = load_variant(row.variant)
        folder = laboratory.folder(chosen, rate, steps, seed)
        if rate in found or not (folder / "result.json").is_file():
            continue
        result = laboratory.train(chosen, rate, steps, seed)
        found[rate] = laboratory.score(result.evaluations["validation"])
        tried = [r.rate for r in row.rates]
        todo += [r for down in (True, False) if (r := next_to(tried, rate, down)) is not None]
    return found


def test_workers_tune_finalists_alike(wide: tuple[Job, Found], tmp_path: Path) -> None:
    job, found = wide
    shutil.copytree(job.out, tmp_path / "study")
    for folder in (tmp_path / "study" / "runs").iterdir():
        result = folder / "result.json"
        if result.is_file() and (folder / "predictions-test.jsonl").is_file():
            shutil.rmtree(folder)
    again = search(copied(job, tmp_path / "study"), workers=2)
    assert again.finals == found.finals


def test_without_retuning_the_rate_of_the_search_stands(wide: tuple[Job, Found]) -> None:
    job, found = wide
    plain = copied(job, job.out, search={"retune": 0})
    for row in finalists(found.rows, 1):
        assert final_rate(Laboratory(plain), row, "tiny") == row.rate


def test_a_study_made_before_grids_widened_goes_on_without(tiny_job: Job) -> None:
    before = Laboratory(tiny_job).describe()
    assert "widen" not in before["space"]["rates"]
    wider = with_settings(tiny_job.space, {"rates": {"widen": 1}})
    assert wider.file.rates.widen == 1
