"""The linear probe against its definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

from ctxpeft.analysis.compare import compare
from ctxpeft.errors import DataError
from ctxpeft.tasks import build_task, task_from_files
from ctxpeft.training import Bench, TrainingConfig, prepare, run
from ctxpeft.training._probe import READINGS, STRENGTHS, features, fit
from tests.tasks.tiny import write_jsonl

QUICK = TrainingConfig(steps=2, batch_size=4, eval_every=0)


def test_features_are_the_state_of_the_last_token(bench: Bench) -> None:
    found = features(bench, bench.train[:7])
    for k, e in enumerate(bench.train[:7]):
        with torch.no_grad():
            output = bench.base.model(torch.tensor([e.prompt]), output_hidden_states=True)
        states = output.hidden_states[-1][0].double().numpy()
        assert found["last"][k] == pytest.approx(states[-1], abs=1e-5)
        assert found["mean"][k] == pytest.approx(states.mean(0), abs=1e-5)


def test_it_is_the_logistic_regression_that_validation_chooses(bench: Bench, tmp_path: Path) -> None:
    result = run(bench, "probe", QUICK, out=tmp_path / "run", splits=("validation", "test", "ood"))
    hidden, held, test = (
        features(bench, bench.encoder.encode(bench.task.split(name)))
        for name in ("train", "validation", "test")
    )
    labels = list(bench.task.labels)
    train_y, held_y, test_y = (
        np.array([labels.index(e.target) for e in bench.task.split(name)])
        for name in ("train", "validation", "test")
    )
    tried = []
    for reading in READINGS:
        own = hidden[reading]
        mean, scale = own.mean(0), own.std(0)
        for c in STRENGTHS:
            fitted = LogisticRegression(C=c, max_iter=1000).fit((own - mean) / scale, train_y)
            logp = fitted.predict_log_proba((held[reading] - mean) / scale)
            accuracy = (fitted.predict((test[reading] - mean) / scale) == test_y).mean()
            tried.append((-logp[np.arange(len(held_y)), held_y].mean(), fitted, accuracy))
    best, fitted, accuracy = min(tried, key=lambda found: found[0])
    assert result.evaluations["validation"].metrics["loss"] == pytest.approx(best)
    assert result.evaluations["test"].value == pytest.approx(accuracy)
    assert result.trainable == (32 + 1) * 3
    assert set(result.evaluations) == {"validation", "test", "ood"}
    saved = load_file(tmp_path / "run" / "adapter" / "probe.safetensors")
    assert np.array_equal(saved["weight"], fitted.coef_)
    assert any("chosen on validation data" in note for note in result.notes)


def test_it_is_the_same_for_every_seed_and_has_no_rate(bench: Bench, tmp_path: Path) -> None:
    result = compare(
        bench, ["prefix-tuning-plus", "probe"], tmp_path, seeds=3, config=QUICK, lr_sweep=True, resamples=50
    )
    probe = result.entries[1]
    assert (len(set(probe.values)), probe.sd, probe.sweep, probe.learning_rate) == (1, None, [], 0.0)
    assert len(list((tmp_path / "runs").glob("probe-*/*"))) == 1
    assert "| probe | 99 | 99 |  |" in (tmp_path / "table.md").read_text()


def test_few_examples_are_drawn_for_it_too(bench: Bench, tmp_path: Path) -> None:
    spec = bench.task.spec.model_copy(update={"per_class": 2, "draw": "seed"})
    drawing = replace(bench, task=replace(bench.task, spec=spec))
    result = compare(drawing, ["prefix-tuning-plus", "probe"], tmp_path, seeds=3, config=QUICK, resamples=50)
    assert len(list((tmp_path / "runs").glob("probe-*/*"))) == 3
    assert result.entries[1].sd is not None


def test_a_class_that_training_never_shows_is_least_likely(bench: Bench) -> None:
    lacking = replace(
        bench, train=tuple(e for e in bench.train if e.example.target != "metal"), held_out=bench.held_out[:4]
    )
    probe = fit(lacking)
    scores = probe.scores(features(bench, bench.held_out)[probe.reading])
    assert (scores.argmax(1) != list(bench.task.labels).index("metal")).all()


def test_what_has_no_probe(bench: Bench, tmp_path: Path) -> None:
    rows = [{"prompt": f"we saw {i}", "completion": f"fox {i}"} for i in range(9)]
    task = build_task(task_from_files([str(write_jsonl(tmp_path / "d.jsonl", rows))]))
    with pytest.raises(DataError, match="needs a classification by label, and"):
        run(prepare(bench.base, task), "probe", QUICK)
    one = replace(bench, train=tuple(e for e in bench.train if e.example.target == "metal"))
    with pytest.raises(DataError, match="show one class only"):
        run(one, "probe", QUICK)
