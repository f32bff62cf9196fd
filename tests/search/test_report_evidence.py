"""What a report says of blocks and rules: importance, effects and verdicts, on designs whose truth is known."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from ctxpeft.search.outcome import Row
from ctxpeft.search.report.choices import choices_of
from ctxpeft.search.report.front import planes_of
from ctxpeft.search.report.importance import FEWEST, importance_of
from ctxpeft.search.report.page import render
from ctxpeft.search.report.pictures import pareto
from ctxpeft.search.report.rules import Evidence, rules_of
from ctxpeft.search.report.scale import scale_of
from ctxpeft.search.report.words import guide_in_words, importance_in_words
from ctxpeft.spec.load import load_variant

MAPS = ("elu", "gelu", "relu")
QUERIES = ("rotated", "unrotated")


def design(number: int, rung: float, templates: tuple[str, ...] = ("matrix",), **module: Any) -> Row:
    """A pruned trial of prefix-tuning-plus with some keys changed."""
    variant = load_variant("prefix-tuning-plus").to_dict()
    variant["modules"][0].update(module)
    plain = load_variant(variant).to_dict()
    return Row(number, "pruned", rung=rung, variant=plain, templates=templates)


def grid(score: Any, copies: int = 3) -> list[Row]:
    """Every map with every query, `copies` times."""
    cells = [(kind, source) for kind in MAPS for source in QUERIES for _ in range(copies)]
    return [
        design(i, score(kind, source), feature_map={"kind": kind}, query={"source": source})
        for i, (kind, source) in enumerate(cells)
    ]


def test_importance_finds_the_question_that_decides() -> None:
    noise = random.Random(0)
    found = importance_of(
        grid(lambda kind, _: {"elu": 1.0, "gelu": 2.0, "relu": 5.0}[kind] + noise.gauss(0, 0.1))
    )
    assert found is not None
    assert found.designs == 18
    shares = dict(found.shares)
    assert set(shares) == {"feature map", "query"}, "what no design changes is no question"
    assert shares["feature map"] > 0.8 > 0.2 > shares["query"]
    assert sum(shares.values()) <= 1.0 + 1e-9
    assert found.skill > 0.6
    assert "share their importance" in importance_in_words(found)


def test_rates_that_stand_apart_are_a_question() -> None:
    rows = [
        design(i, 2.0 + i / 100, learning_rate_ratio=ratio) for i, ratio in enumerate([1, 1, 1, 30, 30, 30])
    ]
    (choice,) = choices_of(rows)
    assert choice.question == "learning rates"
    assert [(answer.name, len(answer.scores)) for answer in choice.answers] == [
        ("one", 3),
        ("a module at 30 times", 3),
    ]


def test_importance_of_noise_is_called_noise() -> None:
    noise = random.Random(1)
    found = importance_of(grid(lambda *_: noise.gauss(0, 1.0)))
    assert found is not None
    assert found.skill < 0.3
    assert "noise here" in importance_in_words(found) or "hint at best" in importance_in_words(found)


def test_importance_is_not_made_of_few_designs() -> None:
    rows = grid(lambda kind, _: float(MAPS.index(kind)))[: FEWEST - 1]
    assert importance_of(rows) is None
    assert f"fewer than {FEWEST}" in importance_in_words(None)


def test_importance_is_the_same_every_time() -> None:
    rows = grid(lambda kind, source: MAPS.index(kind) + 0.1 * len(source))
    assert importance_of(rows) == importance_of(rows)


def rule(rows: list[Row], name: str) -> Evidence:
    return next(tested for tested in rules_of(rows, {}) if tested.rule.id == name)


def squares(better: float) -> list[Row]:
    """Quadratic maps with the query normalised or not; normalising moves the objective by `better`."""
    noise = random.Random(2)
    return [
        design(
            i,
            2.0 + noise.gauss(0, 0.05) + (better if norm == "rms" else 0.0),
            feature_map={"kind": "squared_relu"},
            query={"source": "rotated", "norm": norm},
        )
        for i, norm in enumerate(["rms", "none"] * 5)
    ]


@pytest.mark.parametrize(("better", "verdict"), [(-1.0, "confirmed"), (1.0, "contradicted"), (0.0, "open")])
def test_a_rule_is_confirmed_or_contradicted_by_its_interval(better: float, verdict: str) -> None:
    found = rule(squares(better), "normalise-before-quadratic")
    assert found.verdict == verdict
    assert (len(found.kept), len(found.broken)) == (5, 5)
    assert found.within
    assert found.effect is not None
    assert found.effect.mean == pytest.approx(better, abs=0.1)
    assert found.effect.low < found.effect.mean < found.effect.high


def test_designs_of_other_templates_decide_no_rule() -> None:
    """Those that keep the rule are of one template and better for whatever reason, those that break it of another."""
    rows = [
        design(i, 1.0 + 0.01 * i, ("slots",), feature_map={"kind": "elu"}) if i % 2 else
        design(i, 3.0 + 0.01 * i, ("matrix",), feature_map={"kind": "squared_relu"})
        for i in range(10)
    ]  # fmt: skip
    found = rule(rows, "normalise-before-quadratic")
    assert found.effect is not None
    assert found.effect.significant
    assert found.verdict == "other choices differ too"


def test_a_rule_with_one_side_is_not_tested() -> None:
    found = rule(grid(lambda *_: 1.0), "normalise-before-quadratic")
    assert (len(found.kept), found.broken) == (18, [])
    assert found.verdict == "not tested"
    assert rules_of(squares(0.0), {})[0].rule.id == "normalise-before-quadratic", "tested ones first"


def test_facts_of_the_study_make_rules_speak() -> None:
    rows = grid(lambda *_: 1.0)
    about = {"input_tokens": 20, "train_examples": 100, "gqa": 3}
    broken = {t.rule.id for t in rules_of(rows, about) if t.broken}
    assert broken == {"share-when-data-are-few"}
    assert not [t for t in rules_of(rows, {}) if t.broken]


def test_the_guide_is_told_as_it_was() -> None:
    kept, broken = rules_of(grid(lambda *_: 1.0), {}), rules_of(squares(0.0), {})
    assert "No trained design breaks a must or should rule" in guide_in_words(kept, True)
    assert "search.guide=false" in guide_in_words(kept, True)
    assert "break these nevertheless: normalise-before-quadratic (5)" in guide_in_words(broken, True)
    assert guide_in_words(broken, False).startswith("The guide was off")
    assert "does not say" in guide_in_words(broken, None)


def measured(number: int, metric: float, forgetting: float, latency: float, **more: Any) -> Row:
    """A completed trial of a study with three objectives."""
    wanted = {"metric": metric, "forgetting": forgetting, "latency": latency}
    costs = (-metric, forgetting, latency)
    plain = design(number, rung=-metric / 2)
    known = replace(plain, outcome="completed", value=-metric, objectives=wanted, costs=costs, parameters=100)
    return replace(known, **more)


MANY = [measured(0, 0.8, 0.3, 1.1), measured(1, 0.6, 0.1, 1.2), measured(2, 0.5, 0.2, 1.3)]
ABOUT = {
    "objective": "metric",
    "objectives": ["metric", "forgetting", "latency"],
    "constraints": {"bytes": 5e5},
}


def test_several_objectives_are_fronts_of_their_own() -> None:
    planes = planes_of(MANY, ABOUT)
    assert [plane.name for plane in planes] == ["forgetting", "latency"]
    for plane in planes:
        assert plane.front == [0, 1], "trial 2 is worse than trial 1 in everything"
        assert not plane.whole
    assert dict(zip([r.number for r in planes[0].rows], planes[0].points, strict=True)) == {
        0: 0.3,
        1: 0.1,
        2: 0.2,
    }
    picture = pareto(planes[0], scale_of(ABOUT, MANY))
    assert "on the front: trial 1 0.1, 0.6000; trial 0 0.3, 0.8000" in picture
    assert "higher is better" in picture


def test_one_objective_is_set_against_the_parameters() -> None:
    rows = [
        Row(0, "completed", value=1.0, parameters=300),
        Row(1, "completed", value=2.0, parameters=100),
        Row(2, "completed", value=2.5, parameters=200),
    ]
    (plane,) = planes_of(rows, {"objective": "loss"})
    assert (plane.name, plane.front, plane.whole) == ("parameters", [0, 1], True)


def test_a_page_of_several_objectives_names_them_all() -> None:
    broken = measured(3, 0.9, 0.0, 1.0, violations={"bytes": 1e5})
    about = {
        **ABOUT,
        "space": "tiny", "model": "m", "task": "t", "command": "ctxpeft search tiny.yaml",
        "train_examples": 1, "validation_examples": 1, "test_examples": 0, "steps": 10, "rung_steps": 5, "keep": 0.5,
        "batch_size": 1, "environment": {"packages": {}},
    }  # fmt: skip
    html = render([*MANY, broken], None, about)
    assert html.count("pareto-") == 0, "names of pictures are not ids"
    assert "Held-out metric against rise of the loss on another text" in html
    assert "Held-out metric against time to decode" in html
    assert "breaks a constraint: bytes" in html
    for heading in ("forgetting", "latency", "bytes"):
        assert f'<th scope="col" class="n">{heading}</th>' in html
    assert "0.8000" in html
    assert "-0.8000" not in html, "a metric has its own sign"


def test_a_joint_loss_is_called_relative_and_explained() -> None:
    about = {"objective": "loss", "tasks": [{"name": "a"}, {"name": "b"}]}
    assert scale_of(about, []).label == "relative held-out loss (lower is better)"
    assert (
        scale_of({"objective": "loss", "tasks": [{"name": "a"}]}, []).label
        == "held-out loss (lower is better)"
    )
