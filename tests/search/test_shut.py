"""At the end of a search: of which choices no trial was feasible."""

from __future__ import annotations

from typing import Any

from ctxpeft.search.outcome import Row
from ctxpeft.search.report.words import answer
from ctxpeft.search.shut import in_words, shut_out


def row(number: int, feasible: bool, rule: str = "budget", **choices: Any) -> Row:
    if feasible:
        return Row(number, "pruned", choices=choices)
    return Row(number, "infeasible", rule=rule, reason=f"{number},000 parameters", choices=choices)


ROWS = [
    Row(0, "completed", anchor="lora-qv", value=1.0),
    row(1, True, map="elu", gate="none"),
    row(2, False, map="projection", width=8, activation="gelu", gate="none"),
    row(3, False, map="projection", width=9, activation="relu", gate="token"),
    row(4, True, map="gelu", gate="none"),
    Row(5, "running", choices={"map": "silu"}),
]


def test_a_choice_that_was_never_feasible_is_named_once() -> None:
    """Not its children, not its sizes, and not what stood beside it by chance: the gate `token`."""
    (found,) = shut_out(ROWS)
    assert (found.question, found.answer, found.trials) == ("map", "projection", 2)
    (sentence,) = in_words([found])
    assert sentence == (
        "No design with map = projection was feasible, so none was tried (2 trials; for example: 2,000 parameters)."
    )
    assert sentence in answer(ROWS, None, {"objective": "loss"})


def test_one_feasible_trial_is_enough() -> None:
    assert (
        shut_out([*ROWS, row(6, True, map="projection", activation="relu"), row(7, True, activation="gelu")])
        == []
    )


def test_the_budget_is_the_reason_that_is_told_first() -> None:
    """As a form that has no size of its own: refused by the spec in one trial, by the budget in the next."""
    rows = [row(1, True, map="elu"), row(2, False, rule="spec", map="exp"), row(3, False, map="exp")]
    (found,) = shut_out(rows)
    assert (found.answer, found.trials, found.reason) == ("exp", 2, "3,000 parameters")


def test_one_trial_is_too_few_and_a_question_without_another_answer_is_none() -> None:
    assert shut_out([row(1, True, map="elu"), row(2, False, map="exp")]) == []
    assert shut_out([row(1, False, map="elu"), row(2, False, map="elu")]) == []
