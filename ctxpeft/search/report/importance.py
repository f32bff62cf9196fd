"""How much of the spread between designs each question explains: fANOVA over what the designs are.

The space is conditional: most of its dimensions exist in some trials only, and Optuna's evaluators look at those that
all trials share. So the questions are put to the designs instead (`answers`: placement, site, memory, feature map, and
so on), where each has an answer, "does not apply" among them, and the forest is fitted to these as categories. What it
predicts is the design's rank at the rung, so that one design that went wrong does not decide what is important.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxpeft.search.outcome import Row
from ctxpeft.search.report.choices import ABSENT, answers, trained

FEWEST = 10
TREES = 64


@dataclass(frozen=True)
class Importance:
    """shares: each question's part of the forest's variance by itself, largest first.

    skill: R² of a like forest on trials it was not fitted to (out of bag); at zero or below it predicts no better than
    the mean. designs: how many trials it was fitted to.
    """

    shares: list[tuple[str, float]]
    skill: float
    designs: int


def importance_of(rows: Sequence[Row]) -> Importance | None:
    """fANOVA (Hutter, Hoos and Leyton-Brown 2014) of the ranks at the rung; None for fewer than `FEWEST` designs."""
    from scipy.stats import rankdata

    designs = trained(rows)
    table = [answers(row) for row in designs]
    questions = list(dict.fromkeys(question for found in table for question in found))
    columns = {q: [found.get(q, ABSENT) for found in table] for q in questions}
    columns = {q: column for q, column in columns.items() if len(set(column)) > 1}
    values = [row.rung for row in designs if row.rung is not None]
    if len(values) < FEWEST or not columns or len(set(values)) == 1:
        return None
    ranks = [float(rank) for rank in rankdata(values)]
    return Importance(_fanova(columns, ranks), _skill(columns, ranks), len(values))


def _fanova(columns: dict[str, list[str]], values: Sequence[float]) -> list[tuple[str, float]]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.importance import FanovaImportanceEvaluator

    kinds: dict[str, BaseDistribution] = {
        q: CategoricalDistribution(sorted(set(column))) for q, column in columns.items()
    }
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a study in memory is nobody's news
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={q: column[i] for q, column in columns.items()}, distributions=kinds, value=value
            )
            for i, value in enumerate(values)
        ]
    )
    shares = FanovaImportanceEvaluator(n_trees=TREES, seed=0).evaluate(study)
    return sorted(((q, float(share)) for q, share in shares.items()), key=lambda item: (-item[1], item[0]))


def _skill(columns: dict[str, list[str]], values: Sequence[float]) -> float:
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.preprocessing import OneHotEncoder

    table = np.array(list(columns.values()), dtype=object).T
    encoded = OneHotEncoder(sparse_output=False).fit_transform(table)
    forest = RandomForestRegressor(n_estimators=4 * TREES, oob_score=True, random_state=0)
    return float(forest.fit(encoded, np.asarray(values)).oob_score_)
